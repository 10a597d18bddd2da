"""A killed load or score is repaired by running it again: nothing is lost, nothing is there twice.

`kill -9` hits the process group at random moments, and exactly before and after each thing that a command leaves behind
(a commit to a table, a derived file, a step of the feature store). The commands run as they are: `kill_runner.py` only
forks them, after the slow imports, and hooks the kill in from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from fixtures_trained import TrainedShop, copy_of, trained, write_shop

from foretell.project import Project
from lake.engine import session, source_table, table
from unification.identity import unify

__all__ = ["trained"]

RUNNER = """
import importlib, json, os, random, signal, sys, time

folder, words, plans, modules = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
if small := os.environ.get("SMALL_CHUNKS"):
    importlib.import_module("serving.stream").CHUNK_BYTES = int(small)
from foretell.__main__ import main

HOOKS = [("lake.tables", "Table", "append"), ("lake.tables", "Table", "adopt"),
         ("serving.staging", "Staging", "keep"), ("serving.staging", "Staging", "write"),
         ("lake.derived", None, "write"), ("ingestion.load", None, "read"),
         ("lake.tables", "Table", "rewrite"),
         ("features.store.repository", None, "apply"), ("features.store.repository", None, "materialise")]


def die_at(when, only, nth):
    count = 0
    for module, holder, name in HOOKS:
        if only and name not in only:
            continue
        home = importlib.import_module(module)
        home = getattr(home, holder) if holder else home

        def wrapped(*args, original=getattr(home, name), **kwargs):
            nonlocal count
            count += 1
            due = count == nth
            if due and when == "before":
                os.killpg(0, signal.SIGKILL)
            result = original(*args, **kwargs)
            if due and when == "after":
                os.killpg(0, signal.SIGKILL)
            return result

        setattr(home, name, wrapped)


longest = 0.0
for plan in plans:
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        sink = os.open(os.devnull if plan is not None else folder + ".out", os.O_RDWR | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        if plan and plan["when"] != "clock":
            die_at(plan["when"], plan.get("only"), plan["nth"])
        sys.argv = ["foretell", "--project", folder, *words]
        try:
            main()
        except SystemExit as stop:
            os._exit(stop.code or 0)
        os._exit(0)
    if plan and plan["when"] == "clock":
        time.sleep(plan["share"] * longest if "share" in plan else plan["seconds"])
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it was done, or it is not yet a group of its own
            os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - start
    longest = max(longest, seconds)
    print(json.dumps({"signal": os.WTERMSIG(status), "code": os.waitstatus_to_exitcode(status), "seconds": seconds}))
"""

LOAD_IMPORTS = ("ibis", "rich.progress", "filelock", "pandas", "foretell.discovery", "models.churn", "ingestion.load")
SCORE_IMPORTS = (*LOAD_IMPORTS, "feast", "mlflow.sklearn", "mlflow.artifacts", "lightgbm", "serving.score")


def run(
    folder: Path, words: Sequence[str], plans: list[dict | None], modules: Sequence[str], **more: str
) -> list[dict]:
    """Run a command once for each plan (None: to its end, which must be a good one); says how each ended. more:
    variables of its environment."""
    script = folder.parent / "kill_runner.py"
    script.write_text(RUNNER)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **more}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps([str(folder), words, plans, modules])],
        capture_output=True, text=True, timeout=500, env=environ, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    for plan, end in zip(plans, ends, strict=True):
        said = Path(f"{folder}.out").read_text() if plan is None else ""
        assert plan is not None or end["code"] == 0, said
    return ends


def at_calls(*points: tuple[str, int], only: Sequence[str] | None = None) -> list[dict | None]:
    return [{"when": when, "nth": nth, "only": only} for when, nth in points]


def killed(ends: list[dict]) -> int:
    return sum(end["signal"] == 9 for end in ends)


# --- load ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unloaded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(write_shop(tmp_path_factory.mktemp("unloaded") / "shop", people=250, damaged=4))
    assert len(project.key) == 64
    return project


def loaded_state(project: Project) -> dict[str, Any]:
    """What a load leaves that must not depend on when it was interrupted."""
    unify(project)
    state: dict[str, Any] = {}
    with session(project) as con:
        for source in project.definitions.sources:
            state[source] = con.execute(
                f'SELECT fact_id, known_at, event_at, node, payload FROM "{source}" ORDER BY ALL'
            ).fetchall()
            stored = source_table(project, source).scan()  # not cut at the watermark
            assert duckdb.sql(f"SELECT count(*) FROM {stored}").fetchall() == [(len(state[source]),)]
        state["quarantine"] = con.execute(
            "SELECT quarantine_id, source, file, line, reason, raw FROM quarantine ORDER BY ALL"
        ).fetchall()
        state["members"] = con.execute("SELECT * FROM member ORDER BY ALL").fetchall()
        state["golden"] = con.execute("SELECT * FROM golden ORDER BY ALL").fetchall()
        state["ledger"] = con.execute(
            "SELECT source, file, sha256, rows, added, known, quarantined FROM batches ORDER BY ALL"
        ).fetchall()
    return state


@pytest.fixture(scope="module")
def undisturbed(unloaded: Project) -> dict[str, Any]:
    project = copy_of(unloaded, unloaded.folder.parent / "undisturbed")
    run(project.folder, ["load"], [None], LOAD_IMPORTS)
    state = loaded_state(project)
    assert len(state["till"]) > 1000
    assert Counter(row[1] for row in state["quarantine"]) == {"till": 8, "web": 4, "crm": 4}
    return state


def assert_same(state: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in expected:
        assert state[name] == expected[name], name
    for source in ("till", "web", "crm"):
        assert len({fact_id for fact_id, *_ in state[source]}) == len(state[source])
    assert len({row[0] for row in state["quarantine"]}) == len(state["quarantine"])


@pytest.mark.slow
def test_load_killed_around_every_commit(unloaded: Project, undisturbed: dict, tmp_path: Path) -> None:
    project = copy_of(unloaded, tmp_path / "shop")
    # a run commits quarantine, facts and ledger of each file not loaded yet: ("after", 1) moves on by one commit
    plans = at_calls(*[("before", 1), ("after", 1)] * 7, ("after", 3), ("before", 3), ("after", 2), only=["append"])
    ends = run(project.folder, ["load"], [*plans, None], LOAD_IMPORTS)
    assert killed(ends) == len(plans) >= 10
    assert_same(loaded_state(project), undisturbed)


@pytest.mark.slow
def test_load_killed_at_random_moments(unloaded: Project, undisturbed: dict, tmp_path: Path) -> None:
    calm = copy_of(unloaded, tmp_path / "calm")
    whole = run(calm.folder, ["load"], [None], LOAD_IMPORTS)[0]["seconds"]
    project, draw = copy_of(unloaded, tmp_path / "shop"), Random(1)
    plans: list[dict | None] = [{"when": "clock", "seconds": draw.uniform(0.1, 0.25) * whole} for _ in range(12)]
    ends = run(project.folder, ["load"], [*plans, None], LOAD_IMPORTS)
    assert killed(ends) >= 3  # the later ones may find nothing left to do
    assert_same(loaded_state(project), undisturbed)


def test_killed_load_is_not_visible(unloaded: Project, tmp_path: Path) -> None:
    project = copy_of(unloaded, tmp_path / "shop")
    run(project.folder, ["load", "crm"], at_calls(("before", 3), only=["append"]), LOAD_IMPORTS)
    assert source_table(project, "crm").rows() > 0
    assert not table(project, "batches").exists
    with session(project) as con:
        assert con.execute("SELECT count(*) FROM crm").fetchall() == [(0,)]


@pytest.mark.slow
def test_killed_load_then_another_source(unloaded: Project, undisturbed: dict, tmp_path: Path) -> None:
    """Whoever goes on with another source first gets the same facts in the end."""
    project = copy_of(unloaded, tmp_path / "shop")
    run(project.folder, ["load", "crm"], at_calls(("before", 3), only=["append"]), LOAD_IMPORTS)
    run(project.folder, ["load", "web"], [None], LOAD_IMPORTS)
    run(project.folder, ["load"], [None], LOAD_IMPORTS)
    state = loaded_state(project)
    assert_same({**state, "ledger": 0}, {**undisturbed, "ledger": 0})


# --- score -----------------------------------------------------------------------------------------------------------

SCORE = ["score", "churn", "clv"]  # two tasks have every step that there is, between two tasks too


def scores_of(project: Project) -> list[tuple]:
    with session(project) as con:
        found = con.execute(
            """SELECT task, profile_id, cutoff, value, percentile, score_id, features, reasons FROM scores
               WHERE list_contains(?, task) ORDER BY ALL""", [SCORE],
        ).fetchall()  # fmt: skip
    ids = Counter(row[5] for row in found)
    assert set(ids.values()) == {1}
    return [tuple(str(cell) if isinstance(cell, dict | list) else cell for cell in row) for row in found]


def unscored(trained: TrainedShop, folder: Path) -> Project:
    """The trained project without scores, and without anything that scoring builds."""
    project = copy_of(trained.project, folder)
    for name in ("scores", "scored_rows", "scored_columns"):
        shutil.rmtree(project.home / "lake" / name)
    shutil.rmtree(project.home / "scored")
    shutil.rmtree(project.home / "features")
    shutil.rmtree(project.home / "feast")
    (project.home / "graph" / "state.json").unlink()
    return project


@pytest.mark.slow
def test_score_killed_around_every_step(trained: TrainedShop, tmp_path: Path) -> None:
    expected = scores_of(trained.project)
    project = unscored(trained, tmp_path / "shop")
    plans = [
        *at_calls(("before", 1), ("after", 2), ("after", 1), only=["write"]),
        *at_calls(("before", 1), ("after", 1), only=["keep"]),  # of the one chunk that there is
        *at_calls(("before", 1), ("after", 1), only=["adopt"]),  # before and after the rows of features
        *at_calls(("before", 1), ("after", 1), only=["append"]),  # what they are called
        *at_calls(("before", 2), ("after", 2), only=["adopt"]),  # the first task's scores
        *at_calls(("before", 2), ("after", 2), only=["adopt"]),  # and the second's
        *at_calls(("before", 1), ("after", 1), ("before", 2), ("after", 2), only=["apply", "materialise"]),
    ]
    ends = run(project.folder, SCORE, [*plans, None], SCORE_IMPORTS)
    assert killed(ends) == len(plans) >= 10
    assert scores_of(project) == expected  # the same questions, asked again, have the same answers


@pytest.mark.slow
def test_a_batch_goes_on_at_the_chunk_where_it_was(trained: TrainedShop, tmp_path: Path) -> None:
    """What was staged is not done again; readers see a task's batch whole or not at all."""
    expected = scores_of(trained.project)
    project = unscored(trained, tmp_path / "shop")

    def staged() -> list[str]:
        return sorted(file.name for file in (project.home / "staging").glob("*/*.npz"))

    def ends(plans: list[dict | None]) -> int:
        return killed(run(project.folder, SCORE, plans, SCORE_IMPORTS, SMALL_CHUNKS="12000"))

    assert ends(at_calls(("after", 2), ("before", 3), only=["keep"])) == 2
    assert staged() == [f"{chunk:05}.npz" for chunk in range(4)]  # two of the first run, two of the second
    assert ends(at_calls(("before", 1), ("before", 2), only=["adopt"])) == 2
    assert len(staged()) > 5
    assert not table(project, "scores").exists
    assert ends(at_calls(("after", 2), only=["adopt"])) == 1
    seen = Counter(row[0] for row in scores_of(project))
    assert seen == {"churn": sum(row[0] == "churn" for row in expected)}
    assert ends(at_calls(("before", 1), only=["keep"])) == 0  # nothing is left to be kept: it comes to its end
    assert scores_of(project) == expected
    assert not (project.home / "staging").exists()


@pytest.mark.slow
def test_score_killed_at_random_moments(trained: TrainedShop, tmp_path: Path) -> None:
    expected = scores_of(trained.project)
    project, draw = unscored(trained, tmp_path / "shop"), Random(2)
    plans: list[dict | None] = [{"when": "clock", "seconds": draw.uniform(0.3, 3)} for _ in range(10)]
    ends = run(project.folder, SCORE, [*plans, None], SCORE_IMPORTS, SMALL_CHUNKS="12000")
    assert killed(ends) >= 3  # the later ones may find little left to do
    assert scores_of(project) == expected
