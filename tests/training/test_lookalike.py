"""Lookalikes: any seed, judged on seeds held out, without what would give the seed away; or made a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from fixtures_trained import TrainedShop, mine, trained

from foretell.__main__ import cli
from foretell.errors import DataError
from foretell.project import Project
from lake.engine import session
from segments.audience import audience
from training import lookalike
from training.lookalike import FOLDS, Lookalikes, as_task, expand

__all__ = ["mine", "trained"]

# Digits of cents: known to everybody, and to be learned from nothing else.
LUCK = """
from foretell import FeatureView, _

luck = FeatureView(name="luck", source="order_line", features={"luck": (_.amount.max() * 100).cast("int64") % 10})
"""


@pytest.fixture(scope="module")
def seen() -> list[list[str]]:
    """The columns that each candidate was given."""
    return []


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch, seen: list[list[str]]) -> None:
    seen.clear()
    held_out = lookalike._held_out

    def spy(estimator: Any, X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
        seen.append(list(X.columns))
        return held_out(estimator, X, y)

    monkeypatch.setattr(lookalike, "_held_out", spy)


def features(project: Project) -> set[str]:
    return {feature for view in project.definitions.of_profiles.values() for feature in view.features}


def auc(found: Lookalikes) -> pd.DataFrame:
    return found.evaluation[found.evaluation["metric"] == "auc"].set_index("model")


def test_a_segment_is_expanded(trained: TrainedShop, seen: list[list[str]]) -> None:
    project = trained.project
    found = expand(project, "osloers")
    members = set(audience(project, "osloers").members["profile_id"])
    with session(project) as con:
        everyone = {p for (p,) in con.execute("SELECT profile_id FROM profiles").fetchall()}
    assert found.seeds == len(members)
    assert set(found.ranked["profile_id"]) == everyone - members
    assert found.ranked["likeness"].between(0, 1).all()
    order = found.ranked.sort_values(["likeness", "profile_id"], ascending=[False, True], ignore_index=True)
    pd.testing.assert_frame_equal(found.ranked, order)
    # the segment's rule reads city and orders_365d: they, and the feature that knows the city, are kept back
    given = features(project) - {"known_city", "orders_365d"}
    assert all(set(columns) == given for columns in seen)
    assert set(auc(found).index) == {"centroid", "recency", "past_spend", "lightgbm"}  # rfm_logistic reads orders_365d
    assert len(seen) == 4
    assert found.winner == "lightgbm"  # that Oslo comes every sixth week can be learned without the city's name
    assert auc(found).loc["lightgbm", "low"] > 0.8
    assert set(found.marks["feature"]) <= given
    assert all("gap" in feature for feature in found.marks["feature"].head(3))
    mark = found.marks.set_index("feature").loc["median_gap_days_ever"]
    assert mark["seed"] == pytest.approx(42, abs=2)  # as the shop is made
    assert not found.replayable
    assert found.unknown == []
    assert found.reason.startswith("lightgbm is better beyond chance")


def test_now_may_be_the_clock(mine: Callable[[], Project]) -> None:
    project = mine()
    settings = (project.folder / "foretell.toml").read_text()
    (project.folder / "foretell.toml").write_text(settings.replace("as_of", "# as_of"))
    assert len(expand(Project(project.folder), "city = 'Oslo'").ranked) > 100


def test_a_seed_is_not_found_by_the_feature_that_defines_it(mine: Callable[[], Project], seen: list[list[str]]) -> None:
    project = mine()
    (project.folder / "views").mkdir()
    (project.folder / "views" / "luck.py").write_text(LUCK)
    project = Project(project.folder)
    _score_again(project)
    blind = expand(project, "luck < 4")
    assert not any("luck" in columns for columns in seen)
    assert (auc(blind)["low"] < 0.5).all()  # nothing else tells them
    assert blind.winner != "lightgbm"
    assert blind.reason.endswith("no candidate tells the seed from others beyond chance")
    assert blind.replayable
    # the same people as a list of ids, about which no rule is known: now the feature may be used
    file = project.folder / "lucky.csv"
    audience(project, "luck < 4").members[["profile_id"]].to_csv(file, index=False)
    told = expand(project, str(file))
    assert told.seeds == blind.seeds
    assert all("luck" in columns for columns in seen[-len(auc(told)) :])
    assert auc(told).loc["lightgbm", "value"] > 0.95
    assert told.marks["feature"].iloc[0] == "luck"
    assert not told.replayable


def _score_again(project: Project) -> None:
    """A feature is an attribute once something has been scored with it built."""
    from features import build

    build.build(project, project.definitions.views.values(), [project.now])


def test_a_file_may_name_people_by_any_identifier(trained: TrainedShop, tmp_path: Path) -> None:
    file = tmp_path / "vip.csv"
    with session(trained.project) as con:
        profile = con.execute("SELECT profile_id FROM member WHERE node = 'card:40000002'").fetchall()[0][0]
    people = ["card:40000000", "40000001", profile, " PERSON3@example.org ", *(f"4000{n:04d}" for n in range(4, 15))]
    lines = ["\ufeffEmail,why", *people, "", "nobody@example.org", "person3@example.org,twice", "40000001", "card:9"]
    file.write_text("\n".join(lines), encoding="utf-8")
    members, hidden, unknown = lookalike._members(trained.project, str(file))
    assert len(members) == len(people)
    assert profile in members
    assert unknown == ["nobody@example.org", "card:9"]
    assert hidden == frozenset()


def test_files_that_cannot_be_read_are_refused(trained: TrainedShop, tmp_path: Path) -> None:
    for name, content, says in (
        ("strangers.csv", b"a@example.org\nb@example.org\n", "none of its 2 identifiers is known; one profile id or"),
        ("empty.txt", b"profile_id\n", "none of its 0 identifiers is known"),
        ("latin.csv", "Tromsø\n".encode("latin-1"), "expected text in UTF-8"),
        ("missing.csv", None, "no such file; check the path"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=says):
            expand(trained.project, str(tmp_path / name))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="no such file"):
        expand(trained.project, str(tmp_path / "folder.csv"))


def test_nobody_is_judged_by_a_model_that_saw_them() -> None:
    class Memory:
        """Learns who was there, and answers for nobody else's sake."""

        def get_params(self, deep: bool = True) -> dict:
            return {}

        def fit(self, X: pd.DataFrame, y: np.ndarray) -> Memory:
            self.seen_ = set(X["who"])
            assert 0 < y.sum() < len(y)
            return self

        def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
            new = np.array([who not in self.seen_ for who in X["who"]], dtype=float)
            return np.column_stack([1 - new, new])

    X, y = pd.DataFrame({"who": np.arange(100.0)}), (np.arange(100) < 2 * FOLDS).astype(int)
    assert (lookalike._held_out(Memory(), X, y) == 1).all()


# --- as a task -------------------------------------------------------------------------------------------------------


def test_a_seed_over_features_becomes_a_task_that_trains(
    mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import tracking
    from training.champion import train

    project = mine()
    (project.folder / "segments" / "big.yaml").write_text("name: Big-Spenders\nrule: top(spend_90d, 0.2)\n")
    file = as_task(project, "Big-Spenders")
    assert file == project.folder / "tasks" / "lookalike_big_spenders.py"
    fresh = Project(project.folder)
    task = fresh.definitions.task("lookalike_big_spenders")
    assert set(task.view_names) == set(fresh.definitions.of_profiles)
    monkeypatch.setattr(tracking, "register", lambda *_: ("1", "run"))
    monkeypatch.setattr(tracking, "plots_of", lambda *_: {})
    found = train(fresh, task.name)
    assert found.kind == "probability"
    assert 0 < found.base_rate < 0.2
    with pytest.raises(DataError, match=r"tasks/lookalike_big_spenders\.py: there is such a task already; edit it"):
        as_task(fresh, "Big-Spenders")


def test_a_rule_becomes_a_task_whatever_is_quoted_in_it(mine: Callable[[], Project]) -> None:
    project = mine()
    (project.folder / "tasks").mkdir(exist_ok=True)
    (project.folder / "tasks" / "again.py").write_text(
        "from dataclasses import replace\nfrom foretell import _\nfrom models.propensity import propensity\n"
        'again = replace(propensity, name="again", targets={"many": _.quantity > 1})\n'
    )
    project = Project(project.folder)
    rule = r"""known_city like 'O\N%' or "orders_90d" > 3 or known_city = 'it''s "here" \'"""
    as_task(project, rule)
    made = Project(project.folder).definitions.task("lookalike_seed")
    assert made.label.rule == rule  # type: ignore[union-attr]
    assert "again_many" in project.definitions.views
    assert "again_many" not in made.view_names  # a target's history is for its own task


# --- the command -----------------------------------------------------------------------------------------------------


def foretell(project: Project, *words: object) -> Result:
    return CliRunner().invoke(cli, ["--project", str(project.folder), *map(str, words)])


def test_the_command_ranks_and_writes(mine: Callable[[], Project], tmp_path: Path) -> None:
    project, file, seed = mine(), tmp_path / "deep" / "like.csv", tmp_path / "vip.txt"
    seed.write_text("".join(f"4000{n:04d}\n" for n in range(0, 90, 3)) + "".join(f"stranger{n}\n" for n in range(7)))
    done = foretell(project, "lookalike", seed, "--top", 20, "--among", "orders_365d > 0", "--to", file)
    assert done.exit_code == 0, done.output
    for part in (
        "30 seeds among ", "- stranger0 is nobody's identifier", "- and 2 more", "on seeds held out", "Ranked by ",
        "what marks a seed", f"wrote 20 profiles to {file}",
    ):  # fmt: skip
        assert part in done.output
    assert "--as-task" not in done.output  # a list of people cannot be replayed
    rows = pd.read_csv(file)
    assert list(rows.columns) == ["profile_id", "likeness"]
    assert len(rows) == 20
    assert rows["likeness"].is_monotonic_decreasing
    active = set(audience(project, "orders_365d > 0").members["profile_id"])
    assert set(rows["profile_id"]) <= active
    assert [f.name for f in file.parent.iterdir()] == ["like.csv"]


def test_the_command_writes_a_task(mine: Callable[[], Project]) -> None:
    project = mine()
    done = foretell(project, "lookalike", "orders_90d >= 5", "--as-task")
    assert done.exit_code == 0, done.output
    assert done.output == (
        "wrote tasks/lookalike_seed.py; next: foretell train lookalike_seed, foretell score lookalike_seed\n"
    )
    assert "lookalike_seed" in Project(project.folder).definitions.tasks
