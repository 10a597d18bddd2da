"""How is one question asked again and again, of other rows and other instants, in a millisecond? Prepared, over tables
whose rows are handed over.

DuckDB takes far longer to read, bind and plan a query than to answer it of a few rows. What is prepared is planned
once. Rows come in by `Held`, which stays the same table: a question goes on asking the table that it was prepared
for, even where another was registered by its name.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import count
from typing import Any

import duckdb
import pyarrow as pa

from lake.engine import few

T = datetime(9000, 1, 1, 0, 0, 0, 987_654, tzinfo=UTC)  # stands in a question for the instant that is asked about
_INSTANT = re.compile(r"TIMESTAMPTZ '([^']+)'")
_MADE = re.compile(r"\s*CREATE OR REPLACE TEMP (TABLE|VIEW) (\w+) AS (.*?);?\s*", re.DOTALL)
_NUMBERS = count()


class Held:
    """A table of a connection whose rows are replaced at will. rows: they; always of the same columns."""

    def __init__(self, con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table):
        self.rows = rows
        con.register(name, self)

    def __arrow_c_schema__(self) -> object:
        return self.rows.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


class Question:
    """A query that is planned once. In its text `T`, or an instant some time before it, stands for the one asked
    about. What it reads must be `Held`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, query: str):
        self._con, number = con, next(_NUMBERS)
        self._name, moment = f"question_{number}", f"moment_{number}"
        self._at = Held(con, moment, _moment(T))
        con.execute(f"PREPARE {self._name} AS {_INSTANT.sub(lambda found: _relative(found, moment), query)}")

    def ask(self, at: datetime) -> pa.Table:
        """The answer as of T."""
        self._at.rows = _moment(at)
        return few(self._con, f"EXECUTE {self._name}")


def _moment(at: datetime) -> pa.Table:
    return pa.table({"t": pa.array([at], pa.timestamp("us", tz="UTC"))})


def _relative(found: re.Match[str], moment: str) -> str:
    at = datetime.fromisoformat(found[1])
    if at.year < T.year // 2:
        return found[0]
    before = (T - at) // datetime.resolution
    return f"(SELECT t - to_microseconds({before}) FROM {moment})" if before else f"(SELECT t FROM {moment})"


class Steps:
    """Stands for a connection: takes down the tables and views that are made of queries, as parts of one question.

    `CREATE OR REPLACE TEMP TABLE|VIEW name AS …` is taken down; what else is asked, the connection answers.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection):
        self._con = con
        self._parts: list[str] = []
        self._stands: dict[str, str] = {}  # name -> the part that it is by now

    def execute(self, sql: str) -> Any:
        if not sql.lstrip().startswith("CREATE"):
            return self._con.execute(sql)
        for statement in self._con.extract_statements(sql):
            if not (made := _MADE.fullmatch(statement.query)):
                raise ValueError(f"expected CREATE OR REPLACE TEMP TABLE or VIEW … AS, got {statement.query[:80]}")
            kind, name, query = made.groups()
            part = f"part_{len(self._parts)}"
            how = "MATERIALIZED" if kind == "TABLE" else "NOT MATERIALIZED"
            self._parts.append(f"{part} AS {how} {self.reading(query)}")
            self._stands[name] = part
        return None

    def reading(self, query: str) -> str:
        """A query that reads what was made, as it is by now, as a table to be asked `FROM`."""
        read = [
            f"{name} AS NOT MATERIALIZED (FROM {part})"
            for name, part in self._stands.items()
            if re.search(rf"\b{name}\b", query)
        ]
        return f"(WITH {', '.join(read)} FROM ({query}))" if read else f"({query})"

    def whole(self, query: str) -> str:
        """A query of `reading`s, with all that was made."""
        return f"WITH {', '.join(self._parts)} {query}"
