"""How is a file read? Every format becomes one DuckDB table `raw` with the row's number, payload and columns.

Nothing is interpreted here: columns of CSV and Excel stay text, a JSON line stays a JSON value. Lines that cannot be
read at all are returned apart.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, cast

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from foretell.errors import DataError, DefinitionError, UnknownName, did_you_mean
from ingestion import excel
from lake.engine import quote

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".parquet", excel.SUFFIX)
LANDED = ".landed.parquet"  # what a connector has pulled
OURS = {"_row", "_payload", "_copy"}
_LONGEST_LINE = 10_000_000
# the buffer is said too: it would be 16 lines, and compressed files take it whole
_LIMITS = f"store_rejects=true, max_line_size={_LONGEST_LINE}, buffer_size={2 * _LONGEST_LINE}"
csv.field_size_limit(2 * _LONGEST_LINE)


@dataclass
class Raw:
    """A file read into the table `raw(_row, _payload, …)` of a session.

    columns: the file's columns, or None when rows are JSON (any path may be asked for).
    unreadable: (line, text, reason) of lines that are no rows. line_of: row number -> line in the file.
    aliases, optional: the contract's, once it is known which one reads the file.
    copy: SQL that says which one of several equal rows a row is.
    """

    columns: dict[str, str] | None
    unreadable: list[tuple[int, str, str]]
    line_of: Callable[[int], int]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    copy: str = "row_number() OVER (PARTITION BY _payload ORDER BY _row)"

    def expression(self, text: str, *, what: str) -> str:
        """A contract's SQL expression, with its columns resolved against this file."""
        try:  # the bare name of a column may be a word that SQL keeps for itself: "order", "at", "desc"
            tree = exp.column(text) if self._is_name(text) else sqlglot.parse_one(text, dialect="duckdb")
        except SqlglotError as error:
            problem = f"{text!r} is not a SQL expression: {_first_line(error)}"
            raise DefinitionError(what, problem, "mend it in the contract") from None

        for node in list(tree.find_all(exp.Column)):
            column = self._column(node, what)
            if node is tree:
                tree = column
            else:
                node.replace(column)
        return tree.sql(dialect="duckdb", identify=True)

    def _is_name(self, text: str) -> bool:
        if self.columns is None:
            return "." not in text and (text in self.aliases or text in self.optional)
        return text in self.columns or text in self.aliases or text in self.optional

    def _column(self, node: exp.Column, what: str) -> exp.Expr:
        path = [part.name for part in node.parts]
        if self.columns is None:
            found, text = self._json_value(path), True
        else:
            name = self._name(path[0], what)
            if name is None:
                found, text = exp.cast(exp.null(), "VARCHAR"), False
            else:
                found, text = node.copy(), self.columns[name] == "VARCHAR"
                found.parts[0].replace(exp.to_identifier(name, quoted=True))
        if text and _is_reckoned_with(node):
            return exp.TryCast(this=found, to=exp.DataType.build("DOUBLE"))
        return found

    def _name(self, column: str, what: str) -> str | None:
        """What this file calls a column of the contract; None if it lacks one that it may lack."""
        columns, others = self.columns or {}, self.aliases.get(column, ())
        found = [name for name in dict.fromkeys((column, *others)) if name in columns]
        if len(found) > 1:
            problem = f"expected one column for it, got {' and '.join(found)}"
            raise DataError(column, problem, "remove one from the file, or from `aliases` in the contract", where=what)
        if found or column in self.optional:
            return found[0] if found else None
        nor = f", nor any of its aliases {', '.join(others)}" if others else ""
        raise UnknownName(column, f"no such column{nor}", did_you_mean(column, columns), where=what)

    def _json_value(self, path: list[str]) -> exp.Expr:
        """The text at a path of a JSON row; each row may have it under a name of its own."""
        paths = [path, *(other.split(".") for other in self.aliases.get(".".join(path), ()))]
        named = ["$" + "".join(f'."{part}"' for part in parts) for parts in paths]
        found = ", ".join(f"json_extract_string(_payload, '{quote(at)}')" for at in named)
        return sqlglot.parse_one(f"coalesce({found})" if len(named) > 1 else found, dialect="duckdb")


_ARITHMETIC = exp.Mul | exp.Div | exp.IntDiv | exp.Add | exp.Sub | exp.Mod | exp.Neg
_COMPARISON = exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE | exp.Between


def _is_reckoned_with(node: exp.Expr) -> bool:
    """Whether a column meets numbers, in arithmetic or beside one, where text of a file must become a number."""
    parent = node.parent
    while isinstance(parent, exp.Paren):
        parent = parent.parent
    if isinstance(parent, _COMPARISON):
        return any(operand.is_number for operand in parent.iter_expressions())
    if not isinstance(parent, _ARITHMETIC):
        return False
    return not any(isinstance(operand, exp.Interval) for operand in parent.iter_expressions())


def sheets_of(file: Path) -> list[str]:
    """The sheets of a workbook, each of which is read by itself; of any other file just "", the whole of it."""
    _check_exists(file)
    return excel.sheets(file) if file.name.lower().endswith(excel.SUFFIX) else [""]


def read(con: duckdb.DuckDBPyConnection, file: Path, sheet: str = "", most: int | None = None) -> Raw:
    """Read a file, of a workbook one sheet, into the session's table `raw`: all rows, or the first `most`.

    Unknown formats and files without rows are refused.
    """
    limit = f"LIMIT {int(most)}" if most else ""
    _check_exists(file)
    con.execute("DROP TABLE IF EXISTS raw")
    name = file.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            return _csv(con, file, limit)
        if name.endswith((".jsonl", ".ndjson", ".jsonl.gz")):
            return _json_lines(con, file, limit)
        if name.endswith(LANDED):
            return _landed(con, file)
        if name.endswith(".parquet"):
            return _parquet(con, file, limit)
        if name.endswith(excel.SUFFIX):
            return _excel(con, file, sheet, limit)
    except (duckdb.Error, OSError, EOFError, zlib.error) as error:
        problem, fix = f"cannot be read: {_first_line(error)}", "is the file whole, and of the kind it says?"
        if "invalid state" in str(error):  # DuckDB's word for line ends that are not those of the header
            fix = "it may mix line ends (CRLF and LF), or not be text at all: save it anew as UTF-8 with one kind"
        raise DataError(str(file), problem, fix) from None
    raise DataError(file.name, "unknown kind of file", f"expected one of {', '.join(SUFFIXES)}")


def _check_exists(file: Path) -> None:
    if not file.is_file():
        raise DataError(str(file), "no such file", "check the path, or the setting `exports`")


def _csv(con: duckdb.DuckDBPyConnection, file: Path, limit: str) -> Raw:
    with _text(file) as lines:
        first = lines.readline()
        if not first.strip():
            raise DataError(str(file), "expected a header and rows, got an empty file", "export it again")
        delimiter = max(",;\t|", key=first.count)
        names = next(csv.reader(chain([first], lines), delimiter=delimiter))
    header = [name.strip() or f"column_{n}" for n, name in enumerate(names, 1)]
    _check_names(file, header)
    ending = "\\r\\n" if first.endswith("\r\n") else "\\n"
    shape = ", ".join(f"'{quote(h)}': 'VARCHAR'" for h in header)
    con.execute(
        f"""CREATE TEMP TABLE raw AS SELECT row_number() OVER () AS _row, * FROM read_csv('{quote(file)}',
            header=true, auto_detect=false, delim='{delimiter}', quote='"', escape='"', columns={{{shape}}},
            new_line='{ending}', {_LIMITS}) {limit}"""
    )
    rejects = _rejects(con)
    _payload(con, header)

    @cache
    def starts() -> list[int]:
        return _starts(file, delimiter, blank=len(header) > 1)

    @cache
    def lines_of_rows() -> list[int]:
        rejected = set(rejects)
        return [line for n, line in enumerate(starts(), 1) if line and n > 1 and n not in rejected]

    def at(lines: list[int], n: int) -> int:
        return lines[n - 1] if n <= len(lines) else n

    bad = [(at(starts(), n), text.strip("\r\n"), reason) for n, (text, reason) in rejects.items()]
    return Raw(dict.fromkeys(header, "VARCHAR"), bad, lambda row: at(lines_of_rows(), row))


def _json_lines(con: duckdb.DuckDBPyConnection, file: Path, limit: str) -> Raw:
    con.execute(
        f"""CREATE TEMP TABLE lines AS SELECT row_number() OVER () AS _row, line FROM read_csv('{quote(file)}',
            columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', header=false, auto_detect=false,
            {_LIMITS}) {limit}"""
    )
    rejects = _rejects(con)
    good = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' END"
    con.execute(f"CREATE TEMP TABLE raw AS SELECT _row, line AS _payload FROM lines WHERE coalesce({good}, false)")
    broken = con.execute(
        f"""SELECT _row, line FROM lines WHERE NOT coalesce({good}, false) AND trim(coalesce(line, '')) <> ''
            ORDER BY _row"""
    ).fetchall()
    con.execute("DROP TABLE lines")
    read_before = [line - n for n, line in enumerate(rejects)]  # rows read before each line that could not be

    def line_of(row: int) -> int:
        return row + bisect_right(read_before, row)

    bad = [(n, text, reason) for n, (text, reason) in rejects.items()]
    bad += [(line_of(n), text, "expected a JSON object on one line") for n, text in broken]
    return Raw(None, sorted(bad), line_of)


def _parquet(con: duckdb.DuckDBPyConnection, file: Path, limit: str) -> Raw:
    described = con.execute(f"DESCRIBE SELECT * FROM read_parquet('{quote(file)}', hive_partitioning=false)").fetchall()
    types = {name: kind for name, kind, *_ in described}
    _check_names(file, list(types))
    con.execute(
        f"CREATE TEMP TABLE raw AS SELECT file_row_number + 1 AS _row, * EXCLUDE (file_row_number) "
        f"FROM read_parquet('{quote(file)}', file_row_number=true, hive_partitioning=false) {limit}"
    )
    _payload(con, list(types))
    return Raw(types, [], lambda row: row)


def _landed(con: duckdb.DuckDBPyConnection, file: Path) -> Raw:
    """Rows that a connector has landed: JSON records, or the columns of a table beside their payload."""
    described = con.execute(f"DESCRIBE SELECT * FROM read_parquet('{quote(file)}')").fetchall()
    types = {name: kind for name, kind, *_ in described if name not in OURS}
    con.execute(
        f"CREATE TEMP TABLE raw AS SELECT file_row_number + 1 AS _row, * EXCLUDE (file_row_number) "
        f"FROM read_parquet('{quote(file)}', file_row_number=true)"
    )
    if types:  # where a row lay in a pull says nothing
        return Raw(types, [], lambda row: 0, copy="_copy")
    wrong = "NOT coalesce(CASE WHEN json_valid(_payload) THEN json_type(_payload) = 'OBJECT' END, false)"
    broken = con.execute(f"SELECT _payload FROM raw WHERE {wrong} ORDER BY _row").fetchall()
    con.execute(f"DELETE FROM raw WHERE {wrong}")
    return Raw(None, [(0, text, "expected a JSON object") for (text,) in broken], lambda row: 0, copy="_copy")


def _excel(con: duckdb.DuckDBPyConnection, file: Path, sheet: str, limit: str) -> Raw:
    header, rows = excel.read(file, sheet)
    _check_names(f"{file}#{sheet}", header)
    con.register("sheet", rows)
    con.execute(f"CREATE TEMP TABLE raw AS SELECT * FROM sheet {limit}")
    con.unregister("sheet")
    _payload(con, header)
    return Raw(dict.fromkeys(header, "VARCHAR"), [], lambda row: row)


def _payload(con: duckdb.DuckDBPyConnection, columns: list[str]) -> None:
    """Add the whole row as JSON text, whatever its shape, beside its columns."""
    names = ['"' + c.replace('"', '""') + '"' for c in columns]
    packed = ", ".join(f"{name} := {name}" for name in names)
    con.execute("ALTER TABLE raw RENAME TO parsed")
    con.execute(f"CREATE TEMP TABLE raw AS SELECT *, to_json(struct_pack({packed}))::VARCHAR AS _payload FROM parsed")
    con.execute("DROP TABLE parsed")


def _check_names(file: Path | str, names: list[str]) -> None:
    lower = [name.lower() for name in names]
    if len(set(lower)) < len(names):
        raise DataError(str(file), "two columns have the same name", f"rename one of {names}")
    if taken := sorted(OURS.intersection(lower)):
        raise DataError(str(file), f"a column has the name {taken[0]}, which Foretell needs itself", "rename it")


def _text(file: Path) -> IO[str]:
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    return cast(IO[str], opener(file, "rt", encoding="utf-8-sig", newline="", errors="replace"))


def _rejects(con: duckdb.DuckDBPyConnection) -> dict[int, tuple[str, str]]:
    """The records that DuckDB could not read: which one, counted from 1 -> (text, reason)."""
    found = con.execute(
        """SELECT line, coalesce(any_value(csv_line), ''),
                  coalesce(arg_min(error_message, column_idx), any_value(error_message)) FROM reject_errors
           GROUP BY line ORDER BY line"""
    ).fetchall()
    con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return {int(n): (text, reason) for n, text, reason in found}


def _starts(file: Path, delimiter: str, *, blank: bool) -> list[int]:
    """The line on which each record of a CSV file starts, because a quoted value may span lines; 0 for a blank one."""
    found, line = [], 1
    with _text(file) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            for record in reader:
                found.append(0 if blank and not record else line)
                line = reader.line_num + 1
        except csv.Error:  # a quote that is never closed swallows the rest of the file
            found.append(line)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
