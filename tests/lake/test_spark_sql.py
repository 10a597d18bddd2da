"""What is written for DuckDB means the same on Spark: asked of both, over rows that are full of nulls and of edges."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_spark import needs_spark, on_spark, unlike

from foretell.errors import DefinitionError, NotReady
from foretell.project import Project
from foretell.settings import load
from lake import spark
from lake.spark_sql import Known, for_spark, statements

KNOWN = Known(lambda files, differ: "files", lambda: ["a"], lambda query: ["a", "b"], lambda query: ["double"])

TICK = timedelta(microseconds=1)
AT = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
DATES = ["1990-05-17", " 1990-05-17 ", "1990-5-7", "1990/05/17", "1990 05 17", "1990-05-17abc", "1990-05-17 10:00:00",
         "1990-05-17T10", "1990", "1990-05", "19900517", "+1990-05-17", "1990-05/17", "2001-02-29", "1990-005-17", "",
         "1990-05-171", None]  # fmt: skip
TEXTS = ["x", "X", " y ", "\ty\n", "\vv\f", "a\\b", "a%b", "a'b", "", "Ærø", None]


def _rows(count: int = 300) -> pa.Table:
    draw = Random(5)
    pick = draw.choice
    return pa.table({
        "id": pa.array(range(count), pa.int64()),
        "g": pa.array([pick(["p", "q", "r", None]) for _ in range(count)]),
        "k": pa.array([pick([0, 1, 2, 3, -7, None]) for _ in range(count)], pa.int64()),
        "s": pa.array([pick(TEXTS) for _ in range(count)]),
        "x": pa.array([pick([0.0, -0.0, 0.5, 1.5, 2.5, -2.5, draw.gauss(0, 1e3), None]) for _ in range(count)]),
        "d": pa.array([pick([Decimal("0.0000"), Decimal("12.3450"), Decimal(draw.randrange(-10**7, 10**7)).scaleb(-4),
                             None]) for _ in range(count)], pa.decimal128(18, 4)),
        "b": pa.array([pick([True, False, None]) for _ in range(count)]),
        "seen_at": pa.array([pick([AT, AT - draw.randrange(10**14) * TICK, None]) for _ in range(count)],
                       pa.timestamp("us", "UTC")),
        "day": pa.array([pick([date(2024, 2, 29), date(1969, 12, 31), None]) for _ in range(count)]),
        "born": pa.array([pick(DATES) for _ in range(count)]),
    })  # fmt: skip


VALUES = [  # of each row
    "k / 2", "k / k", "d / k", "x / NULLIF(k, 0)", "d / 3", "d * 2 - d / 4 + 1", "x * d", "-d", "abs(k)",
    "CAST(x AS BIGINT)", "CAST(k / 2 AS BIGINT)", "CAST(d AS BIGINT)", "CAST(b AS BIGINT)", "CAST(k > 1 AS BIGINT)",
    "CAST(CAST(d AS DOUBLE) * 1.7 AS DECIMAL(38, 9))", "round(x, 2)", "CAST(d AS DOUBLE)", "k::VARCHAR", "day::VARCHAR",
    "EPOCH(CAST(seen_at AS TIMESTAMP))", "EPOCH(CAST(CAST(day AS TIMESTAMP) AS TIMESTAMP)) / 86400",
    "seen_at - INTERVAL '90' DAY", "seen_at >= TIMESTAMPTZ '2024-01-01 00:00:00+01:00'", "TRY_CAST(born AS DATE)",
    "EPOCH(CAST(TRY_CAST(born AS DATE) AS TIMESTAMP))", "lower(s)", "NULLIF(TRIM(s, ' \t\n\r\v\f'), '')", "trim(s)",
    "s LIKE 'a\\%'", "s LIKE 'a%b'", "s ILIKE 'x'", "s IN ('x', 'a''b', NULL)", "s || '!'", "coalesce(s, 'none')",
    "b AND k > 1", "b OR k > 1", "NOT b", "g IS DISTINCT FROM s", "k BETWEEN 0 AND 2", "greatest(k, 1)", "least(d, x)",
    "CASE WHEN x IS NULL THEN x ELSE GREATEST(-1, LEAST(1, x)) END", "sqrt(abs(x))", "exp(x / 1000)", "k IS NULL",
    "row_number() OVER (PARTITION BY g ORDER BY k DESC, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
    "LAG(k) OVER (PARTITION BY g ORDER BY seen_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
    "lead(id, 2, -1) OVER (ORDER BY id DESC)", "sum(d) OVER (PARTITION BY g)",
    "sum(k) OVER (PARTITION BY g ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
    "count(*) FILTER (WHERE b) OVER (PARTITION BY g)", "max(id) OVER (PARTITION BY g ORDER BY k NULLS FIRST)",
]  # fmt: skip
AGGREGATES = [
    "count(*)", "count(k)", "count(*) FILTER (WHERE k > 99)", "count(DISTINCT s)", "count(DISTINCT s) FILTER (WHERE b)",
    "sum(d)", "sum(k)::BIGINT", "avg(d)", "avg(k)", "stddev(d)", "min(seen_at)", "max(day)", "max(s)", "bool_or(b)",
    "bool_and(b)", "sum(d) FILTER (WHERE k > 99)", "median(d::DOUBLE)", "QUANTILE_CONT(x, 0.5) FILTER (WHERE k > 0)",
    "QUANTILE_CONT(k, 0.25)", "round(entropy(s), 9)", "round(entropy(CASE WHEN b THEN g END), 9)",
    "LIST_MAX(MAP_VALUES(HISTOGRAM(s)))", "LIST_MAX(MAP_VALUES(HISTOGRAM(CASE WHEN k > 99 THEN s END)))",
    "HISTOGRAM(s) IS NULL", "FIRST(s ORDER BY k DESC, id DESC)", "FIRST(id ORDER BY seen_at, id)",
    "FIRST(id ORDER BY k DESC NULLS FIRST, s DESC NULLS FIRST, id DESC)", "LAST(id ORDER BY k, s, id)",
    "FIRST(id ORDER BY k NULLS FIRST, id)", "FIRST(s ORDER BY k DESC, s ASC, id) FILTER (WHERE s IS NOT NULL)",
    "LAST(s ORDER BY k DESC NULLS FIRST, x ASC, id)", "arg_max(id, (k * 1000 + id))", "arg_max(s, id)",
    "max_by(b, (id, k)) FILTER (WHERE k IS NOT NULL)", "count(k) / NULLIF(count(*), 0)", "min(x)",
    "any_value(g) IS NULL", "any_value(CASE WHEN id = 7 THEN s END) FILTER (WHERE id > 3)",
]  # fmt: skip
QUERIES = [  # with all their rows in order
    "SELECT * EXCLUDE (s, born) FROM t ORDER BY id",
    "SELECT g, count(*) AS n FROM t GROUP BY ALL ORDER BY g",
    "SELECT id FROM t QUALIFY row_number() OVER (PARTITION BY g ORDER BY id DESC) = 1 ORDER BY id",
    "SELECT id FROM t ANTI JOIN (SELECT 5::BIGINT AS id) USING (id) WHERE id < 9 ORDER BY id",
    "SELECT id FROM t SEMI JOIN (SELECT unnest([5, 7]::BIGINT[]) AS id) USING (id) ORDER BY id",
    "SELECT id, x, y FROM (SELECT id, x FROM t WHERE id < 3 UNION ALL BY NAME SELECT 1::BIGINT AS y, id FROM t "
    "WHERE id = 7) ORDER BY id",
    "SELECT id, k FROM (SELECT * REPLACE (k + 1 AS k) FROM t) ORDER BY id",
    "SELECT COLUMNS(lambda name: name IN ('id', 'd', 'none')) FROM (SELECT * FROM t) ORDER BY id",
    "WITH u AS (SELECT g, max(id) AS id FROM t GROUP BY g) SELECT t.id, u.g FROM t JOIN u ON u.id = t.id ORDER BY 1",
    "FROM t WHERE id IN (SELECT id FROM t WHERE k > 2) ORDER BY id",
    "SELECT id FROM t WHERE CASE WHEN x IS NOT NULL THEN id IN (SELECT id FROM t WHERE x IS NOT NULL ORDER BY x DESC, "
    "id LIMIT (SELECT (count(x) * 1 + 9) // 10 FROM t)) END ORDER BY id",
    "SELECT bit_or(k)::BIGINT AS bits, count(*) AS n FROM t WHERE k >= 0",
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, spark.Connection]]:
    """A connection of either kind, with a table t."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "foretell.toml").write_text("[foretell]\n")
    con, cluster = duckdb.connect(), spark.Connection(on_spark(Project(folder)))
    con.execute("SET TimeZone='UTC'")
    for one in (con, cluster):
        one.register("t", _rows())
    yield con, cluster
    con.close()
    cluster.close()


def _same(both: tuple[Any, Any], query: str) -> list[Any]:
    con, cluster = both
    wanted, made = con.execute(query), cluster.execute(query)
    names = [name for name, *_ in wanted.description]
    assert [name for name, *_ in made.description] == names
    return unlike(names, made.fetchall(), wanted.fetchall())[:5]


@needs_spark
@pytest.mark.slow
def test_values_are_the_same(both: tuple[Any, Any]) -> None:
    listed = ", ".join(f"{value} AS v{n}" for n, value in enumerate(VALUES))
    wrong = {
        VALUES[int(name[1:])]: (one, other) for name, one, other in _same(both, f"SELECT {listed} FROM t ORDER BY id")
    }
    assert wrong == {}


@needs_spark
@pytest.mark.slow
@pytest.mark.parametrize("rows", ["t", "(SELECT * FROM t WHERE false)"])
def test_aggregates_are_the_same(both: tuple[Any, Any], rows: str) -> None:
    listed = ", ".join(f"{value} AS v{n}" for n, value in enumerate(AGGREGATES))
    found = _same(both, f"SELECT {listed} FROM {rows}")
    if rows == "t":
        found += _same(both, f"SELECT g, {listed} FROM {rows} GROUP BY g ORDER BY g")
    assert {AGGREGATES[int(name[1:])]: (one, other) for name, one, other in found} == {}


@needs_spark
@pytest.mark.slow
def test_queries_are_the_same(both: tuple[Any, Any]) -> None:
    assert {query: wrong for query in QUERIES if (wrong := _same(both, query))} == {}


@needs_spark
@pytest.mark.slow
def test_statements_do_the_same(both: tuple[Any, Any], tmp_path: Path) -> None:
    month = tmp_path / "month=2024-01-01"
    month.mkdir()
    pq.write_table(pa.table({"id": [1, 2]}), month / "a b.parquet")
    pq.write_table(pa.table({"id": [3], "more": ["x"]}), month / "b.parquet")
    scan = f"""read_parquet(['{month}/a b.parquet', '{month}/b.parquet'], hive_partitioning=true, union_by_name=true)"""
    said = []
    for con in both:
        con.execute(f"CREATE VIEW stored AS SELECT * FROM {scan}")
        con.execute(
            "CREATE OR REPLACE TEMP TABLE made AS SELECT id, more FROM stored; CREATE TEMP VIEW seen AS FROM made"
        )
        gone = con.execute("DELETE FROM made WHERE id IN (SELECT 2)").fetchall()
        rows = con.execute("SELECT id, more, month FROM stored ORDER BY id").fetchall()
        con.execute("CREATE OR REPLACE TEMP TABLE made AS SELECT id + 1 AS id FROM made")
        after = con.execute("SELECT id FROM made ORDER BY id").fetchall()
        names = [(name, kind) for name, kind, *_ in con.execute("DESCRIBE t").fetchall()]
        has = con.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'stored'").fetchall()
        frame = con.execute("SELECT id, x, s, seen_at FROM t ORDER BY id").df()
        said.append((gone, rows, after, names, has, list(frame.dtypes), frame.astype(str).to_numpy().tolist()))
        con.execute("DROP TABLE made")
    assert said[0] == said[1]


# What is refused.


@pytest.mark.parametrize(
    ("query", "got"),
    [("SELECT list_sort(x) FROM t", "LIST_SORT"), ("SELECT my_own(x) FROM t", "my_own"),
     ("SELECT a % b FROM t", "a % b"),
     ("SELECT CAST(a AS HUGEINT) FROM t", "INT128"), ("SELECT FIRST(a) FROM t", "an order in FIRST"),
     ("SELECT a // b FROM t", "a // b")],
)  # fmt: skip
def test_what_is_not_known_to_mean_the_same_is_refused(query: str, got: str) -> None:
    with pytest.raises(DefinitionError, match="engine spark: expected") as error:
        for_spark(statements(query)[0], KNOWN)
    assert got in str(error.value)


def test_without_java_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (tmp_path / "foretell.toml").write_text('[foretell]\nspark_master = "local[7]"\n')
    with pytest.raises(NotReady, match="no Java found; install a JRE of version 17"):
        spark.spark_session(Project(tmp_path))


def test_settings_of_spark_are_read(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text(
        '[foretell]\nengine = "spark"\nspark_conf = {"spark.executor.memory" = "4g", "spark.speculation" = true}\n'
    )
    found = load(tmp_path, {"FORETELL_SPARK_MASTER": "spark://host:7077"})
    assert found["engine"].value == "spark"
    assert found["spark_master"].value == "spark://host:7077"
    assert found["spark_conf"].value == {"spark.executor.memory": "4g", "spark.speculation": "true"}
    for variable, problem in [
        ("FORETELL_ENGINE=hive", "expected duckdb or spark"), ("FORETELL_SPARK_MASTER=sc://host", "not Spark Connect"),
        ("FORETELL_SPARK_CONF=executor.memory=4g", "begin with spark"),
    ]:  # fmt: skip
        name, _, value = variable.partition("=")
        with pytest.raises(DefinitionError, match=problem):
            load(tmp_path, {name: value})
