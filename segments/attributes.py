"""What may a rule ask about a profile? One wide table: traits, features and scores, as they are now.

Scores reach it as a table: a new score is an attribute from the moment it is written. The latest score of each task
counts, until it expires; scores of profiles that have merged belong to the profile they are now. No two attributes have
one name: discovery refuses that, and a trait or feature hides the old scores of a task of its name that is no more.

Only what is asked for is read: a rule over three attributes costs three columns, not a table of everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from features import build
from foretell.errors import NotReady
from foretell.project import Project
from lake.catalogue import CONSENT
from lake.consent import purposes
from lake.engine import instant, quote, table
from unification.consent import barred
from unification.identity import members_at

# What a score adds to a profile, as <task> and <task>_<suffix>.
SCORE_COLUMNS = {"": "value", "_percentile": "percentile"}


@dataclass(frozen=True)
class Attributes:
    """The attributes there are in a lake session. schema: name -> DuckDB type.

    views: the relation and the features of each built view. tasks: task -> purposes of its live scores, of the tasks
    whose scores are attributes. allowed: purpose -> SQL for who must not be used for it, None if it is open to all.
    cutoff: the latest that was scored, which features are of.
    """

    con: duckdb.DuckDBPyConnection
    project: Project
    schema: Mapping[str, str]
    traits: Collection[str]
    views: Mapping[str, tuple[str, Collection[str]]]
    tasks: Mapping[str, Collection[str]]
    allowed: Mapping[str, str | None]
    cutoff: datetime | None

    def create(self, columns: Collection[str] | None = None) -> None:
        """Make the temporary table `attributes`: profile_id and these columns (None: all), one row per profile."""
        wanted = {name.lower() for name in (self.schema if columns is None else columns)}
        own = [f'p."{name}"' for name in self.traits if name.lower() in wanted and name != "profile_id"]
        listed = ["p.profile_id", *own]
        joins = []
        scored = {t: s for t in self.tasks if (s := [s for s in SCORE_COLUMNS if (t + s).lower() in wanted])}
        asked = {purpose for purpose in self.allowed if (CONSENT + purpose).lower() in wanted}
        needed = asked.union(*(self.tasks[task] for task in scored if len(self.tasks[task]) == 1))
        open_to = {purpose: self._consent(purpose, joins) for purpose in sorted(needed)}
        if scored:
            self._latest(scored)
            joins.append("LEFT JOIN latest_scores s USING (profile_id)")
            listed += [self._score(task, suffix, open_to) for task in scored for suffix in scored[task]]
            listed.append(f's.profile_id IS NOT NULL AS "{_SCORED}"')
        for name, (relation, features) in self.views.items():
            if some := [feature for feature in features if feature.lower() in wanted]:
                joins.append(f'LEFT JOIN {relation} AS "{name}" USING (profile_id)')
                listed += [f'"{name}"."{feature}"' for feature in some]
        listed += [f'{open_to[purpose]} AS "{CONSENT}{purpose}"' for purpose in sorted(asked)]
        made = (
            f"CREATE OR REPLACE TEMP TABLE attributes AS SELECT {', '.join(listed)} FROM profiles p {' '.join(joins)}"
        )
        self.con.execute(made)
        if scored and self._merge(scored):
            self.con.execute(made)

    def _consent(self, purpose: str, joins: list[str]) -> str:
        """SQL for whether a profile may be used for a purpose; adds the join that it needs."""
        if (query := self.allowed.get(purpose)) is None:
            return "true"
        name = '"not for ' + purpose.replace('"', '""') + '"'
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT profile_id FROM ({query})")
        joins.append(f"LEFT JOIN {name} USING (profile_id)")
        return f"({name}.profile_id IS NULL)"

    def _score(self, task: str, suffix: str, open_to: Mapping[str, str]) -> str:
        """SQL for a score, which is none without consent to its purpose: it is used for that, whoever asks."""
        column = f's."{task}{suffix}"'
        if len(self.tasks[task]) != 1:  # scored for several purposes: `_latest` has left the others out
            return column
        said = open_to[next(iter(self.tasks[task]))]
        return column if said == "true" else f'CASE WHEN {said} THEN {column} END AS "{task}{suffix}"'

    def _latest(self, scored: Mapping[str, Collection[str]]) -> None:
        """Make `latest_scores`: per profile the latest live scores of these tasks, a column each.

        By the id that was scored, which is nearly always the one of today; who has merged is then decided by itself.
        """
        # cutoff, version and time of scoring in one number: which of a profile's scores is the latest
        key = f"(epoch_us(cutoff)::HUGEINT * {2**20} + model_version::INTEGER) * {2**52} + epoch_us(scored_at)"
        columns = ", ".join(
            f"""arg_max_null({SCORE_COLUMNS[suffix]}, key) FILTER (task = '{task}') AS "{task}{suffix}\""""
            for task in scored
            for suffix in scored[task]
        )
        refused = "".join(
            f""" AND NOT (task = '{task}' AND coalesce(purpose, '') = '{quote(purpose)}' AND profile_id IN ({query}))"""
            for task in scored
            if len(self.tasks[task]) != 1
            for purpose in sorted(self.tasks[task])
            if (query := self.allowed.get(purpose))
        )
        names = ", ".join(f"'{task}'" for task in scored)
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE latest_scores AS SELECT profile_id, {columns} FROM (
                    SELECT *, {key} AS key FROM scores
                    WHERE task IN ({names}) AND {_live(self.project)}{refused}) GROUP BY profile_id"""
        )

    def _merge(self, scored: Mapping[str, Collection[str]]) -> bool:
        """Decide again about who has merged since being scored. Says whether there was anybody."""
        found = f'SELECT (SELECT count(*) FROM latest_scores), count(*) FILTER ("{_SCORED}") FROM attributes'
        ids, met = self.con.execute(found).fetchall()[0]
        if ids == met:
            return False
        exact = ", ".join(
            f"""max({SCORE_COLUMNS[suffix]}) FILTER (task = '{task}') AS "{task}{suffix}\""""
            for task in scored
            for suffix in scored[task]
        )
        theirs = _scores(self.con, self.project, "SELECT profile_id FROM merged")
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE gone AS
                SELECT profile_id FROM latest_scores ANTI JOIN profiles USING (profile_id);
            CREATE OR REPLACE TEMP TABLE merged AS SELECT DISTINCT profile_id FROM ({members_at(self.project.now)})
                WHERE birth_id IN (SELECT profile_id FROM gone);
            DELETE FROM latest_scores WHERE profile_id IN (FROM gone UNION FROM merged);
            INSERT INTO latest_scores SELECT profile_id, {exact} FROM ({theirs}) GROUP BY 1"""
        )
        return True


def known(con: duckdb.DuckDBPyConnection, project: Project) -> Attributes:
    """The attributes there are now, of a lake session; nothing is made yet.

    Golden traits and identifiers, features at the latest scored cutoff, scores, and for each purpose whether a profile
    may be used for that now (`consent_<purpose>`, which rules call consent('<purpose>')). A score whose purpose its
    person did not agree to is no attribute.
    """
    if not (project.home / "derived" / "profiles.parquet").exists():
        raise NotReady("attributes", "there are no profiles yet", "run `foretell load` and `foretell unify` first")
    traits = _columns(con, "profiles")
    schema, tasks, views, cutoff = dict(traits), {}, {}, None
    if table(project, "scores").exists:
        taken = {*traits, *(f for view in project.definitions.of_profiles.values() for f in view.features)}
        found = con.execute(
            f"""SELECT task, list(DISTINCT coalesce(purpose, '')) FROM scores WHERE {_live(project)}
                GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        tasks = {
            task: list(meant) for task, meant in found if taken.isdisjoint(task + suffix for suffix in SCORE_COLUMNS)
        }
        schema |= {task + suffix: "DOUBLE" for task in tasks for suffix in SCORE_COLUMNS}
        cutoff = con.execute(f"SELECT max(cutoff) FROM scores WHERE cutoff <= {instant(project.now)}").fetchall()[0][0]
        for view in project.definitions.of_profiles.values():
            if cutoff is not None and build.file_of(project, view, cutoff).exists():
                relation = build.read(project, view, cutoff)
                own = {n: k for n, k in _columns(con, relation).items() if n not in _STAMPS}
                views[view.name] = relation, own
                schema |= own
    meant = {*purposes(project, con), *(task.purpose for task in project.definitions.tasks.values())}
    schema |= {CONSENT + purpose: "BOOLEAN" for purpose in sorted(meant)}
    meant |= {purpose for several in tasks.values() for purpose in several}
    allowed = {purpose: barred(con, project, purpose, project.now) for purpose in sorted(meant)}
    return Attributes(con, project, schema, traits, views, tasks, allowed, cutoff and cutoff.astimezone(UTC))


_SCORED = "scored under this id"  # in no schema: no rule can ask for it
_STAMPS = ("profile_id", "event_timestamp", "created")


def create(con: duckdb.DuckDBPyConnection, project: Project) -> dict[str, str]:
    """Make the temporary table `attributes` with every attribute; returns its columns with their types."""
    found = known(con, project)
    found.create()
    return dict(found.schema)


def _columns(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def _live(project: Project) -> str:
    now = instant(project.now)
    return f"cutoff <= {now} AND expires_at > {now}"


def _scores(con: duckdb.DuckDBPyConnection, project: Project, only: str = "") -> str | None:
    """SQL for the latest live score per profile of today and task. only: a query of the profiles that are wanted."""
    if not table(project, "scores").exists:
        return None
    found = con.execute("SELECT DISTINCT purpose FROM scores WHERE purpose IS NOT NULL ORDER BY 1").fetchall()
    refused = "".join(  # a score is used for its purpose, whoever asks
        f" AND NOT (s.purpose = '{quote(purpose)}' AND m.profile_id IN ({query}))"
        for (purpose,) in found
        if (query := barred(con, project, purpose, project.now))
    )
    wanted = f" WHERE profile_id IN ({only})" if only else ""
    return f"""SELECT m.profile_id, s.* EXCLUDE (profile_id) FROM scores s
        JOIN (SELECT DISTINCT birth_id, profile_id FROM ({members_at(project.now)}){wanted}) m
            ON m.birth_id = s.profile_id
        WHERE {_live(project)}{refused}
        QUALIFY row_number() OVER (PARTITION BY m.profile_id, s.task
            ORDER BY s.cutoff DESC, s.model_version::INTEGER DESC, s.profile_id = m.profile_id DESC, s.scored_at DESC,
                s.score_id) = 1"""


def scores_of(con: duckdb.DuckDBPyConnection, project: Project, profile_id: str) -> list[dict]:
    """The latest live scores of one profile, as contract rows."""
    query = _scores(con, project)
    if query is None:
        return []
    found = con.execute(f"SELECT * FROM ({query}) WHERE profile_id = ? ORDER BY task", [profile_id])
    names = [d[0] for d in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
