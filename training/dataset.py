"""Which rows does a task learn from? Its population at past cutoffs, features from Feast, labels from the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import duckdb
import pandas as pd

from features import build, labels
from features.store import repository
from foretell.declarations import Enters, PredictionTask
from foretell.errors import DataError
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import session, workers
from segments.predicate import parse
from training import entering
from unification.consent import barred, without
from unification.identity import ensure, facts_of

META = ["profile_id", "cutoff", "label", "weight", "person", "split"]


def feature_columns(project: Project, task: PredictionTask) -> list[str]:
    """The features of a task, in the order of its views."""
    return [f for view in project.definitions.views_of(task) for f in view.features]


def population_views(project: Project, task: PredictionTask) -> list[FeatureView]:
    """The views that the population's rule reads; a feature that nobody declares is refused with a suggestion."""
    where = f"population of {task.name}"
    return entering.views_of(project, parse(task.population, where=where), where, "ask for it by features")


def asked_views(project: Project, task: PredictionTask) -> list[FeatureView]:
    """Every view that must be built at a cutoff: the task's own, its population's, and those of the rule it enters."""
    rule_views: list[FeatureView] = []
    if isinstance(task.label, Enters):
        rule_views = entering.views_of(project, entering.rule_of(project, task), f"label of {task.name}")
    views = [*project.definitions.views_of(task), *population_views(project, task), *rule_views]
    return once(project, views)


def once(project: Project, views: Iterable[FeatureView]) -> list[FeatureView]:
    """Each version of a view once."""
    sources = dict(project.definitions.sources)
    return list({build.versioned(view, sources): view for view in views}.values())


def build_for(
    project: Project, tasks: Iterable[PredictionTask], cutoffs: Iterable[datetime],
    progress: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Build every view that these tasks and their populations need, at these cutoffs."""
    views = once(project, [view for task in tasks for view in asked_views(project, task)])
    return build.build(project, views, cutoffs, progress)


def population(con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime) -> list[str]:
    """The profiles eligible at the cutoff, from views built there.

    Of a task that Enters: those of its population that do not satisfy the rule yet.
    """
    everyone = _satisfying(con, project, task, cutoff)
    if not isinstance(task.label, Enters):
        return everyone
    inside = entering.inside_at(con, project, task, cutoff, everyone)
    return [profile for profile in everyone if profile not in inside]


def _satisfying(con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime) -> list[str]:
    """The profiles that satisfy the rule of the task's population at the cutoff, and may be used for its purpose."""
    return _may_be_used(con, project, task, cutoff)[0]


def _may_be_used(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime
) -> tuple[list[str], int]:
    """Of those that satisfy the rule of the population: who may be used for the task's purpose, how many may not."""
    found = sorted(p for (p,) in con.execute(_asked_about(con, project, task, cutoff)).fetchall())
    refused = without(con, project, task.purpose, cutoff, found)
    return [p for p in found if p not in refused], len(refused)


def _asked_about(con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime) -> str:
    """SQL for the profiles that satisfy the rule of the population, over the view `eligible`, which it makes."""
    return satisfying(con, project, task, [build.read(project, v, cutoff) for v in population_views(project, task)])


def satisfying(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, tables: Sequence[str],
    name: str = "eligible",
) -> str:  # fmt: skip
    """SQL for the profiles that satisfy the rule of the population. tables: of its views, in their order, which become
    the view `name`."""
    relation = tables[0]
    for table in tables[1:]:
        relation += f" JOIN (SELECT * EXCLUDE (event_timestamp, created) FROM {table}) USING (profile_id)"
    con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {relation}")
    schema = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {name}").fetchall()}
    return parse(task.population, where=f"population of {task.name}").bind(schema).sql(name)


def population_table(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime, name: str
) -> int:
    """What `population` and `left_out` say, of millions: makes the table `name` (profile_id); returns how many more
    satisfy the rule, but must not be used for the task's purpose."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {_asked_about(con, project, task, cutoff)}")
    refused = 0
    if query := barred(con, project, task.purpose, cutoff):
        gone = con.execute(f"DELETE FROM {name} WHERE profile_id IN ({query})").fetchall()
        refused = int(gone[0][0])
    if isinstance(task.label, Enters):
        entering.leave_out_inside(con, project, task, cutoff, name)
    return refused


def left_out(con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime) -> int:
    """How many satisfy the rule of the population at the cutoff, but must not be used for the task's purpose."""
    return _may_be_used(con, project, task, cutoff)[1]


def labels_at(
    con: duckdb.DuckDBPyConnection, project: Project, task: PredictionTask, cutoff: datetime
) -> pd.DataFrame:  # fmt: skip
    """One row per profile known at the cutoff, or of the population if the task Enters a rule.

    Columns: profile_id, label, weight, person, split. weight: 1/k where k profiles of T turned out to be one person by
    L. person: the group for cross-validation.
    """
    if isinstance(task.label, Enters):
        return entering.labels_at(con, project, task, cutoff, _satisfying(con, project, task, cutoff))
    return con.execute(labels.labels_at(con, project, task, cutoff)).df()


def training_set(
    project: Project,
    task: PredictionTask,
    cutoffs: Iterable[datetime],
    progress: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """One row per eligible profile and cutoff: META, then the task's features (numbers; text where a feature is text).

    Profiles that fell apart before their label was known are kept and flagged in `split`. Rows of people who did not
    agree to the task's purpose, as known at the cutoff, or who have withdrawn since, are left out: `.attrs` says how
    many, as "without_consent". A cutoff whose labels are not complete yet is refused.
    """
    cutoffs = sorted(set(cutoffs))
    latest = project.now - task.horizon - task.settle
    if cutoffs and cutoffs[-1] > latest:
        raise DataError(
            task.name, f"expected cutoffs up to {latest:%Y-%m-%d %H:%M}, got {cutoffs[-1]:%Y-%m-%d %H:%M}: its labels "
            f"are complete {task.horizon.days} days (horizon) and {task.settle.days} (settle) later, and it is "
            f"{project.now:%Y-%m-%d %H:%M}", "choose earlier ones",
        )  # fmt: skip
    build_for(project, [task], cutoffs, progress)
    frames, without_consent = [], 0
    with session(project) as own, workers(project, own) as con:
        for cutoff in cutoffs:
            progress(f"{task.name}: labels at {cutoff:%Y-%m-%d}")
            without_consent += left_out(con, project, task, cutoff)
            eligible = pd.DataFrame({"profile_id": population(con, project, task, cutoff)}, dtype=object)
            found = eligible.merge(labels_at(con, project, task, cutoff), on="profile_id")
            if unknown := int(found["label"].isna().sum()):
                raise DataError(
                    task.name, f"expected a label for everyone, got none for {unknown} of {len(found)} profiles at "
                    f"{cutoff:%Y-%m-%d}", "say what it is without facts: value=(...).fill_null(0)",
                )  # fmt: skip
            frames.append(found.assign(cutoff=pd.Timestamp(cutoff)))
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        refused = f"; {without_consent:,} more did not agree to {task.purpose}" if without_consent else ""
        raise DataError(
            task.name, f"nobody is eligible ({task.population}) at {len(cutoffs)} cutoffs{refused}",
            "loosen the population, or load more data",
        )  # fmt: skip
    progress(f"{task.name}: features from Feast")
    rows["event_timestamp"] = rows["cutoff"]
    made = with_features(project, task, rows).sort_values(["cutoff", "profile_id"], ignore_index=True)
    made.attrs["without_consent"] = without_consent
    return made


def eligible(
    project: Project, task: PredictionTask, cutoff: datetime, progress: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """profile_id, cutoff and the task's features of everyone eligible at a cutoff, whose outcome need not be known."""
    build_for(project, [task], [cutoff], progress)
    with session(project) as own, workers(project, own) as con:
        who = population(con, project, task, cutoff)
    rows = pd.DataFrame({"profile_id": pd.Series(who, dtype=object), "cutoff": pd.Timestamp(cutoff)})
    if rows.empty:
        return rows.reindex(columns=[*rows.columns, *feature_columns(project, task)])
    rows["event_timestamp"] = rows["cutoff"]
    return with_features(project, task, rows).sort_values("profile_id", ignore_index=True)


def with_features(project: Project, task: PredictionTask, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` (profile_id, event_timestamp, …) with the task's features by Feast's point-in-time join."""
    store = repository.apply(project, [task])
    keys = rows[["profile_id", "event_timestamp"]]
    features = repository.historical(store, repository.service_name(project, task), keys)
    columns = feature_columns(project, task)
    joined = rows.merge(features[["profile_id", "event_timestamp", *columns]], on=["profile_id", "event_timestamp"])
    kept = [c for c in rows.columns if c != "event_timestamp"]
    return joined[[*[c for c in META if c in kept], *[c for c in kept if c not in META], *columns]]


def first_fact(project: Project, task: PredictionTask) -> datetime:
    """Since when the facts that decide about population and label were known; refuses when one kind is missing.

    Other views may begin later: what was not recorded yet is an empty row then.
    """
    ensure(project)
    deciding = {role for view in population_views(project, task) for role in view.roles}
    if isinstance(task.label, Enters):
        deciding |= {
            role
            for view in entering.views_of(project, entering.rule_of(project, task), f"label of {task.name}")
            for role in view.roles
        }
    else:
        deciding.add(task.label.source)
    begins = []
    with session(project) as con:
        for name in sorted(deciding):
            stamps = [
                con.execute(f'SELECT min(greatest(event_at, known_at)) FROM "{s.name}"').fetchall()[0][0]
                for s in facts_of(con, project, name)
            ]
            if not (known := [s for s in stamps if s is not None]):
                raise DataError(task.name, f"no {name} facts are loaded", "run `foretell load` first")
            begins.append(min(known))
    return max(begins).astimezone(UTC)
