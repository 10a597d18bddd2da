"""What is kept of a training? One MLflow run: parameters, metrics with intervals, plots, features, and the model.

A tracking server may go away at any step. So a model is registered only once its run is finished, with everything in
it, and promoted last: whatever is cut short is an unfinished run, or a version that nobody uses. The next training of
the task marks such a run as killed.
"""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.compiling import frozen
from foretell.declarations import PredictionTask
from foretell.project import Project
from models import registry
from training import lineage
from training.champion import Contest, whose
from training.document import document
from training.expected import EXPECTED, expected

if TYPE_CHECKING:
    from training.tuning import Tuning

REPORT = "report.html"
_RUNTIME = ("scikit-learn", "lightgbm", "numpy", "pandas", "scipy")


def register(project: Project, found: Contest, contract: dict[str, Any]) -> tuple[str, str]:
    """Log the run, register the model and, last of all, make it champion. Returns (model version, run id).

    Raises registry.Unanswered when the tracking server fails; trials that are done are kept in the home's study.
    """
    try:
        return registry.quietly(lambda: _register(project, found, contract))
    except registry.Unanswered as error:
        raise registry.Unanswered(
            error.subject, f"the training of {found.task.name} was not kept to its end: {error.problem}",
            f"{error.fix}: trials that are done are not repeated",
        ) from error  # fmt: skip


def _register(project: Project, found: Contest, contract: dict[str, Any]) -> tuple[str, str]:
    import mlflow
    from mlflow import sklearn as sklearn_flavour
    from mlflow.models import infer_signature

    task, columns = found.task, found.columns
    place, tags = registry.experiment(project, task.name), {registry.OWNER: registry.owner(project)}
    _bury(registry.client(project), place, tags)
    with mlflow.start_run(experiment_id=place, run_name=found.winner, tags=tags) as run:
        mlflow.log_params({k: str(v) for k, v in _params(task, contract).items()})
        mlflow.log_metrics(_metrics(found))
        if found.tuned:
            mlflow.log_params(_tuned_params(found.tuned))
            _log_trials(registry.client(project), run.info, found.tuned, tags)
        for name, figure in found.drawn.items():
            mlflow.log_figure(figure, f"plots/{name}.png")
        mlflow.log_text(document(found, found.drawn), REPORT)
        mlflow.log_text(found.backtest.evaluation.to_csv(index=False), "evaluation.csv")
        mlflow.log_text(found.backtest.by_cutoff.to_csv(index=False), "by_cutoff.csv")
        mlflow.log_dict({"features": columns, "service": contract["service"]}, "features.json")
        mlflow.log_dict({"views": _frozen(project, task)}, registry.VIEWS)
        mlflow.log_dict(found.backtest.skipped, "skipped.json")
        mlflow.log_dict(contract, registry.CONTRACT)
        mlflow.log_dict(expected(found), EXPECTED)
        sample = found.rows[columns].head(5)
        method = "predict_proba" if found.kind == "probability" else "predict"
        logged = sklearn_flavour.log_model(
            found.final,
            name="model",
            signature=infer_signature(sample, getattr(found.final, method)(sample)),
            pyfunc_predict_fn=method,
            serialization_format="cloudpickle",
            pip_requirements=[f"{name}=={installed(name)}" for name in _RUNTIME],
        )
    number = str(mlflow.register_model(logged.model_uri, task.name, tags=tags).version)
    lineage.keep(project, task.name, number, run.info.run_id, whose(found))  # before it is in use
    if not found.stays:
        registry.promote(project, task.name, number)
    return number, run.info.run_id


def _bury(tracking: Any, experiment: str, tags: dict[str, str]) -> None:
    """Mark this project's runs of an experiment that still run as killed: a home has one writer, so none of them is."""
    ours = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    for run in tracking.search_runs([experiment], f"attributes.status = 'RUNNING' and {ours}"):
        tracking.set_terminated(run.info.run_id, "KILLED")


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


def _metrics(found: Contest) -> dict[str, float]:
    """Every candidate's metrics with their intervals as `model.metric`; the champion's by their plain names too."""
    made = {}
    for model, metric, *numbers in found.backtest.evaluation.itertuples(index=False):
        names = [f"{model}.{metric}"] + ([metric] if model == found.winner else [])
        for name in names:
            made |= dict(zip((name, f"{name}.low", f"{name}.high"), map(float, numbers), strict=True))
    return {name: value for name, value in made.items() if np.isfinite(value)}


def _tuned_params(tuned: Tuning) -> dict[str, str]:
    said = {"trials": len(tuned.trials), "reason": tuned.reason, "objective": tuned.objective, "judged": tuned.judged}
    return {f"tuned.{name}": str(value) for name, value in (said | tuned.taken).items()}


def _log_trials(tracking: Any, parent: Any, tuned: Tuning, tags: dict[str, str]) -> None:
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
            tags={**tags, "mlflow.parentRunId": parent.run_id},
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
