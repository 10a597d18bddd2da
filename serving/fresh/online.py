"""Which features are online of those of whom something has come in? The rows that were just built, by view.

An online store that is down holds nobody up: what could not be written is built again when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from features.fresh import Built
from features.store import repository
from features.store.online import open_store
from foretell.errors import ForetellError
from foretell.project import Project
from models.registry import quietly

PAUSE = 5.0  # seconds until a store that failed is tried again


class Online:
    """Writes to the online store."""

    def __init__(self, project: Project, say: Callable[[str], None]):
        self._say, self._behind, self._again = say, set[str](), 0.0
        self._store = quietly(lambda: open_store(project))

    def write(self, built: Built, gone: Sequence[str]) -> None:
        """Bring these rows online; remove those of who is gone."""
        if self._behind and time.monotonic() < self._again:
            self._behind.update(built.profiles, gone)
            return
        try:
            for version, rows in built.views.items():
                repository.put(self._store, version, rows)
                if gone:
                    repository.remove(self._store, version, gone)
        except ForetellError as error:
            if not self._behind:
                self._say(f"features are not online: {error}")
            self._behind.update(built.profiles, gone)
            self._again = time.monotonic() + PAUSE

    def behind(self) -> list[str]:
        """The profiles whose rows could not be written, once it is time to try again; none of them twice."""
        if not self._behind or time.monotonic() < self._again:
            return []
        found, self._behind = sorted(self._behind), set()
        return found
