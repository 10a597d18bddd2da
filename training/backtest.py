"""How good would it have been? Every candidate sits the same exams: past cutoffs that it had to foretell.

At each exam a candidate learns from cutoffs whose labels were complete by then, and is asked about a later one. It is
judged by its mean over all exams, and a profile that is asked about more than once is drawn once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from foretell.declarations import PredictionTask
from foretell.errors import DataError, ForetellError
from models import encoding
from models.estimators import LEARNED
from models.explain import shifted
from training import metrics
from training.cutoffs import Fold
from training.metrics import METRICS, Difference, Kind, Metric, verdict
from training.pooled import Judged, Pooled
from training.season import Levels, instead, shift

WATCH: Mapping[Kind, tuple[str, ...]] = {"probability": ("log_loss",), "amount": ("rmse", "mae"), "duration": ("rmse",)}
"""The metrics in which a learned model must not be worse, whatever the task's own is: what a mean or a rank hides."""

RANKS = ("auc", "average_precision", "lift10", "norm_gini", "spearman", "concordance")
"""The metrics that hear in which order profiles come, and not what is said of them."""

FAR = 2.0  # times the error of the nearest baseline, in what is watched

Progress = Callable[[str], None]
Known = Callable[[encoding.Categories], dict[str, Any]]
"""The unfitted candidates, by name, for features of which these are text."""


@dataclass(frozen=True)
class Judgement:
    """One exam taken.

    rows: those asked about, as `dataset.training_set` gives them, encoded. learned: profile_id and cutoff of the rows
    learned from.
    predictions and fitted: by candidate; skipped: candidates that could not be fitted, and why. shift: what the season
    added to the margin of the learned one.
    """

    fold: Fold
    rows: pd.DataFrame
    learned: pd.DataFrame
    predictions: dict[str, np.ndarray]
    fitted: dict[str, Any]
    skipped: dict[str, str]
    categories: encoding.Categories
    shift: float = 0.0

    @property
    def y(self) -> np.ndarray:
        return self.rows["label"].to_numpy(dtype=float)

    @property
    def weight(self) -> np.ndarray:
        return self.rows["weight"].to_numpy(dtype=float)


@dataclass(frozen=True)
class Backtest:
    """All exams of a task, oldest first. left_out: cutoff -> why it could not be an exam."""

    task: PredictionTask
    kind: Kind
    judgements: tuple[Judgement, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def pooled(self) -> Pooled:
        """The metrics of the candidates that sat every exam. One that means nothing here (a share of no total) is
        left out."""
        judged = [Judged(j.rows["person"].to_numpy(dtype=str), j.y, j.predictions, j.weight) for j in self.judgements]
        usable = [name for name in METRICS[self.kind] if all(_means_something(name, self.kind, j) for j in judged)]
        return Pooled(self.kind, judged, metrics=usable)

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """model, metric, value, low, high: means over the exams, with 95%."""
        return self.pooled.table()

    @cached_property
    def by_cutoff(self) -> pd.DataFrame:
        """cutoff, model, metric, value: each exam by itself."""
        rows = [
            (j.fold.judged, model, name, value)
            for model in self.pooled.models
            for name in self.pooled.metrics
            for j, value in zip(self.judgements, self.pooled.at(model, name), strict=True)
        ]
        return pd.DataFrame(rows, columns=pd.Index(["cutoff", "model", "metric", "value"]))

    @property
    def latest(self) -> Judgement:
        return self.judgements[-1]

    @property
    def baselines(self) -> list[str]:
        return [model for model in self.pooled.models if model != LEARNED]

    @property
    def skipped(self) -> dict[str, str]:
        """Candidates that missed an exam, and why they did, the last time."""
        found = {name: why for j in self.judgements for name, why in j.skipped.items()}
        return {name: why for name, why in found.items() if name not in self.pooled.models}

    def difference(self, model: str, other: str, metric: str) -> Difference:
        """`model` less `other`, with the 95% of the paired bootstrap."""
        return self.pooled.difference(model, other, metric)

    def choose(self) -> tuple[str, str]:
        """The champion by the task's metric, and why.

        The simplest answer, the base rate, stands until the best baseline beats it beyond chance. The learned model
        must beat every baseline beyond chance, and be no worse than the best in WATCH.
        """
        name, models = self.task.metric, self.pooled.models
        metric = self.pooled.metrics.get(name)
        if metric is None:
            return self._simplest(), f"{name} cannot be worked out for these outcomes, so nothing can be told apart"
        if not self.baselines:
            return LEARNED, f"{LEARNED} is the only candidate that could be fitted"
        sound, luck = self._sound(name), ""
        simple = sound[0]
        best = self.pooled.best(name, sound)
        if best != simple and verdict(apart := self.difference(best, simple, name), metric) != "better":
            best, luck = simple, f"; nor does {best} beat {simple} ({_said(name, apart)})"
        if LEARNED not in models:
            first = next(m for m in sound if m == best or not self._beaten(m, best, metric))
            if first == best:
                return best, f"{best} is the best of the candidates that could be fitted{luck}"
            shown = _said(name, self.difference(best, first, name))
            return first, f"{first} is not beaten beyond chance by the best that could be fitted, {best} ({shown})"
        against = {other: self.difference(LEARNED, other, name) for other in self.baselines}
        shown = f"{_said(name, against[best])} against {best}"
        if verdict(against[best], metric) == "worse":
            return best, f"the baseline {best} beats {LEARNED}: {shown}{luck}"
        if missed := [other for other, found in against.items() if verdict(found, metric) != "better"]:
            among = best if best in missed else missed[0]
            shown = f"{_said(name, against[among])} against {among}"
            return best, f"{LEARNED} does not beat every baseline beyond chance ({shown}), so {best} is served{luck}"
        for watched in (w for w in WATCH[self.kind] if w in self.pooled.metrics and w != name):
            rival = self.pooled.best(watched, self.baselines)
            apart = self.difference(LEARNED, rival, watched)
            if verdict(apart, self.pooled.metrics[watched]) == "worse":
                return best, f"{LEARNED} is better by {name}, but worse than {rival} by {_said(watched, apart)}"
        return LEARNED, f"{LEARNED} beats every baseline beyond chance: {shown}, the best of them"

    def _sound(self, name: str) -> list[str]:
        """The baselines that may be served: where the task's metric hears the order alone, not those whose numbers are
        far off, nor those that another outdoes. Money puts people in much the same order as the number of orders, which
        it is not.
        """
        watched = [w for w in WATCH[self.kind] if w in self.pooled.metrics]
        if not watched or name not in RANKS:
            return self.baselines
        off = {m: self.pooled.value(m, watched[0]) for m in self.baselines}
        near = [m for m in self.baselines if off[m] <= FAR * min(off.values())] or self.baselines
        return [m for m in near if not any(self._outdone(m, other, [name, *watched]) for other in near)] or near

    def _outdone(self, model: str, by: str, metrics: Sequence[str]) -> bool:
        """Whether another is better beyond chance in one of these metrics, and worse beyond chance in none."""
        found = {verdict(self.difference(by, model, name), self.pooled.metrics[name]) for name in metrics}
        return "better" in found and "worse" not in found

    def _beaten(self, model: str, by: str, metric: Metric) -> bool:
        return verdict(self.difference(by, model, metric.name), metric) == "better"

    def _simplest(self) -> str:
        return next(iter(self.pooled.models))

    def by_group(self, model: str, least: int = 30) -> pd.DataFrame:
        """column, group, rows, base, predicted, metric: a model over all exams, by the groups that the task declares.

        Text groups by its value, a number by its quarters. base and predicted: mean outcome and mean prediction.
        Groups of fewer rows than `least`, or of one outcome only, have no metric (NaN).
        """
        made = []
        for column in self.task.groups:
            frames = [
                pd.DataFrame({
                    "group": _words(j.rows[column], j.categories.get(column)), "y": j.y, "weight": j.weight,
                    "p": j.predictions[model],
                }) for j in self.judgements
            ]  # fmt: skip
            every = pd.concat(frames, ignore_index=True)
            every["group"] = _groups(every["group"])
            for group, rows in every.groupby("group", sort=True):
                mean = [float(np.average(rows[c], weights=rows["weight"])) for c in ("y", "p")]
                made.append((column, group, len(rows), *mean, self._metric_of(rows) if len(rows) >= least else np.nan))
        return pd.DataFrame(
            made, columns=pd.Index(["column", "group", "rows", "base", "predicted", self.task.metric])
        )  # fmt: skip

    def _metric_of(self, rows: pd.DataFrame) -> float:
        try:
            return METRICS[self.kind][self.task.metric].function(rows["y"], rows["p"], rows["weight"])
        except DataError:
            return np.nan


def run(
    task: PredictionTask, kind: Kind, rows: pd.DataFrame, folds: Sequence[Fold], columns: list[str], known: Known,
    levels: Levels, progress: Progress = lambda _: None,
) -> Backtest:  # fmt: skip
    """Let every candidate sit every exam.

    rows: as of `dataset.training_set` at all their cutoffs, as they came. An exam that asks nothing (nobody was
    eligible, all outcomes alike) is left out, and said to be; where that is so of all of them, the error of the latest.
    """
    taken, left_out, last = [], {}, None
    for place, fold in enumerate(folds):
        progress(f"{task.name}: exam {place + 1} of {len(folds)}, {fold.judged:%Y-%m-%d}")
        try:
            taken.append(_sit(task, kind, rows, fold, columns, known, levels))
        except DataError as error:
            left_out[f"{fold.judged:%Y-%m-%d}"], last = str(error), error
    if last is not None and not taken:
        raise last
    return Backtest(task, kind, tuple(taken), left_out)


def _sit(
    task: PredictionTask, kind: Kind, rows: pd.DataFrame, fold: Fold, columns: list[str], known: Known, levels: Levels
) -> Judgement:
    learn = usable(rows[rows["cutoff"].isin(fold.training)])
    judge = rows[rows["cutoff"] == pd.Timestamp(fold.judged)]
    check(task, kind, learn, judge)
    learn, judge, categories = encoded(learn, judge, columns)
    fitted, skipped = {}, {}
    for name, estimator in known(categories).items():
        try:
            fitted[name] = fit(clone(estimator), learn, columns, judge)
        except ForetellError as error:  # one that cannot cope with these data must not stop the others
            skipped[name] = str(error)
    if not fitted:
        said = "; ".join(f"{n}: {why}" for n, why in skipped.items())
        raise DataError(task.name, "no candidate could be fitted", said)
    predictions = {name: predict(estimator, judge[columns], kind) for name, estimator in fitted.items()}
    by = shift(levels, fold.training, fold.judged)
    if by and LEARNED in predictions:
        by = instead(fitted[LEARNED], by)
        predictions[LEARNED] = shifted(predictions[LEARNED], kind, by)
    return Judgement(fold, judge, learn[["profile_id", "cutoff"]], predictions, fitted, skipped, categories, by)


def encoded(
    learn: pd.DataFrame, asked: pd.DataFrame, columns: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[str]]]:
    """Both with their features as floats, and what the codes stand for: the rows learned from alone give them."""
    categories = encoding.learn(learn, columns)
    both = [
        pd.concat([rows.drop(columns=columns), encoding.encode(rows, columns, categories)], axis=1)
        for rows in (learn, asked)
    ]
    return both[0], both[1], categories


def usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows to learn from: a profile that fell apart before its label was known has no one person's outcome."""
    return rows[~rows["split"].astype(bool)]


def fit(estimator: Any, rows: pd.DataFrame, columns: list[str], now: pd.DataFrame | None = None) -> Any:
    """now: the rows that will be asked about, whose outcome is not known yet.

    An estimator that learns `by_cutoff` is told which rows are of the same one.
    """
    y = rows["label"] if not hasattr(estimator, "predict_proba") else rows["label"].astype(int)
    asked = None if now is None else now[columns]
    told = {"cutoffs": rows["cutoff"]} if getattr(estimator, "by_cutoff", False) else {}
    return estimator.fit(rows[columns], y, sample_weight=rows["weight"].to_numpy(), now=asked, **told)


def predict(estimator: Any, X: pd.DataFrame, kind: str) -> np.ndarray:
    return estimator.predict_proba(X)[:, 1] if kind == "probability" else estimator.predict(X)


def check(task: PredictionTask, kind: str, learn: pd.DataFrame, judge: pd.DataFrame) -> None:
    """Refuse rows that nothing can be learned from, or asked about."""
    for what, rows in (("training", learn), ("evaluation", judge)):
        if rows.empty:
            raise DataError(
                task.name, f"nobody is eligible ({task.population}) at the {what} cutoff",
                "loosen the population, or load more data",
            )  # fmt: skip
        label = rows["label"].to_numpy(dtype=float)
        if bad := int((~np.isfinite(label)).sum()):
            raise DataError(
                task.name, f"expected a finite label in every row, got {bad} of {len(rows)} {what} rows infinite",
                "look for amounts that are no numbers in the source of the label",
            )  # fmt: skip
        if len(np.unique(label)) < 2:
            if kind == "probability":
                only = "true" if label[0] else "false"
                problem = f"expected labels of both classes, got only {only} in {len(rows)} {what} rows"
                fix = "lengthen the horizon, widen the population, or load more data"
            else:
                problem = f"expected {kind}s that differ, got {label[0]:g} in all {len(rows)} {what} rows"
                fix = "lengthen the horizon, widen the population, or load more data; a constant needs no model"
            raise DataError(task.name, problem, fix)
        if kind == "amount" and rows is learn and not (label > 0).any():
            raise DataError(
                task.name,
                f"expected some amounts above 0, got {label.max():g} or less in all {len(rows)} training rows",
                "lengthen the horizon, load more data, or see whether sales and returns have changed signs",
            )  # fmt: skip


def _means_something(name: str, kind: Kind, judged: Judged) -> bool:
    try:
        for said in judged.predictions.values():
            metrics.METRICS[kind][name].function(judged.y, said, judged.weight)
    except DataError:
        return False
    return True


def _words(values: pd.Series, codes: Sequence[str] | None) -> list[Any]:
    """Codes as the text they stand for; numbers as they are."""
    if codes is None:
        return values.tolist()
    return values.map(dict(enumerate(codes))).fillna("unknown or rare").tolist()


def _groups(values: pd.Series) -> pd.Series:
    """Text by its value, numbers by their quarters, in words."""
    if values.dtype == object:
        return values
    if values.nunique() <= 4:
        return values.map(lambda v: "unknown" if pd.isna(v) else f"{v:g}")
    quarters = pd.qcut(values, 4, duplicates="drop")
    return quarters.map(lambda r: f"{r.left:,.4g} to {r.right:,.4g}").astype(object).fillna("unknown")


def _said(metric: str, found: Difference) -> str:
    return f"{metric} {found.value:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"
