"""What facts are in lines that have just been collected? The same as `foretell load` makes of them a little later.

A stream's lines are read by the contracts of its sources, compiled once. Lines that are no messages, and rows that a
contract refuses, are left to loading, which puts them into quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa

from foretell.declarations import Source
from foretell.project import Project
from ingestion.collector.messages import INVALID
from ingestion.contract import plan, told
from ingestion.erased import leave_out
from ingestion.files import Raw
from ingestion.forms import look_up, unknown
from lake.again import Held, Question, T
from lake.engine import connect, few
from lake.erasure import tombstones

_RAW = Raw(None, [], lambda row: row)
LAST = 1 << 40  # later than every ingest batch: what is not loaded yet is the latest version of a row


class Found(NamedTuple):
    """facts: source -> its facts (columns as in the lake, without `payload`), where there are any. lines: how many
    there were; first, last: when the first and the last of them were received."""

    facts: dict[str, pa.Table]
    lines: int
    first: datetime | None
    last: datetime | None


class Lines:
    """Reads the lines of one stream. sources: the contracts that read it."""

    def __init__(self, project: Project, sources: Sequence[Source]):
        self._project, self._sources = project, list(sources)
        self._con = con = connect(project)
        con.execute("SET threads=1")  # of a few rows
        self._raw = Held(con, "raw", _rows([]))
        stamp = "TRY_CAST(json_extract_string(_payload, '$.receivedAt') AS TIMESTAMPTZ)"
        self._received = Question(con, f"SELECT min({stamp}) AS first, max({stamp}) AS last FROM raw")
        self._unknown = {s.name: Question(con, unknown(s, told(_RAW, s))) for s in self._sources}
        self._questions: dict[tuple[str, frozenset[str]], Question] = {}
        self._erased = bool(tombstones(project))
        self._read = 0

    def close(self) -> None:
        self._con.close()

    def facts(self, lines: bytes) -> Found:
        """What these lines, each with its end, bring."""
        rows = [text for line in lines.split(b"\n") if line and not (text := line.decode()).startswith(INVALID)]
        self._raw.rows = _rows(rows)
        self._read += 1
        now = datetime.now(UTC)
        received = self._received.ask(now).to_pylist()[0]
        found = {source.name: facts for source in self._sources if (facts := self._facts_of(source, now)).num_rows}
        first, last = (at and at.astimezone(UTC) for at in (received["first"], received["last"]))
        return Found(found, len(rows), first, last)

    def _facts_of(self, source: Source, now: datetime) -> pa.Table:
        try:
            facts = self._question(source, now).ask(now)
            if self._erased:
                facts = self._left(source, facts)
        except duckdb.Error:  # an expression that does not fit a value: loading refuses the segment, and says so
            return pa.table({})
        place = facts.column_names.index("batch")
        batch = pa.array([LAST + self._read] * len(facts), pa.int64())
        return facts.set_column(place, "batch", batch)

    def _left(self, source: Source, facts: pa.Table) -> pa.Table:
        """Without what is of people who have been erased."""
        self._con.register("found", facts)
        self._con.execute("CREATE OR REPLACE TEMP TABLE stamped AS SELECT * FROM found")
        self._con.unregister("found")
        leave_out(self._con, self._project, source)
        return few(self._con, "FROM stamped")

    def _question(self, source: Source, now: datetime) -> Question:
        """What the contract makes of the rows. Values that libraries must be asked about are looked up before."""
        asked: frozenset[str] = frozenset()
        if self._unknown[source.name].ask(now).columns[0][0].as_py():
            asked = frozenset(look_up(self._con, self._project, source, told(_RAW, source)))
        if (source.name, asked) not in self._questions:
            at = T.isoformat(timespec="microseconds")
            made = plan(source, _RAW, file="the stream", batch=LAST, received_at=at, asked=asked)
            listed = ", ".join(f'"{column}"' for column in made.columns if column != "payload")
            query = f"SELECT {listed} FROM ({made.sql}) WHERE _reason IS NULL"
            self._questions[source.name, asked] = Question(self._con, query)
        return self._questions[source.name, asked]


def _rows(lines: Sequence[str]) -> pa.Table:
    numbers = pa.array(range(1, len(lines) + 1), pa.int64())
    return pa.table({"_row": numbers, "_payload": pa.array(lines, pa.string())})
