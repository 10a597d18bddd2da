"""Who is in a segment now? Sizes, members and exports of a rule over the attributes of all profiles."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from foretell.errors import DataError, ForetellError, NotReady, UnknownName, unknown
from foretell.project import Project
from lake.catalogue import CONSENT
from lake.engine import session
from segments import attributes
from segments.attributes import Attributes
from segments.definitions import NAME, Segment, load_segments
from segments.predicate import Predicate, parse
from segments.ranking import thresholds


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
    return asked(project, name)[0]


def asked(project: Project, name: str, purpose: str | None = None) -> tuple[Predicate, str]:
    """The rule of a declared segment, or the text itself read as a rule; and what its members are chosen for.

    That is `purpose` if one is given, else what the segment says, "" of a bare rule.
    """
    if re.fullmatch(NAME, name):
        known = declared(project)
        if name in known:
            return known[name].rule, known[name].purpose if purpose is None else purpose
        if name.isidentifier():
            raise unknown("segment", name, known)
    return parse(name), purpose or ""


def audience(
    project: Project, name: str, columns: list[str] | None = None, purpose: str | None = None
) -> Audience:  # fmt: skip
    """The profiles that satisfy a segment or a rule now, with the attributes it reads (or `columns`), by profile_id.

    purpose: only who agreed to it is a member; None: as the segment says.
    """
    rule, purpose = asked(project, name, purpose)
    with session(project) as con:
        known = attributes.known(con, project)
        wanted = columns or sorted(bind(project, rule, known.schema).columns)
        for column in columns or ():
            if column not in known.schema:
                raise unknown("attribute", column, known.schema)
        condition = prepared(con, project, known, [rule], {*wanted, f"{CONSENT}{purpose}"})[0]
        agreed = consented(known, purpose)
        listed = "".join(f', "{c}"' for c in wanted if c != "profile_id")
        members = con.execute(
            f"SELECT profile_id{listed} FROM attributes WHERE ({condition}) AND {agreed} ORDER BY profile_id"
        ).df()
        total, fit = con.execute(f"SELECT count(*), count(*) FILTER ({condition}) FROM attributes").fetchall()[0]
    return Audience(name, members, int(total), purpose, int(fit) - len(members))


def consented(known: Attributes, purpose: str) -> str:
    """SQL over `attributes` for whether a profile may be used for a purpose; a purpose of none is open to all."""
    return '"' + (CONSENT + purpose).replace('"', '""') + '"' if known.allowed.get(purpose) else "true"


def prepared(
    con: duckdb.DuckDBPyConnection, project: Project, known: Attributes, rules: Sequence[Predicate],
    more: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """Make `attributes` with all that these rules read, and `more`; returns each rule's condition over it as SQL.

    Raises UnknownName or NotReady for a rule over an attribute that there is not (yet).
    """
    bound = [bind(project, rule, known.schema) for rule in rules]
    known.create({*more}.union(*(rule.columns for rule in bound)))
    ranks = thresholds(con, bound)
    return [rule.condition(ranks=ranks) for rule in bound]


def bind(project: Project, rule: Predicate, schema: Mapping[str, str]) -> Predicate:
    """The rule, bound to the attributes there are; says so when it reads one that scoring has yet to make."""
    known = project.definitions
    for name in rule.columns - {c.lower() for c in schema}:
        task = name.removesuffix("_percentile")
        if task in known.tasks:
            raise NotReady(name, "has no live scores", f"run `foretell train {task}` and `foretell score {task}`")
        if any(name in view.features for view in known.of_profiles.values()):
            raise NotReady(name, "is a feature, known once something has been scored", "run `foretell score` first")
    return rule.bind(schema)


@dataclass(frozen=True)
class Pass:
    """All declared segments over one table `attributes`. conditions: segment -> SQL for who is a member, consent
    included, or the error of a rule that reads what does not exist (yet: its task may be unscored)."""

    segments: list[Segment]
    conditions: dict[str, str | ForetellError]

    @property
    def ready(self) -> list[tuple[Segment, str]]:
        return [(s, found) for s in self.segments if isinstance(found := self.conditions[s.name], str)]


def one_pass(con: duckdb.DuckDBPyConnection, project: Project, names: Collection[str] | None = None) -> Pass:
    """Make `attributes` once, with all that the declared segments (or these) read."""
    known, everything = attributes.known(con, project), declared(project)
    for name in names or ():
        if name not in everything:
            raise unknown("segment", name, everything)
    chosen = [segment for segment in everything.values() if names is None or segment.name in names]
    found: dict[str, str | ForetellError] = {}
    for segment in chosen:
        try:
            bind(project, segment.rule, known.schema)
        except (UnknownName, NotReady) as error:
            found[segment.name] = error
    fine = [segment for segment in chosen if segment.name not in found]
    more = {CONSENT + segment.purpose for segment in fine}
    conditions = prepared(con, project, known, [segment.rule for segment in fine], more)
    for segment, condition in zip(fine, conditions, strict=True):
        found[segment.name] = f"(({condition}) AND {consented(known, segment.purpose)})"
    return Pass(chosen, found)


def selections(
    con: duckdb.DuckDBPyConnection, project: Project, schema: Mapping[str, str]
) -> list[tuple[Segment, str | ForetellError]]:
    """Every declared segment with the SQL for its members, once all of `attributes` is made in the session `con`.

    Instead of SQL, the error of a rule that reads an attribute which does not exist (yet: its task may be unscored).
    """
    found: list[tuple[Segment, str | ForetellError]] = []
    for segment in declared(project).values():
        try:
            query = bind(project, segment.rule, schema).sql()
            if segment.purpose and (column := CONSENT + segment.purpose) in schema:
                query = f'SELECT profile_id FROM attributes WHERE ({segment.rule.condition()}) AND "{column}"'
            found.append((segment, query))
        except (UnknownName, NotReady) as error:
            found.append((segment, error))
    return found


def sizes(
    project: Project, names: Collection[str] | None = None
) -> list[tuple[Segment, int | ForetellError, int]]:  # fmt: skip
    """Every declared segment (or these) with its size now, or why it has none (see `Pass`), and how many profiles."""
    with session(project) as con:
        found = one_pass(con, project, names)
        counts = [f"count(*) FILTER ({condition})" for _, condition in found.ready]
        total, *each = con.execute(f"SELECT {', '.join(['count(*)', *counts])} FROM attributes").fetchall()[0]
    size = {segment.name: int(n) for (segment, _), n in zip(found.ready, each, strict=True)}
    problem = {name: said for name, said in found.conditions.items() if not isinstance(said, str)}
    return [(s, size[s.name] if s.name in size else problem[s.name], int(total)) for s in found.segments]


def export(found: Audience, file: Path) -> int:
    """Write an audience to a CSV file, atomically. Returns the number of members."""
    if file.suffix.lower() != ".csv":
        raise DataError(str(file), "audiences are exported as CSV", f"name it {file.with_suffix('.csv').name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    found.members.to_csv(draft, index=False, quoting=csv.QUOTE_MINIMAL)
    os.replace(draft, file)
    return len(found.members)
