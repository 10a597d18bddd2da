"""Which model answers for a task? The MLflow registry of this home; the alias `champion` names the one in use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from foretell.errors import NotReady
from foretell.project import Project
from models.encoding import encode

ALIAS = "champion"
CONTRACT = "contract.json"
VIEWS = "views.json"


@dataclass(frozen=True)
class Champion:
    """A registered model with what it needs to be used: its columns, versions and the typical profile.

    contract: kind, columns (in order), categories (text column -> its values, a value's place being its code), service
    (the version of its features), background (column -> its typical value, as the model reads it), base_rate,
    estimator, horizon_days, batch, cutoffs, as logged with the run.
    """

    task: str
    version: str
    run_id: str
    model: Any
    contract: dict[str, Any]

    def encode(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The model's columns as floats, text by the codes that its training gave it."""
        return encode(rows, self.contract["columns"], self.categories)

    @property
    def categories(self) -> dict[str, list[str]]:
        return self.contract["categories"]

    def predict(self, X: pd.DataFrame) -> pd.Series:
        """The calibrated probability or expected amount of each encoded row."""
        X = X[self.contract["columns"]]
        values = self.model.predict_proba(X)[:, 1] if self.contract["kind"] == "probability" else self.model.predict(X)
        return pd.Series(values, index=X.index, dtype=float)

    @property
    def background(self) -> pd.Series:
        return pd.Series(self.contract["background"], dtype=float)


def client(project: Project):
    """MLflow's client on this home's tracking store (MLFLOW_TRACKING_URI, if set, wins)."""
    import logging

    import mlflow

    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    folder = project.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if (
        not given
    ):  # MLflow sets the variable as well: it must not pass for the user's wish, nor follow us to other homes
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient(uri, uri)


def experiment(project: Project, task: str) -> str:
    """The id of a task's experiment, made on first use with its artifacts in the home."""
    tracking = client(project)
    if found := tracking.get_experiment_by_name(task):
        return found.experiment_id
    location = (
        None if os.environ.get("MLFLOW_TRACKING_URI") else (project.home / "mlflow" / "artifacts" / task).as_uri()
    )
    return tracking.create_experiment(task, artifact_location=location)


def champion(project: Project, task: str, version: str | None = None) -> Champion:
    """The model in use for a task, or a given version. NotReady when nothing is trained yet."""
    import mlflow.artifacts
    from mlflow import sklearn as sklearn_flavour
    from mlflow.exceptions import MlflowException

    tracking = client(project)
    try:
        found = (
            tracking.get_model_version(task, version) if version else tracking.get_model_version_by_alias(task, ALIAS)
        )
    except MlflowException:
        raise NotReady(task, "nothing is trained yet", f"run `foretell train {task}` first") from None
    assert found.run_id is not None
    contract = json.loads(mlflow.artifacts.load_text(f"runs:/{found.run_id}/{CONTRACT}"))
    model = sklearn_flavour.load_model(f"models:/{task}/{found.version}")
    return Champion(task, str(found.version), found.run_id, model, contract)


def views_of(project: Project, model: Champion) -> list[dict[str, Any]]:
    """The views that a model was trained on, as features.compiling froze them; [] of one that kept none."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    client(project)
    try:
        return json.loads(mlflow.artifacts.load_text(f"runs:/{model.run_id}/{VIEWS}"))["views"]
    except MlflowException:
        return []


def promote(project: Project, task: str, version: str) -> None:
    """Make a registered version the champion. One write: readers see the old one or the new one."""
    client(project).set_registered_model_alias(task, ALIAS, version)


def trained_at(project: Project, task: str) -> tuple[str, datetime] | None:
    """(version, when) of a task's champion, or None; does not load the model."""
    if not (os.environ.get("MLFLOW_TRACKING_URI") or (project.home / "mlflow" / "mlflow.db").exists()):
        return None
    from mlflow.exceptions import MlflowException

    try:
        found = client(project).get_model_version_by_alias(task, ALIAS)
    except MlflowException:
        return None
    return str(found.version), datetime.fromtimestamp(found.creation_timestamp / 1000)


def quietly(work: Callable[[], Any]) -> Any:
    """Run MLflow calls without its chatter on standard output and error."""
    import contextlib
    import io
    import warnings

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return work()
