"""How good are several models over several cutoffs? Means, and the intervals that chance alone would give them.

A profile is asked about at more than one cutoff, and what it does is alike each time. So profiles are drawn, once for
all cutoffs: a draw that holds a profile twice holds it twice everywhere. All models meet the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import norm

from training.metrics import CHUNK, METRICS, Difference, Kind, Metric, _interval, _Order, _Sample, stretched

DRAWS, SEED = 200, 0
ALIKE = 1e-6  # relative: two fits of the same answer are as far apart as their solvers stop early, in every draw alike


@dataclass(frozen=True)
class Judged:
    """What became of the profiles of one cutoff, and what each model had said: arrays aligned with `profiles`.

    weight: how many profiles each stands for; None: one.
    """

    profiles: np.ndarray
    y: np.ndarray
    predictions: Mapping[str, np.ndarray]
    weight: np.ndarray | None = None


class Pooled:
    """The metrics of models that all cutoffs have in common, each a mean over the cutoffs.

    metrics: which of the kind's; None: all.
    """

    def __init__(
        self, kind: Kind, judged: Sequence[Judged], draws: int = DRAWS, seed: int = SEED,
        metrics: Sequence[str] | None = None,
    ):  # fmt: skip
        self.kind: Kind = kind
        self.metrics = {name: METRICS[kind][name] for name in (METRICS[kind] if metrics is None else metrics)}
        self._at: dict[tuple[str, str], list[float]] = {}
        self.judged = judged
        everywhere = set.intersection(*(set(j.predictions) for j in judged))
        self.models = [m for m in judged[0].predictions if m in everywhere]
        crowd, place = np.unique(np.concatenate([j.profiles for j in judged]), return_inverse=True)
        rng = np.random.default_rng(seed)
        self._counts = np.stack([
            np.bincount(rng.integers(0, len(crowd), len(crowd)), minlength=len(crowd)) for _ in range(draws)
        ]).astype(np.int32) if draws else np.zeros((0, len(crowd)), np.int32)  # fmt: skip
        self._places = np.split(place, np.cumsum([len(j.profiles) for j in judged])[:-1])

    def at(self, model: str, metric: str) -> list[float]:
        """The metric at each cutoff."""
        if (model, metric) not in self._at:
            function = self.metrics[metric].function
            self._at[model, metric] = [function(j.y, j.predictions[model], j.weight) for j in self.judged]
        return self._at[model, metric]

    def value(self, model: str, metric: str) -> float:
        """The mean over cutoffs. For a metric with a target, of the distances to it: +30 and -30 are not 0."""
        return float(np.mean([self._signless(metric, value) for value in self.at(model, metric)]))

    def interval(self, model: str, metric: str) -> tuple[float, float]:
        """The middle 95% of the mean over cutoffs."""
        return _interval(self._drawn[model, metric])

    def difference(self, model: str, other: str, metric: str) -> Difference:
        """`model` less `other`, on the same draws, wider of few profiles: see metrics.stretched.

        For a metric with a target, the distances to it are compared.
        """
        one, two = self._drawn[model, metric], self._drawn[other, metric]
        apart = np.where(np.isclose(one, two, rtol=ALIKE, atol=0), 0.0, one - two)
        found = Difference(self.value(model, metric) - self.value(other, metric), *_interval(apart))
        return stretched(found, self._counts.shape[1])

    def chance(self, model: str, other: str, metric: str) -> float:
        """How likely a difference like this is, or a greater one, if `model` were no worse: 1 where it is better.

        One-sided, by the normal distribution with the deviation of the paired bootstrap.
        """
        one, two = (self.metrics[metric].loss(self.value(m, metric)) for m in (model, other))
        apart = np.asarray(self._drawn[model, metric] - self._drawn[other, metric])
        spread = float(np.std(apart[np.isfinite(apart)]))
        return float(norm.sf((one - two) / spread)) if one > two and spread > 0 else 1.0

    def best(self, metric: str, among: Sequence[str]) -> str:
        """The model of the best mean; one of which it cannot be worked out comes last."""
        losses = {model: self.metrics[metric].loss(self.value(model, metric)) for model in among}
        return min(among, key=lambda model: np.inf if np.isnan(losses[model]) else losses[model])

    def table(self) -> pd.DataFrame:
        """One row per model and metric: model, metric, value, low, high."""
        rows = [(m, k, self.value(m, k), *self.interval(m, k)) for m in self.models for k in self.metrics]
        return pd.DataFrame(rows, columns=pd.Index(["model", "metric", "value", "low", "high"]))

    def _signless(self, metric: str, value):
        chosen: Metric = self.metrics[metric]
        return value if chosen.target is None else chosen.loss(value)

    @cached_property
    def _drawn(self) -> dict[tuple[str, str], np.ndarray]:
        """Per model and metric, its mean over the cutoffs in every draw."""
        parts: dict[tuple[str, str], list[np.ndarray]] = {(m, k): [] for m in self.models for k in self.metrics}
        for judged, place in zip(self.judged, self._places, strict=True):
            orders = {model: _Order(judged.predictions[model]) for model in self.models}
            found: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in parts}
            at_once = max(1, CHUNK // max(1, len(judged.y)))  # some draws at a time: what fits the cache is faster
            for start in range(0, len(self._counts), at_once):
                counts = self._counts[start : start + at_once, place].astype(float)
                if judged.weight is not None:
                    counts *= judged.weight
                for model in self.models:
                    sample = _Sample(judged.y, judged.predictions[model], counts, orders[model])
                    for name, metric in self.metrics.items():
                        found[model, name].append(self._signless(name, metric.kernel(sample)))
            for key, drawn in found.items():
                parts[key].append(np.concatenate(drawn) if drawn else np.empty(0))
        return {key: np.mean(drawn, axis=0) for key, drawn in parts.items()}
