"""Where does each part of a project live, and can it be reached? What does not answer within seconds cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from features.store.online import FILE, open_rows
from features.store.redis_rows import RedisRows
from features.store.registered import registry_place
from foretell import databases
from foretell.errors import ForetellError
from foretell.project import Project
from lake import place
from models import registry


@dataclass(frozen=True)
class Place:
    """part: in words. where: a folder below the project, or an address without secrets. origin: of the setting.
    error: None if it can be reached."""

    part: str
    where: str
    origin: str
    error: ForetellError | None = None

    @property
    def state(self) -> str:
        return "cannot be reached" if self.error else "reached"


def places(project: Project) -> list[Place]:
    """Every part that a setting can move, each asked whether it is there. What is in the home is there."""
    return [
        _place(project, "lake: facts, scores", "lake", lambda: _lake(project)),
        _place(project, "Feast's registry", "registry", lambda: registry_place(project)),
        _place(project, "MLflow: runs, models", "mlflow", lambda: _mlflow(project)),
        _place(project, "features online", "online", lambda: _online(project)),
    ]


def _place(project: Project, part: str, setting: str, ask: Callable[[], str]) -> Place:
    origin = project.settings[setting].origin
    if setting == "mlflow" and os.environ.get(registry.SERVER):
        origin = f"environment {registry.SERVER}"
    try:
        return Place(part, ask(), origin)
    except ForetellError as error:
        return Place(part, shown(project, setting), origin, error)


def shown(project: Project, setting: str) -> str:
    """The value of a setting without what may be secret in it."""
    value = project.setting(setting)
    return databases.shown(value) if isinstance(value, str) and "://" in value else str(value)


def _lake(project: Project) -> str:
    bucket = place.bucket_of(project)
    if bucket:
        bucket.folders()
        return bucket.url
    return f"{project.setting('home')}/{place.FOLDER}"


def _online(project: Project) -> str:
    for rows in open_rows(project):
        if isinstance(rows, RedisRows):
            return rows.reach()
    return f"{project.setting('home')}/feast/{FILE}"


def _mlflow(project: Project) -> str:
    if uri := registry.server(project):
        registry.quietly(lambda: registry.client(project).search_experiments(max_results=1))
        return databases.shown(uri)
    return f"{project.setting('home')}/mlflow"
