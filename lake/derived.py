"""Where do derived tables live? Plain Parquet files, rebuilt from facts, replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import duckdb

from lake.engine import quote


def write(con: duckdb.DuckDBPyConnection, query: str, file: Path, metadata: Mapping[str, str] | None = None) -> int:
    """Write the result of a query to a Parquet file; readers see the old file or the new one. Returns its rows.

    metadata: text kept in the file's footer, such as the ingest batch it was made from.
    """
    pairs = ", ".join(f"{key}: '{quote(value)}'" for key, value in (metadata or {}).items())
    footer = f", KV_METADATA {{{pairs}}}" if pairs else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        row = con.execute(f"COPY ({query}) TO '{quote(draft)}' (FORMAT parquet, COMPRESSION zstd{footer})").fetchall()
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return int(row[0][0])
