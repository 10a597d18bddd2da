"""Features that are others than when somebody was scored by them: they refuse a training, and late facts do not."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import pandas as pd
import pytest
from fixtures_trained import NOW, load_all, mine, trained

from foretell.errors import DataError
from foretell.project import Project
from lake.engine import session, table
from training.champion import contest
from training.leaks import changed_when_rebuilt
from training.rebuilt import as_scored
from unification.identity import unify

__all__ = ["mine", "trained"]


def later(project: Project, days: int = 20) -> Project:
    """The project some days on; without a new fact."""
    file = project.folder / "foretell.toml"
    file.write_text(file.read_text().replace(NOW.isoformat(), (NOW + timedelta(days=days)).isoformat()))
    return Project(project.folder)


def restate(project: Project, column: str, profiles: int) -> None:
    """Make the kept rows of some scores say otherwise, as if the feature had been another when they were scored."""
    with session(project) as con:
        query = "SELECT columns, places FROM scored_columns WHERE task = 'churn'"
        columns, places = con.execute(query).fetchall()[0]
    place = places[columns.index(column)]
    for file in table(project, "scored_rows").files():
        rows = duckdb.execute(f"SELECT * FROM '{file}'").to_arrow_table()
        changed = rows.to_pylist()
        for row in changed[:profiles]:
            row["values"][place - 1] = -1.0
        made = rows.from_pylist(changed, schema=rows.schema)
        duckdb.from_arrow(made).write_parquet(str(file))


def test_rows_of_scores_are_the_same_when_they_are_built_again(mine) -> None:
    project = later(mine())
    task = project.definitions.task("churn")
    found = as_scored(project, task)
    assert found is not None
    then, now = found
    assert len(then) == len(now) > 100
    assert set(then["cutoff"]) == {pd.Timestamp(NOW)}
    columns = [c for c in then.columns if c not in ("profile_id", "cutoff")]
    assert "known_city" in columns  # text, by the champion's codes
    assert changed_when_rebuilt(now, then, columns) == []


def test_a_feature_that_was_another_refuses_the_training_and_may_be_allowed(mine) -> None:
    project = later(mine())
    restate(project, "spend_365d", 7)
    says = r"spend_365d: changes when rebuilt \(\d+ of \d+ values at the same cutoffs .* others when they are rebuilt"
    with pytest.raises(DataError, match=says):
        contest(project, "churn", trials=0)
    assert set(contest(project, "churn", trials=0, allow=["spend_365d"]).allowed) == {"spend_365d"}


def test_nothing_is_compared_before_a_score_or_after_facts_of_before(mine) -> None:
    project = mine()
    task = project.definitions.task("churn")
    assert as_scored(project, task) is None  # it was scored now, not before
    project = later(project)
    late = NOW - timedelta(days=40)
    (project.folder / "exports" / "till" / "late.csv").write_text(
        f"receipt,sold_at,card_no,amount,quantity,sku\nlate1,{late:%Y-%m-%d %H:%M:%S},40000003,77.70,1,sku1\n"
    )
    load_all(project)
    unify(project)
    assert as_scored(project, project.definitions.task("churn")) is None
