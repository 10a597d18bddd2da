"""What has been loaded before? One row a batch in the table `batches`, written last: with it the batch is there.

Beside the counts it says how a file looked (size, time of change, digest), how far a pull has come (watermark), and
which columns the rows had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from foretell.project import Project
from ingestion.connectors.landing import order
from lake.engine import quote, table

STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        *[("batch", pa.int64()), ("source", pa.string()), ("file", pa.string()), ("sha256", pa.string())],
        *[(n, pa.int64()) for n in ("rows", "added", "known", "quarantined", "left_out", "erased")],
        *[("received_at", STAMP), ("finished_at", STAMP)],
        *[("path", pa.string()), ("size", pa.int64()), ("modified_ns", pa.int64())],
        *[("connector", pa.string()), ("watermark", pa.string()), ("columns", pa.string())],
        ("changes", pa.string()),
    ]
)
REPLAYED = " (replay)"  # ends the name of a file of which rows in quarantine were read again
_SETTLED_NS = (
    2_000_000_000  # a file that changed this shortly before it was read may change again within its time stamp
)


@dataclass
class Seen:
    """What a source has brought so far.

    digests: of files and sheets. names: of files, as the ledger shows them. files: path -> (size, time of change) of
    those that need no look. watermark: JSON text of the last pull of the connector with this fingerprint. columns:
    column -> kind, as last seen.
    """

    digests: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    watermark: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def loaded(self, shown: str) -> bool:
        """Whether a file of this name was loaded, whatever was in it."""
        return shown in self.names

    def unchanged(self, file: Path) -> bool:
        """Whether a file has the size and the time of change that it had when it was loaded."""
        try:
            stat = file.stat()
        except OSError:
            return False
        return self.files.get(str(file)) == (stat.st_size, stat.st_mtime_ns)


def seen(project: Project, source: str, connector: str | None = None) -> Seen:
    """Read what the ledger says about a source."""
    found, stored = Seen(), table(project, "batches")
    if not (files := stored.files()):
        return found
    scan = stored.scan(files)
    has = {name for name, *_ in duckdb.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    wanted = ["sha256", "path", "size", "modified_ns", "connector", "watermark", "columns"]
    listed = ", ".join(f'"{c}"' if c in has else f'NULL AS "{c}"' for c in wanted)
    rows = duckdb.execute(
        f"SELECT {listed}, epoch_us(received_at), file FROM {scan} WHERE source = ? ORDER BY batch", [source]
    ).fetchall()
    for digest, path, size, modified, by, watermark, columns, received, name in rows:
        found.names.add(name)
        if digest:
            found.digests.add(digest)
        if path and modified is not None and modified + _SETTLED_NS < received * 1000:
            found.files[path] = (size, modified)
        if by is not None and by == connector:
            found.watermark = watermark
        if columns:
            found.columns = json.loads(columns)
    return found


def last_beside(project: Project, folder: str) -> int:
    """The last ingest batch that was no file of a folder of the exports or the home, read for the first time; 0 if
    there is none."""
    stored = table(project, "batches")
    if not (files := stored.files()):
        return 0
    first = f"starts_with(file, '{quote(folder)}/') AND NOT ends_with(file, '{REPLAYED}')"
    query = f"SELECT coalesce(max(batch), 0) FROM {stored.scan(files)} WHERE NOT ({first})"
    return int(duckdb.execute(query).fetchall()[0][0])


def later(a: str | None, b: str | None) -> str | None:
    """The higher of two watermarks: both hold, so a full pull that was cut short takes nothing back."""
    if a is None or b is None:
        return a if b is None else b
    return max(a, b, key=lambda text: order(json.loads(text)))


def write(project: Project, row: Mapping[str, Any]) -> None:
    """Write the row that makes a batch visible."""
    rows = pa.Table.from_pylist([dict(row)], schema=SCHEMA)
    table(project, "batches").append(rows, why=f"load {row['source']}")
