"""What became of rows that could not be understood? They are kept as they came, with file, line and reason.

The table only grows: a row that is read again gets a further version, with its new reason, or with none once it is a
fact. The view `quarantine` of a session shows the last version of the rows that are still bad. A version counts with
its ingest batch, as facts do, so that a row is never both a fact and in quarantine, nor neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from foretell.errors import UnknownName
from foretell.project import Project
from ingestion.files import Raw
from lake.engine import in_quarantine, instant, last_batch, quote, session, table

TABLE = "quarantine"
_STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        *[("quarantine_id", pa.string()), ("batch", pa.int64()), ("source", pa.string()), ("file", pa.string())],
        *[("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string()), ("received_at", _STAMP)],
        # the fact that the row would have been, and the file's columns (JSON: name -> type); none of a line unread
        *[("fact_id", pa.string()), ("columns", pa.string())],
    ]
)
_COLUMNS = ", ".join(SCHEMA.names)
# SQL for a reason without the value that came, so that those of one kind are told together
KIND = "regexp_replace({}, '(got|future:) .*', '\\1 …', 's')"


def keep(
    con: duckdb.DuckDBPyConnection, project: Project, source: str, shown: str, raw: Raw, batch: int, at: datetime
) -> tuple[int, list[str]]:
    """Put the bad rows of the tables `raw` and `stamped` into quarantine, but for those that are there already.

    Returns how many are bad, and samples: "file:line: reason".
    """
    rows = [n for (n,) in con.execute("SELECT _row FROM stamped WHERE _reason IS NOT NULL ORDER BY _row").fetchall()]
    if not rows and not raw.unreadable:
        return 0, []
    con.register("lines_of", pa.table({"_row": pa.array(rows, pa.int64()),
                                       "line": pa.array([raw.line_of(int(n)) for n in rows], pa.int64())}))  # fmt: skip
    unread = [{"line": line, "raw": text, "reason": why} for line, text, why in raw.unreadable]
    kinds = pa.schema([("line", pa.int64()), ("raw", pa.string()), ("reason", pa.string())])
    con.register("unread", pa.Table.from_pylist(unread, kinds))
    shape = "NULL" if raw.columns is None else f"'{quote(json.dumps(raw.columns))}'"
    place = f"'{quote(source)}' || chr(31) || '{quote(shown)}' || chr(31) || line || chr(31) || raw"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE bad AS SELECT md5({place}) AS quarantine_id, {batch}::BIGINT AS batch,
                '{quote(source)}' AS source, '{quote(shown)}' AS file, line, reason, raw,
                {instant(at)} AS received_at, fact_id, {shape}::VARCHAR AS columns
            FROM (SELECT line, _reason AS reason, payload AS raw, fact_id FROM stamped JOIN lines_of USING (_row)
                  UNION ALL SELECT line, reason, raw, NULL FROM unread)"""
    )
    con.unregister("lines_of")
    con.unregister("unread")
    files = (stored := table(project, TABLE)).files()
    new = f"ANTI JOIN (SELECT quarantine_id FROM {stored.scan(files)}) USING (quarantine_id)" if files else ""
    append(con, project, f"SELECT {_COLUMNS} FROM bad {new} ORDER BY line", why=f"load {source}")
    samples = con.execute("SELECT file || ':' || line || ': ' || reason FROM bad ORDER BY line LIMIT 3").fetchall()
    return len(rows) + len(unread), [text for (text,) in samples]


def settle(con: duckdb.DuckDBPyConnection, project: Project, source: str, batch: int) -> None:
    """Let rows leave that this load's table `stamped` has as good ones: its contract understands them by now."""
    if rows := in_quarantine(project, batch - 1):
        good = f"source = '{quote(source)}' AND fact_id IN (SELECT fact_id FROM stamped WHERE _reason IS NULL)"
        leave(con, project, f"SELECT * FROM ({rows}) WHERE {good}", batch, why=f"load {source}")


def leave(con: duckdb.DuckDBPyConnection, project: Project, rows: str, batch: int, *, why: str) -> int:
    """Write down that these rows (SQL with the table's columns) leave with this batch. Returns how many."""
    last = {"batch": f"{batch}::BIGINT", "reason": "NULL::VARCHAR", "raw": "NULL::VARCHAR", "columns": "NULL::VARCHAR"}
    return append(
        con, project, f"SELECT {', '.join(last.get(c, c) for c in map(str, SCHEMA.names))} FROM ({rows})", why=why
    )


def append(con: duckdb.DuckDBPyConnection, project: Project, rows: str, *, why: str) -> int:
    """Append versions of rows: SQL whose columns are the table's, in its order. Returns how many."""
    made = con.sql(rows).to_arrow_table()
    if made.num_rows:
        columns = [made.column(i).cast(kind.type) for i, kind in enumerate(SCHEMA)]
        table(project, TABLE).append(pa.Table.from_arrays(columns, schema=SCHEMA), why=why)
    return made.num_rows


@dataclass(frozen=True)
class Chosen:
    """Which rows in quarantine are meant: those for which all that is said holds.

    source: by name; reason: a part of it; file: a glob ("till/2017-*"); ids: beginnings of quarantine ids; since: those
    that were received at that time or later.
    """

    source: str = ""
    reason: str = ""
    file: str = ""
    ids: tuple[str, ...] = ()
    since: datetime | None = None

    def condition(self) -> str:
        """SQL over the view `quarantine`."""
        parts = ["true"]
        if self.source:
            parts.append(f"source = '{quote(self.source)}'")
        if self.reason:
            parts.append(f"contains(lower(reason), lower('{quote(self.reason)}'))")
        if self.file:
            parts.append(f"file GLOB '{quote(self.file)}'")
        if self.ids:
            parts.append("(" + " OR ".join(f"starts_with(quarantine_id, '{quote(i)}')" for i in self.ids) + ")")
        if self.since:
            parts.append(f"received_at >= {instant(self.since)}")
        return " AND ".join(parts)


def groups(project: Project, chosen: Chosen) -> list[tuple[str, str, int, str, datetime]]:
    """source, reason, rows, where the first of them is, when the last was received: the most frequent first.

    Reasons that differ in nothing but the value that came are one, which is shown as "…".
    """
    with session(project) as con:
        if not in_quarantine(project, last_batch(project)):
            return []
        return con.execute(
            f"""SELECT source, {KIND.format("reason")} AS why, count(*),
                    arg_min(file || ':' || line, (received_at, file, line)), max(received_at)
                FROM quarantine WHERE {chosen.condition()} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""
        ).fetchall()


def rows(project: Project, chosen: Chosen, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows in quarantine, by source, file and line: the table's columns."""
    with session(project) as con:
        if not in_quarantine(project, last_batch(project)):
            return []
        most = f"LIMIT {int(limit)}" if limit is not None else ""
        listed = ", ".join(SCHEMA.names)
        found = con.execute(
            f"SELECT {listed} FROM quarantine WHERE {chosen.condition()} ORDER BY source, file, line {most}"
        ).fetchall()
        return [dict(zip(SCHEMA.names, row, strict=True)) for row in found]


def one(project: Project, text: str) -> dict[str, Any]:
    """The row whose id begins so. None, or several, are refused."""
    found = rows(project, Chosen(ids=(text,)), limit=2) if text else []
    if len(found) != 1:
        problem = "no row in quarantine has an id that begins so" if not found else "begins the ids of several rows"
        raise UnknownName(text, problem, "`foretell quarantine list` shows their ids")
    return found[0]


def export(project: Project, chosen: Chosen, file: Path) -> int:
    """Write rows as JSON Lines for mending by hand: quarantine_id, source, where, reason, row. Returns how many.

    row: an object, or the text of a line that could not be read; `foretell quarantine replay --from` takes them back.
    """
    found = rows(project, chosen)
    with file.open("w", encoding="utf-8") as out:
        for row in found:
            said = {"quarantine_id": row["quarantine_id"], "source": row["source"],
                    "where": f"{row['file']}:{row['line']}", "reason": row["reason"], "row": _object(row)}  # fmt: skip
            out.write(json.dumps(said, ensure_ascii=False) + "\n")
    return len(found)


def _object(row: dict[str, Any]) -> Any:
    if row["fact_id"] is None:
        return row["raw"]
    try:
        return json.loads(row["raw"])
    except (ValueError, RecursionError):
        return row["raw"]
