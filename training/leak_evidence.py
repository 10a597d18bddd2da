"""What do a training set's columns say of the label: each alone, and many together, on people they have not seen?

Everything is judged on persons that had no part in the learning, by how well it ranks. *Skill* is 1 for a perfect
order, 0 for none: the covariance of the outcome with the ranks of the prediction, over that with its own ranks. Of a
label that is true or false it is 2·AUC − 1 (Gini), of an amount Somers' D in its Spearman form. *Information* is the
square of the distance d' of two normal distributions that are told apart as well (Green & Swets, Signal Detection
Theory, 1966): what independent columns know adds up in it, whatever the others know already.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.stats import norm

from models.encoding import Categories
from training.metrics import Floats, Kind

FEWEST_PERSONS, FEWEST_ROWS = 40, 15
MOST_ROWS, MOST_CELLS = 25_000, 750_000  # that are looked at; of more rows, those of some persons, always the same
BINS = 32  # ranges of a number, besides a bin for unknown
PRIOR = 10.0  # rows of average outcome that a bin's rate starts from
DRAWS = 100
SEED = 0
TREES = {
    "objective": "cross_entropy", "num_leaves": 15, "learning_rate": 0.1, "lambda_l2": 5.0, "max_bin": 63,
    "cat_smooth": 20.0, "seed": SEED, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip
ROUNDS = 60
THREADS = 2


def information(skill: float) -> float:
    """d'² of a skill; 0 for one that is none. Above 0.98 nothing more is told apart: there it is all noise."""
    return float(2 * norm.ppf((1 + min(max(skill, 0.0), 0.98)) / 2) ** 2)


def pairs_right(skill: float) -> str:
    """A skill as people read it: of two rows with different outcomes, how often the prediction orders them right.

    >>> pairs_right(0.5)
    '75.0%'
    """
    return f"{(1 + skill) / 2:.1%}"


@dataclass
class Evidence:
    """The rows that count, in an order of their own, so that no answer depends on the order they came in.

    X: rows × columns, columns by name. y: label; target: what models learn, the label itself or, of an amount, its rank
    from 0 to 1; told: what pure bins look at, 0 or 1: true, or an amount above 0 (above the median if hardly any is 0).
    group: a number per person; time: a number per cutoff, the oldest 0.
    """

    columns: list[str]
    categories: Categories
    X: Floats
    y: Floats
    weight: Floats
    group: np.ndarray
    time: np.ndarray
    kind: Kind
    _said: dict[tuple[str, ...], tuple[Floats, Floats]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pd.DataFrame, columns: Sequence[str], kind: Kind, categories: Categories) -> Evidence:
        """From encoded rows with label, weight, person and cutoff. Rows without label or weight do not count."""
        rows = rows[rows["label"].notna() & (rows["weight"] > 0)]
        person = pd.util.hash_array(rows["person"].astype(str).to_numpy(dtype=object))
        most = min(MOST_ROWS, MOST_CELLS // max(1, len(columns)))
        if len(rows) > most:  # persons by their hash: those that come first are as good as drawn by chance
            kept = person <= np.sort(person)[most - 1]
            rows, person = rows[kept], person[kept]
        columns = sorted(columns)
        X = rows[columns].to_numpy(dtype=float)
        X[np.isinf(X)] = np.nan
        y, weight = rows["label"].to_numpy(dtype=float), rows["weight"].to_numpy(dtype=float)
        time = pd.factorize(rows["cutoff"], sort=True)[0]
        order = np.lexsort((*X.T, weight, y, time, person))
        group = np.unique(person[order], return_inverse=True)[1]
        return cls(columns, categories, X[order], y[order], weight[order], group, time[order], kind)

    @cached_property
    def target(self) -> Floats:
        if self.kind == "probability":
            return self.y
        return midranks(self.y, self.weight[None, :])[0]

    @cached_property
    def told(self) -> Floats:
        if self.kind == "probability":
            return self.y
        if self.kind == "duration":
            return (self.y < self.y.max()).astype(float)
        above = self.y > 0
        return (above if 0.05 < above.mean() < 0.95 else self.y > np.median(self.y)).astype(float)

    @cached_property
    def persons(self) -> int:
        return int(self.group.max()) + 1 if len(self.group) else 0

    @cached_property
    def fold(self) -> np.ndarray:
        """Whole persons in turn; few rows are cut into more folds, as every row counts there."""
        return self.group % (3 if len(self.y) > 5_000 else 5)

    @cached_property
    def enough(self) -> bool:
        """Whether there is anything to learn from: enough persons, and enough rows of either outcome."""
        fewer = min(self.told.sum(), (1 - self.told).sum()) if len(self.y) else 0
        return self.persons >= FEWEST_PERSONS and fewer >= FEWEST_ROWS and bool(np.ptp(self.y) > 0)

    def place(self, column: str) -> int:
        return self.columns.index(column)

    def bins(self, column: str) -> tuple[np.ndarray, list[str]]:
        """(bin of each row, what each bin is in words). Bin 0: unknown; then codes, values, or ranges of equal size."""
        x = self.X[:, self.place(column)]
        known = ~np.isnan(x)
        values = np.unique(x[known])
        upper = values
        if len(values) > BINS and column not in self.categories:
            upper = np.unique(np.quantile(x[known], np.linspace(0, 1, BINS + 1)[1:], method="inverted_cdf"))
        found = np.zeros(len(x), dtype=np.intp)
        found[known] = 1 + np.searchsorted(upper, x[known])
        if column in self.categories:
            named = self.categories[column]
            return found, ["unknown", *(repr(named[int(v)]) if 0 <= v < len(named) else f"{v:g}" for v in values)]
        return found, ["unknown", *(f"{v:.6g}" for v in upper)]

    def alone(self, column: str) -> Floats:
        """What the column alone says of each row: the rate of its bin among the other folds."""
        found, names = self.bins(column)
        said = np.zeros(len(self.y))
        for k in np.unique(self.fold):
            learn, ask = self.fold != k, self.fold == k
            mass = np.bincount(found[learn], self.weight[learn], minlength=len(names))
            sums = np.bincount(found[learn], self.weight[learn] * self.target[learn], minlength=len(names))
            mean = sums.sum() / mass.sum()
            said[ask] = ((sums + PRIOR * mean) / (mass + PRIOR))[found[ask]]
        return said

    def together(self, columns: Sequence[str]) -> tuple[Floats, dict[str, float]]:
        """What these columns say together, by boosted trees, and each one's share of what the trees gained."""
        key = tuple(sorted(columns))
        if key not in self._said:
            self._said[key] = self._boosted(key)
        said, gain = self._said[key]
        return said, dict(zip(key, gain.tolist(), strict=True))

    def _boosted(self, columns: tuple[str, ...]) -> tuple[Floats, Floats]:
        said, gain = np.full(len(self.y), float(np.average(self.target, weights=self.weight))), np.zeros(len(columns))
        if not columns:
            return said, gain
        X = self.X[:, [self.place(c) for c in columns]]
        codes = [n for n, c in enumerate(columns) if c in self.categories]
        leaf = int(np.clip(len(X) / 50, 5, 40))

        def of_fold(k: int) -> tuple[np.ndarray, Floats, Floats]:
            learn, ask = self.fold != k, self.fold == k
            data = lgb.Dataset(X[learn], self.target[learn], weight=self.weight[learn], categorical_feature=codes)
            trees = lgb.train({**TREES, "min_data_in_leaf": leaf}, data, num_boost_round=ROUNDS)
            return ask, np.asarray(trees.predict(X[ask], num_threads=1)), np.asarray(trees.feature_importance("gain"))

        # a thread per fold: two threads within a tree wait for each other more than they work
        with ThreadPoolExecutor(THREADS) as pool:
            for ask, answer, gained in pool.map(of_fold, np.unique(self.fold)):
                said[ask] = answer
                gain += gained
        return said, gain / max(float(gain.sum()), 1e-12)

    def skill(self, said: Floats, rows: np.ndarray | None = None) -> float:
        """The skill of a prediction of the rows, or of some of them (a mask)."""
        kept = slice(None) if rows is None else rows
        return float(skills(self.target[kept], said[kept], self.weight[kept][None, :])[0])

    def drawn(self, said: Floats, rows: np.ndarray | None = None) -> Floats:
        """The skill in each of DRAWS bootstrap samples of persons: the same samples for every prediction."""
        kept = slice(None) if rows is None else rows
        draws = [self._draws[at : at + 5] for at in range(0, DRAWS, 5)]  # few at once stay in the cache
        parts = [skills(self.target[kept], said[kept], self.weight[kept] * d[:, self.group[kept]]) for d in draws]
        return np.concatenate(parts)

    @cached_property
    def _draws(self) -> Floats:
        # how often a sample holds each person: Poisson in place of multinomial (Hanley & MacGibbon 2006)
        return np.random.default_rng(SEED).poisson(1.0, (DRAWS, self.persons)).astype(float)

    def expected(self, said: Floats) -> Floats:
        """The chance of `told` in each row that goes with a prediction: its rate among rows of about the same one."""
        rank = midranks(said, self.weight[None, :])[0]
        found = np.minimum((rank * BINS).astype(np.intp), BINS - 1)
        mass = np.bincount(found, self.weight, minlength=BINS)
        return (np.bincount(found, self.weight * self.told, minlength=BINS) / np.maximum(mass, 1e-12))[found]


def midranks(values: Floats, weights: Floats) -> Floats:
    """Ranks from 0 to 1 of n values under samples × n weights; equal values share the middle of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    upto = weights[:, order].cumsum(axis=1)[:, last]
    total = upto[:, -1:]  # 0 in a draw that holds nobody of these rows
    middle = (upto - np.diff(upto, axis=1, prepend=0.0) / 2) / np.where(total > 0, total, 1.0)
    ranks = np.empty_like(weights, dtype=float)
    ranks[:, order] = np.repeat(middle, np.diff(last, prepend=-1), axis=1)
    return ranks


def skills(target: Floats, said: Floats, weights: Floats) -> Floats:
    """The skill under each of samples × n weights; 0 where the outcomes are all the same."""
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    mean = weights @ target

    def covariance(of: Floats) -> Floats:
        return (weights * midranks(of, weights)) @ target - mean / 2

    most = covariance(target)
    return np.divide(covariance(said), most, out=np.zeros_like(most), where=most > 1e-12)
