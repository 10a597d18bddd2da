"""How does the graph come from the facts? Identifiers met in one fact belong to one person.

The graph is a function of the facts, of the decisions made about it, of the rules and of the home's key: made from
scratch it is the same, ids included. It is kept in `home/graph`, to which a batch of new facts is added, and shown in
the derived tables `member`, `alias`, `edges` and `refused_edges`. An update that was cut short is made good from
scratch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from foretell.binding import players
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from ingestion.normalise import RULE_VERSION, identifier, other_forms
from lake import derived
from lake.engine import instant, last_batch, quote, session
from lake.erasure import rebirths
from unification.decisions import decisions, digest
from unification.golden import build_golden, declared
from unification.graph import NEVER, UNLINK
from unification.store import Changed, Decided, Limits, Store

# Part of every feature's fingerprint: another rule is another history.
IDENTITY_RULE = f"deterministic-1/normalise-{RULE_VERSION}"


def unify(project: Project) -> dict[str, int]:
    """Bring graph and golden profiles up to the facts and decisions of now. Returns counts for the report."""
    watermark = last_batch(project)
    if watermark == 0:
        raise NotReady("unify", "nothing has been loaded", "run `foretell load` first")
    with session(project, watermark) as con:
        state = _state(con, project, watermark)
        before = _kept(project, state)
        store = Store(limits(project), _folder(project), anew=before is None)
        store.open()
        changed = add_facts(con, project, store, since=before["batch"] if before else 0)
        show(con, project.home / "derived", store, changed, anew=before is None)
        # what is true of a profile depends on now too, where that is set to another day
        whole = before is None or any(before[name] != state[name] for name in ("traits", "as_of")) or state["as_of"]
        profiles = build_golden(con, project, None if whole else _touched(con, project, store, changed))
        store.close(unified=state)
        tables = [derived.scan(project.home / "derived" / f"{name}.parquet") for name in ("alias", "refused_edges")]
        counts = con.execute("SELECT " + ", ".join(f"(SELECT count(*) FROM {one})" for one in tables)).fetchall()
        merges, refused = counts[0]
        return {
            "identifiers": store.state["nodes"], "links": store.state["edges"], "profiles": profiles,
            "merges": merges, "refused": refused, "undated": _undated(con, project),
        }  # fmt: skip


def ensure(project: Project) -> None:
    """Unify if facts were loaded since the last time (a definition of who is who must not lag behind the facts)."""
    with session(project) as con:
        state = _state(con, project, last_batch(project))
    if _kept(project, state) == state:
        return
    if said := other_rules(project, state):
        raise NotReady(
            "unify", f"the rules of who is who are others than when the profiles were made ({said})",
            "`foretell unify` shows which profiles would merge or split by them, and applies them",
        )  # fmt: skip
    unify(project)


def other_rules(project: Project, now: dict[str, Any]) -> str:
    """What is another rule now than when the graph at hand was made; "" if nothing is, or there is no graph."""
    file = _folder(project) / "state.json"
    if not file.exists():
        return ""
    kept = json.loads(file.read_text())["unified"]
    names = ("normal forms", "limits", "identity_blocked")
    said = [
        f"{n}: {old} -> {new}" for n, old, new in zip(names, kept["rules"], now["rules"], strict=True) if old != new
    ]
    for name in sorted(kept["sources"].keys() & now["sources"].keys()):
        old, new = kept["sources"][name][0], now["sources"][name][0]
        said += [f"identifiers of {name}: {', '.join(old)} -> {', '.join(new)}"] if old != new else []
    return "; ".join(said)


def preview(project: Project) -> tuple[str, list[tuple[list[str], list[str]]], int] | None:
    """What other rules would do, without doing it: which rules, which profiles become which, how many stay as they are.

    None if the rules are those of the graph at hand.
    """
    with session(project) as con:
        said = other_rules(project, _state(con, project, last_batch(project)))
        if not said:
            return None
        before = owners(project)
        store = Store(limits(project))
        member, _, _ = store.tables(add_facts(con, project, store, since=0))
        con.register("member_then", member)
        after = dict(con.execute(f"SELECT node, profile_id FROM ({members_at(project.now, 'member_then')})").fetchall())
    found = differences(before, after)
    same = set(before.values()) - {profile for old, _ in found for profile in old}
    return said, found, len(same)


def limits(project: Project) -> Limits:
    """The guards: what a profile may hold, and how many an identifier may be met with before it counts as shared."""
    most, shared = (project.setting(name) for name in ("identity_most", "identity_shared"))
    return Limits(project.setting("identity_max"), most, shared)


def _folder(project: Project) -> Path:
    return project.home / "graph"


def _kept(project: Project, now: dict[str, Any]) -> dict[str, Any] | None:
    """What the graph at hand was made from; None: there is none to which what is missing can be added."""
    file = _folder(project) / "state.json"
    if not file.exists() or not (project.home / "derived" / "member.parquet").exists():
        return None
    kept = json.loads(file.read_text())["unified"]
    if any(kept[name] != now[name] for name in ("rules", "boot")) or kept["batch"] > now["batch"]:
        return None
    for name in kept["sources"].keys() | now["sources"].keys():
        old, new = kept["sources"].get(name), now["sources"].get(name)
        if old != new and (old is not None or new[1] <= kept["batch"]):
            return None
    return kept


def _state(con: duckdb.DuckDBPyConnection, project: Project, watermark: int) -> dict[str, Any]:
    """What graph and profiles are made from. sources: of those with facts, the identifiers, and their first batch.

    boot: the arrays are written to the disk when the system finds the time; after it was down they may be torn.
    """
    first = dict(con.execute("SELECT source, min(batch) FROM batches GROUP BY 1").fetchall()) if watermark else {}
    sources = {
        name: [[] if s.enrich else list(s.identifiers), first.get(name, 0)]
        for name, s in loaded_sources(con, project).items()
    }
    boot = Path("/proc/sys/kernel/random/boot_id")
    return json.loads(json.dumps({
        "batch": watermark, "rules": [IDENTITY_RULE, limits(project), project.setting("identity_blocked")],
        "sources": sources, "traits": declared(project), "as_of": project.setting("as_of") and str(project.now),
        "decisions": digest(project), "boot": boot.read_text().strip() if boot.exists() else "",
    }))  # fmt: skip


def rules(project: Project) -> str:
    """Eight hex digits that change when the same facts might make another graph: contracts, limits, decisions."""
    sources = sorted(project.definitions.sources.items())
    contracts = {name: list(s.identifiers.items()) for name, s in sources if not s.enrich}
    guards = [limits(project), project.setting("identity_blocked")]
    parts = [IDENTITY_RULE, contracts, guards, *filter(None, [digest(project)])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def add_facts(con: duckdb.DuckDBPyConnection, project: Project, store: Store, since: int) -> Changed:
    """Take identifiers and links of the facts of later batches than `since` into the graph; leaves the tables `nodes`
    and `edges` of what these facts say."""
    _nodes_and_edges(con, project, since)
    nodes = (node for (node,) in con.execute("SELECT node FROM nodes").fetchall())
    again = rebirths(project, nodes)  # erased, and come back: somebody new
    return take_in(con, store, project.key, project.setting("identity_blocked"), _made(project), again)


def take_in(
    con: duckdb.DuckDBPyConnection, store: Store, key: str, blocked: Sequence[str] = (), made: Sequence[Decided] = (),
    again: Mapping[str, str] | None = None,
) -> Changed:  # fmt: skip
    """Take the tables `nodes` and `edges` into the graph.

    key: the home's; blocked: patterns of nodes that link nothing; made: decisions; again: birth ids other than usual.
    """
    con.execute(
        "CREATE OR REPLACE TEMP TABLE reborn AS SELECT unnest(?::VARCHAR[]) AS node, unnest(?::VARCHAR[]) AS birth",
        [list(again or {}), [birth[1:] for birth in (again or {}).values()]],
    )
    no_links = " OR ".join(f"node GLOB '{quote(pattern)}'" for pattern in blocked)
    nodes: Any = con.sql(
        f"""SELECT node, epoch_us(known_at) AS since, split_part(node, ':', 1) AS kind,
            {no_links or "false"} AS blocked, ('0x' || birth[1:16])::UBIGINT AS high,
            ('0x' || birth[17:20])::USMALLINT AS low
            FROM (SELECT n.*, coalesce(r.birth, sha256('{quote(key)}' || n.node)) AS birth
                  FROM nodes n LEFT JOIN reborn r USING (node) ORDER BY n.rowid)"""
    ).to_arrow_table()
    links: Any = con.execute(
        """SELECT x.rowid AS a, y.rowid AS b, epoch_us(e.known_at) AS known_at FROM edges e
           JOIN nodes x ON x.node = e.a JOIN nodes y ON y.node = e.b"""
    ).fetchnumpy()
    kinds: Any = nodes["kind"].combine_chunks().dictionary_encode()
    numbers = np.array([store.kind(name) for name in kinds.dictionary.to_pylist()], np.int16)
    column = {name: nodes[name].to_numpy() for name in ("high", "low", "since", "blocked")}
    return store.add(
        nodes["node"], column["high"], column["low"], numbers[kinds.indices.to_numpy()], column["since"],
        links["a"], links["b"], links["known_at"], blocked=column["blocked"], decisions=made,
    )  # fmt: skip


def _made(project: Project) -> list[Decided]:
    """The decisions as the store wants them."""

    def micros(at: Any) -> int:
        return NEVER if pd.isna(at) else pd.Timestamp(at).value // 1000

    made: Any = decisions(project).itertuples()
    return [
        Decided(
            d.decision_id, int(d.kind == UNLINK), birth_id(project, d.a), birth_id(project, d.b),
            micros(d.known_at), micros(d.known_to),
        )
        for d in made
    ]  # fmt: skip


def birth_id(project: Project, node: str) -> str:
    """The id of the profile that an identifier founds. It says nothing to someone without the home's key."""
    usual = "p" + hashlib.sha256((project.key + node).encode()).hexdigest()[:20]
    return rebirths(project, [node]).get(node, usual)


def show(con: duckdb.DuckDBPyConnection, home: Path, store: Store, changed: Changed, *, anew: bool) -> None:
    """Write what changed in the graph to its derived tables, the links from the table `edges`."""
    member, alias, refused = store.tables(changed)
    edges = "SELECT batch, a, b, known_at, source, fact_id, evidence FROM edges"
    for name, rows in (("member", member), ("alias", alias), ("refused_edges", refused)):
        con.register(f"{name}_now", rows)
    if anew:
        derived.write(con, edges, home / "edges.parquet")
        derived.write(con, "SELECT * FROM alias_now", home / "alias.parquet")
        derived.write(con, "SELECT * FROM refused_edges_now", home / "refused_edges.parquet")
        derived.write(con, "SELECT * FROM member_now", home / "member.parquet")
        return
    import pyarrow as pa

    keys = {
        "alias": ("loser", store.birth_ids(changed.nodes)), "member": ("node", store.names(changed.nodes)),
        "refused_edges": ("edge", pa.array(changed.edges, pa.int64())),
    }  # fmt: skip
    for name, (key, values) in keys.items():
        if len(values):
            con.register("keys_now", pa.table({key: values}))
            file = home / f"{name}.parquet"
            derived.patch(con, f"SELECT * FROM {name}_now", file, key=key, keys="SELECT * FROM keys_now")
    if con.execute("SELECT count(*) FROM edges").fetchall()[0][0]:
        derived.patch(con, edges, home / "edges.parquet", key="batch", keys="SELECT batch FROM edges")


def _touched(con: duckdb.DuckDBPyConnection, project: Project, store: Store, changed: Changed) -> str:
    """A table of the profiles about which something may be another now: by identifiers, or by new facts."""
    import pyarrow as pa

    con.register("owners_now", pa.table({"profile_id": store.birth_ids(changed.owners)}))
    member = derived.scan(project.home / "derived" / "member.parquet")
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE touched AS SELECT profile_id FROM owners_now UNION
            SELECT profile_id FROM {member} SEMI JOIN (SELECT node FROM nodes UNION ALL FROM enriching) USING (node)"""
    )
    return "touched"


def _nodes_and_edges(con: duckdb.DuckDBPyConnection, project: Project, since: int) -> None:
    nodes, edges, enriching = [], [], ["SELECT '' AS node WHERE false"]
    for name, source in loaded_sources(con, project).items():
        for kind in source.identifiers:
            here = f"'{kind}:' || id_{kind}"
            new = f'"{name}" WHERE id_{kind} IS NOT NULL AND batch > {since}'
            if source.enrich:  # it makes no profile and links none, but says something about those there are
                enriching.append(f"SELECT {here} AS node FROM {new}")
                continue
            nodes.append(f"SELECT {here} AS node, known_at FROM {new}")
            if len(source.identifiers) > 1:
                edges.append(
                    f"SELECT least(node, {here}) AS a, greatest(node, {here}) AS b, known_at, '{name}' AS source, "
                    f"fact_id, batch FROM {new} AND node <> {here}"
                )
    con.execute(f"CREATE TEMP TABLE enriching AS {_union(enriching)}")
    nodes = nodes or ["SELECT NULL::VARCHAR AS node, NULL::TIMESTAMPTZ AS known_at WHERE false"]
    edges = edges or [
        "SELECT '' AS a, '' AS b, now() AS known_at, '' AS source, '' AS fact_id, 0::BIGINT AS batch WHERE false"
    ]
    con.execute(
        f"CREATE TEMP TABLE nodes AS SELECT node, min(known_at) AS known_at FROM ({_union(nodes)}) GROUP BY node"
    )
    # an edge is known since its first evidence; further evidence is counted
    con.execute(
        f"""CREATE TEMP TABLE edges AS SELECT a, b, min(known_at) AS known_at,
                min_by(source, (known_at, fact_id)) AS source, min_by(fact_id, (known_at, fact_id)) AS fact_id,
                count(*) AS evidence, max(batch) AS batch
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


def members_at(at: datetime, table: str = "member") -> str:
    """SQL for the graph at T: node, birth_id, profile_id of every identifier known before T."""
    moment = instant(at)
    return (
        f"SELECT node, birth_id, profile_id FROM {table} WHERE known_from < {moment} "
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
        countries = {s.country for s in project.definitions.sources.values() if s.country}
        for k, v in pairs:
            wanted += "".join(f" UNION ALL SELECT {_text(f'{k}:{form}')}" for form in other_forms(k, v, countries))
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
