"""The naive oracle reads expressions as SQL would: what it gives is what an engine says of the same thing in SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import ibis
import pytest
from ibis import _
from naive import Row, rows_of, value_of
from naive_values import same

from foretell.aggregates import entropy, latest, top_share

AT = datetime(2024, 2, 29, 12, tzinfo=UTC)
KINDS = {
    "id": "int64", "who": "string", "kind": "string", "day": "date", "price": "decimal(18, 4)",
    "number": "float64", "sure": "boolean", "trust": "int64", "event_at": "timestamp('UTC')", "fact_id": "string",
}  # fmt: skip


def _row(id: int, who: str, kind: str | None, hour: float | None, price: str | None, sure: bool | None) -> Row:
    at = None if hour is None else AT + timedelta(hours=hour)
    number = None if price is None else float(price) / 3
    return {"id": id, "who": who, "kind": kind, "day": at and at.date(), "number": number, "sure": sure,
            "price": price and Decimal(price), "trust": id % 2, "event_at": at, "fact_id": f"f{id}"}  # fmt: skip


ROWS = [
    _row(1, "a", "x", 0, "10.00", True), _row(2, "a", "x", 0, "0.10", None), _row(3, "a", "y", 1.5, "-3.3333", False),
    _row(4, "a", None, 24, None, True), _row(5, "a", " y ", None, "7.00", False), _row(6, "b", "x", 3, "5.00", None),
    _row(7, "b", "", 3, "5.00", True), _row(8, "c", None, -13, None, None),
]  # fmt: skip
TABLE = ibis.table(KINDS, name="facts")


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    con.execute(
        """CREATE TABLE facts (id BIGINT, who VARCHAR, kind VARCHAR, day DATE, price DECIMAL(18, 4),
            number DOUBLE, sure BOOLEAN, trust BIGINT, event_at TIMESTAMPTZ, fact_id VARCHAR)"""
    )
    con.executemany(f"INSERT INTO facts VALUES ({', '.join('?' * len(KINDS))})", [[r[c] for c in KINDS] for r in ROWS])
    return con


BY = {"group_by": _.who, "order_by": _.event_at}
VALUES: dict[str, tuple[Any, str]] = {
    "and": (_.sure & (_.price > 1), 'sure AND price > 1'),
    "or": (_.sure | (_.price > 1), 'sure OR price > 1'),
    "not": (~_.sure, 'NOT sure'),
    "null": (_.kind.isnull() | _.price.notnull(), "kind IS NULL OR price IS NOT NULL"),
    "in": (_.kind.isin(["x", "y"]), "kind IN ('x', 'y')"),
    "among nulls": (_.kind.isin(["x", None]), "kind IN ('x', NULL)"),
    "between": (_.price.between(0, 5), "price BETWEEN 0 AND 5"),
    "equal": ((_.kind == "x") | (_.kind != "y"), "kind = 'x' OR kind <> 'y'"),
    "filled": (_.kind.fill_null("none"), "coalesce(kind, 'none')"),
    "stripped": (_.kind.strip().lower().nullif(""), "nullif(lower(trim(kind)), '')"),
    "if": (_.sure.ifelse(_.price, _.id), 'CASE WHEN sure THEN price ELSE id END'),
    "money": (_.price * 2 - _.price / 4 + 1, "price * 2 - price / 4 + 1"),
    "over zero": (_.number / (_.id - 1), "number / (id - 1)"),
    "negative": ((-_.price).abs(), "abs(-price)"),
    "transcendental": ((_.number / 9).exp() + _.id.sqrt(), "exp(number / 9) + sqrt(id)"),
    "clipped": (_.price.clip(lower=0, upper=5), "CASE WHEN price IS NOT NULL THEN greatest(0, least(5, price)) END"),
    "clipped above": (_.price.fill_null(9).clip(upper=5), "least(5, coalesce(price, 9))"),
    "rounded": (_.number.round(2), "round(number, 2)"),
    "whole": ((_.id / 2).cast("int64"), "CAST(id / 2 AS BIGINT)"),
    "whole money": ((_.price / 1 * 1).cast("decimal(38, 2)"), "CAST(price AS DECIMAL(38, 2))"),
    "bool as a number": (_.sure.cast("int64"), 'CAST(sure AS BIGINT)'),
    "later": (_.event_at - timedelta(days=90) + timedelta(hours=1), "event_at - INTERVAL 90 DAY + INTERVAL 1 HOUR"),
    "seconds": (_.event_at.epoch_seconds(), "epoch(event_at)"),
    "seconds of a day": (_.day.cast("timestamp").epoch_seconds() / 86_400, "epoch(day::TIMESTAMP) / 86400"),
    "lag": (_.id.lag().over(group_by=_.who, order_by=_.id), "lag(id) OVER (PARTITION BY who ORDER BY id)"),
    "lead": (_.id.lead(2, -1).over(order_by=_.id.desc()), "lead(id, 2, -1) OVER (ORDER BY id DESC)"),
    "row number": (
        ibis.row_number().over(group_by=_.who, order_by=[_.kind, _.id.desc()]),
        "row_number() OVER (PARTITION BY who ORDER BY kind, id DESC) - 1",
    ),
    "a window": (_.price.sum().over(group_by=_.kind), "sum(price) OVER (PARTITION BY kind)"),
    "a running sum": (_.price.sum().over(**BY), "sum(price) OVER (PARTITION BY who ORDER BY event_at)"),
    "a running count": (
        _.count().over(group_by=_.who, order_by=_.event_at.desc()),
        "count(*) OVER (PARTITION BY who ORDER BY event_at DESC NULLS LAST)",
    ),
    "nulls first": (
        _.id.max().over(order_by=ibis.asc(_.event_at, nulls_first=True)), "max(id) OVER (ORDER BY event_at NULLS FIRST)"
    ),
    "by rows": (
        _.price.min().over(group_by=_.who, order_by=[_.event_at, _.id], rows=(None, 0)),
        "min(price) OVER (PARTITION BY who ORDER BY event_at, id ROWS UNBOUNDED PRECEDING)",
    ),
    "some rows": (
        _.price.sum().over(ibis.window(order_by=_.id, preceding=2, following=1)),
        "sum(price) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)",
    ),
    "rows to come": (
        _.id.count(where=_.sure).over(order_by=_.id, rows=(0, None)),
        """count(id) FILTER (sure) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)""",
    ),
    "by range": (
        _.price.sum().over(order_by=_.event_at, range=(None, 0)),
        "sum(price) OVER (ORDER BY event_at RANGE UNBOUNDED PRECEDING)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_value_of_each_row_is_what_sql_says(engine: duckdb.DuckDBPyConnection, case: str) -> None:
    expression, sql = VALUES[case]
    found = {row["id"]: row["value"] for row in rows_of(TABLE.select("id", value=expression), ROWS)}
    wanted = dict(engine.execute(f"SELECT id, {sql} FROM facts").fetchall())
    assert found.keys() == wanted.keys()
    assert [(i, found[i], wanted[i]) for i in found if not same(wanted[i], found[i])] == []


_MOST = "list_max(map_values(histogram(kind)))"
_LATE = "event_at DESC NULLS LAST"
AGGREGATES: dict[str, tuple[Any, str]] = {
    "rows": (_.count(where=_.price > 1), "count(*) FILTER (price > 1)"),
    "known": (_.price.count(), "count(price)"),
    "distinct": (_.kind.nunique(where=_.sure), 'count(DISTINCT kind) FILTER (sure)'),
    "sum": (_.price.sum(), "sum(price)"),
    "mean": (_.number.mean(), "avg(number)"),
    "extremes": (
        _.event_at.max().epoch_seconds() - _.event_at.min().epoch_seconds(),
        "epoch(max(event_at)) - epoch(min(event_at))",
    ),
    "median": (_.number.median(where=_.sure.notnull()), 'median(number) FILTER (sure IS NOT NULL)'),
    "any": (_.sure.any() & ~_.sure.all(), 'bool_or(sure) AND NOT bool_and(sure)'),
    "ratio": (_.count(where=_.sure) / _.price.count().nullif(0), 'count(*) FILTER (sure) / nullif(count(price), 0)'),
    "first": (
        _.kind.first(order_by=[_.event_at.desc(), _.id]), f"first(kind ORDER BY {_LATE}, id) FILTER (kind IS NOT NULL)"
    ),
    "last": (_.id.last(order_by=[_.event_at, _.id]), "last(id ORDER BY event_at, id)"),
    "latest": (latest(_.kind), f"first(kind ORDER BY trust DESC, {_LATE}, fact_id DESC) FILTER (kind IS NOT NULL)"),
    "entropy": (entropy(_.kind), "CASE WHEN count(kind) > 0 THEN entropy(kind) END"),
    "top share": (top_share(_.kind), f"{_MOST} / nullif(count(kind), 0)"),
}  # fmt: skip


@pytest.mark.parametrize("case", AGGREGATES)
def test_an_aggregate_is_what_sql_says(engine: duckdb.DuckDBPyConnection, case: str) -> None:
    """Of each person, of everybody, and of nobody."""
    expression, sql = AGGREGATES[case]
    for rows, condition in ((ROWS, "true"), (ROWS[:5], "id <= 5"), ([], "false")):
        found = rows_of(TABLE.group_by("who").aggregate(value=expression), rows)
        wanted = dict(engine.execute(f"SELECT who, {sql} FROM facts WHERE {condition} GROUP BY who").fetchall())
        assert {row["who"] for row in found} == wanted.keys()
        assert [(row, wanted) for row in found if not same(wanted[row["who"]], row["value"])] == []
        ((whole,),) = engine.execute(f"SELECT {sql} FROM facts WHERE {condition}").fetchall()
        (row,) = rows_of(TABLE.aggregate(value=expression), rows)
        assert same(whole, row["value"])
        assert same(whole, value_of(TABLE.bind(expression)[0], rows))


def test_relations_are_what_sql_says(engine: duckdb.DuckDBPyConnection) -> None:
    made = (
        TABLE.filter(_.price > 0, _.kind.notnull()).mutate(half=_.price / 2).drop("price").group_by("who", "kind")
        .aggregate(value=_.half.sum()).select("value", "who").distinct().order_by(_.value.desc(), _.who)
    )  # fmt: skip
    wanted = engine.execute(
        """SELECT DISTINCT value, who FROM (SELECT who, kind, sum(price / 2) AS value FROM facts
            WHERE price > 0 AND kind IS NOT NULL GROUP BY ALL) ORDER BY value DESC, who"""
    ).fetchall()
    found = rows_of(made, ROWS)
    assert [row["who"] for row in found] == [who for _, who in wanted]
    assert all(same(value, row["value"]) for row, (value, _) in zip(found, wanted, strict=True))


UNTAUGHT: dict[str, Callable[[], Any]] = {
    "the operation Uppercase": lambda: value_of(TABLE.kind.upper().nunique(), ROWS),
    "the aggregate StandardDev": lambda: value_of(TABLE.price.std(), ROWS),
    "the relation JoinChain": lambda: rows_of(TABLE.join(TABLE.view(), "id"), ROWS),
    "the window function MinRank": lambda: rows_of(TABLE.mutate(rank=ibis.rank().over(order_by=TABLE.event_at)), ROWS),
    "First that includes nulls": lambda: value_of(TABLE.kind.first(), ROWS),
    "a cast of date to string": lambda: value_of(TABLE.day.cast("string").max(), ROWS),
}


@pytest.mark.parametrize("what", UNTAUGHT)
def test_what_it_was_not_taught_it_names(what: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{what}.*teach it in tests/laws/naive"):
        UNTAUGHT[what]()


@pytest.mark.parametrize(
    "value",
    [
        _.id.lag().over(order_by=_.event_at), ibis.row_number().over(order_by=_.event_at),
        _.price.sum().over(order_by=_.event_at, rows=(None, 0)),
    ],
    ids=["lag", "row number", "rows"],
)  # fmt: skip
def test_what_would_depend_on_how_ties_fall_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="among rows that tie is chance"):
        rows_of(TABLE.mutate(value=value), ROWS)


def test_the_first_of_several_must_not_be_chance() -> None:
    assert value_of(TABLE.kind.first(order_by=TABLE.event_at.desc(), where=TABLE.id <= 2), ROWS) == "x"
    with pytest.raises(ValueError, match="First among rows that tie is chance"):
        value_of(TABLE.id.first(order_by=TABLE.event_at), ROWS[:2])


def test_a_date_that_is_none_is_unknown() -> None:
    texts = [{"kind": text} for text in ("2024-02-29", "2023-02-29", "soon", None)]
    found = rows_of(TABLE.select(day=_.kind.try_cast("date")), [ROWS[0] | text for text in texts])
    assert [row["day"] for row in found] == [date(2024, 2, 29), None, None, None]
