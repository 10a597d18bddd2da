"""Which columns say more of the label than can have been known? Checks that learn from the labels.

Nobody can tell a leak from an honest column by how well it predicts: recency predicts churn, too. What gives it away is
that it says so much that *nothing else* says. Other columns tell of the same past, hence an honest one, however strong,
adds little to them; where the others know little, an honest one may add more, and the limit is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.stats import chi2, poisson

from training.leak_evidence import Evidence, information, pairs_right
from training.metrics import Floats

ADDS = 0.75  # information a column may add to others that know something (as an AUC of 0.73 alone)
KNOWING = 1.0  # information of others that know something (as an AUC of 0.76)
CEILING = 2.7  # what a column may add beside ADDS where the others know nothing (in all as an AUC of 0.91)
LEAST = 0.05  # skill it adds at least, whatever the information
SHARE = 0.02  # of the trees' gain, below which leaving a column out cannot matter so much
SUSPECTS = 6  # columns that are left out one by one, of the strongest; others as they give cause

FEWER = 0.12  # of the expected outcomes a pure bin holds at most, at the upper limit of what chance would do
IGNORANT = 0.04  # the same where the others know nothing
LEVEL = 1e-4  # of chance, over all bins of all columns

STRONG = 0.3  # skill at older cutoffs of a column whose effect can collapse
COLLAPSED = 0.25  # of which so much is left at most
BEYOND = 0.15  # information it adds at the older cutoffs at least, as does one that is gone by now


@dataclass(frozen=True)
class Found:
    """A column, the check it did not pass, and why in words."""

    column: str
    check: str
    reason: str


@dataclass
class Checks:
    """The checks of one set. Columns found are left out of what others are judged by: two leaks must not hide behind
    each other, nor make an honest column look as if it knew nothing."""

    evidence: Evidence
    progress: Callable[[str], None] = lambda _: None

    def run(self) -> list[Found]:
        """Every column that says too much, the worst first."""
        found: list[Found] = []
        columns = [c for c in self.evidence.columns if _varies(self.evidence, c)]
        if not self.evidence.enough or not columns:
            return found
        while columns:
            worst = (
                self.predicts_too_well(columns) or self.pure_bins(columns) or self.collapses(columns)
                or self.hide_each_other(columns)
            )  # fmt: skip
            if not worst:
                return found
            found += worst
            columns = [c for c in columns if c not in {f.column for f in worst}]
        return found

    @cached_property
    def alone(self) -> dict[str, float]:
        """The skill of each column alone."""
        return {c: self.evidence.skill(self.evidence.alone(c)) for c in self.evidence.columns}

    def predicts_too_well(self, columns: Sequence[str]) -> list[Found]:
        """The column that adds the most to all others, if it adds more than an honest one would."""
        full, gain = self.evidence.together(columns)
        if not self._room(full):
            return []
        strongest = sorted(columns, key=lambda c: (-gain[c], c))[:SUSPECTS]
        best_alone = sorted(columns, key=lambda c: (-self.alone[c], c))[:2]
        excess: dict[str, float] = {}
        for column in dict.fromkeys([*(c for c in strongest if gain[c] >= SHARE), *best_alone]):
            others = self._without(columns, column)
            if (above := self._excess(others, full)) > 0:
                excess[column] = above
        if not excess:
            return []
        column = max(excess, key=lambda c: (excess[c], c))
        return [Found(column, "predicts too well", self._adds(columns, column, full))]

    def _room(self, full: Floats, times: float = 1.0) -> bool:
        """Whether all columns say enough for any to exceed `times` the limit: it is the least to others that know."""
        return information(self.evidence.skill(full)) > KNOWING + times * ADDS

    def _excess(self, others: Floats, full: Floats, times: float = 1.0) -> float:
        """By how much what is added exceeds `times` the limit; not above 0 if chance could have half of it do so."""
        e = self.evidence
        before, after = e.skill(others), e.skill(full)
        limit = times * allowance(before)
        above = information(after) - information(before) - limit
        if after - before < LEAST or above <= 0:
            return 0.0
        added = [information(b) - information(a) for a, b in zip(e.drawn(others), e.drawn(full), strict=True)]
        return above if np.quantile(added, 0.025) > limit / 2 else 0.0

    def _adds(self, columns: Sequence[str], column: str, full: Floats) -> str:
        e = self.evidence
        without = e.skill(self._without(columns, column))
        return (
            f"alone it orders {pairs_right(self.alone[column])} of pairs with different outcomes right, the other "
            f"{len(columns) - 1} columns together {pairs_right(without)}, and with it {pairs_right(e.skill(full))}: it "
            "adds more than an honest column does to what others say of the same past"
        )

    def hide_each_other(self, columns: Sequence[str]) -> list[Found]:
        """Two columns that each add little to the other, and far too much to the rest: both know it."""
        full, gain = self.evidence.together(columns)
        if not self._room(full, 2.0):
            return []
        strongest = sorted(columns, key=lambda c: (-self.alone[c], -gain[c], c))[:4]
        for pair in combinations(strongest, 2):
            if max(self.alone[c] for c in pair) < STRONG:
                continue
            rest = self._without(columns, *pair)
            if self._excess(rest, full, 2.0) <= 0:
                continue
            found = []
            for column, other in (pair, pair[::-1]):
                with_it, _ = self.evidence.together([c for c in columns if c != other])
                if self._excess(rest, with_it, 2.0) > 0:
                    reason = (
                        f"without {pair[0]} and {pair[1]} the other {len(columns) - 2} columns order "
                        f"{pairs_right(self.evidence.skill(rest))} of pairs with different outcomes right, with "
                        f"{column} {pairs_right(self.evidence.skill(with_it))}; {other} says the same"
                    )
                    found.append(Found(column, "predicts too well", reason))
            if found:
                return found
        return []

    def pure_bins(self, columns: Sequence[str]) -> list[Found]:
        """The column with the purest bin, among those whose bin is pure against what all the others expect there."""
        base = np.full(len(self.evidence.y), np.average(self.evidence.told, weights=self.evidence.weight))
        tried = sum(len(self.evidence.bins(c)[1]) * 3 for c in self.evidence.columns)
        pure = {}
        for column in columns:
            if not _purest(self.evidence, column, base, tried, FEWER):  # not even against the rate of everyone
                continue
            others = self._without(columns, column)
            knowing = min(1.0, information(self.evidence.skill(others)) / KNOWING)
            fewer = IGNORANT + (FEWER - IGNORANT) * knowing
            if bin_ := _purest(self.evidence, column, self.evidence.expected(others), tried, fewer):
                pure[column] = bin_
        if not pure:
            return []
        column = min(pure, key=lambda c: (pure[c].chance, -pure[c].expected, c))
        return [Found(column, "pure bin", pure[column].said)]

    def collapses(self, columns: Sequence[str]) -> list[Found]:
        """Columns that tell a lot at older cutoffs, beyond the others, and next to nothing at the latest."""
        e, found = self.evidence, []
        last = int(e.time.max())
        for column in columns if last >= 2 else []:
            if self.alone[column] < STRONG / 2:
                continue
            said = e.alone(column)
            each = [e.skill(said, e.time == t) for t in range(last + 1)]
            for late in range(last, last - (last + 1) // 2, -1):
                old, new = e.time < late, e.time >= late
                before, after = min(each[:late]), max(each[late:])
                if before < STRONG or after > COLLAPSED * before:
                    continue
                if np.quantile(e.drawn(said, old) - e.drawn(said, new), 0.025) < before / 2:
                    continue
                others, (full, _) = self._without(columns, column), e.together(columns)
                adds = information(e.skill(full, old)) - information(e.skill(others, old))
                if adds < BEYOND or e.skill(others, new) < e.skill(others, old) / 2:  # the season, or everything fell
                    continue
                reason = (
                    f"alone it orders {pairs_right(e.skill(said, old))} of pairs with different outcomes right at the "
                    f"{late} older cutoffs and {pairs_right(e.skill(said, new))} at the latest {last + 1 - late}, while"
                    f" the other columns go from {pairs_right(e.skill(others, old))} to "
                    f"{pairs_right(e.skill(others, new))}: it seems to be filled in afterwards"
                )
                found.append(Found(column, "effect collapses", reason))
                break
        return found

    def adds(self, columns: Sequence[str], column: str) -> float:
        """The information that a column adds to the others; 0 if there is not enough to learn from."""
        e = self.evidence
        if not e.enough:
            return 0.0
        return information(e.skill(e.together(columns)[0])) - information(e.skill(self._without(columns, column)))

    def _without(self, columns: Sequence[str], *left_out: str) -> Floats:
        self.progress(f"leak gate: all columns but {' and '.join(left_out)}")
        return self.evidence.together([c for c in columns if c not in left_out])[0]


def allowance(skill: float) -> float:
    """The information that an honest column may add to others of this skill: the less they know, the more."""
    return ADDS + CEILING * max(0.0, 1 - information(skill) / KNOWING)


@dataclass(frozen=True)
class _Bin:
    chance: float
    expected: float
    said: str


def _purest(e: Evidence, column: str, expected: Floats, tried: int, fewer: float) -> _Bin | None:
    """The bin or run of bins from either end in which one outcome is (almost) missing though it is expected there.

    By the Poisson approximation of the sum of unlike chances. Rows of one person count as one: bins hold several
    cutoffs of the same people, whose outcomes go together.
    """
    found, names = e.bins(column)
    size = len(names)
    rows = np.bincount(found, minlength=size)
    runs = [(lo, lo) for lo in range(size)]
    if column not in e.categories and size > 2:  # a code says nothing of order
        runs += [(1, hi) for hi in range(2, size)] + [(lo, size - 1) for lo in range(2, size - 1)]
    elif size > 2 and rows[0]:
        runs.append((1, size - 1))
    best: _Bin | None = None
    for outcome in (1, 0):
        seen = np.append(0.0, np.bincount(found, e.told == outcome, size).cumsum())
        due = np.append(0.0, np.bincount(found, expected if outcome else 1 - expected, size).cumsum())
        for lo, hi in runs:
            k, mean = seen[hi + 1] - seen[lo], due[hi + 1] - due[lo]
            if k >= fewer * mean:
                continue
            inside = (found >= lo) & (found <= hi)
            people = len(np.unique(e.group[inside])) / int(inside.sum())
            k, mean = k * people, mean * people
            chance = float(poisson.cdf(np.ceil(k), mean))
            upper = poisson_upper(k)
            if chance * tried > LEVEL or upper > fewer * mean:
                continue
            if best is None or (chance, -mean) < (best.chance, -best.expected):
                n = int(inside.sum())
                what = _outcome(e, outcome)
                said = (
                    f"of {n:,} rows where it is {_range(column, names, lo, hi, e)}, {int(seen[hi + 1] - seen[lo]):,} "
                    f"{what}, though by all other columns {due[hi + 1] - due[lo]:,.0f} should: it gives the outcome "
                    "away there"
                )
                best = _Bin(chance, float(mean), said)
    return best


def poisson_upper(seen: float) -> float:
    """The largest mean that would still show so few in 1 of 20 samples (Garwood 1936).

    >>> round(poisson_upper(0), 2)
    3.0
    """
    return float(chi2.ppf(0.95, 2 * (seen + 1)) / 2)


def _outcome(e: Evidence, outcome: int) -> str:
    if e.kind == "probability":
        return f"have the label {'true' if outcome else 'false'}"
    if e.kind == "duration":
        return f"{'have it' if outcome else 'do not have it'} within the horizon"
    return (
        f"have an amount {'above' if outcome else 'not above'} {0 if (e.y[e.told == 0] <= 0).all() else 'the median'}"
    )


def _range(column: str, names: list[str], lo: int, hi: int, e: Evidence) -> str:
    if lo == hi and (lo == 0 or column in e.categories or len(np.unique(e.X[:, e.place(column)])) <= len(names)):
        return names[lo]
    if lo == 1 and hi == len(names) - 1:
        return "known"
    if lo <= 1:
        return f"at most {names[hi]}"
    above = f"above {names[lo - 1]}"
    return above if hi == len(names) - 1 else f"{above} and at most {names[hi]}"


def _varies(e: Evidence, column: str) -> bool:
    return len(np.unique(e.X[:, e.place(column)])) > 1
