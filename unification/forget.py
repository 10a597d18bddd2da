"""Who is to be erased, and what becomes of the graph? A profile with every identifier and every id it ever had."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from foretell.project import Project
from ingestion.erased import shared
from lake.catalogue import tables
from lake.engine import session, table
from lake.erasure import mine
from unification.identity import ensure, members_at, resolve, unify


@dataclass(frozen=True)
class Known:
    """profile_ids: the profile's id and all former ones. nodes: its identifiers. shared: identifiers that stand in
    rows of many others as well, and stay. until: all its facts are dated before this instant."""

    profile: str
    profile_ids: list[str]
    nodes: list[str]
    shared: list[str]
    until: datetime


def known(project: Project, who: str) -> Known:
    """What is known of the person that an id or identifier means. Raises UnknownName."""
    ensure(project)
    with session(project) as con:
        profile = resolve(con, project, who)
        ever = f"{members_at(project.now)} UNION SELECT node, birth_id, profile_id FROM member WHERE known_to IS NULL"
        query = f"SELECT DISTINCT node FROM ({ever}) WHERE profile_id = ?"
        found = [node for (node,) in con.execute(query, [profile]).fetchall()]
        common = shared(con, project, found)
        nodes = sorted(set(found) - common) or sorted(found)
        mine(con, "theirs", nodes)
        births = con.execute("SELECT DISTINCT birth_id FROM member WHERE node IN (SELECT value FROM theirs)").fetchall()
        ids = sorted({profile, *(birth for (birth,) in births)})
        return Known(profile, ids, nodes, sorted(common - set(nodes)), _until(con, project))


def _until(con: duckdb.DuckDBPyConnection, project: Project) -> datetime:
    """Now, or the instant after the last of the facts of `theirs`: clocks may run a little ahead of ours."""
    last = [project.now]
    for name in tables(project):
        if name.startswith("facts/"):
            query = f"SELECT max(event_at) FROM {table(project, name).scan()} WHERE node IN (SELECT value FROM theirs)"
            at = con.execute(query).fetchall()[0][0]
            last += [at + timedelta(microseconds=1)] if at is not None else []
    return max(last)


def rebuild(project: Project) -> dict[str, int]:
    """Remove what is made of the facts, and make it again from those that are left."""
    for folder in ("derived", "graph"):
        shutil.rmtree(project.home / folder, ignore_errors=True)
    return unify(project)
