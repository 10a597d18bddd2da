"""Who is one person, if these pairs probably are? Clustering that lets no weak link join what contradicts itself.

Pairs are taken strongest first, and two groups become one if, beside one pair that is more likely a match than not,
all their pairs taken together do not speak against it: the mean of the weights, in which a pair that was found
unlike or was never compared counts as unlike. So one wrong pair chains no two large groups, as it does with
connected components. And groups that contradict each other in a fact that is seldom wrong (two national ids, two
birth dates, beyond what slips of typing explain) are joined by a sure pair only; a link refused for that is kept as
such.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# In bits: the weight of a pair that was not found, the most that one pair counts, and the least mean of a join.
UNLIKE, MOST, MEAN = -6.0, 10.0, -3.5
# Bits from which a pair joins what contradicts itself: the pair's own weight knows of its own contradiction, and one in
# ten such is wrong; not of those of others in the two groups, and one in a thousand is.
SURE, SURE_OF_OTHERS = 3.2, 10.0


@dataclass(frozen=True)
class Fact:
    """What one record says once, such as a birth date. values: of each record, None where nothing is said. differ:
    do two values contradict each other?"""

    name: str
    values: Sequence[str | None]
    differ: Callable[[str, str], bool]


@dataclass(frozen=True)
class Clustered:
    """label: of each record, the number of the first record of its group. refused: places of the pairs that were
    kept out for a contradiction, with the name of the fact."""

    label: np.ndarray
    refused: list[tuple[int, str]] = field(default_factory=list)


def cluster(
    records: int, left: np.ndarray, right: np.ndarray, weight: np.ndarray, *, at: float = 0.0,
    facts: Sequence[Fact] = (), mean: float = MEAN,
) -> Clustered:  # fmt: skip
    """Group records 0..records-1 by their pairs (left, right, weight in bits; left < right).

    at: the weight from which a pair joins. mean: the least mean weight of two groups; -inf: connected components, but
    for contradictions.
    """
    left, right, weight = (np.asarray(x) for x in (left, right, weight))
    strong = weight >= at
    ends = (left[strong], right[strong])
    _, part = connected_components(coo_matrix((np.ones(len(ends[0]), np.int8), ends), (records, records)), False)
    label = np.arange(records)
    inside = part[left] == part[right]  # other pairs join nothing, and speak about no join
    refused: list[tuple[int, str]] = []
    settled = _settled(part, left[inside], weight[inside], mean, facts)
    first = np.full(len(settled), records)
    np.minimum.at(first, part, label)
    label = np.where(settled[part], first[part], label)
    hard = np.flatnonzero(inside & ~settled[part[left]])
    order = hard[np.argsort(part[left[hard]], kind="stable")]
    cuts = np.flatnonzero(np.diff(part[left[order]])) + 1
    for group in np.split(order, cuts) if len(order) else []:
        refused += _agglomerate(group, left, right, weight, label, at, mean, facts)
    return Clustered(_first_of(label), refused)


def _first_of(label: np.ndarray) -> np.ndarray:
    """The same groups, each by the number of its first record."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return first[inverse]


def _agglomerate(
    pairs: np.ndarray, left: np.ndarray, right: np.ndarray, weight: np.ndarray, label: np.ndarray, at: float,
    mean: float, facts: Sequence[Fact],
) -> list[tuple[int, str]]:  # fmt: skip
    """Join the records of one part; writes `label`. Returns the pairs refused for a contradiction."""
    groups: dict[int, list[int]] = {}
    for record in sorted({*left[pairs].tolist(), *right[pairs].tolist()}):
        groups.setdefault(int(label[record]), []).append(record)
    near: dict[int, dict[int, tuple[float, int, float, int]]] = {g: {} for g in groups}  # sum, pairs, best, its place

    def add(a: int, b: int, more: tuple[float, int, float, int]) -> None:
        old = near[a].get(b)
        if old:
            best = max(old[2:], more[2:], key=lambda found: (found[0], -found[1]))
            more = (old[0] + more[0], old[1] + more[1], *best)
        near[a][b] = near[b][a] = more

    for k in pairs.tolist():
        a, b = int(label[left[k]]), int(label[right[k]])
        if a != b:
            w = float(weight[k])
            add(a, b, (min(max(w, UNLIKE), MOST), 1, w, k))
    heap: list[tuple[float, float, int, int, int, int]] = []

    def offer(a: int, b: int) -> None:
        a, b = min(a, b), max(a, b)
        total, count, best, _ = near[a][b]
        every = len(groups[a]) * len(groups[b])
        found = (total + UNLIKE * (every - count)) / every
        if best >= at and found >= mean:
            heapq.heappush(heap, (-found, -best, a, b, len(groups[a]), len(groups[b])))

    for a in near:
        for b in near[a]:
            if a < b:
                offer(a, b)
    refused = []
    while heap:
        _, _, a, b, na, nb = heapq.heappop(heap)
        if a not in groups or b not in groups or (len(groups[a]), len(groups[b])) != (na, nb) or b not in near[a]:
            continue
        _, _, best, place = near[a][b]
        if (best < SURE and (name := _contradiction(facts, [left[place]], [right[place]]))) or (
            best < SURE_OF_OTHERS
            and not _contradiction(facts, [left[place]], [right[place]])
            and (name := _contradiction(facts, groups[a], groups[b]))
        ):
            refused.append((place, name))
            continue
        groups[a] += groups.pop(b)
        for c, found in near.pop(b).items():
            del near[c][b]
            if c != a:
                add(a, c, found)
        for c in near[a]:
            offer(a, c)
    for members in groups.values():
        label[members] = min(members)
    return refused


def _settled(part: np.ndarray, left: np.ndarray, weight: np.ndarray, least: float, facts: Sequence[Fact]) -> np.ndarray:
    """Which parts are one group whatever is joined first: all their pairs are there, none below `least`, and nobody
    says two things. left, weight: of the pairs inside."""
    of, size = part[left], np.bincount(part, minlength=1)
    lowest = np.full(len(size), np.inf)
    np.minimum.at(lowest, of, weight)
    found = (np.bincount(of, minlength=len(size)) == size * (size - 1) // 2) & (lowest >= least)
    for fact in facts:
        code, _ = pd.factorize(np.asarray(fact.values, object))
        low, high = np.full(len(size), len(code)), np.full(len(size), -1)
        said = code >= 0
        np.minimum.at(low, part[said], code[said])
        np.maximum.at(high, part[said], code[said])
        found &= low >= high
    return found


def _contradiction(facts: Sequence[Fact], one: Sequence[int], other: Sequence[int]) -> str:
    """The name of a fact in which two groups contradict each other, or ""."""
    for fact in facts:
        mine = {v for i in one if (v := fact.values[i])}
        theirs = {v for i in other if (v := fact.values[i])}
        if any(fact.differ(a, b) for a in mine for b in theirs):
            return fact.name
    return ""


def slips(a: str, b: str, most: int = 2) -> bool:
    """Do more than `most` slips of typing (a sign too many, too few, another, two turned) lie between two texts?

    >>> slips("19850312", "19850321"), slips("19850312", "19620704")
    (False, True)
    """
    if a == b:
        return False
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        now = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[j] + 1, now[j - 1] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            now.append(cost)
        before, row = row, now
    return row[-1] > most


def other_day(a: str, b: str) -> bool:
    """Are two birth dates (YYYYMMDD) different beyond slips of typing, and day and month not merely turned?"""
    return slips(a, b) and not (len(a) == len(b) == 8 and a[:4] == b[:4] and a[4:6] == b[6:] and a[6:] == b[4:6])
