"""What is kept of a model's exams is what the backtest found, and what its features were like."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fixtures_trained import TASKS, TrainedShop, trained

from models import interval
from models.registry import champion, kept, quietly
from training.backtest import predict
from training.drift import BINS, SCORE
from training.expected import EXPECTED, LEVEL, SHOWN, bias, figures, metric_of

__all__ = ["trained"]


@pytest.mark.parametrize("task", TASKS)
def test_the_figures_of_the_exams_are_those_of_the_backtest(trained: TrainedShop, task: str) -> None:
    found, version = trained.trained[task], trained.trained[task].version
    said = json.loads(quietly(lambda: kept(trained.project, task, version, EXPECTED)))
    contest = found.contest
    judged, winner = contest.backtest.judgements, contest.winner
    assert said["metric"] == contest.task.metric
    assert said["horizon_days"] == said["judged_days"] == contest.task.horizon.days
    assert [e["cutoff"] for e in said["exams"]] == [j.fold.judged.isoformat() for j in judged]
    by_cutoff = contest.backtest.by_cutoff
    for exam, j in zip(said["exams"], judged, strict=True):
        assert exam["rows"] == len(j.rows)
        mine = by_cutoff[(by_cutoff["model"] == winner) & (by_cutoff["cutoff"] == j.fold.judged)]
        for row in mine.itertuples(index=False):
            if row.metric in exam["figures"]:
                value, low, high, spread = exam["figures"][row.metric]
                assert value == pytest.approx(row.value)
                assert low is None or low <= high
                assert spread is None or spread >= 0
        assert {*SHOWN[contest.kind], contest.task.metric} - {"coverage", "auc"} <= exam["figures"].keys() | {"ece"}
        if contest.kind == "probability":
            assert exam["figures"]["bias"][0] == pytest.approx(bias(j.y, j.predictions[winner], j.weight))
    table = contest.backtest.evaluation
    for row in table[table["model"] == winner].itertuples(index=False):
        assert said["figures"][row.metric][0] == pytest.approx(row.value)
    if contest.interval:
        inside = [e["figures"]["coverage"][0] for e in said["exams"]]
        weighed = any(len(np.unique(j.weight)) > 1 for j in judged)
        assert weighed or np.mean(inside) == pytest.approx(contest.held)


@pytest.mark.parametrize("task", TASKS)
def test_the_reference_is_what_it_learned_from(trained: TrainedShop, task: str) -> None:
    found = trained.trained[task].contest
    text = quietly(lambda: kept(trained.project, task, trained.trained[task].version, EXPECTED))
    said = json.loads(text)["reference"]
    assert said["rows"] == len(found.rows)
    assert said["profiles"] == found.rows["profile_id"].nunique()
    assert list(said["columns"]) == [*found.columns, SCORE]
    for name in found.columns:
        column, values = said["columns"][name], found.rows[name]
        assert column["nulls"] == pytest.approx(values.isna().mean())
        assert len(column["edges"]) == len(column["shares"]) - 1 < BINS
        below = -np.inf
        for edge, share in zip([*column["edges"], np.inf], column["shares"], strict=True):
            assert share == pytest.approx(((values > below) & (values <= edge)).mean())
            below = edge
    weights = json.loads(text)["weights"]
    assert sum(weights.values()) == pytest.approx(1) or weights == {}
    assert len(text) < 120_000
    assert not any(profile in text for profile in found.rows["profile_id"].unique())


@pytest.mark.parametrize("task", TASKS)
def test_the_question_is_kept_with_the_model(trained: TrainedShop, task: str) -> None:
    from training import question

    contract = quietly(lambda: champion(trained.project, task)).contract
    assert contract["question"] == question.said(trained.project, trained.project.definitions.task(task))
    assert question.asked(trained.project, task, contract).asked == "then"


def test_figures_are_the_metrics_and_their_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(800)
    y = (rng.random(800) < p).astype(float)
    weight = rng.choice([0.5, 1.0], 800)
    found = figures(y, p, "probability", "brier", weight)
    assert list(found) == [*SHOWN["probability"], "brier"]
    for name, figure in found.items():
        assert figure.value == pytest.approx(metric_of("probability", name).function(y, p, weight))
        assert figure.low < figure.high
        if name != "ece":
            assert figure.low < figure.value < figure.high
    # of a mean the bootstrap's deviation is known
    assert found["bias"].spread == pytest.approx(np.std(p - y) / np.sqrt(800) * np.sqrt(1.1), rel=0.2)
    assert set(LEVEL.values()) <= {name for names in SHOWN.values() for name in names}


def test_coverage_counts_outcomes_in_their_interval() -> None:
    y, inside = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, True, False])
    found = figures(y, y + 0.5, "amount", "mae", None, inside)
    assert found["coverage"].value == 0.75
    assert "coverage" not in figures(y, y, "amount", "mae")


def test_of_one_class_there_is_a_level_and_no_rank() -> None:
    found = figures(np.zeros(50), np.full(50, 0.1), "probability", "log_loss")
    assert found["bias"].value == pytest.approx(0.1)
    assert "auc" not in found
    assert figures(np.empty(0), np.empty(0), "probability", "log_loss") == {}


def test_the_parts_of_an_interval_are_the_whole() -> None:
    rng = np.random.default_rng(1)
    exams = [(rng.gamma(1, 10, 300), rng.gamma(2, 5, 300)) for _ in range(3)]
    known = interval.from_exams("amount", exams, 0.9)
    for y, said in exams:
        assert interval.held(known, y, said) == np.mean(interval.inside(*interval.interval(known, said), y))


def test_predictions_of_the_model_in_use_are_near_its_reference(trained: TrainedShop) -> None:
    """The scores of the exams are those of models like it: beside its own they are no other population."""
    from training.drift import drifts

    found = trained.trained["churn"].contest
    said = json.loads(quietly(lambda: kept(trained.project, "churn", trained.trained["churn"].version, EXPECTED)))
    values = predict(found.final, found.rows[found.columns], found.kind)
    (drift,) = drifts(
        {**said["reference"], "columns": {SCORE: said["reference"]["columns"][SCORE]}},
        pd.DataFrame({SCORE: values}), found.rows["profile_id"].nunique(), found.at,
    )  # fmt: skip
    assert drift.level != "alert"
