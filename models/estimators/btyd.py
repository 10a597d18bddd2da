"""Will they buy again, and for how much, by the classic "buy till you die" models of models.estimators.lifetime."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate
from models.estimators.lifetime import BGNBD, GammaGamma

HISTORY = ("order_days_ever", "days_first_to_last_order", "days_since_first_order")


class _BuyTillYouDie(Candidate):
    """What both estimators share: histories in days, and an answer for profiles that have none.

    A profile without a complete history (never ordered, a NaN) gets the mean label of such profiles in training,
    shrunk towards the mean label of all by one row's weight. After `fit`: bg_nbd_ (alpha in days), newcomer_.
    """

    def __init__(self, horizon_days: float, *, penalizer: float = 0.0):
        super().__init__(horizon_days)
        self.penalizer = penalizer

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        known = _complete(X)
        overall = np.average(y, weights=weight)
        self.newcomer_ = float((weight[~known] @ y[~known] + overall) / (weight[~known].sum() + 1))
        self._fit_known(X.loc[known], y[known], weight[known])

    def _predict(self, X: pd.DataFrame) -> np.ndarray:
        known = _complete(X)
        answer = np.full(len(X), self.newcomer_)
        answer[known] = self._predict_known(X.loc[known])
        return answer

    def _fit_known(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        self.bg_nbd_ = BGNBD.fit(*_history(X), weight, self.penalizer)

    def _predict_known(self, X: pd.DataFrame) -> np.ndarray:
        raise NotImplementedError


class BGNBDProbability(_BuyTillYouDie, ProbabilityCandidate):
    """P(at least one purchase within the horizon) by BG/NBD, or of none where the label means that.

    The labels do not shape the model. They only tell its direction: orientation_ is 1 where true goes with a purchase,
    -1 where it goes with none ("churned"), by the sign of their covariance with P.
    """

    name = "bg_nbd"
    requires = HISTORY

    def _fit_known(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        super()._fit_known(X, y, weight)
        buys = self._buys(X)
        mean_buys, mean_y = np.average(buys, weights=weight), np.average(y, weights=weight)
        covariance = weight @ ((buys - mean_buys) * (y - mean_y))
        # No covariance (all histories or labels alike): the direction in which the means agree better.
        sign = covariance or abs(1 - mean_buys - mean_y) - abs(mean_buys - mean_y)
        self.orientation_ = 1 if sign >= 0 else -1

    def _predict_known(self, X: pd.DataFrame) -> np.ndarray:
        buys = self._buys(X)
        return buys if self.orientation_ == 1 else 1 - buys

    def _buys(self, X: pd.DataFrame) -> np.ndarray:
        return self.bg_nbd_.probability_of_purchase(self.horizon_days, *_history(X))


class BGNBDGammaGamma(_BuyTillYouDie, AmountCandidate):
    """E[purchases within the horizon] by BG/NBD, times E[value of one] by Gamma-Gamma. The labels shape neither.

    The value model is fitted on profiles with a repeat purchase, as in [FH], with the mean over all their purchases.
    After `fit`, also: gamma_gamma_ (gamma in the unit of spend).
    """

    name = "bg_nbd_gamma_gamma"
    requires = (*HISTORY, "mean_spend_per_order_day_ever")

    def _fit_known(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        super()._fit_known(X, y, weight)
        n, mean = _values(X)
        use = (n > 1) & (mean > 0)
        self.gamma_gamma_ = GammaGamma.fit(n[use], mean[use], weight[use], self.penalizer)

    def _predict_known(self, X: pd.DataFrame) -> np.ndarray:
        purchases = self.bg_nbd_.expected_purchases(self.horizon_days, *_history(X))
        return purchases * self.gamma_gamma_.expected_value(*_values(X))


def _complete(X: pd.DataFrame) -> np.ndarray:
    """(n,) bool: rows of a profile that ordered, with nothing unknown."""
    return X.notna().to_numpy().all(axis=1) & (X["order_days_ever"].to_numpy() >= 1)


def _history(X: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, t_x, T in days, made consistent: an explanation mixes columns of two profiles, say x = 0 with t_x = 90."""
    x = X["order_days_ever"].to_numpy() - 1
    T = np.maximum(X["days_since_first_order"].to_numpy(), 0.0)
    t_x = np.where(x > 0, np.clip(X["days_first_to_last_order"].to_numpy(), 0.0, T), 0.0)
    return x, t_x, T


def _values(X: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Number of purchases and their mean value; a mean below 0 (more returned than bought) counts as 0."""
    return X["order_days_ever"].to_numpy(), np.maximum(X["mean_spend_per_order_day_ever"].to_numpy(), 0.0)
