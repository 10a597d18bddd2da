"""Which parameters should the learned estimator have? Optuna tries some on the past of the past, and chance is counted.

Only training cutoffs are read, never the evaluation cutoff, so tuning leaves the judgement that follows untouched.
Trials are judged at the latest training cutoff. They learn from the older ones whose labels were complete by then
(cutoff + horizon + settle <= the judging cutoff), so that nothing of what they are asked was known. Where no cutoff is
that old (a long horizon, few cutoffs), persons are parted into FOLDS groups, and each group is judged by what was
learned from the others at the older cutoffs, or at the same one if it is the only one: no person's outcome is both
learned and asked. What everybody had in common in the days that both labels see may still be learned then; it is the
same for all trials, and the evaluation cutoff, which lies after all of it, has the last word.

A trial's value is its loss in the task's own metric where that is smooth (log loss, Brier, MAE, RMSE), else log loss or
Tweedie deviance: lifts and ranks jump, and calibration errors are smallest for a model that tells nobody apart.

Trial 0 has the defaults, so nothing is chosen that was seen to be worse. The best trial replaces them only where it is
better in the task's metric beyond chance, by the paired bootstrap that also decides between candidates. The best of
many looks better than it is, so the interval widens with the number of trials (Bonferroni): more trials, a higher bar.

The study lies in the home, named after the task's feature service and a digest of the rows themselves: the same
question goes on where it stopped, another one starts anew. Each trial's sampler is seeded with the number of trials
finished before it: a study that was killed and run again finds the same trials as one that was left alone, and so does
one that was given more trials later. `trials` counts finished ones; what is found depends on the first `trials` only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.metrics import mean_tweedie_deviance

from features.store import repository
from foretell.declarations import PredictionTask
from foretell.errors import DataError
from foretell.project import Project
from training import metrics
from training.backtest import fit, predict
from training.metrics import METRICS, Kind

FOLDS = 2
SMOOTH = ("log_loss", "brier", "mae", "rmse")
TWEEDIE = 1.4  # the power of the loss by which amounts are learned
QUARTERS = (1, 2, 3)  # of a trial's trees, after which it is compared with the others
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# parameter -> lowest, highest; tried on a logarithmic scale. Whole numbers are tried as whole numbers.
SPACE: dict[str, tuple[float, float]] = {
    "trees": (50, 400), "leaves": (3, 31), "learning_rate": (0.01, 0.1), "min_leaf_rows": (10, 200),
    "lambda_l2": (0.1, 100.0),
}  # fmt: skip

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """What a tuning found out.

    taken: the parameters given to the learned estimator, empty where its defaults stay; reason: why, in words.
    trials: number, state ("complete", "pruned"), value, started, ended, and a column a parameter; in the order tried.
    objective: what value is. judged: how trials were judged, in words.
    """

    taken: dict[str, Any]
    reason: str
    trials: pd.DataFrame
    objective: str
    judged: str


@dataclass(frozen=True)
class _Question:
    """What every trial is asked. folds: positions of the rows learned from, and of those judged by it."""

    task: PredictionTask
    kind: Kind
    rows: pd.DataFrame
    columns: list[str]
    folds: list[tuple[np.ndarray, np.ndarray]]
    judged: str

    @property
    def objective(self) -> str:
        if self.task.metric in SMOOTH:
            return self.task.metric
        return {"probability": "log_loss", "amount": "tweedie_deviance", "duration": "rmse"}[self.kind]

    def loss(self, at: np.ndarray, predicted: np.ndarray) -> float:
        """The objective over the rows at these positions."""
        y, weight = self.rows["label"].to_numpy(dtype=float)[at], self.rows["weight"].to_numpy()[at]
        if self.objective in METRICS[self.kind]:
            return METRICS[self.kind][self.objective].function(y, predicted, weight)
        return mean_tweedie_deviance(
            np.maximum(y, 0.0),
            np.maximum(predicted, 1e-9),
            sample_weight=weight,
            power=TWEEDIE,  # pyright: ignore[reportArgumentType]
        )

    def answered(self, estimator: Any, watch: Callable[[Any, np.ndarray, Any], None] | None = None) -> np.ndarray:
        """A prediction for each row of `at`; `watch` sees the first fold's trees grow."""
        found = []
        for learn, judge in self.folds:
            model = _with(estimator, {})
            if watch:
                model.callbacks = [partial(watch, model, judge)]
                watch = None
            fit(model, self.rows.iloc[learn], self.columns)
            found.append(predict(model, self.rows.iloc[judge][self.columns], self.kind))
        return np.concatenate(found)

    @property
    def at(self) -> np.ndarray:
        """Positions of the rows that are judged."""
        return np.concatenate([judge for _, judge in self.folds])


def tune(
    project: Project, task: PredictionTask, kind: Kind, rows: pd.DataFrame, columns: list[str], estimator: Any,
    trials: int, progress: Progress = lambda _: None,
) -> Tuning | None:  # fmt: skip
    """Try parameters of `estimator` on the rows of the training cutoffs until `trials` are finished; None if 0.

    Rows are as `dataset.training_set` gives them, encoded.
    """
    if trials < 0:
        raise DataError(task.name, f"expected 0 trials or more, got {trials}", "pass trials=0 to leave tuning out")
    if not trials:
        return None
    question = _parted(task, kind, rows.reset_index(drop=True), columns)
    if lacking := _lacking(question):
        return Tuning({}, f"not tuned: {lacking}", pd.DataFrame(), question.objective, question.judged)
    study = _study(project, question, estimator)
    defaults = {name: estimator.get_params()[name] for name in SPACE}
    while (done := len(_finished(study))) < trials:
        best = f", best {question.objective} {study.best_value:.4g}" if done else ""
        progress(f"{task.name}: tuning, trial {done + 1} of {trials}{best}")
        _try_one(study, question, estimator, defaults, seed=done)
    finished = _finished(study)[:trials]
    best = min((t for t in finished if t.state == TrialState.COMPLETE), key=lambda t: t.value or 0.0)
    taken, reason = _confirmed(study, question, estimator, finished[0], best, len(finished) - 1)
    return Tuning(taken, reason, _table(finished), question.objective, question.judged)


def _parted(task: PredictionTask, kind: Kind, rows: pd.DataFrame, columns: list[str]) -> _Question:
    """The rows parted into those that trials learn from and those that they are judged on, as said above."""
    cutoffs = sorted(rows["cutoff"].unique())
    latest, reach = cutoffs[-1], pd.Timedelta(task.horizon + task.settle)
    complete = [c for c in cutoffs[:-1] if c + reach <= latest]
    judged = np.flatnonzero(rows["cutoff"] == latest)
    if complete:
        learn = np.flatnonzero(rows["cutoff"].isin(complete))
        says = f"learned at {len(complete)} cutoffs whose labels were complete at the judging one"
        return _Question(task, kind, rows, columns, [(learn, judged)], f"{says}, {latest:%Y-%m-%d}")
    group = pd.util.hash_array(rows["person"].astype(str).to_numpy(dtype=object)) % FOLDS
    older = rows["cutoff"].isin(cutoffs[:-1] or cutoffs).to_numpy()
    folds = [
        (np.flatnonzero(older & (group != fold)), judged[group[judged] == fold]) for fold in range(FOLDS)
    ]  # fmt: skip
    says = f"learned at {max(len(cutoffs) - 1, 1)} cutoffs from other persons than those judged at {latest:%Y-%m-%d}"
    return _Question(task, kind, rows, columns, folds, says)


def _lacking(question: _Question) -> str:
    """Why the parts are too few to judge trials on, or nothing."""
    label = question.rows["label"].to_numpy(dtype=float)
    for part in (at for fold in question.folds for at in fold):
        if len(np.unique(label[part])) < 2:
            return f"all labels are the same in a part of {len(part)} rows of the training cutoffs"
    if question.kind == "amount" and any(not (label[learn] > 0).any() for learn, _ in question.folds):
        return "no label is above 0 in a part of the training cutoffs"
    return ""


def _study(project: Project, question: _Question, estimator: Any) -> optuna.Study:
    """This question's study. A trial that runs is one that a dead process left (the home has one writer): failed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    project.home.mkdir(parents=True, exist_ok=True)
    service = repository.service_name(project, question.task)
    study = optuna.create_study(
        storage=f"sqlite:///{project.home / 'tuning.db'}",
        study_name=f"{service}__{_digest(question, estimator)}",
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=QUARTERS[1]),
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _digest(question: _Question, estimator: Any) -> str:
    """Of everything that a trial's value depends on, but for its parameters; threads change no value."""
    rows = question.rows
    fixed = {k: v for k, v in estimator.get_params().items() if k != "num_threads"}
    said = [question.objective, question.kind, question.task.metric, question.judged, question.columns, fixed, SPACE]
    digest = hashlib.sha256(repr(said).encode())
    digest.update(" ".join(rows["person"].astype(str)).encode())
    digest.update(rows["cutoff"].astype("int64").to_numpy().tobytes())
    # single precision: sums of floats differ in their last bits from run to run
    digest.update(rows[["label", "weight", *question.columns]].to_numpy(dtype=np.float32).tobytes())
    return digest.hexdigest()[:12]


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


def _try_one(
    study: optuna.Study, question: _Question, estimator: Any, defaults: dict[str, Any], seed: int
) -> None:  # fmt: skip
    """Ask for one more set of parameters, judge it, and tell the study."""
    if not seed and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(defaults)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    trial = study.ask()
    candidate = _with(estimator, {name: _suggested(trial, name, defaults[name]) for name in SPACE})
    try:
        found = question.answered(candidate, partial(_watch, trial, question))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, question.loss(question.at, found))


def _suggested(trial: optuna.Trial, name: str, default: Any) -> Any:
    low, high = SPACE[name]
    if isinstance(default, int):
        return trial.suggest_int(name, int(low), int(high), log=True)
    return trial.suggest_float(name, low, high, log=True)


def _watch(trial: optuna.Trial, question: _Question, model: Any, at: np.ndarray, env: Any) -> None:
    """LightGBM's callback: the loss so far after each quarter of the trees; ends a trial that is behind the others."""
    for quarter in QUARTERS:
        if env.iteration + 1 == env.end_iteration * quarter // 4:
            model.booster_ = env.model
            predicted = predict(model, question.rows.iloc[at][question.columns], question.kind)
            trial.report(question.loss(at, predicted), quarter)
            if trial.should_prune():
                raise optuna.TrialPruned


def _confirmed(
    study: optuna.Study, question: _Question, estimator: Any, first: optuna.trial.FrozenTrial,
    best: optuna.trial.FrozenTrial, tried: int,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The parameters to use, and why: the best trial's if they beat the defaults by more than luck explains.

    Asked once of each best trial; the study keeps the answer.
    """
    if best.number == first.number:
        return {}, f"defaults kept: none of {tried} other trials was better"
    metric, key = question.task.metric, f"trial {best.number} against the defaults"
    if key not in study.user_attrs:
        given = {"defaults": first.params, "tuned": best.params}
        answers = {k: question.answered(_with(estimator, p)) for k, p in given.items()}
        y, weight = (question.rows[c].to_numpy(dtype=float)[question.at] for c in ("label", "weight"))
        study.set_user_attr(key, list(metrics.compare(y, answers, question.kind, metric, "defaults", "tuned", weight)))
    difference = _widened(metrics.Difference(*study.user_attrs[key]), tried)
    shown = f"{metric} {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}], best of {tried}"
    if metrics.verdict(difference, METRICS[question.kind][metric]) == "better":
        return dict(best.params), f"tuned parameters taken: they beat the defaults beyond chance ({shown})"
    return {}, f"defaults kept: the best trial does not beat them beyond chance ({shown})"


def _widened(difference: metrics.Difference, tried: int) -> metrics.Difference:
    """The 95% interval made one that holds for all of `tried` differences at once (Bonferroni, normal tails)."""
    times = NormalDist().inv_cdf(1 - 0.025 / tried) / NormalDist().inv_cdf(0.975)
    value, low, high = difference
    return metrics.Difference(value, value - times * (value - low), value + times * (high - value))


def _with(estimator: Any, parameters: dict[str, Any]) -> Any:
    copy: Any = clone(estimator)
    return copy.set_params(**parameters)


def _table(trials: Sequence[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "number": number, "state": trial.state.name.lower(), "value": trial.value,
                "started": trial.datetime_start, "ended": trial.datetime_complete, **trial.params,
            }
            for number, trial in enumerate(trials)
        ]
    )  # fmt: skip
