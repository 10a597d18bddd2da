"""How is a champion found? Every candidate learns from past cutoffs and is judged on one that lies after all of them.

The learned challenger becomes champion only if it beats the best baseline by more than chance would; else the baseline
is served, and the report says so. The winner is then fitted again on the latest complete cutoffs and registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.base import clone

from features.store import repository
from foretell.binding import kind_of
from foretell.declarations import PredictionTask
from foretell.errors import DataError, ForetellError, unknown
from foretell.project import Project
from lake.engine import last_batch
from models import encoding
from models.estimators import candidates
from training import dataset, lineage, metrics
from training.cutoffs import Cutoffs, plan
from training.metrics import Kind

if TYPE_CHECKING:
    from training.tuning import Tuning

LEARNED = "lightgbm"


@dataclass(frozen=True, repr=False)
class Picture:
    """A PNG file that a notebook shows by itself."""

    file: Path

    def __repr__(self) -> str:
        return f"Picture({self.file.name})"  # a notebook keeps this beside the picture: no one's folders

    def _repr_png_(self) -> bytes:
        return self.file.read_bytes()


@dataclass(frozen=True, repr=False)
class Trained:
    """What a training found out.

    evaluation: model, metric, value, low, high. winner, runner_up: names; reason: why the winner was chosen, in words.
    skipped: candidates that could not be fitted, and why. version: of the registered model. tuned: what tuning the
    learned candidate found out, if it was asked to. without_consent: rows left out as their people did not agree to the
    task's purpose, or have withdrawn since. plots: name -> file, among the artifacts of the MLflow run.
    """

    task: PredictionTask
    kind: Kind
    cutoffs: Cutoffs
    rows: dict[str, int]
    base_rate: float
    evaluation: pd.DataFrame
    winner: str
    reason: str
    skipped: dict[str, str]
    version: str
    run_id: str
    tuned: Tuning | None = None
    without_consent: int = 0
    plots: dict[str, Path] = field(default_factory=dict)

    def __repr__(self) -> str:
        judged = self.evaluation[self.evaluation["metric"] == self.task.metric]
        lines = [
            f"{'*' if row.model == self.winner else ' '} {row.model}: {row.metric} {row.value:,.4g} "
            f"[{row.low:,.4g}, {row.high:,.4g}]"
            for row in judged.itertuples()
        ]
        tuned = [f"Tuning: {self.tuned.reason}."] if self.tuned else []
        head = f"{self.task.name} v{self.version}, judged at {self.cutoffs.evaluation:%Y-%m-%d}"
        return "\n".join([head, *lines, *tuned, f"Champion: {self.winner}. {self.reason}."])

    def plot(self, name: str) -> Picture:
        """A picture of the run, which a notebook shows: "calibration" and "shap" of the champion, "gain", "tuning", …

        `plots` holds the files of all of them.
        """
        for known in (name, f"{name}_{self.winner}", f"{name}_{self.task.metric}"):
            if known in self.plots:
                return Picture(self.plots[known])
        raise unknown("plot", name, self.plots, where=f"task {self.task.name}")


def train(
    project: Project, name: str, progress: Callable[[str], None] = lambda _: None, trials: int | None = None
) -> Trained:
    """Train, judge and register the champion of a task.

    trials: how many sets of parameters are tried for the learned candidate; None: as the project's setting says.
    """
    from training.tracking import Evidence, plots_of, register
    from training.tuning import tune

    task = project.definitions.task(name)
    kind = cast(Kind, kind_of(task, dict(project.definitions.sources)))
    if task.metric not in metrics.METRICS[kind]:
        raise metrics.unknown(f"{kind} metric", task.metric, metrics.METRICS[kind], where=f"task {name}")
    cutoffs = plan(task, project.now, dataset.first_fact(project, task), project.setting("cutoffs"))
    columns = dataset.feature_columns(project, task)
    rows = dataset.training_set(
        project, task, [*cutoffs.training, cutoffs.evaluation, *cutoffs.final], progress=progress
    )
    without_consent = int(rows.attrs.get("without_consent", 0))
    # codes are given by the rows learned from: what came later has no say in them
    categories = encoding.learn(rows[rows["cutoff"].isin(cutoffs.training)], columns)
    rows[columns] = encoding.encode(rows, columns, categories)
    learn = _usable(rows[rows["cutoff"].isin(cutoffs.training)])
    judge = rows[rows["cutoff"] == pd.Timestamp(cutoffs.evaluation)]
    _check(task, kind, learn, judge)
    known = _candidates(project, task, kind, columns, categories)
    wanted = project.setting("trials") if trials is None else trials
    tuned = tune(project, task, kind, learn, columns, known[LEARNED], wanted, progress)
    if tuned:
        known[LEARNED].set_params(**tuned.taken)
    fitted, skipped = _fit_all(task, known, columns, learn, progress)
    predictions = {model: predict(estimator, judge[columns], kind) for model, estimator in fitted.items()}
    progress(f"{name}: judging {len(predictions)} candidates")
    y, weight = judge["label"].to_numpy(), judge["weight"].to_numpy()
    evaluation = metrics.evaluate(y, predictions, kind, weight)
    winner, reason = choose(task, kind, y, predictions, weight)
    progress(f"{name}: fitting {winner} on the latest cutoffs")
    final_rows = _usable(rows[rows["cutoff"].isin(cutoffs.final)])
    final = fit(clone(known[winner]), final_rows, columns)
    base_rate = float(np.average(final_rows["label"], weights=final_rows["weight"]))
    counts = {"training": len(learn), "evaluation": len(judge), "final": len(final_rows)}
    progress(f"{name}: registering in MLflow")
    contract = {
        "task": name, "kind": kind, "columns": columns, "estimator": winner, "base_rate": base_rate,
        "service": repository.service_name(project, task), "categories": categories,
        "background": encoding.background(learn[columns], categories),
        "horizon_days": task.horizon.total_seconds() / 86_400, "purpose": task.purpose, "population": task.population,
        "metric": task.metric, "batch": last_batch(project), "cutoffs": [c.isoformat() for c in cutoffs.final],
        "evaluated_on": cutoffs.evaluation.isoformat(), "rows": counts, "reason": reason,
        "tuned": tuned.taken if tuned else {},
    }  # fmt: skip
    whose = lineage.counts({"training": learn, "evaluation": judge, "final": final_rows})
    evidence = Evidence(contract, evaluation, judge, predictions, fitted, final, skipped, tuned, whose)
    version, run_id = register(project, task, evidence)
    return Trained(
        task, kind, cutoffs, counts, base_rate, evaluation, winner, reason, skipped, version, run_id, tuned,
        without_consent, plots_of(project, run_id),
    )  # fmt: skip


def choose(
    task: PredictionTask, kind: Any, y: np.ndarray, predictions: dict[str, np.ndarray], weight: np.ndarray
) -> tuple[str, str]:
    """The champion among the candidates by the task's metric, and why.

    The best baseline wins unless the learned model is better by more than the paired bootstrap interval.
    """
    metric = metrics.METRICS[kind][task.metric]
    losses = {model: float(metric.loss(metric.function(y, p, weight))) for model, p in predictions.items()}
    baselines = {model: loss for model, loss in losses.items() if model != LEARNED}
    if not baselines or LEARNED not in losses:
        only = min(losses, key=losses.__getitem__)
        return only, f"{only} is the best of the candidates that could be fitted"
    best = min(baselines, key=baselines.__getitem__)
    difference = metrics.compare(y, predictions, kind, task.metric, best, LEARNED, weight)
    shown = f"{task.metric} {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}] against {best}"
    match metrics.verdict(difference, metric):
        case "better":
            return LEARNED, f"{LEARNED} beats the best baseline beyond chance: {shown}"
        case "worse":
            return best, f"the baseline {best} beats {LEARNED}: {shown}"
        case _:
            return best, f"{LEARNED} does not beat the best baseline beyond chance ({shown}), so {best} is served"


def _candidates(
    project: Project, task: PredictionTask, kind: str, columns: list[str], categories: encoding.Categories
) -> dict[str, Any]:
    days = task.horizon.total_seconds() / 86_400
    return candidates(
        kind, columns, days, num_threads=project.setting("threads"), categorical=categories, target=task.target
    )


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows to learn from: a profile that fell apart before its label was known has no one person's outcome."""
    return rows[~rows["split"].astype(bool)]


def fit(estimator: Any, rows: pd.DataFrame, columns: list[str]) -> Any:
    y = rows["label"] if not hasattr(estimator, "predict_proba") else rows["label"].astype(int)
    return estimator.fit(rows[columns], y, sample_weight=rows["weight"].to_numpy())


def predict(estimator: Any, X: pd.DataFrame, kind: str) -> np.ndarray:
    return estimator.predict_proba(X)[:, 1] if kind == "probability" else estimator.predict(X)


def _fit_all(
    task: PredictionTask, known: dict[str, Any], columns: list[str], rows: pd.DataFrame,
    progress: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    fitted, skipped = {}, {}
    for name, estimator in known.items():
        progress(f"{task.name}: fitting {name}")
        try:
            fitted[name] = fit(clone(estimator), rows, columns)
        except ForetellError as error:  # one that cannot cope with these data must not stop the others
            skipped[name] = str(error)
    if not fitted:
        raise DataError(
            task.name, "no candidate could be fitted", "; ".join(f"{n}: {why}" for n, why in skipped.items())
        )
    return fitted, skipped


def _check(task: PredictionTask, kind: str, learn: pd.DataFrame, judge: pd.DataFrame) -> None:
    for what, rows in (("training", learn), ("evaluation", judge)):
        if rows.empty:
            raise DataError(
                task.name, f"nobody is eligible ({task.population}) at the {what} cutoff",
                "loosen the population, or load more data",
            )  # fmt: skip
        if kind == "probability" and rows["label"].nunique() < 2:
            only = "true" if rows["label"].iloc[0] else "false"
            raise DataError(
                task.name, f"expected labels of both classes, got only {only} in {len(rows)} {what} rows",
                "lengthen the horizon, widen the population, or load more data",
            )  # fmt: skip
