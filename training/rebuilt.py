"""Are features what they were when somebody was scored by them? The rows of the last batch of scores, built once more.

Every score keeps the row that it was worked out from. At the same cutoff the same row comes out whenever it is built,
unless facts of before came in since; else a column that has another value is read as of now.
"""

from __future__ import annotations

from datetime import datetime

import duckdb
import pandas as pd

from features.store import repository
from foretell.declarations import PredictionTask
from foretell.errors import NotReady
from foretell.project import Project
from lake import scored
from lake.engine import instant, session, source_table, table
from models.registry import champion, quietly
from training import dataset

MOST = 2_000  # profiles: as many as it takes to see one value in a hundred


def as_scored(project: Project, task: PredictionTask) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """(then, now): profile_id, cutoff and features of profiles as they were scored last, and as they are built today.

    Both by the champion's codes of text. None where the champion has scored nobody by the features of today, or facts
    of before that cutoff came in later: these change what was known.
    """
    service = repository.service_name(project, task)
    try:
        model = quietly(lambda: champion(project, task.name))
    except NotReady:
        return None
    if model.contract["service"] != service or not table(project, "scores").exists:
        return None
    of = f"task = ? AND model_version = ? AND feature_service = ? AND cutoff < {instant(project.now)}"
    with session(project) as con:
        found = con.execute(
            f"""SELECT profile_id, cutoff, score_id, batch FROM scores WHERE {of}
                AND cutoff = (SELECT max(cutoff) FROM scores WHERE {of}) ORDER BY profile_id LIMIT {MOST}""",
            [task.name, model.version, service] * 2,
        ).df()
        if found.empty or _late(con, project, found["cutoff"].iloc[0], int(found["batch"].max())):
            return None
        rows = scored.of_scores(con, found["score_id"].tolist())
    cutoff = found["cutoff"].iloc[0]
    columns = model.contract["columns"]
    then = pd.DataFrame([rows[score] for score in found["score_id"]], columns=columns).astype(float)
    keys = found[["profile_id", "cutoff"]].assign(event_timestamp=cutoff)
    dataset.build_for(project, [task], [cutoff.to_pydatetime()])
    built = dataset.with_features(project, task, keys)
    now = pd.concat([built[["profile_id", "cutoff"]], model.encode(built)], axis=1)
    return pd.concat([found[["profile_id", "cutoff"]], then], axis=1), now


def _late(con: duckdb.DuckDBPyConnection, project: Project, cutoff: datetime, batch: int) -> bool:
    """Whether facts that were known before the cutoff, as they say, came in after a batch."""
    where = f"known_at < {instant(cutoff)} AND batch > {batch}"
    return any(
        con.execute(f'SELECT 1 FROM "{name}" WHERE {where} LIMIT 1').fetchall()
        for name in project.definitions.sources if source_table(project, name).exists
    )  # fmt: skip
