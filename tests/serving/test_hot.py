"""What is answered in a hurry is what the application answers, and nothing is kept beyond its publication."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, mine, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from test_score import rows_of

from foretell.project import Project
from serving.http import api
from serving.http.engine import Engine
from serving.http.kept import BESIDE, Kept
from serving.publish import publish

__all__ = ["mine", "trained"]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def engine(trained: TrainedShop) -> Engine:
    made = Engine(trained.project.folder)
    made.refresh()
    return made


@pytest.fixture(scope="module")
def both(engine: Engine) -> Iterator[tuple[TestClient, TestClient]]:
    """(what is served, the application behind it by itself)"""
    app, served = api.make(engine)
    with TestClient(served) as one, TestClient(app) as other:
        yield one, other


@pytest.fixture(scope="module")
def rows(trained: TrainedShop) -> dict[str, dict[str, dict]]:
    return {task: {row["profile_id"]: row for row in rows_of(trained.project, task)} for task in TASKS}


def plain(answer: Any) -> Any:
    """Without the time of asking."""
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items() if key != "scored_at"}
    return [plain(one) for one in answer] if isinstance(answer, list) else answer


def same(one: Any, other: Any) -> None:
    assert one.status_code == other.status_code, (one.text, other.text)
    assert one.headers["content-type"] == other.headers["content-type"]
    assert plain(one.json()) == plain(other.json())


people = st.sampled_from(
    [
        "card:40000001",
        "40000003",
        "person1@example.org",
        "EMAIL:person3@example.org ",
        "nobody",
        "p",
        "x:y",
        "a" * 500,
        " ",
    ]
)
bodies = st.fixed_dictionaries(
    {"profiles": st.lists(people, min_size=1, max_size=4)},
    optional={
        "tasks": st.none() | st.lists(st.sampled_from([*TASKS, "chrun"]), max_size=3), "reasons": st.booleans(),
        "features": st.booleans(), "more": st.none(),
    },
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_any_body_is_answered_as_by_the_application(both: tuple[TestClient, TestClient], body: dict) -> None:
    served, app = both
    for _ in range(2):  # the second time from what was kept
        same(served.post("/v1/scores", json=body), app.post("/v1/scores", json=body))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    who=people, tasks=st.lists(st.sampled_from([*TASKS, "clvv", ""]), max_size=2),
    flags=st.dictionaries(
        st.sampled_from(["reasons", "features", "more"]), st.sampled_from(["true", "false", "1", "no", "x", ""])
    ),
)  # fmt: skip
def test_any_query_is_answered_as_by_the_application(
    both: tuple[TestClient, TestClient], who: str, tasks: list[str], flags: dict[str, str]
) -> None:
    served, app = both
    for _ in range(2):
        path, query = f"/v1/profiles/{who}/scores", {"task": tasks, **flags}
        same(served.get(path, params=query), app.get(path, params=query))


def test_everyone_is_answered_as_in_the_batch_alone_and_together(
    both: tuple[TestClient, TestClient], rows: dict[str, dict[str, dict]]
) -> None:
    """To the last bit, from the same row, and with the same id."""
    served, _ = both
    everyone = sorted(rows["churn"])
    together = served.post("/v1/scores", json={"profiles": everyone, "features": True}).json()["results"]
    alone = [
        served.post("/v1/scores", json={"profiles": [p], "features": True}).json()["results"][0] for p in everyone[::9]
    ]
    for results in (together, alone):
        for result in results:
            for score in result["scores"]:
                row = rows[score["task"]][result["profile_id"]]
                assert score["value"] == row["value"]
                assert score["score_id"] == row["score_id"]
                features = dict(row["features"])
                assert score["features"].keys() == features.keys()
                for name, value in score["features"].items():
                    assert value == features[name] or (value is None and np.isnan(features[name]))


def test_a_new_publication_begins_with_nothing_kept(mine: Callable[[], Project]) -> None:
    project = mine()
    engine = Engine(project.folder)
    engine.refresh()
    with TestClient(api.make(engine)[1]) as client:
        body = {"profiles": ["card:40000001"]}
        first = client.post("/v1/scores", json=body).json()
        again = client.post("/v1/scores", json=body).json()
        assert first == again, "the second answer is the one that was kept: even its time of scoring is"
        publish(project)
        assert engine.refresh()
        later = client.post("/v1/scores", json=body).json()
    assert plain(later) == plain(first)
    assert later["results"][0]["scores"][0]["scored_at"] > first["results"][0]["scores"][0]["scored_at"]


def test_what_is_too_old_is_not_answered_from_what_was_kept(
    mine: Callable[[], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = mine()
    engine = Engine(project.folder)
    engine.refresh()
    with TestClient(api.make(engine)[1]) as client:
        body = {"profiles": ["card:40000001"]}
        assert client.post("/v1/scores", json=body).json()["results"][0]["scores"]
        monkeypatch.setattr(Project, "now", property(lambda _: NOW + timedelta(days=400)))
        engine.refresh()
        (result,) = client.post("/v1/scores", json=body).json()["results"]
    assert result["scores"] == []
    assert all("could be used until" in problem["problem"] for problem in result["problems"])


def test_there_is_room_for_the_latest() -> None:
    kept = Kept(room=3 * (BESIDE + 10))
    for n in range(3):
        kept.put(n, b"x" * 10)
    assert kept.get(0) == b"x" * 10
    kept.put(3, b"y" * 10)
    assert [kept.get(n) is not None for n in range(4)] == [True, False, True, True]
    kept.put(4, b"z" * 10_000)
    assert [kept.get(n) is not None for n in range(5)] == [False] * 5


# What if?


def ask(client: TestClient, status: int = 200, **body: object) -> dict:
    answer = client.post("/v1/whatif", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize("task", TASKS)
def test_ones_own_row_is_ones_own_score(
    both: tuple[TestClient, TestClient], rows: dict[str, dict[str, dict]], task: str
) -> None:
    client, _ = both
    profile, row = next(iter(rows[task].items()))
    found = ask(client, task=task, profile=profile, rows=[{}])
    (score,) = found["results"]
    assert score["value"] == row["value"]
    assert score["percentile"] == pytest.approx(row["percentile"])
    assert [(r["feature"], r["effect"]) for r in score["reasons"]] == [
        (r["feature"], r["effect"]) for r in row["reasons"]
    ]
    assert (found["kind"], found["model_version"]) == (row["kind"], row["model_version"])
    told = {name: value for name, value in score["features"].items() if value is not None}
    codes = {c for c in told if isinstance(told[c], float) and c in ("known_city", "last_channel", "known_country")}
    again = ask(client, task=task, rows=[{n: v for n, v in told.items() if n not in codes}])
    assert codes or again["results"][0]["value"] == score["value"]


def test_another_feature_is_another_score(
    both: tuple[TestClient, TestClient], rows: dict[str, dict[str, dict]]
) -> None:
    client, _ = both
    profile = next(iter(rows["churn"]))
    asked = [{"days_since_order": days, "orders_90d": 0} for days in (1, 60, 200)]
    found = ask(client, task="churn", profile=profile, rows=asked)["results"]
    assert [score["features"]["days_since_order"] for score in found] == [1, 60, 200]
    assert len({score["value"] for score in found}) > 1


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"task": "chrun", "rows": [{}]}, 404, "churn"),
        ({"task": "churn", "rows": [{"orders_90": 1}]}, 404, "orders_90d"),
        ({"task": "churn", "rows": [{"orders_90d": "many"}]}, 409, "expected a number or null, got 'many'"),
        ({"task": "churn", "rows": []}, 422, "rows"),
        ({"task": "churn", "rows": [{}] * 101}, 422, "rows"),
        ({"task": "churn", "rows": [{"orders_90d": [1]}]}, 422, "orders_90d"),
        ({"task": "churn", "profile": "nobody", "rows": [{}]}, 404, "no such profile"),
        ({"task": "churn", "rows": [{}], "more": 1}, 422, "more"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_if_refuses_what_it_cannot_mean(
    both: tuple[TestClient, TestClient], body: dict, status: int, said: str
) -> None:
    answer = both[0].post("/v1/whatif", content=json.dumps(body), headers=JSON)
    assert answer.status_code == status, answer.text
    assert said in answer.text
