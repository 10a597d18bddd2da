"""How are the arrays of the identity graph read and written? Compiled loops over nodes, links and hash tables.

A node is a row of NODE, a link one of EDGE. Tables of open addresses find a node by its name and a link by its ends. A
ring runs through the nodes of each part of the graph, and a chain through the links of each node.
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


# A slot of a hash table: 0, or 1 + the number of the entry in the low half, and half of its hash in the other, so that
# entries that cannot be meant are passed over without being fetched.
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Entries lie all over the memory, which takes its time. So they are asked for in blocks: first where each lies, then
# all of them at once, and when the first is needed the others are there too.
_BLOCK = 256


@njit(cache=True)
def _hash(text: Any, begin: int, end: int) -> Any:
    """Of some bytes, 64 bits (FNV-1a, mixed)."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        h = (h ^ np.uint64(text[i])) * np.uint64(0x100000001B3)
    return _mix(h)


@njit(cache=True)
def _hash_pair(a: int, b: int) -> Any:
    return _mix((np.uint64(a) << _HALF) | np.uint64(b))


@njit(cache=True)
def _says(nodes: Any, names: Any, node: Any, text: Any, begin: int, end: int) -> bool:
    """Whether this is a node's name."""
    if nodes[node].length != end - begin:
        return False
    at = nodes[node].name - begin
    i = begin
    while i < end and names[at + i] == text[i]:
        i += 1
    return i == end


@njit(cache=True)
def _named(nodes: Any, names: Any, slots: Any, h: Any, text: Any, begin: int, end: int) -> Any:
    """Where a name stands in the table, or where it would."""
    mask, tag = np.uint64(len(slots) - 1), h >> _HALF
    at = h & mask
    while slots[at]:
        if slots[at] >> _HALF == tag and _says(nodes, names, np.int64(slots[at] & _LOW) - 1, text, begin, end):
            break
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True)
def _linked(edges: Any, slots: Any, h: Any, a: int, b: int) -> Any:
    """Where the link between two nodes stands in the table, or where it would; a < b."""
    mask, tag = np.uint64(len(slots) - 1), h >> _HALF
    at = h & mask
    while slots[at]:
        if slots[at] >> _HALF == tag:
            edge = edges[np.int64(slots[at] & _LOW) - 1]
            if edge.a == a and edge.b == b:
                break
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True)
def hash_names(nodes: Any, names: Any, n: int, slots: Any) -> None:
    mask, hashes, got = np.uint64(len(slots) - 1), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64)
    for first in range(0, n, _BLOCK):
        last = min(first + _BLOCK, n)
        for i in range(first, last):
            hashes[i - first] = _hash(names, nodes[i].name, nodes[i].name + nodes[i].length)
        for j in range(last - first):
            got[j] = slots[hashes[j] & mask]
        for i in range(first, last):
            at = hashes[i - first] & mask
            while slots[at]:
                at = (at + np.uint64(1)) & mask
            slots[at] = (hashes[i - first] >> _HALF << _HALF) | np.uint64(i + 1)


@njit(cache=True)
def hash_ends(edges: Any, m: int, slots: Any) -> None:
    mask = np.uint64(len(slots) - 1)
    for k in range(m):
        h = _hash_pair(edges[k].a, edges[k].b)
        at = h & mask
        while slots[at]:
            at = (at + np.uint64(1)) & mask
        slots[at] = (h >> _HALF << _HALF) | np.uint64(k + 1)


@njit(cache=True)
def find(nodes: Any, names: Any, slots: Any, offsets: Any, text: Any) -> Any:
    """The numbers of names, -1 where there is no such node."""
    found = np.empty(len(offsets) - 1, np.int32)
    for i in range(len(found)):
        begin, end = offsets[i], offsets[i + 1]
        h = _hash(text, begin, end)
        found[i] = np.int64(slots[_named(nodes, names, slots, h, text, begin, end)] & _LOW) - 1
    return found


@njit(cache=True)
def intern(
    nodes: Any, slots: Any, names: Any, n: int, size: int, offsets: Any, text: Any, there: Any, since: Any,
    number: Any, touched: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Find or add identifiers. Returns how many nodes and bytes of names there are now, and how many were touched.

    number: gets each one's, -1 for those that are not there. The kind and the birth id of new nodes are left open.
    """
    mask, seeds = np.uint64(len(slots) - 1), 0
    hashes, got, far = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    for first in range(0, len(number), _BLOCK):
        last = min(first + _BLOCK, len(number))
        for i in range(first, last):
            hashes[i - first] = _hash(text, offsets[i], offsets[i + 1])
        for j in range(last - first):
            got[j] = slots[hashes[j] & mask]
        for j in range(last - first):
            far[j] = nodes[np.int64(got[j] & _LOW) - 1].name if got[j] else 0
        for j in range(last - first):
            far[j] = names[far[j]]
        for i in range(first, last):
            if not there[i]:
                number[i] = -1
                continue
            h, begin, end = hashes[i - first], offsets[i], offsets[i + 1]
            at = _named(nodes, names, slots, h, text, begin, end)
            here = np.int64(slots[at] & _LOW) - 1
            if here < 0:
                here = n
                slots[at] = (h >> _HALF << _HALF) | np.uint64(n + 1)
                node = nodes[n]
                node.since, node.part, node.next, node.owner, node.seal, node.edge = since[i], n, n, -1, 0, 0
                node.name, node.length = size, end - begin
                for x in range(begin, end):
                    names[size + x - begin] = text[x]
                size += end - begin
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
    nodes: Any, edges: Any, slots: Any, m: int, left: Any, right: Any, times: Any, chain: bool, edge_of: Any,
    touched: Any,
) -> tuple[int, int]:  # fmt: skip
    """Find or add links. Returns how many there are now, and how many nodes were touched.

    chain: join the parts and chain the links of each node; else `settle` does it for all of them. edge_of: gets each
    one's number, -1 for a link of a node with itself, or with none.
    """
    mask, seeds = np.uint64(len(slots) - 1), 0
    hashes, got, far = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64), np.empty((_BLOCK, 3), np.int64)
    for first in range(0, len(left), _BLOCK):
        last = min(first + _BLOCK, len(left))
        for i in range(first, last):
            a, b = min(left[i], right[i]), max(left[i], right[i])
            hashes[i - first] = _hash_pair(a, b)
        for j in range(last - first):
            got[j] = slots[hashes[j] & mask]
        for i in range(first, last):
            far[i - first, 0] = edges[np.int64(got[i - first] & _LOW) - 1].a if got[i - first] else 0
            far[i - first, 1], far[i - first, 2] = nodes[left[i]].part, nodes[right[i]].part
        for i in range(first, last):
            a, b, time = min(left[i], right[i]), max(left[i], right[i]), times[i]
            if a == b or a < 0:
                edge_of[i] = -1
                continue
            h = hashes[i - first]
            at = _linked(edges, slots, h, a, b)
            k = np.int64(slots[at] & _LOW) - 1
            edge_of[i] = k
            if k < 0:
                k = edge_of[i] = m
                slots[at] = (h >> _HALF << _HALF) | np.uint64(m + 1)
                edge = edges[m]
                edge.a, edge.b, edge.time, edge.why, edge.detail = a, b, time, 0, 0
                if chain:
                    edge.beside_a, edge.beside_b = nodes[a].edge, nodes[b].edge
                    nodes[a].edge, nodes[b].edge = 2 * m + 1, 2 * m + 2
                    join(nodes, a, b)
                m += 1
            elif time < edges[k].time:
                edges[k].time, edges[k].why = time, -1  # whatever the walk finds is news
            else:
                continue
            nodes[a].since, nodes[b].since = min(nodes[a].since, time), min(nodes[b].since, time)
            touched[seeds] = a
            seeds += 1
    return m, seeds


@njit(cache=True)
def settle(nodes: Any, edges: Any, members: Any, begin: Any, arcs: Any, arcs_begin: Any) -> None:
    """Join the parts of all nodes, and chain the links of each node; nothing was before."""
    for p in range(len(begin) - 1):
        for j in range(begin[p], begin[p + 1]):
            nodes[members[j]].part = members[begin[p]]
            nodes[members[j]].next = members[j + 1] if j + 1 < begin[p + 1] else members[begin[p]]
        for j in range(arcs_begin[p], arcs_begin[p + 1]):
            k = arcs[j]
            a, b = edges[k].a, edges[k].b
            edges[k].beside_a, edges[k].beside_b = nodes[a].edge, nodes[b].edge
            nodes[a].edge, nodes[b].edge = 2 * k + 1, 2 * k + 2


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
def reach(nodes: Any, edges: Any, seeds: Any) -> tuple[Any, Any]:
    """The nodes of the parts in which the seeds are, and their links; nodes know their place until `leave`."""
    members, arcs, count, found = np.empty(1024, np.int32), np.empty(1024, np.int32), 0, 0
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
            end = nodes[i].edge
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
            i = nodes[i].next
            if i == seed:
                break
    return members[:count], arcs[:found]


@njit(cache=True)
def leave(nodes: Any, edges: Any, members: Any, arcs: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """What `by_part` wants to know: the places of the links' ends a and b, their times; of nodes since, high, low."""
    n, m = len(members), len(arcs)
    since, high, low = np.empty(n, np.int64), np.empty(n, np.uint64), np.empty(n, np.uint16)
    a, b, times = np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m, np.int64)
    for j in range(m):
        edge = edges[arcs[j]]
        a[j], b[j], times[j] = edge.a, edge.b, edge.time
    for j in range(m):
        a[j], b[j] = nodes[a[j]].place - 1, nodes[b[j]].place - 1
    for j in range(n):
        node = nodes[members[j]]
        since[j], high[j], low[j] = node.since, node.high, node.low
        node.place = 0
    return a, b, times, since, high, low


@njit(cache=True)
def kinds(nodes: Any, members: Any) -> tuple[Any, Any]:
    """Of nodes the type, and whether they link nothing."""
    kind, blocked = np.empty(len(members), np.int32), np.empty(len(members), np.bool_)
    for j in range(len(members)):
        kind[j], blocked[j] = nodes[members[j]].kind, nodes[members[j]].blocked > 0
    return kind, blocked


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
def lengths(nodes: Any, wanted: Any) -> Any:
    """Where each of the names begins in a text of them all, and behind the last one where it ends."""
    offsets = np.zeros(len(wanted) + 1, np.int64)
    for j in range(len(wanted)):
        offsets[j + 1] = nodes[wanted[j]].length
    for j in range(len(wanted)):
        offsets[j + 1] += offsets[j]
    return offsets


@njit(cache=True)
def gather(nodes: Any, names: Any, wanted: Any, offsets: Any, text: Any) -> None:
    places, got = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint8)
    for first in range(0, len(wanted), _BLOCK):
        last = min(first + _BLOCK, len(wanted))
        for j in range(first, last):
            places[j - first] = nodes[wanted[j]].name
        for j in range(last - first):
            got[j] = names[places[j]]
        for j in range(first, last):
            at, to = places[j - first], offsets[j]
            for x in range(offsets[j + 1] - to):
                text[to + x] = names[at + x]


@njit(cache=True)
def spell(nodes: Any, wanted: Any, text: Any) -> None:
    high, low = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64)
    for first in range(0, len(wanted), _BLOCK):
        last = min(first + _BLOCK, len(wanted))
        for j in range(first, last):
            high[j - first], low[j - first] = nodes[wanted[j]].high, nodes[wanted[j]].low
        for j in range(first, last):
            text[j, 0] = 112  # p
            for x in range(16):
                digit = np.uint8((high[j - first] >> np.uint64(60 - 4 * x)) & np.uint64(15))
                text[j, 1 + x] = digit + np.uint8(48) if digit < 10 else digit + np.uint8(87)
            for x in range(4):
                digit = np.uint8((low[j - first] >> np.uint64(12 - 4 * x)) & np.uint64(15))
                text[j, 17 + x] = digit + np.uint8(48) if digit < 10 else digit + np.uint8(87)


@njit(cache=True)
def by_name(nodes: Any, names: Any, a: Any, b: Any) -> None:
    """Swap the ends of links so that the name of the first is the lesser."""
    for j in range(len(a)):
        x, y = nodes[a[j]], nodes[b[j]]
        least = min(x.length, y.length)
        i = 0
        while i < least and names[x.name + i] == names[y.name + i]:
            i += 1
        other = names[x.name + i] > names[y.name + i] if i < least else x.length > y.length
        if other:
            a[j], b[j] = b[j], a[j]


@njit(cache=True)
def kinds_of(nodes: Any, names: Any, first: int, n: int, offsets: Any, text: Any) -> Any:
    """The kind of the nodes from `first`: which of the texts "kind:" their names begin with, -1 for another one."""
    found = np.full(n - first, -1, np.int16)
    for i in range(first, n):
        at = nodes[i].name
        for kind in range(len(offsets) - 1):
            length = offsets[kind + 1] - offsets[kind]
            if length > nodes[i].length:
                continue
            x = 0
            while x < length and names[at + x] == text[offsets[kind] + x]:
                x += 1
            if x == length:
                found[i - first] = kind
                break
    return found


@njit(cache=True)
def digits_of(offsets: Any, text: Any, high: Any, low: Any) -> None:
    """Texts that begin with twenty hex digits, as two numbers each."""
    for i in range(len(high)):
        h, rest = np.uint64(0), np.uint64(0)
        for x in range(20):
            code = text[offsets[i] + x]
            digit = np.uint64(code - 48 if code < 58 else code - 87)
            if x < 16:
                h = (h << np.uint64(4)) | digit
            else:
                rest = (rest << np.uint64(4)) | digit
        high[i], low[i] = h, rest
