"""Where do built cutoffs lie, and how are they read? One Parquet file per view and cutoff, with patches beside it.

`orders__1a2b3c4d/20240101T000000000000.parquet` holds everyone's rows. A patch, `…-000000000123.parquet`, holds those
that facts up to ingest batch 123 touched; of a profile's rows the last written count. In a patch, `created` is as many
microseconds after the cutoff as the number of its batch, so that Feast, which reads the whole folder, chooses alike.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from features.compiling import versioned
from foretell.project import Project
from foretell.views import FeatureView
from lake import derived
from lake.engine import instant, quote

MOST_PATCHES = 20  # with more of them, or when they have a quarter of all rows, everything is written into one file
_MADE_FROM = re.compile(r"batch (\d+), (.*)")


def stamp(cutoff: datetime) -> str:
    """How files name a cutoff."""
    return cutoff.astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")


def file_of(project: Project, view: FeatureView, cutoff: datetime) -> Path:
    """The file of everyone's rows of a view at a cutoff."""
    folder = project.home / "features" / versioned(view, dict(project.definitions.sources))
    return folder / f"{stamp(cutoff)}.parquet"


def profiles_file(project: Project, cutoff: datetime) -> Path:
    """The list of the profiles at a cutoff (see features.changes)."""
    return project.home / "features" / "profiles" / f"{stamp(cutoff)}.parquet"


def patches(file: Path) -> list[Path]:
    """The patches of a file, the oldest first."""
    return sorted(file.parent.glob(f"{file.stem}-*.parquet"))


def made_from(file: Path) -> tuple[int, str] | None:
    """The ingest batch that a built file, its patches included, was made from, and the rest of what it says of that."""
    if not file.exists():
        return None
    last = [file, *patches(file)][-1]
    rows = duckdb.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'made_from'", [str(last)]).fetchall()
    found = _MADE_FROM.match(rows[0][0].decode()) if rows else None
    return (int(found[1]), found[2]) if found else None


def write(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, cutoff: datetime, query: str,
    state: tuple[int, str],
) -> None:  # fmt: skip
    """Write everyone's rows. state: the ingest batch they are made from, and what else they are."""
    file = file_of(project, view, cutoff)
    for old in reversed(patches(file)):  # the latest first: what is left is a state that once was
        old.unlink()
    derived.write(con, query, file, metadata=_footer(state))


def patch(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, cutoff: datetime, query: str,
    state: tuple[int, str], gone: bool,
) -> None:  # fmt: skip
    """Write the rows of some; those of everyone else are what they were.

    gone: some profiles are no longer (see features.changes). In their place stand rows in which nothing is known, as
    Feast, which reads the whole folder, would say of a profile without rows; `read` leaves them out.
    """
    file, batch = file_of(project, view, cutoff), int(state[0])
    if gone:
        at = instant(cutoff)
        query = f"""({query}) UNION ALL BY NAME SELECT profile_id, {at} AS event_timestamp, {at} AS created
            FROM read_parquet('{quote(profiles_file(project, cutoff))}') WHERE gone"""
    later = f"SELECT * REPLACE (created + to_microseconds({batch}) AS created) FROM ({query})"
    derived.write(con, later, file.with_name(f"{file.stem}-{batch:012}.parquet"), metadata=_footer(state))
    beside = patches(file)
    if len(beside) > MOST_PATCHES or 4 * sum(map(_rows, beside)) > _rows(file):
        everyone = f"FROM {read(project, view, cutoff)} ORDER BY profile_id"
        derived.write(con, everyone, file, metadata=_footer(state))
        for old in beside:  # the oldest first: as long as one is left, the latest of each profile's rows count
            old.unlink()


def _footer(state: tuple[int, str]) -> dict[str, str]:
    return {"made_from": f"batch {state[0]}, {state[1]}"}


def _rows(file: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(file).num_rows


def read(project: Project, view: FeatureView, cutoff: datetime) -> str:
    """A built cutoff as a table that DuckDB can be asked for."""
    file = file_of(project, view, cutoff)
    whole, beside = f"read_parquet('{quote(file)}')", patches(file)
    if not beside:
        return whole
    files = ", ".join(f"'{quote(p)}'" for p in beside)
    latest = f"FROM read_parquet([{files}]) QUALIFY created = max(created) OVER (PARTITION BY profile_id)"
    gone = f"SELECT profile_id FROM read_parquet('{quote(profiles_file(project, cutoff))}') WHERE gone"
    return f"""(SELECT * REPLACE (event_timestamp AS created) FROM (
        FROM {whole} ANTI JOIN (SELECT DISTINCT profile_id FROM read_parquet([{files}])) USING (profile_id)
        UNION ALL BY NAME {latest}) ANTI JOIN ({gone}) USING (profile_id))"""
