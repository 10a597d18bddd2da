"""Who has read whose data? An append-only table, and the lines beside it that are not in the table yet.

Who hands out personal data writes a line to the folder `audit/` of the home, and does not wait for Delta; `take_in`
makes rows of the lines in sealed files (`serving.access.trail` seals those of a running service). A person who is
erased stays in the trail as a keyed digest of the profile id: who knows the id, from the receipt of the erasure, can
still ask who read it, and nobody else can tell whose it was.

  read_at   when the answer was given          who       "key:reports", "oidc:<subject>", "os:<user>", "loopback"
  route     "GET /v1/profiles/{who:path}"      scopes    what allowed it: score, read, personal
  profiles  ids of the profiles in the answer  count     how many they were
  status    of the answer over HTTP; None for a command
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.json as pa_json

from foretell.errors import Busy, DataError
from foretell.project import Project
from lake.engine import table
from lake.erasure import Person, digest, mine
from lake.literals import quote
from lake.tables import Table

TABLE = "audit"
ERASED = "erased:"
SCHEMA = pa.schema([
    ("row_id", pa.string()), ("read_at", pa.timestamp("us", tz="UTC")), ("who", pa.string()), ("route", pa.string()),
    ("profiles", pa.list_(pa.string())), ("count", pa.int64()), ("scopes", pa.list_(pa.string())),
    ("status", pa.int64()),
])  # fmt: skip
_READS = "route, read_at, who, profiles, count, scopes, status"
ABANDONED = 60  # seconds after which nobody is writing a draft any more
AT_ONCE = 50_000  # rows that are taken in by one commit
MANY = 200  # files of the table, after which they are written into one


def folder_of(home: Path) -> Path:
    """Where lines wait to be taken into the table."""
    return home / "audit"


def digest_of(key: str, profile: str) -> str:
    """What stands for the id of a profile that was erased."""
    return ERASED + digest(key, profile)[:32]


def note(project: Project, route: str, profiles: Iterable[str], scopes: Iterable[str] = ("personal",)) -> None:
    """Write down that the user of this machine reads these profiles by a command; returns once the disk has it.

    To be called before anything is shown: what cannot be written down is not handed out.
    """
    ids = list(dict.fromkeys(profiles))
    row = {
        "read_at": datetime.now(UTC).isoformat(), "who": f"os:{getpass.getuser()}", "route": route, "profiles": ids,
        "count": len(ids), "scopes": sorted(scopes), "status": None,
    }  # fmt: skip
    folder = folder_of(project.home)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}-{secrets.token_hex(4)}"
    draft = folder / f".{name}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w") as out:
        out.write(json.dumps(row) + "\n")
        out.flush()
        os.fsync(fd)
    os.replace(draft, folder / f"{name}.jsonl")


@contextmanager
def locked(project: Project) -> Iterator[None]:
    """One at a time takes lines in, rewrites the table or reads it; it takes seconds, so others wait."""
    from filelock import FileLock, Timeout

    folder_of(project.home).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder_of(project.home) / "lock", timeout=120)
    try:
        lock.acquire()
    except Timeout:
        raise Busy("audit", "another command has been writing it for two minutes", "stop it, or wait for it") from None
    try:
        yield
    finally:
        lock.release()


def take_in(project: Project) -> int:
    """Make rows of the lines that wait, and remove their files. Returns how many rows are new.

    A row's id is its file and line: cut short and run again, no row is lost or there twice.
    """
    folder, stored, added = folder_of(project.home), table(project, TABLE), 0
    for draft in folder.glob(".*"):
        if time.time() - draft.stat().st_mtime > ABANDONED:  # of a command that was killed before it showed anything
            draft.unlink(missing_ok=True)
    if not any(folder.glob("*.jsonl")):
        return 0
    with locked(project):
        gone, waiting = _erased(project), sorted(folder.glob("*.jsonl"))
        while waiting:
            some, parts = [], []
            while waiting and sum(map(len, parts)) < AT_ONCE:
                some.append(waiting.pop(0))
                parts.append(_lines(some[-1]))
            rows = pa.concat_tables(parts).combine_chunks()
            ids = rows["row_id"].to_pylist()
            known = _known(stored.files(), ids, stored)
            new = rows.filter(pa.array([id not in known for id in ids]))
            if len(new):
                stored.append(_without(new, gone, project.key), why="audit")
            for file in some:
                file.unlink()
            added += len(new)
        if len(stored.files()) > MANY:
            stored.compact()
    return added


def _lines(file: Path) -> pa.Table:
    """The rows of a sealed file, in the order of its lines."""
    size = file.stat().st_size
    how = pa_json.ReadOptions(use_threads=False, block_size=size + 1)  # a line is read at once, however long
    try:
        read = pa_json.read_json(file, how, pa_json.ParseOptions(explicit_schema=pa.schema(list(SCHEMA)[1:])))
    except pa.ArrowInvalid as error:
        fix = "put the file aside, and find out who did that"
        raise DataError(str(file), f"the audit was changed: {str(error)[:100]}", fix) from None
    ids = pa.array([f"{file.stem}:{number}" for number in range(1, len(read) + 1)], pa.string())
    return read.add_column(0, SCHEMA.field("row_id"), ids).select(SCHEMA.names).cast(SCHEMA)


def _without(rows: pa.Table, gone: set[str], key: str) -> pa.Table:
    """The rows with a digest in the place of each id of somebody erased."""
    if not gone:
        return rows
    named = [[digest_of(key, p) if p in gone else p for p in ids] for ids in rows["profiles"].to_pylist()]
    return rows.set_column(rows.schema.names.index("profiles"), "profiles", pa.array(named, pa.list_(pa.string())))


def _known(files: list[str], ids: list[str], stored: Table) -> set[str]:
    if not files:
        return set()
    with duckdb.connect() as con:
        mine(con, "ids", ids)
        query = f"SELECT row_id FROM {stored.scan(files)} WHERE row_id IN (SELECT value FROM ids)"
        return {row_id for (row_id,) in con.execute(query).fetchall()}


def _erased(project: Project) -> set[str]:
    """Ids of everybody whose erasure has begun: no line brings one back."""
    stored = table(project, "erasures")
    if not (files := stored.files()):
        return set()
    with duckdb.connect() as con:
        return {p for (p,) in con.execute(f"SELECT DISTINCT unnest(profile_ids) FROM {stored.scan(files)}").fetchall()}


def forget(project: Project, person: Person) -> int:
    """Put a digest in the place of every id of a person who is being erased, in every version of the table that can be
    read. Returns in how many rows."""
    stored = table(project, TABLE)
    gone = sorted(person.profile_ids)
    ids, digests = (
        "[" + ", ".join(f"'{quote(text)}'" for text in texts) + "]"
        for texts in (gone, [digest_of(person.key, profile) for profile in gone])
    )
    theirs = f"list_has_any(t.profiles, {ids})"
    each = f"list_transform(t.profiles, lambda p: coalesce(map({ids}, {digests})[p], p))"
    with locked(project), duckdb.connect() as con:
        if not (files := stored.files()):
            return 0
        con.execute("SET TimeZone='UTC'")
        found = con.execute(f"SELECT count(*) FROM (SELECT * FROM {stored.scan(files)}) t WHERE {theirs}").fetchall()
        stored.rewrite(con, "false", changed=theirs, columns={"profiles": each}, why="erase")
        stored.vacuum()
    return int(found[0][0])


def rows(
    project: Project, *, profiles: Iterable[str] | None = None, who: str | None = None, most: int | None = None
) -> list[dict[str, Any]]:
    """The trail, the latest first: what was read of any of these profiles, and by whom.

    profiles: ids, those of erased ones too. who: as in the table, or without what stands before its colon.
    """
    stored = table(project, TABLE)
    with locked(project), duckdb.connect() as con:
        if not (files := stored.files()):
            return []
        con.execute("SET TimeZone='UTC'")
        wanted = [form for p in profiles or () for form in (p, digest_of(project.key, p))]
        conditions = ["list_has_any(profiles, ?)"] if profiles is not None else []
        conditions += ["? IN (who, regexp_replace(who, '^[a-z]+:', ''))"] if who is not None else []
        given: list[Any] = ([wanted] if profiles is not None else []) + ([who] if who is not None else [])
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        limit = f"LIMIT {int(most)}" if most is not None else ""
        found = con.execute(
            f"SELECT {_READS} FROM {stored.scan(files)} {where} ORDER BY read_at DESC, row_id DESC {limit}", given
        )
        names = [d[0] for d in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
