"""What the standard tasks ask, against a loop over the rows of the files: who has come back, who keeps coming."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import START, Facts, lines_of, make_shop, profiles_at, shop_facts

from foretell import days
from foretell.project import Project
from lake.engine import session
from training import dataset

T = START + timedelta(days=200, hours=4)
REACH = days(91)
LATER = T + REACH


@pytest.fixture(scope="module")
def facts() -> Facts:
    return shop_facts(seed=3, people=60, days=340)


@pytest.fixture(scope="module")
def lake(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_shop(tmp_path_factory.mktemp("standard") / "shop", facts=facts, days=340, settings={"threads": 1})


def labels(project: Project, name: str) -> dict[str, float]:
    with session(project) as con:
        rows = dataset.labels_at(con, project, project.definitions.task(name), T)
    return dict(zip(rows["profile_id"], rows["label"], strict=True))


def test_loyal_is_who_orders_in_each_of_three_months(lake: Project, facts: Facts) -> None:
    then, later = profiles_at(lake, T), profiles_at(lake, LATER)
    person = {profile: later[node] for node, profile in then.items()}
    lines = lines_of(facts, later, T + days(90), LATER)

    def loyal(profile: str) -> bool:
        ahead = [row["sold_at"] - T for row in lines[person[profile]] if row["cancelled"] == "false"]
        months = {int(time / days(30)) for time in ahead if time >= timedelta(0)}
        return months == {0, 1, 2}

    found = labels(lake, "loyalty")
    assert found == {profile: float(loyal(profile)) for profile in person}
    assert 3 < sum(found.values()) < len(found) - 3


def test_who_has_ordered_once_is_asked_whether_they_come_back(lake: Project, facts: Facts) -> None:
    owner = profiles_at(lake, T)
    lines = lines_of(facts, owner, T, T)
    zone_days = {
        profile: {row["sold_at"] for row in rows if row["cancelled"] == "false"} for profile, rows in lines.items()
    }
    task = lake.definitions.task("repurchase")
    dataset.build_for(lake, [task], [T])
    with session(lake) as con:
        found = set(dataset.population(con, lake, task, T))
    once = {p for p, times in zone_days.items() if times and max(times) - min(times) < days(1)}
    lately = {p for p, times in zone_days.items() if times and max(times) >= T - days(180)}
    assert found
    assert found <= lately
    assert len(found ^ (once & lately)) <= 1  # orders of one night may be of two business days
    coming_back = labels(lake, "repurchase")
    assert {coming_back[p] for p in coming_back} == {0.0, 1.0}


def test_response_is_idle_without_coupons_and_asks_those_who_hear_from_us_with(lake: Project) -> None:
    task = lake.definitions.tasks.get("campaign_response")
    if task is None:
        assert "campaign_response" in lake.definitions.idle
        return
    assert task.population == "messages_90d > 0"
    assert task.horizon == days(30)


def test_the_longer_lifetime_values_are_the_same_question(lake: Project) -> None:
    one = lake.definitions.task("clv")
    for name, horizon in (("clv_180", 180), ("clv_365", 365)):
        other = lake.definitions.task(name)
        assert other.horizon == days(horizon)
        assert (other.population, other.view_names, other.metric) == (one.population, one.view_names, one.metric)
        assert other.label is one.label
