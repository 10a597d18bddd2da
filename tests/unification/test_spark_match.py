"""Matching on Spark finds what matching on DuckDB does."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest
from conftest import make_shop
from fixtures_spark import needs_spark
from fixtures_spark import on_spark as spark_project
from test_matching_shop import CRM, people

from benchmarks import _matching_people
from foretell.project import Project
from unification.matching import kept, matcher, on_spark, pairs
from unification.matching.run import match


@needs_spark
@pytest.mark.slow
def test_people_compare_the_same(tmp_path: Path) -> None:
    """Every pair that the rules bring up, at the same level of every comparison."""
    file = _matching_people.write(tmp_path / "people.parquet", 600, seed=4)
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    con = duckdb.connect()
    con.execute(f"CREATE TABLE given AS SELECT * EXCLUDE (person, household_id) FROM read_parquet('{file}')")
    _, columns = matcher.read(con, "given")
    rules = ["l.last = r.last", "substr(l.first,1,3) = substr(r.first,1,3) AND l.city = r.city", "l.birth = r.birth"]
    count = pairs.blocked(con, rules, columns)
    con.execute("ALTER TABLE _compared RENAME TO wanted")
    assert on_spark.blocked(spark_project(Project(tmp_path)), con, rules, columns) == count > 1_000
    said = [name for name, *_ in con.execute("DESCRIBE wanted").fetchall()]
    listed = ", ".join(said)
    assert not con.execute(f"SELECT {listed} FROM wanted EXCEPT SELECT {listed} FROM _compared").fetchall()
    assert {kind for _, kind, *_ in con.execute("DESCRIBE _compared").fetchall()[2:]} == {"TINYINT"}
    assert len(said) > 8


@needs_spark
@pytest.mark.slow
def test_profiles_are_linked_the_same(tmp_path: Path) -> None:
    """`identity match`, learning anew: the same links, the same pairs to review, the same weights."""
    here = make_shop(tmp_path / "here", facts={"crm": people()}, days=100, sources={"crm": CRM})
    shutil.copytree(here.folder, tmp_path / "there")
    there = spark_project(Project(tmp_path / "there"))
    found = [match(project) for project in (here, there)]
    assert found[0].linked > 20
    assert len({(one.profiles, one.linked, one.review, one.refused) for one in found}) == 1
    wanted, made = (sorted((pair.match_id, pair.state, pair.a, pair.b, pair.weight) for pair in kept.pairs(project))
                    for project in (here, there))  # fmt: skip
    assert [row[:4] for row in made] == [row[:4] for row in wanted]
    assert [row[4] for row in made] == pytest.approx([row[4] for row in wanted], rel=1e-9)
