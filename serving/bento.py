"""How does the service get to a machine that has neither this project nor Foretell? As a bento of BentoML's.

It holds the rooms that answer over HTTP, the publication as it is now, the project's settings, and who may ask. It
serves that one publication: what is scored later takes another bento. Where there is no lake, past scores cannot be
explained. The publication holds personal data: a bento is to be guarded like the project itself.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from foretell.errors import DataError, NotReady
from foretell.project import Project
from serving.http.index import Index, file_of

ROOMS = ("foretell", "lake", "ingestion", "features", "models", "segments", "serving")
SERVICE = "serving.http.service:ForetellService"


def build(project: Project, to: Path) -> tuple[str, Path]:
    """Make a bento of the service in the folder `to`, which must not exist. Returns its tag and the folder.

    `bentoml serve FOLDER` serves it; `bentoml containerize` makes an image of it.
    """
    if to.exists():
        raise DataError(str(to), "expected a folder that is not there yet, got one that is", "name another")
    index = Index(project)
    try:
        if not index.models:
            raise NotReady(
                "bento", "nobody can be scored by what is published", "run `foretell train`, then `foretell score`"
            )
        published = f"{index.published_at:%Y%m%dt%H%M%S}"
    finally:
        index.close()
    store = project.home / "serving" / "bentoml"
    (store / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ["BENTOML_HOME"] = str(store)  # read when BentoML is imported
    import bentoml
    from bentoml._internal.configuration.containers import BentoMLContainer

    BentoMLContainer.bentoml_home.set(str(store))
    with tempfile.TemporaryDirectory(prefix="foretell-bento-") as name:
        context = Path(name)
        _gather(project, context)
        made = bentoml.build(
            SERVICE, name="foretell", version=published, build_ctx=name, labels={"published": published},
            description="Scores with their contract, profiles, tasks and segments.",
            python={"packages": _packages(), "lock_packages": False},
        )  # fmt: skip
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(made.path, to)
    bentoml.delete(made.tag)
    return str(made.tag), to


def _gather(project: Project, context: Path) -> None:
    """The rooms, and a project of which there is nothing but what the service reads."""
    here = Path(__file__).parents[1]
    for room in ROOMS:
        shutil.copytree(here / room, context / room, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    inside = context / "project"
    (inside / "home" / "serving").mkdir(parents=True)
    shutil.copyfile(project.folder / "foretell.toml", inside / "foretell.toml")
    shutil.copyfile(file_of(project), inside / "home" / "serving" / "index.db")
    if (access := project.home / "access").exists():
        shutil.copytree(access, inside / "home" / "access")
        shutil.copyfile(project.home / "key", inside / "home" / "key")  # by which keys are known again


def _packages() -> list[str]:
    """What Foretell needs, in the versions that are installed."""
    names = [
        re.split(r"[\[<>=!~; ]", line)[0] for line in metadata.requires("foretell") or () if "extra ==" not in line
    ]
    return [f"{name}=={metadata.version(name)}" for name in sorted(names)]
