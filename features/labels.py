"""What happened after T? Labels of the profiles as known at T, from all facts known before L = T + horizon + settle.

`bridge(T, L)` pairs each profile at T with the profiles that its identifiers belong to at L: what a person did under
identifiers that were linked later counts for the outcome, though it never reaches the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import duckdb
import ibis
import ibis.expr.types as ir

from features.build import versions
from foretell.binding import aggregate, counted, facts_schema, table
from foretell.declarations import Label, PredictionTask, Source, Until
from foretell.errors import DataError
from foretell.project import Project
from foretell.windows import FUTURE_COLUMN
from lake.engine import instant
from unification.identity import facts_of, members_at


@dataclass(frozen=True, eq=False)
class FrozenLabel(Label):
    """A label as it was when a model was trained on it: its SQL in place of its expressions.

    sql: (one row per profile with facts, the label of no facts), as `compiled` makes it. waits: it is an Until.
    """

    value: Any = None
    sql: tuple[str, str] = ("", "")
    waits: bool = False

    def __post_init__(self) -> None:
        """It was checked when it was a declaration."""


def compiled(task: PredictionTask, sources: Mapping[str, Source]) -> tuple[str, str]:
    """SQL over the view `facts`: (one row per profile with facts: profile_id, label; the label of no facts)."""
    assert isinstance(task.label, Label)
    if isinstance(task.label, FrozenLabel):
        return task.label.sql
    schema = {"profile_id": "VARCHAR", **facts_schema(task.label.source, sources, label=True)}
    facts = counted(table(schema), task.label, task.name)
    bound = aggregate(facts, "label", task.label.value, what=task.name, where=task.where)
    nothing = facts.filter(cast(ir.BooleanValue, ibis.literal(False)))
    empty = nothing.aggregate(aggregate(nothing, "label", task.label.value, what=task.name, where=task.where))
    grouped = facts.group_by("profile_id").aggregate(bound)
    return str(ibis.to_sql(grouped, dialect="duckdb")), str(ibis.to_sql(empty, dialect="duckdb"))


def labels_at(con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime) -> str:
    """SQL for one row per profile known at the cutoff: profile_id, label, weight, person, split (see `persons`).

    For tasks whose label is a Label: an aggregate over the facts of the horizon. Without a fact that it waits Until,
    the label is the horizon, in days.
    """
    assert isinstance(task.label, Label)
    known_by = cutoff + task.horizon + task.settle
    sources = dict(project.definitions.sources)
    schema = facts_schema(task.label.source, sources)
    columns = ", ".join(f'f."{c}"' for c in schema if c not in {"cutoff", "trust"})
    grouped, empty = compiled(task, sources)

    bridge(con, cutoff, known_by)
    start, end = instant(cutoff), instant(cutoff + task.horizon)
    happened = " UNION ALL ".join(
        f"""SELECT b.profile_id, {columns}, {s.trust}::INTEGER AS trust, {start} AS cutoff, {start} AS {FUTURE_COLUMN}
            FROM {versions(s, known_by)} f JOIN at_label l USING (node) JOIN bridge b ON b.person = l.profile_id
            WHERE f.known_at < {instant(known_by)} AND f.event_at >= {start} AND f.event_at < {end}"""
        for s in facts_of(con, project, task.label.source)
    )
    if not happened:  # a label over nothing would say that everybody left
        raise DataError(task.name, f"no {task.label.source} facts are loaded", "run `foretell load` first")
    con.execute(f"CREATE OR REPLACE TEMP VIEW facts AS {happened}")
    label = "CASE WHEN g.profile_id IS NULL THEN e.label ELSE g.label END::DOUBLE"
    if isinstance(task.label, Until) or (isinstance(task.label, FrozenLabel) and task.label.waits):
        label = f"coalesce({label}, {task.horizon.total_seconds() / 86_400!r})"
    return f"""SELECT p.profile_id, {label} AS label, p.weight, p.person, p.split
        FROM ({persons()}) p LEFT JOIN ({grouped}) g USING (profile_id)
        CROSS JOIN ({empty}) e ORDER BY p.profile_id"""


def bridge(con: duckdb.DuckDBPyConnection, cutoff: datetime, known_by: datetime) -> None:
    """Make the tables `at_label`, the graph as known by L, and `bridge`: (profile_id at T, person at L) pairs."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE at_label AS {members_at(known_by)}")
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE bridge AS
            SELECT DISTINCT t.profile_id, l.profile_id AS person
            FROM ({members_at(cutoff)}) t JOIN at_label l USING (node)"""
    )


def persons() -> str:
    """SQL over `bridge` for one row per profile at T: profile_id, person, split, weight.

    weight: 1/k where k profiles of T turned out to be one person by L (each gets the person's label).
    person: the profile at L, the group for cross-validation. split: the profile of T fell apart by L.
    """
    return """SELECT profile_id, min(person) AS person, count(*) > 1 AS split, 1.0 / max(profiles) AS weight
        FROM (SELECT *, count(*) OVER (PARTITION BY person) AS profiles FROM bridge) GROUP BY profile_id"""
