"""Segments answer for the profiles, features and scores of now."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from fixtures_trained import NOW, TrainedShop, load_all, mine, trained, write_shop

from features import build
from foretell.errors import DataError, NotReady, UnknownName
from foretell.project import Project
from lake.engine import session, table
from segments.audience import audience, export, sizes
from serving.score import SCHEMA

__all__ = ["mine", "trained"]


def scores(project: Project, task: str) -> pd.DataFrame:
    with session(project) as con:
        return con.execute("SELECT * FROM scores WHERE task = ? ORDER BY profile_id", [task]).df()


def add_score(project: Project, **changes: object) -> None:
    """Append a score that is an existing one but for these changes."""
    with session(project) as con:
        row = con.sql("SELECT * FROM scores WHERE task = 'churn' ORDER BY profile_id LIMIT 1").to_arrow_table()
    made = {**row.to_pylist()[0], "score_id": "made-up", **changes}
    table(project, "scores").append(pa.Table.from_pylist([made], schema=SCHEMA), why="test")


def test_sizes(trained: TrainedShop) -> None:
    found = {segment.name: (size, total) for segment, size, total in sizes(trained.project)}
    churn = scores(trained.project, "churn")
    with session(trained.project) as con:
        total = len(con.execute("SELECT * FROM profiles").df())
        oslo = set(con.execute("SELECT profile_id FROM profiles WHERE city = 'Oslo'").df()["profile_id"])
    assert found["leaving"] == (math.ceil(0.2 * len(churn)), total)
    assert found["osloers"] == (len(oslo & set(churn["profile_id"])), total)  # the same population


def test_top_is_the_best_by_score(trained: TrainedShop) -> None:
    clv = scores(trained.project, "clv").sort_values(["value", "profile_id"], ascending=[False, True])
    found = audience(trained.project, "top(clv, 0.1)")
    best = clv.head(math.ceil(0.1 * len(clv)))
    assert set(found.members["profile_id"]) == set(best["profile_id"])
    assert found.members.set_index("profile_id")["clv"].to_dict() == best.set_index("profile_id")["value"].to_dict()
    assert list(found.members.columns) == ["profile_id", "clv"]


def test_rules_over_traits_features_and_scores(trained: TrainedShop) -> None:
    found = audience(trained.project, "churn > 0.3 and city = 'Oslo' and orders_365d > 1", ["city", "churn_percentile"])
    assert list(found.members.columns) == ["profile_id", "city", "churn_percentile"]
    assert set(found.members["city"]) == {"Oslo"}
    assert found.members["churn_percentile"].between(0, 100).all()
    everyone = audience(trained.project, "churn is null or churn is not null")
    assert len(everyone.members) == everyone.total


def test_a_new_score_is_an_attribute_at_once(mine: Callable[[], Project]) -> None:
    project = mine()
    who = scores(project, "churn")["profile_id"].iloc[0]
    assert audience(project, "churn = 0.125").members.empty
    add_score(project, value=0.125, model_version="2")
    assert list(audience(project, "churn = 0.125").members["profile_id"]) == [who]
    add_score(project, task="brand_new", value=0.5)
    assert list(audience(project, "brand_new = 0.5").members["profile_id"]) == [who]


def test_a_feature_hides_the_scores_of_a_task_that_is_no_more(mine: Callable[[], Project]) -> None:
    """The name was a task's once, whose scores live on for a while: it means the feature that is declared now."""
    project = mine()
    add_score(project, task="lines", value=0.125)
    add_score(project, task="city", value=0.125)
    (project.folder / "views").mkdir()
    (project.folder / "views" / "lines.py").write_text(
        "from foretell import FeatureView, _\n"
        'v = FeatureView(name="v", source="order_line", features={"lines": _.count()})\n'
    )
    project = Project(project.folder)
    build.build(project, project.definitions.views.values(), [project.now])
    everyone = audience(project, "lines >= 0", ["lines", "city", "churn"])
    assert len(everyone.members) == everyone.total
    assert everyone.members["lines"].sum() > 1000
    assert set(everyone.members["city"].dropna()) >= {"Oslo", "Bergen"}
    with pytest.raises(UnknownName, match="lines_percentile: no such attribute"):
        audience(project, "lines_percentile > 3")


def test_expired_and_future_scores_do_not_count(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    project = mine()
    add_score(project, value=0.99999, cutoff=NOW - timedelta(days=1), expires_at=NOW, task="expired")
    add_score(project, value=0.99999, cutoff=NOW + timedelta(days=1), expires_at=NOW + timedelta(days=9), task="later")
    for task in ("expired", "later"):
        with pytest.raises(UnknownName, match=f"{task}: no such attribute"):
            audience(project, f"{task} > 0.5")
    live = len(audience(project, "churn is not null").members)
    assert live == scores(project, "churn")["profile_id"].nunique()
    monkeypatch.setenv("FORETELL_AS_OF", (NOW + timedelta(days=90)).isoformat())
    with pytest.raises(NotReady, match="churn: has no live scores; run `foretell train churn`"):
        audience(Project(project.folder), "churn > 0.5")


def test_unknown_names_get_a_suggestion(trained: TrainedShop) -> None:
    with pytest.raises(UnknownName, match=r'leavng: no such segment; did you mean "leaving"\?'):
        audience(trained.project, "leavng")
    with pytest.raises(UnknownName, match=r'no such attribute; did you mean "churn"\?'):
        audience(trained.project, "chrn > 0.5")
    with pytest.raises(UnknownName, match=r'emial: no such attribute; did you mean "email"\?'):
        audience(trained.project, "leaving", ["emial"])


def test_nothing_unified_yet(tmp_path: Path) -> None:
    project = Project(write_shop(tmp_path / "shop", people=3))
    with pytest.raises(NotReady, match="run `foretell load` and `foretell unify` first"):
        audience(project, "city = 'Oslo'")
    load_all(project)
    with pytest.raises(NotReady, match="`foretell unify` first"):
        sizes(project)


def test_export_comes_back_as_it_was(trained: TrainedShop, tmp_path: Path) -> None:
    found = audience(trained.project, "leaving", ["email", "city", "churn"])
    file = tmp_path / "deep" / "leaving.csv"
    assert export(found, file) == len(found.members) > 10
    back = pd.read_csv(file, float_precision="round_trip")
    pd.testing.assert_frame_equal(back, found.members, check_exact=True, check_dtype=False)
    assert back["email"].dropna().str.contains("@").all()
    assert back["email"].notna().any()
    assert [f.name for f in file.parent.iterdir()] == ["leaving.csv"]
    assert export(found, file) == len(back)  # an export replaces the one before


def test_only_csv_is_exported(trained: TrainedShop, tmp_path: Path) -> None:
    found = audience(trained.project, "leaving")
    with pytest.raises(DataError, match=r"audiences are exported as CSV; name it leaving\.csv"):
        export(found, tmp_path / "leaving.xlsx")
    assert not list(tmp_path.iterdir())
