"""How does the graph come from the facts? Identifiers met in one fact belong to one person.

The graph is a function of the facts, of the decisions made about it, of the rules and of the home's key: made from
scratch it is the same, ids included. It is kept in `home/graph`, to which a batch of new facts is added, and shown in
the derived tables `member`, `alias`, `edges` and `refused_edges`. An update that was cut short is made good from
scratch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from foretell.binding import players
from foretell.declarations import Source
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from ingestion.normalise import RULE_VERSION, identifier, other_forms
from lake import derived
from lake.engine import instant, last_batch, quote, session, table
from lake.erasure import rebirths
from unification.decisions import MATCHES, SAME, decisions, digest
from unification.golden import build_golden, declared
from unification.graph import NEVER, UNLINK
from unification.store import Changed, Decided, Describe, Limits, Store, numbers

# Part of every feature's fingerprint: another rule is another history.
IDENTITY_RULE = f"deterministic-1/normalise-{RULE_VERSION}"
_FORM = 2  # of the arrays: another one is made anew
FOUND_BATCH = -1  # of links that no load has brought
_ROWS = 500_000  # of facts are read at once
_EVIDENCE = ["number", "known_at", "source", "fact_id", "batch"]


class Added(NamedTuple):
    """What facts brought: what they changed in the graph, and the numbers of the identifiers that were met in them."""

    changed: Changed
    met: np.ndarray


def unify(project: Project) -> dict[str, int]:
    """Bring graph and golden profiles up to the facts and decisions of now. Returns counts for the report."""
    watermark = last_batch(project)
    if watermark == 0:
        raise NotReady("unify", "nothing has been loaded", "run `foretell load` first")
    with session(project, watermark) as con:
        state = _state(con, project, watermark)
        before = _kept(project, state)
        store = Store(limits(project), folder_of(project), anew=before is None)
        store.open()
        since = before["batch"] if before else 0
        found = before is None or before["decisions"] != state["decisions"]
        added = add_facts(con, project, store, since, found=found)
        show(con, project.home / "derived", store, added.changed, anew=before is None)
        # what is true of a profile depends on now too, where that is set to another day
        whole = before is None or any(before[name] != state[name] for name in ("traits", "as_of")) or state["as_of"]
        profiles = build_golden(con, project, None if whole else _touched(con, project, store, added, since))
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
    file = folder_of(project) / "state.json"
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
        member = store.members(add_facts(con, project, store, since=0).changed)
        con.register("member_then", member)
        after = dict(con.execute(f"SELECT node, profile_id FROM ({members_at(project.now, 'member_then')})").fetchall())
    found = differences(before, after)
    same = set(before.values()) - {profile for old, _ in found for profile in old}
    return said, found, len(same)


def limits(project: Project) -> Limits:
    """The guards: what a profile may hold, and how many an identifier may be met with before it counts as shared."""
    most, shared = (project.setting(name) for name in ("identity_most", "identity_shared"))
    return Limits(project.setting("identity_max"), most, shared)


def folder_of(project: Project) -> Path:
    return project.home / "graph"


def _kept(project: Project, now: dict[str, Any]) -> dict[str, Any] | None:
    """What the graph at hand was made from; None: there is none to which what is missing can be added."""
    file = folder_of(project) / "state.json"
    if not file.exists() or not (project.home / "derived" / "member.parquet").exists():
        return None
    kept = json.loads(file.read_text())["unified"]
    if any(kept.get(name) != now[name] for name in ("rules", "arrays")) or kept["batch"] > now["batch"]:
        return None
    for name in kept["sources"].keys() | now["sources"].keys():
        old, new = kept["sources"].get(name), now["sources"].get(name)
        if old != new and (old is not None or new[1] <= kept["batch"]):
            return None
    return kept


def _state(con: duckdb.DuckDBPyConnection, project: Project, watermark: int) -> dict[str, Any]:
    """What graph and profiles are made from. sources: of those with facts, the identifiers, and their first batch.

    arrays: of which form they are, and since when the system is up: they are written to the disk when it finds the
    time, and after it was down they may be torn.
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
        "decisions": digest(project), "arrays": [_FORM, boot.read_text().strip() if boot.exists() else ""],
    }))  # fmt: skip


def rules(project: Project) -> str:
    """Eight hex digits that change when the same facts might make another graph: contracts, limits, decisions."""
    sources = sorted(project.definitions.sources.items())
    contracts = {name: list(s.identifiers.items()) for name, s in sources if not s.enrich}
    guards = [limits(project), project.setting("identity_blocked")]
    parts = [IDENTITY_RULE, contracts, guards, *filter(None, [digest(project)])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def add_facts(
    con: duckdb.DuckDBPyConnection, project: Project, store: Store, since: int, *, found: bool = True
) -> Added:  # fmt: skip
    """Take identifiers and links of the facts of later batches than `since` into the graph.

    found: also the links that matching and reviews have made, which come in no batch.

    Leaves the table `edges`, of the links in these facts: number, known_at, source, fact_id (of the first fact that
    says so), evidence (how many do), batch (the latest).
    """
    queries = []
    for name, source in loaded_sources(con, project).items():
        if source.identifiers and not source.enrich:
            here = f'FROM "{name}" WHERE node IS NOT NULL AND batch > {since}'
            queries.append(f"SELECT {identifiers(source)}, known_at, '{name}' AS source, fact_id, batch {here}")
    met = take_in(con, store, queries)
    if found and (links := _found_links(con, project, store)):
        met = np.union1d(met, take_in(con, store, links, anew=False))
    blocked = project.setting("identity_blocked")
    changed = store.walk(
        describing(con, project.key, blocked, lambda names: rebirths(project, names)), decided(project)
    )
    evidence(con)
    return Added(changed, met)


def identifiers(source: Source) -> str:
    """SQL for the identifiers of a source's facts, as the graph names them, in the order of the contract."""
    return ", ".join(f"'{kind}:' || id_{kind}" for kind in source.identifiers)


def _found_links(con: duckdb.DuckDBPyConnection, project: Project, store: Store) -> list[str]:
    """Links that matching and reviews have made, between identifiers that facts have brought; all of them each time."""
    stored = table(project, MATCHES)
    parts = [
        f"""SELECT a, b, min(known_at) AS known_at, 'match' AS source, match_id AS fact_id FROM {stored.scan(files)}
            WHERE state = 'linked' GROUP BY ALL""" for files in [stored.files()] if files
    ]  # fmt: skip
    made = decisions(project)
    if len(same := made[made["kind"] == SAME]):
        answers = same[["a", "b", "known_at"]].assign(source="review", fact_id=same["decision_id"])
        con.register("answers_now", pa.Table.from_pandas(answers, preserve_index=False))
        parts.append("SELECT * FROM answers_now")
    if not parts:
        return []
    rows = con.sql(f"{' UNION ALL BY NAME '.join(parts)} ORDER BY known_at, a, b").to_arrow_table()
    there = (store.find(rows["a"]) >= 0) & (store.find(rows["b"]) >= 0)
    con.register("found_now", rows.filter(pa.array(there)))
    return [f"SELECT a, b, known_at::TIMESTAMPTZ, source, fact_id, {FOUND_BATCH}::BIGINT FROM found_now"]


def evidence(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table `edges` of the table `_evidence`: a link is known since its first evidence, further is counted."""
    con.execute(
        """CREATE OR REPLACE TEMP TABLE edges AS
            WITH each AS (SELECT *, batch < 0 AS found FROM _evidence),
                linked AS (SELECT number, found, min(known_at) AS known_at, count(*) AS evidence, max(batch) AS batch
                           FROM each GROUP BY ALL),
                first AS (SELECT number, found, min_by(source, fact_id) AS source, min(fact_id) AS fact_id
                          FROM each SEMI JOIN linked USING (number, found, known_at) GROUP BY ALL)
            SELECT number, known_at, source, fact_id, evidence, batch FROM linked JOIN first USING (number, found)"""
    )
    con.execute("DROP TABLE _evidence")


def take_in(
    con: duckdb.DuckDBPyConnection, store: Store, queries: Sequence[str], *, anew: bool = True
) -> np.ndarray:  # fmt: skip
    """Take what was met in one fact, and so belongs to one person, into the graph; it is walked later.

    queries: facts, one a row: identifiers "type:value" or null, in the order of the contract, and last known_at,
    source, fact_id, batch. The first identifier of a row is linked with each of the others. Returns the numbers of the
    nodes met; leaves the table `_evidence`, of the links: number, known_at, source, fact_id, batch. anew: begin it.
    """
    met, own = np.zeros(0, bool), con.cursor()  # one connection reads while the other writes
    if anew:
        own.execute(
            """CREATE OR REPLACE TABLE _evidence (number INTEGER, known_at TIMESTAMPTZ, source VARCHAR, fact_id VARCHAR,
               batch BIGINT)"""
        )
    for query in queries:
        for rows in con.sql(query).to_arrow_reader(_ROWS):
            *texts, known, source, fact_id, batch = rows.columns
            times = known.cast("int64").to_numpy(zero_copy_only=False)
            nodes, linked = met_together(store, texts, times)
            met = np.concatenate([met, np.zeros(store.state["nodes"] - len(met), bool)])
            for column in nodes:
                met[column[column >= 0]] = True
            for links in linked:
                there = np.flatnonzero(links >= 0)
                if len(there):
                    columns = [links, known, source, fact_id, batch]
                    own.register("more", pa.table(columns, _EVIDENCE).take(there))
                    own.execute("INSERT INTO _evidence FROM more")
    return np.flatnonzero(met)


def met_together(
    store: Store, texts: Sequence[Any], times: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """Take identifiers, a column for each place in the contract, and the links among those of a row into the graph.

    Returns, column by column, the numbers of the nodes, and of the links of each further column; -1: none.
    """
    nodes = [store.meet(column, times) for column in texts]
    first, linked = nodes[0].copy(), []
    for column in nodes[1:]:
        linked.append(store.link(first, column, times))
        first = np.where(first < 0, column, first)
    return nodes, linked


def describing(
    con: duckdb.DuckDBPyConnection, key: str, blocked: Sequence[str] = (),
    reborn: Callable[[Iterable[str]], Mapping[str, str]] = lambda names: {},
) -> Describe:  # fmt: skip
    """What follows from the names of identifiers: birth ids, and what links nothing.

    key: the home's; blocked: patterns of names that link nothing; reborn: birth ids other than usual.
    """
    no_links = " OR ".join(f"name GLOB '{quote(pattern)}'" for pattern in blocked)

    def describe(names: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        con.register("names_now", pa.table({"name": names}))
        query = f"SELECT sha256('{quote(key)}' || name) AS birth, {no_links or 'false'} AS blocked FROM names_now"
        found = con.sql(query).to_arrow_table()
        con.unregister("names_now")
        high, low = numbers(found["birth"])
        again = reborn(text.as_py() for text in names)
        if again:
            at = [names.index(name).as_py() for name in again]
            high[at], low[at] = numbers([birth[1:] for birth in again.values()])
        return high, low, found["blocked"].to_numpy()

    return describe


def decided(project: Project) -> list[Decided]:
    """The decisions as the store wants them."""

    def micros(at: Any) -> int:
        return NEVER if pd.isna(at) else pd.Timestamp(at).value // 1000

    made: Any = list(decisions(project).itertuples())
    said = [
        Decided(d.decision_id, int(d.kind == UNLINK), d.a, d.b, micros(d.known_at), micros(d.known_to))
        for d in made
        if d.kind != SAME
    ]
    # an answer "same" that was taken back links no longer from then on
    return said + [
        Decided(d.decision_id, 1, d.a, d.b, micros(d.known_to), NEVER)
        for d in made
        if d.kind == SAME and not pd.isna(d.known_to)
    ]


def show(con: duckdb.DuckDBPyConnection, home: Path, store: Store, changed: Changed, *, anew: bool) -> None:
    """Write what changed in the graph to its derived tables, the links from the table `edges`."""
    member, alias, refused = store.tables(changed)
    links = con.sql("FROM edges").to_arrow_table()
    a, b = store.ends(links["number"].to_numpy())
    names = [c for c in links.column_names if c not in ("number", "batch")]
    edges = pa.table({"batch": links["batch"], "a": a, "b": b, **{name: links[name] for name in names}})
    now = {
        "edges": ("batch", edges, links["batch"].unique()), "alias": ("loser", alias, store.birth_ids(changed.nodes)),
        "refused_edges": ("edge", refused, pa.array(changed.edges, pa.int64())),
        "member": ("node", member, store.names(changed.nodes)),
    }  # fmt: skip
    for name, (key, rows, keys) in now.items():
        con.register("rows_now", rows)
        if anew:
            derived.write(con, "FROM rows_now", home / f"{name}.parquet")
        elif len(keys):
            con.register("keys_now", pa.table({key: keys}))
            derived.patch(con, "FROM rows_now", home / f"{name}.parquet", key=key, keys="FROM keys_now")


def _touched(con: duckdb.DuckDBPyConnection, project: Project, store: Store, added: Added, since: int) -> str:
    """A table of the profiles about which something may be another now: by identifiers, or by new facts."""
    enriching = [
        f"""SELECT DISTINCT '{kind}:' || id_{kind} FROM "{name}" WHERE id_{kind} IS NOT NULL AND batch > {since}"""
        for name, source in loaded_sources(con, project).items() if source.enrich for kind in source.identifiers
    ]  # fmt: skip
    met = added.met
    if enriching:  # it makes no profile and links none, but says something about those there are
        texts = con.sql(" UNION ".join(enriching)).to_arrow_table()
        met = np.concatenate([met, store.find(texts.column(0))])
    owners = store.distinct(np.concatenate([added.changed.owners, store.nodes["owner"][met[met >= 0]]]))
    con.register("owners_now", pa.table({"profile_id": store.birth_ids(owners)}))
    con.execute("CREATE OR REPLACE TEMP TABLE touched AS FROM owners_now")
    return "touched"


def loaded_sources(con: duckdb.DuckDBPyConnection, project: Project) -> dict:
    """The declared sources that have facts in this session."""
    present = {row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    return {name: s for name, s in project.definitions.sources.items() if name in present}


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
