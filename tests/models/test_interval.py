"""Do intervals hold as many outcomes as they say, at cutoffs that they were not learned at?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from crepes import ConformalPredictiveSystem

from models.interval import COVERAGE, LEAST, elsewhere, held, interval, learn

HORIZON = 90.0


def amounts(rows: int, seed: int, level: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(outcomes, predictions): half of all spend nothing, some return, the rest is skewed, at a level of the season."""
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(0.7, 300.0, rows)
    y = np.where(rng.random(rows) < 0.5, 0.0, 2 * level * predicted * rng.gamma(1.0, 1.0, rows))
    return np.where(rng.random(rows) < 0.01, -0.1 * predicted, y), predicted


def waits(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(2.0, 89.0, rows)
    return np.minimum(rng.exponential(predicted * 1.3, rows), HORIZON), predicted


def exams(kind: str, rows: int = 2000, count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    return [amounts(rows, seed) if kind == "amount" else waits(rows, seed) for seed in range(count)]


@pytest.mark.parametrize("kind", ["amount", "duration"])
def test_nine_in_ten_of_what_comes_next_is_in_them(kind):
    known = learn(kind, exams(kind))
    y, predicted = amounts(20_000, 99) if kind == "amount" else waits(20_000, 99)
    assert held(known, y, predicted) == pytest.approx(COVERAGE, abs=0.02)
    low, high = interval(known, predicted)
    assert (low <= high).all()
    assert (low >= 0).all()
    assert kind == "amount" or (high <= HORIZON).all()
    for tenth in np.array_split(np.argsort(predicted), 10):  # not only on the whole: for small and large alike
        inside = (y[tenth] >= low[tenth] - 1e-9) & (y[tenth] <= high[tenth] + 1e-9)
        assert inside.mean() == pytest.approx(COVERAGE, abs=0.05)


def test_they_are_no_longer_than_those_of_a_library_that_cuts_off_both_ends_alike():
    y, predicted = (np.concatenate(part) for part in zip(*exams("amount"), strict=True))
    fresh, asked = amounts(5000, 99)
    theirs = ConformalPredictiveSystem().fit(residuals=y - predicted, sigmas=predicted + 1.0)
    ends = theirs.predict_int(y_hat=asked, sigmas=asked + 1.0, confidence=COVERAGE)
    low, high = interval(learn("amount", [(y, predicted)]), asked)
    covered = [((fresh >= at[0] - 1e-9) & (fresh <= at[1] + 1e-9)).mean() for at in ((low, high), ends.T)]
    assert covered == pytest.approx([COVERAGE, COVERAGE], abs=0.06)  # theirs hold more, as many outcomes are 0
    assert (high - low).mean() < (ends[:, 1] - ends[:, 0]).mean()


def test_where_seasons_differ_they_are_wider_until_the_exams_that_they_did_not_see_are_held():
    seasons = [amounts(2000, seed, level) for seed, level in enumerate((0.3, 0.5, 1.0, 2.0, 3.0))]
    even = learn("amount", exams("amount"))
    wide = learn("amount", seasons)
    assert COVERAGE <= even["within"] < wide["within"] - 0.01
    assert elsewhere("amount", seasons, COVERAGE) < COVERAGE
    assert elsewhere("amount", seasons, wide["within"]) == pytest.approx(COVERAGE, abs=0.01)


@pytest.mark.parametrize("kind", ["amount", "duration"])
def test_they_survive_being_written_as_json_and_are_equal_for_equal_inputs(kind):
    known, again = learn(kind, exams(kind)), learn(kind, exams(kind))
    assert known == again == json.loads(json.dumps(known))
    order = np.random.default_rng(0).permutation(2000)
    shuffled = learn(kind, [(y[order], p[order]) for y, p in exams(kind)])
    for name in ("floor", "edges", "low", "high"):
        assert shuffled[name] == pytest.approx(known[name])


@pytest.mark.parametrize("rows", [0, 1, LEAST - 1])
def test_few_outcomes_and_probabilities_have_none(rows):
    y, predicted = amounts(rows, 0)
    assert learn("amount", [(y, predicted)]) == {}
    assert learn("probability", exams("amount")) == {}
    low, high = interval({}, np.array([1.0, 2.0]))
    assert np.isnan([*low, *high]).all()
    assert np.isnan(held({}, y, predicted))


@pytest.mark.parametrize("predicted", [np.zeros(500), np.full(500, 7.0), np.repeat([0.0, 1.0, 5.0], [400, 50, 50])])
def test_one_answer_for_many_is_one_group(predicted):
    y = np.random.default_rng(0).gamma(1.0, 10.0, len(predicted))
    known = learn("amount", [(y, predicted)])
    assert len(known["low"]) == len(known["edges"]) + 1
    assert held(known, y, predicted) >= COVERAGE or not predicted.any()
    low, high = interval(known, predicted)
    assert np.isfinite([*low, *high]).all()
