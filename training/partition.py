"""Which few groups do profiles fall into? Groups that are rules from the start, and that are found again.

A regression tree with one leaf a group is grown on all measures at once, on the scale of their signed logs. What a
split must bring is k-means' own measure, the variance within groups, so rules lose little of what k-means explains
(how little is reported). Groups of k-means explained by a tree afterwards (Dasgupta, Frost, Moshkovitz, Rashtchian,
"Explainable k-Means and k-Medians Clustering", ICML 2020) explain no more, and on real customers such rules came out
differently from one sample to the next: the tree has to follow where k-means happened to end. Trees that cluster:
Blockeel, De Raedt, Ramon, "Top-down Induction of Clustering Trees", ICML 1998.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NoReturn

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from foretell.errors import DataError

FEWEST, MOST, LARGEST = 3, 8, 12  # groups: what a person keeps apart, and the most that may be asked for
LEAST = 100  # profiles to find groups among
SMALLEST, SMALLEST_SHARE = 20, 0.03  # profiles of a group, and their share
FARTHEST = 3.0  # deviations from the mean beyond which a value counts as this far
BLUR = 0.02  # of the smaller side of a split: how many may change sides for a number that people say
DRAWS = 20  # samples in which groups are looked for again, and data without groups to compare with
# Hennig, "Cluster-wise assessment of cluster stability", CSDA 52 (2007): means from .85 on are highly stable.
FOUND = 0.85
WORTH = 0.03  # of how profiles differ: what a further group must tell
ROWS = 10_000  # from which groups are learned; all profiles are assigned


@dataclass(frozen=True)
class Split:
    """Who has at most `threshold` of a feature goes to `low`, who has more to `high`: another split, or a group.

    unknown_low: where those go whose value is unknown. A threshold of inf parts the known from the unknown.
    """

    feature: str
    threshold: float
    unknown_low: bool
    low: Split | int
    high: Split | int

    @property
    def sides(self) -> tuple[Split | int, Split | int]:
        return self.low, self.high


@dataclass(frozen=True)
class Bounds:
    """What a group says of one feature: above `above`, at most `most`; unknown: whether the unknown is inside."""

    above: float = -np.inf
    most: float = np.inf
    unknown: bool = True


@dataclass(frozen=True)
class Partition:
    """Groups 0 to k - 1 of a population.

    found_again: (k,) share of a group that a group of another sample has in common with it (Jaccard), on average.
    explained: share of the measures' variance that lies between groups; chance: the most that it is where measures have
    nothing to do with each other, but each the values that it has. kmeans: what free-form groups explain; agreement:
    share of profiles that are in the same group of both.
    """

    tree: Split
    found_again: np.ndarray
    explained: float
    chance: float
    kmeans: float = np.nan
    agreement: float = np.nan

    @property
    def groups(self) -> int:
        return len(self.found_again)

    @property
    def holds(self) -> bool:
        """Whether every group is found again, and they tell more than each measure by itself."""
        return bool(self.found_again.min() >= FOUND) and self.explained > self.chance


def find(X: pd.DataFrame, groups: int | None = None) -> tuple[Partition, pd.DataFrame]:
    """The groups of a population, and what was tried: groups, found_again (of the weakest), explained, chance.

    X: profiles × measures, floats, NaN where unknown. groups: how many; None: of 3 to 8 the most that hold, as long as
    each further one is worth it. Equal for equal rows in equal order. DataError: too few rows, infinite values, fewer
    than two measures that vary, too many groups for so few, none that hold.
    """
    if groups is not None and not 2 <= groups <= LARGEST:
        raise DataError("groups", f"expected 2 to {LARGEST} of them, got {groups}", "ask for groups=5, or leave it out")
    _check(X)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(X), ROWS, replace=False)) if len(X) > ROWS else np.arange(len(X))
    X = X.iloc[rows].reset_index(drop=True)
    Z, lone = scaled(X), [_lone(X, rng) for _ in range(DRAWS)]
    draws = [np.sort(rng.integers(0, len(X), len(X))) for _ in range(DRAWS)]
    with threadpool_limits(1):  # sums in one order: equal inputs, equal groups
        tried = [
            _judged(X, Z, tree, k, draws, lone)
            for k in ([groups] if groups else range(FEWEST, MOST + 1))
            if (tree := grow(X, Z, k)) is not None
        ]
        if groups and not tried:
            raise DataError(
                "groups",
                f"expected {groups} of at least {_smallest(len(X))} profiles each, got fewer among {len(X):,}",
                "ask for fewer, or look at more features (--by)",
            )  # fmt: skip
        table = pd.DataFrame(
            [(p.groups, p.found_again.min(), p.explained, p.chance) for p in tried],
            columns=["groups", "found_again", "explained", "chance"],
        )
        if groups:
            best = tried[0]
        elif holding := [p for p in tried if p.holds]:
            best = holding[0]
            for more in holding[1:]:
                if more.explained - best.explained >= WORTH * (more.groups - best.groups):
                    best = more
        else:
            raise DataError("groups", *_none_hold(tried))
        return _beside_kmeans(X, Z, best), table


def _check(X: pd.DataFrame) -> None:
    if len(X) < LEAST:
        raise DataError(
            "groups", f"expected at least {LEAST} profiles to find groups among, got {len(X)}",
            "loosen --among, or load more data",
        )  # fmt: skip
    for column in X.columns:
        if many := int(np.isinf(X[column]).sum()):
            refuse_infinite(str(column), many)
    if len(X.columns) < 2 or any(X[c].nunique() < 2 for c in X.columns):
        varying = [str(c) for c in X.columns if X[c].nunique() > 1]
        raise DataError(
            "groups", "expected at least two features that differ between profiles, "
            f"got {len(varying)}{f' ({varying[0]})' if varying else ''}",
            "name others with --by, or loosen --among",
        )  # fmt: skip


def refuse_infinite(feature: str, many: int) -> NoReturn:
    raise DataError(
        feature, f"expected finite numbers or null, got {many:,} that are infinite or no number",
        "mend its view, as with .nullif(0) below a division",
    )  # fmt: skip


def _none_hold(tried: list[Partition]) -> tuple[str, str]:
    expected = "expected groups that would be found again, got none"
    # of features that tell much the same, each sample may cut another
    fix = "look at features that tell different things (--by), at other profiles (--among), or insist (--groups)"
    if not tried:
        return f"{expected}: too many profiles are alike for {FEWEST} groups", fix
    best = max(tried, key=lambda p: (p.explained > p.chance, p.found_again.min()))
    if best.explained <= best.chance:
        return f"{expected}: the features have nothing to do with each other, so each by itself tells as much", fix
    return (
        f"{expected}: at best ({best.groups} groups) another sample has {best.found_again.min():.0%} of the weakest in "
        f"common, below {FOUND:.0%}", fix
    )  # fmt: skip


def scaled(X: pd.DataFrame) -> np.ndarray:
    """The measures as columns of mean 0 and deviation 1: signed logs, and beside a gap whether a value was unknown."""
    filled = X.fillna(X.median()).to_numpy()
    gaps = X.isna().to_numpy()
    columns = np.hstack([_logs(filled), gaps[:, gaps.any(axis=0)]])
    return np.clip((columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-12), -FARTHEST, FARTHEST)


def grow(X: pd.DataFrame, Z: np.ndarray, groups: int) -> Split | None:
    """A tree of so many leaves whose thresholds are numbers for people; None if there are not so many."""
    logs = _logs(X.to_numpy(dtype=float))  # what is split is the same on any scale, and huge values stay finite
    smallest = _smallest(len(X))
    model = DecisionTreeRegressor(max_leaf_nodes=groups, min_samples_leaf=smallest, random_state=0)
    tree = model.fit(logs, Z).tree_
    if tree.n_leaves < groups:
        return None
    leaves = iter(range(groups))

    def walk(node: int, rows: np.ndarray) -> Split | int:
        if tree.children_left[node] < 0:
            return next(leaves)
        name = str(X.columns[tree.feature[node]])
        values, log = X[name].to_numpy()[rows], logs[rows, tree.feature[node]].astype(np.float32)  # as the tree has it
        known, low = ~np.isnan(values), log <= tree.threshold[node]
        few = min(int(BLUR * min(low.sum(), (~low).sum())), smallest // 4)
        threshold = _threshold(np.sort(values[low]), np.sort(values[known & ~low]), few)
        below = values <= threshold
        # where nobody's value is unknown, who comes to lack it goes where most are
        unknown_low = bool(tree.missing_go_to_left[node]) if not known.all() else bool(2 * below.sum() >= len(below))
        goes_low = below | (~known & unknown_low)
        low_side = walk(tree.children_left[node], rows[goes_low])
        return Split(name, threshold, unknown_low, low_side, walk(tree.children_right[node], rows[~goes_low]))

    found = walk(0, np.arange(len(X)))
    counts = np.bincount(assign(found, X), minlength=groups)  # round numbers move a few, at several splits
    return found if isinstance(found, Split) and counts.min() >= smallest / 2 else None


def _logs(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def _threshold(low: np.ndarray, high: np.ndarray, few: int) -> float:
    """The shortest number that parts two sorted sides, but for a few of one of them; inf if one is the unknown."""
    if not (len(low) and len(high)):
        return np.inf
    few = min(few, len(low) - 1, len(high) - 1)
    return shortest(float(low[-1 - few]), float(high[few]), (float(low[-1]) + float(high[0])) / 2)


def shortest(least: float, below: float, near: float) -> float:
    """The number of fewest digits in [least, below), of several the nearest to `near`.

    >>> shortest(88.2, 93.1, 91.7), shortest(3, 4, 3.5), shortest(-2.5, 7.0, 1.0), shortest(1234.5, 1234.75, 1234.6)
    (90.0, 3.0, 0.0, 1234.6)
    """
    if least <= 0 < below:
        return 0.0
    near = min(max(near, least), below)
    place = int(np.floor(np.log10(abs(near) or abs(least))))
    for digits in range(1, 16):
        at = place - digits + 1  # the power of ten of the last digit
        step = int(Decimal(near).scaleb(-at))
        candidates = [float(f"{n}e{at}") for n in range(step - 1, step + 3)]
        if inside := [c for c in candidates if least <= c < below]:
            return min(inside, key=lambda c: (abs(c - near), c))
    return least


def assign(tree: Split | int, X: pd.DataFrame) -> np.ndarray:
    """(n,): the group of each row."""
    if isinstance(tree, int):
        return np.full(len(X), tree)
    values = X[tree.feature].to_numpy(dtype=float)
    low = (values <= tree.threshold) | (np.isnan(values) & tree.unknown_low)
    found = np.empty(len(X), dtype=int)
    for side, rows in zip(tree.sides, (low, ~low), strict=True):
        found[rows] = assign(side, X[rows])
    return found


def bounds(tree: Split | int, so_far: dict[str, Bounds] | None = None) -> Iterator[tuple[int, dict[str, Bounds]]]:
    """Each group with what it says of each feature, in the order of the groups."""
    so_far = so_far or {}
    if isinstance(tree, int):
        yield tree, so_far
        return
    was = so_far.get(tree.feature, Bounds())
    low = Bounds(was.above, min(was.most, tree.threshold), was.unknown and tree.unknown_low)
    high = Bounds(max(was.above, tree.threshold), was.most, was.unknown and not tree.unknown_low)
    yield from bounds(tree.low, {**so_far, tree.feature: low})
    yield from bounds(tree.high, {**so_far, tree.feature: high})


def explained(Z: np.ndarray, groups: np.ndarray) -> float:
    """The share of the variance that lies between groups."""
    within = sum(((Z[groups == g] - Z[groups == g].mean(axis=0)) ** 2).sum() for g in np.unique(groups))
    return float(1 - within / ((Z - Z.mean(axis=0)) ** 2).sum())


def _smallest(profiles: int) -> int:
    return max(SMALLEST, int(SMALLEST_SHARE * profiles))


def _lone(X: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """The same measures, each dealt out anew: they have nothing to do with each other."""
    dealt = pd.DataFrame({c: rng.permutation(X[c].to_numpy()) for c in X.columns})
    return dealt, scaled(dealt)


def _judged(
    X: pd.DataFrame, Z: np.ndarray, tree: Split, groups: int, draws: Sequence[np.ndarray],
    lone: Sequence[tuple[pd.DataFrame, np.ndarray]],
) -> Partition:  # fmt: skip
    """Whether the groups are found again in other samples, and what they explain beyond chance."""
    mine = assign(tree, X)
    again = []
    for rows in draws:
        other = grow(X.iloc[rows], Z[rows], groups)
        again.append(_overlap(mine, assign(other, X), groups) if other else np.zeros(groups))
    by_chance = [explained(W, assign(grown, D)) for D, W in lone if (grown := grow(D, W, groups))]
    return Partition(tree, np.mean(again, axis=0), explained(Z, mine), max(by_chance, default=0.0))


def _crossed(mine: np.ndarray, others: np.ndarray, groups: int) -> np.ndarray:
    """(groups, groups): how many rows are in each pair of groups."""
    return np.bincount(mine * groups + others, minlength=groups * groups).reshape(groups, groups)


def _overlap(mine: np.ndarray, others: np.ndarray, groups: int) -> np.ndarray:
    """(groups,): the Jaccard index of each group with the one of the others that is most like it."""
    both = _crossed(mine, others, groups)
    either = both.sum(axis=1)[:, None] + both.sum(axis=0)[None] - both
    return (both / np.maximum(either, 1)).max(axis=1)


def _beside_kmeans(X: pd.DataFrame, Z: np.ndarray, found: Partition) -> Partition:
    k = found.groups
    free = KMeans(k, n_init=10, random_state=0).fit_predict(Z)  # pyright: ignore[reportArgumentType]
    both = _crossed(assign(found.tree, X), free, k)
    agreement = float(both[linear_sum_assignment(-both)].sum() / len(X))
    return replace(found, kmeans=explained(Z, free), agreement=agreement)
