"""How does a table of a database become a source contract? As a file does, from its first rows."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import duckdb

from foretell.connectors import SQL
from foretell.declarations import Source
from foretell.errors import DataError
from foretell.project import Project
from ingestion.connectors import sql
from ingestion.connectors.landing import name as quoted
from ingestion.propose import MOST_ROWS, Proposal, propose
from lake.engine import quote

_CHANGES = re.compile(r"(updated|modified|changed|last_update|last_change)(_?(at|on|time|date|ts))?", re.IGNORECASE)


def propose_table(
    con: duckdb.DuckDBPyConnection, project: Project, url: str, table: str, *, name: str, kind: str | None = None,
    known: Iterable[Source] = (), taken: Iterable[str] = (),
) -> Proposal:  # fmt: skip
    """Read the first rows of a table, propose a contract with a connector, and try it on them.

    The watermark is a column that says when a row was changed, the key one that numbers the rows; both are guesses.
    """
    first = SQL(url=url, query=f"SELECT * FROM {sql.table_name(table)} LIMIT {MOST_ROWS}", rows=MOST_ROWS)
    probe = Source(name=name, connector=first, event_at="now")
    with tempfile.TemporaryDirectory() as folder:
        pieces = list(sql.pull(project, probe, None, Path(folder), lambda text: None))
        if not pieces:
            raise DataError(table, "expected rows, got none", "try it when the table has some")
        columns = [c for c, *_ in con.execute(f"DESCRIBE FROM '{quote(pieces[0].file)}'").fetchall()]
        watermark = next((c for c in columns if _CHANGES.fullmatch(c)), None)
        key = _key(con, pieces[0].file, columns, table)
        connector = SQL(url=url, table=table, watermark=watermark)
        made = propose(con, pieces[0].file, name=name, files=connector, kind=kind, known=known, taken=taken)
    if watermark:
        made.doubts["connector"] = "that the watermark grows whenever a row is added or changed"
    else:
        made.notes.append(
            "No column says when a row was changed: the whole table is read every time. If one grows with each new or "
            'changed row, such as a number, say watermark="…".'
        )
    if key:
        made.source = replace(made.source, key=key if key.isidentifier() else quoted(key))
        made.doubts["key"] = "that it numbers the rows: a changed row is a later version of the same fact"
    return made


def _key(con: duckdb.DuckDBPyConnection, file: Path, columns: list[str], table: str) -> str | None:
    """A column that is called like a row's number and is another in each row."""
    stem = table.rpartition(".")[2].lower().removesuffix("s")
    for column in columns:
        if column.lower() in {"id", "uuid", f"{stem}_id", f"{stem}id", f"{stem}_no"}:
            query = f"SELECT count(*) = count(DISTINCT {quoted(column)}) FROM '{quote(file)}'"
            if con.execute(query).fetchall()[0][0]:
                return column
    return None
