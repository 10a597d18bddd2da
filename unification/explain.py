"""Why are two identifiers the same person, or why not? The shortest chain of links between them, with its evidence."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import duckdb

from foretell.project import Project
from lake.engine import instant, session
from unification.identity import members_at, node_of


class Link(NamedTuple):
    """A link between two nodes: known since when, by which source and fact first, and how many facts say so."""

    a: str
    b: str
    known_at: datetime
    source: str
    fact_id: str
    evidence: int


class Refused(NamedTuple):
    """A link that was kept out, and why."""

    a: str
    b: str
    known_at: datetime
    reason: str


@dataclass(frozen=True)
class Explanation:
    """a, b: the two nodes, and their profiles now. path: the links from a to b, empty if they are apart.
    refused: links between the two profiles that were kept out."""

    a: str
    b: str
    profile_a: str
    profile_b: str
    path: list[Link]
    refused: list[Refused]


def explain(project: Project, one: str, other: str) -> Explanation:
    """How two identifiers are linked now. one, other: a profile id, an old one, or any identifier."""
    with session(project) as con:
        a, b = node_of(con, project, one), node_of(con, project, other)
        con.execute(f"CREATE TEMP TABLE now_member AS SELECT node, profile_id FROM ({members_at(project.now)})")
        owner = dict(con.execute("SELECT node, profile_id FROM now_member WHERE node IN (?, ?)", [a, b]).fetchall())
        path = _shortest(_links(con, project, owner[a]), a, b) if owner[a] == owner[b] else []
        between = f"""SELECT e.a, e.b, e.known_at, e.reason FROM refused_edges e
            JOIN now_member x ON x.node = e.a JOIN now_member y ON y.node = e.b
            WHERE e.known_at < {instant(project.now)} AND x.profile_id <> y.profile_id
            AND [x.profile_id, y.profile_id] IN ([?, ?], [?, ?]) ORDER BY ALL"""
        ids = [owner[a], owner[b], owner[b], owner[a]]
        refused = [Refused(*row) for row in con.execute(between, ids).fetchall()]
    return Explanation(a, b, owner[a], owner[b], path, refused)


def _links(con: duckdb.DuckDBPyConnection, project: Project, profile: str) -> list[Link]:
    """The links in use within a profile, the oldest first."""
    rows = con.execute(
        f"""SELECT e.a, e.b, min(e.known_at), min_by(e.source, (e.known_at, e.fact_id)),
                min_by(e.fact_id, (e.known_at, e.fact_id)), sum(e.evidence)::BIGINT
            FROM edges e JOIN now_member x ON x.node = e.a JOIN now_member y ON y.node = e.b
            ANTI JOIN refused_edges r ON r.a = e.a AND r.b = e.b
            WHERE x.profile_id = ? AND y.profile_id = ? AND e.known_at < {instant(project.now)}
            GROUP BY ALL ORDER BY min(e.known_at), e.a, e.b""",
        [profile, profile],
    ).fetchall()
    return [Link(*row) for row in rows]


def _shortest(links: list[Link], start: str, end: str) -> list[Link]:
    """A chain of as few links as possible; among equals of the older ones."""
    near: dict[str, list[tuple[str, Link]]] = {}
    for link in links:
        near.setdefault(link.a, []).append((link.b, link))
        near.setdefault(link.b, []).append((link.a, link))
    came: dict[str, tuple[str, Link] | None] = {start: None}
    queue = deque([start])
    while queue and end not in came:
        here = queue.popleft()
        for node, link in near.get(here, []):
            if node not in came:
                came[node] = (here, link)
                queue.append(node)
    path: list[Link] = []
    step = came.get(end)
    while step is not None:
        path.append(step[1])
        step = came[step[0]]
    return path[::-1]
