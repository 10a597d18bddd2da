"""One question asked of several targets: their histories and labels against a loop over the rows of the files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import START, Facts, Row, lines_of, make_shop, profiles_at, record, shop_facts

from features import build
from foretell import Label, PredictionTask, _, days
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import session
from training import dataset

T = START + timedelta(days=260, hours=4)
TASK = PredictionTask(
    name="spends", population="orders_365d > 0", horizon=days(50), settle=days(4), metric="mae", purpose="test",
    label=Label(source="order_line", value=_.amount.sum().fill_null(0), only=~_.cancelled),
    targets={"coffee": _.category == "COFFEE", "small": (_.amount < 20) & (_.quantity > 0)}, views=("orders",),
)  # fmt: skip
END, L = T + TASK.horizon, T + TASK.horizon + TASK.settle
CONDITIONS: dict[str, Callable[[Row], bool]] = {
    "": lambda row: True,
    "coffee": lambda row: row["category"] == "COFFEE",
    "small": lambda row: Decimal(row["amount"]) < 20 and float(row["quantity"]) > 0,
}


@pytest.fixture(scope="module")
def facts() -> Facts:
    rows = shop_facts(seed=5, people=40, days=340)
    cards = sorted({row["card"] for row in rows["shop"] if row["card"]})
    for one, other in zip(cards[:10:2], cards[1:10:2], strict=True):  # found to be one before L
        rows["crm"] += [record(T + timedelta(days=9), card, f"{one}@pair.example") for card in (one, other)]
    return rows


@pytest.fixture(scope="module")
def lake(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_shop(tmp_path_factory.mktemp("targets") / "shop", facts=facts, days=340, settings={"threads": 1})


def tasks() -> dict[str, PredictionTask]:
    return {task.target: task for task in TASK.expanded()}


@pytest.mark.parametrize("target", ["coffee", "small"])
def test_a_targets_history_is_what_a_loop_finds(lake: Project, facts: Facts, target: str) -> None:
    view = tasks()[target].views[-1]
    assert isinstance(view, FeatureView)
    with session(lake) as con:
        rows = con.execute(build.rows_at(con, lake, view, T)).df().set_index("profile_id")
    lines = lines_of(facts, profiles_at(lake, T), T, T)
    assert set(rows.index) == set(lines)
    known = 0
    for profile, all_lines in lines.items():
        mine = [row for row in all_lines if CONDITIONS[target](row) and row["cancelled"] == "false"]
        year = [row for row in mine if row["sold_at"] >= T - days(365)]
        found = rows.loc[profile]
        assert found[f"{target}_facts_90d"] == sum(row["sold_at"] >= T - days(90) for row in mine)
        assert found[f"{target}_facts_365d"] == len(year)
        assert found[f"{target}_orders_365d"] == len({row["order_id"] for row in year})
        spent = sum((Decimal(row["amount"]) for row in year), Decimal(0))
        assert found[f"{target}_spend_365d"] == pytest.approx(float(spent), abs=1e-9)
        since = found[f"days_since_{target}"]
        if not mine:
            assert since != since
            continue
        known += 1
        last = max(row["sold_at"] for row in mine)
        assert since == pytest.approx((T - last) / days(1), abs=1 / 86400)  # whole seconds
    assert 10 < known < len(lines)


@pytest.mark.parametrize("target", CONDITIONS)
def test_a_targets_label_counts_what_its_condition_selects(lake: Project, facts: Facts, target: str) -> None:
    with session(lake) as con:
        rows = dataset.labels_at(con, lake, tasks()[target], T)
    then, later = profiles_at(lake, T), profiles_at(lake, L)
    person = {profile: later[node] for node, profile in then.items()}
    lines = lines_of(facts, later, END, L)

    def label(profile: str) -> float:
        counted = [
            row for row in lines[person[profile]]
            if row["sold_at"] >= T and CONDITIONS[target](row) and row["cancelled"] == "false"
        ]  # fmt: skip
        return float(sum((Decimal(row["amount"]) for row in counted), Decimal(0)))

    found = dict(zip(rows["profile_id"], rows["label"], strict=True))
    assert found == {profile: pytest.approx(label(profile), abs=1e-9) for profile in person}
    assert 5 < sum(value > 0 for value in found.values()) < len(found)


def test_a_target_is_trained_against_its_own_baseline(
    lake: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: discovery, Feast, candidates. What MLflow keeps is the same for every task."""
    from training import tracking
    from training.champion import train

    monkeypatch.setattr(tracking, "register", lambda *_: ("1", "run"))
    monkeypatch.setattr(tracking, "plots_of", lambda *_: {})
    (lake.folder / "tasks").mkdir()
    (lake.folder / "tasks" / "again.py").write_text(
        "from foretell import Label, PredictionTask, _, days\n"
        'again = PredictionTask(name="again", population="orders_365d > 0", horizon=days(60), metric="auc",\n'
        '    label=Label(source="order_line", value=_.count() > 0), views=("orders",), purpose="test",\n'
        '    targets={"coffee": _.category == "COFFEE"})\n'
    )
    project = Project(lake.folder)
    assert project.definitions.family(["again"]) == ["again", "again_coffee"]
    found = train(project, "again_coffee")
    assert list(dict.fromkeys(found.evaluation["model"])) == [
        "base_rate", "target_rfm", "recency", "past_spend", "rfm_logistic", "blend"
    ]  # fmt: skip
    assert found.contest.backtest.skipped == {}
    assert 0 < found.base_rate < 1
    columns = dataset.feature_columns(project, found.task)
    assert columns[-5:] == list(project.definitions.view("again_coffee").features)
    assert "coffee_spend_365d" in columns
