"""Where is the identity graph kept, and what does something new change in it?

In arrays (see `unification.arrays`) in files of `home/graph`, mapped into memory: a batch reads and writes what it
touches, so that its cost depends on its own size.

The graph is a function of facts and decisions, so it need not survive everything: it is open for writing (`state.json`
is away) or whole, and what was left open is made again from the facts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unification.arrays import (
    EDGE,
    NODE,
    by_name,
    digits_of,
    find,
    gather,
    hash_ends,
    hash_names,
    intern,
    join,
    keep,
    kinds,
    kinds_of,
    leave,
    lengths,
    link,
    reach,
    seals,
    settle,
    spell,
)
from unification.graph import (
    FINE,
    KEPT_APART,
    NEVER,
    SAID_WRONG,
    SHARED,
    TOO_LARGE,
    TOO_MANY,
    Rules,
    Walked,
    by_part,
    shared_since,
    walk,
    with_turns,
)

_FILES = {"nodes": NODE, "edges": EDGE, "names": np.dtype("u1"), "by_name": np.dtype("u8"), "by_ends": np.dtype("u8")}

# What follows from the names of new identifiers: their birth ids, as two numbers each, and which of them link nothing.
Describe = Callable[[Any], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Decided(NamedTuple):
    """A decision: its id, its kind (0: veto, 1: unlink), the two identifiers, in force from when to when."""

    id: str
    kind: int
    a: str
    b: str
    start: int
    end: int


class Limits(NamedTuple):
    """largest: most identifiers of a profile. most: type -> most of it in one profile. shared: type -> an identifier of
    it that is met with more than so many of another type is shared, and links nothing. "*" stands for the types that
    are not named; a type without a limit has none."""

    largest: int = 50
    most: Mapping[str, int] = {}
    shared: Mapping[str, int] = {}


@dataclass
class Changed:
    """What a batch changed. Node numbers are the store's.

    nodes: those whose history is another now, of which walked has the rows (with numbers of the store).
    owners: the profiles, as nodes, that lost or gained something. edges: those refused, or not any more.
    """

    nodes: np.ndarray
    owners: np.ndarray
    edges: np.ndarray
    walked: Walked


class Store:
    """The identity graph. folder: where it lies; None: in memory only."""

    def __init__(self, limits: Limits, folder: Path | None = None, *, anew: bool = False) -> None:
        self.limits, self.folder = limits, folder
        self.in_memory = anew or not folder  # what is made anew goes to the disk when it is whole
        self.state: dict[str, Any] = {"nodes": 0, "edges": 0, "names": 0, "walked": 0, "kinds": [], "decisions": {}}
        self._touched: list[np.ndarray] = [np.empty(0, np.int32)]
        self.arrays: dict[str, np.ndarray] = {}
        if folder and not self.in_memory:
            self.state = json.loads((folder / "state.json").read_text())
            self.arrays = {name: _mapped(folder / f"{name}.bin", kind) for name, kind in _FILES.items()}
        else:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "state.json").unlink(missing_ok=True)
                for file in folder.glob("*.bin"):
                    file.unlink()
            for name in _FILES:
                self._room(name, 1024)

    @property
    def nodes(self) -> np.ndarray:
        return self.arrays["nodes"]

    @property
    def edges(self) -> np.ndarray:
        return self.arrays["edges"]

    @property
    def rules(self) -> Rules:
        """The limits as the walk wants them, by the numbers of the types."""
        kinds = self.state["kinds"]
        most, shared = (
            np.array([given.get(kind, given.get("*", 0)) for kind in kinds], np.int32) for given in self.limits[1:]
        )
        return Rules(self.limits.largest, most, shared)

    def detach(self) -> None:
        """From here on it is a copy in memory, and changes nothing on the disk."""
        self.arrays = {name: array.copy() for name, array in self.arrays.items()}
        self.folder, self.in_memory = None, True

    def open(self) -> None:
        """From here until `close` the graph is not whole."""
        if self.folder:
            (self.folder / "state.json").unlink(missing_ok=True)

    def close(self, **state: Any) -> None:
        """Whole again; state: what else to keep with it."""
        self.state |= state
        if self.folder and self.in_memory:
            used = {"nodes": self.state["nodes"], "edges": self.state["edges"], "names": self.state["names"]}
            for name, kind in _FILES.items():
                file = self.folder / f"{name}.bin"
                self.arrays.pop(name)[: max(1, used.get(name, sys.maxsize))].tofile(file)
                self.arrays[name] = _mapped(file, kind)
            self.in_memory = False
        if self.folder:
            draft = self.folder / "state.draft"
            draft.write_text(json.dumps(self.state))
            draft.replace(self.folder / "state.json")

    def kind(self, name: str) -> int:
        """The number of an identifier type."""
        kinds = self.state["kinds"]
        if name not in kinds:
            kinds.append(name)
        return kinds.index(name)

    def name(self, node: int) -> str:
        return self.names(np.array([node]))[0].as_py()

    def names(self, nodes: np.ndarray) -> Any:
        """The identifiers, "type:value", as an Arrow array."""
        import pyarrow as pa

        offsets = lengths(self.nodes, nodes)
        text = np.empty(offsets[-1], np.uint8)
        gather(self.nodes, self.arrays["names"], nodes, offsets, text)
        return pa.LargeStringArray.from_buffers(len(nodes), pa.py_buffer(offsets), pa.py_buffer(text))

    def birth_ids(self, nodes: np.ndarray) -> Any:
        """The birth ids of nodes, as an Arrow array."""
        import pyarrow as pa

        text = np.empty((len(nodes), 21), np.uint8)
        spell(self.nodes, np.asarray(nodes), text)
        offsets = np.arange(len(nodes) + 1, dtype=np.int64) * 21
        return pa.LargeStringArray.from_buffers(len(nodes), pa.py_buffer(offsets), pa.py_buffer(text))

    def find(self, names: Any) -> np.ndarray:
        """The numbers of identifiers, an Arrow array of texts; -1 where there is no such."""
        _, offsets, text = _buffers(names)
        return find(self.nodes, self.arrays["names"], self.arrays["by_name"], offsets, text)

    def meet(self, names: Any, times: np.ndarray) -> np.ndarray:
        """Take in identifiers, known already or not. Returns their numbers, -1 for null.

        names: Arrow array of texts "type:value"; times: when each was met, in microseconds.
        """
        there, offsets, text = _buffers(names)
        count, n = len(names), self.state["nodes"]
        self._room("nodes", n + count)
        self._room("names", self.state["names"] + int(offsets[-1] - offsets[0]))
        self._hash("by_name", n + count)
        number, touched = np.empty(count, np.int32), np.empty(count, np.int32)
        n, size, seeds = intern(
            self.nodes, self.arrays["by_name"], self.arrays["names"], n, self.state["names"], offsets, text, there,
            np.asarray(times, np.int64), number, touched,
        )  # fmt: skip
        self.state |= {"nodes": int(n), "names": int(size)}
        self._touched.append(touched[:seeds])
        return number

    def link(self, a: np.ndarray, b: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Take in links between identifiers by their numbers, known already or not. Returns the links' numbers, -1 for
        that of an identifier with itself or with none (-1)."""
        m = self.state["edges"]
        self._room("edges", m + len(a))
        self._hash("by_ends", m + len(a))
        edge_of, touched = np.empty(len(a), np.int32), np.empty(len(a), np.int32)
        m, seeds = link(
            self.nodes, self.edges, self.arrays["by_ends"], m, a, b, np.asarray(times, np.int64),
            self.state["walked"] > 0, edge_of, touched,
        )  # fmt: skip
        self.state["edges"] = int(m)
        self._touched.append(touched[:seeds])
        return edge_of

    def walk(self, describe: Describe, decisions: Sequence[Decided] = ()) -> Changed:
        """Walk the parts of the graph that were touched since the last walk. decisions: all that were made."""
        first, n = self.state["walked"], self.state["nodes"]
        if n > first:
            self._describe(first, n, describe)
        made, more = self._decided(decisions)
        seeds = np.concatenate([*self._touched, more[:, 0]])
        self.state["walked"], self._touched = n, []
        if not first:  # everything is touched
            self.nodes["place"][:n] = np.arange(1, n + 1)
            members, arcs = np.arange(n, dtype=np.int32), np.arange(self.state["edges"], dtype=np.int32)
            return self._walk(members, arcs, made, anew=True)
        for x, y in more.tolist():
            join(self.nodes, x, y)
        return self._walk(*reach(self.nodes, self.edges, seeds), made)

    def _describe(self, first: int, n: int, describe: Describe) -> None:
        """Say of new nodes what follows from their names: kind, birth id, whether they link nothing."""
        new = self.nodes[first:n]
        names = self.names(np.arange(first, n))
        new["high"], new["low"], new["blocked"] = describe(names)
        while True:
            offsets, text = _buffers([f"{kind}:" for kind in self.state["kinds"]])[1:]
            new["kind"] = kinds_of(self.nodes, self.arrays["names"], first, n, offsets, text)
            other = np.flatnonzero(new["kind"] < 0)
            if not len(other):
                return
            self.kind(names[int(other[0])].as_py().partition(":")[0])

    def _decided(self, decisions: Sequence[Decided]) -> tuple[np.ndarray, np.ndarray]:
        """Decisions about identifiers that exist, one a row (kind, a, b, from, to); and the two nodes of new ones."""
        before, made, fresh, now = self.state["decisions"], [], [], {}
        ends = (self.find([d.a for d in decisions]), self.find([d.b for d in decisions]))
        for (key, kind, _, _, start, end), x, y in zip(decisions, *(e.tolist() for e in ends), strict=True):
            if x >= 0 and y >= 0:
                made.append((kind, x, y, start, end))
                now[key] = [start, end]
                if before.get(key) != now[key]:
                    fresh.append((x, y))
        self.state["decisions"] = now
        return np.array(made, np.int64).reshape(-1, 5), np.array(fresh, np.int32).reshape(-1, 2)

    def _walk(self, members: np.ndarray, arcs: np.ndarray, made: np.ndarray, *, anew: bool = False) -> Changed:
        """Walk the parts that have these nodes and links. made: all decisions; those about others are left out."""
        nodes, edges, rules = self.nodes, self.edges, self.rules
        made[:, 1:3] = nodes["place"][made[:, 1:3]] - 1
        made = made[(made[:, 1:3] >= 0).all(axis=1)]
        # two nodes that a decision is about are of one part, whether a link says so or not
        graph = by_part(*leave(nodes, edges, members, arcs), made[:, 1:3].astype(np.int32))
        place = np.empty(len(members), np.int32)
        place[graph.members] = np.arange(len(members), dtype=np.int32)
        made[:, 1:3] = place[made[:, 1:3]]
        members, arcs = members[graph.members], arcs[graph.arcs]
        if anew:
            settle(nodes, edges, members, graph.begin, arcs, graph.arcs_begin)
        kind, blocked = kinds(nodes, members)
        shared = shared_since(kind, graph.left, graph.right, graph.times, rules.shared, blocked)
        found = walk(with_turns(graph, kind, shared, made), rules)
        out = np.flatnonzero(found.why == SHARED)  # which end it is, of the store's ends
        found.detail[out] ^= members[graph.left[out]] != edges["a"][arcs[out]]
        m_node, a_loser = found.m_node, found.a_loser
        owner = np.empty(len(members), np.int32)
        owner[m_node] = members[found.m_owner]  # the last row of a node is the one that stays
        found = found._replace(
            m_node=members[m_node], m_owner=members[found.m_owner], a_loser=members[a_loser],
            a_winner=members[found.a_winner], a_edge=arcs[found.a_edge],
        )  # fmt: skip
        seal, old = seals(len(members), m_node, a_loser, found), np.empty(len(members), np.int32)
        changed, other = keep(nodes, edges, members, arcs, seal, owner, found.why, found.detail, old)
        if changed.all():
            return Changed(members, self.distinct(np.concatenate([old[old >= 0], owner])), arcs[other], found)
        rows, alias, old = changed[m_node], changed[a_loser], old[changed]
        return Changed(
            members[changed], self.distinct(np.concatenate([old[old >= 0], owner[changed]])), arcs[other],
            Walked._make([*(x[rows] for x in found[:4]), *(x[alias] for x in found[4:9]), found.why, found.detail]),
        )  # fmt: skip

    def distinct(self, nodes: np.ndarray) -> np.ndarray:
        """Each of some nodes once."""
        there = np.zeros(self.state["nodes"], bool)
        there[nodes] = True
        return np.flatnonzero(there).astype(np.int32)

    def tables(self, changed: Changed) -> tuple[Any, Any, Any]:
        """What is to be read of a change, as Arrow tables.

        member: node, birth_id, profile_id, known_from, known_to (null: still so), sorted by node and time. An interval
        holds for every T with known_from < T <= known_to. alias: loser, winner, known_at, known_to, a, b (the edge that
        merged them). refused: edge (its number), a, b, known_at, reason; of the edges that are kept out now.
        """
        import pyarrow as pa

        w = changed.walked
        a, b = self.ends(w.a_edge)
        alias = pa.table({
            "loser": self.birth_ids(w.a_loser), "winner": self.birth_ids(w.a_winner), "known_at": _stamps(w.a_from),
            "known_to": _stamps(w.a_to), "a": a, "b": b,
        })  # fmt: skip
        out = changed.edges[self.edges["why"][changed.edges] != FINE]
        a, b = self.ends(out)
        refused = pa.table({
            "edge": pa.array(out, pa.int64()), "a": a, "b": b, "known_at": _stamps(self.edges["time"][out]),
            "reason": pa.array([self._reason(k) for k in out], pa.string()),
        })  # fmt: skip
        return self.members(changed), alias, refused

    def members(self, changed: Changed) -> Any:
        """The first of these tables alone."""
        import pyarrow as pa

        w = changed.walked
        return pa.table({
            "node": self.names(w.m_node), "birth_id": self.birth_ids(w.m_node), "profile_id": self.birth_ids(w.m_owner),
            "known_from": _stamps(w.m_from), "known_to": _stamps(w.m_to),
        })  # fmt: skip

    def ends(self, edges: np.ndarray) -> tuple[Any, Any]:
        """The identifiers that edges link, the lesser name first, as Arrow arrays."""
        a, b = (self.edges[end][edges] for end in ("a", "b"))
        by_name(self.nodes, self.arrays["names"], a, b)
        return self.names(a), self.names(b)

    def _reason(self, k: int) -> str:
        edge, kinds, rules = self.edges[k], self.state["kinds"], self.rules
        why, detail = edge["why"], edge["detail"]
        if why == SAID_WRONG:
            return "said to be wrong"
        if why == TOO_LARGE:
            return f"profile would hold {detail} identifiers, limit {rules.largest}"
        if why == TOO_MANY:
            return f"profile would hold more than {rules.most[detail]} identifiers of type {kinds[detail]}"
        if why == KEPT_APART:
            return "a veto keeps the two apart"
        end = self.nodes[edge["b"] if detail else edge["a"]]
        if end["blocked"]:
            return "blocked value"
        most = rules.shared[end["kind"]]
        return f"{self.name(edge['b'] if detail else edge['a'])} is shared: met with more than {most} of another type"

    def _room(self, name: str, least: int) -> None:
        """Let an array have room for so many elements."""
        have = self.arrays.get(name)
        if have is not None and len(have) >= least:
            return
        kind = _FILES[name]
        size = max(least, 1024, 0 if have is None else len(have) * 2)  # what is not used yet takes no place
        if self.in_memory or not self.folder:
            self.arrays[name] = np.zeros(size, kind)
            if have is not None:
                self.arrays[name][: len(have)] = have
            return
        file = self.folder / f"{name}.bin"
        self.arrays.pop(name, None)
        with file.open("ab") as stream:
            stream.truncate(size * kind.itemsize)  # holes read as zeros and take no place
        self.arrays[name] = _mapped(file, kind)

    def _hash(self, name: str, count: int) -> None:
        """Let a hash table be at most five eighths full with so many entries; its size is a power of two."""
        have = self.arrays[name]
        size = 1 << max(10, int(np.ceil(np.log2(max(1, count) * 1.6))))
        if len(have) >= size:
            return
        self.arrays.pop(name)
        if not self.in_memory and self.folder:
            (self.folder / f"{name}.bin").unlink()
        self._room(name, size)
        if name == "by_name":
            hash_names(self.nodes, self.arrays["names"], self.state["nodes"], self.arrays[name])
        else:
            hash_ends(self.edges, self.state["edges"], self.arrays[name])


def _stamps(instants: np.ndarray) -> Any:
    """Microseconds as UTC stamps, NEVER as null."""
    import pyarrow as pa

    return pa.array(instants, pa.int64(), mask=instants == NEVER).cast(pa.timestamp("us", tz="UTC"))


def _mapped(file: Path, kind: np.dtype) -> np.ndarray:
    return np.asarray(np.memmap(file, kind, "r+")).view(np.ndarray)


def _buffers(names: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of texts: which are there, and their offsets and bytes."""
    import pyarrow as pa

    whole = names if isinstance(names, pa.Array | pa.ChunkedArray) else pa.array(names, pa.large_string())
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    whole = whole.cast(pa.large_string())
    _, offsets, text = whole.buffers()
    there = whole.is_valid().to_numpy(zero_copy_only=False)
    begin = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return there, begin, np.frombuffer(text or b"\0", np.uint8)


def numbers(births: Any) -> tuple[np.ndarray, np.ndarray]:
    """Birth ids as two numbers each. births: Arrow array of texts that begin with twenty hex digits."""
    _, offsets, text = _buffers(births)
    high, low = np.empty(len(births), np.uint64), np.empty(len(births), np.uint16)
    digits_of(offsets, text, high, low)
    return high, low


def warm() -> None:
    """Compile the loops, once for all processes, as installing does: the first run would take half a minute longer."""
    store, one = Store(Limits()), np.zeros(1, np.int64)

    def describe(names: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return *numbers(["0" * 20] * len(names)), np.zeros(len(names), bool)

    for _ in range(2):
        a, b = (store.meet([name], one) for name in ("a:1", "a:2"))
        store.link(a, b, one)
        store.tables(store.walk(describe))
