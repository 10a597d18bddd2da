"""Scores that Spark's workers answer are those of the batch here: to the last bit where the features are."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures_spark import CONF, needs_spark, on_spark
from fixtures_trained import NOW, TASKS, TrainedShop, copy_of, trained

from foretell.__main__ import cli
from foretell.project import Project
from lake import spark
from lake.engine import session
from serving.score import score
from training import dataset

__all__ = ["trained"]

pytestmark = [needs_spark, pytest.mark.slow]

CUTOFF = NOW - timedelta(days=40)
SHIFTING = ("scored_at", "rows")  # when it was done, and the name of the batch


def _scores(project: Project) -> dict[tuple[str, str], dict[str, Any]]:
    """(task, profile) -> its score at the cutoff."""
    with session(project) as con:
        rows = con.sql("SELECT * FROM scores WHERE cutoff = ?", params=[CUTOFF]).to_arrow_table().to_pylist()
    return {(r["task"], r["profile_id"]): {k: v for k, v in r.items() if k not in SHIFTING} for r in rows}


@pytest.fixture(scope="module")
def wanted(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list, dict]:
    """A copy that DuckDB has scored at the cutoff, what scoring said, and the scores."""
    project = copy_of(trained.project, tmp_path_factory.mktemp("here") / "shop")
    said = score(project, list(TASKS), CUTOFF, reasons="top:0.1")
    return project, said, _scores(project)


def test_the_same_features_have_the_same_scores(trained: TrainedShop, wanted: tuple, tmp_path: Path) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    dataset.build_for(project, [project.definitions.tasks[name] for name in TASKS], [CUTOFF])
    said = score(on_spark(project), list(TASKS), CUTOFF, reasons="top:0.1")
    _, right, rows = wanted
    assert [(s.task, s.eligible, s.added, s.mean, s.insufficient, s.reasons) for s in said] == [
        (s.task, s.eligible, s.added, s.mean, s.insufficient, s.reasons) for s in right
    ]
    made = _scores(project)
    assert made.keys() == rows.keys()
    assert [repr(made[key]) for key in rows] == [repr(rows[key]) for key in rows]  # a NaN is not itself
    assert not list((project.home / spark.SCRATCH).glob("*"))
    again = score(on_spark(project), list(TASKS), CUTOFF, reasons="none")
    assert [s.added for s in again] == [0] * len(TASKS), "the ids are the same, so nothing is written twice"


def test_features_of_spark_have_the_same_scores_but_for_the_last_digits(
    trained: TrainedShop, wanted: tuple, tmp_path: Path
) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    score(on_spark(project), list(TASKS), CUTOFF, reasons="none")
    made, (_, _, rows) = _scores(project), wanted
    assert made.keys() == rows.keys()
    for key, row in rows.items():
        assert math.isclose(made[key]["value"], row["value"], rel_tol=1e-9)
        alike = repr(made[key]["features"]) == repr(row["features"])
        assert (made[key]["score_id"] == row["score_id"]) == alike


def test_a_command_is_told_of_the_engine(
    trained: TrainedShop, wanted: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    monkeypatch.setenv("FORETELL_SPARK_CONF", ",".join(f"{name}={value}" for name, value in CONF.items()))
    asked = ["--project", str(project.folder), "score", "churn", "--at", f"{CUTOFF:%Y-%m-%d}", "--engine", "spark"]
    began: list[str] = []
    honest = spark.session
    monkeypatch.setattr(spark, "session", lambda *args: began.append("spark") or honest(*args))
    result = CliRunner().invoke(cli, [*asked, "--reasons", "none"])
    assert result.exit_code == 0, result.output
    assert began, "Spark was not asked"
    assert {key for key in _scores(project) if key[0] == "churn"} == {key for key in wanted[2] if key[0] == "churn"}
