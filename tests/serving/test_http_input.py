"""Whatever is sent, the answer says what was wrong in one shape, and never is the service's failure."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, copy_of, load_all, mine, trained, write_shop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from foretell import __main__ as program
from foretell.errors import NotReady
from foretell.project import Project
from serving.http import api, errors
from serving.http.engine import Engine, State

__all__ = ["mine", "trained"]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def engine(trained: TrainedShop) -> Engine:
    made = Engine(trained.project.folder)
    made.refresh()
    return made


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(api.make(engine)[1]) as made:
        yield made


def refused(answer, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert list(said) == ["error"]
    assert list(said["error"]) == ["subject", "problem", "fix"]
    assert all(isinstance(part, str) and part for part in said["error"].values())
    assert "Traceback" not in answer.text
    return said["error"]


@pytest.mark.parametrize(
    ("body", "status", "subject"),
    [
        ("", 422, "body"),
        ("{", 400, "body"),
        ('{"profiles": ["a"]', 400, "body"),
        ("not json", 400, "body"),
        (b'{"profiles": ["\xff\xfe"]}', 400, None),
        (b"\x00", 400, None),
        ("[" * 50_000, 400, None),
        ('{"profiles": ' + "[" * 900 + "]" * 900 + "}", 422, "profiles.0"),
        ("null", 422, "body"),
        ("[]", 422, "body"),
        ('"text"', 422, "body"),
        ("{}", 422, "profiles"),
        ('{"profiles": null}', 422, "profiles"),
        ('{"profiles": []}', 422, "profiles"),
        ('{"profiles": "a"}', 422, "profiles"),
        ('{"profiles": {"a": 1}}', 422, "profiles"),
        ('{"profiles": [null]}', 422, "profiles.0"),
        ('{"profiles": ["a", 1]}', 422, "profiles.1"),
        ('{"profiles": [""]}', 422, "profiles.0"),
        ('{"profiles": ["\\ud800"]}', 422, "profiles.0"),
        ('{"profiles": [NaN]}', 422, "profiles.0"),
        ('{"profiles": [Infinity]}', 422, "profiles.0"),
        ('{"profiles": ["a"], "reasons": NaN}', 422, "reasons"),
        ('{"profiles": ["a"], "reasons": -Infinity}', 422, "reasons"),
        ('{"profiles": [1' + "0" * 400 + "]}", 422, "profiles.0"),
        ('{"profiles": [1' + "0" * 5_000 + "]}", 400, None),
        ('{"profiles": ["a"], "reasons": "yes"}', 422, "reasons"),
        ('{"profiles": ["a"], "reasons": null}', 422, "reasons"),
        ('{"profiles": ["a"], "tasks": "churn"}', 422, "tasks"),
        ('{"profiles": ["a"], "tasks": []}', 422, "tasks"),
        ('{"profiles": ["a"], "tasks": [1]}', 422, "tasks.0"),
        ('{"profiles": ["a"], "task": ["churn"]}', 422, "task"),
        ('{"profiles": ["a"], "tasks": ["chrun"]}', 404, "chrun"),
        (json.dumps({"profiles": ["a" * 501]}), 422, "profiles.0"),
        (json.dumps({"profiles": ["a"] * 1_001}), 422, "profiles"),
        (json.dumps({"profiles": ["a" * 2_000_000]}), 413, "body"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | bytes) else str(value),
)
def test_bad_bodies(client: TestClient, body: str | bytes, status: int, subject: str | None) -> None:
    said = refused(client.post("/v1/scores", content=body, headers=JSON), status)
    if subject:
        assert said["subject"] == subject


def test_what_it_suggests(client: TestClient) -> None:
    said = refused(client.post("/v1/scores", json={"profiles": ["a"], "tasks": ["chrun"]}), 404)
    assert said["fix"] == 'did you mean "churn"?'
    said = refused(client.get("/v1/scors"), 404)
    assert said["fix"] == 'did you mean "/v1/scores"?; see /docs'
    said = refused(client.get("/v1/profiles/x/scores", params={"task": "clvv"}), 404)
    assert said["fix"] == 'did you mean "clv"?'


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "json", "é"])
def test_wrong_content_type(client: TestClient, kind: str) -> None:
    body = '{"profiles": ["a"]}'
    said = refused(client.post("/v1/scores", content=body, headers={"Content-Type": kind.encode()}), 415)
    assert "expected application/json" in said["problem"]
    right = client.post("/v1/scores", content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert right.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/scores", 405), ("PUT", "/v1/scores", 405), ("DELETE", "/v1/profiles/x", 405),
        ("POST", "/v1/tasks", 405), ("POST", "/livez", 405), ("OPTIONS", "/v1/scores", 405), ("BREW", "/docs", 405),
        ("GET", "/v1", 404), ("GET", "/v2/scores", 404), ("GET", "/v1/scores/", 404), ("POST", "/nowhere", 404),
        ("POST", "/metrics", 405), ("GET", "/v1/profiles", 404), ("GET", "/v1/profiles/", 404),
        ("GET", "/v1/profiles/nobody@nowhere.example", 404), ("GET", "/v1/profiles/%00", 404),
        ("GET", "/v1/profiles/%FF%FE", 404), ("GET", "/v1/profiles/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/v1/profiles/'; DROP TABLE who; --/scores", 404), ("GET", "/v1/profiles/日本/scores", 404),
        ("GET", "/v1/profiles/x/scores?task=churn", 404), ("GET", "/v1/profiles/x/scores?reasons=perhaps", 422),
        ("GET", "/v1/profiles/x?reasons=", 422), ("GET", "/v1/profiles/" + "a" * 5_000, 404),
        ("GET", "/v1/profiles/x/scores?" + "task=churn&" * 101, 422),
    ],
)  # fmt: skip
def test_wrong_addresses(client: TestClient, method: str, path: str, status: int) -> None:
    refused(client.request(method, path), status)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
likely = st.fixed_dictionaries(
    {"profiles": st.lists(st.text(max_size=30) | anything, max_size=5) | anything},
    optional={
        "tasks": st.lists(st.sampled_from(["churn", "clv", "x"])) | anything,
        "reasons": st.booleans() | anything,
    },
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=likely | anything)
def test_any_json(client: TestClient, body: object) -> None:
    answer = client.post("/v1/scores", content=json.dumps(body), headers=JSON)
    if answer.status_code != 200:
        assert answer.status_code in (400, 404, 422)
        refused(answer, answer.status_code)
    else:
        assert len(answer.json()["results"]) == len(body["profiles"])  # type: ignore[index]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.text(min_size=1, max_size=40), body=st.binary(max_size=60))
def test_any_text_and_bytes(client: TestClient, who: str, body: bytes) -> None:
    from urllib.parse import quote

    assert client.get(f"/v1/profiles/{quote(who, safe='')}/scores").status_code < 500
    answer = client.post("/v1/scores", content=body, headers=JSON)
    assert answer.status_code in (400, 422)  # 422: it happens to be JSON, such as 0
    refused(answer, answer.status_code)


def test_metrics_name_routes_not_people(client: TestClient) -> None:
    client.get("/v1/profiles/card:40000001/scores")
    client.request("BREW", "/v1/tasks")
    said = client.get("/metrics").text
    route = 'method="GET",route="/v1/profiles/{who:path}/scores",status="200"'
    assert re.search(rf"foretell_request_seconds_count{{{re.escape(route)}}} [1-9]", said)
    assert 'method="other",route="/v1/tasks",status="405"' in said
    assert "40000001" not in said
    assert "BREW" not in said


def test_documentation_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    schema = client.get("/openapi.json").json()
    for path, verbs in schema["paths"].items():
        assert path.replace("{", "{") in page
        for said in verbs.values():
            assert said.get("description") or said["summary"]
    for name in ("ScoresRequest", "ScoresAnswer", "Score", "Profile"):
        assert f"id={name}>" in page
        assert name in schema["components"]["schemas"]


def test_tasks_and_segments(client: TestClient, trained: TrainedShop) -> None:
    found = {task["name"]: task for task in client.get("/v1/tasks").json()["tasks"]}
    assert found.keys() == trained.project.definitions.tasks.keys()
    for name, said in trained.trained.items():
        task = found[name]
        assert (task["kind"], task["horizon_days"], task["population"]) == (
            said.kind, said.task.horizon.days, said.task.population,
        )  # fmt: skip
        assert task["champion"]["version"] == said.version
        assert task["champion"]["estimator"] == said.winner
        assert task["champion"]["base_rate"] == said.base_rate
        assert task["problem"] is None
    segments = {s["name"]: s for s in client.get("/v1/segments").json()["segments"]}
    assert segments["leaving"]["rule"] == "top(churn, 0.2)"
    assert segments["leaving"]["size"] == 36
    member = next(p for p in _profiles(client, trained) if "leaving" in p["segments"])
    assert member["profile_id"]


def _profiles(client: TestClient, trained: TrainedShop) -> Iterator[dict]:
    from lake.engine import session

    with session(trained.project) as con:
        for (profile,) in con.execute("SELECT profile_id FROM profiles").fetchall():
            yield client.get(f"/v1/profiles/{profile}").json()


def test_the_page_is_the_one_of_the_command_line(client: TestClient, trained: TrainedShop) -> None:
    from serving.profile import page

    served = client.get("/v1/profiles/person1@example.org").json()
    known = page(trained.project, "person1@example.org")
    assert served["profile_id"] == known["profile_id"]
    assert served["former_ids"] == known["former_ids"] != []
    assert served["segments"] == known["segments"]
    assert [(t["attribute"], t["value"], t["source"]) for t in served["traits"]] == [
        (t["attribute"], t["value"], t["source"]) for t in known["traits"]
    ]
    assert [(i["identifier"], i["source"]) for i in served["identifiers"]] == [
        (i["identifier"], i["source"]) for i in known["identifiers"]
    ]
    assert [s["score_id"] for s in served["scores"]] == [s["score_id"] for s in known["scores"]]


def test_features_too_old_to_use(mine: Callable[[], Project]) -> None:
    project = mine()
    settings_file = project.folder / "foretell.toml"
    for days, status in ((2, 200), (3, 409)):
        now = NOW + timedelta(days=days)
        settings_file.write_text(f'[foretell]\nas_of = "{now.isoformat()}"\n')
        engine = Engine(project.folder)
        engine.refresh()
        with TestClient(api.make(engine)[1]) as client:
            answer = client.get("/v1/profiles/card:40000001/scores?task=churn")
            assert answer.status_code == status, answer.text
            if status == 409:
                said = refused(answer, 409)
                assert "could be used until 2024-07-03 00:00" in said["problem"]
                assert said["fix"] == "run `foretell score churn`"
                many = client.post("/v1/scores", json={"profiles": ["card:40000001", "x"]}).json()["results"]
                assert [p["task"] for p in many[0]["problems"]] == sorted(TASKS)
                assert many[1]["problem"] == "no such profile or identifier"
                refused(client.get("/readyz"), 503)


def test_not_ready(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(write_shop(tmp_path / "shop", people=3))
    engine = Engine(project.folder)
    with TestClient(api.make(engine)[1]) as client:
        assert refused(client.get("/readyz"), 503)["problem"] == "is starting"
        refused(client.get("/v1/tasks"), 409)
        refused(client.post("/v1/scores", json={"profiles": ["a"]}), 409)
        assert client.get("/livez").status_code == 200
    with pytest.raises(NotReady, match="nothing has been published yet; run `foretell score` first"):
        engine.refresh()

    def serve() -> str:
        monkeypatch.setattr("sys.argv", ["foretell", "--project", str(project.folder), "serve", "--port", "39871"])
        with pytest.raises(SystemExit) as stop:
            program.main()
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "run `foretell load` and `foretell unify` first" in serve()
    load_all(project)
    from unification.identity import unify

    unify(project)
    assert "nobody has been scored yet; run `foretell train`, then `foretell score`" in serve()


def test_a_failure_is_one_without_a_traceback(
    trained: TrainedShop, tmp_path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(copy_of(trained.project, tmp_path / "shop").folder)
    engine.refresh()
    monkeypatch.setattr(State, "scores", lambda *_: 1 / 0)
    with TestClient(api.make(engine)[1]) as client:
        said = refused(client.post("/v1/scores", json={"profiles": ["jo@home.org"]}), 500)
    assert said["problem"] == "the service failed (ZeroDivisionError)"
    assert "jo@home.org" not in caplog.text


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API goes before BentoML's own limit of time: the guard has one."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(errors, "LONGEST", 0.05)
    found = refused(TestClient(errors.Guard(slow)).get("/v1/tasks"), 503)
    assert "took longer than 0.05 s" in found["problem"]
