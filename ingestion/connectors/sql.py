"""Which rows of a table are new, and how do they come in pieces? By watermark, in its order, from a stream.

Rows at the watermark itself are read again, and those below it by the declared overlap: a row known already is
recognised when it is loaded. Rows without a watermark are read every time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretell.connectors import SQL, secret
from foretell.declarations import Source
from foretell.errors import DataError, DefinitionError, did_you_mean
from foretell.project import Project
from ingestion.connectors import postgresql, sqlite
from ingestion.connectors.landing import MARK, Landing, Piece, capped, lower, name

WAITS = (1.0, 2.0, 5.0, 10.0)  # seconds before it is tried again; what came in between starts them anew


def pull(
    project: Project, source: Source, since: str | None, folder: Path, say: Callable[[str], None]
) -> Iterator[Piece]:
    """Land the rows from a watermark on, in pieces; the database may go away for a while."""
    connector = source.connector
    assert isinstance(connector, SQL)
    url = secret(connector.url, source.name)
    if url.startswith("sqlite"):
        errors, passing = sqlite.errors(), sqlite.passing
    elif url.startswith("postgres"):
        errors, passing = postgresql.errors(), postgresql.passing
    else:
        raise DataError(
            source.name, f"expected the url of PostgreSQL or SQLite in {connector.url}, got another",
            "it starts with postgresql:// or sqlite:///",
        )  # fmt: skip
    landing = Landing(project, folder, connector.shown)
    pulled = _Pull(source, connector, landing, since, say)
    failures = 0
    try:
        while True:
            before = landing.landed
            try:
                with _open(url, source.name, project.folder) as db:
                    yield from pulled.run(db)
                return
            except errors as error:
                failures = 1 if landing.landed > before else failures + 1
                if not passing(error) or failures > len(WAITS):
                    raise _refused(source, connector, url, error, landing.landed) from None
                say(f"{source.name}: {_first(error, url)}; trying again")
                time.sleep(WAITS[failures - 1])
                landing.forget()
    finally:
        landing.close()


def _open(url: str, source: str, folder: Path) -> AbstractContextManager[Any]:
    if url.startswith("sqlite"):
        return sqlite.open_database(url, source, folder)
    return postgresql.open_database(url, source)


class _Pull:
    """What one pull has reached: a lost connection goes on from there."""

    def __init__(self, source: Source, connector: SQL, landing: Landing, since: str | None, say: Callable[[str], None]):
        self.source, self.connector, self.landing, self.say = source, connector, landing, say
        self.reached = since
        self.started = datetime.now(UTC)
        self.clock = time.monotonic()
        known = json.loads(since) if since is not None else None
        self.start = lower(known, connector.overlap, source.name) if since is not None else None

    def run(self, db: Any) -> Iterator[Piece]:
        inner = f"SELECT * FROM {table_name(self.connector.table)}" if self.connector.table else self._query()
        kinds = db.columns(inner)
        self._check(kinds)
        mark = self.connector.watermark
        listed = ", ".join(db.select(column, kind) for column, kind in kinds.items())
        typed = {column: db.typed(column, kind) for column, kind in kinds.items()}
        if not mark:
            query = f"SELECT {listed}, NULL AS {MARK} FROM ({inner}) q"
            yield from self._pieces(db, query, typed, ordered=False)
            return
        unmarked = f"SELECT {listed}, NULL AS {MARK} FROM ({inner}) q WHERE q.{name(mark)} IS NULL"
        for piece in self._pieces(db, unmarked, typed, ordered=False):
            yield replace(piece, note=f"{piece.rows:,} rows without {mark}, which are read every time")
        self.landing.forget()
        start = f"q.{name(mark)} IS NOT NULL"
        if self.start is not None:
            start = f"q.{name(mark)} >= {db.literal(self.start)}"
        query = f"SELECT {listed}, q.{db.text(mark)} AS {MARK} FROM ({inner}) q WHERE {start} ORDER BY q.{name(mark)}"
        yield from self._pieces(db, query, typed, ordered=True, value=lambda text: db.value(text, kinds[mark]))

    def _query(self) -> str:
        assert self.connector.query
        return self.connector.query.strip().rstrip(";")

    def _check(self, kinds: dict[str, str]) -> None:
        mark, lowered = self.connector.watermark, [column.strip().lower() for column in kinds]
        if mark and mark not in kinds:
            raise DataError(
                self.source.name, f"{self.connector.shown} has no column {mark} to be its watermark",
                did_you_mean(mark, kinds),
            )  # fmt: skip
        if len(set(lowered)) < len(lowered):
            raise DataError(
                self.source.name, f"two columns of {self.connector.shown} have the same name: {', '.join(kinds)}",
                "give each its own in a query: SELECT a.id, b.id AS other_id …",
            )  # fmt: skip

    def _pieces(
        self, db: Any, query: str, typed: dict[str, str], *, ordered: bool, value: Callable[[Any], Any] | None = None
    ) -> Iterator[Piece]:
        for rows in _cut(db.stream(query), self.connector.rows):
            if value:
                last = capped(value(rows[MARK][-1].as_py()), self.started)
                self.start, self.reached = last, json.dumps(last)
            marks = rows[MARK].cast(pa.string()) if MARK in rows.column_names else None
            rows = rows.set_column(rows.column_names.index(MARK), MARK, marks)
            yield self.landing.table(rows, typed, self.reached, ordered=ordered)
            seconds = time.monotonic() - self.clock
            self.say(f"{self.source.name}: {self.landing.landed:,} rows pulled in {seconds:.0f} s")


def _cut(stream: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of `size` rows, the last one what is left."""
    held: list[pa.Table] = []
    for table in stream:
        held.append(table)
        while sum(t.num_rows for t in held) >= size:
            whole = _together(held)
            yield whole.slice(0, size)
            held = [whole.slice(size)] if whole.num_rows > size else []
    if held:
        yield _together(held)


def _together(tables: list[pa.Table]) -> pa.Table:
    """One table; a column that has several types in them (SQLite) becomes text."""
    if len(tables) == 1:
        return tables[0]
    names = tables[0].column_names
    mixed = [n for n in names if len({t.schema.field(n).type for t in tables}) > 1]
    for column in mixed:
        tables = [
            t.set_column(names.index(column), column, pa.chunked_array([_plain(t[column])], pa.string()))
            for t in tables
        ]
    return pa.concat_tables(tables)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())


def table_name(table: str) -> str:
    """A table as it is named, with its schema or without, quoted for SQL."""
    return ".".join(name(part) for part in table.split("."))


def _first(error: Exception, url: str) -> str:
    """The first lines of an error, without what is secret in the url."""
    text = " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())
    text = text.replace(url, "***")
    rest = url.partition("://")[2].rpartition("@")[0]
    password = rest.partition(":")[2]
    return text.replace(password, "***") if password else text


def _refused(source: Source, connector: SQL, url: str, error: Exception, landed: int) -> Exception:
    said = _first(error, url)
    state = getattr(error, "sqlstate", None) or ""
    if state.startswith("42") or "no such table" in said or "syntax error" in said:
        return DefinitionError(
            source.name, f"{connector.shown} cannot be read: {said}", "mend the connector in the contract"
        )
    stays = f"{landed:,} rows that came before it stay" if landed else "nothing came"
    return DataError(
        source.name, f"the database stopped: {said} ({stays})", "run it again: it goes on from the watermark"
    )
