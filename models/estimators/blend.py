"""What do models of different kinds say together? The mean of their margins: each is wrong in its own way.

A model of purchase histories needs no labels, so that it knows the present; trees that start from it learn what it
leaves unexplained, and find steps and interactions; a regression on logs goes on where trees stop. They are weighed
alike: of a few thousand noisy outcomes, weights that are learned are worse than none (Clemen, Combining forecasts,
1989).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import clone
from sklearn.metrics import log_loss, mean_tweedie_deviance

from foretell.errors import DataError
from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate
from models.estimators.baselines import PastSpend
from models.estimators.boosting import LightGBMAmount, LightGBMProbability
from models.estimators.btyd import BGNBDGammaGamma, BGNBDProbability
from models.estimators.linear import POWER, LogLogistic, LogTweedie
from models.explain import level, margin, split


class _Blend(Candidate):
    """The mean margin of several models, each fitted on the same rows.

    tuned: parameters of the trees that differ from their defaults. categorical: columns whose numbers are codes of
    text.
    After `fit`: parts_, name -> fitted model; skipped_, name -> why it is none; level_, what is added to the mean.
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

    def _given(self) -> dict[str, Any]:
        """What the trees are told."""
        plain: dict[str, Any] = {"categorical": self.categorical, "num_threads": self.num_threads, "seed": self.seed}
        return {**plain, **(self.tuned or {})}

    def _simple(self) -> list[Candidate]:
        """Those that know what to say without having learned it; the trees start from the first that fits."""
        raise NotImplementedError

    def _trees(self, prior: Candidate | None) -> Candidate:
        raise NotImplementedError

    def _line(self) -> Candidate:
        """A regression on logs."""
        raise NotImplementedError

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        raise NotImplementedError

    def _said(self, part: Any, X: pd.DataFrame) -> np.ndarray:
        raise NotImplementedError

    def _fit(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None,
        places: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.parts_: dict[str, Any] = {}
        self.skipped_: dict[str, str] = {}
        prior: Any = None
        for part in self._simple():
            if not set(part.requires) <= set(X.columns):
                continue
            try:
                self._check(part.fit(X, y, weight, now), X, y, weight)
                self.parts_[part.name] = part
                prior = prior or clone(part)
            except DataError as error:  # no repeat purchases yet, say: the others can do without
                self.skipped_[part.name] = str(error)
        for name, part in {"trees": self._trees(prior), "line": self._line()}.items():
            self.parts_[name] = part.fit(X, y, weight, now, places)
        self.level_ = 0.0
        self.level_ = self._level(now)

    def _level(self, now: pd.DataFrame | None) -> float:
        return 0.0

    def _check(self, part: Any, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        """Refuse a part where the label is about something else than it is: one answer for all is nearer then."""
        nothing = np.full(len(y), np.average(y, weights=weight))
        if not self._loss(y, self._said(part, X), weight) < self._loss(y, nothing, weight):
            raise DataError(part.name, "says less of these labels than their mean does", "leave it out")

    def _margin(self, X: pd.DataFrame) -> np.ndarray:
        said = [part._margin(X) if hasattr(part, "_margin") else margin(part, X) for part in self.parts_.values()]
        return np.mean(said, axis=0) + self.level_

    def margin_contributions(self, X: pd.DataFrame) -> tuple[pd.DataFrame, float]:
        """(contributions, base): the mean of its parts' own; row sum + base = margin. See LightGBM's."""
        columns = pd.Index(self.columns_)
        total, base = pd.DataFrame(0.0, X.index, columns), self.level_
        for part in self.parts_.values():
            found, start = split(part, X, self.typical_)
            total[found.columns] += found / len(self.parts_)
            base += start / len(self.parts_)
        return total, base


class BlendProbability(_Blend, ProbabilityCandidate):
    """BG/NBD, trees that start from it and logistic regression on logs, as the mean of their log-odds.

    What is learned from labels has the level of the months that they are of. BG/NBD has that of all purchases known by
    now, so the blend is moved until it foretells the same mean for those who will be asked about.
    """

    by_cutoff = True

    def _simple(self) -> list[Candidate]:
        return [BGNBDProbability(self.horizon_days)]

    def _trees(self, prior: Candidate | None) -> Candidate:
        return LightGBMProbability(self.horizon_days, prior=prior, **self._given())

    def _line(self) -> Candidate:
        return LogLogistic(self.horizon_days, categorical=self.categorical)

    def _level(self, now: pd.DataFrame | None) -> float:
        history = self.parts_.get(BGNBDProbability.name)
        if now is None or history is None:
            return 0.0
        return level(self._margin(now), float(self._said(history, now).mean()))

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        return float(log_loss(y, predicted, sample_weight=weight))

    def _said(self, part: Any, X: pd.DataFrame) -> np.ndarray:
        return part.predict_proba(X)[:, 1]

    def _predict(self, X: pd.DataFrame) -> np.ndarray:
        return expit(self._margin(X))


class BlendAmount(_Blend, AmountCandidate):
    """BG/NBD × Gamma-Gamma, past spend, trees that start from the former, and Tweedie regression on logs.

    Their geometric mean: of an amount, orders of magnitude are what is hard to know.
    """

    def _simple(self) -> list[Candidate]:
        return [BGNBDGammaGamma(self.horizon_days), PastSpend(self.horizon_days)]

    def _trees(self, prior: Candidate | None) -> Candidate:
        return LightGBMAmount(self.horizon_days, prior=prior, **self._given())

    def _line(self) -> Candidate:
        return LogTweedie(self.horizon_days, categorical=self.categorical)

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        return mean_tweedie_deviance(
            np.maximum(y, 0.0), np.maximum(predicted, 1e-9), sample_weight=weight,
            power=POWER,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip

    def _said(self, part: Any, X: pd.DataFrame) -> np.ndarray:
        return part.predict(X)

    def _predict(self, X: pd.DataFrame) -> np.ndarray:
        return np.exp(self._margin(X))
