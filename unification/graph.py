"""Which profile did each identifier belong to, and when? A union-find that walks the links as they became known.

**The graph at T is the greedy union of the links known before T, in the order they became known, under the decisions in
force at T.** A link is refused if the profile would grow too large, if a veto keeps the two sides apart, or if somebody
said that it is wrong. So a decision changes the graph from when it is made until it is taken back, and never before.

The result is membership in time: to know the graph at T is a filter, not a recomputation. A profile has the id of its
oldest identifier; when two profiles merge, the older id survives and the younger becomes its alias, until they part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

NEVER = np.datetime64("NaT", "us")
VETO, UNLINK = "veto", "unlink"


@dataclass(frozen=True)
class Graph:
    """member: node, birth_id, profile_id, known_from, known_to (NaT: still so). An interval holds for every T with
    known_from < T <= known_to. alias: loser, winner, known_at, known_to, a, b (the edge that merged them).
    refused: edges that are kept out now, with the reason."""

    member: pd.DataFrame
    alias: pd.DataFrame
    refused: pd.DataFrame


def connect(
    nodes: pd.DataFrame, edges: pd.DataFrame, largest: int = 50, decisions: pd.DataFrame | None = None
) -> Graph:
    """Membership in time.

    nodes: node, birth_id, known_at (when the identifier was first known); unique nodes.
    edges: a, b (nodes), known_at. largest: most identifiers a profile may hold; an edge beyond is refused, not dropped.
    decisions: kind ("veto": a and b are never one profile; "unlink": the edge between a and b is wrong), a, b,
        known_at, known_to (NaT: stands). It is in force for every T with known_at < T <= known_to.
    """
    nodes = nodes.sort_values(["known_at", "node"], kind="stable", ignore_index=True)  # position = age
    edges = edges.sort_values(["known_at", "a", "b"], kind="stable", ignore_index=True)
    index = pd.Series(nodes.index, index=nodes["node"])
    walk = _Walk(
        since=_naive(nodes["known_at"]), left=index.loc[edges["a"]].to_numpy(), right=index.loc[edges["b"]].to_numpy(),
        times=_naive(edges["known_at"]), largest=largest,
    )  # fmt: skip
    made = _decided(decisions, index)
    if not made:
        walk.add(range(len(edges)))
    else:
        part = _parts(len(nodes), walk.left, walk.right, made)
        disputed = {part[d.a] for d in made} | {part[d.b] for d in made}
        here = part[walk.left]
        inside = np.isin(here, list(disputed))
        walk.add(np.flatnonzero(~inside))
        for each in sorted(disputed):
            own = [d for d in made if part[d.a] == each]
            walk.replay(np.flatnonzero(part == each), np.flatnonzero(here == each), own)
    return walk.result(nodes, edges)


@dataclass(frozen=True)
class _Decision:
    kind: str
    a: int
    b: int
    start: np.datetime64
    end: np.datetime64

    def stands(self, at: np.datetime64) -> bool:
        """Just after `at`."""
        return bool(self.start <= at and (np.isnat(self.end) or at < self.end))


def _decided(decisions: pd.DataFrame | None, index: pd.Series) -> list[_Decision]:
    """The decisions about identifiers that exist, as positions."""
    if decisions is None or decisions.empty:
        return []
    known = decisions[decisions["a"].isin(index.index) & decisions["b"].isin(index.index)]
    starts, ends = _naive(known["known_at"]), _naive(known["known_to"])
    a, b = index.loc[known["a"]].to_numpy(), index.loc[known["b"]].to_numpy()
    return [_Decision(*row) for row in zip(known["kind"], a.tolist(), b.tolist(), starts, ends, strict=True)]


def _parts(n: int, left: np.ndarray, right: np.ndarray, made: Iterable[_Decision]) -> np.ndarray:
    """For each node the part of the graph within which links and decisions can have an effect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.concatenate([left, [d.a for d in made]]).astype(int)
    columns = np.concatenate([right, [d.b for d in made]]).astype(int)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


class _Walk:
    """The state at an instant, and what has been written down of the instants before. Nodes are numbered by age."""

    def __init__(self, since: np.ndarray, left: np.ndarray, right: np.ndarray, times: np.ndarray, largest: int) -> None:
        n = len(since)
        self.since, self.times, self.largest = since, times, largest
        self.left, self.right = left.tolist(), right.tolist()
        self.parent = list(range(n))
        self.members: list[list[int]] = [[i] for i in range(n)]
        self.profile = list(range(n))  # of a root: its oldest node, whose birth id is the profile id
        self.current = list(range(n))  # of a node: its profile now, since `changes` or since it was known
        self.changes: list[tuple[int, np.datetime64, int]] = []
        self.merged: dict[int, tuple[int, int, np.datetime64]] = {}  # loser -> winner, edge, when
        self.parted: list[tuple[int, int, int, np.datetime64, np.datetime64]] = []  # loser, winner, edge, from, to
        self.refused: dict[int, str] = {}
        self.vetoes: list[tuple[int, int]] = []
        self.unlinked: set[tuple[int, int]] = set()

    def root(self, i: int) -> int:
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def add(self, edges: Iterable[int]) -> None:
        """Walk these edges, in the order they became known."""
        times, current = self.times, self.current
        for k, winner, _, nodes in self._unions(edges):
            for node in nodes:
                self.changes.append((node, times[k], winner))
                current[node] = winner

    def _unions(self, edges: Iterable[int]) -> Iterator[tuple[int, int, int, list[int]]]:
        """Unite what the edges link; yields (edge, winner, loser, the loser's nodes) of each union."""
        members, profile = self.members, self.profile
        for k in edges:
            a, b = self.root(self.left[k]), self.root(self.right[k])
            if why := self._objection(k, a, b):
                self.refused[k] = why
                continue
            if a == b:
                continue
            if profile[b] < profile[a]:
                a, b = b, a  # the older profile survives
            winner, loser, nodes = profile[a], profile[b], members[b]
            self.merged[loser] = (winner, k, self.times[k])
            yield k, winner, loser, nodes
            if len(members[a]) < len(members[b]):
                a, b = b, a  # union by size; the surviving id is kept apart from the root
            self.parent[b] = a
            members[a] += members[b]
            members[b] = []
            profile[a] = winner

    def _objection(self, k: int, a: int, b: int) -> str:
        """Why an edge between two roots is refused, or nothing."""
        if self.unlinked and _pair(self.left[k], self.right[k]) in self.unlinked:
            return "said to be wrong"
        if a == b:
            return ""
        size = len(self.members[a]) + len(self.members[b])
        if size > self.largest:
            return f"profile would hold {size} identifiers, limit {self.largest}"
        if any({self.root(x), self.root(y)} == {a, b} for x, y in self.vetoes):
            return "a veto keeps the two apart"
        return ""

    def replay(self, nodes: np.ndarray, edges: np.ndarray, decisions: list[_Decision]) -> None:
        """Walk the edges of a part about which decisions were made; at each it is united anew."""
        turns = sorted({t for d in decisions for t in (d.start, d.end) if not np.isnat(t)})
        done = 0
        for turn in turns:
            until = int(np.searchsorted(self.times[edges], turn, side="left"))
            self.add(edges[done:until].tolist())
            done = until
            self.vetoes = [(d.a, d.b) for d in decisions if d.kind == VETO and d.stands(turn)]
            self.unlinked = {_pair(d.a, d.b) for d in decisions if d.kind == UNLINK and d.stands(turn)}
            self._again(nodes.tolist(), edges[:done].tolist(), turn)
        self.add(edges[done:].tolist())
        self.vetoes, self.unlinked = [], set()

    def _again(self, nodes: list[int], edges: list[int], turn: np.datetime64) -> None:
        """Unite a part from its single nodes, and write down what has changed by it."""
        before = {node: self.merged.pop(node) for node in nodes if node in self.merged}
        for node in nodes:
            self.parent[node], self.members[node], self.profile[node] = node, [node], node
        for k in edges:
            self.refused.pop(k, None)
        for _ in self._unions(edges):
            pass
        for node in nodes:
            owner = self.profile[self.root(node)]
            if owner != self.current[node]:
                self.changes.append((node, turn, owner))
                self.current[node] = owner
        for loser in nodes:
            old, new = before.get(loser), self.merged.get(loser)
            if old and new and old[0] == new[0]:
                self.merged[loser] = old  # as it was
                continue
            if old and old[2] < turn:
                self.parted.append((loser, old[0], old[1], old[2], turn))
            if new:
                self.merged[loser] = (new[0], new[1], turn)

    def result(self, nodes: pd.DataFrame, edges: pd.DataFrame) -> Graph:
        names, births = nodes["node"].to_numpy(), nodes["birth_id"].to_numpy()
        n = len(nodes)
        node, start, owner = (np.array(c) for c in zip(*self.changes, strict=True)) if self.changes else ([], [], [])
        log = pd.DataFrame({
            "node": np.concatenate([np.arange(n), np.asarray(node, int)]),
            "start": np.concatenate([self.since, np.asarray(start, "datetime64[us]")]),
            "owner": np.concatenate([np.arange(n), np.asarray(owner, int)]),
        })  # fmt: skip
        # of several changes in one instant the last one counts, and only if it is one
        log = log.sort_values(["node", "start"], kind="stable").drop_duplicates(["node", "start"], keep="last")
        log = log[(log["node"] != log["node"].shift()) | (log["owner"] != log["owner"].shift())]
        end = log["start"].shift(-1).where(log["node"] == log["node"].shift(-1))
        member = pd.DataFrame({
            "node": names[log["node"]], "birth_id": births[log["node"]], "profile_id": births[log["owner"]],
            "known_from": _utc(log["start"].to_numpy()), "known_to": _utc(end.to_numpy()),
        }).sort_values(["node", "known_from"], ignore_index=True)  # fmt: skip
        rows = [*self.parted, *((loser, *w, NEVER) for loser, w in self.merged.items())]
        loser, winner, edge = (np.array([row[i] for row in rows], dtype=int) for i in range(3))
        start, end = (np.array([row[i] for row in rows], dtype="datetime64[us]") for i in (3, 4))
        alias = pd.DataFrame({
            "loser": births[loser], "winner": births[winner], "known_at": _utc(start), "known_to": _utc(end),
            "a": edges["a"].to_numpy()[edge], "b": edges["b"].to_numpy()[edge],
        }).sort_values(["known_at", "loser"], ignore_index=True)  # fmt: skip
        kept_out = sorted(self.refused)
        out = edges.iloc[kept_out].assign(reason=[self.refused[k] for k in kept_out])
        return Graph(member, alias, out.reset_index(drop=True))


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _naive(instants: pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(instants).tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[us]").copy()


def _utc(values: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(values.astype("datetime64[us]"), tz="UTC")
