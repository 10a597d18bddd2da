"""What does one look at who watches a model? What was promised, what came, who is waiting, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from serving.alerts import Verdict
from training import drift
from training.expected import Figure
from training.metrics import Kind


@dataclass(frozen=True)
class Graded:
    """What became of the scores of one cutoff: y, said and weight, one row a profile, and the figures of it.

    came, said_mean: weighted means. verdicts: figure -> Verdict. left_out: scores whose people have withdrawn.
    """

    cutoff: datetime
    y: np.ndarray
    said: np.ndarray
    weight: np.ndarray
    verdicts: Mapping[str, Verdict]
    left_out: int = 0

    @property
    def came(self) -> float:
        return float(np.average(self.y, weights=self.weight))

    @property
    def foretold(self) -> float:
        return float(np.average(self.said, weights=self.weight))

    @property
    def state(self) -> str:
        """The worst that a figure says: "alert", else "outside", "within", or "unknown" where nothing is compared."""
        states = {verdict.state for verdict in self.verdicts.values()}
        return next((state for state in ("alert", "outside", "within") if state in states), "unknown")


@dataclass(frozen=True)
class Batch:
    """Who was scored at one cutoff, beside whom the model learned from: the drift of each feature, and of the score."""

    cutoff: datetime
    scores: int
    drifts: tuple[drift.Drift, ...]


@dataclass(frozen=True)
class Waiting:
    """Scores of one cutoff without a grade. until: when their time has come; None: not known. why: if it has come."""

    cutoff: datetime
    scores: int
    until: datetime | None
    why: str = ""


@dataclass(frozen=True)
class Watched:
    """One version of a task's model: what was promised, what came. Oldest cutoffs first.

    used: the version that is in use, "" if none is. expected: as training.expected keeps it. exams: figure -> its
    values at the exams. notes: what is not compared, and why.
    """

    task: str
    version: str
    kind: Kind
    metric: str
    used: str
    expected: Mapping[str, Any]
    exams: Mapping[str, list[Figure]]
    graded: tuple[Graded, ...]
    batches: tuple[Batch, ...]
    waiting: tuple[Waiting, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.task} v{self.version}"

    @property
    def in_use(self) -> bool:
        return self.used == self.version


@dataclass(frozen=True)
class Alert:
    """What is wrong, in plain words, and what to do. what: the figure, or the column, that says so."""

    task: str
    version: str
    what: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.task} v{self.version}: {self.problem}. {self.fix}"


@dataclass(frozen=True)
class Monitored:
    """All versions that have scored anyone, by task and version, and the alerts."""

    watched: tuple[Watched, ...]
    alerts: tuple[Alert, ...] = field(default=())
