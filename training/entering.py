"""Who came to satisfy a rule? The label of a task that Enters: the rule's state one horizon later, as known by L.

The rule is asked twice, by the same code: at T, as known at T, to find those that satisfy it already and are not asked
about; at T + horizon, as known by L = T + horizon + settle, of the persons that the profiles of T turned out to be.
Both times `top` and `bottom` rank the task's population and nobody else.
"""

from __future__ import annotations

from datetime import datetime

import duckdb
import pandas as pd

from features import build
from features.labels import bridge, persons
from foretell.declarations import Enters, PredictionTask
from foretell.errors import DataError, unknown
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import quote
from segments.audience import declared
from segments.predicate import Predicate, parse
from unification.identity import facts_of


def rule_of(project: Project, task: PredictionTask) -> Predicate:
    """The rule that a task's profiles enter: a declared segment's, or the text itself."""
    assert isinstance(task.label, Enters)
    text, known = task.label.rule.strip(), declared(project)
    if text in known:
        return known[text].rule
    if text.isidentifier():
        raise unknown("segment", text, known, where=f"label of {task.name}")
    return parse(text, where=f"label of {task.name}")


def views_of(
    project: Project, rule: Predicate, where: str,
    fix: str = "expand it with `foretell lookalike`, which compares profiles as they are now",
) -> list[FeatureView]:  # fmt: skip
    """The views that hold the features a rule reads. Scores and traits are refused: their past is not kept as known."""
    homes = {feature: view for view in project.definitions.of_profiles.values() for feature in view.features}
    traits = {trait for source in project.definitions.sources.values() for trait in source.traits}
    for name in sorted(rule.columns - homes.keys()):
        is_score = name.removesuffix("_percentile") in project.definitions.tasks
        if is_score or name in traits:
            raise DataError(
                name,
                f"is a {'score' if is_score else 'trait'}; a rule that is replayed in the past can read features only",
                f"read the feature known_{name}" if f"known_{name}" in homes else fix, where=where,
            )  # fmt: skip
        raise unknown("feature", name, homes, where=where)
    return list({homes[name].name: homes[name] for name in sorted(rule.columns)}.values())


def inside_at(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime, eligible: list[str]
) -> set[str]:
    """Those among the population at T that satisfy the rule then, from views built there."""
    return {profile for (profile,) in con.execute(_inside(con, project, task, cutoff, _values(eligible))).fetchall()}


def leave_out_inside(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime, population: str
) -> None:
    """Delete those that satisfy the rule at T already from a table of the population (profile_id)."""
    query = _inside(con, project, task, cutoff, population)
    con.execute(f"DELETE FROM {population} WHERE profile_id IN ({query})")


def _inside(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime, crowd: str
) -> str:
    """SQL for those of a crowd that satisfy the rule at T, over the table `asked`, which it makes."""
    rule = rule_of(project, task)
    views = views_of(project, rule, f"label of {task.name}")
    _frame(con, [build.read(project, view, cutoff) for view in views], crowd)
    return _selection(con, rule)


def labels_at(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime, population: list[str]
) -> pd.DataFrame:
    """One row per profile of the population at T: profile_id, label (1.0: satisfies the rule), weight, person, split.

    A profile that fell apart by L enters if one of its pieces does.
    """
    rule, known_by = rule_of(project, task), cutoff + task.horizon + task.settle
    bridge(con, cutoff, known_by)
    relations = []
    for view in views_of(project, rule, f"label of {task.name}"):
        if not any(
            facts_of(con, project, role) for role in view.roles
        ):  # over an empty table nobody would ever enter, or everybody
            raise DataError(task.name, f"no {' or '.join(view.roles)} facts are loaded", "run `foretell load` first")
        query = build.rows_at(con, project, view, cutoff + task.horizon, known_by)
        con.execute(f'CREATE OR REPLACE TEMP TABLE "later_{view.name}" AS {query}')
        relations.append(f'"later_{view.name}"')
    asked = f"(SELECT DISTINCT person AS profile_id FROM bridge JOIN {_values(population)} USING (profile_id))"
    _frame(con, relations, asked)
    entered = _values(sorted(_selected(con, rule)))
    return con.execute(
        f"""SELECT p.profile_id, coalesce(bool_or(e.profile_id IS NOT NULL), false)::DOUBLE AS label,
                any_value(p.weight) AS weight, any_value(p.person) AS person, any_value(p.split) AS split
            FROM ({persons()}) p JOIN {_values(population)} USING (profile_id) JOIN bridge b USING (profile_id)
            LEFT JOIN {entered} e ON e.profile_id = b.person
            GROUP BY p.profile_id ORDER BY p.profile_id"""
    ).df()


def _frame(con: duckdb.DuckDBPyConnection, relations: list[str], crowd: str) -> None:
    """Make the table `asked`: the columns of these relations, for the profiles of the crowd."""
    joined = f"{crowd} c"
    for relation in relations:
        joined += f" JOIN (SELECT * EXCLUDE (event_timestamp, created) FROM {relation}) USING (profile_id)"
    con.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT * FROM {joined}")


def _selected(con: duckdb.DuckDBPyConnection, rule: Predicate) -> set[str]:
    return {profile for (profile,) in con.execute(_selection(con, rule)).fetchall()}


def _selection(con: duckdb.DuckDBPyConnection, rule: Predicate) -> str:
    schema = {name: kind for name, kind, *_ in con.execute("DESCRIBE asked").fetchall()}
    return rule.bind(schema).sql("asked")


def _values(profiles: list[str]) -> str:
    """Profile ids as a table of one column."""
    listed = ", ".join(f"'{quote(p)}'" for p in profiles)
    return f"(SELECT unnest([{listed}]::VARCHAR[]) AS profile_id)"
