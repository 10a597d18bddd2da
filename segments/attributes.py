"""What may a rule ask about a profile? One wide table: traits, features and scores, as they are now.

Scores reach it as a table: a new score is an attribute from the moment it is written. The latest score of each task
counts, until it expires; scores of profiles that have merged belong to the profile they are now. No two attributes have
one name: discovery refuses that, and a trait or feature hides the old scores of a task of its name that is no more.
"""

from __future__ import annotations

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


def create(con: duckdb.DuckDBPyConnection, project: Project) -> dict[str, str]:
    """Make the temporary table `attributes` in a lake session; returns its columns with their types.

    One row per profile: its golden traits and identifiers, its features at the latest scored cutoff, its scores, and
    for each purpose whether it may be used for that now (`consent_<purpose>`, which rules call consent('<purpose>')).
    A score whose purpose its person did not agree to is no attribute.
    """
    if not (project.home / "derived" / "profiles.parquet").exists():
        raise NotReady("attributes", "there are no profiles yet", "run `foretell load` and `foretell unify` first")
    joins, columns = [], ["p.*"]
    scores = _scores(con, project)
    if scores:
        taken = {name for name, *_ in con.execute("DESCRIBE profiles").fetchall()}
        taken |= {feature for view in project.definitions.of_profiles.values() for feature in view.features}
        found = con.execute(f"SELECT DISTINCT task FROM ({scores}) ORDER BY 1").fetchall()
        tasks = [task for (task,) in found if taken.isdisjoint(task + suffix for suffix in SCORE_COLUMNS)]
        pivot = "".join(
            f""", max({source}) FILTER (task = '{task}') AS "{task}{suffix}\""""
            for task in tasks
            for suffix, source in SCORE_COLUMNS.items()
        )
        joins.append(f"LEFT JOIN (SELECT profile_id{pivot} FROM ({scores}) GROUP BY 1) s USING (profile_id)")
        columns.append("s.* EXCLUDE (profile_id)")
        cutoff = con.execute(f"SELECT max(cutoff) FROM scores WHERE cutoff <= {instant(project.now)}").fetchall()[0][0]
        for view in project.definitions.of_profiles.values():
            if cutoff is not None and build.file_of(project, view, cutoff).exists():
                joins.append(f'LEFT JOIN {build.read(project, view, cutoff)} AS "{view.name}" USING (profile_id)')
                columns.append(f'"{view.name}".* EXCLUDE (profile_id, event_timestamp, created)')
    for purpose in sorted({*purposes(project, con), *(task.purpose for task in project.definitions.tasks.values())}):
        query = barred(con, project, purpose, project.now)
        allowed = f"p.profile_id NOT IN ({query})" if query else "true"
        columns.append(f'{allowed} AS "{CONSENT}{purpose}"')
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE attributes AS SELECT {', '.join(columns)} FROM profiles p {' '.join(joins)}"
    )
    return {name: kind for name, kind, *_ in con.execute("DESCRIBE attributes").fetchall()}


def _scores(con: duckdb.DuckDBPyConnection, project: Project) -> str | None:
    """SQL for the latest live score per profile of today and task."""
    if not table(project, "scores").exists:
        return None
    now = instant(project.now)
    found = con.execute("SELECT DISTINCT purpose FROM scores WHERE purpose IS NOT NULL ORDER BY 1").fetchall()
    refused = "".join(  # a score is used for its purpose, whoever asks
        f" AND NOT (s.purpose = '{quote(purpose)}' AND m.profile_id IN ({query}))"
        for (purpose,) in found
        if (query := barred(con, project, purpose, project.now))
    )
    return f"""SELECT m.profile_id, s.* EXCLUDE (profile_id) FROM scores s
        JOIN (SELECT DISTINCT birth_id, profile_id FROM ({members_at(project.now)})) m ON m.birth_id = s.profile_id
        WHERE s.cutoff <= {now} AND s.expires_at > {now}{refused}
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
