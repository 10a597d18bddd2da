"""What do all the features together say? Gradient boosted trees, kept small and bit-identical between runs.

Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree (NIPS 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, cast

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit

from models.estimators import treeshap
from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate
from models.estimators.forest import Forest
from models.explain import level

FEW = 8_000_000  # cells (rows × columns) up to which a second thread waits more than it works; results are the same


class _LightGBM(Candidate):
    """What the two objectives share. NaN stays NaN: a tree learns at each split where the unknown belongs.

    categorical: columns whose numbers are codes of text, split by sets of codes rather than by a threshold.
    The rows are few (thousands of profiles) and noisy (people), hence shallow trees, slow learning, large leaves.
    After `fit`: booster_; what is added to the margin: offset_, the log of the amounts' mean, 0 for probabilities and
    for trees that go on from what another model says; level_, how far labels are above the start in the mean of the
    cutoffs, 0 where none are told.
    callbacks: LightGBM's, called after each tree; not a parameter, so a clone has none.
    """

    name = "lightgbm"
    objective: ClassVar[dict[str, str | float]]
    callbacks: Sequence[Callable[[Any], None]] = ()
    _start: np.ndarray | None = None
    _forest: Forest | None = None

    def __init__(
        self,
        horizon_days: float,
        *,
        trees: int = 150,
        leaves: int = 7,
        learning_rate: float = 0.03,
        min_leaf_rows: int = 40,
        lambda_l2: float = 5.0,
        categorical: tuple[str, ...] = (),
        num_threads: int = 2,
        seed: int = 0,
    ):
        super().__init__(horizon_days)
        self.trees = trees
        self.leaves = leaves
        self.learning_rate = learning_rate
        self.min_leaf_rows = min_leaf_rows
        self.lambda_l2 = lambda_l2
        self.categorical = categorical
        self.num_threads = num_threads
        self.seed = seed

    def fit(
        self, X: pd.DataFrame, y: Any, sample_weight: Any = None, now: pd.DataFrame | None = None, cutoffs: Any = None,
        start: np.ndarray | None = None,
    ) -> Self:  # fmt: skip
        """start: the margin of another model for each row. The trees learn what it leaves unexplained, and what they
        say is to be added to what it says."""
        self._start = start
        super().fit(X, y, sample_weight, now, cutoffs)
        del self._start
        return self

    def _fit(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None,
        places: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        parameters = {
            **self.objective,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf_rows,
            "lambda_l2": self.lambda_l2,
            "bagging_fraction": 0.8 if len(X) > 1 else 1.0,  # four fifths of one row are none, which LightGBM refuses
            "bagging_freq": 1,
            "feature_fraction": 0.8,
            "seed": self.seed,
            # Threads add up histograms in any order unless told otherwise; these three make runs bit-identical.
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self._threads(X),
            "verbosity": -1,
        }
        unit, begin = self._unit(y, weight), self._start
        target = self._target(y, unit)
        self.offset_, self.level_ = unit if begin is None else 0.0, 0.0
        begin = None if begin is None else begin - unit
        if places is not None and places.any():
            begin = np.zeros(len(X)) if begin is None else begin
            levels = self._levels(begin, target, weight, places)
            self.level_ = float(np.average(levels, weights=weight))
            begin = begin + levels
        codes = [place for place, column in enumerate(X.columns) if column in self.categorical]
        data = lgb.Dataset(
            X.to_numpy(), target, weight=weight, categorical_feature=codes, init_score=begin,
        )  # fmt: skip
        self.booster_ = lgb.train(parameters, data, num_boost_round=self.trees, callbacks=list(self.callbacks))
        self._forest = None

    def _threads(self, A: pd.DataFrame | np.ndarray) -> int:
        return self.num_threads if A.size > FEW else 1

    def _levels(self, start: np.ndarray, y: np.ndarray, weight: np.ndarray, places: np.ndarray) -> np.ndarray:
        """For each row what brings the start of all rows of its cutoff to the mean of their labels."""
        raise NotImplementedError

    def _unit(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Where the margin is 0 to the trees."""
        return 0.0

    def _target(self, y: np.ndarray, unit: float) -> np.ndarray:
        return y

    def _margin(self, A: np.ndarray) -> np.ndarray:
        if self._forest is None:
            self._forest = Forest(self.booster_)
        return self._forest.sum(A, self._threads(A)) + self.offset_ + self.level_

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base), the former (n, columns_): see Candidate. The margin is the log-odds of true, or the log of
        the amount. TreeSHAP over the training rows that reached each node: Lundberg et al., From local explanations to
        global understanding (Nature Machine Intelligence 2020).
        """
        if not len(A):
            return np.zeros(A.shape), self._base(0.0)
        if (made := self._tables()) is not None:
            return treeshap.split(made, A), self._base(made.base)
        threads = self.num_threads if len(A) > 100 else 1
        both = np.asarray(self.booster_.predict(A, pred_contrib=True, num_threads=threads))
        return both[:, :-1], self._base(float(both[0, -1]))

    def _base(self, of_trees: float) -> float:
        return of_trees + self.offset_ + self.level_

    def _tables(self) -> treeshap.Tables | None:
        """Made once of a fitted model, and not kept with it; None of trees too deep for them."""
        if (known := self.__dict__.get("_made")) is None or known[0] is not self.booster_:
            known = self.__dict__["_made"] = (self.booster_, treeshap.tables(self.booster_))
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in cast(dict[str, Any], super().__getstate__()).items()
            if name not in ("_made", "_forest")
        }


class LightGBMProbability(_LightGBM, ProbabilityCandidate):
    """Boosted log-odds of a label that is true or false."""

    by_cutoff = True
    objective: ClassVar[dict[str, str | float]] = {"objective": "binary"}

    def _levels(self, start: np.ndarray, y: np.ndarray, weight: np.ndarray, places: np.ndarray) -> np.ndarray:
        levels, mean = np.zeros(len(y)), float(np.average(y, weights=weight))
        for place in range(places.max() + 1):
            rows = places == place
            one_more = [*y[rows], mean], [*weight[rows], 1.0]  # so that a cutoff of one answer has a level too
            levels[rows] = level(start[rows], float(np.average(one_more[0], weights=one_more[1])), weight[rows])
        return levels

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return expit(self._margin(A))


class LightGBMAmount(_LightGBM, AmountCandidate):
    """Boosted log of an expected amount, Tweedie loss of power 1.4. Labels below 0 count as 0."""

    objective: ClassVar[dict[str, str | float]] = {"objective": "tweedie", "tweedie_variance_power": 1.4}

    def _unit(self, y: np.ndarray, weight: np.ndarray) -> float:
        # Trees learn the amount in units of its mean, so that lambda_l2 means the same in cents and in thousands.
        return float(np.log(np.average(np.maximum(y, 0.0), weights=weight)))

    def _target(self, y: np.ndarray, unit: float) -> np.ndarray:
        return np.maximum(y, 0.0) / np.exp(unit)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return np.exp(self._margin(A))
