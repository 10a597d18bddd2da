"""Which profile did each identifier belong to, and when? A union-find that walks the edges as they became known.

The result is membership in time: to know the graph at T is a filter, not a recomputation. A profile keeps the id of
its oldest identifier; when two profiles merge, the older id survives and the younger becomes its alias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Graph:
    """member: node, birth_id, profile_id, known_from, known_to (NaT: still so). An interval holds for every T with
    known_from < T <= known_to. alias: loser, winner, known_at, a, b (the edge that merged them).
    refused: edges that a guard kept out, with the reason."""

    member: pd.DataFrame
    alias: pd.DataFrame
    refused: pd.DataFrame


def connect(nodes: pd.DataFrame, edges: pd.DataFrame, largest: int = 50) -> Graph:
    """Membership in time.

    nodes: node, birth_id, known_at (when the identifier was first known); unique nodes.
    edges: a, b (nodes), known_at. largest: most identifiers a profile may hold; an edge beyond is refused, not dropped.
    """
    nodes = nodes.sort_values(["known_at", "node"], kind="stable", ignore_index=True)  # position = age
    edges = edges.sort_values(["known_at", "a", "b"], kind="stable", ignore_index=True)
    index = pd.Series(nodes.index, index=nodes["node"])
    left, right = index.loc[edges["a"]].to_numpy(), index.loc[edges["b"]].to_numpy()
    times = _naive(edges["known_at"])
    n = len(nodes)
    parent = list(range(n))
    members: list[list[int]] = [[i] for i in range(n)]
    profile = list(range(n))  # of a root: its oldest node, whose birth id is the profile id
    current = list(range(n))  # of a node: its profile now, and the time since when
    since = _naive(nodes["known_at"])
    rows: list[tuple[int, int, np.datetime64, np.datetime64]] = []
    merges: list[tuple[int, int, int]] = []
    refused: list[tuple[int, str]] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for k in range(len(edges)):
        a, b = root(int(left[k])), root(int(right[k]))
        if a == b:
            continue
        size = len(members[a]) + len(members[b])
        if size > largest:
            refused.append((k, f"profile would hold {size} identifiers, limit {largest}"))
            continue
        if profile[b] < profile[a]:
            a, b = b, a  # the older profile survives
        merges.append((profile[b], profile[a], k))
        for node in members[b]:
            if since[node] < times[k]:
                rows.append((node, current[node], since[node], times[k]))
                since[node] = times[k]
            current[node] = profile[a]
        winner = profile[a]
        if len(members[a]) < len(members[b]):
            a, b = b, a  # union by size; the surviving id is kept apart from the root
        parent[b] = a
        members[a] += members[b]
        members[b] = []
        profile[a] = winner

    never = np.datetime64("NaT", "us")
    rows += [(node, current[node], since[node], never) for node in range(n)]
    node, owner, start, end = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.array([], int),) * 4
    names, births = nodes["node"].to_numpy(), nodes["birth_id"].to_numpy()
    member = pd.DataFrame({
        "node": names[node], "birth_id": births[node], "profile_id": births[owner],
        "known_from": _utc(start), "known_to": _utc(end),
    }).sort_values(["node", "known_from"], ignore_index=True)  # fmt: skip
    loser, winner, edge = np.array(merges, dtype=int).reshape(-1, 3).T
    alias = pd.DataFrame({
        "loser": births[loser], "winner": births[winner], "known_at": _utc(times[edge]),
        "a": edges["a"].to_numpy()[edge], "b": edges["b"].to_numpy()[edge],
    })  # fmt: skip
    out = edges.iloc[[k for k, _ in refused]].assign(reason=[why for _, why in refused])
    return Graph(member, alias, out.reset_index(drop=True))


def _naive(instants: pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(instants).tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[us]").copy()


def _utc(values: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(values.astype("datetime64[us]"), tz="UTC")
