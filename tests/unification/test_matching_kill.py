"""A matching that was killed is repaired by running it again: the same links, none twice, and the same profiles."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from conftest import make_shop
from test_kill import at_calls, killed, run
from test_matching_shop import CRM, TWICE, one, people

from foretell.project import Project
from lake.engine import session, table
from unification.matching import kept

MATCH = ["identity", "match"]
IMPORTS = (
    "ibis", "rich.progress", "filelock", "pandas", "mlflow.artifacts", "splink", "scipy.sparse.csgraph",
    "unification.matching.run",
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unmatched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Loaded; nothing is matched or trained."""
    return make_shop(tmp_path_factory.mktemp("unmatched") / "shop", facts={"crm": people()}, days=100,
                     sources={"crm": CRM})  # fmt: skip


def copy(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder)
    return Project(folder)


def found(project: Project) -> tuple[list[tuple], set[frozenset[str]]]:
    """The pairs, each of which must be there once; and who is whose, profile by profile."""
    pairs = kept.pairs(project)
    with session(project) as con:
        rows = con.execute(f"SELECT match_id, state FROM {table(project, kept.TABLE).scan()}").fetchall()
        profiles = con.execute("SELECT list(node) FROM member GROUP BY profile_id").fetchall()
    assert set(Counter(rows).values()) == {1}
    said = [(p.match_id, p.state, p.a, p.b, round(p.weight, 9), p.reason) for p in pairs]
    return said, {frozenset(nodes) for (nodes,) in profiles}


@pytest.fixture(scope="module")
def undisturbed(unmatched: Project) -> tuple[Project, float]:
    """Matched in one go, and the seconds that took."""
    project = copy(unmatched, unmatched.folder.parent / "undisturbed")
    seconds = run(project.folder, MATCH, [None], IMPORTS)[0]["seconds"]
    assert sum(one(project, n) for n in range(TWICE)) >= TWICE - 2
    return project, seconds


def test_killed_around_every_commit(unmatched: Project, undisturbed: tuple[Project, float], tmp_path: Path) -> None:
    project = copy(unmatched, tmp_path / "shop")
    plans = at_calls(("before", 1), ("after", 1), only=["append"])  # of the pairs
    plans += at_calls(("before", 1), ("after", 1), ("before", 2), only=["write"])  # of what profiles are shown by
    ends = run(project.folder, MATCH, [*plans, None], IMPORTS)
    assert killed(ends) >= 4
    assert found(project) == found(undisturbed[0])


def test_killed_at_random_moments(unmatched: Project, undisturbed: tuple[Project, float], tmp_path: Path) -> None:
    project, draw = copy(unmatched, tmp_path / "shop"), Random(3)
    expected, seconds = undisturbed
    plans: list[dict | None] = [{"when": "clock", "seconds": draw.uniform(0.1, 0.95) * seconds} for _ in range(6)]
    ends = run(project.folder, MATCH, [*plans, None], IMPORTS)
    assert killed(ends) >= 3  # the later ones may find little left to do
    assert found(project) == found(expected)
