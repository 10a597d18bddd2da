"""A registered model can be made again from what its contract pins, whatever came in since; what differs is said."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from fixtures_trained import NOW, TASKS, TrainedShop, load_all, mine, trained

from features import build
from foretell.__main__ import cli
from foretell.errors import DataError, DefinitionError, NotReady, UnknownName
from foretell.project import Project
from lake import consent
from lake.engine import last_batch, session, table
from models import registry
from serving.erase import erase, plan
from serving.score import score
from training import dataset, lineage, reproduce
from training.champion import train
from training.reproduce import TOLERANCE, Reproduction
from unification.decisions import decide
from unification.graph import VETO
from unification.identity import resolve, unify

__all__ = ["mine", "trained"]


def reproduced(project: Project, task: str, version: str | None = None) -> Reproduction:
    return reproduce.reproduce(project, task, version)


def command(project: Project, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(project.folder), "reproduce", *words])


def champion(project: Project, task: str) -> registry.Champion:
    return registry.quietly(lambda: registry.champion(project, task))


def set_now(project: Project, days: int | None) -> Project:
    """The project as it is read some days after NOW; None: now is what the clock says."""
    file = project.folder / "foretell.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("as_of")]
    said = [] if days is None else [f'as_of = "{(NOW + timedelta(days=days)).isoformat()}"']
    file.write_text("\n".join([*lines, *said, ""]))
    return Project(project.folder)


def more_data(project: Project, name: str = "later") -> None:
    """Load sales after now, sales that happened before the cutoffs and come late, and a record that makes two people
    one; then unify."""
    exports, stamp = project.folder / "exports", "%Y-%m-%d %H:%M:%S"
    with (exports / "till" / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["receipt", "sold_at", "card_no", "amount", "quantity", "sku"])
        for person in range(0, 200, 3):
            for days in (-250, -130, -40, 10):
                at = NOW + timedelta(days=days, minutes=person)
                writer.writerow([f"{name}{person}{days}", f"{at:{stamp}}", f"4000{person:04d}", "77.70", "1", "sku1"])
    with (exports / "crm" / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["registered_at", "email", "card_no", "first_name", "city"])
        at = NOW - timedelta(days=300)
        writer.writerow([f"{at:{stamp}}", "person3@example.org", "40000002", "Name2", "Oslo"])
    load_all(project)
    unify(project)


def own_artifacts(project: Project) -> Path:
    """The artifacts of a copied project's runs, which stay with the original, as files of the copy."""
    folder = project.home / "mlflow"
    with closing(sqlite3.connect(folder / "mlflow.db")) as con, con:
        for run, uri in con.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall():
            inside = uri.split("/mlflow/", 1)[1]
            con.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [f"file://{folder / inside}", run])
    return folder / "artifacts"


def change_contract(project: Project, task: str, **changes: Any) -> None:
    [file] = (own_artifacts(project) / task).rglob(f"{champion(project, task).run_id}/**/{registry.CONTRACT}")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def state(project: Project) -> dict[str, tuple[int, int]]:
    """Every file of a project but the log of who writes: size and time of change."""
    files = [f for f in project.folder.rglob("*") if f.is_file() and not f.name.startswith("writer.")]
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


# --- models made again -----------------------------------------------------------------------------------------------


FAST = ("churn", "clv")


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(t, marks=pytest.mark.slow) for t in TASKS if t not in FAST)])
def test_a_model_is_made_again_to_the_last_bit_and_nothing_is_touched(
    mine: Callable[[], Project], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, scratch = mine(), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = state(project)
    found = reproduced(project, name)
    contract = champion(project, name).contract
    assert (found.task, found.version, found.estimator) == (name, "1", contract["estimator"])
    assert found.rows_then == found.rows_now == found.alike == contract["rows"]["final"] > 400
    assert (found.difference, found.erased, found.withdrawn, found.unexplained) == (0, 0, 0, 0)
    assert found.identical
    assert found.reproduced
    assert (found.environment, found.others) == ({}, ())
    assert found.verdict.endswith("rows are answered alike, to the last bit")
    assert state(project) == before
    assert list(scratch.iterdir()) == []  # what is of people does not stay behind


def test_what_came_in_later_changes_neither_the_model_made_again_nor_the_answers(mine: Callable[[], Project]) -> None:
    project = mine()
    task, model = project.definitions.task("churn"), champion(project, "churn")
    stored = model.encode(dataset.eligible(project, task, NOW))
    before = model.predict(stored, NOW)
    batch = last_batch(project)
    more_data(project)
    project = set_now(project, 20)
    assert last_batch(project) == batch + 2
    with session(project) as con:
        assert len({resolve(con, project, card) for card in ("card:40000002", "card:40000003")}) == 1
    # it is told of the past too, which would be learned otherwise
    assert len(stored) != len(changed := dataset.eligible(project, task, NOW)) or not stored.equals(
        model.encode(changed)
    )
    found = reproduced(project, "churn")
    assert (found.rows_then, found.rows_now, found.alike) == (found.rows_then,) * 3
    assert (found.difference, found.identical, found.reproduced) == (0, True, True)
    score(project, ["churn"])
    after = champion(project, "churn").predict(stored, NOW)
    assert len(stored) > 100
    assert np.array_equal(before.to_numpy(), after.to_numpy())


@pytest.mark.slow
def test_views_and_questions_edited_since_are_those_of_the_model(mine: Callable[[], Project]) -> None:
    project = mine()
    for folder, original, old, new in (
        ("views", Path(build.__file__).parent / "views" / "orders.py", '"spend_30d": spend(30)',
         '"spend_31d": spend(31)'),
        ("tasks", Path(registry.__file__).parent / "churn.py", "orders_365d > 0", "orders_365d > 1"),
    ):  # fmt: skip
        text = original.read_text()
        assert old in text
        (project.folder / folder).mkdir(exist_ok=True)
        (project.folder / folder / original.name).write_text(text.replace(old, new))
    found = reproduced(Project(project.folder), "churn")
    assert (found.difference, found.rows_now, found.reproduced) == (0, found.rows_then, True)


@pytest.mark.slow
def test_each_of_three_versions_can_be_made_again(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them was trained while the clock went on, which the tests' now does not."""
    project, seconds = mine(), count()
    clock = property(lambda p: p.setting("as_of") or NOW + timedelta(days=45, seconds=next(seconds)))
    monkeypatch.setattr(Project, "now", clock)
    for days, trials in ((31, 0), (None, 2)):
        project = set_now(project, days)
        more_data(project, name=f"by{days}")
        train(project, "churn", trials=trials)
    latest = registry.quietly(lambda: registry.champion(project, "churn", "3"))
    assert datetime.fromisoformat(latest.contract["now"]) > NOW + timedelta(days=45)
    rows = []
    for version in ("1", "2", "3"):
        found = reproduced(project, "churn", version)
        assert (found.version, found.difference, found.identical) == (version, 0, True)
        assert found.reproduced
        rows.append(found.rows_now)
    assert len(set(rows)) > 1  # they are of different states


# --- people who are gone ---------------------------------------------------------------------------------------------


def test_who_has_withdrawn_is_not_learned_from_again_and_is_counted(mine: Callable[[], Project]) -> None:
    project = mine()
    with session(project) as con:
        who = resolve(con, project, "card:40000001")
        [theirs] = con.execute(
            "SELECT final FROM training_rows WHERE task = 'churn' AND profile_id = ?", [who]
        ).fetchall()
    assert theirs[0] > 0
    consent.say(project, "card:40000001", "retention", False)
    found = reproduced(project, "churn")
    assert (found.withdrawn, found.erased, found.unexplained) == (theirs[0], 0, 0)
    assert found.rows_now == found.rows_then - theirs[0]
    assert found.difference > TOLERANCE
    assert not found.reproduced
    assert f"0 of {found.rows_then:,} rows erased, {theirs[0]} withdrawn" in found.verdict
    assert "`foretell train churn` registers a version that can be" in found.verdict
    assert reproduce._people(project, "email") == []  # of another purpose nothing was said
    consent.say(project, "card:40000001", "retention", True)  # they may be used again
    assert reproduce._people(project, "retention") == []


def test_what_was_written_by_hand_since_is_left_out_by_the_clock(mine: Callable[[], Project], tmp_path: Path) -> None:
    """The project's now is the same day before and after a training, so that it cannot tell them apart."""
    project = mine()
    consent.say(project, "card:40000001", "retention", True)
    decide(project, VETO, "card:40000001", "card:40000004")
    model, trained = registry.quietly(lambda: reproduce._registered(project, "churn", None))
    tables, written = ("consents", "decisions"), datetime.now(UTC)
    for name, at, rows in (("then", trained, 0), ("since", written, 1)):
        (tmp_path / name).mkdir()
        then = reproduce._as_it_was(project, model, at, tmp_path / name)
        assert [table(then, t).rows() for t in tables] == [rows, rows]
        assert (then.now, then.key) == (NOW, project.key)
        assert last_batch(then) == last_batch(project)
        assert not (then.home / "key").exists()


@pytest.mark.slow
def test_erased_rows_are_counted_and_said(mine: Callable[[], Project]) -> None:
    project = mine()
    receipt = erase(project, plan(project, "card:40000001"))
    [rows] = [m["final"] for m in receipt["models"] if m["task"] == "churn"]
    assert rows > 0
    assert lineage.erased_rows(project, "churn", "1") == rows
    answer = command(project, "churn")
    assert answer.exit_code == 1
    model = champion(project, "churn").contract["rows"]["final"]
    assert f"rows: {model:,} then, {model - rows:,} now, {rows} erased, 0 withdrawn" in answer.output
    assert "churn v1 (blend) is not reproduced" in answer.output
    assert f"{rows} of {model:,} rows erased" in answer.output
    assert "`foretell train churn` registers a version that can be" in answer.output


# --- what is another -------------------------------------------------------------------------------------------------


def test_other_parameters_in_the_contract_are_found_out(mine: Callable[[], Project]) -> None:
    project = mine()
    assert champion(project, "churn").contract["estimator"] == "blend"
    change_contract(project, "churn", tuned={"trees": 20, "leaves": 3})
    answer = command(project, "churn")
    assert answer.exit_code == 1
    assert "churn v1 (blend) is not reproduced" in answer.output
    assert "tuned: the model has" in answer.output
    assert "made again {'trees': 20, 'leaves': 3}" in answer.output
    assert "Take back what was changed since" in answer.output


@pytest.mark.slow
def test_other_cutoffs_in_the_contract_are_found_out(mine: Callable[[], Project]) -> None:
    project = mine()
    cutoffs = champion(project, "clv").contract["cutoffs"]
    change_contract(project, "clv", cutoffs=cutoffs[1:])
    found = reproduced(project, "clv")
    assert found.unexplained > 0
    assert not found.reproduced
    assert f"{found.unexplained:,} rows are missing" in found.verdict


def test_packages_that_are_others_are_named(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    project = mine()
    model, real = champion(project, "churn"), reproduce.installed
    assert registry.quietly(lambda: reproduce._environment(model)) == {}
    monkeypatch.setattr(reproduce, "installed", lambda name: "4.0.1" if name == "lightgbm" else real(name))
    monkeypatch.setattr(reproduce.platform, "python_version", lambda: "3.12.1")
    found = registry.quietly(lambda: reproduce._environment(model))
    assert found == {"lightgbm": (real("lightgbm"), "4.0.1"), "python": (found["python"][0], "3.12.1")}


def made(**changes: Any) -> Reproduction:
    said: dict[str, Any] = {
        "task": "churn", "version": "2", "estimator": "blend", "rows_then": 100, "rows_now": 100, "erased": 0,
        "withdrawn": 0, "difference": 0.0, "alike": 100,
    }  # fmt: skip
    return Reproduction(**{**said, **changes})


@pytest.mark.parametrize(
    ("changes", "reproduced", "says"),
    [
        ({}, True, "churn v2 (blend) is reproduced: all 100 rows are answered alike, to the last bit"),
        ({"difference": 3e-13, "alike": 90}, True, "answered alike, within 3.0e-13"),
        ({"difference": 2e-9, "alike": 90}, False, "10 of 100 rows are answered otherwise, by up to 2e-09. Take back"),
        ({"difference": float("nan"), "alike": 99}, False, "1 of 100 rows are answered otherwise, by up to nan"),
        ({"rows_now": 97, "alike": 97}, False, "3 rows are missing. Take back"),
        ({"rows_now": 103, "alike": 103}, False, "3 rows came to them"),
        ({"rows_now": 97, "alike": 97, "erased": 2, "withdrawn": 1}, True,
         "to the last bit; 2 of 100 rows erased, 1 withdrawn since"),
        ({"rows_now": 98, "alike": 0, "erased": 2, "difference": 0.1}, False,
         "by up to 0.1; 2 of 100 rows erased, 0 withdrawn. Without these rows it cannot be: `foretell train churn`"),
        ({"difference": 0.1, "alike": 0, "environment": {"lightgbm": ("4.6.0", "4.0.1")}}, False,
         "lightgbm was 4.6.0, is 4.0.1. Install the packages"),
    ],
)  # fmt: skip
def test_verdict(changes: dict, reproduced: bool, says: str) -> None:
    found = made(**changes)
    assert found.reproduced == reproduced
    assert says in found.verdict


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (made(), 0, "rows: 100 then, 100 now, 0 erased, 0 withdrawn; largest difference: 0\nchurn v2 (blend) is rep"),
        (made(difference=0.25, alike=0, environment={"numpy": ("2.1", "2.2")}), 1,
         "largest difference: 0.25\nnumpy: 2.1 then, 2.2 now\nchurn v2 (blend) is not reproduced"),
    ],
)  # fmt: skip
def test_the_command_says_it_and_ends_with_0_or_1(
    mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch, found: Reproduction, status: int, says: str
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(reproduce, "reproduce", lambda project, *said: asked.append(said[:2]) or found)
    answer = command(mine(), "churn", "--version", "2")
    assert asked == [("churn", "2")]
    assert answer.exit_code == status
    assert says in answer.output


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_unknown_version_is_refused_with_those_there_are(trained: TrainedShop) -> None:
    with pytest.raises(UnknownName, match=r"churn v11: no such version; known: 1$"):
        reproduced(trained.project, "churn", "11")


def test_an_unknown_task_is_refused(trained: TrainedShop) -> None:
    with pytest.raises(UnknownName, match=r'chrun: no such task; did you mean "churn"\?'):
        reproduced(trained.project, "chrun")


def test_a_task_never_trained_is_refused(mine: Callable[[], Project]) -> None:
    project = mine()
    (project.folder / "tasks").mkdir()
    text = (Path(registry.__file__).parent / "churn.py").read_text()
    (project.folder / "tasks" / "leaves.py").write_text(text.replace("churn", "leaves"))
    for version in (None, "1"):
        with pytest.raises(NotReady, match=r"leaves: nothing is trained yet; run `foretell train leaves` first"):
            reproduced(Project(project.folder), "leaves", version)


def test_a_changed_source_is_refused(mine: Callable[[], Project]) -> None:
    project = mine()
    file = project.folder / "sources" / "till.py"
    file.write_text(file.read_text().replace('currency="NOK"', 'currency="NOK", timezone="Asia/Tokyo"'))
    with pytest.raises(DefinitionError, match=r"the sources of .*orders.* have changed since; take back the change"):
        reproduced(Project(project.folder), "churn")


def test_a_model_of_another_release_is_refused(trained: TrainedShop) -> None:
    model = champion(trained.project, "churn")
    del model.model.parts_  # as if its class had come to need it since
    rows = pd.DataFrame([model.background])
    with pytest.raises(DataError, match=r"churn v1: was registered by another release, and cannot be asked by this"):
        reproduce._answers(model, rows)


def test_facts_that_are_gone_are_missed(mine: Callable[[], Project]) -> None:
    project = mine()
    ledger = table(project, "batches")
    with session(project) as con:
        rows = con.sql(f"SELECT * FROM {ledger.scan()} WHERE batch < {last_batch(project)}").to_arrow_table()
    shutil.rmtree(ledger.path)
    ledger.append(rows, why="restored from a backup")
    with pytest.raises(DataError, match=r"churn v1: learned from the facts up to batch \d+, and the lake ends at \d+"):
        reproduced(project, "churn")
