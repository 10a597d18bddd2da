"""Which profile did each identifier belong to, and when? A union-find that walks the links as they became known.

**The graph at T is the greedy union of the links known before T, in the order they became known, under the decisions in
force at T and without the identifiers that were known to be shared.** A link is refused if the profile would grow
beyond a limit, if a veto keeps the two sides apart, if somebody said that it is wrong, or if one of its ends is an
identifier that many people share. So a decision changes the graph from when it is made until it is taken back, and a
shared device from when it was seen to be one, and never before.

The result is membership in time: to know the graph at T is a filter, not a recomputation. A profile has the id of its
oldest identifier; when two profiles merge, the older id survives and the younger becomes its alias, until they part.

Links and decisions have an effect only within their part of the graph, which is what links and decisions connect,
refused ones too. So the parts that something new touches are walked anew, and no other. Here is the walk of some parts,
compiled; `unification.store` keeps the graph and knows the parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
VETO, UNLINK = "veto", "unlink"
_UNLINK = 1  # the code of its kind; a veto is 0
FINE, SAID_WRONG, TOO_LARGE, KEPT_APART, TOO_MANY, SHARED = range(6)


class Rules(NamedTuple):
    """largest: most identifiers of a profile. most[kind]: most of a type in one profile; shared[kind]: an identifier of
    the type that is met with more than so many of another type is shared. 0: no limit."""

    largest: int
    most: np.ndarray
    shared: np.ndarray


class Parts(NamedTuple):
    """A graph part by part. members: nodes by part and age; begin: where each part's begin, and behind the last one
    where they end; since: when they were first known. arcs: links by part, time and the ages of their ends; arcs_begin,
    times alike; left, right: the older and the younger end, as places among the members."""

    members: np.ndarray
    begin: np.ndarray
    since: np.ndarray
    arcs: np.ndarray
    arcs_begin: np.ndarray
    left: np.ndarray
    right: np.ndarray
    times: np.ndarray


class Links(NamedTuple):
    """Some parts of the graph. Nodes are sorted by part and age, edges by part, time and the ages of their ends.

    node, edge, decision, turn: where the nodes (…) of each part begin, and behind the last one where they end.
    since, kind: of nodes. left, right (nodes, the older one left), times: of edges. d_*: decisions, with d_kind 1 for
    "unlink", 0 for "veto". t_*: turns of their part, sorted by time: when, and one or two nodes (-1: none) around which
    decisions or shared identifiers change. shared: of nodes, since when they are known to be shared.
    """

    node: np.ndarray
    edge: np.ndarray
    decision: np.ndarray
    turn: np.ndarray
    since: np.ndarray
    kind: np.ndarray
    left: np.ndarray
    right: np.ndarray
    times: np.ndarray
    d_kind: np.ndarray
    d_a: np.ndarray
    d_b: np.ndarray
    d_start: np.ndarray
    d_end: np.ndarray
    t_time: np.ndarray
    t_a: np.ndarray
    t_b: np.ndarray
    shared: np.ndarray


class Walked(NamedTuple):
    """What a walk found. Instants in microseconds, NEVER for an end that has not come.

    m_*: membership: node, owner (the node whose birth id is the profile's), from, to; sorted by node and time.
    a_*: aliases: loser, winner, the edge that merged them, from, to. why, detail: of each edge, in the end.
    """

    m_node: np.ndarray
    m_owner: np.ndarray
    m_from: np.ndarray
    m_to: np.ndarray
    a_loser: np.ndarray
    a_winner: np.ndarray
    a_edge: np.ndarray
    a_from: np.ndarray
    a_to: np.ndarray
    why: np.ndarray
    detail: np.ndarray


def walk(links: Links, rules: Rules) -> Walked:
    """Membership in time of the nodes of these parts, and what became of their links."""
    n, m = len(links.since), len(links.left)
    turning = len(links.t_time) > 0
    room = max(1024, 3 * n)
    while True:
        work = _Work(
            parent=np.arange(n, dtype=np.int32), ring=np.arange(n, dtype=np.int32), size=np.ones(n, np.int32),
            oldest=np.arange(n, dtype=np.int32), owner=np.arange(n, dtype=np.int32),
            counts=_counts(links.kind, rules.most), winner=np.full(n, -1, np.int32), via=np.empty(n, np.int32),
            start=np.empty(n, np.int64), why=np.zeros(m, np.int8), detail=np.zeros(m, np.int32),
            used=np.zeros(2, np.int64), log_node=np.empty(room, np.int32), log_owner=np.empty(room, np.int32),
            log_time=np.empty(room, np.int64), parted=np.empty((room if turning else 0, 5), np.int64),
            head=np.full(n if turning else 0, -1, np.int32), beside=np.empty(2 * m if turning else 0, np.int32),
            mark=np.full(n if turning else 0, -1, np.int32), nodes=np.empty(n if turning else 0, np.int32),
            edges=np.empty(m if turning else 0, np.int32),
        )  # fmt: skip
        if _walk(links, work, rules.largest, rules.most):
            return Walked._make([*_members(links.since, work), *_aliases(work), work.why, work.detail])
        room *= 4


def with_turns(graph: Parts, kind: np.ndarray, shared: np.ndarray, made: np.ndarray) -> Links:
    """The links of some parts with the decisions and the turns that belong to them. made: decisions, one a row: kind,
    the two members (of one part), from, to."""
    turns = [(t, a, b) for _, a, b, *when in made.tolist() for t in when if t != NEVER]
    there = np.flatnonzero((shared != NEVER) & (shared != ALWAYS))
    turns += [(t, i, -1) for i, t in zip(there.tolist(), shared[there].tolist(), strict=True)]
    turn = np.array(turns, np.int64).reshape(-1, 3)

    def part(nodes: np.ndarray) -> np.ndarray:
        return np.searchsorted(graph.begin, nodes, side="right") - 1

    def bounds(nodes: np.ndarray) -> np.ndarray:
        if not len(nodes):
            return np.zeros(len(graph.begin), np.int64)
        many = np.bincount(part(nodes), minlength=len(graph.begin) - 1)
        return np.concatenate([[0], np.cumsum(many)]).astype(np.int64)

    made = made[np.argsort(part(made[:, 1]), kind="stable")]
    turn = turn[np.lexsort((turn[:, 0], part(turn[:, 1])))]
    d_kind, d_a, d_b, d_start, d_end = (made[:, i].copy() for i in range(5))
    t_time, t_a, t_b = (turn[:, i].copy() for i in range(3))
    return Links(
        graph.begin, graph.arcs_begin, bounds(d_a), bounds(t_a), graph.since, kind, graph.left, graph.right,
        graph.times, d_kind, d_a, d_b, d_start, d_end, t_time, t_a, t_b, shared,
    )  # fmt: skip


@njit(cache=True)
def by_part(
    a: np.ndarray, b: np.ndarray, times: np.ndarray, since: np.ndarray, high: np.ndarray, low: np.ndarray,
    more: np.ndarray,
) -> Parts:  # fmt: skip
    """A whole graph part by part, as a walk wants it.

    a, b: nodes that links join; times: when. since, high, low: of nodes, when first known, and their birth ids, which
    say who is older of those of one instant. more: pairs of nodes that are of one part without a link.
    """
    n, m = len(since), len(a)
    part = np.arange(n).astype(np.int32)
    for k in range(m):
        _join(part, a[k], b[k])
    for k in range(len(more)):
        _join(part, more[k, 0], more[k, 1])
    parts = 0
    for i in range(n):  # the root of a part is its least node, so that it has its number already
        if part[i] == i:
            part[i] = -parts - 1
            parts += 1
        else:
            part[i] = part[part[i]]
    begin, arcs_begin = np.zeros(parts + 1, np.int64), np.zeros(parts + 1, np.int64)
    for i in range(n):
        part[i] = -part[i] - 1
        begin[part[i] + 1] += 1
    for k in range(m):
        arcs_begin[part[a[k]] + 1] += 1
    for p in range(parts):
        begin[p + 1] += begin[p]
        arcs_begin[p + 1] += arcs_begin[p]
    members, arcs, place = np.empty(n, np.int32), np.empty(m, np.int32), np.empty(n, np.int32)
    used = begin[:-1].copy()
    for i in range(n):
        members[used[part[i]]] = i
        used[part[i]] += 1
    used[:] = arcs_begin[:-1]
    for k in range(m):
        arcs[used[part[a[k]]]] = k
        used[part[a[k]]] += 1
    first, when = np.empty(n, np.int64), np.empty(m, np.int64)
    for j in range(n):
        first[j] = since[members[j]]
    for p in range(parts):
        _by_age(members, first, begin[p], begin[p + 1], high, low)
    for j in range(n):
        place[members[j]] = j
    left, right = np.empty(m, np.int32), np.empty(m, np.int32)
    for j in range(m):
        when[j] = times[arcs[j]]
    for j in range(m):
        x, y = place[a[arcs[j]]], place[b[arcs[j]]]
        left[j], right[j] = min(x, y), max(x, y)
    for p in range(parts):
        _by_time(arcs, left, right, when, arcs_begin[p], arcs_begin[p + 1])
    return Parts(members, begin, first, arcs, arcs_begin, left, right, when)


@njit(cache=True)
def _join(part: np.ndarray, x: int, y: int) -> None:
    x, y = _root(part, x), _root(part, y)
    if x < y:
        part[y] = x
    else:
        part[x] = y


_FEW = 40  # so many are sorted by insertion: nearly always they are in order already


@njit(cache=True)
def _by_age(members: np.ndarray, since: np.ndarray, begin: int, end: int, high: np.ndarray, low: np.ndarray) -> None:
    if end - begin > _FEW:
        part, first = members[begin:end].copy(), since[begin:end].copy()
        order = np.argsort(low[part], kind="mergesort")
        order = order[np.argsort(high[part[order]], kind="mergesort")]
        order = order[np.argsort(first[order], kind="mergesort")]
        members[begin:end], since[begin:end] = part[order], first[order]
        return
    for j in range(begin + 1, end):
        i, first, at = members[j], since[j], j
        while at > begin and since[at - 1] >= first:
            if since[at - 1] == first:
                k = members[at - 1]
                if high[k] < high[i] or (high[k] == high[i] and low[k] <= low[i]):
                    break
            members[at], since[at] = members[at - 1], since[at - 1]
            at -= 1
        members[at], since[at] = i, first


@njit(cache=True)
def _by_time(arcs: np.ndarray, left: np.ndarray, right: np.ndarray, times: np.ndarray, begin: int, end: int) -> None:
    if end - begin > _FEW:
        part, x, y, when = (
            arcs[begin:end].copy(),
            left[begin:end].copy(),
            right[begin:end].copy(),
            times[begin:end].copy(),
        )
        order = np.argsort((x.astype(np.int64) << 32) | y, kind="mergesort")
        order = order[np.argsort(when[order], kind="mergesort")]
        arcs[begin:end], left[begin:end], right[begin:end] = part[order], x[order], y[order]
        times[begin:end] = when[order]
        return
    for j in range(begin + 1, end):
        k, x, y, when, at = arcs[j], left[j], right[j], times[j], j
        while at > begin and times[at - 1] >= when:
            if times[at - 1] == when and (left[at - 1] < x or (left[at - 1] == x and right[at - 1] <= y)):
                break
            arcs[at], left[at], right[at], times[at] = arcs[at - 1], left[at - 1], right[at - 1], times[at - 1]
            at -= 1
        arcs[at], left[at], right[at], times[at] = k, x, y, when


@njit(cache=True)
def shared_since(
    kind: np.ndarray, left: np.ndarray, right: np.ndarray, times: np.ndarray, limit: np.ndarray, blocked: np.ndarray
) -> np.ndarray:
    """For each node when it was met with more different identifiers of one type than its type may be.

    Edges of a part in the order of time, each pair once. blocked: nodes that count as shared from the beginning.
    """
    n = len(kind)
    shared = np.full(n, NEVER, np.int64)
    degree = np.zeros(n, np.int32)
    for k in range(len(left)):
        degree[left[k]] += 1
        degree[right[k]] += 1
    row = np.full(n, -1, np.int32)
    rows = 0
    for i in range(n):
        if blocked[i]:
            shared[i] = ALWAYS
        elif limit[kind[i]] > 0 and degree[i] > limit[kind[i]]:
            row[i] = rows
            rows += 1
    if rows == 0:
        return shared
    counts = np.zeros((rows, len(limit)), np.int32)
    for k in range(len(left)):
        for i, other in ((left[k], right[k]), (right[k], left[k])):
            if row[i] >= 0 and shared[i] == NEVER:
                counts[row[i], kind[other]] += 1
                if counts[row[i], kind[other]] > limit[kind[i]]:
                    shared[i] = times[k]
    return shared


class _Work(NamedTuple):
    """The state at an instant (parent to start), what was written down (log, parted), and room to work in."""

    parent: np.ndarray
    ring: np.ndarray  # the next node of the same profile
    size: np.ndarray
    oldest: np.ndarray  # of a root: its oldest node
    owner: np.ndarray  # of a node: its profile as written down
    counts: np.ndarray  # of a root: nodes of each type
    winner: np.ndarray  # of a node that was a profile: into which it was merged, by which edge, when
    via: np.ndarray
    start: np.ndarray
    why: np.ndarray
    detail: np.ndarray
    used: np.ndarray
    log_node: np.ndarray
    log_owner: np.ndarray
    log_time: np.ndarray
    parted: np.ndarray  # loser, winner, edge, from, to
    head: np.ndarray  # of a node: the last of its edges' ends, each of which knows the one before
    beside: np.ndarray
    mark: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray


def _counts(kind: np.ndarray, most: np.ndarray) -> np.ndarray:
    if not most.any():
        return np.empty((0, 0), np.int32)
    counts = np.zeros((len(kind), len(most)), np.int32)
    counts[np.arange(len(kind)), kind] = 1
    return counts


@njit(cache=True)
def _walk(links: Links, work: _Work, largest: int, most: np.ndarray) -> bool:
    """False if there was not enough room to write it down."""
    parts, turn, decision, simple = len(links.node) - 1, links.turn, links.decision, work.counts.shape[1] == 0
    first = 0  # of the parts that are plain, and not walked yet
    for p in range(parts + 1):
        if p < parts and simple and turn[p] == turn[p + 1] and decision[p] == decision[p + 1]:
            continue
        _plain(
            links.edge[first], links.edge[p], links.left, links.right, links.times, links.shared, work.parent,
            work.size, work.oldest, work.winner, work.via, work.start, work.why, work.detail, largest,
        )  # fmt: skip
        first = p + 1
        if p < parts and not _turning(links, work, p, largest, most):
            return False
    return True


@njit(cache=True)
def _turning(links: Links, work: _Work, p: int, largest: int, most: np.ndarray) -> bool:
    """Walk a part in which something turns, or of which types are counted."""
    done, end = links.edge[p], links.edge[p + 1]
    t, last = links.turn[p], links.turn[p + 1]
    own = (links.decision[p], links.decision[p + 1])
    if t < last:
        for k in range(done, end):
            for side, i in ((0, links.left[k]), (1, links.right[k])):
                work.beside[2 * k + side] = work.head[i]
                work.head[i] = 2 * k + side
    while t < last:
        turn = links.t_time[t]
        while done < end and links.times[done] < turn:
            if not _unite(links, work, done, links.times[done], own, largest, most, True):
                return False
            done += 1
        first = t
        while t < last and links.t_time[t] == turn:
            t += 1
        if not _again(links, work, first, t, done, own, largest, most):
            return False
    while done < end and _unite(links, work, done, links.times[done], own, largest, most, True):
        done += 1
    return done == end


@njit(cache=True)
def _plain(
    begin: int, end: int, left: np.ndarray, right: np.ndarray, times: np.ndarray, shared: np.ndarray,
    parent: np.ndarray, size: np.ndarray, oldest: np.ndarray, winner: np.ndarray, via: np.ndarray, start: np.ndarray,
    why: np.ndarray, detail: np.ndarray, largest: int,
) -> None:  # fmt: skip
    """`_unite` for all edges of parts in which nothing was decided and no type has a limit: nearly all.

    It says the same once more, without what the general case asks, and writes nothing down: where nobody ever parts,
    who merged into whom and when is the whole history.
    """
    for k in range(begin, end):
        x, y = left[k], right[k]
        if shared[x] <= times[k] or shared[y] <= times[k]:
            why[k], detail[k] = SHARED, 0 if shared[x] <= times[k] else 1
            continue
        a, b = _root(parent, x), _root(parent, y)
        if a == b:
            continue
        if size[a] + size[b] > largest:
            why[k], detail[k] = TOO_LARGE, size[a] + size[b]
            continue
        if oldest[b] < oldest[a]:
            a, b = b, a
        first, loser = oldest[a], oldest[b]
        winner[loser], via[loser], start[loser] = first, k, times[k]
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        oldest[a] = first


@njit(cache=True)
def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _unite(
    links: Links, work: _Work, k: int, at: Any, own: tuple[int, int], largest: int, most: np.ndarray, log: bool
) -> bool:
    """Unite what an edge links, if nothing is against it just after `at`. False: no room to write it down."""
    a, b = _root(work.parent, links.left[k]), _root(work.parent, links.right[k])
    work.why[k] = _objection(links, work, k, a, b, at, own, largest, most)
    if work.why[k] != FINE or a == b:
        return True
    if work.oldest[b] < work.oldest[a]:
        a, b = b, a  # the older profile survives
    winner, loser = work.oldest[a], work.oldest[b]
    work.winner[loser], work.via[loser], work.start[loser] = winner, k, links.times[k]
    if log:
        if work.used[0] + work.size[b] > len(work.log_node):
            return False
        i = b
        for _ in range(work.size[b]):
            _note(work, i, links.times[k], winner)
            i = work.ring[i]
    if work.size[a] < work.size[b]:
        a, b = b, a  # union by size; the surviving id is kept apart from the root
    work.parent[b] = a
    work.size[a] += work.size[b]
    work.oldest[a] = winner
    work.ring[a], work.ring[b] = work.ring[b], work.ring[a]
    for j in range(work.counts.shape[1]):
        work.counts[a, j] += work.counts[b, j]
    return True


@njit(cache=True)
def _note(work: _Work, node: int, time: int, owner: int) -> None:
    at = work.used[0]
    work.log_node[at], work.log_time[at], work.log_owner[at] = node, time, owner
    work.owner[node] = owner
    work.used[0] += 1


@njit(cache=True)
def _objection(
    links: Links, work: _Work, k: int, a: int, b: int, at: int, own: tuple[int, int], largest: int, most: np.ndarray
) -> int:
    """Why an edge between two roots is refused, or FINE."""
    left, right = links.left[k], links.right[k]
    if links.shared[left] <= at or links.shared[right] <= at:
        work.detail[k] = 0 if links.shared[left] <= at else 1
        return SHARED
    for d in range(own[0], own[1]):
        if links.d_kind[d] == _UNLINK and links.d_start[d] <= at and at < links.d_end[d]:
            x, y = links.d_a[d], links.d_b[d]
            if (x == left and y == right) or (x == right and y == left):
                return SAID_WRONG
    if a == b:
        return FINE
    size = work.size[a] + work.size[b]
    if size > largest:
        work.detail[k] = size
        return TOO_LARGE
    for j in range(work.counts.shape[1]):
        if most[j] > 0 and work.counts[a, j] + work.counts[b, j] > most[j]:
            work.detail[k] = j
            return TOO_MANY
    for d in range(own[0], own[1]):
        if links.d_kind[d] != _UNLINK and links.d_start[d] <= at and at < links.d_end[d]:
            x, y = _root(work.parent, links.d_a[d]), _root(work.parent, links.d_b[d])
            if (x == a and y == b) or (x == b and y == a):
                return KEPT_APART
    return FINE


@njit(cache=True)
def _again(
    links: Links, work: _Work, first: int, last: int, done: int, own: tuple[int, int], largest: int, most: np.ndarray
) -> bool:
    """Unite from single nodes what some turns of one instant may change, and write down what has changed by them."""
    turn = links.t_time[first]
    nodes, edges = _around(links, work, first, last, done)
    if work.used[0] + len(nodes) > len(work.log_node) or work.used[1] + len(nodes) > len(work.parted):
        return False
    old_winner, old_via, old_start = work.winner[nodes], work.via[nodes], work.start[nodes]
    for i in nodes:
        work.parent[i], work.ring[i], work.size[i], work.oldest[i], work.winner[i] = i, i, 1, i, -1
        if work.counts.shape[1]:
            work.counts[i, :] = 0
            work.counts[i, links.kind[i]] = 1
    for k in edges:
        _unite(links, work, k, turn, own, largest, most, False)
    for i in nodes:
        owner = work.oldest[_root(work.parent, i)]
        if owner != work.owner[i]:
            _note(work, i, turn, owner)
    for j in range(len(nodes)):
        i, old = nodes[j], old_winner[j]
        if old >= 0 and old == work.winner[i]:  # as it was
            work.via[i], work.start[i] = old_via[j], old_start[j]
            continue
        if old >= 0 and old_start[j] < turn:
            work.parted[work.used[1], 0], work.parted[work.used[1], 1] = i, old
            work.parted[work.used[1], 2], work.parted[work.used[1], 3] = old_via[j], old_start[j]
            work.parted[work.used[1], 4] = turn
            work.used[1] += 1
        if work.winner[i] >= 0:
            work.start[i] = turn
    return True


@njit(cache=True)
def _around(links: Links, work: _Work, first: int, last: int, done: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that links known so far (edges before `done`) connect with the nodes of some turns, and these links.

    Not by way of an identifier that was known to be shared before: nothing passes there.
    """
    turn, n, m = links.t_time[first], 0, 0
    for t in range(first, last):
        for i in (links.t_a[t], links.t_b[t]):
            if i >= 0 and work.mark[i] != first:
                work.mark[i] = first
                work.nodes[n] = i
                n += 1
    at = 0
    while at < n:
        i = work.nodes[at]
        at += 1
        end = work.head[i]
        while end >= 0:
            k = end >> 1
            if k < done and links.shared[links.left[k]] >= turn and links.shared[links.right[k]] >= turn:
                other = links.right[k] if links.left[k] == i else links.left[k]
                if work.mark[other] != first:
                    work.mark[other] = first
                    work.nodes[n] = other
                    n += 1
                if links.left[k] == i:
                    work.edges[m] = k
                    m += 1
            end = work.beside[end]
    edges = work.edges[:m].copy()
    edges.sort()
    return work.nodes[:n].copy(), edges


@njit(cache=True)
def _members(since: np.ndarray, work: _Work) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The history of each node as intervals. Of several changes in one instant the last one counts, if it is one.

    A node that is in the log has its history there. Any other belonged to itself, then to the profile into which it was
    merged, then to that into which that one was, and so on.
    """
    n, logged, winner, starts = len(since), work.used[0], work.winner, work.start
    begin = np.zeros(n + 1, np.int64)
    for j in range(logged):
        begin[work.log_node[j] + 1] += 1
    for i in range(n):
        if begin[i + 1] == 0:
            at = i
            while winner[at] >= 0:
                begin[i + 1] += 1
                at = winner[at]
        begin[i + 1] += begin[i] + 1  # one more each: the node by itself
    node, owner = np.empty(begin[n], np.int32), np.empty(begin[n], np.int32)
    start, end = np.empty(begin[n], np.int64), np.empty(begin[n], np.int64)
    place = begin[:-1].copy() if logged else begin
    for j in range(logged):
        i = work.log_node[j]
        place[i] += 1
        owner[place[i]], start[place[i]] = work.log_owner[j], work.log_time[j]
    kept = 0
    for i in range(n):
        mine, first, last = kept, begin[i], begin[i + 1]
        owner[first], start[first] = i, since[i]
        if not logged or place[i] == first:
            at = i
            for j in range(first + 1, last):
                owner[j], start[j] = winner[at], starts[at]
                at = winner[at]
        for j in range(first, last):
            if j + 1 < last and start[j + 1] == start[j]:
                continue
            if kept > mine and owner[kept - 1] == owner[j]:
                continue
            if kept > mine:
                end[kept - 1] = start[j]
            node[kept], owner[kept], start[kept], end[kept] = i, owner[j], start[j], NEVER
            kept += 1
    return node[:kept], owner[:kept], start[:kept], end[:kept]


def _aliases(work: _Work) -> tuple[np.ndarray, ...]:
    now = np.flatnonzero(work.winner >= 0)
    parted = work.parted[: work.used[1]]
    return (
        np.concatenate([parted[:, 0], now]), np.concatenate([parted[:, 1], work.winner[now]]),
        np.concatenate([parted[:, 2], work.via[now]]), np.concatenate([parted[:, 3], work.start[now]]),
        np.concatenate([parted[:, 4], np.full(len(now), NEVER)]),
    )  # fmt: skip
