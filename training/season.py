"""Is this a good time of the year? How a margin shifts, by what happened after the same day of last year.

A model learned at the cutoffs of spring and summer knows nothing of Christmas. Where the facts reach back far enough,
the level of the labels after the same day of last year, less its mean after the days of last year that belong to the
cutoffs learned from, says how much more (or less) is to be expected of everybody. It shifts the margin: the log-odds,
or the log of an amount; who comes before whom stays as it is.

Levels are those of profiles that were active shortly before the day, so that they mean the same in a business's first
year as in its tenth. Everything is as known then: a level at T uses labels that were complete by T.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite, log
from typing import Any

import numpy as np

from features.labels import labels_at
from foretell.declarations import Label, PredictionTask
from foretell.project import Project
from lake.engine import instant, session
from unification.consent import without
from unification.identity import facts_of, members_at
from unification.survivorship import versions

YEAR = timedelta(days=365)
ACTIVE = timedelta(days=60)
KNOWN = 3  # cutoffs learned from that must know their level: the mean of one or two is too much a matter of luck
LEAST = 200  # profiles that a level must be of
AHEAD = timedelta(days=14)  # between the days to come for which a model keeps its shift

Levels = Mapping[datetime, float]


def levels(
    project: Project, task: PredictionTask, kind: str, cutoffs: Iterable[datetime], first_fact: datetime
) -> dict[datetime, float]:
    """The level after last year's same day of each cutoff that has one: log-odds of true, or log of the mean amount.

    None is known of a label that reaches a year or more, of one that waits Until something happens, nor of a task that
    Enters: a tenth is a tenth at any time.
    """
    if not isinstance(task.label, Label) or kind == "duration" or task.horizon + task.settle > YEAR:
        return {}
    found = {}
    with session(project) as con:
        for cutoff in cutoffs:
            then = cutoff - YEAR
            if then - ACTIVE < first_fact:
                continue
            active = " UNION ".join(
                f"""SELECT t.profile_id FROM {versions(s, then)} f JOIN ({members_at(then)}) t USING (node)
                    WHERE f.known_at < {instant(then)} AND f.event_at < {instant(then)}
                        AND f.event_at >= {instant(then - ACTIVE)}"""
                for s in facts_of(con, project, task.label.source)
            )
            rows = con.execute(
                f"SELECT * FROM ({labels_at(con, project, task, then)}) JOIN ({active}) USING (profile_id)"
            ).df()
            refused = without(con, project, task.purpose, then, rows["profile_id"].tolist())
            rows = rows[~rows["profile_id"].isin(refused) & rows["label"].notna()]
            if len(rows) < LEAST:
                continue
            mean = float(np.average(np.maximum(rows["label"], 0.0), weights=rows["weight"]))
            if kind == "probability" and 0 < mean < 1:
                found[cutoff] = log(mean / (1 - mean))
            elif kind == "amount" and mean > 0 and isfinite(mean):
                found[cutoff] = log(mean)
    return found


def shift(known: Levels, learned: Sequence[datetime], asked: datetime) -> float:
    """What to add to the margin of a model learned at some cutoffs and asked at another; 0 where too few are known."""
    past = [known[cutoff] for cutoff in learned if cutoff in known]
    return known[asked] - float(np.mean(past)) if asked in known and len(past) >= KNOWN else 0.0


def instead(model: Any, by: float) -> float:
    """A shift for a model that has chosen a level by itself, for want of a season: it takes the place of that."""
    return by - getattr(model, "level_", 0.0) if by else 0.0


def days_ahead(task: PredictionTask, now: datetime) -> list[datetime]:
    """The days to come whose last year is known at `now`, from now on."""
    until = YEAR - task.horizon - task.settle
    return [now + place * AHEAD for place in range(until // AHEAD + 1)] if until >= timedelta(0) else []
