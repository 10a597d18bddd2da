"""At which past instants is a task asked? So that no label of training reaches into what is judged by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from foretell.declarations import PredictionTask
from foretell.errors import DataError

STEP = timedelta(days=30)
STRETCH = 4  # times the horizon that could be judged, up to which one is foretold


@dataclass(frozen=True)
class Fold:
    """One exam: what is learned at `training`, oldest first, whose labels are complete at `judged`, is asked there."""

    training: tuple[datetime, ...]
    judged: datetime


@dataclass(frozen=True)
class Cutoffs:
    """folds: the exams, oldest first; final: the latest cutoffs whose labels are complete, oldest first, on which the
    champion is fitted once it has been judged."""

    folds: tuple[Fold, ...]
    final: tuple[datetime, ...]

    @property
    def all(self) -> list[datetime]:
        """Every cutoff that is asked for, oldest first."""
        return sorted({*self.final, *(c for fold in self.folds for c in (*fold.training, fold.judged))})


def step_of(task: PredictionTask) -> timedelta:
    """How far cutoffs lie apart: about 30 days, and so that a label's reach is a whole number of steps.

    Then the cutoffs of all exams lie on one grid, and every table of features serves several of them. Steps are whole
    days, rounded up, so that every cutoff is at the same time of day; of a reach below a day, the reach itself.
    """
    reach = task.horizon + task.settle
    step = reach / max(1, round(reach / STEP))
    return step if step < timedelta(days=1) else timedelta(days=-(-step // timedelta(days=1)))


def plan(task: PredictionTask, now: datetime, first_fact: datetime, wanted: int, folds: int = 1) -> Cutoffs:
    """The latest exams, up to `folds`, each learned at up to `wanted` cutoffs before it, all on one grid.

    Refuses a history too short for one of each, and says how much is missing.
    """
    reach, step = task.horizon + task.settle, step_of(task)
    latest = now - reach
    away = -(-reach // step)  # steps from an exam back to the latest cutoff whose label is complete then

    def before(start: int) -> tuple[datetime, ...]:
        """The cutoffs on the grid from place `start` backwards, oldest first."""
        found = (latest - place * step for place in range(start, start + wanted))
        return tuple(reversed([c for c in found if c > first_fact]))

    exams = [Fold(before(place + away), latest - place * step) for place in range(folds)]
    exams = [fold for fold in exams if fold.training]
    if not exams:
        need, have = reach + away * step, now - first_fact
        raise DataError(
            task.name,
            f"needs more than {need.days} days of history for one training and one evaluation cutoff of horizon "
            f"{task.horizon.days} days, got {max(have.days, 0)}",
            "load older data, or shorten the horizon",
            where=f"first fact {first_fact:%Y-%m-%d}, now {now:%Y-%m-%d}",
        )
    return Cutoffs(tuple(reversed(exams)), before(0))


def shortened(task: PredictionTask, now: datetime, first_fact: datetime) -> PredictionTask | None:
    """The task with the longest horizon of whole days that its history allows an exam of; None if that is too short.

    Whoever knows how often people buy can say how much they will buy in a longer time than could be watched. A third of
    the history is left before the first cutoff (see `told`): of people who have only just come nobody knows it.
    """
    longest = min(int((now - first_fact) / timedelta(days=3)), task.horizon.days)
    for days in range(longest, max(task.horizon.days // STRETCH, 1) - 1, -1):
        short = replace(task, horizon=timedelta(days=days))
        object.__setattr__(short, "where", task.where)
        try:
            plan(short, now, told(short, first_fact), wanted=1)
        except DataError:
            continue
        return short
    return None


def told(task: PredictionTask, first_fact: datetime) -> datetime:
    """Since when histories tell how often people come back: for as long as a label of the task reaches."""
    return first_fact + task.horizon + task.settle
