"""Where do derived tables live? Plain Parquet files, made from facts, replaced atomically or patched.

A patch is a file of its own beside the table, `golden.patches/000001.parquet`: the rows of some keys, which stand in
place of those that the table, and earlier patches, have of these keys. Readers see the table as patched. When the
patches have grown to a quarter of the table, they are written into it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb

from lake.literals import quote

MOST_PATCHES = 50
_SMALL = "COMPRESSION zstd, COMPRESSION_LEVEL 1"  # files as small as at the default of 3, in three quarters of the time


def write(con: duckdb.DuckDBPyConnection, query: str, file: Path, metadata: Mapping[str, str] | None = None) -> int:
    """Write the result of a query to a Parquet file; readers see the old file or the new one. Returns its rows.

    metadata: text kept in the file's footer, such as the ingest batch it was made from.
    """
    shutil.rmtree(_patches(file), ignore_errors=True)  # first: they must not be applied to another table
    return _replace(con, query, file, metadata)


def patch(con: duckdb.DuckDBPyConnection, query: str, file: Path, *, key: str, keys: str) -> None:
    """Replace the rows of some keys.

    query: the new rows, with the table's columns (others are added). key: the table's first column, whose a row is.
    keys: a query of the keys, in a column of that name; those without rows in `query` have none any more.
    """
    folder = _patches(file)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = sorted(folder.glob("*.parquet"))
    number = int(earlier[-1].stem) + 1 if earlier else 1
    rows = f"""WITH fresh AS MATERIALIZED ({query})
        SELECT *, false AS _gone, {number} AS _patch FROM fresh UNION ALL BY NAME
        SELECT DISTINCT {key}, true AS _gone, {number} AS _patch FROM ({keys}) ANTI JOIN fresh USING ({key})"""
    made = folder / f"{number:06}.parquet"
    _replace(con, rows, made)
    if len(earlier) >= MOST_PATCHES or 4 * sum(map(_rows, [*earlier, made])) > _rows(file):
        _replace(con, f"SELECT * FROM {scan(file)} ORDER BY {key}", file)
        shutil.rmtree(folder)  # if this is cut short the same rows are patched in once more


def scan(file: Path) -> str:
    """A derived table as it stands, patches included, to be read by DuckDB."""
    table, patches = f"read_parquet('{quote(file)}')", sorted(_patches(file).glob("*.parquet"))
    if not patches:
        return table
    key = duckdb.execute(f"DESCRIBE FROM {table}").fetchall()[0][0]
    files = ", ".join(f"'{quote(p)}'" for p in patches)
    read = f"read_parquet([{files}], union_by_name=true)"
    latest = f"SELECT {key}, max(_patch) AS _patch FROM {read} GROUP BY 1"
    return f"""(SELECT * FROM {table} ANTI JOIN ({latest}) USING ({key}) UNION ALL BY NAME
        SELECT * EXCLUDE (_gone, _patch) FROM {read} SEMI JOIN ({latest}) USING ({key}, _patch) WHERE NOT _gone)"""


def _replace(con: duckdb.DuckDBPyConnection, query: str, file: Path, metadata: Mapping[str, str] | None = None) -> int:
    pairs = ", ".join(f"{key}: '{quote(value)}'" for key, value in (metadata or {}).items())
    footer = f", KV_METADATA {{{pairs}}}" if pairs else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        row = con.execute(f"COPY ({query}) TO '{quote(draft)}' (FORMAT parquet, {_SMALL}{footer})").fetchall()
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return int(row[0][0])


def _rows(file: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(file).num_rows


def _patches(file: Path) -> Path:
    return file.with_name(f"{file.stem}.patches")


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
