"""Distinct values counted in one pass are those that DuckDB counts one by one."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from conftest import MORE_SOURCES, make_shop, more_facts, shop_facts

from features import build
from features.counting import columns, counted_once, names_all
from lake.engine import session

FACTS = """CREATE TABLE facts AS SELECT (i * 7) % 11 AS profile_id, i % 3 AS category,
    CASE WHEN i % 5 > 0 THEN 'o' || (i % 17) END AS order_id, i % 4 = 0 AS cancelled,
    CASE WHEN i % 6 > 0 THEN i % 13 END AS amount, i AS day FROM range(300) t(i)
    UNION ALL SELECT 99, 0, NULL, NULL, NULL, 1"""
QUERIES = {
    "one": "count(DISTINCT order_id) AS n",
    "filtered": "count(DISTINCT order_id) FILTER (WHERE day > 250) AS n",
    "a condition that may be null": "count(DISTINCT order_id) FILTER (WHERE amount > 6 AND NOT cancelled) AS n",
    "several values": "count(DISTINCT order_id) FILTER (WHERE day > 9) AS n, count(DISTINCT amount + 1) AS m",
    "the same twice": "count(DISTINCT order_id) AS n, count(DISTINCT order_id) AS m",
    "in an expression": "coalesce(sum(amount) / nullif(count(DISTINCT order_id), 0), -1) AS n",
    "ratio": "count(DISTINCT order_id) FILTER (WHERE day > 200) / nullif(count(DISTINCT order_id), 0) AS n",
    "beside other aggregates": "max(day) FILTER (WHERE cancelled) AS a, count(DISTINCT amount) AS n, median(day) AS b",
    "beside one that has no name": "mad(amount) + count(DISTINCT amount) AS n, count(DISTINCT order_id) AS m",
    "beside the key": "category + count(DISTINCT amount) AS n, count(DISTINCT order_id) AS m",
    "of a case": "count(DISTINCT CASE WHEN cancelled THEN order_id END) FILTER (WHERE day > 20) AS n",
    "of two columns": "count(DISTINCT (order_id, amount)) AS n",
}


@pytest.mark.parametrize("keys", ["profile_id", "profile_id, category"])
@pytest.mark.parametrize("values", QUERIES.values(), ids=QUERIES)
def test_it_is_what_duckdb_counts(values: str, keys: str) -> None:
    con = duckdb.connect()
    con.execute(FACTS)
    if "category +" in values:
        keys = "profile_id, category"
    for source in ("facts", "(SELECT * FROM facts WHERE day % 2 = 0)"):
        query = (
            f"SELECT {keys}, {values} FROM {source} AS t0 GROUP BY {', '.join(map(str, range(1, 2 + keys.count(','))))}"
        )
        rewritten = counted_once(query)
        assert "flag0" in rewritten
        rows = con.execute(f"FROM ({rewritten}) ORDER BY ALL").fetchall()
        assert rows == con.execute(f"FROM ({query}) ORDER BY ALL").fetchall()
        assert len(rows) > 10
        ours, theirs = (con.execute(f"DESCRIBE {text}").fetchall() for text in (rewritten, query))
        assert [column[:2] for column in ours] == [column[:2] for column in theirs]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT profile_id, count(*) AS n FROM facts GROUP BY 1",
        "SELECT count(DISTINCT order_id) AS n FROM facts",  # of everything: one row even of nothing
        "SELECT profile_id, mad(amount) + count(DISTINCT amount) AS n FROM facts GROUP BY 1",
        "SELECT profile_id, n FROM (SELECT profile_id, count(DISTINCT amount) AS n FROM facts GROUP BY 1)",
    ],
)
def test_what_it_does_not_understand_is_left_as_it_is(query: str) -> None:
    assert counted_once(query) == query


def test_the_columns_that_a_query_names() -> None:
    assert columns("SELECT a + 1 AS b, count(*) FROM facts t WHERE t.c > 0 GROUP BY d") == {"a", "c", "d"}
    assert names_all("SELECT a + 1 AS b, count(*) FROM facts t WHERE t.c > 0 GROUP BY d")
    assert not names_all("SELECT * FROM facts")
    assert not names_all("SELECT n FROM (SELECT t.*, 1 AS n FROM facts t)")


def test_only_columns_that_views_read_are_put_aside(tmp_path: Path) -> None:
    """The others are as many again, and some, like the fact's id, are long."""
    project = make_shop(tmp_path / "shop", facts=more_facts(shop_facts()), sources=MORE_SOURCES)
    views, aside = [project.definitions.view(name) for name in ("orders", "basket")], {}
    with session(project) as con:
        for view, query in build.rows_of(con, project, views, project.now):
            con.execute(query)
            aside[view.name] = {name for name, *_ in con.execute("DESCRIBE facts_at").fetchall()}
    assert {"profile_id", "event_at", "order_id", "amount"} <= aside["orders"]
    assert {"product_id", "category"} <= aside["basket"]
    for name, listed in aside.items():
        assert not listed & {"fact_id", "_source", "known_at", "cutoff"}, name
