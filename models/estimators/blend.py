"""What do models of different kinds say together? The mean of their margins: each is wrong in its own way.

A model of purchase histories needs no labels, so that it knows the present; a regression on logs goes on where trees
stop. Trees start from what such a model says, and learn what it leaves unexplained. All are weighed alike: of a few
thousand noisy outcomes, weights that are learned are worse than none (Clemen, Combining forecasts, 1989).

How much happens in all changes from month to month, and the labels are of months that have passed. So the level is set
apart from who comes before whom: by the latest labels, and by what the histories known by now foretell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.metrics import log_loss, mean_tweedie_deviance

from foretell.errors import DataError
from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate
from models.estimators.boosting import LightGBMAmount, LightGBMProbability
from models.estimators.btyd import BGNBDProbability, BGNBDSpend
from models.estimators.linear import POWER, LogLogistic, LogTweedie
from models.explain import told

FADING = 0.7  # what a row counts to trees and regressions, of one that was asked a cutoff later
REACH = 6.0  # how far from the mean a history may be, on the margin: beyond, it is as good as certain
FARTHEST = 20.0  # that a level is moved, on the margin
DRIFT = 0.5  # on the margin
TOGETHER = 4_096  # rows that are asked about at a time: what is worked out of them stays in the processor's caches
ENOUGH = 200  # rows of the latest cutoff, to tell a level by their labels
YEAR = 365.0


class _Blend(Candidate):
    """The mean margin of several opinions: of a model of histories, and of trees, each after what they started from.

    tuned: parameters of the trees that differ from their defaults. categorical: columns whose numbers are codes of
    text.
    After `fit`: parts_, name -> fitted model; places_, name -> which columns it reads; told_, name -> which columns its
    effects are told as; shares_, name -> its share in
    the margin; skipped_, name -> why it has no opinion of its own; level_, what is added to the margin; middle_, the
    margin of the mean label; stretch_, how many times farther from there than the model of histories says.
    """

    name = "blend"
    line_stands: ClassVar[bool] = False
    """Whether the regression on logs has an opinion of its own, beside being what trees start from."""
    by_cutoff = True

    def __init__(
        self, horizon_days: float, *, tuned: Mapping[str, Any] | None = None, categorical: tuple[str, ...] = (),
        num_threads: int = 2, seed: int = 0,
    ):  # fmt: skip
        super().__init__(horizon_days)
        self.tuned = tuned
        self.categorical = categorical
        self.num_threads = num_threads
        self.seed = seed

    def _history(self) -> Any:
        """The model of purchase histories, unfitted."""
        raise NotImplementedError

    def _line(self) -> Any:
        """The regression on logs, unfitted."""
        raise NotImplementedError

    def _trees(self, **given: Any) -> Any:
        raise NotImplementedError

    def _starts(self, known: bool, stands: bool) -> list[str]:
        """What trees start from: "history" if it is known, "line", or "" for nothing. stands: whether it is a part."""
        raise NotImplementedError

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        raise NotImplementedError

    def _slope(self) -> Any:
        """A regression of labels on the margin, unfitted."""
        raise NotImplementedError

    def _to_margin(self, mean: float) -> float:
        raise NotImplementedError

    def _from_margin(self, said: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _fit(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None,
        places: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        ago = None if places is None else places.max() - places
        lately = weight if ago is None else weight * FADING**ago
        self.middle_ = self._to_margin(float(np.average(np.maximum(y, 0.0), weights=lately)))
        self.skipped_: dict[str, str] = {}
        known: dict[str, Any] = {}
        history, self.stretch_ = self._history(), 1.0
        if set(history.requires) <= set(X.columns):
            try:
                known["history"] = history.fit(X, y, weight, now)
                self.stretch_ = self._stretch(self._plain(history, history.read(X)) - self.middle_, y, lately)
                self._check(history, X, y, weight)
            except DataError as error:  # no repeat purchases yet, say: the others can do without
                self.skipped_[history.name] = str(error)
        stands = "history" in known and not self.skipped_
        opinions = [["history"]] if stands else []
        for start in self._starts("history" in known, stands):
            if start == "line":
                known[start] = self._line().fit(X, y, lately, cutoffs=places)
            trees = f"trees_after_{start}" if start else "trees"
            given = {"categorical": self.categorical, "num_threads": self.num_threads, "seed": self.seed}
            said = self._said(known[start], known[start].read(X)) if start else None
            known[trees] = self._trees(**{**given, **(self.tuned or {})}).fit(X, y, lately, cutoffs=places, start=said)
            opinions.append([start, trees] if start else [trees])
        if self.line_stands and "line" in known:
            opinions.append(["line"])
        voices = Counter(name for opinion in opinions for name in opinion)
        self.parts_ = {name: known[name] for name in voices}
        self.shares_ = {name: count / len(opinions) for name, count in voices.items()}
        at = {column: place for place, column in enumerate(X.columns)}
        self.places_ = {name: np.array([at[c] for c in part.columns_]) for name, part in self.parts_.items()}
        self.told_ = {name: np.array([at[c] for c in told(part, at)]) for name, part in self.parts_.items()}
        self.level_ = 0.0
        self.level_ = self._level(X, np.maximum(y, 0.0), weight, now if stands else None, ago)
        if now is not None and not stands:
            self.level_ += self._within(now, float(np.average(np.maximum(y, 0.0), weights=lately)))

    def _check(self, part: Any, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray) -> None:
        """Refuse a part where the label is about something else than it is: one answer for all is nearer then."""
        nothing = np.full(len(y), np.average(y, weights=weight))
        if not self._loss(y, self._from_margin(self._plain(part, part.read(X))), weight) < self._loss(
            y, nothing, weight
        ):
            raise DataError(part.name, "says less of these labels than their mean does", "leave it out")

    def _level(
        self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None, ago: np.ndarray | None
    ) -> float:
        """What moves the mean to where the histories of `now` want it, and the latest labels as far as they can tell.

        Of a yearly wave, what it was a while ago and what it is go together as the cosine of that part of a circle. So
        the month that has just passed counts nearly as much as the histories; a quarter or more tells nothing.
        """
        share, by = 0.0, 0.0
        A, latest = X.to_numpy(), np.zeros(len(y), dtype=bool) if ago is None else ago == 0
        if latest.sum() >= ENOUGH and len(np.unique(y[latest])) > 1:
            share = max(0.0, float(np.cos(2 * np.pi * min(self.horizon_days / YEAR, 0.5)))) / 2
            came = float(np.average(y[latest], weights=weight[latest]))
            by += share * self._apart(self._margin(A[latest]), came, weight[latest])
        if now is not None:
            history, asked = self.parts_["history"], now.to_numpy()
            foretold = self._from_margin(self._plain(history, history.read(now)))
            by += (1 - share) * self._apart(self._margin(asked), float(foretold.mean()), np.ones(len(now)))
        return by

    def _within(self, now: pd.DataFrame, mean: float) -> float:
        """What brings the mean for those who will be asked about to within DRIFT of the labels' own.

        Where no history says what is to be expected, a mean that is far from all that came is an extrapolation: of a
        shop's first months, say, when everybody's year of purchases is a month long.
        """
        apart = self._apart(self._margin(now.to_numpy()), mean, np.ones(len(now)))
        return apart - float(np.clip(apart, -DRIFT, DRIFT))

    def _apart(self, said: np.ndarray, mean: float, weight: np.ndarray) -> float:
        """What has to be added to margins for this mean."""
        found = brentq(
            lambda by: float(np.average(self._from_margin(said + by), weights=weight)) - mean, -FARTHEST, FARTHEST
        )
        return float(found)  # pyright: ignore[reportArgumentType]

    def _stretch(self, apart: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """The slope of the labels on what histories say, both on the margin: most often a little above 1, as such a
        model takes people for more alike than they are. Cox, Two further applications of a model for binary regression
        (Biometrika 45, 1958)."""
        slope = float(self._slope().fit(apart[:, None], np.maximum(y, 0.0), sample_weight=weight).coef_.item())
        return float(np.clip(slope, 0.5, 2.0))

    def _plain(self, history: Any, A: np.ndarray) -> np.ndarray:
        return np.clip(history.margins(A), self.middle_ - REACH, self.middle_ + REACH)

    def _said(self, part: Any, A: np.ndarray) -> np.ndarray:
        """The margin of a part, from the columns that it reads: of trees, without what they started from."""
        if hasattr(part, "_margin"):
            return part._margin(A)
        return self.middle_ + self.stretch_ * (self._plain(part, A) - self.middle_)

    def _margin(self, A: np.ndarray) -> np.ndarray:
        A, found = np.ascontiguousarray(A), np.empty(len(A))
        for start in range(0, len(A), TOGETHER):
            part = slice(start, start + TOGETHER)
            found[part] = self._margin_of_some(A[part])
        return found

    def _margin_of_some(self, A: np.ndarray) -> np.ndarray:
        # `take` gives rows that lie together, as parts want them; an index would give columns
        # of many rows columns that stand in order are not copied; of one, looking would cost more than copying
        everything = np.arange(A.shape[1]) if len(A) > 1 else None
        read = {
            n: A if everything is not None and np.array_equal(places, everything) else np.take(A, places, axis=1)
            for n, places in self.places_.items()
        }
        said = [self.shares_[n] * self._said(part, read[n]) for n, part in self.parts_.items()]
        return np.sum(said, axis=0) + self.level_

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return self._from_margin(self._margin(A))

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        """(effects, base): its parts' own, by their shares; see Candidate."""
        total, base = np.zeros(A.shape), self.level_
        for name, part in self.parts_.items():
            B = A[:, self.places_[name]]
            if name == "history":
                found, start = part.effects_of(partial(self._said, part), B, self._usual)
            else:
                found, start = part.effects(B)
            total[:, self.told_[name]] += self.shares_[name] * found
            base += self.shares_[name] * start
        return total, base

    @property
    def _usual(self) -> np.ndarray:
        """A typical history."""
        return self.typical_.to_numpy()[self.places_["history"]]


class BlendProbability(_Blend, ProbabilityCandidate):
    """BG/NBD, a logistic regression on logs, and trees that start from either and from the mean; of all the log-odds.

    Where BG/NBD has no say, as the label is about something else, trees correct what they are given all the same.
    """

    line_stands = True

    def _history(self) -> Any:
        return BGNBDProbability(self.horizon_days)

    def _line(self) -> Any:
        return LogLogistic(self.horizon_days, categorical=self.categorical)

    def _trees(self, **given: Any) -> Any:
        return LightGBMProbability(self.horizon_days, **given)

    def _starts(self, known: bool, stands: bool) -> list[str]:
        return ["history", "line", ""] if known else ["line", ""]

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        return float(log_loss(y, predicted, sample_weight=weight))

    def _slope(self) -> Any:
        return LogisticRegression(C=np.inf, max_iter=1000)

    def _to_margin(self, mean: float) -> float:
        return float(logit(mean))

    def _from_margin(self, said: np.ndarray) -> np.ndarray:
        return expit(said)


class BlendAmount(_Blend, AmountCandidate):
    """BG/NBD × Gamma-Gamma with past spend, and trees that start from there: their geometric mean.

    A few spend hundreds of times what others do. Trees and regressions that have to find that by themselves miss the
    largest amounts by far, so they are left to data without purchase histories.
    """

    def _history(self) -> Any:
        return BGNBDSpend(self.horizon_days)

    def _line(self) -> Any:
        return LogTweedie(self.horizon_days, categorical=self.categorical)

    def _trees(self, **given: Any) -> Any:
        return LightGBMAmount(self.horizon_days, **given)

    def _starts(self, known: bool, stands: bool) -> list[str]:
        return ["history"] if stands else ["line", ""]

    def _loss(self, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
        return mean_tweedie_deviance(
            np.maximum(y, 0.0), np.maximum(predicted, 1e-9), sample_weight=weight,
            power=POWER,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip

    def _slope(self) -> Any:
        return TweedieRegressor(power=POWER, link="log", alpha=0.0, solver="newton-cholesky", max_iter=200)

    def _to_margin(self, mean: float) -> float:
        return float(np.log(mean))

    def _from_margin(self, said: np.ndarray) -> np.ndarray:
        return np.exp(said)
