"""What did a score say? Its contract as it was written, and the same model's answer to the very row that was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from lake import scored
from lake.engine import session, table
from models.registry import Champion, champion, quietly
from serving.contract import answers

Score = dict[str, Any]
"""A row of the view `scores`, by column; features: column -> number, in the order of the model's columns."""


@dataclass(frozen=True)
class Rescored:
    """What the model says of the stored row now, and why. identical: to the last bit what it said then."""

    value: float
    identical: bool
    reasons: list[dict[str, Any]]


def find(project: Project, ids: Sequence[str]) -> dict[str, Score]:
    """score_id -> the score of that id. Raises UnknownName for an id that there is no score of."""
    if not table(project, "scores").exists:
        raise NotReady("scores", "nothing has been scored yet", "run `foretell score` first")
    with session(project) as con:
        con.execute("CREATE TEMP TABLE asked_ids AS SELECT unnest(?::VARCHAR[]) AS score_id", [list(ids)])
        asked = con.execute("SELECT * EXCLUDE (features) FROM scores SEMI JOIN asked_ids USING (score_id)")
        names = [d[0] for d in asked.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in asked.fetchall()]
        features = scored.of_scores(con, [row["score_id"] for row in rows])
    found = {row["score_id"]: {**row, "features": features.get(row["score_id"], {})} for row in rows}
    for score_id in ids:
        if score_id not in found:
            raise UnknownName(
                score_id[:80], "no score has this id",
                "an id is 32 hexadecimal digits: `foretell profile WHO` shows those of a person's latest scores, "
                "serving.scores(TASK) all of a task, and every answer of the service has its own; scores of a person "
                "who was erased are gone",
            )  # fmt: skip
    return found


def rescored(project: Project, scores: Mapping[str, Score], reasons: bool = True) -> dict[str, Rescored]:
    """score_id -> what its own model says of its own row now. reasons: work them out too, else they are []."""
    found: dict[str, Rescored] = {}
    for (task, version), some in by_model(scores).items():
        model = model_of(project, task, version)
        for cutoff in {score["cutoff"] for score in some}:
            asked = [score for score in some if score["cutoff"] == cutoff]
            X = rows_of(model, asked)
            values = answers(model, X, cutoff)
            said = model.reasons(X) if reasons else [[] for _ in asked]
            for score, value, reason in zip(asked, values.tolist(), said, strict=True):
                found[score["score_id"]] = Rescored(value, value == score["value"], reason)
    return found


def by_model(scores: Mapping[str, Score]) -> dict[tuple[str, str], list[Score]]:
    """(task, version) -> the scores of that model."""
    found: dict[tuple[str, str], list[Score]] = {}
    for score in scores.values():
        found.setdefault((score["task"], score["model_version"]), []).append(score)
    return found


def model_of(project: Project, task: str, version: str) -> Champion:
    """A model by its version, whether or not it is the champion still."""
    return quietly(lambda: champion(project, task, version))


def rows_of(model: Champion, scores: Sequence[Score]) -> np.ndarray:
    """(n, columns): the encoded rows that were scored."""
    columns = model.contract["columns"]
    return pd.DataFrame([score["features"] for score in scores], columns=pd.Index(columns)).to_numpy(dtype=float)
