"""The events behind a value are those that it comes from: for every feature of every view, and by hand for a few."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import START, make_shop, profiles_at, sale

from features.explain import behind
from foretell.errors import DataError, NotReady, UnknownName
from foretell.project import Project

NOW = START + timedelta(days=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    rows = [
        sale(NOW - timedelta(days=10), "CARD1", "5.00", order_id="o1"),
        sale(NOW - timedelta(days=10), "CARD1", "7.00", order_id="o1", product="tea"),
        sale(NOW - timedelta(days=40), "CARD1", "20.00", order_id="o2"),
        sale(NOW - timedelta(days=200), "CARD1", "100.00", order_id="o3"),
        sale(NOW - timedelta(days=1), "CARD2", "9.00"),
        sale(NOW - timedelta(days=1), "CARD1", "1.00", order_id="late", recorded_at=NOW),
        sale(NOW + timedelta(days=1), "CARD3", "9.00"),
    ]
    return make_shop(tmp_path_factory.mktemp("explain") / "shop", facts={"shop": rows})


def test_a_sum_is_that_of_its_facts(small: Project) -> None:
    found = behind(small, "loyalty_card:CARD1", "spend_90d", NOW)
    assert found.value == 32.0
    assert found.empty == 0
    assert [(f["alone"], f["without"]) for f in found.facts] in (
        [(5.0, 27.0), (7.0, 25.0), (20.0, 12.0)], [(7.0, 25.0), (5.0, 27.0), (20.0, 12.0)],
    )  # fmt: skip
    assert found.seen == 4
    assert {f["source"] for f in found.facts} == {"shop"}
    assert found.columns == ["amount"]


def test_lines_of_one_order_stand_for_each_other(small: Project) -> None:
    found = behind(small, "CARD1", "orders_90d", NOW)
    assert found.value == 2
    assert [f["order_id"] for f in found.facts] == ["o1", "o1", "o2"]
    assert [(f["alone"], f["without"]) for f in found.facts] == [(1, 2), (1, 2), (1, 1)]


def test_what_was_known_later_is_not_behind_it(small: Project) -> None:
    assert behind(small, "CARD1", "days_since_order", NOW).value == pytest.approx(10)
    later = behind(small, "CARD1", "days_since_order", NOW + timedelta(seconds=1))
    assert later.value == pytest.approx(1, abs=1e-3)
    assert later.facts[0]["order_id" if "order_id" in later.columns else "source"]


def test_no_fact_no_event(small: Project) -> None:
    found = behind(small, "CARD2", "reduced_lines_90d", NOW)
    assert (found.value, found.facts, found.seen) == (0, [], 1)


def test_refused_in_words(small: Project) -> None:
    with pytest.raises(UnknownName, match=r"did you mean.*spend_90d"):
        behind(small, "CARD1", "spend_9d", NOW)
    with pytest.raises(NotReady, match="not known before"):
        behind(small, "CARD3", "spend_90d", NOW)


@pytest.mark.slow
def test_every_feature_has_its_facts(shop: Project) -> None:
    """A value other than that of nothing comes from facts, and one fact alone leaves nothing without it."""
    profiles = sorted(set(profiles_at(shop, NOW).values()))[:40]
    checked = 0
    for view in shop.definitions.views.values():
        if view.facts_of == "everybody":
            with pytest.raises(DataError, match="made of everybody's facts"):
                behind(shop, profiles[0], next(iter(view.features)), NOW)
            continue
        for feature in list(view.features)[:2]:
            for profile in profiles[:: len(profiles) // 2]:
                found = behind(shop, profile, feature, NOW)
                assert found.value == found.empty or found.facts
                assert len(found.facts) <= found.seen
                if found.seen == 1 and found.facts:
                    assert found.facts[0]["alone"] == found.value
                    assert found.facts[0]["without"] == found.empty
                checked += bool(found.facts)
    assert checked > 5
