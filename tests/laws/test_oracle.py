"""A view's rows are what a naive Python loop makes of the facts: a law over every discovered view.

Many small random histories, each of a few people of its own, are loaded as one shop. The oracle reads the rows as they
were written and the expressions as they were declared (naive*.py), so a new view gets the law free. One that uses an
operation which the oracle has not been taught fails with NotImplementedError, which says where to teach it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from histories import CUTOFFS, TICK, histories
from oracle_shop import Rows, Shop, differences, told
from test_time import ORIGINS, VIEWS, discovered, every_view

from features import build
from foretell.windows import past_windows
from lake.engine import instant
from unification import accounts

NAMES = {origin: [name for at, name in VIEWS.values() if at == origin] for origin in ORIGINS}
# The lengths that views look back, at whose edges things happen in the histories.
WINDOWS = {
    length
    for origin, name in VIEWS.values()
    for view in [discovered(origin).views[name]]
    for length in [view.lookback, *(w for e in view.features.values() for w in past_windows(e))]
    if length
}
FEW, MANY = 120, 1500


class Compare:
    """A shop, and the rows of its views as made and as wanted, which are reckoned when first asked for."""

    def __init__(self, count: int, folder: Path):
        self.shop = Shop.of(histories(count, WINDOWS), folder)
        self._made: dict[tuple[str, datetime, str], Rows] = {}
        self._wanted: dict[tuple[str, datetime, str], Rows] = {}

    def made(self, origin: str, cutoff: datetime, name: str) -> Rows:
        """A view's rows as the product makes them: at one cutoff of all views at once, at the other of it alone."""
        if (asked := (origin, cutoff, name)) not in self._made:
            names = NAMES[origin] if cutoff == CUTOFFS[0] else [name]
            found = self.shop.rows(origin, names, cutoff)
            self._made |= {(origin, cutoff, view): rows for view, rows in found.items()}
        return self._made[asked]

    def wanted(self, origin: str, cutoff: datetime, name: str) -> Rows:
        """A view's rows as the oracle has them."""
        if (asked := (origin, cutoff, name)) not in self._wanted:
            self._wanted[asked] = self.shop.oracle(origin, name, cutoff)
        return self._wanted[asked]

    def check(self, origin: str, name: str) -> None:
        found = []
        for cutoff in CUTOFFS:
            found += differences(
                self.shop, cutoff, name, self.made(origin, cutoff, name), self.wanted(origin, cutoff, name)
            )
        if found:
            pytest.fail(told(self.shop.histories, found, origin), pytrace=False)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Compare:
    return Compare(FEW, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Compare:
    return Compare(MANY, tmp_path_factory.mktemp("many"))


@every_view
def test_a_view_is_what_a_naive_loop_makes_of_the_facts(few: Compare, origin: str, name: str) -> None:
    few.check(origin, name)


@pytest.mark.slow
@every_view
def test_a_view_is_what_a_naive_loop_makes_of_many_histories(many: Compare, origin: str, name: str) -> None:
    many.check(origin, name)


@every_view
def test_the_histories_say_something_about_every_feature(few: Compare, origin: str, name: str) -> None:
    """A feature that always had one value would agree with anything."""
    rows = [row for cutoff in CUTOFFS for row in few.wanted(origin, cutoff, name).values()]
    assert rows
    same = {feature for feature in rows[0] if len({row[feature] for row in rows}) < 2}
    assert not same, "the histories are too much alike"


# The law can fail.


def _sql(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A mutant whose views are compiled to other SQL."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        honest = build.compiled

        def mutated(*args: Any) -> tuple[str, str]:
            grouped, empty = honest(*args)
            assert old in grouped
            return grouped.replace(old, new), empty

        patch.setattr(build, "compiled", mutated)

    return plant


def _facts(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A mutant that reads other facts."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        honest = build.facts_before

        def mutated(*args: Any) -> str:
            made = honest(*args)
            assert old in made
            return made.replace(old, new)

        patch.setattr(build, "facts_before", mutated)

    return plant


def _lookback_without_its_first_instant(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(build, "instant", lambda at: instant(at if at in CUTOFFS else at + TICK))


def _accounts_of_a_day_later(patch: pytest.MonkeyPatch) -> None:
    honest = accounts.members_at
    patch.setattr(accounts, "members_at", lambda at: honest(at + timedelta(days=1)))


def _no_empty_row(patch: pytest.MonkeyPatch) -> None:
    honest = build._rows
    patch.setattr(build, "_rows", lambda *args: honest(*args).replace('THEN e."', 'THEN g."'))


_FRAME = "ROWS BETWEEN UNBOUNDED PRECEDING AND "
_CANCELLED = 'COALESCE("t0"."cancelled", FALSE)'
MUTANTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a window without its first instant": ("orders", _sql('"event_at" >= (', '"event_at" > (')),
    "a lookback without its first instant": ("basket", _lookback_without_its_first_instant),
    "cancelled lines count": ("orders", _sql(_CANCELLED, "FALSE")),
    "what may be cancelled is": ("cadence", _sql(_CANCELLED, _CANCELLED.replace("FALSE", "TRUE"))),
    "days of another time zone": (
        "cadence", _facts('"event_day" AS "event_day"', """timezone('UTC', "event_at")::DATE AS "event_day\""""),
    ),
    "what is known at the cutoff": ("orders", _facts("known_at <", "known_at <=")),
    "what happens at the cutoff": ("orders", _facts("event_at <", "event_at <=")),
    "a running sum that does not run": ("visits", _sql(f"{_FRAME}CURRENT ROW", f"{_FRAME}UNBOUNDED FOLLOWING")),
    "everything has the last place": ("favourites", _sql("ROW_NUMBER()", "COUNT(*)")),
    "the first that was said survives": ("traits", _sql('"event_at" DESC', '"event_at" ASC')),
    "ties go to the smaller fact id": ("traits", _sql('"fact_id" DESC', '"fact_id" ASC')),
    "colleagues of tomorrow": ("company", _accounts_of_a_day_later),
    "no facts, no row": ("orders", _no_empty_row),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(few: Compare, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    name, plant = MUTANTS[mutant]
    plant(monkeypatch)
    found = []
    for cutoff in CUTOFFS:
        made = few.shop.rows("standard", [name], cutoff)[name]
        found += differences(few.shop, cutoff, name, made, few.wanted("standard", cutoff, name))
    assert found
