"""Windows: what is refused, and what a deferred expression is found to read, however deeply it is nested."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import ibis
import pytest

from foretell import _, days, days_since, future, hours, past
from foretell.errors import DefinitionError
from foretell.windows import attributes, future_windows


@pytest.mark.parametrize(("word", "window"), [("past", past), ("future", future)])
@pytest.mark.parametrize(
    ("length", "got"),
    [
        (days(-1), "(-1 day, 0:00:00): expected a positive duration, got -1 day, 0:00:00"),
        (days(0), "(0:00:00): expected a positive duration, got 0:00:00"),
        (90, "(90): expected a duration, got a number"),
    ],
)
def test_a_window_is_a_positive_duration(word, window, length, got):
    with pytest.raises(DefinitionError) as error:
        window(length)
    assert str(error.value) == f"{word}{got}; write {word}(days(90))"


def test_durations():
    assert days(1.5) == hours(36) == timedelta(hours=36)


NESTED = {
    "plain": (_.count(), {"count"}, []),
    "where": (_.amount.sum(where=past(days(30))), {"amount", "sum", "event_at", "cutoff"}, []),
    "arithmetic": (
        (_.a.sum() - 2 * _.b.max()) / _.c.count().nullif(0),
        {"a", "sum", "b", "max", "c", "count", "nullif"},
        [],
    ),
    "item": (_["odd name"].sum(), {"odd name", "sum"}, []),
    "negation": (
        _.count(where=~(_.cancelled.fill_null(False) | future(days(7)))),
        {"count", "cancelled", "fill_null", "event_at", "horizon_start"},
        [days(7)],
    ),
    "list": (
        _.count(where=_.kind.isin(["a", _.other]) & future(hours(36))),
        {"count", "kind", "isin", "other", "event_at", "horizon_start"},
        [hours(36)],
    ),
    "two": (
        _.amount.sum(where=future(days(7))) / _.amount.sum(where=future(days(28))),
        {"amount", "sum", "event_at", "horizon_start"},
        [days(7), days(28)],
    ),
    "call": (
        ibis.ifelse(_.count(where=future(days(3))) > 1, _.x.max(), 0),
        {"count", "x", "max", "event_at", "horizon_start"},
        [days(3)],
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_what_an_expression_reads(name):
    expression, reads, windows = NESTED[name]
    assert attributes(expression) >= reads
    assert attributes(expression) - reads <= {"ifelse"}
    assert sorted(future_windows(expression)) == windows
    if name == "call":
        return  # ibis' own deferred functions do not pickle; declarations are made of `_`
    again = pickle.loads(pickle.dumps(expression))
    assert attributes(again) == attributes(expression)
    assert sorted(future_windows(again)) == windows


def test_values_that_are_no_expression_read_nothing():
    assert attributes(3) == frozenset()
    assert future_windows("text") == []


T = datetime(2024, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ([T - days(2), T - days(9)], 2.0),
        ([T - hours(36)], 1.5),
        ([datetime(2024, 3, 30, 12, tzinfo=UTC)], 1.0),  # a summer-time night in Europe: still 24 hours
        ([T - timedelta(seconds=1)], 1 / 86_400),
        ([], None),
    ],
)
def test_days_since_the_last_fact(happened, expected):
    schema = {"event_at": "timestamp('UTC')", "cutoff": "timestamp('UTC')"}
    facts = ibis.table(schema, name="facts")
    query = ibis.to_sql(facts.aggregate(value=facts.bind(days_since(_.event_at.max()))[0]), dialect="duckdb")
    con = ibis.duckdb.connect()
    con.create_table("facts", ibis.memtable([{"event_at": at, "cutoff": T} for at in happened], schema=schema))
    assert con.raw_sql(query).fetchall() == [(expected,)]
