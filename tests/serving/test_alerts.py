"""Does the rule cry wolf? Models that are as good as ever, simulated for a year; and models that are not."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from conftest import START
from scipy.stats import t as student

from serving.alerts import LEAST, LOOKS, _largest, judge, looks_a_year, watched
from training.expected import Figure

YEARS = 1000
# sampling deviation σ, deviation of months τ, the part of σ that exams of the same people share, live σ over that of
# the exams: from nothing but chance to nothing but seasons
WORLDS = {
    "chance alone": (0.01, 0.0, 0.0, 1.0),
    "the same people at each exam": (0.01, 0.0, 0.9, 1.0),
    "few people live": (0.01, 0.0, 0.9, 3.0),
    "chance and seasons": (0.01, 0.01, 0.5, 1.0),
    "seasons": (0.01, 0.02, 0.0, 1.0),
    "seasons of the same people": (0.01, 0.02, 0.9, 1.0),
    "seasons alone": (0.001, 0.02, 0.0, 1.0),
}


def alarms(world: str, exams: int, name: str, worse: float = 0.0, seed: int = 0, years: int = YEARS) -> float:
    """The share of years of LOOKS months in which a figure raises an alert; worse: what was lost since the exams."""
    chance, months, shared, ratio = WORLDS[world]
    rng, hits = np.random.default_rng(seed), 0

    def figures(count: int, spread: float, level: float) -> list[Figure]:
        people = spread * (np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=count))
        values = level + people + months * rng.normal(size=count)
        return [Figure(float(value), np.nan, np.nan, spread) for value in values]

    for _ in range(years):
        known = figures(exams, chance, 0.5)
        live = figures(LOOKS, chance * ratio, 0.5 + worse)
        hits += any(judge("probability", name, one, known, "log_loss").state == "alert" for one in live)
    return hits / years


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log_loss", "bias"])
@pytest.mark.parametrize("exams", [3, 6])
@pytest.mark.parametrize("world", WORLDS)
def test_a_model_as_good_as_ever_gives_a_false_alarm_in_one_year_of_twenty_at_most(
    world: str, exams: int, name: str
) -> None:
    error = 3 * np.sqrt(0.05 * 0.95 / YEARS)
    assert alarms(world, exams, name) <= 0.05 + error


def test_a_model_as_good_as_ever_seldom_raises_an_alert() -> None:
    """The quick part of the test above: both figures together, where only seasons differ, at the nominal rate."""
    both = alarms("seasons alone", 6, "log_loss", years=150) + alarms("seasons alone", 6, "bias", years=150)
    assert both <= 0.05 + 3 * np.sqrt(2 * 0.025 * 0.975 / 150)


@pytest.mark.parametrize(("worse", "least"), [(0.05, 0.7), (0.1, 0.98)])
def test_a_model_that_got_worse_raises_an_alert_within_the_year(worse: float, least: float) -> None:
    assert alarms("the same people at each exam", 6, "log_loss", worse, years=60) >= least


def test_better_than_promised_is_no_alert() -> None:
    exams = [Figure(0.5 + 0.001 * n, 0.49, 0.51, 0.005) for n in range(6)]
    assert judge("probability", "log_loss", Figure(0.2, 0.19, 0.21, 0.005), exams, "log_loss").state == "outside"
    assert judge("probability", "log_loss", Figure(0.8, 0.79, 0.81, 0.005), exams, "log_loss").state == "alert"
    assert judge("probability", "auc", Figure(0.2, 0.19, 0.21, 0.005), exams, "auc").state == "alert"
    for bias in (-0.4, 0.4):
        level = [Figure(0.001 * n, -0.01, 0.01, 0.005) for n in range(6)]
        assert judge("probability", "bias", Figure(bias, 0, 0, 0.005), level, "auc").state == "alert"
    off = [Figure(-0.4 + 0.001 * n, -0.5, -0.3, 0.005) for n in range(6)]
    assert judge("probability", "bias", Figure(0.1, 0, 0, 0.005), off, "auc").state == "outside"  # nearer than promised
    assert judge("probability", "bias", Figure(0.5, 0, 0, 0.005), off, "auc").state == "alert"


def test_only_watched_figures_raise_alerts() -> None:
    exams = [Figure(0.02 + 0.001 * n, 0.0, 0.03, 0.005) for n in range(6)]
    assert watched("probability", "log_loss") == ("log_loss", "bias")
    assert watched("duration", "bias_pct") == ("bias_pct",)
    assert judge("probability", "ece", Figure(0.9, 0.8, 1.0, 0.005), exams, "log_loss").state == "outside"


def test_few_exams_say_nothing() -> None:
    exams = [Figure(0.5, 0.4, 0.6, 0.01)] * (LEAST - 1)
    found = judge("probability", "log_loss", Figure(9.0, 8.0, 10.0, 0.01), exams, "log_loss")
    assert (found.state, np.isnan(found.band).all()) == ("unknown", True)
    nothing = judge("probability", "log_loss", Figure(np.nan, np.nan, np.nan, np.nan), [*exams, *exams], "log_loss")
    assert nothing.state == "unknown"


def test_the_limit_is_that_of_the_largest_of_a_year() -> None:
    """Against plain simulation, and of one look it is Student's t."""
    assert _largest(5.0, 0.0, 1, 0.05, False) == pytest.approx(student.ppf(0.95, 5), abs=0.01)
    assert _largest(5.0, 0.2, 1, 0.05, True) == pytest.approx(student.ppf(0.975, 5), abs=0.01)
    rng = np.random.default_rng(1)
    s = np.sqrt(rng.chisquare(5, size=(200_000, 1)) / 5)
    z = (np.sqrt(0.2) * rng.normal(size=(200_000, 1)) + np.sqrt(0.8) * rng.normal(size=(200_000, 12))) / s
    assert np.mean(z.max(axis=1) > _largest(5.0, 0.2, 12, 0.025, False)) == pytest.approx(0.025, abs=0.002)
    assert np.mean(abs(z).max(axis=1) > _largest(5.0, 0.2, 12, 0.025, True)) == pytest.approx(0.025, abs=0.002)


def test_whoever_looks_more_often_has_a_farther_limit() -> None:
    days = [START + timedelta(days=n) for n in range(10)]
    assert looks_a_year(days) == 365
    assert looks_a_year([START + timedelta(days=90 * n) for n in range(4)]) == LOOKS
    assert looks_a_year([]) == LOOKS
    exams = [Figure(0.5 + 0.01 * n, 0.4, 0.6, 0.01) for n in range(6)]
    live = Figure(0.6, 0.5, 0.7, 0.01)
    seldom, often = (judge("probability", "log_loss", live, exams, "log_loss", n).limits[1] for n in (LOOKS, 365))
    assert seldom < often
