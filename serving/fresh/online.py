"""Which features are online of those of whom something has come in? The rows that were just built, by view.

An online store that is down holds nobody up: what could not be written is built again when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import duckdb

from features.compiling import versioned
from features.store import repository
from features.store.online import open_store
from foretell.errors import ForetellError
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import few
from models.registry import quietly

PAUSE = 5.0  # seconds until a store that failed is tried again


class Online:
    """Writes to the online store. views: those that are built afresh."""

    def __init__(self, project: Project, views: Iterable[FeatureView], say: Callable[[str], None]):
        self._say, self._behind, self._again = say, set[str](), 0.0
        self._versions = [versioned(view, dict(project.definitions.sources)) for view in views]
        self._store = quietly(lambda: open_store(project))

    def write(self, con: duckdb.DuckDBPyConnection, profiles: Sequence[str], gone: Sequence[str]) -> None:
        """Bring the rows of the tables that are named as the views' versions online, those of these profiles; remove
        those of who is gone."""
        if self._behind and time.monotonic() < self._again:
            self._behind.update(profiles, gone)
            return
        try:
            for version in self._versions:
                repository.put(self._store, version, few(con, f'SELECT * FROM "{version}"'))
                if gone:
                    repository.remove(self._store, version, gone)
        except ForetellError as error:
            if not self._behind:
                self._say(f"features are not online: {error}")
            self._behind.update(profiles, gone)
            self._again = time.monotonic() + PAUSE

    def behind(self) -> list[str]:
        """The profiles whose rows could not be written, once it is time to try again; none of them twice."""
        if not self._behind or time.monotonic() < self._again:
            return []
        found, self._behind = sorted(self._behind), set()
        return found
