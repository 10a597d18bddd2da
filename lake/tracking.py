"""Where are models kept? MLflow's store: this home's own, or what MLFLOW_TRACKING_URI or the setting `mlflow` names.

A server may serve several projects, and it may be down. Calls go through `quietly`, which turns its failure into
Unanswered.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foretell import databases
from foretell.errors import ForetellError
from foretell.project import Project

SERVER = "MLFLOW_TRACKING_URI"
OWNER = "foretell.project"  # the tag of runs and versions that says whose they are, on a server that many may use
# MLflow's own defaults let a command hang for four minutes and more at each request to a server that is down.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


_asked = ""  # the server or database that `client` was last made for; "": a file of a home


class Taken(ForetellError):
    """What another project keeps on the same server or database."""


class Unanswered(ForetellError):
    """The tracking server is down, or refuses what it is asked. Nothing follows from that about what it holds."""


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
        uri = _file(folder / "mlflow.db")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if (
        not given
    ):  # MLflow sets the variable as well: it must not pass for the user's wish, nor follow us to other homes
        os.environ.pop(SERVER, None)
    return mlflow.MlflowClient(uri, uri)


def _file(file: Path) -> str:
    """The address of a home's own store, made on first use, whole or not at all: MLflow makes one table after the
    other, and cannot go on where a killed command has stopped."""
    if not file.exists():
        from filelock import FileLock
        from mlflow.store.db import utils

        part = file.with_suffix(".part")
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                for left in file.parent.glob(f"{part.name}*"):
                    left.unlink()
                engine = utils.create_sqlalchemy_engine(f"sqlite:///{part}")
                utils._safe_initialize_tables(engine)
                engine.dispose()
                part.replace(file)
    return f"sqlite:///{file}"


def experiment(project: Project, task: str) -> str:
    """The id of a task's experiment, made on first use; its artifacts are in the home, or where a server has them."""
    tracking, uri = client(project), server(project)
    location = None if os.environ.get(SERVER) or uri.startswith("http") else _artifacts(project, task)
    if found := tracking.get_experiment_by_name(task):
        if uri.startswith("postgresql") and location and found.artifact_location != location:
            raise Taken(
                task, f"expected an experiment of this project in {shown()}, got one whose artifacts lie in "
                f"{found.artifact_location}", "give each project a database of its own, or run an MLflow server",
            )  # fmt: skip
        return found.experiment_id
    return tracking.create_experiment(task, artifact_location=location)


def _artifacts(project: Project, task: str) -> str:
    return (project.home / "mlflow" / "artifacts" / task).as_uri()


def owner(project: Project) -> str:
    """Whose a model is: the same for all homes with the same key, whose profiles have the same ids. Tells no key."""
    return hmac.new(project.key.encode(), OWNER.encode(), hashlib.sha256).hexdigest()[:16]


def shown(uri: str = "") -> str:
    """The server's address without the name and password that it may hold."""
    return databases.shown(uri or _asked)


def without() -> str:
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
        f"{kind} {shown()}", f"expected an answer, got: {reason.replace(login + at, '') if at else reason}",
        f"start it or mend that, or {without()} to use the home's own registry; then run the same command again",
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
