"""Where are models kept? MLflow's store: this home's own, or the tracking server that MLFLOW_TRACKING_URI names.

A server may serve several projects, and it may be down. Calls go through `quietly`, which turns its failure into
Unanswered.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from foretell.errors import ForetellError
from foretell.project import Project

SERVER = "MLFLOW_TRACKING_URI"
OWNER = "foretell.project"  # the tag of runs and versions that says whose they are, on a server that many may use
# MLflow's own defaults let a command hang for four minutes and more at each request to a server that is down.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class Unanswered(ForetellError):
    """The tracking server is down, or refuses what it is asked. Nothing follows from that about what it holds."""


def client(project: Project):
    """MLflow's client on this home's tracking store (MLFLOW_TRACKING_URI, if set, wins)."""
    import logging

    import mlflow

    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    given = os.environ.get(SERVER)
    if given:
        uri = given
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
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
    """The id of a task's experiment, made on first use with its artifacts in the home."""
    tracking = client(project)
    if found := tracking.get_experiment_by_name(task):
        return found.experiment_id
    location = None if os.environ.get(SERVER) else (project.home / "mlflow" / "artifacts" / task).as_uri()
    return tracking.create_experiment(task, artifact_location=location)


def owner(project: Project) -> str:
    """Whose a model is: the same for all homes with the same key, whose profiles have the same ids. Tells no key."""
    return hmac.new(project.key.encode(), OWNER.encode(), hashlib.sha256).hexdigest()[:16]


def shown() -> str:
    """The server's address without the name and password that it may hold."""
    uri = urlsplit(os.environ[SERVER])
    return f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}{uri.path}"


def _unanswered(error: Exception) -> Unanswered | None:
    """What MLflow raised, said as the server's failure; None if no server was asked, or something else went wrong."""
    if not os.environ.get(SERVER, "").startswith(("http://", "https://")):
        return None
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if not isinstance(error, (MlflowException, RequestException)):
        return None
    root: BaseException = error  # of a failed connection, its first cause: "Connection refused", not its wrappings
    link = error.__cause__ or error.__context__
    while link:
        root = link if isinstance(link, OSError) else root
        link = link.__cause__ or link.__context__
    reason = (str(root).strip() or type(root).__name__).splitlines()[0][:300]
    login, at, _ = urlsplit(os.environ[SERVER]).netloc.rpartition("@")
    return Unanswered(
        f"tracking server {shown()}", f"expected an answer, got: {reason.replace(login + at, '') if at else reason}",
        f"start it or mend that, or unset {SERVER} to use the home's own registry; then run the same command again",
    )  # fmt: skip


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
