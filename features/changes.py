"""Whose features at a cutoff may be others than when they were built? Who has new facts, or other identifiers.

A late fact, or a link that is older than the cutoff, touches few profiles of a past cutoff; the rows of all others are
what they were. `features/profiles/<cutoff>.parquet` keeps who was known at the cutoff:

  profile_id   as then known
  digest       of the profile's identifiers at the cutoff
  changed      the ingest batch since which they are these
  gone         true of an id that facts loaded since have done away with: there is no such profile at the cutoff
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import duckdb

from features.built import made_from, profiles_file
from foretell.project import Project
from lake import derived
from lake.engine import instant, quote
from unification.identity import facts_of, members_at

MOST = 0.3  # of all profiles: if more are touched, everyone is built anew


def record(con: duckdb.DuckDBPyConnection, project: Project, cutoff: datetime, batch: int, said: str) -> None:
    """Bring the list of the profiles at the cutoff up to a batch, and make `members_then` (node, profile_id)."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE members_then AS SELECT node, profile_id FROM ({members_at(cutoff)})")
    file, now = profiles_file(project, cutoff), "SELECT profile_id, bit_xor(hash(node)) AS digest FROM members_then"
    before = made_from(file)
    if before == (batch, said):
        return
    query = f"SELECT *, {batch} AS changed, false AS gone FROM ({now} GROUP BY profile_id)"
    if before and before[1] == said:
        query = f"""SELECT profile_id, n.digest, CASE WHEN n.digest IS DISTINCT FROM o.digest
                THEN {batch} ELSE o.changed END AS changed, n.profile_id IS NULL AS gone
            FROM ({now} GROUP BY profile_id) n FULL JOIN read_parquet('{quote(file)}') o USING (profile_id)"""
    derived.write(con, f"{query} ORDER BY profile_id", file, metadata={"made_from": f"batch {batch}, {said}"})


def touched(
    con: duckdb.DuckDBPyConnection, project: Project, roles: Iterable[str], cutoff: datetime, since: int
) -> tuple[int, int, int]:  # fmt: skip
    """Make the table `touched` (profile_id): whose features may be others than as of the batch `since`.

    roles: whose facts the features are made of. Reads `members_then`. Returns how many, how many profiles there are in
    all, and how many have gone since.
    """
    known, file = f"known_at < {instant(cutoff)}", quote(profiles_file(project, cutoff))
    nodes = ["SELECT NULL::VARCHAR AS node WHERE false"]
    for source in {s.name: s for role in roles for s in facts_of(con, project, role)}.values():
        new = f'FROM "{source.name}" WHERE batch > {int(since)} AND {known}'
        if source.key:  # the versions that a new one takes the place of may be another's
            key = "coalesce(row_key, fact_id)"
            nodes.append(f'SELECT node FROM "{source.name}" WHERE {key} IN (SELECT {key} {new})')
        else:
            nodes.append(f"SELECT node {new} AND event_at < {instant(cutoff)}")
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE touched AS
            SELECT profile_id FROM read_parquet('{file}') WHERE changed > {int(since)} AND NOT gone
            UNION SELECT profile_id FROM members_then SEMI JOIN ({" UNION ALL ".join(nodes)}) USING (node)"""
    )
    gone = f"FROM read_parquet('{file}') WHERE changed > {int(since)} AND gone"
    counts = f"""(SELECT count(*) FROM touched), (SELECT count(DISTINCT profile_id) FROM members_then),
        (SELECT count(*) {gone})"""
    return con.execute(f"SELECT {counts}").fetchall()[0]
