"""Levels of last year, and what they make of a prediction."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from fixtures_trained import NOW, TrainedShop, mine, trained

from foretell import days
from models import registry
from training import dataset, season

__all__ = ["mine", "trained"]


@pytest.mark.parametrize("name", ["churn", "clv", "propensity"])
def test_a_level_is_that_of_the_active_a_year_before(
    trained: TrainedShop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(season, "LEAST", 20)
    project, then = trained.project, NOW - season.YEAR
    task, kind = project.definitions.task(name), trained.trained[name].kind
    first = dataset.first_fact(project, task)
    rows = dataset.training_set(project, task, [then])
    active = rows[rows["days_since_order"] <= season.ACTIVE / timedelta(days=1)]
    assert 20 < len(active) < len(rows)
    mean = np.average(np.maximum(active["label"].astype(float), 0), weights=active["weight"])
    expected = np.log(mean) if kind == "amount" else np.log(mean / (1 - mean))
    early = first + season.YEAR + timedelta(days=30)  # a year before, nobody could have been active for long
    found = season.levels(project, task, kind, [NOW, early], first)
    assert found == {NOW: pytest.approx(expected)}
    monkeypatch.setattr(season, "LEAST", 10_000)
    assert season.levels(project, task, kind, [NOW], first) == {}


def test_nothing_is_known_of_who_enters_a_rule(trained: TrainedShop) -> None:
    task = trained.project.definitions.task("lookalike")
    assert season.levels(trained.project, task, "probability", [NOW], NOW - days(900)) == {}


def test_a_level_at_t_uses_labels_that_were_complete_by_t(trained: TrainedShop) -> None:
    task = trained.project.definitions.task("churn")
    ahead = season.days_ahead(task, NOW)
    assert ahead[0] == NOW
    assert all(day - season.YEAR + task.horizon + task.settle <= NOW for day in ahead)
    assert NOW + season.YEAR - task.horizon - task.settle - ahead[-1] < season.AHEAD


def test_a_shift_needs_several_known_cutoffs() -> None:
    learned = [NOW - timedelta(days=31 * k) for k in range(1, 5)]
    known = dict(zip(learned, [0.1, 0.2, 0.3, 0.6], strict=True)) | {NOW: 1.0}
    assert season.shift(known, learned, NOW) == pytest.approx(0.7)
    assert season.shift({k: known[k] for k in [NOW, *learned[:3]]}, learned, NOW) == pytest.approx(0.8)
    assert season.shift({k: known[k] for k in [NOW, *learned[:2]]}, learned, NOW) == 0.0
    assert season.shift({k: known[k] for k in learned}, learned, NOW) == 0.0


def test_a_champion_knows_its_season_between_two_days(trained: TrainedShop) -> None:
    real = registry.quietly(lambda: registry.champion(trained.project, "churn"))
    days_known = {(NOW + timedelta(days=d)).isoformat(): by for d, by in ((0, 0.0), (14, 1.0), (28, 0.5))}
    model = registry.Champion("churn", "1", "run", real.model, {**real.contract, "season": days_known})
    at = [NOW - timedelta(days=9), NOW, NOW + timedelta(days=7), NOW + timedelta(days=21), NOW + timedelta(days=99)]
    assert [model.season(day) for day in at] == pytest.approx([0.0, 0.0, 0.5, 0.75, 0.5])
    X = trained.trained["churn"].contest.now[real.contract["columns"]].head(20)
    plain, moved = (model.predict(X, day) for day in (NOW, NOW + timedelta(days=7)))
    odds = [np.log(p / (1 - p)) for p in (plain, moved)]
    np.testing.assert_allclose(odds[1] - odds[0], 0.5)
    np.testing.assert_array_equal(real.predict(X, NOW), plain)
