"""Who is in a segment now? Sizes, members and exports of a rule over the attributes of all profiles."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foretell.errors import DataError, UnknownName, unknown
from foretell.project import Project
from lake.engine import session
from segments import attributes
from segments.definitions import Segment, load_segments
from segments.predicate import Predicate, parse


@dataclass(frozen=True)
class Audience:
    """The members of a rule now: a frame of profile_id and the attributes the rule reads; total: all profiles."""

    name: str
    members: pd.DataFrame
    total: int


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


def audience(project: Project, name: str, columns: list[str] | None = None) -> Audience:
    """The profiles that satisfy a segment or a rule now, with the attributes it reads (or `columns`), best first."""
    rule = rule_of(project, name)
    with session(project) as con:
        schema = attributes.create(con, project)
        bound = rule.bind(schema)
        wanted = columns or sorted(rule.columns)
        for column in wanted:
            if column not in schema:
                raise unknown("attribute", column, schema)
        listed = "".join(f', "{c}"' for c in wanted if c != "profile_id")
        members = con.execute(
            f"SELECT profile_id{listed} FROM attributes WHERE profile_id IN ({bound.sql()}) ORDER BY profile_id"
        ).df()
        total = int(con.execute("SELECT count(*) FROM attributes").fetchall()[0][0])
    return Audience(name, members, total)


def sizes(project: Project) -> list[tuple[Segment, int | UnknownName, int]]:
    """Every declared segment with its size now and the number of all profiles.

    Instead of a size, the error of a rule that reads an attribute which does not exist (yet: its task may be unscored).
    """
    segments = declared(project)
    with session(project) as con:
        schema = attributes.create(con, project)
        total = int(con.execute("SELECT count(*) FROM attributes").fetchall()[0][0])
        found: list[tuple[Segment, int | UnknownName, int]] = []
        for segment in segments.values():
            try:
                query = f"SELECT count(*) FROM ({segment.rule.bind(schema).sql()})"
                found.append((segment, int(con.execute(query).fetchall()[0][0]), total))
            except UnknownName as error:
                found.append((segment, error, total))
        return found


def export(found: Audience, file: Path) -> int:
    """Write an audience to a CSV file, atomically. Returns the number of members."""
    if file.suffix.lower() != ".csv":
        raise DataError(str(file), "audiences are exported as CSV", f"name it {file.with_suffix('.csv').name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    found.members.to_csv(draft, index=False, quoting=csv.QUOTE_MINIMAL)
    os.replace(draft, file)
    return len(found.members)
