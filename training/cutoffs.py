"""At which past instants is a task asked? So that no label of training reaches into the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from foretell.declarations import PredictionTask
from foretell.errors import DataError

STEP = timedelta(days=30)


@dataclass(frozen=True)
class Cutoffs:
    """training: past cutoffs, oldest first, whose labels are complete before `evaluation`; evaluation: the latest one
    whose own label is complete; final: those the champion is fitted on again once it has been judged."""

    training: tuple[datetime, ...]
    evaluation: datetime
    final: tuple[datetime, ...]


def plan(task: PredictionTask, now: datetime, first_fact: datetime, wanted: int) -> Cutoffs:
    """The latest evaluation cutoff and up to `wanted` training cutoffs before it, a horizon (at most 30 days) apart.

    Refuses a history too short for one of each, and says how much is missing.
    """
    reach = task.horizon + task.settle
    step = min(task.horizon, STEP)
    evaluation = now - reach
    training = [c for i in range(wanted) if (c := evaluation - reach - i * step) > first_fact]
    if not training:
        need, have = 2 * reach, now - first_fact
        raise DataError(
            task.name,
            f"needs more than {need.days} days of history for one training and one evaluation cutoff of horizon "
            f"{task.horizon.days} days, got {max(have.days, 0)}",
            "load older data, or shorten the horizon",
            where=f"first fact {first_fact:%Y-%m-%d}, now {now:%Y-%m-%d}",
        )
    final = [c for i in range(wanted) if (c := evaluation - i * step) > first_fact]
    return Cutoffs(tuple(reversed(training)), evaluation, tuple(reversed(final)))
