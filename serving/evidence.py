"""When is a model not to be asked? Where it has nothing to go by, its answer would be about nobody: no number is said.

Evidence is insufficient if none of the task's views knows a fact of the profile, so that every feature stands at the
empty row of its view; or if a view has no row of the profile at all. The batch and the service ask the same question of
the same encoded row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretell.errors import NotReady

Empty = Mapping[str, Mapping[str, float | None]]
"""View -> feature -> what the model reads of a profile without facts (None: unknown). JSON can keep it."""


class Insufficient(NotReady):
    """There is not enough evidence for a score. views: of which nothing is known."""

    def __init__(self, task: str, views: Sequence[str], why: str):
        super().__init__(
            task, f"insufficient evidence: {why}",
            "nothing is predicted of whom nothing is known; load their facts, or say in the task's population who is "
            "to be asked about",
        )  # fmt: skip
        self.views = list(views)


@dataclass(frozen=True)
class Evidence:
    """What the rows of a task are held against. columns: the model's, in order; empty: see Empty."""

    task: str
    columns: Sequence[str]
    empty: Empty

    def lacking(self, X: np.ndarray) -> np.ndarray:
        """(n,): true of the encoded rows (n, columns) in which every view stands at its empty row."""
        places = {column: place for place, column in enumerate(self.columns)}
        left = np.arange(len(X)) if self.empty else np.empty(0, dtype=np.int64)
        for row in self.empty.values():
            for column, value in row.items():  # most people have facts: few are left after the first columns
                said = X[left, places[column]]
                left = left[np.isnan(said) if value is None else said == value]
        found = np.zeros(len(X), dtype=bool)
        found[left] = True
        return found

    def check(self, row: np.ndarray, absent: Sequence[str] = ()) -> None:
        """Raise Insufficient for one encoded row. absent: views that have no row of the profile."""
        if problem := self.problem(row, absent):
            raise problem

    def problem(self, row: np.ndarray, absent: Sequence[str] = ()) -> Insufficient | None:
        """The same, as the error or None."""
        if absent:
            return Insufficient(self.task, absent, f"there is no row of the profile in {', '.join(absent)}")
        if self.lacking(row[None])[0]:
            views = list(self.empty)
            return Insufficient(self.task, views, f"no fact of the profile is known to {', '.join(views)}")
        return None

    def said(self) -> dict[str, Any]:
        """For a report: what a score that is left out for lack of facts does not know."""
        return {"views": list(self.empty), "features": [c for row in self.empty.values() for c in row]}
