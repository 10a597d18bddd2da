"""The population stability index against its formula, its chance against simulation, and what has a pace of its own."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from training.drift import ALERT, BINS, LEAST, LOOKS, SCORE, chance, count, drifts, psi, reference

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def rows_of(n: int, cutoffs: int = 1) -> pd.DataFrame:
    at = [NOW - timedelta(days=30 * (k % cutoffs)) for k in range(n)]
    return pd.DataFrame({"profile_id": [f"p{k // cutoffs}" for k in range(n)], "cutoff": pd.to_datetime(at)})


def naive(then: np.ndarray, now: np.ndarray, edges: list[float]) -> float:
    """Bin by bin, in plain Python."""

    def place(value: float) -> int:
        return -1 if math.isnan(value) else sum(value > edge for edge in edges)

    bins = {place(v) for v in [*then, *now]}
    p = {b: sum(place(v) == b for v in then) + 0.5 for b in bins}
    q = {b: sum(place(v) == b for v in now) + 0.5 for b in bins}
    p, q = ({b: x / sum(s.values()) for b, x in s.items()} for s in (p, q))
    return sum((q[b] - p[b]) * math.log(q[b] / p[b]) for b in bins)


@pytest.mark.parametrize("kind", ["normal", "counts", "constant", "unknown", "some unknown", "two values"])
def test_the_index_is_that_of_a_naive_loop(kind: str) -> None:
    rng = np.random.default_rng(3)
    draw = {
        "normal": lambda n: rng.normal(size=n), "counts": lambda n: rng.poisson(1.0, n).astype(float),
        "constant": lambda n: np.full(n, 7.0), "unknown": lambda n: np.full(n, np.nan),
        "some unknown": lambda n: np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        "two values": lambda n: (rng.random(n) < 0.02).astype(float),
    }[kind]  # fmt: skip
    then, now = draw(1000), draw(300)
    known = reference(pd.DataFrame({"x": then}), rows_of(1000), {})
    column = known["columns"]["x"]
    assert len(column["edges"]) < BINS
    assert sum(column["shares"]) + column["nulls"] == pytest.approx(1)
    (found,) = drifts(known, pd.DataFrame({"x": now}), 300, NOW)
    assert found.psi == pytest.approx(naive(then, now, column["edges"]), abs=1e-9)
    assert found.level == ""


def test_codes_of_text_have_a_bin_each_and_what_training_never_saw_is_unknown() -> None:
    known = reference(pd.DataFrame({"city": [0.0] * 60 + [1.0] * 30 + [np.nan] * 10}), rows_of(100), {
        "city": ["Oslo", "Bergen"]
    })  # fmt: skip
    column = known["columns"]["city"]
    assert (column["edges"], column["shares"], column["nulls"]) == ([0.0], [0.6, 0.3], 0.1)
    (found,) = drifts(known, pd.DataFrame({"city": [np.nan] * 100}), 100, NOW)
    assert found.level == "alert"


def test_what_chance_makes_of_few_people_is_no_drift() -> None:
    """Of one population the index exceeds its limit as seldom as is said, whatever the sizes."""
    rng, over, years = np.random.default_rng(5), 0, 600
    for _ in range(years):
        then = rng.normal(size=400)
        known = reference(pd.DataFrame({"x": then}), rows_of(400), {})
        (found,) = drifts(known, pd.DataFrame({"x": rng.normal(size=60)}), 60, NOW)
        over += found.psi > found.chance
    assert over / years <= 0.05 / LOOKS + 3 * np.sqrt(0.05 / LOOKS / years)
    assert chance(10, 400, 60, 1) > 0.25  # so few people can look like another population
    assert chance(10, 4000, 4000, 40) < 0.1


def test_another_population_is_an_alert_if_it_matters() -> None:
    rng = np.random.default_rng(7)
    X = pd.DataFrame({"a": rng.normal(size=2000), "b": rng.normal(size=2000), SCORE: rng.random(2000)})
    known = reference(X, rows_of(2000), {})
    now = pd.DataFrame({"a": rng.normal(1, 1, 500), "b": rng.normal(1, 1, 500), SCORE: rng.random(500)})
    levels = {d.column: d.level for d in drifts(known, now, 500, NOW, {"a": LEAST, "b": LEAST / 2})}
    assert levels == {"a": "alert", "b": "warn", SCORE: ""}
    every = {d.column: d.level for d in drifts(known, now, 500, NOW)}  # weights not known
    assert every == {"a": "alert", "b": "alert", SCORE: ""}


def test_what_goes_on_as_it_did_is_no_alert_and_what_jumps_is() -> None:
    """In a young shop everybody has been a customer for longer with every month."""
    rng, rows = np.random.default_rng(9), rows_of(6000, cutoffs=6)
    age = (rows["cutoff"] - pd.Timestamp(NOW)).dt.days.to_numpy()
    X = pd.DataFrame({"tenure": 300 + age + rng.normal(0, 160, 6000), "spend": rng.normal(0, 80, 6000)})
    known = reference(X, rows, {})
    later = NOW + timedelta(days=60)
    now = pd.DataFrame({"tenure": 360 + rng.normal(0, 160, 1000), "spend": rng.normal(195, 80, 1000)})
    tenure, spend = drifts(known, now, 1000, later)
    assert tenure.psi > ALERT  # others they are, but not in another way than they were bound to be
    assert spend.psi > ALERT
    assert (tenure.level, spend.level) == ("warn", "alert")
    assert spend.trend < 0.1
    old = drifts(known, now.assign(tenure=now["tenure"] + 600), 1000, later + timedelta(days=600))
    assert [d.level for d in old] == ["alert", "alert"]  # no pace excuses a model for ever


def test_counts_leave_nobody_out() -> None:
    values = np.array([np.nan, -1.0, 0.0, 0.5, 1.0, 9.0])
    assert count(values, np.array([0.0, 1.0])).tolist() == [2, 2, 1, 1]
    assert count(values, np.empty(0)).tolist() == [5, 1]
    assert psi(np.array([5.0, 0.0]), np.array([5.0, 0.0])) == 0.0
