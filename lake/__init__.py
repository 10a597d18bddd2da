"""Where do facts live? Delta tables of stamped facts, ingest batches, and the engine that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def sql(query: str, project: str | None = None) -> pd.DataFrame:
    """Run SQL over every table of the current project's lake (see `foretell status` for their names)."""
    from foretell.project import Project
    from lake.engine import session

    with session(Project.find(project)) as con:
        return con.execute(query).df()
