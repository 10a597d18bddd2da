"""How good predictions are, each number with the interval that chance alone would give it.

Three kinds of prediction exist. A *probability* is judged against an outcome of 0 or 1, an *amount* against a number,
a *duration* against the days that something took, or the horizon where it took longer.
`METRICS` lists the metrics of each kind; every one is also a plain function `metric(y, pred, weight=None)`.

Weights say how many profiles a row stands for: only their proportions matter, and a row of weight 0 is left out.

`evaluate` and `compare` repeat a metric on bootstrap samples of the rows (Efron & Tibshirani, *An Introduction to the
Bootstrap*, 1993, ch. 13). A sample is never built: how often it holds each row is multiplied into the weights, so a
metric's *kernel* works on all samples at once, after one sort. The tests hold every kernel to scikit-learn or SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from foretell.errors import DataError, unknown

Kind = Literal["probability", "amount", "duration"]
Floats = NDArray[np.float64]

BINS = 10
Z95 = 1.959964  # a normal variable is this near to its mean, in standard deviations, with 95%
RANKS = 250  # groups of times, and of predictions, within which concordance tells no order
CHUNK = 500_000  # rows × draws held at once: small enough for the cache, whatever the number of rows
EPSILON = np.finfo(np.float64).eps


# --- input -----------------------------------------------------------------------------------------------------------


def _numbers(values: ArrayLike, subject: str, what: str) -> Floats:
    """`values` as a one-dimensional float array without gaps."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        problem = f"expected a number for every row in the {what}, got values that are missing or not numbers"
        raise DataError(subject, problem, "fill or drop the missing values first") from error
    if numbers.ndim != 1:
        raise DataError(
            subject,
            f"expected one column of {what}, got an array of shape {numbers.shape}",
            "pass one number per row (of predict_proba, the column of the positive class)",
        )
    if gaps := int((~np.isfinite(numbers)).sum()):
        raise DataError(
            subject,
            f"expected a finite number in every row of the {what}, got {gaps} of {len(numbers)} NaN or infinite",
            "fill or drop those rows, and look for what produced them",
        )
    return numbers


def _same_length(numbers: Floats, y: Floats, subject: str, what: str) -> None:
    if len(numbers) != len(y):
        raise DataError(
            subject,
            f"expected {len(y)} {what}, one for each outcome, got {len(numbers)}",
            f"pass outcomes and {what} of the same rows in the same order",
        )


def _outcomes(y: ArrayLike, weight: ArrayLike | None, kind: Kind, subject: str) -> tuple[Floats, Floats | None]:
    """Outcomes and weights, checked. Of a probability: 0 and 1, both of them. Of an amount: not all the same."""
    actual = _numbers(y, subject, "outcomes")
    if not len(actual):
        raise DataError(subject, "expected at least one row, got none", "check the filter that selects the rows")
    if weight is None:
        weights, counted = None, actual
    else:
        weights = _numbers(weight, subject, "weights")
        _same_length(weights, actual, subject, "weights")
        if (weights < 0).any() or not weights.any():
            problem = f"expected weights of 0 or more and some above 0, got {weights.min():g} to {weights.max():g}"
            raise DataError(subject, problem, "weigh each row with how many profiles it stands for")
        counted = actual[weights > 0]
    if kind == "probability" and not np.isin(counted, (0, 1)).all():
        other = counted[~np.isin(counted, (0, 1))][0]
        raise DataError(subject, f"expected outcomes of 0 or 1, got {other:g}", "use an amount metric, or a 0/1 label")
    if (counted == counted[0]).all():
        expected = "outcomes of both classes, 0 and 1" if kind == "probability" else f"{kind}s that differ"
        raise DataError(
            subject,
            f"expected {expected}, got {counted[0]:g} in all {len(counted)} rows",
            "take a longer period or more profiles, so that there is something to tell apart",
        )
    return actual, weights


def _predicted(pred: ArrayLike, y: Floats, kind: Kind, subject: str, *, probabilities: bool = False) -> Floats:
    """Predictions, checked against the outcomes. `probabilities` asks for 0 to 1; without, any score may rank."""
    numbers = _numbers(pred, subject, "predictions")
    _same_length(numbers, y, subject, "predictions")
    if kind == "probability" and probabilities and (numbers.min() < 0 or numbers.max() > 1):
        raise DataError(
            subject,
            f"expected probabilities from 0 to 1, got {numbers.min():g} to {numbers.max():g}",
            "turn the scores into probabilities (calibrate them) first",
        )
    return numbers


class _Checked(NamedTuple):
    y: Floats
    pred: Floats
    weight: Floats | None

    def sample(self) -> _Sample:
        """The rows as they are, as the only sample."""
        weight = np.ones(len(self.y)) if self.weight is None else self.weight
        return _Sample(self.y, self.pred, weight[None, :])


def _without_idle(y: Floats, preds: list[Floats], weight: Floats | None) -> tuple[Floats, list[Floats], Floats | None]:
    """Without the rows of weight 0."""
    if weight is None or (used := weight > 0).all():
        return y, preds, weight
    return y[used], [pred[used] for pred in preds], weight[used]


def _checked(
    y: ArrayLike,
    pred: ArrayLike,
    weight: ArrayLike | None,
    kind: Kind,
    subject: str,
    *,
    probabilities: bool = False,
    total: bool = False,
) -> _Checked:
    actual, weights = _outcomes(y, weight, kind, subject)
    if total:
        _total(actual, weights, subject)
    predicted = _predicted(pred, actual, kind, subject, probabilities=probabilities)
    actual, (predicted,), weights = _without_idle(actual, [predicted], weights)
    return _Checked(actual, predicted, weights)


def _total(y: Floats, weight: Floats | None, subject: str) -> None:
    """A percentage of the total needs a total above 0."""
    total = float(y.sum() if weight is None else y @ weight)
    if total <= 0:
        raise DataError(
            subject,
            f"expected amounts that add up to more than 0, got a total of {total:g}",
            "a share of this total means nothing: judge these amounts by mae and rmse",
        )


# --- kernels: one metric on many weightings of the same rows ---------------------------------------------------------


class _Order:
    """Rows sorted by one column, ascending, equal values forming one group: nothing depends on the order of ties."""

    def __init__(self, values: Floats):
        self.rows = np.argsort(values, kind="stable")
        ordered = values[self.rows]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) if len(ordered) else np.empty(0, dtype=np.intp)
        self.last = np.append(changes, len(ordered) - 1)  # the last row of each group
        self.group = np.empty(len(values), dtype=np.intp)  # of each row, in the rows' own order
        self.group[self.rows] = np.repeat(np.arange(len(self.last)), np.diff(self.last, prepend=-1))

    def running(self, amounts: Floats) -> Floats:
        """Running totals over the groups of `amounts`, samples × rows in the rows' own order."""
        totals = amounts[:, self.rows].cumsum(axis=1)
        return totals if len(self.last) == totals.shape[1] else totals[:, self.last]


def _steps(running: Floats) -> Floats:
    """Undo a running total: what each group added."""
    return np.diff(running, axis=1, prepend=0.0)


class _Sample:
    """Outcomes and predictions of n rows with samples × n weights; metrics share what costs time to work out."""

    def __init__(self, y: Floats, pred: Floats, weights: Floats, order: _Order | None = None):
        self.y, self.pred, self.w = y, pred, weights
        self.order = order or _Order(pred)

    @cached_property
    def n(self) -> int:
        return len(self.y)

    @cached_property
    def total(self) -> Floats:
        """The weight of each sample."""
        return self.w.sum(axis=1)

    @cached_property
    def mass(self) -> Floats:
        """Running weight from the lowest prediction up."""
        return self.order.running(self.w)

    @cached_property
    def amount(self) -> Floats:
        """Running outcome from the lowest prediction up."""
        return self.order.running(self.w * self.y)

    @cached_property
    def bin(self) -> NDArray[np.intp]:
        """Which of ten equal-mass bins each group of equal predictions goes to as a whole: the one its middle is in.

        A sample without weight, as of a cutoff of which a draw holds nobody, has nothing in any bin.
        """
        total = np.where(self.total > 0, self.total, 1.0)
        middle = (self.mass - _steps(self.mass) / 2) / total[:, None]
        return np.clip((middle * BINS).astype(np.intp), 0, BINS - 1)

    @cached_property
    def bins(self) -> tuple[Floats, Floats, Floats]:
        """Weight, outcome and prediction of each bin, each samples × 10."""
        samples = len(self.w)
        flat = (self.bin + BINS * np.arange(samples)[:, None]).ravel()
        size = _steps(self.mass)
        value = self.pred[self.order.rows[self.order.last]]

        def sums(amounts: Floats) -> Floats:
            per_bin = np.bincount(flat, amounts.ravel(), minlength=BINS * samples)
            return np.asarray(per_bin, dtype=np.float64).reshape(samples, BINS)

        return sums(size), sums(_steps(self.amount)), sums(size * value)


def _ratio(above: Floats, below: Floats) -> Floats:
    """`above` / `below`; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def _auc(s: _Sample) -> Floats:
    positive, negative = s.amount, s.mass - s.amount
    won = (_steps(positive) * (negative - _steps(negative) / 2)).sum(axis=1)
    return _ratio(won, positive[:, -1] * negative[:, -1])


def _average_precision(s: _Sample) -> Floats:
    step = _steps(s.amount)
    found = s.amount[:, -1:] - s.amount + step  # from the highest prediction down to this one
    taken = s.mass[:, -1:] - s.mass + _steps(s.mass)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return _ratio((step * precision).sum(axis=1), s.amount[:, -1])


def _lift10(s: _Sample) -> Floats:
    share = -(-s.n // 10) / s.n
    cut = s.mass[:, -1] * (1 - share)
    size, step = _steps(s.mass), _steps(s.amount)
    inside = np.clip(s.mass - cut[:, None], 0, size)  # of each group; the group at the cut counts in part
    found = (inside * np.divide(step, size, out=np.zeros_like(step), where=size > 0)).sum(axis=1)
    return _ratio(found, s.amount[:, -1] * share)


def _mean_of(loss: Callable[[Floats, Floats], Floats]) -> Callable[[_Sample], Floats]:
    return lambda s: _ratio(s.w @ loss(s.y, s.pred), s.total)


def _rmse(s: _Sample) -> Floats:
    return np.sqrt(_mean_of(lambda y, pred: (pred - y) ** 2)(s))


def _row_log_loss(y: Floats, p: Floats) -> Floats:
    return -np.log(np.clip(np.where(y == 1, p, 1 - p), EPSILON, 1 - EPSILON))


def _ece(s: _Sample) -> Floats:
    _, actual, predicted = s.bins
    return _ratio(np.abs(predicted - actual).sum(axis=1), s.total)


def _bias_pct(s: _Sample) -> Floats:
    return (_ratio(s.w @ s.pred, s.w @ s.y) - 1) * 100


def _ranks(order: _Order, weights: Floats) -> Floats:
    """The weighted mid-rank of each row, less the sample's mean rank."""
    running = order.running(weights)
    return (running - _steps(running) / 2 - running[:, -1:] / 2)[:, order.group]


def _spearman(s: _Sample) -> Floats:
    actual, predicted = _ranks(_Order(s.y), s.w), _ranks(s.order, s.w)
    weighted = s.w * predicted
    together = (weighted * actual).sum(axis=1)
    spread = (weighted * predicted).sum(axis=1)
    result = _ratio(together, np.sqrt(spread * (s.w * actual * actual).sum(axis=1)))
    result[spread == 0] = 0.0
    return np.clip(result, -1, 1)


def _gini(order: _Order, weights: Floats, y: Floats) -> Floats:
    mass, amount = order.running(weights), order.running(weights * y)
    under = (_steps(mass) * (amount - _steps(amount) / 2)).sum(axis=1)  # the Lorenz curve, lowest prediction first
    return 1 - 2 * _ratio(under, mass[:, -1] * amount[:, -1])


def _norm_gini(s: _Sample) -> Floats:
    y = np.maximum(s.y, 0)
    best = _gini(_Order(y), s.w, y)
    return _ratio(_gini(s.order, s.w, y), np.where(np.abs(best) < 1e-12, 0, best))


def _decile_mape(s: _Sample) -> Floats:
    size, actual, predicted = s.bins
    residue = 1e-12 * np.abs(s.amount).max(axis=1, keepdims=True)  # what undoing a running total leaves of nothing
    actual = np.where(np.abs(actual) <= residue, 0, actual)
    error = np.abs(predicted - actual)
    share = np.where(error == 0, 0.0, np.divide(error, np.abs(actual), out=np.ones_like(error), where=actual != 0))
    used = size > 0
    return _ratio((share * used).sum(axis=1), used.sum(axis=1).astype(np.float64)) * 100


def _concordance(s: _Sample) -> Floats:
    longest = s.y.max()
    days = np.minimum(s.y, longest)
    order = _Order(days)
    groups = np.minimum(np.arange(len(s.order.last)) * RANKS // max(len(s.order.last), 1), RANKS - 1)[s.order.group]
    times = np.minimum(np.arange(len(order.last)) * RANKS // max(len(order.last), 1), RANKS - 1)[order.group]
    times[days == longest] = RANKS  # who had no event: longer than all that had one
    cell, cells = groups * (RANKS + 1) + times, RANKS * (RANKS + 1)
    won = np.empty(len(s.w))
    pairs = np.empty(len(s.w))
    for place, weight in enumerate(s.w):
        table = np.bincount(cell, weight, minlength=cells).reshape(RANKS, RANKS + 1)
        later = table[:, ::-1].cumsum(axis=1)[:, ::-1] - table  # the same group of predictions, a later time
        above = later[::-1].cumsum(axis=0)[::-1]
        early = table[:, :RANKS]  # an event: others of a later time are known to come later
        won[place] = (early * (above - later + later / 2)[:, :RANKS]).sum()
        pairs[place] = (early.sum(axis=0) * later.sum(axis=0)[:RANKS]).sum()
    return _ratio(won, pairs)


# --- probability metrics ---------------------------------------------------------------------------------------------


def auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How often a positive is ranked above a negative; a tie counts half. 0 to 1, 0.5 is chance, greater is better.

    AUC = P(p₊ > p₋) + ½ P(p₊ = p₋), the area under the ROC curve. Hanley & McNeil, Radiology 143 (1982).
    """
    c = _checked(y, p, weight, "probability", "auc")
    return float(roc_auc_score(c.y, c.pred, sample_weight=c.weight))


def average_precision(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The precision met while going down the ranking, averaged over the positives. 0 to 1, greater is better.

    AP = Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct scores; chance gives the base rate. Manning et al., *Introduction to
    Information Retrieval* (2008), ch. 8.
    """
    c = _checked(y, p, weight, "probability", "average_precision")
    return float(average_precision_score(c.y, c.pred, sample_weight=c.weight))


def lift10(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How many times more positives the best tenth holds than a random tenth. 0 to 10, 1 is chance, greater is better.

    lift = (share of positives among the best ⌈n / 10⌉) / (share of positives among all). Of profiles that share the
    score at the cut, each counts in equal part, which is the mean over all ways to order them. With weights the best
    rows are those that hold ⌈n / 10⌉ / n of the weight. Ling & Li, KDD (1998).
    """
    return float(_lift10(_checked(y, p, weight, "probability", "lift10").sample())[0])


def log_loss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean surprise at the outcome, in nats. 0 to 36 (p is kept 2e-16 away from 0 and 1), less is better.

    −mean(y ln p + (1 − y) ln(1 − p)). Good, Journal of the Royal Statistical Society B 14 (1952).
    """
    c = _checked(y, p, weight, "probability", "log_loss", probabilities=True)
    return float(sklearn_log_loss(c.y, c.pred, sample_weight=c.weight, labels=[0, 1]))


def brier(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean squared distance between probability and outcome. 0 to 1, less is better.

    mean((p − y)²). Brier, Monthly Weather Review 78 (1950).
    """
    c = _checked(y, p, weight, "probability", "brier", probabilities=True)
    return float(brier_score_loss(c.y, c.pred, sample_weight=c.weight, pos_label=1))


def ece(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How far probabilities are from the observed shares, on average. 0 to 1, less is better.

    Expected calibration error: Σ wₖ |mean p − mean y| over ten bins of equal mass; equal probabilities stay in one bin.
    Chance alone keeps it above 0, by more the fewer rows there are, and resampling adds to that: its bootstrap
    interval leans upward and may lie wholly above the value. Naeini et al., AAAI (2015); Nixon et al., CVPR-W (2019).
    """
    return float(_ece(_checked(y, p, weight, "probability", "ece", probabilities=True).sample())[0])


# --- amount metrics --------------------------------------------------------------------------------------------------


def mae(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The mean absolute error, in the unit of y. 0 or more, less is better. The median of y is its best constant.

    mean |pred − y|. Willmott & Matsuura, Climate Research 30 (2005).
    """
    c = _checked(y, pred, weight, "amount", "mae")
    return float(mean_absolute_error(c.y, c.pred, sample_weight=c.weight))


def rmse(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The root mean squared error, in the unit of y. 0 or more, less is better. The mean of y is its best constant.

    √mean((pred − y)²). Chai & Draxler, Geoscientific Model Development 7 (2014).
    """
    c = _checked(y, pred, weight, "amount", "rmse")
    return float(root_mean_squared_error(c.y, c.pred, sample_weight=c.weight))


def bias_pct(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How much the total is predicted too high (+) or too low (−), in percent. The nearer to 0 the better.

    (Σ pred / Σ y − 1) × 100. Needs Σ y > 0.
    """
    return float(_bias_pct(_checked(y, pred, weight, "amount", "bias_pct", total=True).sample())[0])


def spearman(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How well the order of amounts is predicted. −1 to 1, 0 is chance, greater is better.

    Pearson's correlation of the (weighted) mid-ranks; a constant prediction orders nobody and gets 0. Spearman,
    American Journal of Psychology 15 (1904).
    """
    return float(_spearman(_checked(y, pred, weight, "amount", "spearman").sample())[0])


def norm_gini(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How much of the amount the ranking concentrates, against a perfect ranking. −1 to 1, 0 is chance, greater is
    better.

    Gini(y, pred) / Gini(y, y) with amounts below 0 taken as 0; Gini is twice the area between the curve of cumulated
    amounts and the diagonal, equal predictions sharing their amount evenly. Needs amounts above 0. Frees, Meyers &
    Cummings, Journal of the American Statistical Association 106 (2011).
    """
    c = _checked(y, pred, weight, "amount", "norm_gini")
    _gains(c.y, c.weight, "norm_gini")
    return float(_norm_gini(c.sample())[0])


def concordance(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Of two profiles, one of which is known to have been sooner, how often it was foretold sooner; a tie counts half.

    0 to 1, 0.5 is chance, greater is better. Outcomes that equal the largest are of those who had no event by then.
    Harrell et al., Evaluating the Yield of Medical Tests (JAMA 247, 1982); within one of 250 groups of predictions and
    of times nothing is told apart, so that it is known to about a thousandth.
    """
    return float(_concordance(_checked(y, pred, weight, "duration", "concordance").sample())[0])


def decile_mape(y: ArrayLike, pred: ArrayLike, weight: ArrayLike | None = None) -> float:
    """How far a predicted decile's total is from its actual total, on average, in percent. 0 or more, less is better.

    mean |Σ pred / Σ y − 1| × 100 over ten bins of equal mass by prediction; equal predictions stay in one bin. A decile
    that predicts an amount where there was none counts 100%. Needs Σ y > 0.
    """
    return float(_decile_mape(_checked(y, pred, weight, "amount", "decile_mape", total=True).sample())[0])


def _gains(y: Floats, weight: Floats | None, subject: str) -> None:
    """A Gini needs amounts above 0; `_outcomes` has seen to it that not all are the same."""
    clipped = np.maximum(y if weight is None else y[weight > 0], 0)
    if not clipped.any():
        problem = f"expected some amount above 0, got none in {len(clipped)} rows"
        raise DataError(subject, problem, "take a longer period, or judge these amounts by mae and rmse")


# --- what the plots show ---------------------------------------------------------------------------------------------


def bins(y: ArrayLike, pred: ArrayLike, kind: Kind, weight: ArrayLike | None = None) -> pd.DataFrame:
    """Predicted and actual means in ten equal-mass bins of the prediction, lowest first; empty bins are left out.

    Columns: bin (1 to 10), rows, share (of the weight), predicted, actual, low, high. low and high bound the actual
    mean with 95%: for probabilities the Wilson interval (Journal of the American Statistical Association 22, 1927), for
    others mean ± 1.96 standard errors; weighted rows count as (Σw)² / Σw² rows (Kish, 1965).
    """
    _metrics_of(kind)
    s = _checked(y, pred, weight, kind, "bins", probabilities=True).sample()
    rows = pd.DataFrame({"bin": s.bin[0, s.order.group] + 1, "y": s.y, "pred": s.pred, "w": s.w[0]})
    table = []
    for bin_, part in rows.groupby("bin"):
        w, inside = part["w"].to_numpy(), part["y"].to_numpy()
        actual, count = float(np.average(inside, weights=w)), float(w.sum() ** 2 / (w @ w))
        if kind == "probability":
            around, half = _wilson(actual, count)
        else:
            variance = float(np.average((inside - actual) ** 2, weights=w))
            around, half = actual, Z95 * np.sqrt(variance / max(count - 1, 1))
        table.append(
            {
                "bin": bin_,
                "rows": len(part),
                "share": float(w.sum() / s.total[0]),
                "predicted": float(np.average(part["pred"], weights=w)),
                "actual": actual,
                "low": float(around - half) if actual or kind != "probability" else 0.0,
                "high": float(around + half) if actual < 1 or kind != "probability" else 1.0,
            }
        )
    return pd.DataFrame(table)


def _wilson(share: float, count: float) -> tuple[float, float]:
    """Middle and half width of Wilson's 95% interval of a share seen in `count` trials."""
    shrink = 1 + Z95**2 / count
    half = Z95 / shrink * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return (share + Z95**2 / (2 * count)) / shrink, float(half)


def mean_interval(y: ArrayLike, weight: ArrayLike, kind: Kind, persons: int) -> tuple[float, float]:
    """The 95% of the mean outcome, of so many persons whose rows may be several: Wilson's of a share, else normal."""
    outcomes, weights = np.asarray(y, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    mean = float(np.average(outcomes, weights=weights))
    if kind == "probability":
        middle, half = _wilson(mean, persons)
        return middle - half, middle + half
    spread = float(np.sqrt(np.average((outcomes - mean) ** 2, weights=weights) / max(persons, 1)))
    return mean - Z95 * spread, mean + Z95 * spread


def gain_curve(y: ArrayLike, pred: ArrayLike, kind: Kind, weight: ArrayLike | None = None) -> pd.DataFrame:
    """Which share of the positives (or of the amount, below 0 taken as 0) the best-ranked share of profiles holds.

    Columns: taken, found; both from 0 to 1, the highest prediction first, equal predictions taken together.
    """
    _metrics_of(kind)
    c = _checked(y, pred, weight, kind, "gain_curve")
    if kind == "amount":
        _gains(c.y, c.weight, "gain_curve")
    s = c._replace(y=np.maximum(c.y, 0), pred=-c.pred).sample()
    taken, found = s.mass[0] / s.mass[0, -1], s.amount[0] / s.amount[0, -1]
    return pd.DataFrame({"taken": np.append(0, taken), "found": np.append(0, found)})


# --- the list --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, how it is read, how it is computed.

    name: as in METRICS; title: in a sentence or on an axis; unit: "" for a bare number, "label" for the unit of y,
    "%" or "nats"; greater: whether a greater value is better; function: metric(y, pred, weight) -> float;
    kernel: the same on many samples at once; target: the value to be near to, for a metric that may miss it both ways.
    """

    name: str
    title: str
    unit: str
    greater: bool
    function: Callable[..., float]
    kernel: Callable[[Any], Floats]
    target: float | None = None

    def loss(self, value: float | Floats) -> Any:
        """`value` turned so that less is better and differences keep their size."""
        if self.target is not None:
            return abs(value - self.target)
        return -value if self.greater else value

    @property
    def direction(self) -> str:
        """How to read it: "higher is better"."""
        if self.target is not None:
            return f"nearer to {self.target:g} is better"
        return "higher is better" if self.greater else "lower is better"


def _listed(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: dict[Kind, dict[str, Metric]] = {
    "probability": _listed(
        Metric("auc", "AUC", "", True, auc, _auc),
        Metric("average_precision", "Average precision", "", True, average_precision, _average_precision),
        Metric("lift10", "Lift in the best 10%", "×", True, lift10, _lift10),
        Metric("log_loss", "Log loss", "nats", False, log_loss, _mean_of(_row_log_loss)),
        Metric("brier", "Brier score", "", False, brier, _mean_of(lambda y, p: (p - y) ** 2)),
        Metric("ece", "Calibration error", "", False, ece, _ece),
    ),
    "amount": _listed(
        Metric("mae", "Mean absolute error", "label", False, mae, _mean_of(lambda y, pred: np.abs(pred - y))),
        Metric(
            "rmse",
            "Root mean squared error",
            "label",
            False,
            rmse,
            _rmse,
        ),
        Metric("bias_pct", "Bias of the total", "%", False, bias_pct, _bias_pct, target=0.0),
        Metric("spearman", "Rank correlation", "", True, spearman, _spearman),
        Metric("norm_gini", "Normalised Gini", "", True, norm_gini, _norm_gini),
        Metric("decile_mape", "Error of decile totals", "%", False, decile_mape, _decile_mape),
    ),
    "duration": _listed(
        Metric("concordance", "Concordance", "", True, concordance, _concordance),
        Metric("mae", "Mean absolute error", "label", False, mae, _mean_of(lambda y, pred: np.abs(pred - y))),
        Metric("rmse", "Root mean squared error", "label", False, rmse, _rmse),
        Metric("bias_pct", "Bias of the mean", "%", False, bias_pct, _bias_pct, target=0.0),
    ),
}


# --- intervals -------------------------------------------------------------------------------------------------------


def _counts(n: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each of `draws` bootstrap samples holds each of n rows, some samples × n at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, CHUNK // n)
    for start in range(0, draws, at_once):
        samples = min(at_once, draws - start)
        picked = generator.integers(0, n, size=(samples, n)) + n * np.arange(samples)[:, None]
        yield np.bincount(picked.ravel(), minlength=samples * n).reshape(samples, n).astype(np.float64)


def _bootstrap(
    y: Floats,
    predictions: Mapping[str, Floats],
    metrics: list[Metric],
    weight: Floats | None,
    draws: int,
    seed: int,
) -> dict[tuple[str, str], Floats]:
    """Each model's metric on the same `draws` samples. NaN where a sample has it undefined (say, one class only)."""
    orders = {model: _Order(pred) for model, pred in predictions.items()}
    found: dict[tuple[str, str], list[Floats]] = {(m, metric.name): [] for m in predictions for metric in metrics}
    for counts in _counts(len(y), draws, seed):
        weights = counts if weight is None else counts * weight
        for model, pred in predictions.items():
            sample = _Sample(y, pred, weights, orders[model])
            for metric in metrics:
                found[model, metric.name].append(metric.kernel(sample))
    return {key: np.concatenate(parts) if parts else np.empty(0) for key, parts in found.items()}


def _interval(values: Floats) -> tuple[float, float]:
    """The middle 95% of the values that are defined."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _metrics_of(kind: str) -> dict[str, Metric]:
    if kind not in METRICS:
        raise unknown("kind of prediction", kind, METRICS)
    return METRICS[kind]


def _all_checked(
    y: ArrayLike, predictions: Mapping[str, ArrayLike], kind: Kind, weight: ArrayLike | None, draws: int
) -> tuple[Floats, dict[str, Floats], Floats | None]:
    if not predictions:
        raise DataError("evaluation", "expected predictions of at least one model, got none", 'pass {"name": numbers}')
    if draws < 0:
        raise DataError("evaluation", f"expected 0 draws or more, got {draws}", "200 give a usable interval")
    actual, weights = _outcomes(y, weight, kind, "outcomes")
    checked = [_predicted(pred, actual, kind, model, probabilities=True) for model, pred in predictions.items()]
    actual, checked, weights = _without_idle(actual, checked, weights)
    return actual, dict(zip(predictions, checked, strict=True)), weights


def evaluate(
    y: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    kind: Kind,
    weight: ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric of `kind` for every model, with a 95% bootstrap interval.

    Columns: model, metric, value, low, high; models in the order given, metrics in the order of METRICS. One row of y
    is one profile, and profiles are what is drawn; all models meet the same draws. low and high are the 2.5th and
    97.5th percentile over the draws in which the metric is defined, NaN if there are none (draws=0).
    """
    metrics = _metrics_of(kind)
    actual, checked, weights = _all_checked(y, predictions, kind, weight, draws)
    values = {
        (model, name): metric.function(actual, pred, weights)
        for model, pred in checked.items()
        for name, metric in metrics.items()
    }
    drawn = _bootstrap(actual, checked, list(metrics.values()), weights, draws, seed)
    columns = ["model", "metric", "value", "low", "high"]
    rows = [dict(zip(columns, (*key, value, *_interval(drawn[key])), strict=True)) for key, value in values.items()]
    return pd.DataFrame(rows)


class Difference(NamedTuple):
    """Challenger less champion, in the metric's own unit, with the 95% interval of the paired bootstrap."""

    value: float
    low: float
    high: float


def compare(
    y: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    kind: Kind,
    metric: str,
    champion: str,
    challenger: str,
    weight: ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Difference:
    """How much `challenger` differs from `champion` in `metric`: challenger less champion.

    Both meet the same draws (those of `evaluate` with the same rows, weights and seed), so what makes a sample easy or
    hard cancels out. For a metric with a target (bias_pct) the distances to the target are compared. Above 0 the
    challenger is better where `METRICS[kind][metric].greater`, else worse; `verdict` reads it.
    """
    metrics = _metrics_of(kind)
    if metric not in metrics:
        raise unknown(f"{kind} metric", metric, metrics)
    for model in (champion, challenger):
        if model not in predictions:
            raise unknown("model", model, predictions)
    chosen = metrics[metric]
    pair = {model: predictions[model] for model in (champion, challenger)}
    actual, checked, weights = _all_checked(y, pair, kind, weight, draws)
    drawn = _bootstrap(actual, checked, [chosen], weights, draws, seed)
    sign = -1 if chosen.greater else 1
    points = {model: chosen.function(actual, pred, weights) for model, pred in checked.items()}
    value = sign * float(chosen.loss(points[challenger]) - chosen.loss(points[champion]))
    apart = sign * (chosen.loss(drawn[challenger, metric]) - chosen.loss(drawn[champion, metric]))
    return Difference(value, *_interval(apart))


def stretched(found: Difference, persons: int) -> Difference:
    """The same with its interval widened for few persons, of whom a bootstrap knows too little how far they differ.

    By t(n − 1) / z × √(n / (n − 1)), which is 9.2 of two persons, 1.06 of thirty, and 1 of thousands; of one, nothing
    is known (NaN). Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015).
    """
    if persons < 2:
        return found._replace(low=np.nan, high=np.nan)
    by = float(student.ppf(0.975, persons - 1)) / Z95 * np.sqrt(persons / (persons - 1))
    below, above = (found.value - found.low) * by, (found.high - found.value) * by
    return found._replace(low=min(found.low, found.value - below), high=max(found.high, found.value + above))


def verdict(difference: Difference, metric: Metric) -> Literal["better", "worse", "unclear"]:
    """What a difference says of the challenger; "unclear" while its interval holds 0 or is not known."""
    low, high = (difference.low, difference.high) if metric.greater else (-difference.high, -difference.low)
    if low > 0:
        return "better"
    return "worse" if high < 0 else "unclear"
