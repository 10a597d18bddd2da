"""How does the graph come from the facts? Identifiers met in one fact belong to one person.

The graph is a function of the facts, of the decisions made about it and of the home's key: rebuilt from scratch it is
the same, ids included. It is kept in derived tables `member`, `alias`, `edges` and `refused_edges`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

import duckdb

from foretell.binding import players
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from ingestion.normalise import RULE_VERSION, identifier
from lake import derived
from lake.engine import instant, last_batch, quote, session
from lake.erasure import rebirths
from unification.decisions import decisions, digest
from unification.golden import build_golden
from unification.graph import connect

# Part of every feature's fingerprint: another rule is another history.
IDENTITY_RULE = f"deterministic-1/normalise-{RULE_VERSION}"


def unify(project: Project) -> dict[str, int]:
    """Rebuild graph and golden profiles from the facts. Returns counts for the report."""
    watermark = last_batch(project)
    if watermark == 0:
        raise NotReady("unify", "nothing has been loaded", "run `foretell load` first")
    with session(project, watermark) as con:
        _nodes_and_edges(con, project)
        nodes = con.execute(
            "SELECT node, 'p' || left(sha256(? || node), 20) AS birth_id, known_at FROM nodes", [project.key]
        ).df()
        if again := rebirths(project, nodes["node"]):  # erased, and come back: somebody new
            nodes["birth_id"] = nodes["node"].map(again).fillna(nodes["birth_id"])
        edges = con.execute("SELECT a, b, known_at FROM edges").df()
        graph = connect(nodes, edges, project.setting("identity_max"), decisions(project))
        home = project.home / "derived"
        for name in ("member", "alias"):
            con.register(f"{name}_now", getattr(graph, name))
        con.register("refused_now", graph.refused)
        derived.write(con, "SELECT * FROM edges ORDER BY known_at, a, b", home / "edges.parquet")
        derived.write(con, "SELECT * FROM alias_now ORDER BY known_at, loser", home / "alias.parquet")
        derived.write(
            con, "SELECT a, b, known_at, reason::VARCHAR AS reason FROM refused_now", home / "refused_edges.parquet"
        )
        derived.write(con, "SELECT * FROM member_now ORDER BY node, known_from", home / "member.parquet")
        profiles = build_golden(con, project)
        _mark(project, watermark)
        return {
            "identifiers": len(nodes), "links": len(edges), "profiles": profiles,
            "merges": len(graph.alias), "refused": len(graph.refused), "undated": _undated(con, project),
        }  # fmt: skip


def ensure(project: Project) -> None:
    """Unify if facts were loaded since the last time (a definition of who is who must not lag behind the facts)."""
    state = project.home / "derived" / "unified.json"
    if not state.exists() or json.loads(state.read_text()) != _state(project, last_batch(project)):
        unify(project)


def _state(project: Project, watermark: int) -> dict:
    contracts = {
        name: [list(s.identifiers.items()), list(s.traits.items()), s.trust]
        for name, s in project.definitions.sources.items()
    }
    now = project.setting("as_of")
    return json.loads(json.dumps({
        "batch": watermark, "rule": IDENTITY_RULE, "contracts": contracts, "as_of": str(now),
        "largest": project.setting("identity_max"), "decisions": digest(project),
    }))  # fmt: skip


def rules(project: Project) -> str:
    """Eight hex digits that change when the same facts might make another graph: contracts, limits, decisions."""
    contracts = {name: list(s.identifiers.items()) for name, s in sorted(project.definitions.sources.items())}
    parts = [IDENTITY_RULE, contracts, project.setting("identity_max"), *filter(None, [digest(project)])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _mark(project: Project, watermark: int) -> None:
    state = project.home / "derived" / "unified.json"
    draft = state.with_suffix(".draft")
    draft.write_text(json.dumps(_state(project, watermark)))
    draft.replace(state)


def _nodes_and_edges(con: duckdb.DuckDBPyConnection, project: Project) -> None:
    nodes, edges = [], []
    for name, source in loaded_sources(con, project).items():
        for kind in source.identifiers:
            here = f"'{kind}:' || id_{kind}"
            nodes.append(f'SELECT {here} AS node, known_at FROM "{name}" WHERE id_{kind} IS NOT NULL')
            if len(source.identifiers) > 1:
                edges.append(
                    f"SELECT node AS a, {here} AS b, known_at, '{name}' AS source, fact_id FROM \"{name}\" "
                    f"WHERE id_{kind} IS NOT NULL AND node <> {here}"
                )
    nodes = nodes or ["SELECT NULL::VARCHAR AS node, NULL::TIMESTAMPTZ AS known_at WHERE false"]
    edges = edges or [
        "SELECT ''::VARCHAR AS a, ''::VARCHAR AS b, now() AS known_at, '' AS source, '' AS fact_id WHERE false"
    ]
    con.execute(
        f"CREATE TEMP TABLE nodes AS SELECT node, min(known_at) AS known_at FROM ({_union(nodes)}) GROUP BY node"
    )
    # an edge is known since its first evidence; further evidence is counted
    con.execute(
        f"""CREATE TEMP TABLE edges AS SELECT a, b, min(known_at) AS known_at,
                min_by(source, (known_at, fact_id)) AS source, min_by(fact_id, (known_at, fact_id)) AS fact_id,
                count(*) AS evidence
            FROM ({_union(edges)}) GROUP BY a, b"""
    )


def loaded_sources(con: duckdb.DuckDBPyConnection, project: Project) -> dict:
    """The declared sources that have facts in this session."""
    present = {row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    return {name: s for name, s in project.definitions.sources.items() if name in present}


def _union(queries: list[str]) -> str:
    return " UNION ALL ".join(queries)


def _undated(con: duckdb.DuckDBPyConnection, project: Project) -> int:
    """Links whose records carry no time: known only since they were loaded, so kept out of every earlier cutoff."""
    undated = [n for n, s in loaded_sources(con, project).items() if not (s.event_at or s.known_since or s.known_at)]
    names = ", ".join(f"'{n}'" for n in undated) or "''"
    return int(con.execute(f"SELECT count(*) FROM edges WHERE source IN ({names})").fetchall()[0][0])


def members_at(at: datetime) -> str:
    """SQL for the graph at T: node, birth_id, profile_id of every identifier known before T."""
    moment = instant(at)
    return (
        f"SELECT node, birth_id, profile_id FROM member WHERE known_from < {moment} "
        f"AND (known_to IS NULL OR known_to >= {moment})"
    )


def owners(project: Project) -> dict[str, str]:
    """node -> profile, now."""
    with session(project) as con:
        return dict(con.execute(f"SELECT node, profile_id FROM ({members_at(project.now)})").fetchall())


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[list[str], list[str]]]:
    """Which profiles became which, of two answers of `owners`: ([ids before], [ids after]) where they are not the same.

    >>> differences({"a": "p1", "b": "p1", "c": "p3"}, {"a": "p1", "b": "p2", "c": "p3"})
    [(['p1'], ['p1', 'p2'])]
    """
    groups: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for old, new in sorted({(old, after[node]) for node, old in before.items() if node in after}):
        one = groups.setdefault(("before", old), ({old}, set()))
        other = groups.setdefault(("after", new), (set(), {new}))
        if one is not other:  # they have an identifier in common
            one[0].update(other[0])
            one[1].update(other[1])
            groups |= {("before", name): one for name in one[0]} | {("after", name): one for name in one[1]}
    distinct = {id(group): group for group in groups.values()}.values()
    return sorted((sorted(old), sorted(new)) for old, new in distinct if len(old) + len(new) > 2 or old != new)


def resolve(con: duckdb.DuckDBPyConnection, project: Project, text: str) -> str:
    """The profile that an id, an old id or any identifier value ("a@b.org", "email:a@b.org") means today."""
    found = {profile for _, profile in _meant(con, project, text)}
    if len(found) > 1:
        ids = ", ".join(sorted(found))
        raise UnknownName(text, f"means {len(found)} profiles ({ids})", "say which type: email:…, phone:…")
    return found.pop()


def node_of(con: duckdb.DuckDBPyConnection, project: Project, text: str) -> str:
    """The identifier in normal form, "type:value", that a text means; of a profile id, new or old, the oldest one."""
    found = sorted({node for node, _ in _meant(con, project, text)})
    if len(found) > 1:
        raise UnknownName(text, f"means {len(found)} identifiers ({', '.join(found)})", "say which one")
    return found[0]


def _meant(con: duckdb.DuckDBPyConnection, project: Project, text: str) -> list[tuple[str, str]]:
    """(node, profile today) of everything that a text may mean, at least one."""
    if not (project.home / "derived" / "member.parquet").exists():
        raise NotReady("profile", "identities have not been unified", "run `foretell unify` first")
    today = members_at(project.now)
    found = con.execute(f"SELECT node, profile_id FROM ({today}) WHERE birth_id = ?", [text]).fetchall()
    if not found:
        kinds = {k for s in project.definitions.sources.values() for k in s.identifiers}
        kind, _, value = text.partition(":")
        pairs = [(kind, value)] if kind in kinds and value else [(k, text) for k in sorted(kinds)]
        wanted = " UNION ALL ".join(f"SELECT '{k}:' || {identifier(k, _text(v))} AS node" for k, v in pairs)
        found = con.execute(f"SELECT DISTINCT node, profile_id FROM ({today}) JOIN ({wanted}) USING (node)").fetchall()
    if not found:
        raise UnknownName(
            text, "no such profile or identifier", "`foretell segment show` lists ids; try an e-mail or card"
        )
    return found


def _text(value: str) -> str:
    return f"'{quote(value)}'"


def facts_of(con: duckdb.DuckDBPyConnection, project: Project, role: str) -> list:
    """The loaded sources that play a role (or the one source of that name)."""
    loaded = loaded_sources(con, project)
    return [s for s in players(role, project.definitions.sources) if s.name in loaded]
