"""Does the champion in use still do better than what would take its place? Both are asked what neither has seen.

A champion learned from outcomes up to a day. At the exams after that day it had to foretell as the candidates had to,
and its answers are comparable; at earlier ones it knew the outcome.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from foretell.errors import NotReady
from foretell.project import Project
from models.registry import Champion, champion, quietly
from training.backtest import Backtest
from training.metrics import verdict
from training.pooled import Judged, Pooled

IN_USE = "champion in use"
LEAST = 3  # exams after it: at one or two, the luck of a season decides, which no bootstrap over profiles sees


def compare(project: Project, judged: Backtest, winner: str, rows: pd.DataFrame) -> tuple[str, bool]:
    """(how the winner compares with the champion in use, in words, "" if there is none; whether that one stays).

    rows: of all cutoffs, with their features as they came: the champion reads text by codes of its own.
    """
    task = judged.task
    try:
        model = quietly(lambda: champion(project, task.name))
    except NotReady:
        return "", False
    named = f"the champion in use, {model.contract['estimator']} v{model.version},"
    if unknown := [c for c in model.contract["columns"] if c not in rows.columns]:
        return f"{named} reads {', '.join(unknown[:3])}, which the task no longer has: not compared", False
    if model.contract["horizon_days"] != task.horizon.total_seconds() / 86_400 or (
        model.contract["population"] != task.population
    ):
        return f"{named} answers another question: not compared", False
    after = max(map(datetime.fromisoformat, model.contract["cutoffs"])) + task.horizon + task.settle
    later = [j for j in judged.judgements if j.fold.judged >= after]
    if len(later) < LEAST:
        said = f"has had {len(later)} exams since it learned, of {LEAST} that it takes"
        return f"{named} {said}: not compared", False
    asked = []
    for j in later:
        theirs = _answers(model, rows[rows["cutoff"] == pd.Timestamp(j.fold.judged)], j.fold.judged)
        asked.append(Judged(j.rows["person"].to_numpy(dtype=str), j.y, {
            winner: j.predictions[winner], IN_USE: theirs.reindex(j.rows["profile_id"]).to_numpy(),
        }, j.weight))  # fmt: skip
    pooled = Pooled(judged.kind, asked, metrics=[task.metric])
    found = pooled.difference(winner, IN_USE, task.metric)
    shown = f"{task.metric} {found.value:+.4g} [{found.low:+.4g}, {found.high:+.4g}] at {len(later)} exams after it"
    match verdict(found, pooled.metrics[task.metric]):
        case "worse":
            return f"{named} stays: {winner} is worse beyond chance ({shown})", True
        case "better":
            return f"{named} is beaten beyond chance ({shown})", False
        case _:
            return f"{named} does as well as chance can tell ({shown}); the newer one takes over", False


def _answers(model: Champion, rows: pd.DataFrame, at: datetime) -> pd.Series:
    said = model.predict(model.encode(rows), at)
    return pd.Series(np.asarray(said), index=rows["profile_id"].to_numpy())
