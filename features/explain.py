"""Which events are behind one value of one profile? Each fact is asked twice: what it says alone, and what is missing
without it.

That holds for every aggregate that a view may be made of, as the view's own expression answers: nothing is said here
about any feature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import duckdb

from features.build import compile_view, facts_before, know_accounts, know_profiles, versioned
from foretell.binding import facts_schema
from foretell.errors import DataError, NotReady, unknown
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import last_batch, session
from unification.identity import ensure, resolve

MOST = 1000  # facts that are left out one by one: so many of the latest


@dataclass(frozen=True)
class Behind:
    """What a value comes from.

    view: the version of the view. profile: its id today. value: the feature at the cutoff; empty: what a profile
    without facts has. columns: of the facts, those that the feature reads. facts: one row per fact behind the value,
    the latest first: source, event_at, those columns, `alone` (the value if it were the only fact) and `without` (the
    value if it were not there). seen: how many facts the view saw.
    """

    view: str
    profile: str
    value: Any
    empty: Any
    columns: list[str]
    facts: list[dict[str, Any]]
    seen: int


def view_of(project: Project, feature: str) -> FeatureView:
    """The declared view that has a feature. Raises UnknownName with a suggestion."""
    views = project.definitions.of_profiles.values()
    for view in views:
        if feature in view.features:
            return view
    raise unknown("feature", feature, [name for view in views for name in view.features])


def behind(project: Project, who: str, feature: str, cutoff: datetime) -> Behind:
    """The facts behind a feature of a profile, as known at the cutoff.

    who: a profile id, old or new, or an identifier. Raises UnknownName, NotReady where nobody knew the profile yet, or
    DataError for a feature that everybody's facts are behind.
    """
    ensure(project)
    view = view_of(project, feature)
    with session(project, last_batch(project)) as con:
        return behind_of(con, project, view, resolve(con, project, who), feature, cutoff)


def behind_of(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, profile: str, feature: str, cutoff: datetime
) -> Behind:
    """The same in a session, whose facts may be those of an earlier batch, of a profile by its id at the cutoff."""
    if view.facts_of == "everybody":
        problem = f"is made of everybody's facts, as the view {view.name} says, and not of a few"
        raise DataError(feature, problem, "ask for a feature that is made of the profile's own")
    sources = dict(project.definitions.sources)
    alone = replace(view, features={feature: view.features[feature]})
    grouped, empty = compile_view(alone, sources)
    _own_facts(con, project, view, profile, cutoff)
    value = _ask(con, "FROM own", grouped)
    nothing = con.execute(f"SELECT * FROM ({empty})").fetchall()[0][0]
    each = _ask(con, "SELECT fact_id AS profile_id, * EXCLUDE (profile_id) FROM own", grouped)
    latest = f"SELECT fact_id FROM own ORDER BY event_at DESC, fact_id LIMIT {MOST}"
    rest = f"SELECT i.fact_id AS profile_id, f.* EXCLUDE (profile_id) FROM own f JOIN ({latest}) i"
    others = _ask(con, f"{rest} ON f.fact_id <> i.fact_id", grouped)
    asked = [fact for (fact,) in con.execute(latest).fetchall()]
    columns = [c for c in facts_schema(view.source, sources) if f'"{c}"' in grouped]
    columns = [c for c in columns if c not in {"event_at", "cutoff", "fact_id"}]
    listed = ", ".join(f'"{c}"' for c in ["fact_id", "_source", "event_at", *columns])
    rows = con.execute(f"SELECT {listed} FROM own ORDER BY event_at DESC, fact_id").fetchall()
    now = value.get(profile, nothing)
    without = {fact: others.get(fact, nothing) for fact in asked}
    facts = [
        {"source": source, "event_at": at, **dict(zip(columns, rest, strict=True)),
         "alone": each.get(fact, nothing), "without": without.get(fact)}
        for fact, source, at, *rest in rows
        if each.get(fact, nothing) != nothing or without.get(fact, now) != now
    ]  # fmt: skip
    return Behind(versioned(view, sources), profile, now, nothing, columns, facts, len(rows))


def _own_facts(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, profile: str, cutoff: datetime
) -> None:
    """Make the table `own`: the facts that the view sees of a profile at the cutoff. Raises NotReady."""
    know_profiles(con, cutoff)
    if not con.execute("SELECT count(*) FROM profile_at WHERE profile_id = ?", [profile]).fetchall()[0][0]:
        raise NotReady(profile, f"not known before {cutoff:%Y-%m-%d %H:%M}", "choose a later --at")
    owner = "profile_at"
    if view.facts_of == "account":
        know_accounts(con, project, cutoff)
        owner = "account_of"
    known = facts_before(con, project, view.source, cutoff, cutoff, view.lookback)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE own AS SELECT o.profile_id, f.* FROM ({known}) f
            JOIN {view.facts_of}_nodes USING (node) JOIN {owner} o USING (nr) WHERE o.profile_id = ?""",
        [profile],
    )


def _ask(con: duckdb.DuckDBPyConnection, facts: str, grouped: str) -> dict[str, Any]:
    """The feature of each group of facts."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW facts AS {facts}")
    return dict(con.execute(f"SELECT * FROM ({grouped})").fetchall())
