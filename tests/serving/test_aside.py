"""What the service asks of a process beside it: answers, errors and ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_trained import TASKS, TrainedShop, trained
from starlette.testclient import TestClient
from test_score import rows_of

from foretell.errors import NotReady, UnknownName
from segments.audience import audience
from serving.batch import last
from serving.explain import explain
from serving.http import api, aside
from serving.http.aside import Aside
from serving.http.engine import Engine
from training.lookalike import Lookalikes, expand

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


def expanded(trained: TrainedShop, seed, among: str | None = None) -> Lookalikes:
    """As of the batch, by `training.lookalike`."""
    batch = last(trained.project, "churn")
    assert batch
    return expand(trained.project, seed, among, at=batch.cutoff)


def test_a_segment_is_expanded_as_on_the_command_line(client: TestClient, trained: TrainedShop) -> None:
    answer = client.post("/v1/lookalikes", json={"seed": "osloers", "top": 50})
    assert answer.status_code == 200, answer.text
    said, found = answer.json(), expanded(trained, "osloers")
    assert said["results"] == found.ranked.head(50).to_dict("records")
    assert (said["seeds"], said["others"], said["estimator"]) == (found.seeds, len(found.ranked), found.winner)
    assert [mark["feature"] for mark in said["marks"]] == found.marks["feature"].tolist()
    judged = {(one["model"], one["metric"]): one["value"] for one in said["evaluation"]}
    assert judged["lightgbm", "auc"] > 0.8


def test_a_list_is_expanded_among_a_segment(client: TestClient, trained: TrainedShop) -> None:
    seed = [f"card:{40_000_000 + n}" for n in range(1, 121, 4)]
    answer = client.post("/v1/lookalikes", json={"seed": [*seed, "nobody@x"], "among": "osloers"})
    assert answer.status_code == 200, answer.text
    said, found = answer.json(), expanded(trained, seed, "osloers")
    members = set(audience(trained.project, "osloers").members["profile_id"])
    assert {one["profile_id"] for one in said["results"]} <= members
    assert said["results"] == found.ranked.head(100).to_dict("records")
    assert said["unknown"] == ["nobody@x"]


@pytest.mark.parametrize(
    ("body", "status", "subject", "problem"),
    [
        ({"seed": "oslorers"}, 404, "oslorers", "no such segment"),
        ({"seed": "city = 'Oslo'"}, 404, "city = 'Oslo'", "no such segment"),
        ({"seed": "osloers", "among": "nobody"}, 404, "nobody", "no such segment"),
        ({"seed": ["person1@example.org"]}, 409, "the seed", "expected at least 10 seeds and 10 others"),
        ({"seed": ["nobody@x"]}, 409, "the seed", "none of its 1 identifiers is known"),
        ({"top": 5}, 422, "seed", "Field required"),
        ({"seed": []}, 422, "seed.profiles", "at least 1 item"),
        ({"seed": "osloers", "top": 0}, 422, "top", "greater than or equal to 1"),
    ],
)
def test_a_seed_that_cannot_be_expanded(
    client: TestClient, body: dict, status: int, subject: str, problem: str
) -> None:
    answer = client.post("/v1/lookalikes", json=body)
    assert answer.status_code == status, answer.text
    said = answer.json()["error"]
    assert said["subject"] == subject
    assert problem in said["problem"]


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
