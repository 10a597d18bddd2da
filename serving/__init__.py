"""How do answers get out? Scores with their contract, written as facts, and the page of one profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def scores(task: str, project: str | None = None) -> pd.DataFrame:
    """Every score of a task ever written, latest cutoff first: one row per score, with its whole contract."""
    from foretell.errors import NotReady
    from foretell.project import Project
    from lake.engine import session, table

    home = Project.find(project)
    home.definitions.task(task)
    if not table(home, "scores").exists:
        raise NotReady(task, "nothing has been scored yet", f"run `foretell score {task}` first")
    with session(home) as con:
        query = "SELECT * FROM scores WHERE task = ? ORDER BY cutoff DESC, scored_at DESC, profile_id"
        return con.execute(query, [task]).df()
