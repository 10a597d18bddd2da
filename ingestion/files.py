"""How is a file read? Every format becomes one DuckDB table `raw` with the row's number, payload and columns.

Nothing is interpreted here: CSV columns stay text, a JSON line stays a JSON value. Lines that cannot be read at all are
returned apart.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from foretell.errors import DataError, DefinitionError, unknown
from lake.engine import quote

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".parquet")
_LONGEST_LINE = 200_000_000


@dataclass
class Raw:
    """A file read into the table `raw(_row, _payload, …)` of a session.

    columns: the file's columns, or None when rows are JSON (any path may be asked for).
    unreadable: (line, text, reason) of lines that are no rows. line_of: row number -> line in the file.
    """

    columns: dict[str, str] | None
    unreadable: list[tuple[int, str, str]]
    line_of: Callable[[int], int]

    def expression(self, text: str, *, what: str) -> str:
        """A contract's SQL expression, with its columns resolved against this file."""
        try:
            tree = sqlglot.parse_one(text, dialect="duckdb")
        except ParseError as error:
            raise DefinitionError(what, f"{text!r} is not a SQL expression: {error}", "see the README") from None

        def resolve(node: exp.Expression) -> exp.Expression:
            if not isinstance(node, exp.Column):
                return node
            path = [part.name for part in node.parts]
            if self.columns is None:
                at = "$" + "".join(f'."{p}"' for p in path)
                return sqlglot.parse_one(f"json_extract_string(_payload, '{quote(at)}')", dialect="duckdb")
            if path[0] not in self.columns:
                raise unknown("column", path[0], self.columns, where=what)
            return node

        return tree.transform(resolve).sql(dialect="duckdb")


def read(con: duckdb.DuckDBPyConnection, file: Path) -> Raw:
    """Read a file into the session's table `raw`. Unknown formats and files without rows are refused."""
    if not file.exists():
        raise DataError(str(file), "no such file", "check the path, or the setting `exports`")
    con.execute("DROP TABLE IF EXISTS raw")
    name = file.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            return _csv(con, file)
        if name.endswith((".jsonl", ".ndjson", ".jsonl.gz")):
            return _json_lines(con, file)
        if name.endswith(".parquet"):
            return _parquet(con, file)
    except duckdb.Error as error:
        raise DataError(str(file), f"cannot be read: {error}", "is the file whole, and of the kind it says?") from None
    raise DataError(file.name, "unknown kind of file", f"expected one of {', '.join(SUFFIXES)}")


def _csv(con: duckdb.DuckDBPyConnection, file: Path) -> Raw:
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8-sig", newline="", errors="replace") as lines:
        first = lines.readline()
    if not first.strip():
        raise DataError(str(file), "expected a header and rows, got an empty file", "export it again")
    delimiter = max(",;\t|", key=first.count)
    header = [h.strip() for h in next(csv.reader([first], delimiter=delimiter))]
    if len(set(header)) < len(header):
        raise DataError(str(file), "two columns have the same name", f"rename one of {header}")
    ending = "\\r\\n" if first.endswith("\r\n") else "\\n"
    shape = ", ".join(f"'{quote(h)}': 'VARCHAR'" for h in header)
    con.execute(
        f"""CREATE TEMP TABLE raw AS SELECT row_number() OVER () AS _row, * FROM read_csv('{quote(file)}',
            header=true, auto_detect=false, delim='{delimiter}', quote='"', escape='"', columns={{{shape}}},
            store_rejects=true, max_line_size={_LONGEST_LINE}, new_line='{ending}')"""
    )
    rejects = con.execute(
        "SELECT line, any_value(csv_line), string_agg(error_message, '; ') FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    con.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    _payload(con, header)
    bad = [(int(line), text or "", reason) for line, text, reason in rejects]

    def line_of(row: int) -> int:
        line = row + 1  # the header is line 1
        for rejected, _, _ in bad:
            if rejected > line:
                break
            line += 1
        return line

    return Raw(dict.fromkeys(header, "VARCHAR"), bad, line_of)


def _json_lines(con: duckdb.DuckDBPyConnection, file: Path) -> Raw:
    con.execute(
        f"""CREATE TEMP TABLE lines AS SELECT row_number() OVER () AS _row, line FROM read_csv('{quote(file)}',
            columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', header=false, auto_detect=false,
            max_line_size={_LONGEST_LINE})"""
    )
    good = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' END"
    con.execute(f"CREATE TEMP TABLE raw AS SELECT _row, line AS _payload FROM lines WHERE coalesce({good}, false)")
    bad = con.execute(
        f"""SELECT _row, line FROM lines WHERE NOT coalesce({good}, false) AND trim(coalesce(line, '')) <> ''
            ORDER BY _row"""
    ).fetchall()
    con.execute("DROP TABLE lines")
    return Raw(None, [(int(n), text, "expected a JSON object on one line") for n, text in bad], lambda row: row)


def _parquet(con: duckdb.DuckDBPyConnection, file: Path) -> Raw:
    con.execute(
        f"CREATE TEMP TABLE raw AS SELECT file_row_number + 1 AS _row, * EXCLUDE (file_row_number) "
        f"FROM read_parquet('{quote(file)}', file_row_number=true, hive_partitioning=false)"
    )
    types = {name: kind for name, kind, *_ in con.execute("DESCRIBE raw").fetchall() if name != "_row"}
    _payload(con, list(types))
    return Raw(types, [], lambda row: row)


def _payload(con: duckdb.DuckDBPyConnection, columns: list[str]) -> None:
    """Add the whole row as JSON text, whatever its shape, beside its columns."""
    names = ['"' + c.replace('"', '""') + '"' for c in columns]
    packed = ", ".join(f"{name} := {name}" for name in names)
    con.execute("ALTER TABLE raw RENAME TO parsed")
    con.execute(f"CREATE TEMP TABLE raw AS SELECT *, to_json(struct_pack({packed}))::VARCHAR AS _payload FROM parsed")
    con.execute("DROP TABLE parsed")
