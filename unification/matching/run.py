"""Which profiles are probably one person? Match all of them, and keep what was found as links and as pairs to review.

Pairs from `match_at` on, of which clustering joins two, become links, known from now; those between `review_at` and it,
and those refused for a contradiction, wait for an answer. Profiles that somebody has parted or answered about are not
brought up again. Running it again adds what is new and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from foretell.errors import DefinitionError
from foretell.project import Project
from lake.engine import session
from unification.decisions import decisions
from unification.identity import members_at
from unification.matching import kept, matcher, on_spark, pairs
from unification.matching.kept import LINKED, REFUSED, REVIEW, Pair, pair_id
from unification.matching.people import LEFT_OUT, profiles


@dataclass(frozen=True)
class Found:
    """What a run found. trained: whether the model is new. said: what was made of which attribute."""

    version: str
    trained: bool
    profiles: int
    linked: int
    review: int
    refused: int
    said: list[str]


def match(
    project: Project, *, train: bool = False, version: str | None = None, step: Callable[[str], Any] = lambda text: None
) -> Found:  # fmt: skip
    """Match the profiles as known now. train: learn anew; version: of the model that is to be used."""
    match_at, review_at = thresholds(project)
    compare = partial(on_spark.blocked, project) if project.setting("engine") == "spark" else pairs.blocked
    with session(project) as con:
        step("reading profiles")
        understood, columns = people(con, project)
        known = None if train else kept.load(project, version)
        if known is None:
            model = matcher.train(con, columns, step, compare)
            number = kept.register(
                project, model, matcher.splink_json(con, model), {"match_at": match_at, "review_at": review_at}
            )
        else:
            number, model = known
            matcher.fit(con, columns, model)
        step("weighing pairs")
        matcher.predict(con, model, least=min(review_at, matcher.LEAST), compare=compare)
        rows, count = candidates(con, project, number, model, match_at, review_at)
    new = kept.keep(project, rows)
    states = [pair.state for pair in new]
    return Found(
        number,
        known is None,
        count,
        states.count(LINKED),
        states.count(REVIEW),
        states.count(REFUSED),
        understood.lines(),
    )


def thresholds(project: Project) -> tuple[float, float]:
    """match_at and review_at."""
    match_at, review_at = project.setting("match_at"), project.setting("review_at")
    if review_at > match_at:
        raise DefinitionError(
            "review_at", f"expected at most match_at ({match_at}), got {review_at}",
            "pairs between the two are to be reviewed; set them equal for none",
        )  # fmt: skip
    return match_at, review_at


def people(con: duckdb.DuckDBPyConnection, project: Project, apart: Any = ()) -> tuple[Any, list[str]]:
    """Make `given` and `people` of the profiles. Returns what was understood, and the columns."""
    named = profiles(con, project, apart)
    return matcher.read(con, "given", named={k: v for k, v in named.items() if v != "-"}, never=LEFT_OUT)


def candidates(
    con: duckdb.DuckDBPyConnection, project: Project, version: str, model: matcher.Model, match_at: float,
    review_at: float,
) -> tuple[list[Pair], int]:  # fmt: skip
    """The pairs that are to be kept, and how many profiles there were."""
    rows = con.execute("SELECT profile_id, node FROM given ORDER BY profile_id").fetchnumpy()
    names, nodes = rows["profile_id"], rows["node"]
    _leave_out_settled(con, project)
    apart = matcher.housemates(model)
    grouped = matcher.group(con, model, match_at, apart=apart)
    label = grouped.label
    refused = {place: f"two values of {name} contradict each other" for place, name in grouped.refused}
    found = con.execute(f"SELECT *, {apart} AS housemates FROM pairs WHERE probability >= {review_at}").df()
    made = []
    rows_found: Any = found.to_dict("records")
    for row in rows_found:
        left, right = int(row["l"]), int(row["r"])
        place = int(row["place"])
        if row["housemates"]:
            refused[place] = "different first names at one address"
        sure = row["probability"] >= match_at
        state = REFUSED if place in refused else LINKED if sure and label[left] == label[right] else REVIEW
        reason = refused.get(place, "")
        a, b = sorted((str(nodes[left]), str(nodes[right])))
        made.append(Pair(pair_id(a, b), state, a, b, float(row["probability"]), float(row["weight"]), version,
                         matcher.parts(model, row), reason))  # fmt: skip
    return made, len(names)


def _leave_out_settled(con: duckdb.DuckDBPyConnection, project: Project) -> None:
    """Take the pairs out of `pairs` about which somebody has decided; number those that stay by `place`."""
    made = decisions(project)
    stand = made[made["known_to"].isna()][["a", "b"]]
    con.register("settled", pd.DataFrame({"a": stand["a"].astype(str), "b": stand["b"].astype(str)}))
    con.execute(
        f"""CREATE OR REPLACE TABLE pairs AS WITH member_now AS ({members_at(project.now)}), place AS (
                SELECT profile_id, (row_number() OVER (ORDER BY profile_id) - 1) AS i FROM given),
            apart AS (SELECT DISTINCT x.i AS one, y.i AS other FROM settled s
                JOIN member_now m ON m.node = s.a JOIN place x ON x.profile_id = m.profile_id
                JOIN member_now n ON n.node = s.b JOIN place y ON y.profile_id = n.profile_id)
        SELECT *, row_number() OVER (ORDER BY probability DESC, l, r) - 1 AS place FROM pairs
        WHERE NOT EXISTS (FROM apart WHERE (one = l AND other = r) OR (one = r AND other = l))
        ORDER BY probability DESC, l, r"""
    )
    con.unregister("settled")


def bits(probability: float) -> float:
    """A probability as a weight."""
    return float(np.log2(probability / (1 - probability)))
