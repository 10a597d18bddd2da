"""What may be expected of a model? The figures of its exams, with what chance makes of them, and whom it learned from.

Kept with the model's run as `expected.json`, a few kilobytes without a row of anyone, so that its scores, once they are
graded, can be compared with what was promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from foretell.errors import DataError
from models import encoding, interval
from models.explain import contributions
from training import drift
from training.drift import SCORE
from training.metrics import METRICS, Kind, Metric, _bootstrap, _interval, _ratio, _Sample, bins

if TYPE_CHECKING:
    from training.champion import Contest

EXPECTED = "expected.json"
DRAWS = 200
WEIGHED = 300  # rows of which is worked out what moves the predictions


def bias(y: np.ndarray, pred: np.ndarray, weight: np.ndarray | None = None) -> float:
    """How much higher the mean prediction is than the mean outcome, in the unit of y."""
    return float(np.average(pred, weights=weight) - np.average(y, weights=weight))


def coverage(y: np.ndarray, inside: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The share of the outcomes that lie in their intervals."""
    return float(np.average(inside, weights=weight))


BIAS = Metric(
    "bias", "Mean foretold less what came", "", False, bias,
    lambda s: _ratio(s.w @ s.pred - s.w @ s.y, s.total), target=0.0,
)  # fmt: skip
COVERAGE = Metric(
    "coverage", "Share inside the interval", "", True, coverage,
    lambda s: _ratio(s.w @ s.pred, s.total), target=interval.COVERAGE,
)  # fmt: skip
SHOWN: dict[Kind, tuple[str, ...]] = {
    "probability": ("auc", "log_loss", "ece", "bias"),
    "amount": ("mae", "rmse", "norm_gini", "bias_pct", "coverage"),
    "duration": ("concordance", "mae", "rmse", "bias_pct", "coverage"),
}
"""The figures that are followed over time, beside the task's own metric."""
LEVEL: dict[Kind, str] = {"probability": "bias", "amount": "bias_pct", "duration": "bias_pct"}
"""The figure that tells whether the sum of what is foretold is right, whatever the order."""


def metric_of(kind: Kind, name: str) -> Metric:
    """One of METRICS, or of the two that only a share or an interval has."""
    return {**METRICS[kind], "bias": BIAS, "coverage": COVERAGE}[name]


class Figure(NamedTuple):
    """A figure at one cutoff, the 95% of its bootstrap over profiles, and the standard deviation of that."""

    value: float
    low: float
    high: float
    spread: float


def figures(
    y: np.ndarray, said: np.ndarray, kind: Kind, metric: str, weight: np.ndarray | None = None,
    inside: np.ndarray | None = None,
) -> dict[str, Figure]:  # fmt: skip
    """Those SHOWN of a kind and the task's metric, where they mean something: of one class there is no AUC.

    inside: which outcomes fell into their interval.
    """
    y, said = np.asarray(y, dtype=float), np.asarray(said, dtype=float)
    if not len(y):
        return {}
    whole = np.ones((1, len(y))) if weight is None else np.asarray(weight, dtype=float)[None, :]
    found: dict[str, Figure] = {}
    for name in dict.fromkeys((*SHOWN[kind], metric)):
        if name == "coverage":
            if inside is not None:
                found[name] = _figure(y, np.asarray(inside, dtype=float), COVERAGE, whole)
            continue
        chosen = metric_of(kind, name)
        try:
            chosen.function(y, said, weight)
        except DataError:
            continue
        found[name] = _figure(y, said, chosen, whole)
    return found


def _figure(y: np.ndarray, pred: np.ndarray, metric: Metric, whole: np.ndarray) -> Figure:
    value = float(metric.kernel(_Sample(y, pred, whole))[0])
    drawn = _bootstrap(y, {"it": pred}, [metric], whole[0], DRAWS, 0)["it", metric.name]
    defined = drawn[np.isfinite(drawn)]
    return Figure(value, *_interval(drawn), float(np.std(defined)) if len(defined) else float("nan"))


def expected(found: Contest) -> dict[str, Any]:
    """All of it as JSON.

    kind, metric, horizon_days, judged_days: if these two differ, nobody was examined on the model's horizon.
    exams: cutoff, rows, figures (name -> [value, low, high, spread]). figures: name -> [mean over the exams, low, high]
    as the backtest has them. calibration: its bins over all exams (training.metrics.bins). reference: of the features
    learned from, and of the scores that the exams gave (training.drift). weights: feature -> its share of all moving of
    the predictions.
    """
    judged, task, kind, winner = found.backtest.judgements, found.task, found.kind, found.winner
    held = _inside(found)
    exams = [
        {
            "cutoff": j.fold.judged.isoformat(), "rows": len(j.rows),
            "figures": {n: list(f) for n, f in figures(
                j.y, j.predictions[winner], kind, task.metric, j.weight, held[place] if held else None
            ).items()},
        } for place, j in enumerate(judged)
    ]  # fmt: skip
    table = found.backtest.evaluation
    mine = table[table["model"] == winner]
    means = {r.metric: [r.value, r.low, r.high] for r in mine.itertuples(index=False)}
    y, weight = (np.concatenate([getattr(j, part) for j in judged]) for part in ("y", "weight"))
    said = np.concatenate([j.predictions[winner] for j in judged])
    return _plain({
        "kind": kind, "metric": task.metric, "horizon_days": found.task.horizon.total_seconds() / 86_400,
        "judged_days": found.judged_days or found.task.horizon.total_seconds() / 86_400,
        "exams": exams, "figures": means,
        "calibration": bins(y, said, kind, weight).to_dict("records"), "reference": _reference(found, said),
        "weights": _weights(found),
    })  # fmt: skip


def _inside(found: Contest) -> list[np.ndarray]:
    """For each exam, which outcomes fell into the intervals that the other exams taught; [] without intervals."""
    exams = [(j.y, j.predictions[found.winner]) for j in found.backtest.judgements]
    if not found.interval or len(exams) < 2:
        return []
    made = []
    for place, (y, said) in enumerate(exams):
        others = interval.from_exams(found.kind, [*exams[:place], *exams[place + 1 :]], found.interval["within"])
        made.append(interval.inside(*interval.interval(others, said), y))
    return made


def _reference(found: Contest, said: np.ndarray) -> drift.Reference:
    """Whom the model learned from; the scores are those of the exams, which no model had learned the outcomes of."""
    rows = found.rows
    made = drift.reference(rows[found.columns], rows[["profile_id", "cutoff"]], found.categories)
    if not found.judged_days:  # else it was asked about a shorter time at the exams
        asked = pd.concat([j.rows[["profile_id", "cutoff"]] for j in found.backtest.judgements], ignore_index=True)
        score = drift.reference(pd.DataFrame({SCORE: said}), asked, {})
        made["columns"][SCORE] = {**score.pop("columns")[SCORE], **score}
    return made


def _weights(found: Contest) -> dict[str, float]:
    """The mean size of each feature's contribution, as a share of all; {} of one answer for everybody."""
    X = found.rows[found.columns]
    X = X.iloc[np.unique(np.linspace(0, len(X) - 1, min(len(X), WEIGHED)).astype(int))]
    background = pd.Series(encoding.background(X, found.categories), dtype=float)
    size = contributions(found.final, X, background).abs().mean()
    return {str(name): float(share) for name, share in (size / size.sum()).items()} if size.sum() > 0 else {}


def _plain(value: Any) -> Any:
    """As JSON has it: plain numbers, no NaN."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
