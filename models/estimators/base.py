"""What do all estimators share? Checked inputs, one shape of answer, and the columns they look at."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from foretell.errors import DataError, did_you_mean
from models.explain import CENT, FLOOR


class Candidate(BaseEstimator):
    """An estimator over named feature columns. A subclass writes `_fit` and `_predict`; the checks are here.

    A table is checked at the door. What lies behind reads plain arrays, so that one row costs microseconds.
    An estimator that can split its margin has `effects(A)`: (effects, base), the former (n, columns_), what each column
    adds to the margin of each row, the latter what all rows start from; row sum + base = margin.

    horizon_days: how many days after the cutoff the label looks.
    name: what it is called in reports; requires: the columns it reads (none named: every column it was fitted on).
    told_as: column read -> the name by which reasons speak of it, where the features have one of that name.
    by_cutoff: whether its `_fit` takes `places` too: for each row the place of its cutoff among all of them, or None.
    After `fit`: feature_names_in_, n_features_in_; typical_, the median of each column read (0 where it has none).
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    told_as: ClassVar[dict[str, str]] = {}
    by_cutoff: ClassVar[bool] = False

    def __init__(self, horizon_days: float):
        self.horizon_days = horizon_days

    def fit(
        self, X: pd.DataFrame, y: Any, sample_weight: Any = None, now: pd.DataFrame | None = None, cutoffs: Any = None
    ) -> Self:  # fmt: skip
        """Learn from rows (profile, cutoff); y and sample_weight are aligned with X by position, not by index.

        now: the rows that will be asked about, whose outcome nobody knows yet; same columns as X. Models that need no
        labels (of purchase histories) learn from these, which are more recent than any row with a label.
        cutoffs: the cutoff of each row. Months differ in their level, which is no profile's doing: a model that is told
        learns how profiles of the same cutoff differ, and says what they do in the mean of the cutoffs.
        Raises DataError when a column is missing, when y or the weights cannot be used, or when the data do not
        determine the parameters.
        """
        features = self._columns(X, self.requires or tuple(self._frame(X).columns))
        target, weight = self._checked_labels(len(X), y, sample_weight)
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        self.typical_ = _medians(features, weight).fillna(0.0)
        asked = None if now is None or not len(now) else self._columns(now, tuple(features.columns))
        told: Any = {"places": _places(cutoffs, len(X))} if self.by_cutoff else {}
        self._fit(features, target, weight, asked, **told)
        return self

    @property
    def columns_(self) -> tuple[str, ...]:
        """The columns a prediction depends on."""
        check_is_fitted(self, "feature_names_in_")
        return self.requires or tuple(self.feature_names_in_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        raise NotImplementedError

    def _predict(self, A: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def answers(self, A: np.ndarray) -> np.ndarray:
        """(n,): what is predicted for rows of floats (n, columns_), the unknown being NaN. Nothing is checked."""
        raise NotImplementedError

    def margins(self, A: np.ndarray) -> np.ndarray:
        """(n,): the same on the margin, as models.explain means it."""
        raise NotImplementedError

    def read(self, X: pd.DataFrame) -> np.ndarray:
        """(n, columns_): the values that it reads, whatever the order of X's columns; what is infinite is unknown."""
        return self._columns(X, self.columns_).to_numpy()

    def _answer(self, X: pd.DataFrame) -> np.ndarray:
        A = self.read(X)
        return self.answers(A) if len(A) else np.empty(0)

    def _frame(self, X: Any) -> pd.DataFrame:
        """X itself, if its columns have names."""
        if not isinstance(X, pd.DataFrame):
            raise DataError(
                self.name,
                f"expected a pandas DataFrame of named features, got {type(X).__name__}",
                "pass pd.DataFrame(values, columns=names)",
            )
        return X

    def _columns(self, X: pd.DataFrame, wanted: tuple[str, ...]) -> pd.DataFrame:
        """The wanted columns as floats, in that order; infinite becomes NaN, as neither can be measured."""
        self._frame(X)
        if not wanted:
            raise DataError(self.name, "expected at least one feature, got a table without columns", "add features")
        for column in wanted:
            if column not in X.columns:
                raise DataError(
                    self.name,
                    f"expected the column {column!r}, got {X.shape[1]} columns without it",
                    did_you_mean(column, map(str, X.columns)),
                )
        values = X.loc[:, list(wanted)].to_numpy(dtype=float, na_value=np.nan)
        return pd.DataFrame(np.where(np.isfinite(values), values, np.nan), columns=pd.Index(wanted))

    def _checked_labels(self, rows: int, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """(y, weight) as float arrays of `rows`, weight scaled to a mean of 1 so that its unit does not matter."""
        if not self.horizon_days > 0:
            raise DataError(
                self.name,
                f"expected horizon_days > 0, got {self.horizon_days}",
                "say how many days the label looks ahead",
            )
        target = _floats(y)
        weight = np.ones(rows) if sample_weight is None else _floats(sample_weight)
        for what, values in (("labels", target), ("weights", weight)):
            if values.shape != (rows,) or not rows or not np.isfinite(values).all():
                raise DataError(
                    self.name,
                    f"expected one finite value per row in the {what}, got {np.isfinite(values).sum()} for {rows} rows",
                    "leave out the rows whose label is not known yet",
                )
        if (weight < 0).any() or not weight.any():
            raise DataError(
                self.name,
                f"expected weights >= 0 and not all 0, got {weight.min()} to {weight.max()}",
                "pass sample_weight=None to count every row once",
            )
        self._check_target(target[weight > 0])
        return target, weight / weight.mean()

    def _check_target(self, y: np.ndarray) -> None:
        raise NotImplementedError


class ProbabilityCandidate(ClassifierMixin, Candidate):
    """A candidate for a label that is true or false. classes_ is always [0, 1]."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """(n, 2): the probability of false and of true, per row."""
        positive = self._answer(X)
        return np.column_stack([1 - positive, positive])

    def answers(self, A: np.ndarray) -> np.ndarray:
        return np.clip(self._predict(A), 0.0, 1.0)

    def margins(self, A: np.ndarray) -> np.ndarray:
        p = np.clip(self.answers(A), FLOOR, 1 - FLOOR)
        return np.log(p) - np.log1p(-p)

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """(n,): 1 where true is the likelier, else 0."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)

    def _check_target(self, y: np.ndarray) -> None:
        found = np.unique(y)
        if not np.array_equal(found, [0, 1]):
            came = ", ".join(f"{value:g}" for value in found[:5])
            raise DataError(
                self.name,
                f"expected labels of both classes (0 and 1) in training, got only {came}"
                if len(found) < 2
                else f"expected the labels 0 and 1, got {came}",
                "take more or other cutoffs, or another horizon, so that both outcomes occur"
                if len(found) < 2
                else "turn the label into true or false",
            )
        self.classes_ = np.array([0, 1])


class AmountCandidate(RegressorMixin, Candidate):
    """A candidate for an amount: what a profile is expected to bring within the horizon."""

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """(n,): the expected amount within the horizon, >= 0, in y's unit."""
        return self._answer(X)

    def answers(self, A: np.ndarray) -> np.ndarray:
        return np.maximum(self._predict(A), 0.0)

    def margins(self, A: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(self.answers(A), CENT))

    def _check_target(self, y: np.ndarray) -> None:
        if not (y > 0).any():
            raise DataError(
                self.name,
                f"expected some labels above 0 in training, got a maximum of {y.max():g}",
                "take more or other cutoffs, or a longer horizon, so that some profiles spend",
            )


def line(model: Any, Z: np.ndarray) -> np.ndarray:
    """(n,): what a fitted linear model says of rows, on its margin. Summed row by row: a product of matrices ends in
    other bits as rows are many or few, and a score must be the same to the last."""
    return (np.ascontiguousarray(Z) * np.ravel(model.coef_)).sum(axis=1) + float(np.ravel(model.intercept_)[0])


def linear(model: Any, Z: np.ndarray) -> np.ndarray:
    """(n,): the probability of true by a fitted logistic regression."""
    return expit(line(model, Z))


def _medians(X: pd.DataFrame, weight: np.ndarray) -> pd.Series:
    """The median of each column where it is known, a row counting as many times as its weight says."""
    if (weight == weight[0]).all():
        return X.median()
    found = {}
    for column, values in X.items():
        known = values.notna().to_numpy() & (weight > 0)
        x, w = values.to_numpy()[known], weight[known]
        found[column] = np.quantile(x, 0.5, weights=w, method="inverted_cdf") if len(x) else np.nan
    return pd.Series(found, dtype=float)


def _places(cutoffs: Any, rows: int) -> np.ndarray | None:
    """For each row the place of its cutoff, 0 that of the first; None where nobody says."""
    if cutoffs is None:
        return None
    found = pd.factorize(np.asarray(cutoffs), sort=True)[0]
    if len(found) != rows:
        raise DataError("fit", f"expected one cutoff per row, got {len(found)} for {rows} rows", "pass rows['cutoff']")
    return found


def _floats(values: Any) -> np.ndarray:
    """Any sequence (bool, nullable, numbers) as floats, with NaN for what is missing or no number."""
    numbers = pd.Series(pd.to_numeric(pd.Series(np.asarray(values)), errors="coerce"))
    return numbers.to_numpy(dtype=float, na_value=np.nan)
