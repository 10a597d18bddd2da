"""A horizon longer than the history allows to judge: what can be judged is stretched, and it is said everywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fixtures_trained import NOW, mine, trained

from foretell import Label, PredictionTask, _, days
from foretell.project import Project
from lake.engine import session
from models import registry
from serving.score import score
from training.backtest import predict
from training.champion import contest, train
from training.cutoffs import plan, shortened, told
from training.report import show_contest
from training.reproduce import reproduce

__all__ = ["mine", "trained"]

TASK = """
from foretell import Label, PredictionTask, Until, _, days

far = PredictionTask(name="far", population="orders_365d > 0", horizon=days({horizon}), metric="{metric}",
    label={label}, views=("orders", "cadence"), purpose="retention")
"""
BUYS = {"horizon": 400, "metric": "log_loss", "label": 'Label(source="order_line", value=_.count() > 0)'}
COUNTS = BUYS | {
    "metric": "mae", "label": 'Label(source="order_line", value=_.event_day.nunique().fill_null(0))',
}  # fmt: skip
SPEND = BUYS | {"metric": "mae", "label": 'Label(source="order_line", value=_.amount.sum().fill_null(0))'}
WAIT = BUYS | {"metric": "rmse", "label": 'Until(source="order_line")'}
KINDS = {"buys": BUYS, "counts": COUNTS, "spend": SPEND, "wait": WAIT}


def far(project: Project, said: dict) -> Project:
    (project.folder / "tasks").mkdir(exist_ok=True)
    (project.folder / "tasks" / "far.py").write_text(TASK.format(**said))
    return Project(project.folder)


def task(horizon: int, settle: int = 1) -> PredictionTask:
    return PredictionTask(
        name="odd", population="orders_365d > 0", horizon=days(horizon), settle=days(settle), metric="log_loss",
        label=Label(source="order_line", value=_.count() > 0), views=("orders",), purpose="test",
    )  # fmt: skip


@pytest.mark.parametrize("have", [10, 100, 273, 365, 500])
@pytest.mark.parametrize("horizon", [5, 90, 273, 365, 1000])
def test_a_third_of_the_history_is_left_before_the_first_cutoff(have: int, horizon: int):
    now = datetime(2024, 7, 1, tzinfo=UTC)
    first = now - timedelta(days=have)
    short = shortened(task(horizon), now, first)
    if short is None:
        assert horizon // 4 > have / 3 - 2
        return
    assert horizon // 4 <= short.horizon.days <= min(horizon, have // 3)
    reach = short.horizon + short.settle
    cutoffs = plan(short, now, told(short, first), wanted=6, folds=6)
    assert min(cutoffs.all) > first + reach
    assert cutoffs.folds[-1].judged == now - reach
    assert short.where == __file__


@pytest.mark.parametrize("name", KINDS)
def test_it_is_judged_on_what_can_be_and_stretched(mine, name: str, tmp_path: Path, capsys):
    found = contest(far(mine(), KINDS[name]), "far", trials=5)
    assert 150 < found.judged_days < 170  # a third of 500 days
    assert found.backtest.task.horizon == days(found.judged_days)
    assert found.task.horizon == days(400) == days(found.final.horizon_days)
    assert found.tuned is None
    assert found.interval == {}  # nobody has seen how far off such a prediction is
    short = predict(found.final.set_params(horizon_days=found.judged_days), found.now[found.columns], found.kind)
    said = predict(found.final.set_params(horizon_days=400.0), found.now[found.columns], found.kind)
    assert (said >= short - 1e-9).all()
    assert said.mean() > 1.05 * short.mean()
    if name == "spend":  # 2.5 times as long: not quite as many times as much, as people leave
        assert 1.2 < said.mean() / short.mean() < 2.6
    assert found.base_rate == pytest.approx(said.mean())
    low, high = found.base_rate_interval
    assert low < found.base_rate < high
    show_contest(found)
    assert f"of {found.judged_days:g} days, the most that this history lets be judged" in capsys.readouterr().out
    page = found.report(tmp_path / "far.html").read_text()
    assert f"Learned and judged on {found.judged_days:g} days" in page


def test_counts_are_foretold_by_counts_and_money_by_money(mine):
    project = mine()
    assert contest(far(project, COUNTS), "far", trials=0).winner in ("pareto_nbd", "bg_nbd", "mbg_nbd")
    spend = contest(far(project, SPEND), "far", trials=0)
    assert {"pareto_nbd_gamma_gamma", "past_spend"} <= set(spend.backtest.pooled.models)


def test_the_first_of_those_that_chance_cannot_tell_from_the_best_is_served(mine):
    found = contest(far(mine(), BUYS), "far", trials=0)
    judged = found.backtest
    names = judged.pooled.models
    assert names[0] == "pareto_nbd_logistic"
    before = names[: names.index(found.winner)]
    best = judged.pooled.best("log_loss", names)
    for other in before:
        assert judged.difference(best, other, "log_loss").high < 0
    assert found.winner == best or judged.difference(best, found.winner, "log_loss").high >= 0


def test_it_is_registered_scored_and_made_again(mine):
    project = far(mine(), SPEND)
    made = train(project, "far")
    contract = registry.quietly(lambda: registry.champion(project, "far")).contract
    assert contract["horizon_days"] == 400
    assert contract["judged_days"] == made.contest.judged_days < 170
    (done,) = score(project, ["far"])
    with session(project) as con:
        rows = con.execute("SELECT * FROM scores WHERE task = 'far'").df()
    assert len(rows) == done.eligible > 50
    assert rows[["value_low", "value_high"]].isna().all(axis=None)
    assert rows["value"].mean() == pytest.approx(made.base_rate)
    assert rows["base_rate"].nunique() == 1
    assert (rows["expires_at"] == NOW + days(400)).all()
    again = reproduce(project, "far")
    assert again.reproduced
    assert again.identical
    assert np.isfinite(rows["value"]).all()
