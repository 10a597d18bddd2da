"""What happens when a file is loaded? One ingest batch: quarantine, facts, and last the ledger row that shows them.

A load that is killed at any point is repaired by running it again: a batch is visible only once its ledger row is
written, and what an unfinished one has left is removed first. Rows are appended only if their id is not there yet.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from foretell.declarations import Source
from foretell.errors import DataError, ForetellError, UnknownName
from foretell.project import Project
from ingestion import quarantine
from ingestion.collector.log import folder_of, seal_all
from ingestion.collector.segments import segments_of, set_aside
from ingestion.connectors import Piece, pull
from ingestion.contract import Plan, plan, told
from ingestion.drift import drift, with_news
from ingestion.erased import leave_out, mentions
from ingestion.excel import EmptySheet
from ingestion.files import Raw, read, sheets_of
from ingestion.forms import look_up
from ingestion.ledger import Seen, later, seen, write
from lake.engine import connect, last_batch, source_table, table
from lake.tables import Table


@dataclass
class Loaded:
    """What one file brought: rows added, rows that were known already, rows in quarantine with samples of why.

    left_out: rows that the contract's `only` does not count among the source's facts. erased: rows of people who were
    erased, kept out.
    anonymous: good rows without any identifier; undated_links: records without a time of their own.
    changes: what is new about the source's columns, in words.
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
    changes: list[str] = field(default_factory=list)
    erased: int = 0


def files_of(project: Project, source: Source) -> list[Path]:
    """The files that a source's glob finds, or its stream's sealed segments.

    None at all is an error that names the pattern and the folder. A stream that was written to may have none.
    """
    if source.stream:
        return segments_of(project, source.stream)
    assert source.files
    found = sorted(f for f in _matching(project.exports, source.files) if f.is_file())
    if not found:
        raise DataError(
            source.name, f"no file matches {source.files} in {project.exports}",
            "check `files` in the contract, or the setting `exports`",
        )  # fmt: skip
    return found


def _matching(folder: Path, pattern: str) -> set[Path]:
    """The paths below a folder that match; links to folders are followed, each folder once: they may form a ring."""
    head, deep, rest = pattern.partition("**/")
    if not deep:
        return set(map(Path, glob.glob(f"{glob.escape(str(folder))}/{pattern}")))
    found: set[Path] = set()
    for start in _matching(folder, head) if head else {folder}:
        visited: set[str] = set()
        for here, inner, _ in os.walk(start, followlinks=True):
            if (real := os.path.realpath(here)) in visited:
                inner.clear()
                continue
            visited.add(real)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            found |= _matching(Path(here), rest)
    return found


def load(
    project: Project, names: list[str], files: Iterable[Path] = (), *, full: bool = False,
    say: Callable[[str], None] = lambda text: None,
    keep: Callable[[str, Iterator[Loaded | ForetellError]], Iterator[Loaded | ForetellError]] = lambda _, found: found,
) -> Iterator[Loaded | ForetellError]:  # fmt: skip
    """Load every file of the named sources, or `files` instead of those that their globs find; pull what is pulled.

    A file, or a sheet of a workbook, that cannot be loaded yields its error; the others go on. full: a connector reads
    all that there is, not only what is new. keep: is handed each source's results, and hands them on.
    """
    roll_back(project)
    given = list(files)
    for name in names:
        source = project.definitions.source(name)
        pulls = source.connector and not source.stream and not given
        yield from keep(
            name, _pull(project, source, full, say) if pulls else _load_files(project, source, given, full, say)
        )


def _load_files(
    project: Project, source: Source, given: list[Path], full: bool, say: Callable[[str], None]
) -> Iterator[Loaded | ForetellError]:
    try:
        if source.stream and not given:
            problem = _follow(project, source, full, say) if source.connector else None
            yield from _load_stream(project, source)
            if problem:
                yield problem
            return
        found = given or files_of(project, source)
    except ForetellError as error:
        yield error
        return
    before = seen(project, source.name)
    for file in found:
        say(f"{source.name}: {_shown(project, file)}")
        yield from _load_sheets(project, source, file, before)


def _pull(project: Project, source: Source, full: bool, say: Callable[[str], None]) -> Iterator[Loaded | ForetellError]:
    """Pull what is new, then load it piece by piece. What was pulled whole is loaded even if the rest did not come."""
    assert source.connector
    before = seen(project, source.name, source.connector.fingerprint)
    pieces: list[Piece] = []
    failure = None
    try:
        for piece in pull(project, source, None if full else before.watermark, say):
            pieces.append(piece)
    except ForetellError as error:
        failure = error
    for n, piece in enumerate(pieces, 1):
        say(f"{source.name}: loading piece {n} of {len(pieces)}")
        try:
            yield load_file(project, source, piece.file, piece=piece, before=before)
        except ForetellError as error:  # what comes after it must not move the watermark over it
            yield error
            break
        finally:
            piece.file.unlink(missing_ok=True)
    if failure:
        yield failure
    elif not pieces:
        yield Loaded(source.name, source.connector.shown, skipped=True)


def _follow(project: Project, source: Source, full: bool, say: Callable[[str], None]) -> ForetellError | None:
    """Bring what a topic has into its log, unless `foretell stream` does so at this moment. What came stays."""
    from ingestion.connectors.kafka import Followed, Topic

    try:
        topic = Topic(project, source, full=full)
        try:
            topic.drain(say)
        finally:
            topic.close()
    except Followed:
        return None
    except ForetellError as error:
        return error
    return None


def _load_stream(project: Project, source: Source) -> Iterator[Loaded | ForetellError]:
    """Seal what was collected until now, and load the segments that the ledger does not name.

    A sealed segment never changes, so that its name stands for it.
    """
    folder = folder_of(project.home) / str(source.stream)
    for torn in seal_all(folder):
        problem = f"{torn.stat().st_size:,} bytes of a line that was never answered for were put aside"
        yield Loaded(source.name, _shown(project, torn), reasons=[problem])
    before = seen(project, source.name)
    new = [file for file in files_of(project, source) if not before.loaded(_shown(project, file))]
    if not new:
        yield Loaded(source.name, f"stream {source.stream}", skipped=True)
    for file in new:
        yield from _load_sheets(project, source, file, before)


def _load_sheets(
    project: Project, source: Source, file: Path, before: Seen | None = None
) -> Iterator[Loaded | ForetellError]:
    """Load a file, sheet by sheet if it has some: the same line on two sheets is then one fact, as in two files."""
    empty = True
    if before and before.unchanged(file.absolute()):
        yield Loaded(source.name, _shown(project, file), skipped=True)
        return
    try:
        for sheet in sheets_of(file):
            try:
                yield load_file(project, source, file, sheet, before=before)
            except EmptySheet:
                continue
            except ForetellError as error:
                yield error
            empty = False
        if empty:
            raise DataError(_shown(project, file), "expected a header and rows, got an empty file", "export it again")
    except ForetellError as error:
        yield error


def roll_back(project: Project) -> None:
    """Remove what a killed load has left of its unfinished batch, so that its number can be given again."""
    last = last_batch(project)
    table(project, quarantine.TABLE).roll_back(last)
    for name in project.definitions.sources:
        source_table(project, name).roll_back(last)


def load_file(
    project: Project, source: Source, file: Path, sheet: str = "", *, piece: Piece | None = None,
    before: Seen | None = None,
) -> Loaded:  # fmt: skip
    """Load one file, or one sheet, as one ingest batch; a file whose bytes were loaded before is skipped.

    piece: what the file is, if a connector has landed it. before: what the source has brought so far; it is kept up.
    """
    shown = piece.shown if piece else _shown(project, file) + (f"#{sheet}" if sheet else "")
    before = before or seen(project, source.name)
    state = _state(file)
    digest = None if piece else _digest(file, sheet)
    if digest in before.digests:
        return Loaded(source.name, shown, skipped=True)
    started = datetime.now(UTC)
    batch = last_batch(project) + 1
    con = connect(project)
    try:
        raw = read(con, file, sheet)
        if source.stream:
            set_aside(con, raw, report=source is _first_of(project, source.stream))
        changes, columns = drift(con, raw, before.columns, source)
        if state != _state(file):  # its last line may be half a line
            raise DataError(shown, "changed while it was read", "it stays, and is loaded when it is whole")
        try:
            made = compiled(con, project, source, raw, shown, batch, started)
        except UnknownName as error:
            raise with_news(error, changes) from None
        stamp(con, made, source, shown)
        rows = _count(con, "SELECT count(*) FROM raw")
        if rows + len(raw.unreadable) == 0 and not source.stream:
            raise DataError(shown, "expected rows, got none", "export it again, or remove the file")
        result = Loaded(source.name, shown, left_out=rows - _count(con, "SELECT count(*) FROM stamped"))
        result.changes = changes
        result.erased = leave_out(con, project, source) + _unreadable(project, raw)
        _check_share(con, source, shown, raw)
        kept = table(project, "quarantine").version()
        result.quarantined, result.reasons = quarantine.keep(con, project, source.name, shown, raw, batch, started)
        quarantine.settle(con, project, source.name, batch)
        if piece and piece.note:
            result.reasons.append(piece.note)
        result.added = append_facts(con, source_table(project, source.name), source, made)
        result.known = _count(con, "SELECT count(*) FROM stamped WHERE _reason IS NULL") - result.added
        if source.kind == "records" and not source.event_at and not source.known_since and not source.known_at:
            result.undated_links = result.added
        result.anonymous = _count(con, "SELECT count(*) FROM stamped WHERE _reason IS NULL AND node IS NULL")
        watermark = piece and later(before.watermark, piece.watermark)
        new = result.added or changes or kept != table(project, "quarantine").version()
        if piece and not new and watermark == before.watermark:
            return result  # nothing came that was not here: no batch
        write(project, {
            "batch": batch, "source": source.name, "file": shown, "sha256": digest,
            "rows": rows + len(raw.unreadable), "added": result.added, "known": result.known,
            "quarantined": result.quarantined, "left_out": result.left_out, "erased": result.erased,
            "received_at": started, "finished_at": datetime.now(UTC), "columns": json.dumps(columns),
            "changes": "; ".join(changes) or None,
            **({"connector": source.connector.fingerprint, "watermark": watermark} if piece and source.connector
               # of a workbook each sheet is a batch: that one is loaded does not say that the file is
               else {"path": str(file.absolute()), "size": state[1], "modified_ns": state[2]} if not sheet else {}),
        })  # fmt: skip
        before.columns = columns
        if piece:
            before.watermark = watermark
        if digest:
            before.digests.add(digest)
        return result
    except OSError as error:  # it went away while it was read
        raise DataError(shown, f"cannot be read: {error.strerror}", "is the file still there?") from None
    finally:
        con.close()


def compiled(
    con: duckdb.DuckDBPyConnection, project: Project, source: Source, raw: Raw, shown: str, batch: int, at: datetime, *,
    again: bool = False,
) -> Plan:  # fmt: skip
    """The contract for the rows read, and the table `forms` of the values that it asks libraries about."""
    received_at = at.isoformat(timespec="microseconds")
    made = plan(source, raw, file=shown, batch=batch, received_at=received_at, again=again)
    try:
        asked = look_up(con, project, source, told(raw, source))
    except duckdb.Error as error:
        raise _inapplicable(source, shown, error) from None
    if not asked:
        return made
    return plan(source, raw, file=shown, batch=batch, received_at=received_at, again=again, asked=asked)


def stamp(con: duckdb.DuckDBPyConnection, made: Plan, source: Source, shown: str) -> None:
    """Apply a contract to the rows read, as the table `stamped`."""
    try:
        con.execute(f"CREATE TEMP TABLE stamped AS {made.sql}")
    except duckdb.Error as error:
        raise _inapplicable(source, shown, error) from None


def _unreadable(project: Project, raw: Raw) -> int:
    """Drop lines that are no rows, but mention somebody who was erased. Returns how many."""
    if not raw.unreadable or (finder := mentions(project)) is None:
        return 0
    before = len(raw.unreadable)
    raw.unreadable = [line for line in raw.unreadable if not finder.find(line[1])]
    return before - len(raw.unreadable)


def _inapplicable(source: Source, shown: str, error: duckdb.Error) -> DataError:
    """An expression of the contract that does not fit the file's types or values."""
    problem = f"the contract cannot be applied to {shown}: {str(error).splitlines()[0]}"
    return DataError(source.name, problem, "mend the expression in the contract")


def _check_share(con: duckdb.DuckDBPyConnection, source: Source, shown: str, raw: Raw) -> None:
    """Refuse a file of which more rows are bad than the contract allows, and say why they are."""
    if source.quarantine_at_most is None:
        return
    unread = Counter(why for *_, why in raw.unreadable)
    bad = _count(con, "SELECT count(_reason) FROM stamped") + unread.total()
    rows = _count(con, "SELECT count(*) FROM stamped") + unread.total()
    if bad <= source.quarantine_at_most * rows:
        return
    reasons = Counter(dict(con.execute(f"SELECT {quarantine.KIND.format('_reason')}, count(*) FROM stamped "
                                       "WHERE _reason IS NOT NULL GROUP BY 1").fetchall()))  # fmt: skip
    top = ", ".join(f"{n:,} × {why}" for why, n in (reasons + unread).most_common(3))
    problem = f"{bad:,} of its {rows:,} rows would go to quarantine ({bad / rows:.1%}): {top}"
    allowed = f"quarantine_at_most ({source.quarantine_at_most:g}) in {source.name}"
    raise DataError(shown, problem, f"mend the file, or raise {allowed}; nothing of it was loaded")


def append_facts(con: duckdb.DuckDBPyConnection, facts: Table, source: Source, made: Plan) -> int:
    """Append the good rows whose ids are new. Returns how many there were."""
    seen = ""
    first = "QUALIFY row_number() OVER (PARTITION BY fact_id ORDER BY _row) = 1" if source.unique else ""
    files = facts.files()
    if files and source.key and not source.known_at:
        _date_changes(con, facts.scan(files))
    if files:
        months = ""
        if source.kind == "events" and not source.unique:  # only the months that this file touches
            months = "WHERE event_month IN (SELECT DISTINCT event_month FROM stamped WHERE _reason IS NULL)"
        con.execute(f"CREATE TEMP TABLE known AS SELECT fact_id FROM {facts.scan(files)} {months}")
        seen = "AND NOT EXISTS (SELECT 1 FROM known k WHERE k.fact_id = s.fact_id)"
    listed = ", ".join(f'"{c}"' for c in made.columns)
    order = "ORDER BY event_at, _row"  # near in time, near in the file: scans by window read less
    reader = con.sql(f"SELECT {listed} FROM stamped s WHERE _reason IS NULL {seen} {first} {order}").to_arrow_table()
    if reader.num_rows:
        partition = ["event_month"] if source.kind == "events" else None
        facts.append(reader, partition_by=partition, why=f"load {source.name}")
    return reader.num_rows


def _date_changes(con: duckdb.DuckDBPyConnection, facts: str) -> None:
    """A row of which a version is there already has changed since: that was not known before it came."""
    if "row_key" in {name for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {facts}").fetchall()}:
        con.execute(
            f"""UPDATE stamped SET known_at = greatest(known_at, received_at)
                WHERE row_key IN (SELECT row_key FROM {facts}) AND _reason IS NULL"""
        )


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.execute(query).fetchall()[0][0])


def _unopened(file: Path, error: OSError) -> DataError:
    problem = f"cannot be opened: {error.strerror}"
    return DataError(str(file), problem, "check the path, or the setting `exports`")


def _digest(file: Path, sheet: str) -> str:
    try:
        with file.open("rb") as stream:
            whole = hashlib.file_digest(stream, "sha256")
    except OSError as error:
        raise _unopened(file, error) from None
    whole.update(sheet.encode())
    return whole.hexdigest()


def _state(file: Path) -> tuple[int, int, int]:
    """Which file it is, how long, and when it was last written."""
    try:
        found = file.stat()
    except OSError as error:
        raise _unopened(file, error) from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _first_of(project: Project, stream: str) -> Source:
    """The contract that reports what is wrong with a stream's messages: each is in quarantine once."""
    readers = [source for source in project.definitions.sources.values() if source.stream == stream]
    return min(readers, key=lambda source: source.name)


def _shown(project: Project, file: Path) -> str:
    for folder in (project.exports, project.home):
        if file.is_relative_to(folder):
            return str(file.relative_to(folder))
    return file.name
