"""Between what will it be? An interval around an amount or a time, such that nine in ten outcomes fall into it.

What was foretold at past cutoffs and what came, side by side, say how far such a prediction is off: no assumption about
the shape of outcomes, and none about the model. Split conformal prediction by groups of like predictions: Vovk,
Gammerman & Shafer, Algorithmic Learning in a Random World (2005), ch. 4.6; the shortest interval of a group, as most
amounts are 0 and a few are very large. Where most spend nothing, nine in ten lie between 0 and 0, though the expected
amount is higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

COVERAGE = 0.9
GROUPS = 20
LEAST = 50  # outcomes in a group: fewer leave the ends of nine in ten to single outcomes
HALVINGS = 10
FLOOR = 0.05  # of the mean prediction: where next to nothing is foretold, outcomes are no multiples of it

Interval = dict[str, Any]
"""kind, coverage, within (the share of the outcomes known), floor (in the unit of the prediction), edges (of the
groups, k - 1), low and high (k each): outcomes per unit of prediction + floor for an "amount", in days for a
"duration". {} where nothing is known."""

Exam = tuple[np.ndarray, np.ndarray]


def learn(kind: str, exams: Sequence[Exam], coverage: float = COVERAGE) -> Interval:
    """What past outcomes of predictions say: see Interval. {} for a probability, and of too few outcomes.

    exams: (outcomes, predictions) at each past cutoff. Times differ, so that what held at some cutoffs holds of fewer
    at another: the share that is looked for is raised until the intervals that the others give hold the coverage of
    each exam, on average. Groups are of equal size, of LEAST outcomes or more; equal predictions are in the same group.
    """
    if kind == "probability" or sum(len(y) for y, _ in exams) < LEAST:
        return {}
    within = coverage
    if len(exams) > 1 and elsewhere(kind, exams, within) < coverage:
        low, high = coverage, 1.0
        for _ in range(HALVINGS):
            within = (low + high) / 2
            low, high = (low, within) if elsewhere(kind, exams, within) >= coverage else (within, high)
        within = high
    return {**from_exams(kind, exams, within), "coverage": coverage}


def elsewhere(kind: str, exams: Sequence[Exam], within: float) -> float:
    """The share of an exam's outcomes that the intervals of all other exams hold, on average; NaN of one exam."""
    if len(exams) < 2:
        return float("nan")
    others = [[*exams[:place], *exams[place + 1 :]] for place in range(len(exams))]
    found = [held(from_exams(kind, known, within), *exam) for known, exam in zip(others, exams, strict=True)]
    return float(np.mean(found))


def from_exams(kind: str, exams: Sequence[Exam], within: float) -> Interval:
    """The intervals that hold a share of the outcomes of these exams."""
    y, predicted = (np.concatenate(part) for part in zip(*exams, strict=True))
    groups = max(1, min(GROUPS, len(y) // LEAST))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, groups + 1)[1:-1]))
    edges = edges[edges > predicted.min()]  # no group is empty: equal predictions lie above an edge that equals them
    place = np.searchsorted(edges, predicted, side="right")
    floor = FLOOR * float(np.mean(predicted)) or 1.0
    ratio = np.maximum(y, 0.0) / _unit(kind, predicted, floor)  # who returns more than they buy is nobody to foretell
    found = [_shortest(np.sort(ratio[place == group]), within) for group in range(len(edges) + 1)]
    low, high = (list(ends) for ends in zip(*found, strict=True))
    return {"kind": kind, "within": within, "floor": floor, "edges": edges.tolist(), "low": low, "high": high}


def interval(known: Interval, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) for each prediction, in its unit; NaN where nothing is known."""
    if not known:
        nothing = np.full(len(predicted), np.nan)
        return nothing, nothing
    place = np.searchsorted(known["edges"], predicted, side="right")
    unit = _unit(known["kind"], predicted, known["floor"])
    return np.asarray(known["low"])[place] * unit, np.asarray(known["high"])[place] * unit


def held(known: Interval, y: np.ndarray, predicted: np.ndarray) -> float:
    """The share of outcomes that fell into the intervals; NaN where nothing is known."""
    return float(np.mean(inside(*interval(known, predicted), y))) if known and len(y) else float("nan")


def inside(low: np.ndarray, high: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which outcomes lie between the ends, these included."""
    slack = 1e-9 * np.abs(y)
    return (y >= low - slack) & (y <= high + slack)


def _unit(kind: str, predicted: np.ndarray, floor: float) -> np.ndarray:
    """What an outcome is measured in: an amount's error grows with the amount, a time's has the horizon as its end."""
    return predicted + floor if kind == "amount" else np.ones(len(predicted))


def _shortest(ordered: np.ndarray, coverage: float) -> tuple[float, float]:
    """The shortest interval that holds the share of the outcomes, and of one more that is as likely to be anywhere."""
    inside = min(len(ordered), ceil((len(ordered) + 1) * coverage))
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    start = int(np.argmin(widths))
    return float(ordered[start]), float(ordered[start + inside - 1])
