"""What the service asks of a process beside it: answers, errors and ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_trained import TASKS, TrainedShop, trained
from starlette.testclient import TestClient
from test_score import rows_of

from foretell.errors import NotReady, UnknownName
from serving.explain import explain
from serving.http import api, aside
from serving.http.aside import Aside
from serving.http.engine import Engine

__all__ = ["trained"]


@pytest.fixture(scope="module")
def client(trained: TrainedShop) -> Iterator[TestClient]:
    engine = Engine(trained.project.folder)
    engine.refresh()
    with TestClient(api.make(engine)[1]) as made:
        yield made
    engine.stop()


@pytest.mark.parametrize("task", TASKS)
def test_a_score_is_explained_as_on_the_command_line(client: TestClient, trained: TrainedShop, task: str) -> None:
    row = rows_of(trained.project, task)[0]
    answer = client.get(f"/v1/scores/{row['score_id']}")
    assert answer.status_code == 200, answer.text
    said, found = answer.json(), explain(trained.project, row["score_id"])
    assert said["rescored"] == {"value": row["value"], "identical": True, "difference": 0.0}
    assert said["rebuilt"]["agrees"]
    assert said["same_reasons"]
    assert said["score"]["profile_id"] == row["profile_id"]
    assert [one["feature"] for one in said["reasons"]] == [one["feature"] for one in found["reasons"]]
    assert [len(one["facts"]) for one in said["behind"]] == [len(one["facts"]) for one in found["behind"]]
    assert [one["behind"] for one in said["behind"]] == [one["behind"] for one in found["behind"]]
    assert task != "churn" or sum(one["behind"] for one in said["behind"]) > 0


def test_an_id_that_no_score_has(client: TestClient) -> None:
    answer = client.get(f"/v1/scores/{'0' * 32}")
    assert answer.status_code == 404
    assert answer.json()["error"]["problem"] == "no score has this id"
    assert "32 hexadecimal digits" in answer.json()["error"]["fix"]


def test_errors_come_through(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    beside = Aside(tmp_path)
    try:
        with pytest.raises(NotReady, match="nothing has been scored yet"):
            beside.ask("serving.explain", "explain", "0" * 32)
    finally:
        beside.close()
    assert beside._pool is None


def test_who_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    monkeypatch.setattr(aside, "PATIENCE", 0.0)
    beside = Aside(tmp_path)
    with pytest.raises(NotReady, match="the answer took too long"):
        beside.ask("serving.explain", "explain", "x")
    assert beside._pool is None
    monkeypatch.setattr(aside, "PATIENCE", 200)
    try:
        with pytest.raises((NotReady, UnknownName)):
            beside.ask("serving.explain", "explain", "x")
    finally:
        beside.close()
