"""Where do derived tables live? Plain Parquet files, rebuilt from facts, replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
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


def forget(folder: Path, profiles: Iterable[str]) -> tuple[int, int]:
    """Write again, without these profiles, every Parquet file below a folder that has rows of them by `profile_id`.

    Everyone else's rows, their order and the footer's text stay. Returns (rows, files).
    """
    wanted, rows, files = list(profiles), 0, 0
    for file in sorted(folder.rglob("*.parquet")):
        with duckdb.connect() as con:
            con.execute("SET TimeZone='UTC'")
            source = f"read_parquet('{quote(file)}', hive_partitioning=false)"
            if "profile_id" not in {name for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}:
                continue
            con.execute("CREATE TEMP TABLE gone AS SELECT unnest(?::VARCHAR[]) AS profile_id", [wanted])
            theirs = f"FROM {source} WHERE profile_id IN (SELECT profile_id FROM gone)"
            if not (count := int(con.execute(f"SELECT count(*) {theirs}").fetchall()[0][0])):
                continue
            pairs = con.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(file)]).fetchall()
            said = {key.decode(): value.decode() for key, value in pairs if not key.startswith((b"ARROW", b"duckdb"))}
            kept = f"SELECT * FROM {source} WHERE profile_id NOT IN (SELECT profile_id FROM gone)"
            write(con, kept, file, metadata=said)
            rows, files = rows + count, files + 1
    return rows, files
