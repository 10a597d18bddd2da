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
from ingestion.contract import Plan, plan, told
from ingestion.erased import leave_out
from ingestion.files import Raw
from ingestion.forms import look_up
from lake.engine import connect, few
from lake.erasure import tombstones

_AT, _BATCH = (
    "2000-01-01T00:00:00.000000+00:00",
    987_654_321_012,
)  # what stands in a compiled contract for the real ones
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
        self._con = connect(project)
        self._con.execute("SET threads=1")  # of a few rows
        self._plans: dict[tuple[str, frozenset[str]], Plan] = {}
        self._erased = bool(tombstones(project))
        self._read = 0

    def close(self) -> None:
        self._con.close()

    def facts(self, lines: bytes) -> Found:
        """What these lines, each with its end, bring."""
        rows = [text for line in lines.split(b"\n") if line and not (text := line.decode()).startswith(INVALID)]
        self._con.register(
            "raw",
            pa.table({"_row": pa.array(range(1, len(rows) + 1), pa.int64()), "_payload": pa.array(rows, pa.string())}),
        )
        self._read += 1
        stamp = "TRY_CAST(json_extract_string(_payload, '$.receivedAt') AS TIMESTAMPTZ)"
        first, last = self._con.execute(f"SELECT min({stamp}), max({stamp}) FROM raw").fetchall()[0]
        found = {}
        for source in self._sources:
            facts = self._facts_of(source)
            if facts.num_rows:
                found[source.name] = facts
        self._con.unregister("raw")
        return Found(found, len(rows), first and first.astimezone(UTC), last and last.astimezone(UTC))

    def _facts_of(self, source: Source) -> pa.Table:
        made = self._plan(source)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        sql = made.sql.replace(_AT, now).replace(str(_BATCH), str(LAST + self._read))
        listed = ", ".join(f'"{column}"' for column in made.columns if column != "payload")
        try:
            if self._erased:
                self._con.execute(f"CREATE OR REPLACE TEMP TABLE stamped AS {sql}")
                leave_out(self._con, self._project, source)
                sql = "FROM stamped"
            return few(self._con, f"SELECT {listed} FROM ({sql}) WHERE _reason IS NULL")
        except duckdb.Error:  # an expression that does not fit a value: loading refuses the segment, and says so
            return pa.table({})

    def _plan(self, source: Source) -> Plan:
        asked = frozenset(look_up(self._con, self._project, source, told(_RAW, source)))
        known = self._plans.get((source.name, asked))
        if known is None:
            known = plan(source, _RAW, file="the stream", batch=_BATCH, received_at=_AT, asked=asked)
            self._plans[source.name, asked] = known
        return known
