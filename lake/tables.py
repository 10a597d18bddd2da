"""How are facts stored? Append-only Delta tables, committed atomically, read as plain Parquet files.

Engines get the list of active files of the current version: DuckDB and Spark read those natively, without a Delta
extension. Facts are insert-only, and every append leaves out the ids that are already there, so that a writer killed at
any point can simply run again. A table lies in a folder, or in a bucket; of one in a bucket, engines read local copies
(lake/held.py).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import Schema
from deltalake.transaction import AddAction, create_table_with_add_actions

from foretell.errors import DataError
from lake import held
from lake.bucket import Bucket

# Minimum and maximum of these columns may be written to the Delta log. Never those of personal columns: an e-mail in
# the log would outlive its erasure.
STATISTICS = "event_at,known_at,received_at,batch"


@dataclass(frozen=True)
class Table:
    """One Delta table. It comes to be with its first append.

    path: its folder; of one in a bucket, the folder of the copies of its files. at: the table's address in a bucket.
    """

    path: Path
    at: Bucket | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def uri(self) -> str:
        """Where the table is: a folder or an address."""
        return self.at.url if self.at else str(self.path)

    @property
    def _options(self) -> dict[str, str] | None:
        return self.at.options if self.at else None

    def _reached(self) -> AbstractContextManager[None]:
        return self.at.reached() if self.at else nullcontext()

    def _open(self) -> DeltaTable | None:
        try:
            with self._reached():
                table = _remembered(self.at) if self.at else DeltaTable(self.path)
        except TableNotFoundError:
            return None
        features = set(table.protocol().reader_features or [])
        if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
            features.add("columnMapping")  # tables of reader version 2 do not list it
        if unreadable := features & {"deletionVectors", "columnMapping"}:
            raise DataError(
                self.uri, f"uses {', '.join(sorted(unreadable))}; its Parquet files alone are not the table",
                "rewrite it without (REORG … APPLY PURGE) before Foretell reads it",
            )  # fmt: skip
        return table

    @property
    def exists(self) -> bool:
        """Whether it has rows to be read: one of which every row is gone is as if it had never been."""
        return bool(self.uris())

    def files(self) -> list[str]:
        """The active Parquet files of the current version, as local files."""
        if not self.at:
            return self.uris()
        for attempt in range(3):
            table = self._open()
            try:
                return held.hold(self.at, self.path, _active(table)) if table else []
            except held.Gone as gone:  # the version was vacuumed away after it was read: there is a newer one
                _opened.clear()
                if attempt == 2:
                    raise DataError(
                        self.uri, f"expected the files that its log names, got none or another: {gone}",
                        "restore them in the bucket, or copy the table there again",
                    ) from gone  # fmt: skip
        raise AssertionError

    def active(self) -> list[held.File]:
        """The same as the log says: keys below the table, sizes and times."""
        table = self._open()
        return _active(table) if table else []

    def uris(self) -> list[str]:
        """The same where they are, for engines that read a bucket by themselves."""
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
        with self._reached():
            write_deltalake(
                self.uri,
                rows,
                mode="append",
                schema_mode="merge",
                partition_by=partition_by,
                configuration={"delta.dataSkippingStatsColumns": _present(STATISTICS, rows.schema)},
                commit_properties=CommitProperties(custom_metadata={"why": why}),
                storage_options=self._options,
            )

    def adopt(self, files: Sequence[Path], schema: pa.Schema, *, why: str) -> int:
        """Make Parquet files that were written elsewhere part of the table, in one atomic commit. Returns how many.

        They are linked, not copied: the originals may be removed afterwards. A file's name says what is in it: one
        that the table has already under its name is not taken again. schema: of the files; new columns are added.
        """
        table = self._open()
        active = {Path(file.key).name for file in _active(table)} if table else set()
        new = [file for file in files if file.name not in active]
        if not new:
            return 0
        actions = []
        for file in new:
            rows = json.dumps({"numRecords": pq.read_metadata(file).num_rows})  # no minimum or maximum of anybody's
            size, changed = self._take(file)
            actions.append(AddAction(file.name, size, {}, changed, True, rows))
        said = CommitProperties(custom_metadata={"why": why})
        wanted = Schema.from_arrow(schema)
        with self._reached():
            if table is None:
                create_table_with_add_actions(
                    self.uri, wanted, actions, storage_options=self._options, commit_properties=said,
                    configuration={"delta.dataSkippingStatsColumns": _present(STATISTICS, schema)},
                )  # fmt: skip
                return len(new)
            known = {field.name for field in table.schema().fields}
            if more := [field for field in wanted.fields if field.name not in known]:
                table.alter.add_columns(more)
            table.create_write_transaction(actions, "append", wanted, commit_properties=said)
        return len(new)

    def _take(self, file: Path) -> tuple[int, int]:
        """Put a file beside the table's own, not committed yet. Returns (bytes, time of change in milliseconds)."""
        if self.at:
            self.at.send(file, file.name)
            return file.stat().st_size, time.time_ns() // 1_000_000
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / file.name
        target.unlink(missing_ok=True)  # left by a commit that was cut short
        try:
            os.link(file, target)
        except OSError:  # a file system without links: nobody reads the copy before it is whole and committed
            shutil.copyfile(file, target)
        found = target.stat()
        return found.st_size, found.st_mtime_ns // 1_000_000

    def roll_back(self, last_batch: int) -> int:
        """Remove what a batch after the last whole one left behind when it was cut short. Returns how many rows."""
        table, files = self._open(), self.files()
        if table is None or not files:
            return 0
        latest = duckdb.execute(f"SELECT max(batch) FROM {self.scan(files)}").fetchall()[0][0]
        if latest is None or latest <= last_batch:
            return 0
        with self._reached():
            return int(table.delete(f"batch > {int(last_batch)}")["num_deleted_rows"])

    def rewrite(
        self, con: duckdb.DuckDBPyConnection, gone: str, *, changed: str = "false",
        columns: Mapping[str, str] | None = None, why: str,
    ) -> int:  # fmt: skip
        """Write the table again without the rows of which `gone` is true, in one commit. Returns how many they were.

        gone, changed: SQL conditions on a row `t`, which may read tables of `con`. columns: column -> SQL for its new
        value, in the rows of which `changed` is true. The log names ingest batches at most: what a condition was about
        never gets into it, as it would with a delete. Nothing is committed if no row is concerned.
        """
        files = self.files()
        table, scan = self._open(), f"(SELECT * FROM {self.scan(files)}) t" if files else ""
        if table is None or not scan:
            return 0
        written = {name for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
        names = [field.name for field in table.schema().fields if field.name in written]  # a new column may be in none
        has_batch = "batch" in names
        found = con.execute(
            f"""SELECT {"batch" if has_batch else "0"}, count(*) FILTER ({gone}), count(*) FROM {scan}
                WHERE ({gone}) OR ({changed}) GROUP BY 1"""
        ).fetchall()
        if not found:
            return 0
        where = f"batch IN ({', '.join(str(int(batch)) for batch, *_ in found)})" if has_batch else None
        new = columns or {}
        listed = ", ".join(
            f'CASE WHEN {changed} THEN {new[name]} ELSE t."{name}" END AS "{name}"' if name in new else f't."{name}"'
            for name in names
        )
        rows = con.sql(f"SELECT {listed} FROM {scan} WHERE ({where or 'true'}) AND ({gone}) IS NOT TRUE")
        with self._reached():
            write_deltalake(
                self.uri,
                rows.to_arrow_reader(100_000),
                mode="overwrite",
                schema_mode="merge",
                predicate=where,
                partition_by=table.metadata().partition_columns or None,
                commit_properties=CommitProperties(custom_metadata={"why": why}),
                storage_options=self._options,
            )
        return sum(n for _, n, _ in found)

    def vacuum(self) -> int:
        """Remove every file that the current version does not need, also what killed writers left, and local copies.
        Older versions cannot be read any more. Returns how many files."""
        table = self._open()
        if table is None:
            return 0
        with self._reached():
            gone = table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
        if self.at:
            held.drop(self.path, _active(table))
        return len(gone)

    def compact(self) -> None:
        """Write many small files into few, and remove the small ones."""
        if table := self._open():
            with self._reached():
                table.optimize.compact()
            self.vacuum()

    def history(self) -> list[dict]:
        table = self._open()
        return json.loads(json.dumps(table.history(), default=str)) if table else []


# A table of a bucket that this process has opened: of its log, only what is new is asked for. By address and by how the
# store is reached.
_opened: dict[tuple[str, ...], DeltaTable] = {}


def _remembered(at: Bucket) -> DeltaTable:
    key = (at.url, *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("AWS_")))
    if table := _opened.get(key):
        table.update_incremental()
    else:
        table = DeltaTable(at.url, storage_options=at.options)
        _opened[key] = table
    return table


def _active(table: DeltaTable) -> list[held.File]:
    """The active files as the log says, in the order of `file_uris`."""
    if not table.file_uris():
        return []
    found = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "modification_time"])
    said = zip(*(column.to_pylist() for column in found.columns), strict=True)
    return [held.File(unquote(path), size, _milliseconds(at)) for path, size, at in said]


def _milliseconds(at: object) -> int:
    return int(at.timestamp() * 1000) if hasattr(at, "timestamp") else int(at)  # type: ignore[attr-defined, call-overload]


def _present(columns: str, schema: pa.Schema) -> str:
    # a table without any of these gets the name of a column that cannot exist: no statistics at all
    return ",".join(c for c in columns.split(",") if c in schema.names) or "batch"
