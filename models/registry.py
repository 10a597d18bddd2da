"""Which model answers for a task? The MLflow registry of this home; the alias `champion` names the one in use.

Where MLFLOW_TRACKING_URI, or the setting `mlflow`, names a tracking server or a PostgreSQL database, its registry takes
the place of the home's. It may serve several projects, and it may be down: a model of another project is never used,
and a server that does not answer is no empty registry. Calls go through `quietly`, which turns a server's failure into
Unanswered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from foretell.errors import NotReady
from foretell.project import Project
from lake.tracking import OWNER as OWNER
from lake.tracking import PATIENCE as PATIENCE
from lake.tracking import SERVER as SERVER
from lake.tracking import Taken as Taken
from lake.tracking import Unanswered as Unanswered
from lake.tracking import client as client
from lake.tracking import exists as exists
from lake.tracking import experiment as experiment
from lake.tracking import owner as owner
from lake.tracking import quietly as quietly
from lake.tracking import server as server
from lake.tracking import shown, without
from models.encoding import encode
from models.explain import Reasons, contributions, largest, largest_in_columns, shifted, told
from models.interval import interval
from models.wording import Wording

ALIAS = "champion"
CONTRACT = "contract.json"
VIEWS = "views.json"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model or version; no such alias


@dataclass(frozen=True)
class Champion:
    """A registered model with what it needs to be used: its columns, versions and the typical profile.

    contract: kind, columns (in order), categories (text column -> its values, a value's place being its code),
    service (the version of its features), background (column -> its typical value, as the model reads it),
    base_rate, estimator, horizon_days, judged_days (the horizon of its labels), batch, cutoffs, season (day -> what
    it adds to the margin, in order of time), interval (models.interval), question (training.question), as logged with
    the run.
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

    @property
    def words(self) -> dict[str, dict[str, str]]:
        """What its features meant when it was trained, of models.wording; {} of a model that kept none."""
        return self.contract.get("words", {})

    def predict(self, X: pd.DataFrame, at: datetime) -> pd.Series:
        """The calibrated probability or expected amount of each encoded row, as asked at a cutoff."""
        A = X[self.contract["columns"]].to_numpy(dtype=float)
        return pd.Series(self.answers(A, at) if len(A) else np.empty(0), index=X.index, dtype=float)

    def answers(self, A: np.ndarray, at: datetime) -> np.ndarray:
        """(n,): the same of rows of floats whose columns are the contract's, in order, NaN being the unknown."""
        return shifted(self.model.answers(self._read(A)), self.contract["kind"], self.season(at))

    def effects(self, A: np.ndarray) -> np.ndarray:
        """(n, columns): what each column adds to the margin of each such row. See models.explain.contributions."""
        if not hasattr(self.model, "effects"):
            rows = pd.DataFrame(A, columns=pd.Index(self.contract["columns"]))
            return contributions(self.model, rows, self.background).to_numpy()
        found = np.zeros(A.shape)
        found[:, self._told] = self.model.effects(self._read(A))[0]
        return found

    def reasons(self, A: np.ndarray) -> list[list[dict[str, Any]]]:
        """Of each such row the largest effects, in words. See models.explain.top_reasons."""
        return largest(self.effects(A), A, self.contract["columns"], self._wording)

    def reasons_in_columns(self, A: np.ndarray) -> Reasons:
        """The same of many rows."""
        return largest_in_columns(self.effects(A), A, self.contract["columns"], self._wording)

    def _read(self, A: np.ndarray) -> np.ndarray:
        read = A if self._places is None else A[:, self._places]
        return np.where(np.isinf(read), np.nan, read) if np.isinf(read).any() else read

    @cached_property
    def _places(self) -> np.ndarray | None:
        """Which of the contract's columns the model reads; None: all, as they come."""
        columns = list(self.contract["columns"])
        places = [columns.index(column) for column in self.model.columns_]
        return None if places == list(range(len(columns))) else np.array(places, dtype=np.int64)

    @cached_property
    def _told(self) -> list[int]:
        """Which of the contract's columns the model's effects are told as."""
        columns = list(self.contract["columns"])
        return [columns.index(column) for column in told(self.model, columns)]

    @cached_property
    def _wording(self) -> Wording:
        return Wording(self.words, self.categories, self.contract["background"])

    def season(self, at: datetime) -> float:
        """What the time of the year adds to the margin; between two days that it knows, a part of each."""
        days, added = self._year
        return float(np.interp(at.timestamp(), days, added)) if days else 0.0

    @cached_property
    def _year(self) -> tuple[list[float], list[float]]:
        known: dict[str, float] = self.contract.get("season", {})
        return [datetime.fromisoformat(day).timestamp() for day in known], list(known.values())

    def interval(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lowest, highest) of what nine in ten such predictions came to; NaN for probabilities."""
        return interval(self.contract.get("interval", {}), values)

    @property
    def background(self) -> pd.Series:
        return pd.Series(self.contract["background"], dtype=float)


def champion(project: Project, task: str, version: str | None = None) -> Champion:
    """The model in use for a task, or a given version. NotReady when nothing is trained yet; Taken."""
    import mlflow.artifacts
    from mlflow import sklearn as sklearn_flavour
    from mlflow.exceptions import MlflowException

    tracking = client(project)
    try:
        found = (
            tracking.get_model_version(task, version) if version else tracking.get_model_version_by_alias(task, ALIAS)
        )
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        raise NotReady(task, "nothing is trained yet", f"run `foretell train {task}` first") from None
    _refuse_others(project, found)
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
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return []


def kept(project: Project, task: str, version: str, name: str) -> str | None:
    """The text of an artifact of the run that a version came from, such as CONTRACT; None: there is none. Taken."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        found = client(project).get_model_version(task, version)
        _refuse_others(project, found)
        return mlflow.artifacts.load_text(f"runs:/{found.run_id}/{name}")
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return None


def promote(project: Project, task: str, version: str) -> None:
    """Make a registered version the champion. One write: readers see the old one or the new one."""
    client(project).set_registered_model_alias(task, ALIAS, version)


def trained_at(project: Project, task: str) -> tuple[str, datetime] | None:
    """(version, when) of a task's champion, or None; does not load the model. Taken if it is another project's."""
    if not exists(project):
        return None
    from mlflow.exceptions import MlflowException

    try:
        found = client(project).get_model_version_by_alias(task, ALIAS)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return None
    _refuse_others(project, found)
    return str(found.version), datetime.fromtimestamp(found.creation_timestamp / 1000)


def _refuse_others(project: Project, found: Any) -> None:
    """Raise Taken for a version that another project registered on the server; one without the tag is anybody's."""
    if server(project) and (whose := found.tags.get(OWNER)) and whose != owner(project):
        raise Taken(
            found.name, f"expected a model of this project on tracking server {shown()}, got one of another project "
            f"that has a task of the same name (v{found.version})",
            f"rename one of the tasks, give this project a workspace of its own (MLFLOW_WORKSPACE, on a server started "
            f"with --enable-workspaces) or another server, or {without()}",
            where="homes that are to share their models need the same file `key`",
        )  # fmt: skip


def look_closer(project: Project) -> str:
    """Where people see the runs: the server's address, or the command that shows those of this home."""
    if uri := server(project):
        return shown(uri) if uri.startswith("http") else f"mlflow ui --backend-store-uri {shown(uri)}"
    return f"mlflow ui --backend-store-uri sqlite:///{project.home / 'mlflow' / 'mlflow.db'}"
