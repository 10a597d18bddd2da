"""Training finds a champion, keeps the evidence, and says what is wrong with what it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures_trained import HISTORY, NOW, TASKS, TrainedShop, mine, trained, write_shop
from hypothesis import given
from hypothesis import strategies as st

from foretell import Label, PredictionTask, _, days
from foretell.errors import DataError, ForetellError, UnknownName
from foretell.project import Project
from lake.engine import last_batch
from models import encoding, registry
from models.estimators import LEARNED
from training import dataset, metrics
from training.backtest import Backtest, Judgement
from training.champion import contest, train
from training.cutoffs import Fold, plan, step_of
from training.pooled import Judged, Pooled

__all__ = ["mine", "trained"]

CITIES = {"Oslo", "Bergen", "Tromsø"}


def a_task(**changes: Any) -> PredictionTask:
    said: dict[str, Any] = {
        "name": "leaves", "population": "orders_365d > 0", "horizon": days(90), "settle": days(1),
        "label": Label(source="order_line", value=_.count() == 0), "views": ("orders",), "metric": "log_loss",
        "purpose": "retention",
    }  # fmt: skip
    return PredictionTask(**{**said, **changes})


# --- cutoffs ---------------------------------------------------------------------------------------------------------


@given(
    horizon=st.timedeltas(timedelta(hours=1), timedelta(days=400)),
    settle=st.timedeltas(timedelta(0), timedelta(days=60)),
    history=st.timedeltas(timedelta(0), timedelta(days=3000)),
    wanted=st.integers(1, 12),
    folds=st.integers(1, 8),
)
def test_no_training_label_reaches_into_an_exam(
    horizon: timedelta, settle: timedelta, history: timedelta, wanted: int, folds: int
) -> None:
    task, first = a_task(horizon=horizon, settle=settle), NOW - history
    step, reach = step_of(task), horizon + settle
    away = -(-reach // step)
    if history <= reach + away * step:
        with pytest.raises(DataError, match="days of history"):
            plan(task, NOW, first, wanted, folds)
        return
    found = plan(task, NOW, first, wanted, folds)
    assert 1 <= len(found.folds) <= folds
    for fold in found.folds:
        assert max(fold.training) + reach <= fold.judged  # when the last fact of a label is waited for
        assert fold.judged + reach <= NOW
        assert 1 <= len(fold.training) <= wanted
        assert list(fold.training) == sorted(set(fold.training))
    assert all(cutoff + reach <= NOW for cutoff in found.final)
    assert found.final[-1] == found.folds[-1].judged == NOW - reach
    assert min(found.all) > first
    assert {(NOW - reach - cutoff) % step for cutoff in found.all} == {timedelta(0)}  # all on one grid


@pytest.mark.parametrize(("horizon", "step"), [(7, 8), (30, 31), (90, 31), (180, 31), (365, 31)])
def test_cutoffs_are_about_a_month_apart_and_a_reach_is_a_whole_number_of_them(horizon: int, step: int) -> None:
    assert step_of(a_task(horizon=days(horizon))) == days(step)


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_champion_is_registered_with_its_contract(trained: TrainedShop, name: str) -> None:
    project, found = trained.project, trained.trained[name]
    champion = registry.quietly(lambda: registry.champion(project, name))
    assert (champion.version, champion.run_id) == (found.version, found.run_id)
    contract = champion.contract
    assert set(contract) == {
        "task", "kind", "columns", "estimator", "base_rate", "service", "background", "horizon_days", "purpose",
        "population", "metric", "batch", "cutoffs", "evaluated_on", "rows", "reason", "categories", "tuned", "season",
        "now", "base_rate_interval", "allowed", "words", "interval", "judged_days", "question",
    }  # fmt: skip
    task = project.definitions.task(name)
    assert contract["columns"] == dataset.feature_columns(project, task) == list(contract["background"])
    assert contract["estimator"] == found.winner
    assert contract["kind"] == ("amount" if name == "clv" else "probability")
    assert contract["batch"] == last_batch(project)
    assert contract["horizon_days"] == contract["judged_days"] == (30 if name == "propensity" else 90)
    assert bool(contract["interval"]) == (name == "clv")
    assert contract["evaluated_on"][-1] == (NOW - task.horizon - days(1)).isoformat()
    assert len(contract["evaluated_on"]) == 2
    low, high = contract["base_rate_interval"]
    assert low < contract["base_rate"] < high
    assert {city: set(values) for city, values in contract["categories"].items()} == {"known_city": CITIES}
    assert np.isfinite(list(contract["background"].values())).all()
    assert contract["rows"] == found.contest.counts
    assert contract["rows"]["training"] > contract["rows"]["evaluation"] > 50


@pytest.mark.parametrize("name", TASKS)
def test_run_holds_the_evidence(trained: TrainedShop, name: str, tmp_path: Path) -> None:
    project, found = trained.project, trained.trained[name]
    client = registry.quietly(lambda: registry.client(project))
    run = client.get_run(found.run_id)
    params = run.data.params
    assert params["batch"] == str(last_batch(project))
    assert params["estimator"] == found.winner
    assert {"kind", "service", "cutoffs", "evaluated_on", "base_rate", "rows", "population", "horizon", "settle",
            "metric", "purpose"} <= set(params)  # fmt: skip
    numbers = run.data.metrics
    for row in found.evaluation.itertuples():
        key = f"{row.model}.{row.metric}"
        assert numbers[key] == pytest.approx(row.value)
        assert numbers[f"{key}.low"] <= numbers[f"{key}.high"]
    assert {row.metric for row in found.evaluation.itertuples()} <= set(numbers)  # the champion's, by their plain names
    kept = {a.path for a in client.list_artifacts(found.run_id)}
    assert {
        "evaluation.csv",
        "by_cutoff.csv",
        "report.html",
        "features.json",
        "skipped.json",
        "contract.json",
        "plots",
    } <= kept
    plots = {a.path for a in client.list_artifacts(found.run_id, "plots")}
    expected = {f"{what}_{model}" for what in ("calibration", "shap") for model in (found.winner, LEARNED)}
    expected -= {"shap_base_rate", "shap_mean"}  # one answer for everyone has no reasons
    expected |= {"gain", "tuning", "stability", f"compare_{found.task.metric}"}
    assert plots == {f"plots/{p}.png" for p in expected}
    assert set(found.plots) == expected
    folder = Path(client.download_artifacts(found.run_id, "", str(tmp_path)))
    assert all((folder / p).stat().st_size > 5000 for p in plots)
    table = pd.read_csv(folder / "evaluation.csv")
    pd.testing.assert_frame_equal(table, found.evaluation.reset_index(drop=True))
    features = json.loads((folder / "features.json").read_text())
    assert features["features"] == dataset.feature_columns(project, found.task)


def test_model_stays_in_the_home_and_has_a_signature(trained: TrainedShop) -> None:
    import mlflow

    registry.quietly(lambda: registry.client(trained.project))
    for name, found in trained.trained.items():
        info = mlflow.models.get_model_info(f"models:/{name}/{found.version}")
        assert info.signature is not None
        assert info.signature.inputs.input_names() == dataset.feature_columns(trained.project, found.task)
    models = list((trained.project.home / "mlflow" / "artifacts").rglob("MLmodel"))
    assert len(models) == len(TASKS)


def test_each_home_has_its_own_registry(trained: TrainedShop, tmp_path: Path) -> None:
    other = Project(write_shop(tmp_path / "other", people=3))
    assert registry.quietly(lambda: registry.trained_at(trained.project, "churn")) is not None
    assert registry.quietly(lambda: registry.trained_at(other, "churn")) is None
    assert not (other.home / "mlflow").exists()  # a question makes no registry
    assert registry.quietly(lambda: registry.client(other).search_registered_models()) == []
    assert (other.home / "mlflow" / "mlflow.db").exists()


def test_baselines_compete_and_intervals_hold_the_value(trained: TrainedShop) -> None:
    for found in trained.trained.values():
        assert found.contest.backtest.skipped == {}
        assert found.evaluation["model"].nunique() == {"probability": 6, "amount": 5}[found.kind]
        assert found.winner in set(found.evaluation["model"])
        assert found.contest.reason
        main = found.evaluation[found.evaluation["metric"] == found.task.metric]
        assert (main["low"] <= main["value"]).all()
        assert (main["value"] <= main["high"]).all()


# --- text ------------------------------------------------------------------------------------------------------------


def test_codes_are_given_by_the_rows_learned_from(
    mine: Callable[[], Project], trained: TrainedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[pd.Timestamp]] = []
    learn = encoding.learn

    def watched(rows: pd.DataFrame, columns: list[str]) -> dict[str, list[str]]:
        seen.append(set(rows["cutoff"]))
        return learn(rows, columns)

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "learn", watched)
        contest(mine(), "churn", trials=0)
    found = trained.trained["churn"].contest
    every, *exams, final = seen  # the leak gate, which foretells nothing, sees all rows
    assert every == set(map(pd.Timestamp, found.cutoffs.all))
    assert exams == [set(map(pd.Timestamp, fold.training)) for fold in found.cutoffs.folds]
    assert final == set(map(pd.Timestamp, found.cutoffs.final))
    # as they were kept with the champion, which reads text by them
    champion = registry.quietly(lambda: registry.champion(trained.project, "churn"))
    rows = dataset.training_set(trained.project, found.task, found.cutoffs.final)
    assert champion.categories == encoding.learn(rows, champion.contract["columns"])
    codes = champion.encode(rows)
    assert list(codes.columns) == champion.contract["columns"]
    known = rows["known_city"].notna()
    assert {champion.categories["known_city"][int(code)] for code in codes.loc[known, "known_city"]} == CITIES
    assert codes["known_city"].isna().equals(~known)
    assert champion.predict(codes, NOW).between(0, 1).all()


# --- the choice ------------------------------------------------------------------------------------------------------


def outcomes(n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, n)
    return (rng.random(n) < p).astype(float), p, np.ones(n)


def choose(task: PredictionTask, kind: Any, y: np.ndarray, predictions: dict, weight: np.ndarray) -> tuple[str, str]:
    """What one exam with these answers decides."""
    rows = pd.DataFrame({"person": np.arange(len(y)).astype(str), "label": y, "weight": weight})
    exam = Judgement(Fold((NOW,), NOW), rows, rows[:0], predictions, {}, {}, {})
    return Backtest(task, kind, (exam,)).choose()


def test_choose_noise_loses() -> None:
    y, p, weight = outcomes()
    noise = np.random.default_rng(1).uniform(0.01, 0.99, len(y))
    winner, reason = choose(a_task(), "probability", y, {"recency": p, LEARNED: noise}, weight)
    assert winner == "recency"
    assert reason.startswith("the baseline recency beats")


def test_choose_perfect_wins_over_the_best_baseline() -> None:
    y, p, weight = outcomes()
    models = {"recency": np.full(len(y), y.mean()), "rfm_logistic": p, LEARNED: np.where(y == 1, 0.99, 0.01)}
    winner, reason = choose(a_task(), "probability", y, models, weight)
    assert winner == LEARNED
    assert "against rfm_logistic" in reason


@pytest.mark.parametrize("nudge", [0.0, 1e-4])
def test_choose_ties_go_to_the_baseline(nudge: float) -> None:
    y, p, weight = outcomes()
    jitter = nudge * np.random.default_rng(2).normal(size=len(y))
    winner, reason = choose(a_task(), "probability", y, {"recency": p, LEARNED: p + jitter}, weight)
    assert winner == "recency"
    assert "beyond chance" in reason


@pytest.mark.parametrize("metric", list(metrics.METRICS["amount"]))
def test_choose_by_any_metric_of_amounts(metric: str) -> None:
    rng = np.random.default_rng(3)
    y = rng.gamma(1.0, 100.0, 400)
    noise = rng.permutation(y) * 3
    models = {"past_spend": noise, LEARNED: y * 1.0}
    task = a_task(metric=metric, label=Label(source="order_line", value=_.amount.sum().fill_null(0)))
    assert choose(task, "amount", y, models, np.ones(400))[0] == LEARNED
    swapped = {"past_spend": y * 1.0, LEARNED: noise}
    assert choose(task, "amount", y, swapped, np.ones(400))[0] == "past_spend"


def test_choose_without_baseline_takes_what_there_is() -> None:
    y, p, weight = outcomes()
    assert choose(a_task(), "probability", y, {LEARNED: p}, weight)[0] == LEARNED
    assert choose(a_task(), "probability", y, {"recency": p}, weight)[0] == "recency"


def test_choose_serves_no_baseline_for_its_order_whose_numbers_are_far_off() -> None:
    rng = np.random.default_rng(0)
    y = rng.gamma(1.0, 50.0, 600)
    order = np.exp(np.log(y + 1) + rng.normal(0, 0.2, 600))
    said = {"mean": np.full(600, y.mean()), "cents": 100 * order, "plain": np.maximum(y + rng.normal(0, 25, 600), 0)}
    ones = np.ones(600)
    pooled = Pooled("amount", [Judged(np.arange(600).astype(str), y, said)])
    assert pooled.best("norm_gini", list(said)) == "cents"
    assert choose(a_task(metric="norm_gini"), "amount", y, said, ones)[0] == "plain"
    assert choose(a_task(metric="mae"), "amount", y, said, ones)[0] == "plain"


def test_choose_serves_no_baseline_that_another_outdoes() -> None:
    """Of two that put people in the same order, the one whose numbers are nearer, though the other is the simpler."""
    rng = np.random.default_rng(1)
    y = rng.gamma(1.0, 50.0, 600)
    near = np.maximum(y + rng.normal(0, 25, 600), 0)
    said = {"mean": np.full(600, y.mean()), "past_spend": 1.4 * near, "bg_nbd_gamma_gamma": near}
    ones = np.ones(600)
    assert choose(a_task(metric="norm_gini"), "amount", y, said, ones)[0] == "bg_nbd_gamma_gamma"
    assert choose(a_task(metric="norm_gini"), "amount", y, {**said, LEARNED: near * 1.0}, ones)[0] == (
        "bg_nbd_gamma_gamma"
    )


# --- refusals --------------------------------------------------------------------------------------------------------

TASK = """
from foretell import Enters, Label, PredictionTask, _, days

odd = PredictionTask(name="odd", population="{population}", horizon=days({horizon}), metric="{metric}",
    label={label}, views=("orders",), purpose="retention")
"""
GOOD = {"population": "orders_365d > 0", "horizon": 90, "metric": "log_loss", "value": "_.count() == 0"}
ENTERS = "a rule that is replayed in the past can read features only"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": "_.count() >= 0"}, r"expected labels of both classes, got only true in \d+ training rows; lengthen"),
        ({"value": "_.count() < 0"}, r"got only false in \d+ training rows"),
        ({"population": "orders_365d > 9999"}, r"nobody is eligible \(orders_365d > 9999\).*loosen the population"),
        ({"population": "order_365d > 0"}, r'order_365d: no such feature; did you mean "orders_365d"\?.*of odd'),
        ({"horizon": 300}, r"needs more than 611 days of history .* got \d+; load older data, or shorten the horizon"),
        ({"metric": "log_los"}, r'log_los: no such probability metric; did you mean "log_loss"\?.*task odd'),
        ({"metric": "mae"}, r"mae: no such probability metric"),
        ({"value": "_.amount.mean()", "metric": "mae"}, r"odd: expected a label for everyone, got none for \d+ of \d+ "
                                                        r"profiles at .*; say what it is without facts"),
        ({"value": "_.count() > 0, only=_.quantity > 9"}, r"got only false in \d+ training rows"),
        ({"population": "churn > 0.2"}, rf"churn: is a score; {ENTERS}; ask for it by features. \(population of odd\)"),
        ({"population": "city = 'Oslo'"}, rf"city: is a trait; {ENTERS}; read the feature known_city. \(population of"),
        ({"label": 'Enters("spend_91d > 3")'}, r'spend_91d: no such feature; did you mean "spend_90d"\?.*label of odd'),
        ({"label": 'Enters("leaving")'}, rf"churn: is a score; {ENTERS}; expand it with `foretell lookalike`"),
        ({"label": 'Enters("osloers")'}, rf"city: is a trait; {ENTERS}; read the feature known_city. \(label of odd\)"),
        ({"label": 'Enters("lokal")'}, r"lokal: no such segment; known: leaving, osloers. \(label of odd\)"),
        ({"label": 'Enters("orders_365d >= 0")'}, r"odd: nobody is eligible"),
        ({"label": 'Enters("orders_365d < 0")'}, r"odd: expected labels of both classes, got only false"),
    ],
)  # fmt: skip
def test_bad_task_is_refused(mine: Callable[[], Project], change: dict, says: str) -> None:
    project = mine()
    (project.folder / "tasks").mkdir(exist_ok=True)
    said = {**GOOD, **change}
    said.setdefault("label", f'Label(source="order_line", value={said["value"]})')
    (project.folder / "tasks" / "odd.py").write_text(TASK.format(**said))
    with pytest.raises(ForetellError, match=says):
        train(project, "odd")


def test_unknown_task_is_refused(trained: TrainedShop) -> None:
    with pytest.raises(UnknownName, match=r'chrun: no such task; did you mean "churn"\?'):
        train(trained.project, "chrun")


def test_empty_lake_is_refused(tmp_path: Path) -> None:
    project = Project(write_shop(tmp_path / "shop", people=3))
    with pytest.raises(ForetellError, match=r"run `foretell load` first"):
        train(project, "churn")


def test_now_before_the_first_fact_is_refused(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_AS_OF", (NOW - timedelta(days=HISTORY + 300)).isoformat())
    with pytest.raises(DataError, match=r"days of history .* got 0; load older data"):
        train(mine(), "churn")


def test_instants_are_utc() -> None:
    found = plan(a_task(), datetime(2024, 7, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC), 4)
    assert {c.utcoffset() for c in found.all} == {timedelta(0)}
