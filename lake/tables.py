"""How are facts stored? Append-only Delta tables, committed atomically, read as plain Parquet files.

Engines get the list of active files of the current version: DuckDB and Spark read those natively, without a Delta
extension. Facts are insert-only, and every append leaves out the ids that are already there, so that a writer killed at
any point can simply run again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError

from foretell.errors import DataError

# Minimum and maximum of these columns may be written to the Delta log. Never those of personal columns: an e-mail in
# the log would outlive its erasure.
STATISTICS = "event_at,known_at,received_at,batch"


@dataclass(frozen=True)
class Table:
    """One Delta table below a home folder. It comes to be with its first append."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def _open(self) -> DeltaTable | None:
        try:
            table = DeltaTable(self.path)
        except TableNotFoundError:
            return None
        features = set(table.protocol().reader_features or [])
        if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
            features.add("columnMapping")  # tables of reader version 2 do not list it
        if unreadable := features & {"deletionVectors", "columnMapping"}:
            raise DataError(
                str(self.path), f"uses {', '.join(sorted(unreadable))}; its Parquet files alone are not the table",
                "rewrite it without (REORG … APPLY PURGE) before Foretell reads it",
            )  # fmt: skip
        return table

    @property
    def exists(self) -> bool:
        return self._open() is not None

    def files(self) -> list[str]:
        """The active Parquet files of the current version."""
        table = self._open()
        return [unquote(uri) for uri in table.file_uris()] if table else []  # a space comes as %20

    def version(self) -> int | None:
        table = self._open()
        return table.version() if table else None

    def rows(self) -> int:
        """How many rows the table has, from file footers."""
        files = self.files()
        if not files:
            return 0
        row = duckdb.execute(f"SELECT count(*) FROM {self.scan(files)}").fetchall()
        return int(row[0][0])

    def scan(self, files: list[str] | None = None) -> str:
        """The table as a DuckDB table function."""
        files = self.files() if files is None else files
        quoted = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
        return f"read_parquet([{quoted}], hive_partitioning=true, union_by_name=true)"

    def append(self, rows: pa.Table | pa.RecordBatchReader, *, partition_by: list[str] | None = None, why: str) -> None:
        """Append rows in one atomic commit; new columns are added to the table's schema."""
        write_deltalake(
            self.path,
            rows,
            mode="append",
            schema_mode="merge",
            partition_by=partition_by,
            configuration={"delta.dataSkippingStatsColumns": _present(STATISTICS, rows.schema)},
            commit_properties=CommitProperties(custom_metadata={"why": why}),
        )

    def roll_back(self, last_batch: int) -> int:
        """Remove what a batch after the last whole one left behind when it was cut short. Returns how many rows."""
        table, files = self._open(), self.files()
        if table is None or not files:
            return 0
        latest = duckdb.execute(f"SELECT max(batch) FROM {self.scan(files)}").fetchall()[0][0]
        if latest is None or latest <= last_batch:
            return 0
        return int(table.delete(f"batch > {int(last_batch)}")["num_deleted_rows"])

    def history(self) -> list[dict]:
        table = self._open()
        return json.loads(json.dumps(table.history(), default=str)) if table else []


def _present(columns: str, schema: pa.Schema) -> str:
    # a table without any of these gets the name of a column that cannot exist: no statistics at all
    return ",".join(c for c in columns.split(",") if c in schema.names) or "batch"
