"""Will they buy again, and for how much, by the classic "buy till you die" models of models.estimators.lifetime."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from foretell.errors import DataError
from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate, linear
from models.estimators.lifetime import BGNBD, MBGNBD, GammaGamma, ParetoNBD
from models.explain import subsets, values_of

ABOUT = 1.5  # times as many: a season's difference, not another unit
NONE = 1e-6  # purchases: as good as none are expected
HISTORY = ("order_days_ever", "days_first_to_last_order", "days_since_first_order")


class _BuyTillYouDie(Candidate):
    """What all these estimators share: histories in days, and an answer for profiles that have none.

    The labels shape no model, so that the histories of those who will be asked about, `now`, serve best: they are the
    most recent ones. Where `now` is not given, or tells nothing as nobody in it came back, those of X do.

    A profile without a complete history (never ordered, a NaN) gets the mean label of such profiles in training,
    shrunk towards the mean label of all by one row's weight. After `fit`: purchases_ (times in days), newcomer_.
    """

    purchases: ClassVar[type[BGNBD] | type[ParetoNBD]]
    told_as: ClassVar[dict[str, str]] = {HISTORY[1]: "days_since_order"}

    def __init__(self, horizon_days: float, *, penalizer: float = 0.0):
        super().__init__(horizon_days)
        self.penalizer = penalizer

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        A = X.to_numpy()
        known = _complete(A)
        overall = np.average(y, weights=weight)
        self.newcomer_ = float((weight[~known] @ y[~known] + overall) / (weight[~known].sum() + 1))
        histories, counts = A[known], weight[known]
        lately = A[:0] if now is None else now.to_numpy()
        if self._telling(asked := lately[_complete(lately)]).sum() > 1:
            histories, counts = asked, np.ones(len(asked))
        self._fit_models(histories, counts)
        self._fit_labels(A[known], y[known], weight[known])

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base) against a typical history: see `effects_of`."""
        return self.effects_of(self.margins, A, self.typical_.to_numpy())

    def effects_of(
        self, of: Callable[[np.ndarray], np.ndarray], A: np.ndarray, typical: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Shapley values of how often one orders, how long ago the last order is, and the value of one; n rows each.

        of: the margin of rows of histories. Its columns are no reasons by themselves: the span from the first order to
        the last raises what the time since the first lowers. So the number of orders goes with the time since the first
        (as `order_days_ever`), and the time since the last is one of its own (as `days_since_order`, where it is known;
        in the place of the span).
        """
        count, span, since = range(len(HISTORY))
        players = [[count, since], [span], *([place] for place in range(len(HISTORY), A.shape[1]))]
        rows, usual = _with_ago(A), _with_ago(typical[None])
        whose = subsets(len(players))
        taken = np.zeros((len(whose), A.shape[1]), dtype=bool)
        for player, places in enumerate(players):
            taken[:, places] = whose[:, [player]]
        mixed = np.where(taken[:, None, :], rows, usual)
        mixed[:, :, span] = np.maximum(mixed[:, :, since] - mixed[:, :, span], 0.0)
        margins = of(mixed.reshape(-1, A.shape[1])).reshape(len(whose), len(A))
        found = np.zeros(A.shape)
        found[:, [places[0] for places in players]] = values_of(margins)
        return found, float(of(typical[None])[0])

    def _predict(self, A: np.ndarray) -> np.ndarray:
        known = _complete(A)
        if known.all():
            return self._predict_known(A)
        answer = np.full(len(A), self.newcomer_)
        answer[known] = self._predict_known(A[known])
        return answer

    def _telling(self, A: np.ndarray) -> np.ndarray:
        """(n,) bool: the complete histories that say how often one comes back."""
        x, _, T = _history(A)
        return (x > 0) & (T > 0)

    def _fit_models(self, A: np.ndarray, weight: np.ndarray) -> None:
        """Learn from complete histories how people buy."""
        self.purchases_ = self.purchases.fit(*_history(A), weight, self.penalizer)

    def _fit_labels(self, A: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        """Learn from complete histories and their labels what the models leave open: nothing."""

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class _Probability(_BuyTillYouDie, ProbabilityCandidate):
    """P(at least one purchase within the horizon), or of none where the label means that.

    The labels only tell the direction: orientation_ is 1 where true goes with a purchase, -1 where it goes with none
    ("churned"), by the sign of their covariance with P.
    """

    requires = HISTORY

    def _fit_labels(self, A: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        if not weight.any():
            raise DataError(
                self.name,
                "expected labels of profiles that ordered, to see whether true means a purchase or none, got none",
                "take later cutoffs, or leave this estimator out",
            )
        buys = self._buys(A)
        mean_buys, mean_y = np.average(buys, weights=weight), np.average(y, weights=weight)
        covariance = weight @ ((buys - mean_buys) * (y - mean_y))
        # No covariance (all histories or labels alike): the direction in which the means agree better.
        sign = covariance or abs(1 - mean_buys - mean_y) - abs(mean_buys - mean_y)
        self.orientation_ = 1 if sign >= 0 else -1

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        buys = self._buys(A)
        return buys if self.orientation_ == 1 else 1 - buys

    def _buys(self, A: np.ndarray) -> np.ndarray:
        return self.purchases_.probability_of_purchase(self.horizon_days, *_history(A))


class _Logistic(_BuyTillYouDie, ProbabilityCandidate):
    """Logistic regression on the log of the expected number of purchases: of as many, who buys at all?

    The models say that too, but people's purchases are bunched otherwise than theirs. What is learned at one horizon
    holds of another, as it hangs on the number alone. After `fit`, also: logistic_.
    """

    requires = HISTORY

    def _fit_labels(self, A: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        if len(np.unique(y[weight > 0])) < 2:
            raise DataError(
                self.name, "expected outcomes of both kinds among profiles that ordered, got one",
                "take later cutoffs, or leave this estimator out",
            )  # fmt: skip
        self.logistic_ = LogisticRegression(C=1e6).fit(self._log_expected(A), y, sample_weight=weight)

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        return linear(self.logistic_, self._log_expected(A))

    def _log_expected(self, A: np.ndarray) -> np.ndarray:
        expected = self.purchases_.expected_purchases(self.horizon_days, *_history(A))
        return np.log(np.maximum(expected, NONE))[:, None]


class _Amount(_BuyTillYouDie, AmountCandidate):
    """E[purchases within the horizon], times E[value of one] by Gamma-Gamma.

    The value model is fitted on profiles with a repeat purchase, as Fader & Hardie (2013) do, with the mean over all
    their purchases. After `fit`, also: values_ (gamma in the unit of spend).
    """

    requires = (*HISTORY, "mean_spend_per_order_day_ever")  # in this order: see _values

    def _telling(self, A: np.ndarray) -> np.ndarray:
        return super()._telling(A) & (_values(A)[1] > 0)

    def _fit_models(self, A: np.ndarray, weight: np.ndarray) -> None:
        super()._fit_models(A, weight)
        n, mean = _values(A)
        use = (n > 1) & (mean > 0)
        self.values_ = GammaGamma.fit(n[use], mean[use], weight[use], self.penalizer)

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        purchases = self.purchases_.expected_purchases(self.horizon_days, *_history(A))
        return purchases * self.values_.expected_value(*_values(A))


class _Purchases(_BuyTillYouDie, AmountCandidate):
    """E[purchases within the horizon], each of them worth the same: for labels that count, and where no money is known.

    After `fit`, also: worth_, what the labels came to, over the purchases expected; 1 where they count purchases, that
    is are whole numbers and come to about as many.
    """

    requires = HISTORY

    def _fit_labels(self, A: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        expected = float(weight @ self._expected(A))
        worth = float(weight @ np.maximum(y, 0.0)) / expected if expected > 0 else 1.0
        self.worth_ = 1.0 if (y == np.round(y)).all() and 1 / ABOUT < worth < ABOUT else worth

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        return self.worth_ * self._expected(A)

    def _expected(self, A: np.ndarray) -> np.ndarray:
        return self.purchases_.expected_purchases(self.horizon_days, *_history(A))


class BGNBDProbability(_Probability):
    """By BG/NBD: one may leave after each repeat purchase."""

    name, purchases = "bg_nbd", BGNBD


class ParetoNBDLogistic(_Logistic):
    """By Pareto/NBD."""

    name, purchases = "pareto_nbd_logistic", ParetoNBD


class MBGNBDProbability(_Probability):
    """By MBG/NBD: one may leave after each purchase, the first included."""

    name, purchases = "mbg_nbd", MBGNBD


class ParetoNBDProbability(_Probability):
    """By Pareto/NBD: one may leave at any moment."""

    name, purchases = "pareto_nbd", ParetoNBD


class BGNBDPurchases(_Purchases):
    """By BG/NBD."""

    name, purchases = "bg_nbd", BGNBD


class MBGNBDPurchases(_Purchases):
    """By MBG/NBD."""

    name, purchases = "mbg_nbd", MBGNBD


class ParetoNBDPurchases(_Purchases):
    """By Pareto/NBD."""

    name, purchases = "pareto_nbd", ParetoNBD


class BGNBDGammaGamma(_Amount):
    """By BG/NBD and Gamma-Gamma."""

    name, purchases = "bg_nbd_gamma_gamma", BGNBD


class BGNBDSpend(BGNBDGammaGamma):
    """Half by BG/NBD and Gamma-Gamma, half by what the past year was worth.

    The former takes whoever came once, lately, for one who comes often, and regresses the best towards the mean; the
    latter does neither, and errs on the other side of both.
    """

    name = "bg_nbd_spend"
    requires = (*BGNBDGammaGamma.requires, "spend_365d")

    def _predict_known(self, A: np.ndarray) -> np.ndarray:
        past = np.maximum(A[:, self.requires.index("spend_365d")], 0.0) * self.horizon_days / 365.0
        return (super()._predict_known(A) + past) / 2


class MBGNBDGammaGamma(_Amount):
    """By MBG/NBD and Gamma-Gamma."""

    name, purchases = "mbg_nbd_gamma_gamma", MBGNBD


class ParetoNBDGammaGamma(_Amount):
    """By Pareto/NBD and Gamma-Gamma."""

    name, purchases = "pareto_nbd_gamma_gamma", ParetoNBD


def _with_ago(A: np.ndarray) -> np.ndarray:
    """Rows of histories with the days since the last order in the place of the span from the first to it."""
    found = A.copy()
    found[:, 1] = A[:, 2] - A[:, 1]
    return found


def _complete(A: np.ndarray) -> np.ndarray:
    """(n,) bool: rows of a profile that ordered, with nothing unknown. Their first columns are HISTORY."""
    return ~np.isnan(A).any(axis=1) & (A[:, 0] >= 1)


def _history(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, t_x, T in days, made consistent: an explanation mixes columns of two profiles, say x = 0 with t_x = 90."""
    x = A[:, 0] - 1
    T = np.maximum(A[:, 2], 0.0)
    t_x = np.where(x > 0, np.clip(A[:, 1], 0.0, T), 0.0)
    return x, t_x, T


def _values(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of purchases and their mean value; a mean below 0 (more returned than bought) counts as 0."""
    return A[:, 0], np.maximum(A[:, 3], 0.0)
