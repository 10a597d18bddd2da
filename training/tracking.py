"""What is kept of a training? One MLflow run: parameters, metrics with intervals, plots, features, and the model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from features.compiling import frozen
from foretell.declarations import PredictionTask
from foretell.project import Project
from models import registry
from models.explain import contributions
from training import lineage, plots

if TYPE_CHECKING:
    from training.tuning import Tuning

SHAP_ROWS = 2_000
_RUNTIME = ("scikit-learn", "lightgbm", "numpy", "pandas", "scipy")


@dataclass(frozen=True)
class Evidence:
    """A judged training: the contract, the evaluation table, the evaluation rows with every candidate's predictions,
    the candidates as judged, the winner fitted for use, the candidates that could not be fitted, the tuning, and whose
    rows it all is made of (see training/lineage.py)."""

    contract: dict[str, Any]
    evaluation: pd.DataFrame
    judge: pd.DataFrame
    predictions: dict[str, np.ndarray]
    fitted: dict[str, Any]
    final: Any
    skipped: dict[str, str]
    tuned: Tuning | None = None
    lineage: pd.DataFrame | None = None


def register(project: Project, task: PredictionTask, evidence: Evidence) -> tuple[str, str]:
    """Log the run, register the model and, last of all, make it champion. Returns (model version, run id)."""
    return registry.quietly(lambda: _register(project, task, evidence))


def _register(project: Project, task: PredictionTask, evidence: Evidence) -> tuple[str, str]:
    import mlflow
    from mlflow import sklearn as sklearn_flavour
    from mlflow.models import infer_signature

    contract, columns = evidence.contract, evidence.contract["columns"]
    with mlflow.start_run(experiment_id=registry.experiment(project, task.name), run_name=contract["estimator"]) as run:
        mlflow.log_params({k: str(v) for k, v in _params(task, contract).items()})
        mlflow.log_metrics(_metrics(evidence))
        if evidence.tuned:
            mlflow.log_params(_tuned_params(evidence.tuned))
            _log_trials(registry.client(project), run.info, evidence.tuned)
        for name, figure in _figures(task, evidence).items():
            mlflow.log_figure(figure, f"plots/{name}.png")
        mlflow.log_text(evidence.evaluation.to_csv(index=False), "evaluation.csv")
        mlflow.log_dict({"features": columns, "service": contract["service"]}, "features.json")
        mlflow.log_dict({"views": _frozen(project, task)}, registry.VIEWS)
        mlflow.log_dict(evidence.skipped, "skipped.json")
        mlflow.log_dict(contract, registry.CONTRACT)
        sample = evidence.judge[columns].head(5)
        method = "predict_proba" if contract["kind"] == "probability" else "predict"
        sklearn_flavour.log_model(
            evidence.final,
            name="model",
            signature=infer_signature(sample, getattr(evidence.final, method)(sample)),
            pyfunc_predict_fn=method,
            serialization_format="cloudpickle",
            pip_requirements=[f"{name}=={installed(name)}" for name in _RUNTIME],
            registered_model_name=task.name,
        )
    found = registry.client(project).search_model_versions(f"name='{task.name}' and run_id='{run.info.run_id}'")
    number = str(max(int(v.version) for v in found))
    if evidence.lineage is not None:  # before it is in use
        lineage.keep(project, task.name, number, run.info.run_id, evidence.lineage)
    registry.promote(project, task.name, number)
    return number, run.info.run_id


def _frozen(project: Project, task: PredictionTask) -> list[dict[str, Any]]:
    """The views the model is trained on, so that they can be built for it when their files have been edited."""
    return [frozen(view, dict(project.definitions.sources)) for view in project.definitions.views_of(task)]


def plots_of(project: Project, run_id: str) -> dict[str, Path]:
    """The pictures of a run: name -> file."""

    def fetch() -> Path:
        return Path(registry.client(project).download_artifacts(run_id, "plots"))

    return {file.stem: file for file in sorted(registry.quietly(fetch).glob("*.png"))}


def _params(task: PredictionTask, contract: dict[str, Any]) -> dict[str, Any]:
    kept = ("estimator", "kind", "service", "batch", "cutoffs", "evaluated_on", "base_rate", "rows")
    return {
        **{k: contract[k] for k in kept}, "population": task.population, "horizon": task.horizon,
        "settle": task.settle, "metric": task.metric, "purpose": task.purpose,
    }  # fmt: skip


def _metrics(evidence: Evidence) -> dict[str, float]:
    """Every candidate's metrics with their intervals as `model.metric`; the champion's by their plain names too."""
    found = {}
    for model, metric, *numbers in evidence.evaluation.itertuples(index=False):
        names = [f"{model}.{metric}"] + ([metric] if model == evidence.contract["estimator"] else [])
        for name in names:
            found |= dict(zip((name, f"{name}.low", f"{name}.high"), map(float, numbers), strict=True))
    return found


def _tuned_params(tuned: Tuning) -> dict[str, str]:
    said = {"trials": len(tuned.trials), "reason": tuned.reason, "objective": tuned.objective, "judged": tuned.judged}
    return {f"tuned.{name}": str(value) for name, value in (said | tuned.taken).items()}


def _log_trials(tracking: Any, parent: Any, tuned: Tuning) -> None:
    """One nested run a trial, at the time it took place; a pruned one is KILLED, as MLflow has no word for it."""
    from mlflow.entities import Metric, Param, RunTag

    for trial in tuned.trials.to_dict("records"):
        started, ended = _milliseconds(trial.pop("started")), _milliseconds(trial.pop("ended"))
        number, state, value = trial.pop("number"), trial.pop("state"), trial.pop("value")
        numbers = {"duration_seconds": (ended - started) / 1000}
        if state == "complete":
            numbers[tuned.objective] = float(value)
        run = tracking.create_run(
            parent.experiment_id, start_time=started, run_name=f"trial {number}",
            tags={"mlflow.parentRunId": parent.run_id},
        )  # fmt: skip
        tracking.log_batch(
            run.info.run_id,
            metrics=[Metric(name, number, ended, 0) for name, number in numbers.items()],
            params=[Param(str(name), str(value)) for name, value in trial.items()],
            tags=[RunTag("state", state)],
        )
        tracking.set_terminated(run.info.run_id, "FINISHED" if state == "complete" else "KILLED", ended)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _figures(task: PredictionTask, evidence: Evidence) -> dict[str, Figure]:
    kind, winner = evidence.contract["kind"], evidence.contract["estimator"]
    y, weight = evidence.judge["label"].to_numpy(), evidence.judge["weight"].to_numpy()
    columns = evidence.contract["columns"]
    shape = plots.calibration_plot if kind == "probability" else plots.decile_plot
    shown = sorted({winner, "lightgbm"} & set(evidence.fitted))  # the others are in the table, `gain` and `compare`
    figures = {f"calibration_{name}": shape(y, evidence.predictions[name], name, weight=weight) for name in shown}
    figures["gain"] = plots.gain_plot(y, evidence.predictions, kind, weight=weight)
    figures[f"compare_{task.metric}"] = plots.comparison_plot(evidence.evaluation, task.metric)
    X = evidence.judge[columns].head(SHAP_ROWS)
    background = pd.Series(evidence.contract["background"], dtype=float)
    if evidence.tuned and len(evidence.tuned.trials):
        figures["tuning"] = plots.tuning_plot(evidence.tuned.trials, evidence.tuned.objective)
    for name in shown:
        figures[f"shap_{name}"] = plots.importance_plot(contributions(evidence.fitted[name], X, background), X)
    return figures
