"""Who is in a segment now? Sizes, members and exports of a rule over the attributes of all profiles."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from foretell.errors import DataError, ForetellError, NotReady, UnknownName, unknown
from foretell.project import Project
from lake.engine import session
from segments import attributes
from segments.definitions import Segment, load_segments
from segments.predicate import Predicate, parse
from unification.consent import barred, without


@dataclass(frozen=True)
class Audience:
    """The members of a rule now: a frame of profile_id and the attributes the rule reads; total: all profiles.

    purpose: what they are chosen for, "" if for nothing in particular. without_consent: how many more satisfy the rule,
    but did not agree to that.
    """

    name: str
    members: pd.DataFrame
    total: int
    purpose: str = ""
    without_consent: int = 0


def declared(project: Project) -> Mapping[str, Segment]:
    return load_segments(project.folder / "segments")


def rule_of(project: Project, name: str) -> Predicate:
    """The rule of a declared segment, or the text itself read as a rule."""
    known = declared(project)
    if name in known:
        return known[name].rule
    if name.isidentifier():
        raise unknown("segment", name, known)
    return parse(name)


def audience(
    project: Project, name: str, columns: list[str] | None = None, purpose: str | None = None
) -> Audience:  # fmt: skip
    """The profiles that satisfy a segment or a rule now, with the attributes it reads (or `columns`), by profile_id.

    purpose: only who agreed to it is a member; None: as the segment says.
    """
    rule, known = rule_of(project, name), declared(project)
    purpose = (known[name].purpose if name in known else "") if purpose is None else purpose
    with session(project) as con:
        schema = attributes.create(con, project)
        bound = _bound(project, rule, schema)
        wanted = columns or sorted(rule.columns)
        for column in wanted:
            if column not in schema:
                raise unknown("attribute", column, schema)
        listed = "".join(f', "{c}"' for c in wanted if c != "profile_id")
        members = con.execute(
            f"SELECT profile_id{listed} FROM attributes WHERE profile_id IN ({bound.sql()}) ORDER BY profile_id"
        ).df()
        total = int(con.execute("SELECT count(*) FROM attributes").fetchall()[0][0])
        found = members["profile_id"].tolist()
        refused = without(con, project, purpose, project.now, found) if purpose else set()
    members = members[~members["profile_id"].isin(refused)].reset_index(drop=True)
    return Audience(name, members, total, purpose, len(refused))


def _bound(project: Project, rule: Predicate, schema: Mapping[str, str]) -> Predicate:
    """The rule, bound to the attributes there are; says so when it reads one that scoring has yet to make."""
    known = project.definitions
    for name in rule.columns - {c.lower() for c in schema}:
        task = name.removesuffix("_percentile")
        if task in known.tasks:
            raise NotReady(name, "has no live scores", f"run `foretell train {task}` and `foretell score {task}`")
        if any(name in view.features for view in known.of_profiles.values()):
            raise NotReady(name, "is a feature, known once something has been scored", "run `foretell score` first")
    return rule.bind(schema)


def selections(
    con: duckdb.DuckDBPyConnection, project: Project, schema: Mapping[str, str]
) -> list[tuple[Segment, str | ForetellError]]:
    """Every declared segment with the SQL for its members, once `attributes` is made in the session `con`.

    Instead of SQL, the error of a rule that reads an attribute which does not exist (yet: its task may be unscored).
    """
    found: list[tuple[Segment, str | ForetellError]] = []
    for segment in declared(project).values():
        try:
            query = _bound(project, segment.rule, schema).sql()
            if segment.purpose and (refused := barred(con, project, segment.purpose, project.now)):
                query = f"SELECT profile_id FROM ({query}) WHERE profile_id NOT IN ({refused})"
            found.append((segment, query))
        except (UnknownName, NotReady) as error:
            found.append((segment, error))
    return found


def sizes(project: Project) -> list[tuple[Segment, int | ForetellError, int]]:
    """Every declared segment with its size now, or why it has none (see `selections`), and the number of profiles."""
    with session(project) as con:
        schema = attributes.create(con, project)
        total = int(con.execute("SELECT count(*) FROM attributes").fetchall()[0][0])

        def size(query: str | ForetellError) -> int | ForetellError:
            if isinstance(query, ForetellError):
                return query
            return int(con.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0])

        return [(segment, size(query), total) for segment, query in selections(con, project, schema)]


def export(found: Audience, file: Path) -> int:
    """Write an audience to a CSV file, atomically. Returns the number of members."""
    if file.suffix.lower() != ".csv":
        raise DataError(str(file), "audiences are exported as CSV", f"name it {file.with_suffix('.csv').name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    found.members.to_csv(draft, index=False, quoting=csv.QUOTE_MINIMAL)
    os.replace(draft, file)
    return len(found.members)
