"""What do all the features say, each by itself, on a logarithmic scale? Regressions, which go on where trees stop.

Money, counts and days are skewed: the tenth order says less than the second. On signed logs a straight line fits them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.preprocessing import StandardScaler

from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate

FARTHEST = 5.0  # deviations from the mean beyond which a value counts as this far: one odd row bends no prediction
FREE = 3.0  # how large a column of a cutoff is: its coefficient costs a ninth
TOGETHER = 512  # rows whose columns stay in the nearest caches from step to step
POWER = 1.5  # of the Tweedie loss: a Poisson number of gamma amounts (Jørgensen, The Theory of Dispersion Models, 1997)


class _OnLogs(Candidate):
    """What both regressions share: the features made columns of mean 0 and deviation 1, and an exact split of a margin.

    A number becomes its signed log; the unknown is typical, and a column beside says that it was unknown, if it ever
    was. A code of text becomes a column of 0 and 1 for each value.
    penalty: as of the model below; categorical: columns whose numbers are codes of text.
    After `fit`: coef_ and owners_ (m,), of which feature each column is made; intercept_; numbers_, which features are
    no codes, and usual_, what stands in for their unknown values.
    """

    def __init__(self, horizon_days: float, *, penalty: float, categorical: tuple[str, ...] = ()):
        super().__init__(horizon_days)
        self.penalty = penalty
        self.categorical = categorical

    def _fit(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None,
        places: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.gaps_ = [c for c in X.columns if X[c].isna().any() and c not in self.categorical]
        self.codes_ = {c: np.unique(X[c].dropna()) for c in X.columns if c in self.categorical}
        at = {c: i for i, c in enumerate(X.columns)}
        owners = [at[c] for c in X.columns if c not in self.codes_] + [at[c] for c in self.gaps_]
        owners += [at[c] for c, values in self.codes_.items() for _ in values]
        self.owners_ = np.array(owners)
        self.numbers_ = np.array([at[c] for c in X.columns if c not in self.codes_], dtype=int)
        self.usual_ = self.typical_.to_numpy()[self.numbers_]
        design = self._design(X.to_numpy())
        with np.errstate(invalid="ignore"):  # by rounding a constant's variance may be below 0; it gets a scale of 1
            self.scaler_ = StandardScaler().fit(design, sample_weight=weight)
        Z = self._scaled(design)
        m = Z.shape[1]
        if places is not None:  # the level of each cutoff is learned beside, and nothing of it is kept but the mean
            Z = np.hstack([Z, self._levels(weight, places)])
        model = self._learn(Z, y, weight)
        self.coef_, self.intercept_ = np.ravel(model.coef_)[:m], float(np.ravel(model.intercept_)[0])

    def _levels(self, weight: np.ndarray, places: np.ndarray) -> np.ndarray:
        """A column for each cutoff, of mean 0, and large, so that the penalty is hardly felt."""
        found = FREE * (places[:, None] == np.unique(places)).astype(float)
        return found - np.average(found, axis=0, weights=weight)

    def _learn(self, Z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        raise NotImplementedError

    def _design(self, A: np.ndarray) -> np.ndarray:
        numbers, m = A[:, self.numbers_], len(self.numbers_)
        filled = np.where(np.isnan(numbers), self.usual_, numbers)
        found = np.empty((len(A), len(self.owners_)))
        found[:, :m] = np.sign(filled) * np.log1p(np.abs(filled))
        gaps = m + len(self.gaps_)
        found[:, m:gaps] = np.isnan(A[:, self.owners_[m:gaps]])
        for values in self.codes_.values():
            found[:, gaps : gaps + len(values)] = A[:, self.owners_[gaps], None] == values if len(values) else 0.0
            gaps += len(values)
        return found

    def _scaled(self, design: np.ndarray) -> np.ndarray:
        middle, unit = np.asarray(self.scaler_.mean_), np.asarray(self.scaler_.scale_)
        return np.clip((design - middle) / unit, -FARTHEST, FARTHEST)

    def _margin(self, A: np.ndarray) -> np.ndarray:
        found = np.empty(len(A))
        for start in range(0, len(A), TOGETHER):
            part = slice(start, start + TOGETHER)
            found[part] = self._terms(A[part]).sum(axis=1) + self.intercept_
        return found

    def _terms(self, A: np.ndarray) -> np.ndarray:
        """(n, m): what each column adds. Summed row by row: a product of matrices ends in other bits as rows are many
        or few, and a score must be the same to the last."""
        return self._scaled(self._design(A)) * self.coef_

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base): see Candidate. The margin is a sum, so the split is exact: each feature's terms, against the
        mean of the training rows."""
        split = np.zeros(A.shape)
        np.add.at(split.T, self.owners_, self._terms(A).T)
        return split, self.intercept_


class LogLogistic(_OnLogs, ProbabilityCandidate):
    """Logistic regression on the signed logs of all features.

    penalty: of the squared coefficients, in units of a row's log loss: 1 / (C × rows) of scikit-learn's.
    """

    name = "log_logistic"
    by_cutoff = True

    def __init__(self, horizon_days: float, *, penalty: float = 0.008, categorical: tuple[str, ...] = ()):
        super().__init__(horizon_days, penalty=penalty, categorical=categorical)

    def _learn(self, Z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        return LogisticRegression(C=1 / (self.penalty * len(Z)), max_iter=1000).fit(Z, y, sample_weight=weight)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return expit(self._margin(A))


class LogTweedie(_OnLogs, AmountCandidate):
    """Tweedie regression (log link) on the signed logs of all features. Labels below 0 count as 0.

    penalty: of the squared coefficients, in units of the mean deviance of a row. After `fit`, also: offset_, the log of
    the amounts' mean, so that the penalty means the same in cents and in thousands.
    """

    name = "log_tweedie"

    def __init__(self, horizon_days: float, *, penalty: float = 0.03, categorical: tuple[str, ...] = ()):
        super().__init__(horizon_days, penalty=penalty, categorical=categorical)

    def _learn(self, Z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        amount = np.maximum(y, 0.0)
        scale = float(np.average(amount, weights=weight))
        model = TweedieRegressor(power=POWER, link="log", alpha=self.penalty, solver="newton-cholesky", max_iter=200)
        with warnings.catch_warnings():  # where no step is better, the best is reached: of features that say nothing
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(Z, amount / scale, sample_weight=weight)
        model.intercept_ = model.intercept_ + np.log(scale)
        return model

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return np.exp(self._margin(A))
