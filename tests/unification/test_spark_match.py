"""A Splink model gives the same pairs the same weights on Spark as on DuckDB, where it was made."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pandas as pd
import pytest
from fixtures_spark import needs_spark
from fixtures_spark import on_spark as spark_project
from splink import DuckDBAPI, Linker, SettingsCreator, block_on
from splink import comparison_library as comparisons

from benchmarks import _matching_people
from foretell.errors import DefinitionError
from foretell.project import Project
from lake.spark_splink import spark_model, splink_api
from unification.matching import matcher, on_spark, pairs


def _people() -> pd.DataFrame:
    draw, names = Random(3), ["anna", "anne", "bo", "dora", "doras", "emil", "emilie"]
    rows = [
        {"unique_id": n, "name": draw.choice(names), "email": f"{draw.choice(names)}@home.no" if n % 4 else None,
         "born": f"19{draw.randrange(60, 64)}-0{draw.randrange(1, 3)}-1{draw.randrange(4)}"} for n in range(120)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _trained(people: pd.DataFrame) -> dict[str, Any]:
    """A model as it is saved."""
    settings = SettingsCreator(
        "dedupe_only", blocking_rules_to_generate_predictions=[block_on("born"), block_on("name")],
        comparisons=[
            comparisons.JaroWinklerAtThresholds("name", [0.9, 0.7]),
            comparisons.DamerauLevenshteinAtThresholds("born", [1, 2]),
            comparisons.ExactMatch("email").configure(term_frequency_adjustments=True),
        ],
    )  # fmt: skip
    linker = Linker(DuckDBAPI().register(people), settings)
    linker.training.estimate_u_using_random_sampling(max_pairs=10_000, seed=1)
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("born"))
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("name"))
    return linker.misc.save_model_to_json()


def _weights(api: Any, people: pd.DataFrame, model: dict[str, Any]) -> dict[tuple[int, int], float]:
    found = Linker(api.register(people), model).inference.predict().as_pandas_dataframe()
    return dict(zip(zip(found["unique_id_l"], found["unique_id_r"], strict=True), found["match_weight"], strict=True))


@needs_spark
@pytest.mark.slow
def test_pairs_have_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    people = _people()
    model = _trained(people)
    wanted = _weights(DuckDBAPI(), people, model)
    made = _weights(splink_api(spark_project(Project(tmp_path))), people, spark_model(model))
    assert made.keys() == wanted.keys()
    assert len(wanted) > 500
    assert made == pytest.approx(wanted, rel=1e-9, abs=1e-12)


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


CONDITIONS = {
    '"a_l" = "a_r"': "`a_l` = `a_r`",
    'jaro_winkler_similarity("a_l", "a_r") >= 0.9': "JARO_WINKLER(`a_l`, `a_r`) >= 0.9",
    '"a_l" IS NULL OR "a_r" IS NULL': "`a_l` IS NULL OR `a_r` IS NULL",
    '"a_l" = "b_r" AND damerau_levenshtein("a_r", "b_l") <= 1': (
        "`a_l` = `b_r` AND DAMERAU_LEVENSHTEIN(`a_r`, `b_l`) <= 1"
    ),
    "ELSE": "ELSE",
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_in_the_words_of_spark(text: str) -> None:
    model = {"sql_dialect": "duckdb", "comparisons": [{"comparison_levels": [{"sql_condition": text, "u": 0.1}]}]}
    found = spark_model(model)
    assert found["comparisons"][0]["comparison_levels"][0] == {"sql_condition": CONDITIONS[text], "u": 0.1}
    assert found["sql_dialect"] == "spark"
    assert model["sql_dialect"] == "duckdb"


def test_a_condition_that_is_not_known_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"expected one of jaro_winkler_similarity.*got LIST_SORT"):
        spark_model({"sql_condition": 'list_sort("a_l") = list_sort("a_r")'})
