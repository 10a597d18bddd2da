"""What do agreement and disagreement tell? Expectation maximisation over the patterns of compared pairs.

Splink compares; what is counted here is how often each pattern of levels occurs, among pairs that blocking brings up
and among pairs drawn at random. From the latter follows what chance does (u). The former are a mixture of those who are
one person (m), of strangers, and, where there are addresses, of people who live together: these share surname and
street, and their agreement in both must not pass for one person's. All pairs that were not brought up count as
strangers.

The same counts give the same numbers: nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unification.matching.comparisons import Compared, Learnt

_WEIGHT = 8.0  # of what is usual, in pairs that match
_ROUNDS, _STILL = 200, 1e-6
_TEACHES = 0.5  # probability from which a pair tells how those who are one person compare
_LEAST = 1e-9
# Comparison -> its surest levels among people who live together; the rest is shared out as among strangers. What
# identifies a person is not learnt for them: those who are one person, with errors, would teach it.
_TOGETHER = {"first": 0.004, "birth": 0.01, "nid": 0.01, "email": 0.1}
# Comparison -> how many of those who are one person differ in it at most. Where a table has few that are, what would be
# learnt for them is how households agree, or anything else that is no accident.
_FIRM = ("first", "last", "birth", "nid")
_EQUAL = 0.35  # of those who are one person are equal in what identifies, at least; for the same reason
_DIFFER = {"first": 0.25, "last": 0.3, "birth": 0.3, "nid": 0.15, "middle": 0.35, "sex": 0.1}
_SAME_NAME = 0.7  # of people who live together, to begin with


@dataclass(frozen=True)
class Counted:
    """Patterns of levels and how many pairs have each. levels: (patterns, comparisons), the places of the levels from
    the surest, -1 where nothing is said. pairs: (patterns,)."""

    levels: np.ndarray
    pairs: np.ndarray


def learn(
    comparisons: Sequence[Compared], blocked: Counted, random: Counted, records: int, exact: dict[str, float]
) -> Learnt:
    """The probabilities of every level. exact: comparison -> how often two records have an equal value."""
    total = records * (records - 1) / 2
    usual = [_normal(np.array([level.usual for level in one.levels])) for one in comparisons]
    chance = [_chance(one, k, random, exact) for k, one in enumerate(comparisons)]
    m, u = [a.copy() for a in usual], [a.copy() for a in chance]
    address = next((k for k, one in enumerate(comparisons) if one.name == "address"), None)
    h = [_together(one, u[k]) for k, one in enumerate(comparisons)] if address is not None else []
    prior = max(1e-9, min(0.2, _first_guess(comparisons, blocked) / total))
    household = prior if h else 0.0
    before = 0.0
    for _ in range(_ROUNDS):
        one, strange, living = (_likely(blocked, found) for found in (m, u, h or u))
        weighed = np.stack([prior * one, max(1e-12, 1 - prior - household) * strange, household * living])
        share = weighed / np.maximum(weighed.sum(axis=0), 1e-300)
        # many a pair that is hardly one would teach, together, what chance and custom do: the surer ones teach alone
        matches, together = np.where(share[0] > _TEACHES, share[0], 0.0) * blocked.pairs, share[2] * blocked.pairs
        prior = min(0.5, max(1e-10, (matches.sum() + 0.5) / total))
        m = [
            _within(_normal(_count(blocked, k, matches, len(usual[k])) + _WEIGHT * usual[k]), c)
            for k, c in enumerate(comparisons)
        ]
        u = [_without(chance[k], prior * m[k] + (household * h[k] if h else 0.0)) for k in range(len(u))]
        if h:
            household = max(
                0.5 * prior, together.sum() / total
            )  # in a few records a twin may be the first of a household
            h = [
                _together(one_, u[k]) if one_.identifies and one_.name != "last"
                else _normal(_count(blocked, k, together, len(usual[k])) + 20 * _together(one_, u[k]))
                for k, one_ in enumerate(comparisons)
            ]  # fmt: skip
        if abs(np.log(prior) - before) < _STILL:
            break
        before = np.log(prior)
    names = [one.name for one in comparisons]
    lists = [{n: [float(x) for x in a] for n, a in zip(names, found, strict=True)} for found in (m, u, h or u)]
    return Learnt(float(prior), lists[0], lists[1], float(household), lists[2] if h else {})


def _normal(a: np.ndarray) -> np.ndarray:
    a = np.maximum(a, _LEAST)
    return a / a.sum()


def _within(a: np.ndarray, one: Compared) -> np.ndarray:
    """With the first level no less and the last no more than can be of those who are one person, the others in
    proportion."""
    differ = _DIFFER.get(one.name, 1.0)
    if a[-1] > differ:
        a = np.append(a[:-1] * (1 - differ) / a[:-1].sum(), differ)
    if one.name in _FIRM and a[0] < _EQUAL:
        a = np.append(_EQUAL, a[1:] * (1 - _EQUAL) / a[1:].sum())
    return a


def _count(counted: Counted, k: int, pairs: np.ndarray, size: int) -> np.ndarray:
    """How many of these pairs are at each of the `size` levels of comparison k."""
    said = counted.levels[:, k] >= 0
    return np.bincount(counted.levels[said, k], pairs[said], minlength=size)


def _likely(counted: Counted, found: Sequence[np.ndarray]) -> np.ndarray:
    """How likely each pattern is by these probabilities of levels."""
    logs = np.zeros(len(counted.pairs))
    for k, a in enumerate(found):
        logs += np.append(np.log(a), 0.0)[counted.levels[:, k]]  # -1 is the last
    return np.exp(logs)


def _chance(one: Compared, k: int, random: Counted, exact: dict[str, float]) -> np.ndarray:
    """How often two records at random are at each level, matches and all."""
    seen = _count(random, k, random.pairs, len(one.levels))
    share = (seen + 0.5) / (seen.sum() + 0.5 * len(seen))
    for place, level in enumerate(one.levels):
        if level.exact and place == 0 and level.exact in exact:  # all pairs, not a sample of them
            rest = share.sum() - share[0]
            share = np.concatenate([[exact[level.exact]], share[1:] * (1 - exact[level.exact]) / rest])
    return _normal(share)


def _without(chance: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Chance without the pairs that are no strangers: in a small table they are most of those who agree."""
    return _normal(np.maximum(chance - others, np.maximum(0.02 * chance, 1e-8)))


def _first_guess(comparisons: Sequence[Compared], blocked: Counted) -> float:
    """Pairs that agree in all that identifies and is said, in three things at least or in all there are."""
    who = [k for k, one in enumerate(comparisons) if one.identifies]
    levels = blocked.levels[:, who]
    sure = ((levels == 0) | (levels == -1)).all(axis=1) & ((levels == 0).sum(axis=1) >= min(3, len(who)))
    return float(blocked.pairs[sure].sum()) * 1.5 + 1.0


def _together(one: Compared, u: np.ndarray) -> np.ndarray:
    """How people who live together compare, before anything is learnt."""
    if one.name == "address":
        return _normal(np.concatenate([[0.95], np.full(len(u) - 1, 0.05 / (len(u) - 1))]))
    if one.name == "area":
        return _normal(np.concatenate([[0.95], np.full(len(u) - 1, 0.05 / (len(u) - 1))]))
    if one.name == "last":
        return _normal(np.concatenate([[_SAME_NAME], (1 - _SAME_NAME) * u[1:]]))
    if one.name == "phone":
        return _normal(np.concatenate([[0.5], 0.5 * u[1:]]))
    least = _TOGETHER.get(one.name, 0.0)
    made = u.copy()
    made[0] = max(made[0], least)
    return _normal(made)
