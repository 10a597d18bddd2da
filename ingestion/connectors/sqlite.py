"""How is SQLite read? By Python's own driver, read-only. Each value there has a type of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from foretell.errors import DataError
from ingestion.connectors.landing import name

_ROWS = 20_000


class Database:
    """A connection for one pull."""

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection

    def columns(self, select: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for column, *_ in self.connection.execute(f"SELECT * FROM ({select}) LIMIT 0").description:
            found[column + " " * (column in found)] = ""
        return found

    def select(self, column: str, kind: str) -> str:
        return name(column)

    def typed(self, column: str, kind: str) -> str:
        return name(column)

    def text(self, column: str) -> str:
        return name(column)

    def value(self, text: Any, kind: str) -> Any:
        return text

    def literal(self, value: Any) -> str:
        return repr(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"

    def stream(self, query: str) -> Iterator[pa.Table]:
        cursor = self.connection.execute(query)
        names = [column for column, *_ in cursor.description]
        while rows := cursor.fetchmany(_ROWS):
            yield pa.table([_array(list(values)) for values in zip(*rows, strict=True)], names=names)


def _array(values: list[Any]) -> pa.Array:
    """Values as they are if they are of one type, else as text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int}:
        return pa.array(values, pa.int64())
    if kinds == {float}:
        return pa.array(values, pa.float64())
    return pa.array([v if v is None or isinstance(v, str) else _text(v) for v in values], pa.string())


def _text(value: Any) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


@contextmanager
def open_database(url: str, source: str, folder: Path) -> Iterator[Database]:
    """url: sqlite:///path, relative to the project's folder, or with one slash more an absolute one."""
    file = folder / url.removeprefix("sqlite://").removeprefix("/")
    if not file.is_file():
        raise DataError(source, f"no such file: {file}", "check the url: sqlite:///file.db starts from the project")
    connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=30)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        yield Database(connection)
    finally:
        connection.close()


def errors() -> tuple[type[Exception], ...]:
    return (sqlite3.Error,)


def passing(error: Exception) -> bool:
    """Whether the same may work a little later: another process holds the file."""
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))
