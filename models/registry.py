"""Which model answers for a task? The MLflow registry of this home; the alias `champion` names the one in use.

Where MLFLOW_TRACKING_URI, or the setting `mlflow`, names a tracking server or a PostgreSQL database, its registry takes
the place of the home's. It may serve several projects, and it may be down: a model of another project is never used,
and a server that does not answer is no empty registry. Calls go through `quietly`, which turns a server's failure into
Unanswered.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from foretell import databases
from foretell.errors import ForetellError, NotReady
from foretell.project import Project
from models.encoding import encode
from models.explain import contributions, largest, shifted, told
from models.interval import interval
from models.wording import Wording

ALIAS = "champion"
CONTRACT = "contract.json"
VIEWS = "views.json"
SERVER = "MLFLOW_TRACKING_URI"
OWNER = "foretell.project"  # the tag of runs and versions that says whose they are, on a server that many may use
# MLflow's own defaults let a command hang for four minutes and more at each request to a server that is down.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_asked = ""  # the server or database that `client` was last made for; "": a file of a home
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model or version; no such alias


class Unanswered(ForetellError):
    """The tracking server is down, or refuses what it is asked. Nothing follows from that about what it holds."""


class Taken(ForetellError):
    """The tracking server has a champion of this name that is another project's."""


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


def server(project: Project) -> str:
    """The tracking server or database in use; "": a file of the home. The variable comes before the setting."""
    return os.environ.get(SERVER) or databases.address(project, "mlflow", servers=True)


def exists(project: Project) -> bool:
    """Whether there is anything to ask: a server, or a file of the home."""
    return bool(server(project)) or (project.home / "mlflow" / "mlflow.db").exists()


def client(project: Project):
    """MLflow's client on this project's tracking store: that of `server`, or of the home."""
    import logging

    import mlflow

    global _asked
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    given, uri = os.environ.get(SERVER), server(project)
    _asked = uri
    if uri:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        if uri.startswith("postgresql"):
            databases.reach(uri)  # MLflow would try for most of an hour
    else:
        folder = project.home / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if (
        not given
    ):  # MLflow sets the variable as well: it must not pass for the user's wish, nor follow us to other homes
        os.environ.pop(SERVER, None)
    return mlflow.MlflowClient(uri, uri)


def experiment(project: Project, task: str) -> str:
    """The id of a task's experiment, made on first use; its artifacts are in the home, or where a server has them."""
    tracking, uri = client(project), server(project)
    location = None if os.environ.get(SERVER) or uri.startswith("http") else _artifacts(project, task)
    if found := tracking.get_experiment_by_name(task):
        if uri.startswith("postgresql") and location and found.artifact_location != location:
            raise Taken(
                task, f"expected an experiment of this project in {_shown()}, got one whose artifacts lie in "
                f"{found.artifact_location}", "give each project a database of its own, or run an MLflow server",
            )  # fmt: skip
        return found.experiment_id
    return tracking.create_experiment(task, artifact_location=location)


def _artifacts(project: Project, task: str) -> str:
    return (project.home / "mlflow" / "artifacts" / task).as_uri()


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


def owner(project: Project) -> str:
    """Whose a model is: the same for all homes with the same key, whose profiles have the same ids. Tells no key."""
    return hmac.new(project.key.encode(), OWNER.encode(), hashlib.sha256).hexdigest()[:16]


def _refuse_others(project: Project, found: Any) -> None:
    """Raise Taken for a version that another project registered on the server; one without the tag is anybody's."""
    if server(project) and (whose := found.tags.get(OWNER)) and whose != owner(project):
        raise Taken(
            found.name, f"expected a model of this project on tracking server {_shown()}, got one of another project "
            f"that has a task of the same name (v{found.version})",
            f"rename one of the tasks, give this project a workspace of its own (MLFLOW_WORKSPACE, on a server started "
            f"with --enable-workspaces) or another server, or {_without()}",
            where="homes that are to share their models need the same file `key`",
        )  # fmt: skip


def look_closer(project: Project) -> str:
    """Where people see the runs: the server's address, or the command that shows those of this home."""
    if uri := server(project):
        return _shown(uri) if uri.startswith("http") else f"mlflow ui --backend-store-uri {_shown(uri)}"
    return f"mlflow ui --backend-store-uri sqlite:///{project.home / 'mlflow' / 'mlflow.db'}"


def _shown(uri: str = "") -> str:
    """The server's address without the name and password that it may hold."""
    return databases.shown(uri or _asked)


def _without() -> str:
    return f"unset {SERVER}" if os.environ.get(SERVER) else "leave out the setting mlflow"


def _unanswered(error: Exception) -> Unanswered | None:
    """What MLflow raised, said as the server's failure; None if no server was asked, or something else went wrong."""
    if not _failed(error):
        return None
    root: BaseException = error  # of a failed connection, its first cause: "Connection refused", not its wrappings
    link = error.__cause__ or error.__context__
    while link:
        root = link if isinstance(link, OSError) or databases.is_failure(link) else root
        link = link.__cause__ or link.__context__
    reason = databases.reason(root, _asked)
    login, at, _ = urlsplit(_asked).netloc.rpartition("@")
    kind = "tracking server" if _asked.startswith("http") else "MLflow's database"
    return Unanswered(
        f"{kind} {_shown()}", f"expected an answer, got: {reason.replace(login + at, '') if at else reason}",
        f"start it or mend that, or {_without()} to use the home's own registry; then run the same command again",
    )  # fmt: skip


def _failed(error: Exception) -> bool:
    """Whether it is the server's or the database's failure."""
    if _asked.startswith("postgresql"):
        link: BaseException | None = error
        while link and not databases.is_failure(link):
            link = link.__cause__ or link.__context__
        return link is not None
    if not _asked.startswith(("http://", "https://")):
        return False
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    return isinstance(error, (MlflowException, RequestException))


def quietly(work: Callable[[], Any]) -> Any:
    """Run MLflow calls without its chatter on standard output and error. Unanswered if a tracking server fails them."""
    import contextlib
    import io
    import warnings

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            return work()
        except Exception as error:
            if failure := _unanswered(error):
                raise failure from error
            raise
