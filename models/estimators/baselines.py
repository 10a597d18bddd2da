"""How far do recency, frequency and money alone get? The models the others have to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate, line, linear

NEVER_DAYS = 3650.0
"""The recency of a profile that never ordered, and the longest recency told apart: ten years."""

FARTHEST = 30.0
"""The log of how many times the mean an amount may be. A line that a few rows gave may rise without end; exp does not.
"""

RFM = ("days_since_order", "orders_365d", "spend_365d")


def logs(A: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """log(1 + v) of each column, with no NaN: an unknown recency is ten years, an unknown count or sum is none.

    Below 0 (a year of returns) counts as 0. Logs, because the tenth order says less than the second.
    """
    recency = np.array([column.startswith("days_since_") for column in columns])
    filled = np.where(np.isnan(A), np.where(recency, NEVER_DAYS, 0.0), A)
    return np.log1p(np.clip(filled, 0.0, np.where(recency, NEVER_DAYS, np.inf)))


def _standardised(model: Any) -> Pipeline:
    """The model on columns of mean 0 and deviation 1, so that its penalty treats them alike."""
    return make_pipeline(StandardScaler(), model)


def _scaled(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    scaler: Any = pipeline[0]
    return (X - scaler.mean_) / scaler.scale_


def _fit_weighted(pipeline: Pipeline, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Pipeline:
    """Fit both steps with the weights, which a pipeline only passes on by the name of the step."""
    return pipeline.fit(X, y, **{f"{step}__sample_weight": weight for step, _ in pipeline.steps})


class _Everyone(Candidate):
    """The same answer for everyone, as for people of whom nothing is known: the mean label of the training rows."""

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        self.mean_ = float(np.average(y, weights=weight))

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return np.full(len(A), self.mean_)

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(zeros, the margin): no feature adds anything."""
        return np.zeros(A.shape), float(self.margins(self.typical_.to_numpy()[None])[0])


class BaseRate(_Everyone, ProbabilityCandidate):
    """The share of true in training, for everyone."""

    name = "base_rate"


class MeanAmount(_Everyone, AmountCandidate):
    """The mean amount in training, for everyone."""

    name = "mean"


class RFMLogistic(ProbabilityCandidate):
    """Logistic regression (L2, C = 1) on the standardised logs of recency, orders and spend of a year."""

    name = "rfm_logistic"
    requires = RFM

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        model = LogisticRegression(C=1.0, max_iter=1000)
        self.pipeline_ = _fit_weighted(_standardised(model), logs(X.to_numpy(), self.requires), y, weight)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return linear(self.pipeline_[1], _scaled(self.pipeline_, logs(A, self.requires)))


class Recency(RFMLogistic):
    """Logistic regression on log(1 + days since the last order) and nothing else."""

    name = "recency"
    requires = ("days_since_order",)


class TargetLogistic(RFMLogistic):
    """Logistic regression on the standardised logs of a target's own recency and frequency beside those of all orders.

    Who bought coffee lately and often buys coffee: what a model of coffee has to beat.
    """

    name = "target_rfm"

    def __init__(self, horizon_days: float, target: str):
        super().__init__(horizon_days)
        self.target = target

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        return (f"days_since_{self.target}", f"{self.target}_facts_90d", f"{self.target}_facts_365d", *RFM)


class SpendLogistic(RFMLogistic):
    """Logistic regression on log(1 + spend of a year) and nothing else: who bought most is the likeliest."""

    name = "past_spend"
    requires = ("spend_365d",)


class PastSpend(AmountCandidate):
    """The next horizon will be like the past year: its spend, times horizon / 365. Learns nothing.

    A newcomer's days are not stretched to a year: whoever ordered once, yesterday, has no rate of an order per day. The
    first order is there because we look at customers, so a rate over the days since then promises several times too
    much; this promises too little only where the business itself is younger than a year.
    """

    name = "past_spend"
    requires = ("spend_365d",)

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        """Nothing to learn."""

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(A[:, 0]), 0.0, A[:, 0]) * self.horizon_days / 365.0


class RFMTweedie(AmountCandidate):
    """Tweedie regression (log link, power 1.5: a Poisson number of gamma amounts) on the same logs as RFMLogistic.

    Jørgensen, The Theory of Dispersion Models (1997). Labels below 0 count as 0.
    """

    name = "rfm_tweedie"
    requires = RFM

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        amount = np.maximum(y, 0.0)
        # In units of the mean, so that the penalty means the same in cents and in thousands.
        self.scale_ = float(np.average(amount, weights=weight))
        model = TweedieRegressor(power=1.5, link="log", alpha=1e-3, max_iter=1000)
        given = logs(X.to_numpy(), self.requires)
        self.pipeline_ = _fit_weighted(_standardised(model), given, amount / self.scale_, weight)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        margin = line(self.pipeline_[1], _scaled(self.pipeline_, logs(A, self.requires)))
        return np.exp(np.minimum(margin, FARTHEST)) * self.scale_
