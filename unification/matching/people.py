"""Which profiles are to be matched? One row each, as known now: golden traits, and what identifiers say of
themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import duckdb

from foretell.errors import NotReady
from foretell.project import Project
from unification.golden import attributes_of, loaded
from unification.identity import members_at
from unification.matching import kinds

LEFT_OUT = ("profile_id", "node", "identifiers")
FOUND = ("match", "review")  # sources of links that were found here


def profiles(con: duckdb.DuckDBPyConnection, project: Project, apart: Sequence[Sequence[str]] = ()) -> dict[str, str]:
    """Make the table `given`: profile_id, node (its oldest identifier), and its attributes. Returns column -> kind.

    apart: groups of identifiers that come as rows of their own after these, with the group's place as profile_id
    ("0"), in place of the profiles that they belong to.
    """
    if not (project.home / "derived" / "profiles.parquet").exists():
        raise NotReady("matching", "identities have not been unified", "run `foretell unify` first")
    known = [name for name, *_ in con.execute("DESCRIBE profiles").fetchall() if name not in LEFT_OUT]
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE given AS
        WITH member_now AS ({members_at(project.now)}), oldest AS (
            SELECT profile_id, coalesce(min(node) FILTER (birth_id = profile_id), min(node)) AS node
            FROM member_now GROUP BY 1)
        SELECT p.profile_id, node{"".join(f', "{name}"::VARCHAR AS "{name}"' for name in known)}
        FROM profiles p JOIN oldest USING (profile_id) ORDER BY profile_id"""
    )
    for place, nodes in enumerate(apart):
        con.execute(
            f"""DELETE FROM given WHERE profile_id IN (
                SELECT profile_id FROM ({members_at(project.now)}) WHERE node IN (SELECT unnest(?::VARCHAR[])))""",
            [list(nodes)],
        )
        said = _said(con, project, nodes)
        names = [name for name in known if name in said]
        con.execute(
            f"INSERT INTO given BY NAME SELECT ? AS profile_id, ? AS node{''.join(f', ? AS {_q(n)}' for n in names)}",
            [str(place), min(nodes), *(said[name] for name in names)],
        )
    return {name: kinds.kind_of(name) or "-" for name in known}


def _said(con: duckdb.DuckDBPyConnection, project: Project, nodes: Sequence[str]) -> dict[str, str]:
    """What the facts of these identifiers say of each attribute; of several values the last one known."""
    sources = loaded(con, project)
    found: dict[str, str] = {}
    traits, types = attributes_of(sources)
    for kind in types:
        if own := sorted(node.partition(":")[2] for node in nodes if node.startswith(f"{kind}:")):
            found[kind] = own[0]
    for trait in traits:
        queries = [
            f"""SELECT "{trait}"::VARCHAR AS v, known_at FROM "{s.name}"
                WHERE nullif(trim("{trait}"::VARCHAR), '') IS NOT NULL AND node IN (SELECT unnest($1::VARCHAR[]))"""
            for s in sources if trait in s.traits
        ]  # fmt: skip
        best = con.execute(
            f"SELECT arg_max(v, known_at) FROM ({' UNION ALL '.join(queries)})", [list(nodes)]
        ).fetchall()
        if best[0][0] is not None:
            found[trait] = best[0][0]
    return found


def without_found(con: duckdb.DuckDBPyConnection, project: Project, node: str) -> list[str]:
    """The identifiers that belong to one by the facts alone: by links that no matching and no review has made."""
    rows = con.execute(
        f"""SELECT DISTINCT e.a, e.b FROM edges e ANTI JOIN refused_edges r ON r.a = e.a AND r.b = e.b
            WHERE e.source NOT IN {FOUND} AND e.a IN (SELECT node FROM ({members_at(project.now)}) WHERE profile_id = (
                SELECT profile_id FROM ({members_at(project.now)}) WHERE node = ?))""",
        [node],
    ).fetchall()
    near: dict[str, set[str]] = defaultdict(set)
    for a, b in rows:
        near[a].add(b)
        near[b].add(a)
    seen, todo = {node}, [node]
    while todo:
        for other in near[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return sorted(seen)


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
