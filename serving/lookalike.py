"""Who is most like a seed that somebody asks about over HTTP? `training.lookalike`, as of the last batch.

By the features of the batch, because those are at hand: as of now, each question would have them all made anew.
"""

from __future__ import annotations

import json
from typing import Any

from foretell.errors import unknown
from foretell.project import Project
from segments.audience import declared
from serving.batch import last
from training.lookalike import expand


def lookalikes(project: Project, asked: str) -> dict[str, Any]:
    """The likest to a seed (see serving.http.answers.Lookalikes). asked: its JSON.

    Segments are named, and not spelt: a rule could ask about anything that is known of people, one by one.
    """
    seed, among, top = (json.loads(asked)[key] for key in ("seed", "among", "top"))
    for name in (seed, among):
        if isinstance(name, str) and name not in (known := declared(project)):
            raise unknown("segment", name, known)
    cutoffs = [batch.cutoff for task in project.definitions.tasks if (batch := last(project, task))]
    at = max(cutoffs, default=project.now)
    found = expand(project, seed, among, at=at)
    return {
        "cutoff": at, "seeds": found.seeds, "others": len(found.ranked), "unknown": found.unknown,
        "estimator": found.winner, "why": found.reason,
        "evaluation": found.evaluation[["model", "metric", "value", "low", "high"]].to_dict("records"),
        "marks": found.marks.to_dict("records"),
        "results": found.ranked.head(top).to_dict("records"),
    }  # fmt: skip
