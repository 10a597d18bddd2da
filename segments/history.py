"""Who entered or left a segment, when, and by which rule? An insert-only table, written by one pass over all segments.

A row says that a profile entered or left, or (`counted`, without a profile) how big the segment was found to be. All
rows of a refresh are one commit: one that was killed has left nothing, and one that is repeated adds nothing.

Ids are those of the time. Who has merged since is one person: nobody leaves, and nobody enters, because two profiles
turned out to be one, or because that was undone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from foretell.errors import DataError, ForetellError, NotReady, unknown
from foretell.project import Project
from lake.engine import instant, last_batch, session, table
from segments.audience import Pass, declared, one_pass
from segments.definitions import Segment
from unification.identity import members_at

TABLE = "memberships"
_COLUMNS = {
    "refresh": "BIGINT", "segment": "VARCHAR", "change": "VARCHAR", "profile_id": "VARCHAR",
    "refreshed_at": "TIMESTAMPTZ", "batch": "BIGINT", "rule": "VARCHAR", "size": "BIGINT",
    "entered": "BIGINT", "left_it": "BIGINT", "total": "BIGINT", "written_at": "TIMESTAMPTZ",
}  # fmt: skip


@dataclass(frozen=True)
class Refresh:
    """A segment at one refresh: its size, how many people entered and left since the one before, of how many profiles
    there were (total). batch: the last ingest batch that it knows. rule: the digest of the rule then."""

    segment: str
    at: datetime
    batch: int
    rule: str
    size: int
    entered: int
    left: int
    total: int


def digest(segment: Segment) -> str:
    """Twelve hex digits that change when the segment means something else: its rule as bound, and its purpose."""
    return hashlib.sha256(f"{segment.rule.condition()}\0{segment.purpose}".encode()).hexdigest()[:12]


def record(
    project: Project, progress: Callable[[str], None] = lambda _: None
) -> list[Refresh | ForetellError]:  # fmt: skip
    """Write down who entered and left each declared segment since the last refresh. Returns them in order of names.

    Of a segment whose rule reads what does not exist (yet) the error comes back, and its history stays as it is.
    Raises DataError if the history already knows of a later time than the project's now. Whoever calls it holds the
    project's writing lock.
    """
    if not declared(project):
        return []
    now = project.now  # of all of them
    with session(project) as con:
        last = _last(con, project)
        if (latest := max((r.at for r in last.values()), default=now)) > now:
            raise DataError(
                "segments", f"expected a time after the last refresh ({latest:%Y-%m-%d %H:%M}), got "
                f"{now:%Y-%m-%d %H:%M}", "the history of memberships is written forwards only",
            )  # fmt: skip
        progress("attributes")
        found = one_pass(con, project)
        _compare(con, project, found, progress)
        made = {refresh.segment: refresh for refresh in _counted(con, project, found, now)}
        new = [r for r in made.values() if not _same(r, last.get(r.segment))]
        if new:
            progress("writing")
            _append(con, project, new)
    problems = {name: said for name, said in found.conditions.items() if not isinstance(said, str)}
    return [made[s.name] if s.name in made else problems[s.name] for s in found.segments]


def _same(new: Refresh, old: Refresh | None) -> bool:
    """Is it the refresh before, asked for once more? Then nothing is written."""
    same = old is not None and (new.at, new.rule, new.size) == (old.at, old.rule, old.size)
    return same and not new.entered and not new.left


def _compare(con: duckdb.DuckDBPyConnection, project: Project, found: Pass, progress: Callable[[str], None]) -> None:
    """Make the tables `chosen` (nr, segment), of those that are ready, and `inside`, `entered` and `went` (nr, place).

    place: of a profile in `attributes`, as there may be many millions of memberships; null of one that is no more. went
    has besides, as `recorded`, the id under which somebody entered, where that is another than today's.
    """
    con.execute("CREATE TEMP TABLE chosen (nr SMALLINT, segment VARCHAR)")
    con.execute("CREATE TEMP TABLE inside (nr SMALLINT, place INTEGER)")
    for nr, (segment, condition) in enumerate(found.ready):
        progress(segment.name)
        con.execute("INSERT INTO chosen VALUES (?, ?)", [nr, segment.name])
        con.execute(f"INSERT INTO inside SELECT {nr}, rowid FROM attributes WHERE {condition}")
    con.execute("CREATE TEMP TABLE was (nr SMALLINT, place INTEGER, recorded VARCHAR)")
    if table(project, TABLE).exists:
        progress("who was in before")
        con.execute("CREATE TEMP TABLE places AS SELECT profile_id, rowid::INTEGER AS place FROM attributes")
        con.execute(  # by today's id, and, of the few who had another, by the one that was recorded
            f"""INSERT INTO was SELECT nr, coalesce(b.place, p.place), recorded FROM (
                SELECT nr, place, CASE WHEN place IS NULL THEN profile_id END AS recorded FROM memberships
                JOIN chosen USING (segment) LEFT JOIN places USING (profile_id) WHERE change <> 'counted'
                GROUP BY ALL HAVING max(2 * refresh + (change = 'entered')::INT) % 2 = 1) b
            LEFT JOIN ({today(project)}) m ON m.former_id = recorded LEFT JOIN places p USING (profile_id)"""
        )
    con.execute(
        """CREATE TEMP TABLE entered AS FROM inside ANTI JOIN was USING (nr, place);
        CREATE TEMP TABLE went AS FROM was ANTI JOIN inside USING (nr, place)"""
    )


def today(project: Project) -> str:
    """SQL: former_id and profile_id, of every id that was, or might have been, a profile's and is another's."""
    return f"""SELECT birth_id AS former_id, profile_id FROM ({members_at(project.now)})
        WHERE birth_id <> profile_id"""


def _counted(con: duckdb.DuckDBPyConnection, project: Project, found: Pass, now: datetime) -> list[Refresh]:
    def counts(name: str, what: str = "*") -> dict[int, int]:
        return dict(con.execute(f"SELECT nr, count({what}) FROM {name} GROUP BY 1").fetchall())

    people = "DISTINCT coalesce(place::VARCHAR, recorded)"  # two who have become one leave once
    size, entered, left = counts("inside"), counts("entered"), counts("went", people)
    total = int(con.execute("SELECT count(*) FROM attributes").fetchall()[0][0])
    batch = last_batch(project)
    return [
        Refresh(s.name, now, batch, digest(s), size.get(n, 0), entered.get(n, 0), left.get(n, 0), total)
        for n, (s, _) in enumerate(found.ready)
    ]


def _append(con: duckdb.DuckDBPyConnection, project: Project, new: list[Refresh]) -> None:
    """Write the changes and counts of these segments, in one commit."""
    stored = table(project, TABLE)
    number = 1
    if files := stored.files():
        number += int(con.execute(f"SELECT max(refresh) FROM {stored.scan(files)}").fetchall()[0][0])
    con.execute(f"CREATE TEMP TABLE counted ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
    clock = datetime.now(UTC)
    con.executemany(
        f"INSERT INTO counted VALUES ({', '.join('?' * len(_COLUMNS))})",
        [[number, r.segment, "counted", None, r.at, r.batch, r.rule, r.size, r.entered, r.left, r.total, clock]
         for r in new],
    )  # fmt: skip
    changed = "".join(
        f""" UNION ALL BY NAME SELECT refresh, segment, '{change}' AS change, {column} AS profile_id, refreshed_at,
            batch, rule, written_at FROM {name} x JOIN chosen USING (nr) JOIN counted USING (segment)
            LEFT JOIN attributes a ON a.rowid = x.place"""
        for change, name, column in (
            ("entered", "entered", "a.profile_id"),
            ("left", "went", "coalesce(x.recorded, a.profile_id)"),
        )
    )
    stored.append(con.sql(f"FROM counted{changed}").to_arrow_reader(500_000), why="segments")


def _last(con: duckdb.DuckDBPyConnection, project: Project) -> dict[str, Refresh]:
    """The last refresh of each segment that has one."""
    return {refresh.segment: refresh for refresh in _refreshes(con, project)}


def _refreshes(con: duckdb.DuckDBPyConnection, project: Project) -> list[Refresh]:
    if not table(project, TABLE).exists:
        return []
    rows = con.execute(
        """SELECT segment, refreshed_at, batch, rule, size, entered, left_it, total FROM memberships
            WHERE change = 'counted' ORDER BY refresh, segment"""
    ).fetchall()
    return [Refresh(name, at.astimezone(UTC), *rest) for name, at, *rest in rows]


def history(project: Project, names: Collection[str] | None = None) -> list[Refresh]:
    """Every refresh of these segments (None: of all that were ever declared), the oldest first.

    Raises UnknownName for a segment that is neither declared nor in the history, NotReady before the first refresh.
    """
    with session(project) as con:
        found = _refreshes(con, project)
    known = {refresh.segment for refresh in found}
    for name in names or ():
        if name not in known | declared(project).keys():
            raise unknown("segment", name, {*known, *declared(project)})
    wanted = [refresh for refresh in found if names is None or refresh.segment in names]
    if missing := sorted({*(names or ())} - known) or ([] if wanted else ["segments"]):
        raise NotReady(missing[0], "no history yet", "`foretell segment refresh` writes down who is in it now")
    return wanted


def changes_of(con: duckdb.DuckDBPyConnection, project: Project, profile: str, name: str) -> list[dict[str, Any]]:
    """When a profile of today, under whatever id, entered and left a segment, the oldest first: change, at, rule."""
    if not table(project, TABLE).exists:
        return []
    rows = con.execute(
        f"""SELECT DISTINCT change, refreshed_at, rule, refresh FROM memberships LEFT JOIN ({today(project)}) m
            ON m.former_id = memberships.profile_id WHERE coalesce(m.profile_id, memberships.profile_id) = ?
            AND segment = ? AND refreshed_at <= {instant(project.now)} ORDER BY refresh""",
        [profile, name],
    ).fetchall()
    return [{"change": change, "at": at.astimezone(UTC), "rule": rule} for change, at, rule, _ in rows]
