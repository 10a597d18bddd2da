"""Where is the identity graph kept, and what does something new change in it?

In arrays (see `unification.arrays`) in files of `home/graph`, mapped into memory: a batch reads and writes what it
touches, so that its cost depends on its own size.

The graph is a function of facts and decisions, so it need not survive everything: it is open for writing (`state.json`
is away) or whole, and what was left open is made again from the facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unification.arrays import (
    EDGE,
    NODE,
    find,
    gather,
    hash_ends,
    hash_ids,
    intern,
    join,
    keep,
    leave,
    link,
    parts,
    seals,
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
    shared_since,
    walk,
    with_turns,
)

_FILES = {"nodes": NODE, "edges": EDGE, "names": np.dtype("u1"), "by_id": np.dtype("i4"), "by_ends": np.dtype("i4")}


class Decided(NamedTuple):
    """A decision: its id, its kind (0: veto, 1: unlink), the birth ids of the two, in force from when to when."""

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
        self.state: dict[str, Any] = {"nodes": 0, "edges": 0, "names": 0, "kinds": [], "decisions": {}}
        self.arrays: dict[str, np.ndarray] = {}
        if folder and not anew:
            self.state = json.loads((folder / "state.json").read_text())
            self.arrays = {name: _mapped(folder / f"{name}.bin", kind) for name, kind in _FILES.items()}
        else:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "state.json").unlink(missing_ok=True)
                for name in _FILES:
                    (folder / f"{name}.bin").unlink(missing_ok=True)
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

    def open(self) -> None:
        """From here until `close` the graph is not whole."""
        if self.folder:
            (self.folder / "state.json").unlink(missing_ok=True)

    def close(self, **state: Any) -> None:
        """Whole again; state: what else to keep with it."""
        self.state |= state
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

        offsets = np.zeros(len(nodes) + 1, np.int64)
        np.cumsum(self.nodes["length"][nodes], out=offsets[1:])
        text = np.empty(offsets[-1], np.uint8)
        gather(self.nodes, self.arrays["names"], nodes, offsets, text)
        return pa.LargeStringArray.from_buffers(len(nodes), pa.py_buffer(offsets), pa.py_buffer(text)).cast(pa.string())

    def birth_ids(self, nodes: np.ndarray) -> Any:
        """The birth ids of nodes, as an Arrow array."""
        import pyarrow as pa

        text = np.empty((len(nodes), 21), np.uint8)
        spell(self.nodes, np.asarray(nodes), text)
        offsets = np.arange(len(nodes) + 1, dtype=np.int64) * 21
        return pa.LargeStringArray.from_buffers(len(nodes), pa.py_buffer(offsets), pa.py_buffer(text)).cast(pa.string())

    def find(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The numbers of the identifiers with these birth ids, -1 where there is none."""
        return find(self.nodes, self.arrays["by_id"], high, low)

    def add(
        self, names: Any, high: np.ndarray, low: np.ndarray, kind: np.ndarray, since: np.ndarray, left: np.ndarray,
        right: np.ndarray, times: np.ndarray, *, blocked: np.ndarray | None = None,
        decisions: Sequence[Decided] = (),
    ) -> Changed:  # fmt: skip
        """Take in identifiers and links, known already or not, and walk the parts that they touch.

        names: Arrow array of distinct identifiers; high, low, kind, since, blocked: of these, the birth id as two
        numbers, the type's number, when first known in microseconds, and whether it links nothing. left, right: of
        links, positions in names; times: when they were first known. decisions: all that were made.
        """
        new, m = len(high), len(left)
        high, low, kind = high.astype(np.uint64), low.astype(np.uint16), kind.astype(np.int16)
        left, right, since, times = (np.asarray(x, np.int64) for x in (left, right, since, times))
        self._room("nodes", self.state["nodes"] + new)
        self._room("edges", self.state["edges"] + m)
        self._hash("by_id", self.state["nodes"] + new)
        self._hash("by_ends", self.state["edges"] + m)
        offsets, text = _buffers(names)
        self._room("names", self.state["names"] + len(text))
        touched = np.empty(new + 2 * m, np.int32)
        blocks = np.zeros(new, np.int16) if blocked is None else blocked.astype(np.int16)
        number = np.empty(new, np.int32)
        n, size, seeds = intern(
            self.nodes, self.arrays["by_id"], self.arrays["names"], self.state["nodes"], self.state["names"], high, low,
            kind, since, blocks, offsets, text, number, touched,
        )  # fmt: skip
        edges, seeds = link(
            self.nodes, self.edges, self.arrays["by_ends"], self.state["edges"], number, left, right, times, touched,
            seeds,
        )  # fmt: skip
        self.state |= {"nodes": int(n), "names": int(size), "edges": int(edges)}
        made, more = self._decided(decisions)
        return self._walk(np.concatenate([touched[:seeds], more]), made)

    def _decided(self, decisions: Sequence[Decided]) -> tuple[np.ndarray, np.ndarray]:
        """Decisions about identifiers that exist, one a row (kind, a, b, from, to); and nodes of those that are new."""
        before, made, touched, now = self.state["decisions"], [], [], {}
        for key, kind, a, b, start, end in decisions:
            x, y = self.find(*_numbers([a, b]))
            if x >= 0 and y >= 0:
                made.append((kind, x, y, start, end))
                now[key] = [start, end]
                if before.get(key) != now[key]:
                    join(self.nodes, x, y)
                    touched.append(x)
        self.state["decisions"] = now
        return np.array(made, np.int64).reshape(-1, 5), np.array(touched, np.int32)

    def _walk(self, seeds: np.ndarray, made: np.ndarray) -> Changed:
        nodes, edges, rules = self.nodes, self.edges, self.rules
        members, begin, arcs, arcs_begin = parts(nodes, edges, seeds)
        for side in (1, 2):
            made[:, side] = nodes["place"][made[:, side]] - 1
        since, kind, blocked, a, b, times = leave(nodes, edges, members, arcs)
        left, right = np.minimum(a, b), np.maximum(a, b)
        shared = shared_since(kind, left, right, times, rules.shared, blocked)
        found = walk(with_turns(begin, arcs_begin, since, kind, left, right, times, shared, made), rules)
        found.detail[(found.why == SHARED) & (a > b)] ^= 1  # which end it is, of the store's ends
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
            return Changed(members, self._distinct(np.concatenate([old[old >= 0], owner])), arcs[other], found)
        rows, alias, old = changed[m_node], changed[a_loser], old[changed]
        return Changed(
            members[changed], self._distinct(np.concatenate([old[old >= 0], owner[changed]])), arcs[other],
            Walked._make([*(x[rows] for x in found[:4]), *(x[alias] for x in found[4:9]), found.why, found.detail]),
        )  # fmt: skip

    def _distinct(self, nodes: np.ndarray) -> np.ndarray:
        if len(nodes) < 100_000:
            return np.unique(nodes)
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
        a, b = self._pairs(w.a_edge)
        member = pa.table({
            "node": self.names(w.m_node), "birth_id": self.birth_ids(w.m_node), "profile_id": self.birth_ids(w.m_owner),
            "known_from": _stamps(w.m_from), "known_to": _stamps(w.m_to),
        })  # fmt: skip
        alias = pa.table({
            "loser": self.birth_ids(w.a_loser), "winner": self.birth_ids(w.a_winner), "known_at": _stamps(w.a_from),
            "known_to": _stamps(w.a_to), "a": a, "b": b,
        })  # fmt: skip
        out = changed.edges[self.edges["why"][changed.edges] != FINE]
        a, b = self._pairs(out)
        refused = pa.table({
            "edge": pa.array(out, pa.int64()), "a": a, "b": b, "known_at": _stamps(self.edges["time"][out]),
            "reason": pa.array([self._reason(k) for k in out], pa.string()),
        })  # fmt: skip
        return member, alias, refused

    def _pairs(self, edges: np.ndarray) -> tuple[Any, Any]:
        """The identifiers that edges link, in the order of their names."""
        import pyarrow.compute as pc

        a, b = (self.names(self.edges[end][edges]) for end in ("a", "b"))
        return pc.min_element_wise(a, b), pc.max_element_wise(a, b)  # pyright: ignore[reportAttributeAccessIssue]

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
        size = max(least, 1024, 0 if have is None else len(have) * 3 // 2)
        if not self.folder:
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
        if self.folder:
            (self.folder / f"{name}.bin").unlink()
        self._room(name, size)
        if name == "by_id":
            hash_ids(self.nodes, self.state["nodes"], self.arrays[name])
        else:
            hash_ends(self.edges, self.state["edges"], self.arrays[name])


def _stamps(instants: np.ndarray) -> Any:
    """Microseconds as UTC stamps, NEVER as null."""
    import pyarrow as pa

    return pa.array(instants, pa.int64(), mask=instants == NEVER).cast(pa.timestamp("us", tz="UTC"))


def _mapped(file: Path, kind: np.dtype) -> np.ndarray:
    return np.asarray(np.memmap(file, kind, "r+")).view(np.ndarray)


def _buffers(names: Any) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and bytes of an Arrow array of texts."""
    import pyarrow as pa

    whole = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    whole = whole.cast(pa.large_string())
    _, offsets, text = whole.buffers()
    begin = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return begin, np.frombuffer(text or b"\0", np.uint8)


def _numbers(births: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Birth ids, "p" and twenty hex digits, as two numbers each."""
    return (
        np.array([int(b[1:17], 16) for b in births], np.uint64), np.array([int(b[17:], 16) for b in births], np.uint16)
    )  # fmt: skip


def warm() -> None:
    """Compile the loops, once for all processes, as installing does: the first run would take half a minute longer."""
    import pyarrow as pa

    store, one = Store(Limits()), np.zeros(1, np.int64)
    numbers = np.arange(2)
    store.add(pa.array(["a:1", "a:2"]), numbers, numbers, numbers * store.kind("a"), numbers, one, one + 1, one)
    store.tables(store.add(pa.array([], pa.string()), one[:0], one[:0], one[:0], one[:0], one[:0], one[:0], one[:0]))
