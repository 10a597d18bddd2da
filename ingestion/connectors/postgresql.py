"""How is PostgreSQL read? As Arrow batches by ADBC, in a stream: memory is bounded by a batch, not by the table.

Whole numbers, floats, booleans and text come as they are. Everything else comes as the database itself writes it, which
loses nothing (numeric of any length, infinity, ranges), and gets a type to reckon with when it is landed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from foretell.errors import NotReady
from ingestion.connectors.landing import name

_AS_THEY_ARE = {"int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "name"}
_WHOLE = {"int2", "int4", "int8"}
_TYPED = {"timestamptz": "TIMESTAMPTZ", "timestamp": "TIMESTAMP", "date": "DATE"}
_SESSION = (
    "SET TimeZone='UTC'", "SET DateStyle='ISO, YMD'", "SET IntervalStyle='iso_8601'", "SET extra_float_digits=1",
)  # fmt: skip
WENT_AWAY: tuple[type[Exception], ...] = (OSError,)  # libpq's word for it in mid-stream


class Database:
    """A connection for one pull."""

    def __init__(self, connection: Any, source: str):
        self.connection, self.source = connection, source

    def columns(self, select: str) -> dict[str, str]:
        """Column -> PostgreSQL's name of its type; two of one name are kept apart by a blank, to be refused."""
        with self.connection.cursor() as cursor:
            schema: pa.Schema = cursor.adbc_execute_schema(select)
        found: dict[str, str] = {}
        for field in schema:
            meta = field.metadata or {}
            kind = meta.get(b"POSTGRESQL:type", b"text").decode()
            if kind == "numeric":
                kind += f" {meta.get(b'POSTGRESQL:typmod', b'-1').decode()}"
            found[field.name + " " * (field.name in found)] = kind
        return found

    def select(self, column: str, kind: str) -> str:
        return name(column) if kind in _AS_THEY_ARE else f"{name(column)}::text AS {name(column)}"

    def typed(self, column: str, kind: str) -> str:
        if kind in _TYPED:
            return f"TRY_CAST({name(column)} AS {_TYPED[kind]})"
        if kind.startswith("numeric"):
            return f"TRY_CAST({name(column)} AS {_decimal(int(kind.split()[1]))})"
        return name(column)

    def text(self, column: str) -> str:
        return f"{name(column)}::text"

    def value(self, text: str, kind: str) -> Any:
        """A watermark, of the type it is compared in."""
        return int(text) if kind in _WHOLE else text

    def literal(self, value: Any) -> str:
        return "'" + str(value).replace("'", "''") + "'"  # of no type yet: it takes the column's

    def stream(self, query: str) -> Iterator[pa.Table]:
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                yield pa.Table.from_batches([batch])


def _decimal(typmod: int) -> str:
    if typmod < 0:
        return "DOUBLE"
    precision, scale = (typmod - 4) >> 16, (typmod - 4) & 0x7FF
    return f"DECIMAL({precision}, {scale})" if precision <= 38 and scale <= precision else "DOUBLE"


@contextmanager
def open_database(url: str, source: str) -> Iterator[Database]:
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError:
        raise NotReady(source, "PostgreSQL needs a driver", "pip install 'foretell[postgres]'") from None
    connection = driver.connect(url)
    try:
        with connection.cursor() as cursor:
            for setting in _SESSION:
                cursor.execute(setting)
        yield Database(connection, source)
    finally:
        connection.close()


def errors() -> tuple[type[Exception], ...]:
    """(all that it raises)"""
    import adbc_driver_manager

    return (adbc_driver_manager.Error, pa.ArrowException, *WENT_AWAY)


def passing(error: Exception) -> bool:
    """Whether the same may work a little later: the server is out of reach, starts, or shuts down."""
    import adbc_driver_manager

    state = getattr(error, "sqlstate", None) or ""
    if state:  # connection, insufficient resources, operator intervention (shutdown, starting up)
        return state[:2] in {"08", "53"} or state in {"57P01", "57P02", "57P03"}
    refused = ("authentication failed", "no pg_hba.conf", "does not exist", "could not translate")
    if any(word in str(error) for word in refused):
        return False
    return isinstance(error, OSError | adbc_driver_manager.OperationalError)
