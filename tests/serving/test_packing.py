"""What is packed is what was scored, and whoever publishes again takes it over."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from fixtures_trained import TASKS, TrainedShop, mine, trained
from test_score import rows_of

from foretell.project import Project
from models.registry import champion, quietly
from serving import packing, publish
from serving.http.index import STATES, Index, file_of

__all__ = ["mine", "trained"]


def test_every_row_is_the_one_that_was_scored(trained: TrainedShop) -> None:
    index = Index(trained.project)
    layout = index.layout
    assert layout.tasks == [task for task in trained.project.definitions.tasks if task in TASKS]
    for task in TASKS:
        columns = quietly(lambda t=task: champion(trained.project, t)).contract["columns"]
        rows = {row["profile_id"]: dict(row["features"]) for row in rows_of(trained.project, task)}
        packed = index.rows(sorted(rows))
        assert packed.keys() == rows.keys()
        for profile, found in packed.items():
            assert found[layout.tasks.index(task)] == STATES["scored"]
            np.testing.assert_array_equal(
                layout.features(found)[layout.places[task]], [rows[profile][column] for column in columns]
            )
    index.close()


def test_the_models_are_those_of_the_registry(trained: TrainedShop) -> None:
    index = Index(trained.project)
    assert index.models.keys() == set(TASKS)
    for task, blob in index.models.items():
        found, known = pickle.loads(blob), quietly(lambda t=task: champion(trained.project, t))
        assert (found.version, found.run_id, found.contract) == (known.version, known.run_id, known.contract)
    index.close()


def test_published_again_it_is_taken_over(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    project = mine()
    before = Index(project)
    profiles = sorted({row["profile_id"] for row in rows_of(project, "churn")})
    monkeypatch.setattr(packing, "champion", lambda *_: pytest.fail("the model is there already"))
    publish.publish(project)
    after = Index(project)
    assert after.published_at > before.published_at
    assert after.rows(profiles) == before.rows(profiles)
    assert after.models == before.models
    assert file_of(project).stat().st_ino


def test_what_no_longer_fits_is_packed_anew(mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    project = mine()
    before = Index(project)
    profiles = sorted({row["profile_id"] for row in rows_of(project, "churn")})
    asked: list[str] = []
    monkeypatch.setattr(packing, "_known", lambda *_: None)
    monkeypatch.setattr(packing, "champion", lambda p, task, version: asked.append(task) or champion(p, task, version))
    publish.publish(project)
    assert set(asked) == set(TASKS)
    assert Index(project).rows(profiles) == before.rows(profiles)
