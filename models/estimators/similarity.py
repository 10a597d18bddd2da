"""Who is near to the middle of a group? The conventional lookalike: cosine to the mean of those it is given."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from models.estimators.base import ProbabilityCandidate, linear


class Centroid(ProbabilityCandidate):
    """Cosine between a profile and the mean of the true rows, made a probability by a logistic curve.

    Features count as signed logs of mean 0 and deviation 1; the unknown counts as typical.
    """

    name = "centroid"

    def _fit(self, X: pd.DataFrame, y: np.ndarray, weight: np.ndarray, now: pd.DataFrame | None = None) -> None:
        A = X.to_numpy()
        self.scaler_ = StandardScaler().fit(self._logs(A), sample_weight=weight)
        points = self._points(A)
        self.centre_ = np.average(points, axis=0, weights=weight * y)
        cosine = self._cosine(points)
        self.curve_ = LogisticRegression(C=1.0).fit(cosine, y, sample_weight=weight)

    def _predict(self, A: np.ndarray) -> np.ndarray:
        return linear(self.curve_, self._cosine(self._points(A)))

    def _logs(self, A: np.ndarray) -> np.ndarray:
        values = np.where(np.isnan(A), self.typical_.to_numpy(), A)
        return np.sign(values) * np.log1p(np.abs(values))

    def _points(self, A: np.ndarray) -> np.ndarray:
        return (self._logs(A) - np.asarray(self.scaler_.mean_)) / np.asarray(self.scaler_.scale_)

    def _cosine(self, points: np.ndarray) -> np.ndarray:
        points = np.ascontiguousarray(points)  # summed row by row, so that a row's bits do not hang on the others
        lengths = np.linalg.norm(points, axis=1) * np.linalg.norm(self.centre_)
        return np.divide((points * self.centre_).sum(axis=1), lengths, out=np.zeros(len(points)), where=lengths > 0)[
            :, None
        ]
