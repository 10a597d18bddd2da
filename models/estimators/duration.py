"""How many days until it happens? Survival models, whose answer is the mean time, counting at most the horizon.

Everyone is watched for the whole horizon, so whoever has no event by its end is censored there, and nowhere else. A
model gives each profile a curve: the probability that nothing has happened by a day. The area under it is the expected
time within the horizon (restricted mean survival time: Royston & Parmar, BMC Medical Research Methodology 13, 2013).

Models of hazards are proportional: a profile's hazard is the baseline's, times a factor that its features give (Cox,
Journal of the Royal Statistical Society B 34, 1972). With the baseline at hand, the likelihood is that of a Poisson
number of events, one or none, with the baseline's cumulative hazard as exposure (Holford, Biometrics 36, 1980): any
Poisson regression learns the factors. The baseline in turn is Breslow's, given the factors (discussion of Cox, 1972).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from sklearn.base import RegressorMixin
from sklearn.linear_model import PoissonRegressor

from foretell.errors import DataError
from models.estimators.base import Candidate
from models.estimators.boosting import _LightGBM
from models.estimators.btyd import HISTORY, _BuyTillYouDie, _complete, _history
from models.estimators.lifetime import BGNBD
from models.estimators.linear import _OnLogs
from models.explain import told

STEPS = 91  # moments of the horizon at which a curve is known; between them it is a line
LEAST = 1e-6  # an exposure below counts as this: who orders within the hour was watched for some of it
ROUNDS, NEAR = 20, 1e-6  # of factors and baseline in turn, and the change of the coefficients that ends them
REACH = 5.0  # of the log of a baseline: how far it may be moved
FARTHEST = 30.0  # of the log of a hazard from the baseline's


class DurationCandidate(RegressorMixin, Candidate):
    """A candidate for the days until something happens; labels are days, the horizon for those who had to wait longer.

    A subclass writes `_survival`. The margin, on which contributions add up, is minus the log of the cumulative hazard
    at the horizon: a day more for all is the same whoever it is added to, and a longer time is a greater margin.
    """

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """(n,): the expected days until the event, each wait counting at most the horizon."""
        return self._answer(X)

    def answers(self, A: np.ndarray) -> np.ndarray:
        return np.clip(self._predict(A), 0.0, self.horizon_days)

    def margins(self, A: np.ndarray) -> np.ndarray:
        return self._margin(A)

    def survival(self, X: pd.DataFrame, days: np.ndarray) -> np.ndarray:
        """(n, len(days)): the probability that nothing has happened within so many days, each from 0 to the horizon."""
        curve, moments = self._survival(self.read(X)), self._moments
        return np.array([np.interp(days, moments, row) for row in curve]).reshape(len(X), len(days))

    def _survival(self, A: np.ndarray) -> np.ndarray:
        """(n, STEPS): the curve at `_moments`."""
        raise NotImplementedError

    def _margin(self, A: np.ndarray) -> np.ndarray:
        last = np.clip(self._survival(A)[:, -1], 1e-12, 1 - 1e-12)
        return -np.log(-np.log(last))

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return np.trapezoid(self._survival(A), self._moments, axis=1)

    @property
    def _moments(self) -> np.ndarray:
        return np.linspace(0.0, self.horizon_days, STEPS)

    def _check_target(self, y: np.ndarray) -> None:
        if (y < 0).any() or (y > self.horizon_days).any() or not (y < self.horizon_days).any():
            raise DataError(
                self.name,
                f"expected days from 0 to the horizon of {self.horizon_days:g}, some of them below it, got "
                f"{y.min():g} to {y.max():g}",
                "let whoever had to wait longer count as the horizon, and take more or other cutoffs if everybody did",
            )


class _Proportional(DurationCandidate):
    """A curve for all, and a factor of the hazard for each.

    After `fit`: baseline_ (STEPS,), the curve's cumulative hazard at `_moments`.

    A subclass writes `_log_factor`.
    """

    baseline_: np.ndarray

    def _log_factor(self, A: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _breslow(self, y: np.ndarray, weight: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cumulative hazard at `_moments`, and at each y.

        Of each moment that had events, their weight over that of those at risk then.
        """
        order = np.argsort(y, kind="stable")
        days, events = y[order], np.where(y < self.horizon_days, weight, 0.0)[order]
        risk = (weight * factor)[order][::-1].cumsum()[::-1]
        first = np.searchsorted(days, days, side="left")  # who has an event on the same day is at risk with all of it
        hazard = np.cumsum(events / np.maximum(risk[first], 1e-12))
        reached = np.append(0.0, hazard)
        return tuple(reached[np.searchsorted(days, at, side="right")] for at in (self._moments, y))  # pyright: ignore

    def _exposed(self, y: np.ndarray, reached: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(events per unit of exposure, exposure) of each row: what a Poisson regression learns from."""
        exposure = np.maximum(reached, LEAST)
        return np.where(y < self.horizon_days, 1.0, 0.0) / exposure, exposure

    def _survival(self, A: np.ndarray) -> np.ndarray:
        return np.exp(-np.exp(np.clip(self._log_factor(A), -FARTHEST, FARTHEST))[:, None] * self.baseline_)

    def _margin(self, A: np.ndarray) -> np.ndarray:
        return -self._log_factor(A) - np.log(self.baseline_[-1])


class Everyone(_Proportional):
    """The same curve for everyone: that of all training rows (Kaplan & Meier's, nearly)."""

    name = "mean"

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        self.baseline_, _ = self._breslow(y, weight, np.ones(len(y)))

    def _log_factor(self, A: np.ndarray) -> np.ndarray:
        return np.zeros(len(A))

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(zeros, the margin): no feature adds anything."""
        return np.zeros(A.shape), -float(np.log(self.baseline_[-1]))


class LogCox(_Proportional, _OnLogs):
    """Proportional hazards, linear in the signed logs of all features.

    penalty: of the squared coefficients, in units of a row's mean deviance. Factors and baseline are fitted in turn
    until they agree, which is where Cox's partial likelihood is largest.
    """

    name = "log_cox"

    def __init__(self, horizon_days: float, *, penalty: float = 0.01, categorical: tuple[str, ...] = ()):
        super().__init__(horizon_days, penalty=penalty, categorical=categorical)

    def _learn(self, Z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        model = PoissonRegressor(alpha=self.penalty, solver="newton-cholesky", max_iter=200, warm_start=True)
        before = np.zeros(Z.shape[1])
        self.baseline_, reached = self._breslow(y, weight, np.ones(len(y)))
        for _ in range(ROUNDS):
            rate, exposure = self._exposed(y, reached)
            model.fit(Z, rate, sample_weight=weight * exposure)
            model.intercept_ = 0.0  # the baseline has the level
            factor = np.exp(np.clip(Z @ model.coef_, -FARTHEST, FARTHEST))
            self.baseline_, reached = self._breslow(y, weight, factor)
            if np.abs(model.coef_ - before).max(initial=0.0) < NEAR:
                break
            before = model.coef_.copy()
        return model

    def _log_factor(self, A: np.ndarray) -> np.ndarray:
        return self._terms(A).sum(axis=1)

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base), as of a regression on logs, with the sign of the margin."""
        added, start = _OnLogs.effects(self, A)
        return -added, -start - float(np.log(self.baseline_[-1]))


class RecencyCox(LogCox):
    """Proportional hazards on the logs of the days since the last order and nothing else."""

    name = "recency"
    requires = ("days_since_order",)


class UsualGap(LogCox):
    """Proportional hazards on the logs of a profile's usual gap and of the days since the last order."""

    name = "usual_gap"
    requires = ("mean_gap_days_ever", "days_since_order")


class RFMCox(LogCox):
    """Proportional hazards on the logs of recency, orders and spend of a year."""

    name = "rfm_cox"
    requires = ("days_since_order", "orders_365d", "spend_365d")


class BGNBDDuration(_BuyTillYouDie, DurationCandidate):
    """By BG/NBD: the probability of no purchase within so many days, from the history of purchases alone."""

    name, purchases = "bg_nbd", BGNBD
    requires = HISTORY

    def _survival(self, A: np.ndarray) -> np.ndarray:
        known = _complete(A)
        # Of whom no history is known, the curve that falls evenly to the mean of those like them.
        curve = np.ones((len(A), STEPS))
        curve[~known] = 1 - 2 * (1 - self.newcomer_ / self.horizon_days) * np.linspace(0, 1, STEPS)
        history = [values[:, None] for values in _history(A[known])]
        curve[known] = 1 - self.purchases_.probability_of_purchase(self._moments, *history)  # pyright: ignore
        return np.clip(curve, 0.0, 1.0)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return DurationCandidate._predict(self, A)


class LightGBMDuration(_Proportional, _LightGBM):
    """Boosted log of the factor of the hazard."""

    objective: ClassVar[dict[str, str | float]] = {"objective": "poisson"}

    def _fit(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None,
        places: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.baseline_, reached = self._breslow(y, weight, np.ones(len(y)))
        for callbacks in ((), self.callbacks):  # the second time from the baseline that goes with the factors
            self.callbacks = callbacks
            rate, exposure = self._exposed(y, reached)
            _LightGBM._fit(self, X, rate, weight * exposure, now)
            self.baseline_, reached = self._breslow(y, weight, np.exp(self._log_factor(X.to_numpy())))

    def _log_factor(self, A: np.ndarray) -> np.ndarray:
        return _LightGBM._margin(self, A)

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base), as of the trees, with the sign of the margin."""
        added, start = _LightGBM.effects(self, A)
        return -added, -start - float(np.log(self.baseline_[-1]))


class BlendDuration(_Proportional):
    """BG/NBD, trees and linear proportional hazards: the mean of their margins as one factor, with its own baseline.

    The baseline is moved until the blend foretells those who will be asked about the same mean as BG/NBD, which knows
    the purchases of the last months too: labels are of the months before.
    tuned: parameters of the trees that differ from their defaults. categorical: columns whose numbers are codes of
    text. After `fit`: parts_, name -> fitted model; places_, name -> which columns it reads; told_, name -> which
    columns its effects are told as; skipped_, name -> why it is none.
    """

    name = "blend"

    def __init__(
        self, horizon_days: float, *, tuned: Mapping[str, Any] | None = None, categorical: tuple[str, ...] = (),
        num_threads: int = 2, seed: int = 0,
    ):  # fmt: skip
        super().__init__(horizon_days)
        self.tuned = tuned
        self.categorical = categorical
        self.num_threads = num_threads
        self.seed = seed

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        given: dict[str, Any] = {"categorical": self.categorical, "num_threads": self.num_threads, "seed": self.seed}
        made: dict[str, Any] = {
            "trees": LightGBMDuration(self.horizon_days, **{**given, **(self.tuned or {})}),
            "line": LogCox(self.horizon_days, categorical=self.categorical),
        }
        if set(HISTORY) <= set(X.columns):
            made = {BGNBDDuration.name: BGNBDDuration(self.horizon_days), **made}
        self.parts_: dict[str, Any] = {}
        self.skipped_: dict[str, str] = {}
        for name, part in made.items():
            try:
                self.parts_[name] = part.fit(X, y, weight, now)
                self._check(part, X, y, weight)
            except DataError as error:
                self.skipped_[name] = str(error)
                self.parts_.pop(name, None)
        if not self.parts_:
            raise DataError(self.name, "none of its parts could be fitted", "; ".join(self.skipped_.values()))
        at = {column: place for place, column in enumerate(X.columns)}
        self.places_ = {name: np.array([at[c] for c in part.columns_]) for name, part in self.parts_.items()}
        self.told_ = {name: np.array([at[c] for c in told(part, at)]) for name, part in self.parts_.items()}
        self.baseline_, _ = self._breslow(y, weight, np.exp(self._log_factor(X.to_numpy())))
        history = self.parts_.get(BGNBDDuration.name)
        if now is not None and history is not None:
            factor, mean = np.exp(self._log_factor(now.to_numpy())), float(history.predict(now).mean())

            def apart(by: float) -> float:
                curves = np.exp(-factor[:, None] * (np.exp(by) * self.baseline_))
                return float(np.trapezoid(curves, self._moments, axis=1).mean()) - mean

            if apart(-REACH) * apart(REACH) < 0:
                moved = brentq(apart, -REACH, REACH)
                self.baseline_ = self.baseline_ * np.exp(float(moved))  # pyright: ignore[reportArgumentType]

    def _check(self, part: Any, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        """Refuse a part where something else is waited for than it foretells: one answer for all is nearer then."""
        apart = np.average((y - part.predict(X)) ** 2, weights=weight)
        if apart >= np.average((y - np.average(y, weights=weight)) ** 2, weights=weight):
            raise DataError(part.name, "says less of these labels than their mean does", "leave it out")

    def _log_factor(self, A: np.ndarray) -> np.ndarray:
        said = np.mean([part.margins(A[:, self.places_[name]]) for name, part in self.parts_.items()], axis=0)
        return np.clip(-said, -FARTHEST, FARTHEST)

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base): the mean of its parts' own; see Candidate."""
        total, base = np.zeros(A.shape), -float(np.log(self.baseline_[-1]))
        for name, part in self.parts_.items():
            added, start = part.effects(A[:, self.places_[name]])
            total[:, self.told_[name]] += added / len(self.parts_)
            base += start / len(self.parts_)
        return total, base
