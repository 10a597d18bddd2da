"""Which features are online of those of whom something has come in? The rows that were just built, by view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb

from features.compiling import versioned
from foretell.project import Project
from foretell.views import FeatureView


class Online:
    """Writes to the online store. views: those that are built afresh."""

    def __init__(self, project: Project, views: Iterable[FeatureView]):
        self._versions = [versioned(view, dict(project.definitions.sources)) for view in views]

    def write(self, con: duckdb.DuckDBPyConnection, gone: Sequence[str]) -> None:
        """Bring the rows of the tables that are named as the views' versions online; remove those of who is gone."""
