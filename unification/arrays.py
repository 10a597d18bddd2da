"""How are the arrays of the identity graph read and written? Compiled loops over nodes, links and hash tables.

A node is a row of NODE, a link one of EDGE. Tables of open addresses find a node by its birth id and a link by its
ends. A ring runs through the nodes of each part of the graph, and a chain through the links of each node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from unification.graph import Walked

# 64 bytes, which is what a processor fetches at once. high, low: the birth id's first 64 and last 16 bits. name,
# length: where the text lies. part, next: the part's union-find, and its ring. edge: 1 + the last end of a link here
# (2 * edge + side), 0 if none. owner: its profile after the last walk; seal: what that walk found of it, in 64 bits.
# place: during a walk 1 + its position there, else 0.
NODE = np.dtype([
    ("high", "u8"), ("since", "i8"), ("name", "i8"), ("seal", "u8"), ("length", "i4"), ("part", "i4"), ("next", "i4"),
    ("edge", "i4"), ("owner", "i4"), ("place", "i4"), ("kind", "i2"), ("blocked", "i2"), ("low", "u2"), ("_", "u2"),
])  # fmt: skip
# a, b: nodes. beside_a, beside_b: the end before it at that node. why, detail: after the last walk.
EDGE = np.dtype([
    ("time", "i8"), ("a", "i4"), ("b", "i4"), ("beside_a", "i4"), ("beside_b", "i4"), ("why", "i4"), ("detail", "i4"),
])  # fmt: skip


@njit(cache=True)
def _mix(x: Any) -> Any:
    """A 64 bit hash (the finaliser of MurmurHash3)."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@njit(cache=True)
def _slot(nodes: Any, slots: Any, high: np.uint64, low: np.uint64) -> Any:
    """Where a birth id stands in the table, or where it would."""
    mask = len(slots) - 1
    at = np.int64(_mix(high) & np.uint64(mask))
    while slots[at]:
        node = nodes[slots[at] - 1]
        if node.high == high and node.low == low:
            break
        at = (at + 1) & mask
    return at


@njit(cache=True)
def hash_ids(nodes: Any, n: int, slots: Any) -> None:
    for i in range(n):
        slots[_slot(nodes, slots, nodes[i].high, nodes[i].low)] = i + 1


@njit(cache=True)
def find(nodes: Any, slots: Any, high: Any, low: Any) -> Any:
    found = np.empty(len(high), np.int32)
    for i in range(len(high)):
        found[i] = slots[_slot(nodes, slots, high[i], low[i])] - 1
    return found


@njit(cache=True)
def ends(edges: Any, slots: Any, a: int, b: int) -> Any:
    """Where the link between two nodes stands in the table, or where it would; a < b."""
    mask = len(slots) - 1
    at = np.int64(_mix((np.uint64(a) << np.uint64(32)) | np.uint64(b)) & np.uint64(mask))
    while slots[at]:
        edge = edges[slots[at] - 1]
        if edge.a == a and edge.b == b:
            break
        at = (at + 1) & mask
    return at


@njit(cache=True)
def hash_ends(edges: Any, m: int, slots: Any) -> None:
    for k in range(m):
        slots[ends(edges, slots, edges[k].a, edges[k].b)] = k + 1


@njit(cache=True)
def intern(
    nodes: Any, slots: Any, names: Any, n: int, size: int, high: Any, low: Any,
    kind: Any, since: Any, blocked: Any, offsets: Any, text: Any, number: Any,
    touched: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Find or add identifiers. Returns how many nodes and bytes of names there are now, and how many were touched."""
    seeds = 0
    for i in range(len(high)):
        at = _slot(nodes, slots, high[i], low[i])
        here = slots[at] - 1
        if here < 0:
            here = n
            slots[at] = n + 1
            node = nodes[n]
            node.high, node.low, node.since, node.kind, node.blocked = high[i], low[i], since[i], kind[i], blocked[i]
            node.part, node.next, node.owner, node.seal = n, n, -1, 0
            length = offsets[i + 1] - offsets[i]
            node.name, node.length = size, length
            names[size : size + length] = text[offsets[i] : offsets[i + 1]]
            size += length
            n += 1
            touched[seeds] = here
            seeds += 1
        elif since[i] < nodes[here].since:
            nodes[here].since = since[i]
            touched[seeds] = here
            seeds += 1
        number[i] = here
    return n, size, seeds


@njit(cache=True)
def link(
    nodes: Any, edges: Any, slots: Any, m: int, number: Any, left: Any,
    right: Any, times: Any, touched: Any, seeds: int,
) -> tuple[int, int]:  # fmt: skip
    """Find or add links. Returns how many there are now, and how many nodes were touched."""
    for i in range(len(left)):
        a, b, time = number[left[i]], number[right[i]], times[i]
        if a == b:
            continue
        if b < a:
            a, b = b, a
        at = ends(edges, slots, a, b)
        k = slots[at] - 1
        if k < 0:
            k = m
            slots[at] = m + 1
            edge = edges[m]
            edge.a, edge.b, edge.time, edge.why, edge.detail = a, b, time, 0, 0
            edge.beside_a, edge.beside_b = nodes[a].edge, nodes[b].edge
            nodes[a].edge, nodes[b].edge = 2 * m + 1, 2 * m + 2
            m += 1
            join(nodes, a, b)
        elif time < edges[k].time:
            edges[k].time, edges[k].why = time, -1  # whatever the walk finds is news
        else:
            continue
        nodes[a].since, nodes[b].since = min(nodes[a].since, time), min(nodes[b].since, time)
        touched[seeds] = a
        seeds += 1
    return m, seeds


@njit(cache=True)
def _part(nodes: Any, i: int) -> int:
    while nodes[i].part != i:
        nodes[i].part = nodes[nodes[i].part].part
        i = nodes[i].part
    return i


@njit(cache=True)
def join(nodes: Any, a: int, b: int) -> None:
    """Make two nodes members of one part."""
    x, y = _part(nodes, a), _part(nodes, b)
    if x != y:
        if y < x:
            x, y = y, x
        nodes[y].part = x
        nodes[x].next, nodes[y].next = nodes[y].next, nodes[x].next


@njit(cache=True)
def parts(nodes: Any, edges: Any, seeds: Any) -> tuple[Any, Any, Any, Any]:
    """The parts in which the seeds are: nodes by part and age, edges by part, time and the ages of their ends.

    Returns the nodes, where each part's begin, the edges, where each part's begin; nodes know their place until
    `leave`.
    """
    members, begin, count, parts = np.empty(1024, np.int32), np.zeros(len(seeds) + 1, np.int64), 0, 0
    for seed in seeds:
        if nodes[seed].place:
            continue
        i = seed
        while True:
            if count == len(members):
                members = _doubled(members)
            members[count] = i
            count += 1
            nodes[i].place = count
            i = nodes[i].next
            if i == seed:
                break
        parts += 1
        begin[parts] = count
    begin, members = begin[: parts + 1], members[:count]
    arcs, arcs_begin, found = np.empty(max(1024, count), np.int32), np.zeros(parts + 1, np.int64), 0
    for p in range(parts):
        _by_age(nodes, members, begin[p], begin[p + 1])
        for j in range(begin[p], begin[p + 1]):
            nodes[members[j]].place = j + 1
        for j in range(begin[p], begin[p + 1]):
            end = nodes[members[j]].edge
            while end:
                k = (end - 1) >> 1
                if (end - 1) & 1:
                    end = edges[k].beside_b
                    continue
                end = edges[k].beside_a
                if found == len(arcs):
                    arcs = _doubled(arcs)
                arcs[found] = k
                found += 1
        arcs_begin[p + 1] = found
        _by_time(nodes, edges, arcs, arcs_begin[p], found)
    return members, begin, arcs[:found], arcs_begin


@njit(cache=True)
def leave(nodes: Any, edges: Any, members: Any, arcs: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """What a walk wants to know of nodes and edges: since, kind, blocked; the places of the ends a and b, times."""
    n, m = len(members), len(arcs)
    since, kind, blocked = np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.bool_)
    a, b, times = np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m, np.int64)
    for j in range(m):
        edge = edges[arcs[j]]
        a[j], b[j], times[j] = nodes[edge.a].place - 1, nodes[edge.b].place - 1, edge.time
    for j in range(n):
        node = nodes[members[j]]
        since[j], kind[j], blocked[j] = node.since, node.kind, node.blocked > 0
        node.place = 0
    return since, kind, blocked, a, b, times


@njit(cache=True)
def keep(
    nodes: Any, edges: Any, members: Any, arcs: Any, seal: Any, owner: Any, why: Any, detail: Any, old: Any
) -> tuple[Any, Any]:
    """Write down what a walk found. Which nodes and which edges are others now; old: gets the nodes' owners before."""
    changed, other = np.empty(len(members), np.bool_), np.empty(len(arcs), np.bool_)
    for j in range(len(members)):
        node = nodes[members[j]]
        old[j], changed[j] = node.owner, node.seal != seal[j]
        if changed[j]:
            node.seal, node.owner = seal[j], owner[j]
    for j in range(len(arcs)):
        edge = edges[arcs[j]]
        other[j] = edge.why != why[j] or edge.detail != detail[j]
        if other[j]:
            edge.why, edge.detail = why[j], detail[j]
    return changed, other


@njit(cache=True)
def _doubled(array: Any) -> Any:
    other = np.empty(2 * len(array), array.dtype)
    other[: len(array)] = array
    return other


@njit(cache=True)
def _by_age(nodes: Any, members: Any, begin: int, end: int) -> None:
    """Sort nodes by when they were first known, those of one instant by their birth ids."""
    if end - begin > 40:
        part = members[begin:end]
        part = part[np.argsort(np.array([nodes[i].low for i in part]), kind="mergesort")]
        part = part[np.argsort(np.array([nodes[i].high for i in part]), kind="mergesort")]
        members[begin:end] = part[np.argsort(np.array([nodes[i].since for i in part]), kind="mergesort")]
        return
    for j in range(begin + 1, end):
        i, at = members[j], j
        while at > begin and _older(nodes[i], nodes[members[at - 1]]):
            members[at] = members[at - 1]
            at -= 1
        members[at] = i


@njit(cache=True)
def _older(x: Any, y: Any) -> bool:
    if x.since != y.since:
        return x.since < y.since
    return x.high < y.high or (x.high == y.high and x.low < y.low)


@njit(cache=True)
def _by_time(nodes: Any, edges: Any, arcs: Any, begin: int, end: int) -> None:
    """Sort links by when they were first known, those of one instant by the ages of their older and younger ends."""
    if end - begin > 40:
        part = arcs[begin:end]
        part = part[np.argsort(np.array([_ages(nodes, edges[k]) for k in part]), kind="mergesort")]
        arcs[begin:end] = part[np.argsort(np.array([edges[k].time for k in part]), kind="mergesort")]
        return
    for j in range(begin + 1, end):
        k, at = arcs[j], j
        while at > begin:
            before = edges[arcs[at - 1]]
            if edges[k].time > before.time:
                break
            if edges[k].time == before.time and _ages(nodes, edges[k]) >= _ages(nodes, before):
                break
            arcs[at] = arcs[at - 1]
            at -= 1
        arcs[at] = k


@njit(cache=True)
def _ages(nodes: Any, edge: Any) -> Any:
    a, b = np.int64(nodes[edge.a].place), np.int64(nodes[edge.b].place)
    return (min(a, b) << 32) | max(a, b)


@njit(cache=True)
def seals(n: int, node: Any, loser: Any, found: Walked) -> Any:
    """What a walk found of each node, in 64 bits: another history has another seal. node, loser: places in the walk."""
    seal = np.full(n, np.uint64(14695981039346656037), np.uint64)
    for j in range(len(node)):
        for x in (np.int64(found.m_owner[j]), found.m_from[j], found.m_to[j]):
            seal[node[j]] = _mix(seal[node[j]] + np.uint64(x))
    for j in range(len(loser)):
        for x in (np.int64(found.a_winner[j]), np.int64(found.a_edge[j]), found.a_from[j], found.a_to[j]):
            seal[loser[j]] = _mix(seal[loser[j]] + np.uint64(x))
    return seal


@njit(cache=True)
def gather(nodes: Any, names: Any, wanted: Any, offsets: Any, text: Any) -> None:
    for j in range(len(wanted)):
        at = nodes[wanted[j]].name
        for x in range(offsets[j + 1] - offsets[j]):
            text[offsets[j] + x] = names[at + x]


@njit(cache=True)
def spell(nodes: Any, wanted: Any, text: Any) -> None:
    for j in range(len(wanted)):
        high, low = nodes[wanted[j]].high, nodes[wanted[j]].low
        text[j, 0] = 112  # p
        for x in range(20):
            shift = np.uint64(60 - 4 * x) if x < 16 else np.uint64(12 - 4 * (x - 16))
            digit = np.int64(((high if x < 16 else low) >> shift) & np.uint64(15))
            text[j, 1 + x] = 48 + digit if digit < 10 else 87 + digit
