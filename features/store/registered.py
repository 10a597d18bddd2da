"""Where is Feast's registry, and what if two register at once? A file of the home, or the database of `registry`.

Feast writes its objects one by one, and fails where another has written in between. So on a shared database whoever
registers holds a lock of it, which goes with the connection: a killed process leaves none behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from foretell import databases
from foretell.errors import NotReady
from foretell.project import Project

VARIABLE = "FORETELL_FEAST_REGISTRY"  # what feature_store.yaml names in place of an address with a secret
_LOCK = 4_027_118_316  # a number of our own among the database's advisory locks
_PATIENCE = "120s"


def registry_path(project: Project) -> str:
    """The address of the registry, as feature_store.yaml has it: that of a database with a secret by its variable."""
    if not (url := databases.address(project, "registry")):
        return f"sqlite:///{project.home / 'feast' / 'registry.db'}"
    with _answering(url):
        databases.reach(url)
    os.environ[VARIABLE] = url
    return url if databases.holds_no_secret(url) else f"${{{VARIABLE}}}"


def registry_place(project: Project) -> str:
    """Where the registry is, without a secret; a database is asked whether it is there. NotReady."""
    if not (url := databases.address(project, "registry")):
        return f"{project.setting('home')}/feast"
    with _answering(url):
        databases.connect(url).close()
    return databases.shown(url)


@contextmanager
def alone(project: Project) -> Iterator[None]:
    """Nobody else registers in the same database meanwhile. NotReady if it does not answer."""
    if not (url := databases.address(project, "registry")):
        yield
        return
    with _answering(url), databases.connect(url) as connection:
        connection.execute(f"SET lock_timeout = '{_PATIENCE}'")
        connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
        yield


@contextmanager
def _answering(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        link: BaseException | None = error
        while link and not databases.is_failure(link):
            link = link.__cause__ or link.__context__
        if not link:
            raise
        raise NotReady(
            f"Feast's registry {databases.shown(url)}",
            f"expected an answer, got: {databases.reason(link, url)}",
            "start it, or mend the setting `registry` (docs/grow.md); then run the same command again",
        ) from error
