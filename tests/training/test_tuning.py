"""Tuning reads the past only, goes on where it stopped, and takes nothing that chance explains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from fixtures_trained import TrainedShop, mine, trained, write_shop

from foretell import days
from foretell.__main__ import cli
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from models import registry
from models.estimators import LEARNED, trees
from training import champion, dataset, leaks, plots, report, tuning
from training.metrics import Difference
from training.tuning import SPACE, Tuning, tune

__all__ = ["mine", "trained"]

ROOT = Path(__file__).parents[2]
COLUMNS = [f"x{i}" for i in range(6)]
CUTOFFS = [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(write_shop(tmp_path / "shop", people=3))


def rows_of(people: int = 200, signal: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """A training set: people asked at each of CUTOFFS, whose labels follow from two features as far as `signal`."""
    rng = np.random.default_rng(seed)
    frames = []
    for cutoff in CUTOFFS:
        X = pd.DataFrame(rng.normal(size=(people, len(COLUMNS))), columns=COLUMNS)
        margin = signal * (2 * np.sin(2 * X["x0"]) + X["x1"] * X["x2"]) - 0.5
        X["label"] = (rng.random(people) < 1 / (1 + np.exp(-margin))).astype(float)
        X["cutoff"], X["weight"], X["split"] = pd.Timestamp(cutoff), 1.0, False
        X["person"] = [f"person{i}" for i in range(people)]
        frames.append(X)
    return pd.concat(frames, ignore_index=True)


def learned(kind: str = "probability", **changes: Any) -> Any:
    return trees(kind, 28, num_threads=1).set_params(**changes)


def asked(project: Project, **changes: Any) -> Any:
    said = {"horizon": days(28), "settle": days(1), "metric": "log_loss", **changes}
    return replace(project.definitions.task("churn"), **said)


def run(
    project: Project, trials: int, rows: pd.DataFrame | None = None, estimator: Any = None, **changes: Any
) -> Tuning:
    rows = rows_of() if rows is None else rows
    found = tune(project, asked(project, **changes), "probability", rows, COLUMNS, estimator or learned(), trials)
    assert found is not None
    return found


def told(found: Tuning) -> list[dict]:
    """A tuning's trials without the time of day."""
    return found.trials.drop(columns=["started", "ended"]).to_dict("records")


def studies(project: Project) -> dict[str, optuna.Study]:
    storage = f"sqlite:///{project.home / 'tuning.db'}"
    return {name: optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)}


# --- what is tried and taken -----------------------------------------------------------------------------------------


def test_trial_0_has_the_defaults_and_nothing_worse_is_taken(project: Project) -> None:
    estimator = learned()
    found = run(project, 6, estimator=estimator)
    first, defaults = found.trials.iloc[0], estimator.get_params()
    assert {name: first[name] for name in SPACE} == {name: defaults[name] for name in SPACE}
    complete = found.trials[found.trials["state"] == "complete"]
    best = complete.loc[complete["value"].idxmin()]
    assert best["value"] <= first["value"]
    assert not found.taken or found.taken == {name: best[name] for name in SPACE}
    for name, (low, high) in SPACE.items():
        assert found.trials[name].between(low, high).all()


def test_poor_defaults_are_replaced_beyond_chance(project: Project) -> None:
    poor = learned(trees=50, learning_rate=0.01, leaves=3)
    found = run(project, 5, estimator=poor)
    assert found.taken
    assert found.reason.startswith("tuned parameters taken: they beat the defaults beyond chance (log_loss -")
    best = found.trials.loc[found.trials["value"].idxmin()]
    assert all(found.taken[name] == best[name] for name in SPACE)


def test_what_only_chance_tells_apart_keeps_the_defaults(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = {"trees": (145, 155), "leaves": (6, 8), "min_leaf_rows": (39, 41), "lambda_l2": (4.9, 5.1)}
    monkeypatch.setattr(tuning, "SPACE", {"learning_rate": (0.029, 0.031), **alike})
    better = 0
    for seed in range(3):
        found = run(project, 5, rows_of(seed=seed))
        assert found.taken == {}
        assert found.reason.startswith("defaults kept: ")
        better += found.trials["value"].min() < found.trials["value"].iloc[0]
    assert better  # some looked better than the defaults, and were not believed


def test_more_trials_raise_the_bar() -> None:
    once = Difference(-1.0, -1.8, -0.1)
    assert tuning._widened(once, 1) == pytest.approx(once)
    widths = [tuning._widened(once, n) for n in (1, 9, 99)]
    assert widths[0].high < 0 < widths[1].high < widths[2].high
    assert widths[2].low < widths[1].low < widths[0].low


def test_a_metric_that_jumps_is_tuned_by_a_smooth_loss(project: Project) -> None:
    assert run(project, 1, metric="auc").objective == "log_loss"
    assert run(project, 1, metric="brier").objective == "brier"
    rows = rows_of()
    rows["label"] *= np.random.default_rng(1).gamma(2, 50, len(rows))
    for metric, objective in (("mae", "mae"), ("norm_gini", "tweedie_deviance")):
        task = asked(project, metric=metric)
        found = tune(project, task, "amount", rows, COLUMNS, learned("amount"), 2)
        assert found is not None
        assert found.objective == objective
        assert np.isfinite(found.trials["value"]).all()


def test_pruned_trials_are_told_and_count(project: Project) -> None:
    found = run(project, 14)
    assert len(found.trials) == 14
    states = found.trials["state"].value_counts()
    assert states["pruned"] >= 1
    assert states["complete"] >= 4
    assert found.trials["state"].iloc[0] == "complete"
    figure = plots.tuning_plot(found.trials, found.objective)
    assert "14 trials brought log_loss from" in figure._suptitle.get_text().replace("\n", " ")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="at least one complete trial"):
        plots.tuning_plot(found.trials[found.trials["state"] == "pruned"], found.objective)


# --- only the past ---------------------------------------------------------------------------------------------------


def test_learned_labels_are_complete_before_the_judging_cutoff(project: Project) -> None:
    rows, task = rows_of(), asked(project)
    question = tuning._parted(task, "probability", rows, COLUMNS)
    ((learn, judge),) = question.folds
    reach = pd.Timedelta(task.horizon + task.settle)
    assert set(rows["cutoff"].iloc[judge]) == {pd.Timestamp(CUTOFFS[-1])}
    assert set(rows["cutoff"].iloc[learn]) == {pd.Timestamp(c) for c in CUTOFFS[:3]}
    assert (rows["cutoff"].iloc[learn] + reach <= pd.Timestamp(CUTOFFS[-1])).all()
    question = tuning._parted(asked(project, horizon=days(40)), "probability", rows, COLUMNS)
    assert set(rows["cutoff"].iloc[question.folds[0][0]]) == {pd.Timestamp(c) for c in CUTOFFS[:2]}


@pytest.mark.parametrize("cutoffs", [1, 2, 4])
def test_without_complete_labels_no_person_is_learned_and_judged(project: Project, cutoffs: int) -> None:
    rows = rows_of()
    rows = rows[rows["cutoff"].isin(CUTOFFS[-cutoffs:])].reset_index(drop=True)
    question = tuning._parted(asked(project, horizon=days(300)), "probability", rows, COLUMNS)
    judged = np.concatenate([judge for _, judge in question.folds])
    assert sorted(judged) == list(np.flatnonzero(rows["cutoff"] == pd.Timestamp(CUTOFFS[-1])))
    for learn, judge in question.folds:
        assert not set(rows["person"].iloc[learn]) & set(rows["person"].iloc[judge])
        assert len(learn) > 50
        assert cutoffs == 1 or rows["cutoff"].iloc[learn].max() < pd.Timestamp(CUTOFFS[-1])
    assert "other persons" in question.judged
    found = run(project, 2, rows, horizon=days(300))
    assert len(found.trials) == 2


@pytest.mark.slow
def test_what_is_judged_says_nothing(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other labels and features from the first exam on: the study is the same one, with no trial added."""
    project, real, seen = mine(), dataset.training_set, []
    expected = champion.contest(project, "churn", trials=3)
    assert expected.tuned is not None
    begun = expected.cutoffs.folds[0].judged
    known = len(studies(project))
    before = {name: len(study.trials) for name, study in studies(project).items()}

    def tampered(*args: Any, **kwargs: Any) -> pd.DataFrame:
        rows = real(*args, **kwargs)
        late = rows["cutoff"] >= pd.Timestamp(begun)
        rows.loc[late, "label"] = ~rows.loc[late, "label"].astype(bool)
        rows.loc[late, "orders_365d"] = 1_000_000
        return rows

    def spied(*args: Any) -> Tuning | None:
        seen.append(args[3])
        return tune(*args)

    monkeypatch.setattr(dataset, "training_set", tampered)
    monkeypatch.setattr(tuning, "tune", spied)
    monkeypatch.setattr(leaks, "inspect", lambda *args, **kwargs: [])  # which would notice
    found = champion.contest(project, "churn", trials=3)
    assert found.tuned is not None
    assert told(found.tuned) == told(expected.tuned)
    assert len(studies(project)) == known
    assert {name: len(study.trials) for name, study in studies(project).items()} == before
    assert not found.backtest.evaluation.equals(expected.backtest.evaluation)
    (rows,) = seen
    assert rows["cutoff"].max() == pd.Timestamp(expected.cutoffs.folds[0].training[-1]) < pd.Timestamp(begun)


# --- going on --------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import optuna
from foretell.project import Project
from pathlib import Path
from test_tuning import run

count, tell = 0, optuna.Study.tell

def dying(self, *args, **kwargs):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(self, *args, **kwargs)

optuna.Study.tell = dying
run(Project(Path(sys.argv[1])), 6)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_end(project: Project, tmp_path: Path) -> None:
    undisturbed = run(Project(write_shop(tmp_path / "other", people=3)), 6)
    paths = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(project.folder), *paths], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    (study,) = studies(project).values()
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    found = run(project, 6)
    assert told(found) == told(undisturbed)
    assert (found.taken, found.reason) == (undisturbed.taken, undisturbed.reason)
    (study,) = studies(project).values()
    assert [t.state.name for t in study.trials].count("FAIL") == 1
    assert len(study.trials) == 6 + 1
    assert len(found.trials[list(SPACE)].drop_duplicates()) == 6


def test_more_trials_add_the_difference_and_the_same_cost_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    few = run(project, 3)
    more = run(project, 5)
    assert told(more)[:3] == told(few)
    (study,) = studies(project).values()
    assert len(study.trials) == 5
    monkeypatch.setattr(tuning._Question, "answered", lambda *_: pytest.fail("fitted again"))
    assert told(run(project, 5)) == told(more)
    again = run(project, 3)
    assert told(again) == told(few)
    assert (again.taken, again.reason) == (few.taken, few.reason)


def test_another_question_starts_anew(project: Project) -> None:
    rows = rows_of()
    run(project, 1, rows)
    run(project, 1, rows, estimator=learned(num_threads=2))  # threads change no value
    assert len(studies(project)) == 1
    changed = rows.copy()
    changed.loc[5, "x3"] += 0.5
    flipped = rows.copy()
    flipped.loc[5, "label"] = 1 - flipped.loc[5, "label"]
    run(project, 1, changed)
    run(project, 1, flipped)
    run(project, 1, rows, metric="auc")
    run(project, 1, rows, horizon=days(60))
    run(project, 1, rows[rows["cutoff"] > CUTOFFS[0]])
    assert len(studies(project)) == 6
    assert all(name.startswith("churn__") for name in studies(project))


def test_ctrl_c_loses_nothing(project: Project) -> None:
    def stop(text: str) -> None:
        if "trial 3 of 4" in text:
            assert "best log_loss 0." in text
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(project, asked(project), "probability", rows_of(), COLUMNS, learned(), 4, stop)
    (study,) = studies(project).values()
    assert len(study.trials) == 2
    assert len(run(project, 4).trials) == 4


# --- refusals --------------------------------------------------------------------------------------------------------


def test_none_and_negative(project: Project) -> None:
    said = ("probability", rows_of(), COLUMNS, learned())
    assert tune(project, asked(project), *said, 0) is None
    with pytest.raises(DataError, match=r"churn: expected 0 trials or more, got -1; pass trials=0"):
        tune(project, asked(project), *said, -1)
    assert not (project.home / "tuning.db").exists()


def test_rows_that_cannot_judge_are_said(project: Project) -> None:
    rows = rows_of()
    rows.loc[rows["cutoff"] == pd.Timestamp(CUTOFFS[-1]), "label"] = 0.0
    found = run(project, 3, rows)
    assert (found.taken, len(found.trials)) == ({}, 0)
    assert found.reason == "not tuned: all labels are the same in a part of 200 rows of the training cutoffs"


@pytest.mark.parametrize(
    ("value", "says"), [("-1", "-1 is not in the range x>=0"), ("abc", "'abc' is not a valid int")]
)
def test_trials_that_are_no_number_are_refused(project: Project, value: str, says: str) -> None:
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "train", "churn", "--trials", value])
    assert done.exit_code == 2
    assert says in done.output
    assert "train --help" in done.output


# --- what is kept and told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["churn", "clv"])
def test_each_trial_is_a_nested_run(trained: TrainedShop, name: str) -> None:
    project, found = trained.project, trained.trained[name]
    tuned = found.contest.tuned
    assert tuned is not None
    assert len(tuned.trials) == project.setting("trials")
    client = registry.quietly(lambda: registry.client(project))
    parent = client.get_run(found.run_id)
    runs = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found.run_id}'", order_by=["attributes.start_time"]
    )
    assert len(runs) == len(tuned.trials)
    for trial, kept in zip(tuned.trials.to_dict("records"), runs, strict=True):
        assert kept.info.run_name == f"trial {trial['number']}"
        assert kept.data.params == {p: str(trial[p]) for p in SPACE}
        assert kept.data.tags["state"] == trial["state"]
        assert kept.info.status == ("FINISHED" if trial["state"] == "complete" else "KILLED")
        assert kept.data.metrics["duration_seconds"] * 1000 == kept.info.end_time - kept.info.start_time
        assert kept.data.metrics.get(tuned.objective) == (trial["value"] if trial["state"] == "complete" else None)
    params = parent.data.params
    assert params["tuned.trials"] == str(len(runs))
    assert params["tuned.reason"] == tuned.reason
    assert {p for p in params if p.removeprefix("tuned.") in SPACE} == {f"tuned.{p}" for p in tuned.taken}
    champions = registry.quietly(lambda: registry.champion(project, name))
    assert champions.contract["tuned"] == tuned.taken


def test_a_notebook_sees_the_result(trained: TrainedShop) -> None:
    found = trained.trained["churn"]
    said = repr(found)
    assert said.startswith("churn v1, judged at 2 cutoffs, 2024-03-01 to 2024-04-01\n")
    assert f"* {found.winner}: log_loss" in said
    assert f"Champion: {found.winner}." in said
    for name in ("calibration", "shap", "compare", "gain", "tuning"):
        assert found.plot(name)._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UnknownName, match=r'tunning: no such plot; did you mean "tuning"\?. \(task churn\)'):
        found.plot("tunning")


@pytest.mark.slow
def test_front_door(mine: Callable[[], Project]) -> None:
    import training

    found = training.train("clv", trials=0, project=str(mine().folder))
    assert (found.version, found.contest.tuned) == ("2", None)
    assert "tuning" not in found.plots
    assert callable(training.train)  # whatever was imported meanwhile


def test_many_tasks_have_a_line_each(trained: TrainedShop, capsys: pytest.CaptureFixture[str]) -> None:
    churn, clv = trained.trained["churn"], trained.trained["clv"]
    lost, won = another(churn, winner="recency"), another(clv, winner=LEARNED, tuned=None)
    report.summary([lost, won])
    head, first, second, *notes = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["task", "rows", "base", "rate"]
    assert first.split()[0] == "churn"
    assert first.endswith("baseline")
    assert "recency v1" in first
    assert second.endswith("learned")
    assert notes[0] == "Learning did not beat the best baseline beyond chance: churn. There it is served."


def another(found: champion.Trained, **changes: Any) -> champion.Trained:
    return replace(found, contest=replace(found.contest, **changes))


FAMILY = """
from foretell import Label, PredictionTask, _, days

buys = PredictionTask(name="buys", population="orders_365d > 0", horizon=days(30), metric="log_loss",
    label=Label(source="order_line", value=_.count() > 0), views=("orders",), purpose="marketing",
    targets={"tea": _.product_id == "sku1-0", "rice": _.product_id == "sku2-0"})
"""


def test_a_task_stands_for_its_family_and_one_failure_stops_no_other(
    project: Project, trained: TrainedShop, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (project.folder / "tasks").mkdir()
    (project.folder / "tasks" / "buys.py").write_text(FAMILY)
    named: list[tuple] = []

    def train(
        home: Project, name: str, step: Callable, trials: int | None, allow: tuple[str, ...]
    ) -> champion.Trained:  # fmt: skip
        named.append((name, trials))
        if name == "buys_tea":
            raise DataError(name, "cannot be")
        churn = trained.trained["churn"]
        return another(churn, task=replace(churn.task, name=name))

    monkeypatch.setattr(champion, "train", train)

    def ask(*words: str) -> tuple[int, str, list]:
        named.clear()
        done = CliRunner().invoke(cli, ["--project", str(project.folder), "train", *words], catch_exceptions=True)
        return done.exit_code, done.output, list(named)

    status, said, names = ask("buys", "--trials", "4")
    assert (status, names) == (2, [("buys", 4), ("buys_tea", 4), ("buys_rice", 4)])
    assert "Error: buys_tea: cannot be" in said
    assert "candidate" not in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("buys")] == ["buys", "buys_rice"]
    assert "  candidate" in ask("buys", "--full")[1]
    status, said, names = ask("buys_rice")
    assert (status, names) == (0, [("buys_rice", None)])
    assert "  candidate" in said
    assert {name for name, _ in ask()[2]} == set(project.definitions.tasks)
