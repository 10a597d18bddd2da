"""Every route × every role: let in, or told what is missing, as the one table says; and what they get to see."""

from __future__ import annotations

import json
import re
import timeit
from collections.abc import Iterator

import pytest
from accessing import CARD, ELSEWHERE, HERE, NAME, PERSON, ROLES, Behind, behind, fresh
from fastapi import FastAPI
from fixtures_trained import TASKS, TrainedShop, trained
from test_access_tokens import AUDIENCE, ISSUER, Provider, rsa_key, sign
from test_http_input import refused

from foretell.errors import DefinitionError
from foretell.project import Project
from lake.engine import session
from serving.access.caller import SCOPES
from serving.access.gate import from_here
from serving.access.layer import Access
from serving.access.mask import masked
from serving.access.routes import ANYBODY, TABLE, UNKNOWN, Routes, declare, declared
from serving.http import api
from serving.http.engine import Engine

__all__ = ["trained"]

# What BentoML answers by itself if it is asked, what the collector takes, and what nobody has.
NOWHERE = ("/schema.json", "/docs.json", "/static_content/x", "/v1/batch", "/v1/webhooks/x", "/v1/scorings/", "/v2")
# The table again, by hand: what changes in it must be meant.
OPENS = {
    "/v1/scores": "score", "/v1/profiles/{who:path}/scores": "score", "/v1/profiles/{who:path}": "read",
    "/v1/whatif": "score", "/v1/lookalikes": "score", "/v1/scores/{score_id}": "personal",
    "/v1/tasks": "read", "/v1/segments": "read", "/metrics": "admin",
    **dict.fromkeys(("/livez", "/healthz", "/readyz", "/docs", "/", "/openapi.json"), ANYBODY),
}  # fmt: skip


@pytest.fixture(scope="module")
def service(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind(fresh(trained, tmp_path_factory.mktemp("gated") / "shop")) as found:
        yield found


def routes() -> list[tuple[str, str]]:
    app, _ = api.make(Engine(Project("/nowhere")))  # type: ignore[arg-type]
    return [(method, path) for method, path in declared(app) if method != "HEAD"]


def ask(service: Behind, method: str, path: str, headers: dict[str, str]):
    filled = path.replace("{who:path}", PERSON)
    if "{score_id}" in path:
        with session(service.project) as con:
            ids = con.execute("SELECT min(score_id) FROM scores WHERE task = 'churn'").fetchall()
        filled = path.replace("{score_id}", ids[0][0])
    assert "{" not in filled, f"{path}: say here how to ask for it"
    bodies = {
        "/v1/whatif": {"task": "churn", "profile": PERSON, "rows": [{}]},
        "/v1/lookalikes": {"seed": "osloers", "top": 3},
    }
    body = {"json": bodies.get(path, {"profiles": [PERSON]})} if method in ("POST", "PUT") else {}
    service.gate._failures._held.clear()  # so many come here without a key that they would be slowed down
    return service.client.request(method, filled, headers=headers, **body)


def test_the_table_is_the_one_meant() -> None:
    assert {route.path: route.scope for route in TABLE} == OPENS
    assert {route.path for route in TABLE if route.personal} == {path for path in OPENS if path.startswith(
        ("/v1/scores", "/v1/profiles", "/v1/whatif", "/v1/lookalikes"))}  # fmt: skip
    assert {path for _, path in routes()} == OPENS.keys()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), routes(), ids=" ".join)
def test_every_route_and_role(service: Behind, method: str, path: str, role: str) -> None:
    answer, needed = ask(service, method, path, service.headers(role)), OPENS[path]
    if needed == ANYBODY or role == needed:
        assert answer.status_code == 200, answer.text
        about_people = re.search(r'"profile_id":\s*"p[0-9a-f]{20}"', answer.text) is not None
        assert about_people == Routes().of(method, path).personal, "what names people is masked and written down"
    elif role in SCOPES:
        said = refused(answer, 403)
        assert said["problem"] == f"expected the scope {needed}, got {role}"
        assert f"--scope {needed}" in said["fix"]
        assert answer.headers["WWW-Authenticate"] == (
            f'Bearer realm="foretell", error="insufficient_scope", scope="{needed}"'
        )
    else:
        said = refused(answer, 401)
        assert {"nobody": "got none", "wrong": "is unknown"}.get(role, role) in said["problem"]
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="foretell"')
        assert ('error="invalid_token"' in answer.headers["WWW-Authenticate"]) == (role != "nobody")
        assert "foretell access create" in said["fix"] or role != "nobody"


def test_a_token_opens_what_a_key_opens(trained: TrainedShop, tmp_path) -> None:
    """Each route × a token of each scope alone, of none, of all, and one that has expired."""
    project, signing, provider = fresh(trained, tmp_path / "shop"), rsa_key(), Provider()
    provider.publish(signing, "r1")
    (project.folder / "jwks.json").write_text(json.dumps({"keys": provider.keys}))
    file = project.folder / "foretell.toml"
    said = f'issuer = "{ISSUER}", audience = "{AUDIENCE}", jwks_file = "jwks.json"'
    file.write_text(file.read_text() + f"oidc = {{{said}}}\n")
    with behind(Project(project.folder), keys=False) as service:
        for method, path in routes():
            for scopes in ("", *SCOPES, " ".join(SCOPES)):
                headers = {"Authorization": f"Bearer {sign(signing, scope=scopes)}"}
                allowed = not OPENS[path] or OPENS[path] in scopes.split()
                assert ask(service, method, path, headers).status_code == (200 if allowed else 403)
            late = {"Authorization": f"Bearer {sign(signing, scope=OPENS[path], exp=1)}"}
            assert ask(service, method, path, late).status_code == (401 if OPENS[path] else 200)
        assert {row["who"] for row in service.rows()} == {"oidc:u-17"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", NOWHERE)
def test_what_nobody_declared(service: Behind, path: str, role: str) -> None:
    """Who is known may be told that there is no such route; nobody else is told anything."""
    refused(ask(service, "GET", path, service.headers(role)), 404 if role in SCOPES else 401)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"])
@pytest.mark.parametrize("path", sorted(OPENS))
def test_another_method_opens_nothing(service: Behind, method: str, path: str) -> None:
    answer = ask(service, method, path, {})
    assert answer.status_code == (401 if OPENS[path] else 200 if (method, path) == ("HEAD", "/openapi.json") else 405)
    role = OPENS[path] or "read"
    assert ask(service, method, path, service.headers(role)).status_code in (405, 200)


def test_a_route_that_nobody_declared_is_refused(trained: TrainedShop) -> None:
    app = FastAPI()
    app.get("/v1/secrets")(lambda: "everything")
    with pytest.raises(DefinitionError, match=r"GET /v1/secrets.*is a route without a scope; say which scope opens it"):
        declare(app)


def test_the_table_never_asks_for_less_than_the_application_takes() -> None:
    """Whatever a path is spelt like: where the application finds a route, the table finds it too, or a narrower one."""
    from starlette.routing import Match

    app, _ = api.make(Engine(Project("/nowhere")))  # type: ignore[arg-type]
    table = Routes()
    parts = ["", "a", "scores", "a/scores", "\n", "scores\n", "a\nb", "..", "é", "\x00", "?", "{who:path}", "profiles"]
    paths = [f"/v1/profiles/{a}/{b}" for a in parts for b in parts] + [f"/v1/{a}" for a in parts]
    for path in [*paths, "/", "", "//", "/metrics\n", "/metrics/", "/METRICS", "/v1/scores\n"]:
        for route in app.routes:
            scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
            if route.matches(scope)[0] != Match.NONE:
                found = table.of("GET", path)
                assert found is not UNKNOWN
                assert found.path == route.path or found.scope == "score" != OPENS[route.path], path
                break


def test_openapi_says_it(service: Behind) -> None:
    said = service.client.get("/openapi.json").json()
    assert said["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    seen = set()
    for path, verbs in said["paths"].items():
        for operation in verbs.values():
            needed = OPENS[path.replace("{who}", "{who:path}")]
            free = [{}] if needed == "admin" else []  # on the same machine
            assert operation["security"] == ([*free, {"bearer": [needed]}] if needed else [])
            if needed:
                assert f"Needs the scope `{needed}`" in operation["description"]
                assert {"401", "403", "429", "503"} <= operation["responses"].keys()
            seen.add(path)
    assert seen == {path.replace(":path", "") for path in OPENS} - {"/", "/docs", "/openapi.json"}
    assert "Needs the scope" in service.client.get("/docs").text


def test_a_service_without_keys_answers_this_machine_only(trained: TrainedShop, tmp_path) -> None:
    with behind(fresh(trained, tmp_path / "shop"), keys=False) as service:
        here, path = service.asking(HERE), f"/v1/profiles/{PERSON}"
        assert here.get(path).json()["traits"][0]["value"] != "***"
        for address in ("::1", "127.0.0.9", "::ffff:127.0.0.1"):
            assert service.asking((address, 1)).get(path).status_code == 200
        for host in ("localhost:3000", "127.0.0.1", "[::1]:3000", "LOCALHOST"):
            assert here.get(path, headers={"Host": host}).status_code == 200
        said = refused(service.client.get(path), 401)
        assert "only who asks from the same machine" in said["problem"]
        assert "`foretell access create NAME --scope SCOPE` makes a key" in said["fix"]
        for headers in (
            {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"},
            {"Via": "1.1 proxy"}, {"Host": "shop.example"}, {"Host": "127.0.0.1.shop.example"}, {"Host": ""},
            {"Authorization": "Bearer fa_00000000_" + "A" * 32, "Host": "evil.example"},
        ):  # fmt: skip
            for client in (here, service.client):
                assert client.get(path, headers=headers).status_code == 401, headers
        for path in ("/livez", "/readyz", "/docs"):
            assert service.client.get(path).status_code == 200
        assert {row["who"] for row in service.rows()} == {"loopback"}
        # from the first key on, everybody is asked
        from serving.access.keys import Keys

        text, _ = Keys(service.project).create("first", ["score"])
        service.gate._looked = 0
        assert here.get(f"/v1/profiles/{PERSON}").status_code == 401
        assert service.client.get("/v1/tasks", headers={"Authorization": f"Bearer {text}"}).status_code == 403
        Keys(service.project).revoke("first")
        service.gate._looked = 0
        assert here.get(f"/v1/profiles/{PERSON}").status_code == 401, "the last key gone, it does not open again"


def test_open_means_open(trained: TrainedShop, tmp_path) -> None:
    with behind(fresh(trained, tmp_path / "shop"), keys=False, open=True) as service:
        found = service.client.get(f"/v1/profiles/{PERSON}", headers={"X-Forwarded-For": "10.0.0.1"}).json()
        assert NAME in [trait["value"] for trait in found["traits"]]
        assert [row["who"] for row in service.rows()] == ["anyone"]


def test_metrics_on_this_machine_need_no_key(service: Behind) -> None:
    here = service.asking(HERE)
    assert here.get("/metrics").status_code == 200
    assert here.get("/metrics", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 401
    assert here.get("/v1/tasks").status_code == 401
    assert service.client.get("/metrics", headers=service.headers("admin")).status_code == 200
    assert 'route="/v1/tasks",status="401"' in here.get("/metrics").text


@pytest.mark.parametrize("client", [None, ("", 0), ("128.0.0.1", 1), ("1270.0.0.1", 1), ("localhost", 1)])
def test_what_is_not_this_machine(client) -> None:
    assert not from_here({"client": client, "headers": [(b"host", b"localhost")]})


def test_what_is_personal_is_masked(service: Behind) -> None:
    ask = service.client.get
    full = ask(f"/v1/profiles/{PERSON}", headers=service.headers("support")).json()
    shown = {t["attribute"]: t["value"] for t in full["traits"]}
    assert shown["first_name"] == NAME
    assert f"email:{PERSON}" in [i["identifier"] for i in full["identifiers"]]
    answer = ask(f"/v1/profiles/{PERSON}", headers=service.headers("read"))
    least = answer.json()
    assert {t["value"] for t in least["traits"]} == {"***"}
    assert {i["identifier"] for i in least["identifiers"]} == {"email:p…@e….org", "card:…01"}
    for text in (PERSON, CARD, NAME, shown["city"]):
        assert text not in re.sub(r'"segments":\[[^]]*\]', "", answer.text), "but for the names of its segments"
    for field in ("profile_id", "former_ids", "segments", "published_at"):
        assert least[field] == full[field]
    for before, after in zip(full["traits"], least["traits"], strict=True):
        assert {**before, "value": 0} == {**after, "value": 0}
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_a_profile_without_the_scope_score_has_none(service: Behind) -> None:
    found = service.client.get(f"/v1/profiles/{PERSON}", headers=service.headers("support")).json()
    assert found["scores"] == []
    assert {p["task"] for p in found["problems"] if p["problem"] == "the scope score is needed"} == set(TASKS)
    whole = service.client.get(f"/v1/profiles/{PERSON}", headers=service.headers("everything")).json()
    assert {score["task"] for score in whole["scores"]} == set(TASKS)


def test_scores_say_no_trait(service: Behind) -> None:
    """The tasks see a view of traits: what it says of a person is masked in rows and reasons; all else is as it is."""
    body = {"profiles": [PERSON, CARD, "person3@example.org"], "features": True, "reasons": True}
    full = service.client.post("/v1/scores", json=body, headers=service.headers("everything")).json()
    least = service.client.post("/v1/scores", json=body, headers=service.headers("score")).json()
    hidden = 0
    for before, after in zip(full["results"], least["results"], strict=True):
        assert before["profile"] == after["profile"], "what the caller gave itself is said again"
        for full_score, score in zip(before["scores"], after["scores"], strict=True):
            assert score["value"] == full_score["value"]
            assert score["features"].keys() == full_score["features"].keys()
            for name, value in score["features"].items():
                assert value == (None if name.startswith("known_") else full_score["features"][name]) or name in (
                    "age_years", "days_since_first_record", "records_ever",
                )  # fmt: skip
                hidden += value is None and full_score["features"][name] is not None
            for full_reason, reason in zip(full_score["reasons"], score["reasons"], strict=True):
                assert reason["effect"] == full_reason["effect"]
                if reason != full_reason:
                    assert (reason["value"], reason["text"]) == (None, "***")
    assert hidden
    one = service.client.get(f"/v1/profiles/{PERSON}/scores", headers=service.headers("score")).json()
    assert {score["task"] for score in one["scores"]} == set(TASKS)


def test_masks() -> None:
    body = {
        "traits": [{"attribute": "email", "value": "jo@home.org"}, {"attribute": "phone", "value": "+4755500042"},
                   {"attribute": "income", "value": "74K"}],
        "identifiers": [{"identifier": "phone:4755500042"}, {"identifier": "email:@"}, {"identifier": "card:12345"}],
        "reasons": [{"feature": "a", "value": 1.5, "effect": 0.5, "text": "lives in Oslo"}],
        "features": {"a": 1, "b": 2},
    }  # fmt: skip
    packed = json.dumps(body).encode()
    found = json.loads(masked(packed, {"a"}))
    assert [t["value"] for t in found["traits"]] == ["j…@h….org", "…42", "***"]
    assert [i["identifier"] for i in found["identifiers"]] == ["phone:…42", "email:***", "card:…"]
    assert found["reasons"] == [{"feature": "a", "value": None, "effect": 0.5, "text": "***"}]
    assert found["features"] == {"a": None, "b": 2}
    assert json.loads(masked(packed, set()))["features"] == {"a": 1, "b": 2}
    assert json.loads(masked(packed, None))["features"] == {"a": None, "b": None}, "not known which: none is shown"


def test_who_asks_too_often(trained: TrainedShop, tmp_path) -> None:
    project = fresh(trained, tmp_path / "shop")
    file = project.folder / "foretell.toml"
    file.write_text(file.read_text() + "rate_per_second = 1\nburst = 3\n")
    with behind(Project(project.folder)) as service:
        answers = [service.client.get("/v1/tasks", headers=service.headers("read")) for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].headers["Retry-After"] == "1"
        assert refused(answers[-1], 429)["fix"] == "ask again in 1 s"
        assert service.client.get("/livez").status_code == 200
        other = service.client.get(f"/v1/profiles/{PERSON}/scores", headers=service.headers("score"))
        assert other.status_code == 200, "each caller has a rate of their own"


def test_who_guesses_is_slowed_down(trained: TrainedShop, tmp_path) -> None:
    with behind(fresh(trained, tmp_path / "shop")) as service:
        guesses = [
            service.client.get("/v1/tasks", headers={"Authorization": f"Bearer fa_0000{n:04}_" + "A" * 32}).status_code
            for n in range(30)
        ]
        assert guesses[:20] == [401] * 20
        assert guesses[-1] == 429
        assert service.client.get("/v1/tasks", headers=service.headers("read")).status_code == 200, "a key still works"
        other = service.asking(("192.0.2.8", 1))
        assert other.get("/v1/tasks").status_code == 401, "another address is not slowed down"


def test_the_check_is_cheap(service: Behind) -> None:
    """Of a known key: less than 20 µs, the best of several rounds, for the machine may be busy."""
    import asyncio

    key = service.headers("score")["Authorization"].encode()
    route = Routes().of("POST", "/v1/scores")
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"x"), (b"authorization", key)]
    scope = {"type": "http", "method": "POST", "path": "/v1/scores", "headers": headers, "client": ELSEWHERE}
    table = Routes()

    async def many(n: int) -> None:
        for _ in range(n):
            await service.gate.admit(scope, table.of("POST", "/v1/scores"))

    service.gate._callers.rate = 0.0
    took = min(timeit.repeat(lambda: asyncio.run(many(2_000)), number=1, repeat=7)) / 2_000
    service.gate._callers.rate = 1_000.0
    assert route.scope == "score"
    assert took < 20e-6, f"{took * 1e6:.1f} µs"


def test_a_mistake_in_the_gate_lets_nobody_in(
    service: Behind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(PERSON)

    monkeypatch.setattr(service.gate, "_free", broken)
    said = refused(service.client.get("/v1/tasks", headers=service.headers("read")), 500)
    assert said["problem"] == "the service failed (ZeroDivisionError)"
    assert "ZeroDivisionError" in caplog.text
    assert PERSON not in caplog.text


def test_websockets_are_refused(service: Behind) -> None:
    import asyncio

    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    assert isinstance(service.app, Access)
    asyncio.run(service.app({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
