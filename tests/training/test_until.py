"""When will it happen: labels against a loop over the rows of the files, and the whole way from a task to a score."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import START, Facts, lines_of, make_shop, profiles_at, record, shop_facts

from foretell import PredictionTask, Until, _, days
from foretell.binding import kind_of
from foretell.console import worth
from foretell.errors import DefinitionError
from foretell.project import Project
from lake.engine import session
from serving.score import score, score_one
from training import dataset
from training.champion import train

T = START + timedelta(days=260, hours=4)
TASK = PredictionTask(
    name="next", population="orders_365d > 0", horizon=days(50), settle=days(4), metric="rmse", purpose="test",
    label=Until(source="order_line", only=~_.cancelled), targets={"coffee": _.category == "COFFEE"}, views=("orders",),
)  # fmt: skip
END, L = T + TASK.horizon, T + TASK.horizon + TASK.settle


@pytest.fixture(scope="module")
def facts() -> Facts:
    rows = shop_facts(seed=5, people=40, days=340)
    cards = sorted({row["card"] for row in rows["shop"] if row["card"]})
    for one, other in zip(cards[:10:2], cards[1:10:2], strict=True):  # found to be one before L
        rows["crm"] += [record(T + timedelta(days=9), card, f"{one}@pair.example") for card in (one, other)]
    return rows


@pytest.fixture(scope="module")
def lake(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("until") / "shop"
    project = make_shop(folder, facts=facts, days=340, settings={"threads": 1, "cutoffs": 2, "folds": 2})
    (project.folder / "tasks").mkdir(exist_ok=True)
    (project.folder / "tasks" / "next.py").write_text(
        "from foretell import PredictionTask, Until, days\n"
        'next = PredictionTask(name="next", population="orders_365d > 0", horizon=days(50), metric="rmse",\n'
        '    label=Until(source="order_line"), views=("orders", "cadence"), purpose="test")\n'
    )
    return Project(project.folder)


@pytest.mark.parametrize("target", ["", "coffee"])
def test_days_until_the_first_are_what_a_loop_finds(lake: Project, facts: Facts, target: str) -> None:
    task = {one.target: one for one in TASK.expanded()}[target]
    with session(lake) as con:
        rows = dataset.labels_at(con, lake, task, T)
    then, later = profiles_at(lake, T), profiles_at(lake, L)
    person = {profile: later[node] for node, profile in then.items()}
    lines = lines_of(facts, later, END, L)

    def wait(profile: str) -> float:
        first = [
            row["sold_at"] for row in lines[person[profile]]
            if row["sold_at"] >= T and row["cancelled"] == "false" and (not target or row["category"] == "COFFEE")
        ]  # fmt: skip
        return (min(first) - T) / days(1) if first else 50.0

    found = dict(zip(rows["profile_id"], rows["label"], strict=True))
    assert found == {profile: pytest.approx(wait(profile), abs=1 / 86_400) for profile in person}  # whole seconds
    assert 5 < sum(value < 50 for value in found.values()) < len(found)


def test_it_is_a_kind_of_its_own_and_its_value_is_not_to_be_said(lake: Project) -> None:
    assert kind_of(TASK, dict(lake.definitions.sources)) == "duration"
    assert worth("duration", 33.96) == "34.0 days"
    with pytest.raises(TypeError, match="unexpected keyword argument 'value'"):
        Until(source="order_line", value=_.count())  # pyright: ignore[reportCallIssue]
    with pytest.raises(DefinitionError, match="only: expected a condition on the facts, got 3"):
        Until(source="order_line", only=3)


def test_the_whole_way_from_a_task_to_a_score(lake: Project, tmp_path: Path) -> None:
    found = train(lake, "next", trials=2)
    assert found.kind == "duration"
    models = list(dict.fromkeys(found.evaluation["model"]))
    assert models[0] == "mean"
    assert {"recency", "usual_gap", "rfm_cox", "blend"} <= set(models)
    assert set(found.evaluation["metric"]) == {"concordance", "mae", "rmse", "bias_pct"}
    assert {"coverage", "low", "high"} <= set(found.contest.interval)
    page = found.contest.report(tmp_path / "next.html").read_text()
    assert "longer waits counting as 50.0 days" in page
    assert "it knows which one is sooner in" in page
    (done,) = score(lake, ["next"])
    assert done.added == done.eligible > 20
    with session(lake) as con:
        rows = con.execute("SELECT * FROM scores WHERE task = 'next'").df()
    assert rows["kind"].eq("duration").all()
    assert rows["value"].between(0, 50).all()
    assert (rows["value_low"] <= rows["value_high"]).all()
    assert rows["value_high"].le(50).all()
    who = rows["profile_id"][0]
    one = score_one(lake, "next", who)
    assert one["value"] == pytest.approx(rows["value"][0], rel=1e-9)
    assert (one["value_low"], one["value_high"]) == (rows["value_low"][0], rows["value_high"][0])
    assert np.isfinite(rows["base_rate"]).all()
