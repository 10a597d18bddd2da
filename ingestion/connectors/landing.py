"""How does a pulled row lie on disk until it is loaded? As Parquet: its payload, and of a table its typed columns.

A payload is the same text whenever the same row is read again: keys in order, no NULLs, values as the database writes
them. Thereby a row that is read twice is one fact, and a column that comes, goes or turns from integer to text does not
make every row a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from foretell.errors import DataError
from foretell.project import Project
from ingestion.files import LANDED
from lake.engine import connect, quote

OVERLAP_OF_TIMES, OVERLAP_OF_NUMBERS = timedelta(minutes=5), 1_000
MARK = "_foretell_watermark"  # of a row that is being landed


@dataclass(frozen=True)
class Piece:
    """A landed file: one ingest batch to be.

    watermark: up to which all has been landed with it, as JSON text. note: what its reader should know.
    """

    file: Path
    shown: str
    rows: int
    watermark: str | None
    note: str = ""


class Landing:
    """Writes the pieces of one pull. It counts equal rows over all of them, for tables that have such."""

    def __init__(self, project: Project, folder: Path, shown: str):
        self.con, self.folder, self.shown, self.landed, self.pieces = connect(project), folder, shown, 0, 0
        self.con.execute("CREATE TEMP TABLE seen (hash UHUGEINT, n BIGINT, mark VARCHAR)")

    def close(self) -> None:
        self.con.close()

    def forget(self) -> None:
        """Rows are going to be read again: equal ones are counted anew."""
        self.con.execute("DELETE FROM seen")

    def table(self, rows: pa.Table, typed: Mapping[str, str], watermark: str | None, *, ordered: bool) -> Piece:
        """Land rows of a table. typed: column -> SQL that gives it the type to reckon with.

        rows has the text of the watermark as MARK. ordered: by it, so that equal rows lie together.
        """
        texts = [f"'{quote(json.dumps(n, ensure_ascii=False))}:' || to_json({name(n)}::VARCHAR)" for n in sorted(typed)]
        listed = ", ".join(f"{value} AS {name(n)}" for n, value in typed.items())
        payload = f"'{{' || concat_ws(',', {', '.join(texts)}) || '}}'"
        self.con.register("incoming", rows)
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE piece AS
                SELECT *, md5_number(_payload) AS _hash
                FROM (SELECT {listed}, {payload} AS _payload, {MARK} FROM incoming)"""
        )
        self.con.unregister("incoming")
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE several AS SELECT _hash FROM piece GROUP BY 1 HAVING count(*) > 1
               UNION SELECT hash FROM seen SEMI JOIN piece ON hash = _hash"""
        )
        copies = "1::BIGINT"
        if self.con.execute("SELECT 1 FROM several LIMIT 1").fetchall():
            self.con.execute(
                """CREATE OR REPLACE TEMP TABLE copies AS
                   SELECT p.rowid AS nr,
                       coalesce(b.n, 0) + row_number() OVER (PARTITION BY _hash ORDER BY p.rowid) AS nth
                   FROM piece p SEMI JOIN several s USING (_hash)
                   LEFT JOIN (SELECT hash, sum(n)::BIGINT AS n FROM seen GROUP BY 1) b ON b.hash = p._hash"""
            )
            copies = "coalesce((SELECT nth FROM copies c WHERE c.nr = p.rowid), 1)"
        piece = self._write(f"SELECT * EXCLUDE ({MARK}, _hash), {copies} AS _copy FROM piece p", watermark)
        last = f"(SELECT {MARK} FROM piece ORDER BY rowid DESC LIMIT 1)"
        only = f"WHERE {MARK} IS NOT DISTINCT FROM {last}" if ordered else ""
        self.con.execute(f"INSERT INTO seen SELECT _hash, count(*), any_value({MARK}) FROM piece {only} GROUP BY 1")
        if ordered:
            self.con.execute(f"DELETE FROM seen WHERE mark IS DISTINCT FROM {last}")
        return piece

    def records(self, payloads: list[str], watermark: str | None) -> Piece:
        """Land JSON records. The same record on two pages is one."""
        self.con.register("incoming", pa.table({"_payload": pa.array(payloads, pa.string())}))
        piece = self._write("SELECT _payload, 1::BIGINT AS _copy FROM incoming", watermark)
        self.con.unregister("incoming")
        return piece

    def _write(self, query: str, watermark: str | None) -> Piece:
        self.pieces += 1
        file = self.folder / f"{self.pieces:06}{LANDED}"
        try:
            done = self.con.execute(f"COPY ({query}) TO '{quote(file)}' (FORMAT parquet, COMPRESSION zstd)").fetchall()
        except duckdb.Error as error:
            problem = f"what came cannot be written to {file}: {str(error).splitlines()[0]}"
            raise DataError(self.shown, problem, "is there room on the disk?") from None
        self.landed += int(done[0][0])
        return Piece(file, self.shown, int(done[0][0]), watermark)


def name(column: str) -> str:
    """A column, quoted for SQL."""
    return '"' + column.replace('"', '""') + '"'


def lower(value: Any, overlap: timedelta | int | None, source: str, *, zone: bool = False) -> Any:
    """Where to read from: the overlap below a watermark. zone: the offset of a time is kept.

    Without its offset and fraction, the text of a time is not above any other text of that time.
    """
    if overlap is None:
        overlap = OVERLAP_OF_NUMBERS if isinstance(value, int | float) else OVERLAP_OF_TIMES if instant(value) else 0
    if not overlap:
        return value
    if isinstance(value, str) and isinstance(overlap, timedelta) and (at := instant(value)):
        early = at - overlap
        if zone:
            text = early.isoformat(sep=value[10:11] or "T")
            return text.replace("+00:00", "Z") if value.endswith("Z") else text
        return early.replace(tzinfo=None).isoformat(value[10], "seconds") if len(value) > 10 else str(early.date())
    if isinstance(value, int | float) and not isinstance(overlap, timedelta):
        return value - overlap
    expected = "a duration goes with a column of times, a number with a column of numbers"
    raise DataError(source, f"overlap {overlap} does not fit the watermark {value!r}: {expected}", "mend overlap")


def capped(value: Any, now: datetime) -> Any:
    """A watermark never lies in the future: one row with a wrong clock would keep out all that comes until then."""
    if not isinstance(value, str):
        return value
    if value == "infinity":
        return now.strftime("%Y-%m-%d %H:%M:%S")
    if (at := instant(value)) is None:
        return value
    ahead = now.replace(tzinfo=None) + timedelta(hours=14)  # of a zone that nobody said
    latest = ahead if at.tzinfo is None else now.astimezone(at.tzinfo)
    if at <= latest:
        return value
    text = latest.isoformat(value[10:11] or "T", "seconds") if len(value) > 10 else str(latest.date())
    return text.replace("+00:00", "Z") if value.endswith("Z") else text


def instant(text: str) -> datetime | None:
    """A time as ISO 8601 or PostgreSQL writes it, else None."""
    try:
        return datetime.fromisoformat(text) if len(text) >= 10 and text[4:5] == "-" else None
    except ValueError:
        return None


def order(value: Any) -> tuple[int, Any]:
    """What makes watermarks comparable: numbers by value, times by instant, other text as text."""
    if isinstance(value, int | float):
        return 0, value
    at = instant(value)
    return (2, value) if at is None else (1, at.replace(tzinfo=at.tzinfo or UTC))
