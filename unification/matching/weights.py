"""How sure is it that two are one person, and why? The weights of a pair's comparisons, from the prior to their sum.

In bits: each doubles the odds. The two are compared as the facts alone would have them: links that matching and reviews
have made are left out, so that a pair that was linked can still be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretell.errors import DataError, NotReady
from foretell.project import Project
from lake.engine import session
from unification.identity import node_of
from unification.matching import kept, matcher
from unification.matching.people import without_found
from unification.matching.run import people

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bar:
    """What one comparison adds: its level in words, bits, and both values."""

    name: str
    level: str
    bits: float
    values: tuple[str, str]


@dataclass(frozen=True)
class Weighed:
    """The weights of two identifiers' people. bars: the prior first; weight: their sum."""

    a: str
    b: str
    version: str
    bars: list[Bar]
    weight: float
    probability: float


def weigh(project: Project, one: str, other: str, version: str | None = None) -> Weighed:
    """Compare the people of two identifiers by the model in use, or by a given version of it."""
    known = kept.load(project, version)
    if known is None:
        raise NotReady("identity weights", "no model of matching is trained yet", "run `foretell identity match` first")
    number, model = known
    with session(project) as con:
        a, b = node_of(con, project, one), node_of(con, project, other)
        groups = [without_found(con, project, node) for node in (a, b)]
        if set(groups[0]) & set(groups[1]):
            raise DataError(
                f"{a} and {b}", "expected two people, got identifiers that facts have linked: nothing is weighed there",
                "`foretell identity explain` shows the chain of links",
            )  # fmt: skip
        _, columns = people(con, project, groups)
        matcher.fit(con, columns, model)
        places = con.execute(
            """SELECT profile_id, i FROM (SELECT profile_id, (row_number() OVER () - 1) AS i FROM given)
               WHERE profile_id IN ('0', '1') ORDER BY 1"""
        ).fetchall()
        left, right = (int(i) for _, i in places)
        con.execute(
            "CREATE OR REPLACE TABLE _only AS SELECT ?::BIGINT AS join_key_l, ?::BIGINT AS join_key_r",
            sorted((left, right)),
        )
        matcher.predict(con, model, "one_pair", least=0.0, only="_only")
        row: Any = con.execute("FROM one_pair").df().to_dict("records")[0]
        values = {}
        for comparison in model.comparisons:
            shown = f"concat_ws(' ', {', '.join(comparison.reads)})"
            query = f"SELECT unique_id, {shown} FROM people WHERE unique_id IN (?, ?)"
            found = {int(i): str(text) for i, text in con.execute(query, [left, right]).fetchall()}
            values[comparison.name] = (found.get(left, ""), found.get(right, ""))
    said = matcher.parts(model, row).items()
    bars = [Bar(name, level, bits, values.get(name, ("", ""))) for name, (level, bits) in said]
    return Weighed(a, b, number, bars, float(row["weight"]), float(row["probability"]))


def picture(found: Weighed) -> Figure:
    """A waterfall: from the prior, comparison by comparison, to the final weight."""
    from foretell.pictures import BLUE, GREY, INK, VERMILION, as_text, canvas, dress, title

    figure = canvas(9.5, 1.9 + 0.42 * len(found.bars))
    ax = figure.subplots()
    at = 0.0
    names = []
    for place, bar in enumerate([*found.bars, Bar("sum", "", found.weight, ("", ""))]):
        begin = 0.0 if bar.name == "sum" else at
        colour = INK if bar.name == "sum" else GREY if bar.name == "prior" else BLUE if bar.bits >= 0 else VERMILION
        ax.barh(place, bar.bits, left=begin, color=colour, height=0.62)
        edge = max(begin, begin + bar.bits)
        ax.annotate(
            f"{bar.bits:+.1f}", (edge, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
        if bar.name != "sum":
            ax.plot([at + bar.bits] * 2, [place - 0.31, place + 1.31], color=GREY, linewidth=0.8)
        at = begin + bar.bits
        said = f"  {bar.values[0] or '–'} | {bar.values[1] or '–'}" if any(bar.values) else ""
        names.append(as_text(f"{bar.name}: {bar.level}{said}" if bar.level else f"probability {found.probability:.3f}"))
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.use_sticky_edges = False
    ax.margins(x=0.12, y=0.03)
    dress(ax, grid="x")
    ax.set_xlabel("bits: each doubles the odds", color=INK, fontsize=9)
    verdict = f"One person with probability {found.probability:.3f}"
    title(figure, verdict, f"{as_text(found.a)} and {as_text(found.b)}, weighed by model {found.version}")
    return figure
