"""A question that is prepared once answers as its statements do when they are run anew, of any rows and instant."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

from lake.again import Held, Question, Steps, T
from lake.literals import instant

DAY = datetime(2024, 3, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")


def facts(rng: random.Random, n: int) -> pa.Table:
    """Rows of some people; sometimes there are none."""
    return pa.table({
        "who": pa.array([rng.choice("abcde") for _ in range(n)], pa.string()),
        "paid": pa.array([rng.choice([None, 1.5, 2.5, 40.0]) for _ in range(n)], pa.float64()),
        "event_at": pa.array([DAY + timedelta(hours=rng.randrange(2_000)) for _ in range(n)], STAMP),
    })  # fmt: skip


def statements(at: datetime) -> str:
    """Two aggregations by one name each, the second of the first's rows too, with windows before T."""
    return f"""CREATE OR REPLACE TEMP TABLE known AS SELECT *, {instant(at)} AS cutoff FROM facts
            WHERE event_at < {instant(at)} AND event_at >= {instant(at - timedelta(days=40))};
        CREATE OR REPLACE TEMP VIEW made AS SELECT who, sum(paid) FILTER (event_at >= cutoff - INTERVAL 7 DAY) AS x
            FROM known GROUP BY who;
        CREATE OR REPLACE TEMP TABLE first AS SELECT * FROM made;
        CREATE OR REPLACE TEMP TABLE made AS SELECT who, count(*) AS n, x, '; made' AS text FROM known
            JOIN first USING (who) GROUP BY ALL"""


ANSWER = "SELECT who, n, x, text, {} AS at FROM made ORDER BY who"


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    return con


def test_steps_as_one_question_are_what_the_statements_give(con: duckdb.DuckDBPyConnection) -> None:
    rng = random.Random(1)
    held = Held(con, "facts", facts(rng, 0))
    steps = Steps(con)
    steps.execute(statements(T))
    question = Question(con, steps.whole(f"FROM {steps.reading(ANSWER.format(instant(T)))} ORDER BY who"))
    answers = 0
    for n in (0, 30, 1, 400, 0, 60):
        held.rows = facts(rng, n)
        at = DAY + timedelta(hours=rng.randrange(800, 2_200), microseconds=1)
        found = question.ask(at).to_pylist()
        fresh = con.cursor()
        fresh.execute("SET TimeZone='UTC'")
        fresh.register("facts", held.rows)
        for statement in statements(at).replace("'; made'", "'| made'").split(";"):
            if "made AS SELECT who, count" in statement:
                fresh.execute("DROP VIEW made")  # what stands in a question may become a table from a view
            fresh.execute(statement.replace("'| made'", "'; made'"))
        wanted = [dict(zip(("who", "n", "x", "text", "at"), row, strict=True))
                  for row in fresh.execute(ANSWER.format(instant(at))).fetchall()]  # fmt: skip
        assert found == wanted, (n, at)
        answers += len(found)
    assert answers > 10


def test_what_is_no_table_is_answered_by_the_connection(con: duckdb.DuckDBPyConnection) -> None:
    steps = Steps(con)
    assert steps.execute("SELECT 7").fetchall() == [(7,)]
    with pytest.raises(ValueError, match="expected CREATE OR REPLACE TEMP TABLE or VIEW"):
        steps.execute("CREATE TABLE kept AS SELECT 1")


def test_an_instant_that_is_not_the_one_asked_about_stays(con: duckdb.DuckDBPyConnection) -> None:
    question = Question(
        con, f"SELECT {instant(DAY)} AS then, {instant(T)} AS now, {instant(T - timedelta(1))} AS before"
    )
    for at in (DAY + timedelta(days=9), DAY + timedelta(microseconds=1)):
        assert question.ask(at).to_pylist() == [{"then": DAY, "now": at, "before": at - timedelta(1)}]


def test_it_is_planned_once(con: duckdb.DuckDBPyConnection) -> None:
    """It goes on reading the table that it was prepared for: planned anew it would find the other of that name."""
    first = Held(con, "facts", facts(random.Random(2), 20))
    question = Question(con, f"SELECT count(*) AS n FROM facts WHERE event_at < {instant(T)}")
    Held(con, "facts", facts(random.Random(2), 7))
    assert con.execute("SELECT count(*) FROM facts").fetchall() == [(7,)]
    for n in (20, 3):
        first.rows = facts(random.Random(2), n)
        assert question.ask(DAY + timedelta(days=1_000)).to_pylist() == [{"n": n}]
