"""Decayed sums are what a naive loop says, whatever the order of the facts, and refuse what is no half-life."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import START, make_shop, profiles_at, sale

from features import build
from foretell import FeatureView, _, days, decayed
from foretell.errors import DefinitionError
from lake.engine import session

NOW = START + timedelta(days=300)
AMOUNTS = [(0.5, 10.0), (29.9, 20.25), (30, 7.0), (45.001, 3.5), (299, 100.0)]


def test_it_is_a_naive_loop(tmp_path) -> None:
    rows = [sale(NOW - timedelta(days=back), "CARD1", str(amount)) for back, amount in AMOUNTS]
    view = FeatureView(
        name="view", source="order_line",
        features={"spend": decayed(_.amount, days(30)), "lines": decayed(1, days(30), where=_.amount > 5)},
    )  # fmt: skip
    expected = (
        sum(amount * 0.5 ** (back / 30) for back, amount in AMOUNTS),
        sum(0.5 ** (back / 30) for back, amount in AMOUNTS if amount > 5),
    )
    found = []
    for order in (rows, rows[::-1]):
        facts = {"shop": [*order, sale(NOW + timedelta(days=1), "CARD2")]}
        project = make_shop(tmp_path / str(len(found)), facts=facts)
        profile = profiles_at(project, NOW)["loyalty_card:CARD1"]
        with session(project) as con:
            asked = con.execute(build.rows_at(con, project, view, NOW)).df().set_index("profile_id")
        found.append((asked.loc[profile, "spend"], asked.loc[profile, "lines"]))
    assert found[0] == found[1]
    assert found[0] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("half_life", [30, timedelta(0), days(-1), None])
def test_what_is_no_half_life_is_refused(half_life: object) -> None:
    with pytest.raises(DefinitionError, match="expected a positive duration"):
        decayed(_.amount, half_life)  # type: ignore[arg-type]
