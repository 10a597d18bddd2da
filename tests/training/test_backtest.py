"""Exams, what they say together, by groups, and which champion they make."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, mine, trained

from foretell.errors import DataError
from models import registry
from models.estimators import LEARNED
from models.explain import contributions, margin, shifted
from training import backtest, incumbent, metrics
from training.backtest import Backtest, Judgement
from training.champion import Contest
from training.cutoffs import Fold
from training.pooled import Judged, Pooled

__all__ = ["mine", "trained"]


def exam(task: Any, place: int = 0, people: int = 300, **changes: Any) -> Judgement:
    """One exam whose outcomes follow p, with a text and a number to group by."""
    rng = np.random.default_rng(place)
    p = rng.uniform(0.05, 0.95, people)
    rows = pd.DataFrame({
        "profile_id": [f"p{i}" for i in range(people)], "person": [f"p{i}" for i in range(people)], "weight": 1.0,
        "label": (rng.random(people) < p).astype(float), "city": rng.integers(0, 2, people).astype(float),
        "age": rng.uniform(20, 80, people),
    })  # fmt: skip
    said = {
        "base_rate": np.full(people, 0.5),
        "recency": np.clip(p + rng.normal(0, 0.2, people), 0.01, 0.99),
        LEARNED: p,
    }
    at = NOW - timedelta(days=31 * (9 - place))
    made = Judgement(Fold((at - timedelta(days=91),), at), rows, rows[:0], said, {}, {}, {"city": ["Oslo", "Bergen"]})
    return replace(made, **changes)


@pytest.fixture
def task(trained: TrainedShop) -> Any:
    return replace(trained.project.definitions.task("churn"), groups=("city", "age"))


def test_a_metric_over_exams_is_the_mean_of_theirs(task: Any) -> None:
    exams = [exam(task, place) for place in range(3)]
    found = Backtest(task, "probability", tuple(exams))
    each = [metrics.log_loss(e.y, e.predictions[LEARNED]) for e in exams]
    row = found.evaluation.set_index(["model", "metric"]).loc[(LEARNED, "log_loss")]
    assert row["value"] == pytest.approx(np.mean(each))
    assert row["low"] < row["value"] < row["high"]
    by = found.by_cutoff
    assert by[(by["model"] == LEARNED) & (by["metric"] == "log_loss")]["value"].tolist() == pytest.approx(each)
    assert found.choose()[0] == LEARNED


def test_the_base_rate_stands_until_something_beats_it_beyond_chance(task: Any) -> None:
    rng = np.random.default_rng(0)
    near = np.clip(0.5 + rng.normal(0, 0.01, 300), 0.05, 0.95)  # as good as the base rate, by luck a little better
    base = exam(task)
    lucky = near + np.where(base.y == 1, 0.001, -0.001)
    only = {"base_rate": np.full(300, 0.5), "recency": lucky}
    winner, reason = Backtest(task, "probability", (replace(base, predictions=only),)).choose()
    assert winner == "base_rate"
    assert "nor does recency beat base_rate" in reason
    assert (
        Backtest(task, "probability", (replace(base, predictions={**only, LEARNED: near}),)).choose()[0] == "base_rate"
    )
    best = {**only, LEARNED: base.predictions[LEARNED]}
    assert Backtest(task, "probability", (replace(base, predictions=best),)).choose()[0] == LEARNED


def test_a_candidate_that_missed_an_exam_is_not_compared(task: Any) -> None:
    first, second = exam(task, 0), exam(task, 1)
    lost = {name: said for name, said in second.predictions.items() if name != "recency"}
    second = replace(second, predictions=lost, skipped={"recency": "it was ill"})
    found = Backtest(task, "probability", (first, second))
    assert found.pooled.models == ["base_rate", LEARNED]
    assert found.skipped == {"recency": "it was ill"}


def test_weights_count_as_rows_do() -> None:
    rng = np.random.default_rng(0)
    y, p, times = rng.integers(0, 2, 200).astype(float), rng.uniform(0.01, 0.99, 200), rng.integers(1, 4, 200)
    who = np.arange(200).astype(str)
    weighted = Pooled("probability", [Judged(who, y, {"m": p}, times.astype(float))])
    repeated = Pooled("probability", [Judged(np.repeat(who, times), np.repeat(y, times), {"m": np.repeat(p, times)})])
    for metric in ("auc", "log_loss", "brier"):
        assert weighted.value("m", metric) == pytest.approx(repeated.value("m", metric))
        assert weighted.interval("m", metric) == pytest.approx(repeated.interval("m", metric))


def test_draws_are_the_same_however_many_are_worked_out_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import pooled

    rng = np.random.default_rng(1)
    judged = [
        Judged(rng.permutation(300)[:200].astype(str), rng.gamma(1, 50, 200), {"m": rng.gamma(1, 50, 200)})
        for _ in range(2)
    ]
    whole = Pooled("amount", judged).interval("m", "rmse")
    monkeypatch.setattr(pooled, "CHUNK", 700)
    assert Pooled("amount", judged).interval("m", "rmse") == pytest.approx(whole, rel=1e-12)


def test_groups_are_told_apart(task: Any) -> None:
    exams = [exam(task, place) for place in range(2)]
    found = Backtest(task, "probability", tuple(exams)).by_group(LEARNED)
    assert list(dict.fromkeys(found["column"])) == ["city", "age"]
    rows = pd.concat([e.rows.assign(p=e.predictions[LEARNED]) for e in exams])
    oslo = found[found["group"] == "Oslo"].iloc[0]
    mine = rows[rows["city"] == 0]
    assert (oslo["rows"], oslo["base"]) == (len(mine), pytest.approx(mine["label"].mean()))
    assert oslo["predicted"] == pytest.approx(mine["p"].mean())
    assert oslo["log_loss"] == pytest.approx(metrics.log_loss(mine["label"], mine["p"]))
    ages = found[found["column"] == "age"]
    assert len(ages) == 4  # its quarters
    assert ages["rows"].sum() == len(rows)
    few = Backtest(task, "probability", (exam(task, 0, people=40),)).by_group(LEARNED)
    assert few[few["column"] == "age"]["log_loss"].isna().all()  # ten rows each


def test_an_exam_that_asks_nothing_is_left_out_and_the_error_of_the_last_is_told(task: Any) -> None:
    def rows_at(cutoff: Any, label: Any) -> pd.DataFrame:
        made = pd.DataFrame({"profile_id": [f"p{i}" for i in range(60)], "label": label, "orders_365d": 1.0})
        return made.assign(person=made["profile_id"], weight=1.0, split=False, cutoff=pd.Timestamp(cutoff))

    days = [NOW - timedelta(days=d) for d in (500, 400, 300)]
    mixed = np.arange(60) % 2
    folds = [Fold((days[0],), days[1]), Fold((days[0],), days[2])]

    def known(_: Any) -> dict[str, Any]:
        from models.estimators.baselines import BaseRate

        return {"base_rate": BaseRate(90)}

    rows = pd.concat([rows_at(days[0], mixed), rows_at(days[1], 1.0), rows_at(days[2], mixed)], ignore_index=True)
    found = backtest.run(task, "probability", rows, folds, ["orders_365d"], known, {})
    assert [j.fold.judged for j in found.judgements] == [days[2]]
    assert "got only true in 60 evaluation rows" in found.left_out[f"{days[1]:%Y-%m-%d}"]
    rows = pd.concat([rows_at(days[0], mixed), rows_at(days[1], 1.0), rows_at(days[2], 0.0)], ignore_index=True)
    with pytest.raises(DataError, match="got only false in 60 evaluation rows"):
        backtest.run(task, "probability", rows, folds, ["orders_365d"], known, {})


def test_the_season_moves_the_margin_of_the_learned_one_only(task: Any) -> None:
    p = np.array([0.1, 0.5, 0.9])
    moved = shifted(p, "probability", 0.7)
    np.testing.assert_allclose(np.log(moved / (1 - moved)) - np.log(p / (1 - p)), 0.7)
    np.testing.assert_allclose(shifted(np.array([0.0, 10.0]), "amount", np.log(2)), [0.0, 20.0])
    assert shifted(p, "probability", 0.0) is p


# --- the champion in use ---------------------------------------------------------------------------------------------


def test_the_champion_in_use_is_asked_only_what_came_after_it(
    trained: TrainedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained.trained["churn"].contest
    said, stays = incumbent.compare(trained.project, found.backtest, found.winner, found.rows)
    assert not stays
    assert "has had 0 exams since it learned" in said


@pytest.mark.parametrize(("better", "says"), [(True, "stays: "), (False, "is beaten beyond chance")])
def test_the_champion_in_use_stays_where_it_foretells_better(
    task: Any, trained: TrainedShop, monkeypatch: pytest.MonkeyPatch, better: bool, says: str
) -> None:
    exams = tuple(exam(task, place) for place in range(3))
    real = registry.quietly(lambda: registry.champion(trained.project, "churn"))
    old = {"cutoffs": [(exams[0].fold.judged - timedelta(days=200)).isoformat()], "columns": ["age"]}

    class Former(registry.Champion):
        def encode(self, rows: pd.DataFrame) -> pd.DataFrame:
            return rows[["age"]]

        def predict(self, X: pd.DataFrame, at: Any) -> pd.Series:
            (asked,) = [e for e in exams if e.fold.judged == at]
            sharp = asked.y * 0.96 + 0.02
            return pd.Series(sharp if better else np.full(len(X), 0.5), index=X.index)

    former = Former(real.task, "7", real.run_id, real.model, {**real.contract, **old})
    monkeypatch.setattr(incumbent, "champion", lambda *_: former)
    rows = pd.concat([e.rows.assign(cutoff=pd.Timestamp(e.fold.judged)) for e in exams], ignore_index=True)
    text, stays = incumbent.compare(trained.project, Backtest(task, "probability", exams), LEARNED, rows)
    assert stays is better
    assert says in text
    assert f"{real.contract['estimator']} v7" in text


# --- the report ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_the_report_is_one_page_with_its_pictures_inside(trained: TrainedShop, name: str, tmp_path: Path) -> None:
    found: Contest = trained.trained[name].contest
    page = found.report(tmp_path / "out" / "page.html").read_text()
    for model in found.backtest.pooled.models:
        assert f"<td>{model}</td>" in page
    assert page.count("data:image/png;base64,") >= 4
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from anywhere
    assert "nan" not in page.split("<h2>", 1)[1].split("data:image")[0].lower().replace("finance", "")
    assert found.reason.replace("&", "&amp;") in page
    for j in found.backtest.judgements:
        assert f"<td>{j.fold.judged:%Y-%m-%d}</td>" in page


def test_reasons_of_the_champion_start_from_its_own_base(trained: TrainedShop) -> None:
    found = trained.trained["propensity"].contest
    X = found.now[found.columns]
    background = pd.Series(registry.quietly(lambda: registry.champion(trained.project, "propensity")).background)
    effects = contributions(found.final, X, background)
    from models.explain import base

    np.testing.assert_allclose(effects.sum(axis=1) + base(found.final, background), margin(found.final, X), atol=1e-8)
