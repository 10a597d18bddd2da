"""What happens when a file is loaded? One ingest batch: quarantine, facts, and last the ledger row that shows them.

A load that is killed at any point is repaired by running it again: a batch is visible only once its ledger row is
written, and what an unfinished one has left is removed first. Rows are appended only if their id is not there yet.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from foretell.declarations import Source
from foretell.errors import DataError, ForetellError
from foretell.project import Project
from ingestion.contract import Plan, plan
from ingestion.erased import leave_out, mentions
from ingestion.excel import EmptySheet
from ingestion.files import Raw, read, sheets_of
from lake.engine import connect, last_batch, source_table, table
from lake.tables import Table


@dataclass
class Loaded:
    """What one file brought: rows added, rows that were known already, rows in quarantine with samples of why.

    left_out: rows that the contract's `only` does not count among the source's facts. erased: rows of people who were
    erased, kept out.
    anonymous: good rows without any identifier; undated_links: records without a time of their own.
    """

    source: str
    file: str
    added: int = 0
    known: int = 0
    quarantined: int = 0
    reasons: list[str] = field(default_factory=list)
    skipped: bool = False
    undated_links: int = 0
    anonymous: int = 0
    left_out: int = 0
    erased: int = 0


def files_of(project: Project, source: Source) -> list[Path]:
    """The files that a source's glob finds. None at all is an error that names the pattern and the folder."""
    found = sorted(f for f in map(Path, glob.glob(str(project.exports / source.files), recursive=True)) if f.is_file())
    if not found:
        raise DataError(
            source.name, f"no file matches {source.files} in {project.exports}",
            "check `files` in the contract, or the setting `exports`",
        )  # fmt: skip
    return found


def load(project: Project, names: list[str], files: Iterable[Path] = ()) -> Iterator[Loaded | ForetellError]:
    """Load every file of the named sources, or `files` instead of those that their globs find.

    A file, or a sheet of a workbook, that cannot be loaded yields its error; the others go on.
    """
    _roll_back(project)
    for name in names:
        source = project.definitions.source(name)
        try:
            found = list(files) or files_of(project, source)
        except ForetellError as error:
            yield error
            continue
        for file in found:
            yield from _load_sheets(project, source, file)


def _load_sheets(project: Project, source: Source, file: Path) -> Iterator[Loaded | ForetellError]:
    """Load a file, sheet by sheet if it has some: the same line on two sheets is then one fact, as in two files."""
    empty = True
    try:
        for sheet in sheets_of(file):
            try:
                yield load_file(project, source, file, sheet)
            except EmptySheet:
                continue
            except ForetellError as error:
                yield error
            empty = False
        if empty:
            raise DataError(_shown(project, file), "expected a header and rows, got an empty file", "export it again")
    except ForetellError as error:
        yield error


def _roll_back(project: Project) -> None:
    """Remove what a killed load has left of its unfinished batch, so that its number can be given again."""
    last = last_batch(project)
    table(project, "quarantine").roll_back(last)
    for name in project.definitions.sources:
        source_table(project, name).roll_back(last)


def load_file(project: Project, source: Source, file: Path, sheet: str = "") -> Loaded:
    """Load one file, or one sheet, as one ingest batch; a file whose bytes were loaded before is skipped."""
    shown = _shown(project, file) + (f"#{sheet}" if sheet else "")
    digest = _digest(file, sheet)
    ledger = table(project, "batches")
    if (files := ledger.files()) and duckdb.execute(
        f"SELECT 1 FROM {ledger.scan(files)} WHERE source = ? AND sha256 = ? LIMIT 1", [source.name, digest]
    ).fetchall():
        return Loaded(source.name, shown, skipped=True)
    started = datetime.now(UTC)
    batch = last_batch(project) + 1
    con = connect(project)
    try:
        raw = read(con, file, sheet)
        made = plan(source, raw, file=shown, batch=batch, received_at=started.isoformat(timespec="microseconds"))
        stamp(con, made, source, shown)
        rows = _count(con, "SELECT count(*) FROM raw")
        if rows + len(raw.unreadable) == 0:
            raise DataError(shown, "expected rows, got none", "export it again, or remove the file")
        result = Loaded(source.name, shown, left_out=rows - _count(con, "SELECT count(*) FROM stamped"))
        result.erased = leave_out(con, project, source) + _unreadable(project, raw)
        result.quarantined = _quarantine(con, project, source, shown, raw, batch, started, result.reasons)
        result.added = _append_facts(con, source_table(project, source.name), source, made)
        result.known = _count(con, "SELECT count(*) FROM stamped WHERE _reason IS NULL") - result.added
        if source.kind == "records" and not source.event_at and not source.known_since and not source.known_at:
            result.undated_links = result.added
        result.anonymous = _count(con, "SELECT count(*) FROM stamped WHERE _reason IS NULL AND node IS NULL")
        ledger.append(
            pa.Table.from_pylist(
                [{
                    "batch": batch, "source": source.name, "file": shown, "sha256": digest,
                    "rows": rows + len(raw.unreadable), "added": result.added, "known": result.known,
                    "quarantined": result.quarantined, "left_out": result.left_out, "erased": result.erased,
                    "received_at": started, "finished_at": datetime.now(UTC),
                }],
                schema=_LEDGER,
            ), why=f"load {source.name}",
        )  # fmt: skip
        return result
    finally:
        con.close()


_STAMP = pa.timestamp("us", tz="UTC")
_LEDGER = pa.schema(
    [
        *[("batch", pa.int64()), ("source", pa.string()), ("file", pa.string()), ("sha256", pa.string())],
        *[(n, pa.int64()) for n in ("rows", "added", "known", "quarantined", "left_out", "erased")],
        *[("received_at", _STAMP), ("finished_at", _STAMP)],
    ]
)
_QUARANTINE = pa.schema(
    [
        *[("quarantine_id", pa.string()), ("batch", pa.int64()), ("source", pa.string()), ("file", pa.string())],
        *[("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string()), ("received_at", _STAMP)],
    ]
)


def stamp(con: duckdb.DuckDBPyConnection, made: Plan, source: Source, shown: str) -> None:
    """Apply a contract to the rows read, as the table `stamped`."""
    try:
        con.execute(f"CREATE TEMP TABLE stamped AS {made.sql}")
    except duckdb.Error as error:  # an expression of the contract that does not fit the file's types or values
        problem = f"the contract cannot be applied to {shown}: {str(error).splitlines()[0]}"
        raise DataError(source.name, problem, "mend the expression in the contract") from None


def _unreadable(project: Project, raw: Raw) -> int:
    """Drop lines that are no rows, but mention somebody who was erased. Returns how many."""
    if not raw.unreadable or (finder := mentions(project)) is None:
        return 0
    before = len(raw.unreadable)
    raw.unreadable = [line for line in raw.unreadable if not finder.find(line[1])]
    return before - len(raw.unreadable)


def _quarantine(
    con: duckdb.DuckDBPyConnection, project: Project, source: Source, shown: str, raw: Raw, batch: int, at: datetime,
    reasons: list[str],
) -> int:  # fmt: skip
    bad = con.execute("SELECT _row, payload, _reason FROM stamped WHERE _reason IS NOT NULL ORDER BY _row").fetchall()
    rows = sorted([*raw.unreadable, *((raw.line_of(int(row)), text, why) for row, text, why in bad)])
    reasons += [f"{shown}:{line}: {why}" for line, _, why in rows[:3]]
    stored = table(project, "quarantine")
    files = stored.files()
    known = (
        {i for (i,) in duckdb.execute(f"SELECT quarantine_id FROM {stored.scan(files)}").fetchall()} if files else set()
    )
    new = []
    for line, text, why in rows:
        key = hashlib.md5(f"{source.name}\x1f{shown}\x1f{line}\x1f{text}".encode()).hexdigest()
        if key not in known:
            new.append({"quarantine_id": key, "batch": batch, "source": source.name, "file": shown, "line": line,
                        "reason": why, "raw": text, "received_at": at})  # fmt: skip
    if new:
        stored.append(pa.Table.from_pylist(new, schema=_QUARANTINE), why=f"load {source.name}")
    return len(rows)


def _append_facts(con: duckdb.DuckDBPyConnection, facts: Table, source: Source, made: Plan) -> int:
    """Append the good rows whose ids are new. Returns how many there were."""
    seen = ""
    files = facts.files()
    if files:
        months = ""
        if source.kind == "events":  # only the months that this file touches
            months = "WHERE event_month IN (SELECT DISTINCT event_month FROM stamped WHERE _reason IS NULL)"
        con.execute(f"CREATE TEMP TABLE known AS SELECT fact_id FROM {facts.scan(files)} {months}")
        seen = "AND NOT EXISTS (SELECT 1 FROM known k WHERE k.fact_id = s.fact_id)"
    listed = ", ".join(f'"{c}"' for c in made.columns)
    order = "ORDER BY event_at, _row"  # near in time, near in the file: scans by window read less
    reader = con.sql(f"SELECT {listed} FROM stamped s WHERE _reason IS NULL {seen} {order}").to_arrow_table()
    if reader.num_rows:
        partition = ["event_month"] if source.kind == "events" else None
        facts.append(reader, partition_by=partition, why=f"load {source.name}")
    return reader.num_rows


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.execute(query).fetchall()[0][0])


def _digest(file: Path, sheet: str) -> str:
    try:
        with file.open("rb") as stream:
            whole = hashlib.file_digest(stream, "sha256")
            whole.update(sheet.encode())
            return whole.hexdigest()
    except OSError as error:
        problem = f"cannot be opened: {error.strerror}"
        raise DataError(str(file), problem, "check the path, or the setting `exports`") from None


def _shown(project: Project, file: Path) -> str:
    return str(file.relative_to(project.exports)) if file.is_relative_to(project.exports) else file.name
