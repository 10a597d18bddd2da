"""Whatever is sent, the gate before it: the OpenAPI document holds, and a thousand bad requests get a useful 4xx.

Over HTTP, to a server of the test's own process: what a server makes of a request is part of it.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from accessing import Behind, behind, fresh
from fixtures_trained import TASKS, TrainedShop, trained
from test_http_input import refused

from serving.http.errors import LARGEST

__all__ = ["trained"]

PEOPLE = ["person1@example.org", "card:40000003", "40000005", "email:person7@example.org"]


@pytest.fixture(scope="module")
def served(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Behind, str]]:
    """The service behind its gate, and its address."""
    with behind(fresh(trained, tmp_path_factory.mktemp("fuzzed") / "shop")) as found:
        found.gate._callers.rate = found.gate._failures.rate = 0.0  # so many come that they would be slowed down
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(
            found.app, host="127.0.0.1", port=port, log_level="error", lifespan="off", forwarded_allow_ips=""
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield found, f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(20)


@pytest.mark.slow
def test_the_openapi_document_holds(served: tuple[Behind, str], tmp_path: Path) -> None:
    """All checks of schemathesis, of every route: types, statuses, headers, methods, and that a key is asked for."""
    service, url = served
    (tmp_path / "schemathesis.toml").write_text(
        f"[dictionaries.people]\nvalues = {json.dumps(PEOPLE)}\n[dictionaries.tasks]\nvalues = {json.dumps(TASKS)}\n"
        '[parameters]\n"path.who" = { dictionary = "people", probability = 0.6 }\n'
        '"body.profiles[*]" = { dictionary = "people", probability = 0.6 }\n'
        '"body.tasks[*]" = { dictionary = "tasks", probability = 0.6 }\n'
        # what takes seconds each is asked less often
        "[phases.stateful.generation]\nmax-examples = 12\n"
        '[[operations]]\ninclude-path = ["/v1/scores/{score_id}", "/v1/lookalikes"]\ngeneration.max-examples = 20\n'
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run",
         f"{url}/openapi.json", "--header", f"Authorization: Bearer {service.keys['everything']}", "--checks", "all",
         "--max-examples", "60", "--seed", "7", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Operations:       12 selected / 12 total" in done.stdout
    assert re.search(r"(\d+) generated, \1 passed", done.stdout), done.stdout
    statuses = Counter(row["status"] for row in service.rows())
    assert statuses[200] > 20, f"few requests were good ones: {statuses}"


ODD = [
    "", " ", "\x00", "\ud7ff", "\u202e", "é" * 40, "𝔘𝔫𝔦", "'; DROP TABLE who; --", "../../etc/passwd", "%00", "{{7*7}}",
    "a" * 501, "\r\nX-Evil: 1", "null", "-1", "1e999", "<script>", "\u0000\u0001", "p" * 600, "email:", ":", "::",
]  # fmt: skip
KINDS = [
    "text/plain", "application/xml", "multipart/form-data; boundary=x", "json", "é", "", "application/json-patch+json",
    "application/x-www-form-urlencoded", "*/*", "a" * 500,
]  # fmt: skip
NO_ROUTES = [
    "/v2/scores", "/v1", "/v1/", "/v1/scores/", "/V1/TASKS", "/schema.json", "/.env", "/admin", "/v1/tasks/x",
    "/v1/profiles", "/v1/profiles/", "/%00", "/static/../x", "/v1//tasks", "/docs/", "/metrics/",
]  # fmt: skip
ROUTES = ["/v1/tasks", "/v1/segments", "/v1/profiles/a", "/v1/profiles/a/scores", "/metrics", "/docs", "/"]
NO_KEYS = [
    "", "Bearer", "Basic YTpi", "Bearer fa_00000000_" + "A" * 32, "Bearer a.b.c", "bearer bearer bearer", "Digest x",
    "Bearer " + "x" * 9_000, "Bearer fa_", "Bearer é", "Bearer eyJhbGciOiJub25lIn0.e30.",
]  # fmt: skip


def anything(draw: Random, depth: int = 0) -> Any:
    """A value that JSON may have."""
    kind = draw.randrange(9 if depth < 4 else 7)
    if kind < 7:
        return [None, True, draw.choice(ODD), draw.randrange(-(10**9), 10**9), 10**40, draw.random() * 1e308, ""][kind]
    if kind == 7:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice([*ODD, "profiles", "tasks"]): anything(draw, depth + 1) for _ in range(draw.randrange(4))}


def bad_json(draw: Random) -> bytes:
    good = b'{"profiles": ["a", "b"], "tasks": ["churn"], "reasons": true}'
    cut = draw.randrange(1, len(good))
    return draw.choice([
        good[:cut], good[cut:], good + good, good.replace(b"]", b",]"), good.replace(b'"', b"'"), b"", b"NaN",
        b"\xef\xbb\xbf\xff" + good, good.replace(b"a", b"\xc3\x28"), draw.randbytes(50),
        b"[" * draw.choice([10, 2_000, 60_000]), b'{"a":' * draw.choice([10, 900]), b"\x00" * 20, b"profiles=a",
        good.replace(b"true", b"tru"), b'{"profiles": ["\\ud800"]}', b'{"profiles": [' + b"9" * 5_000 + b"]}",
    ])  # fmt: skip


def wrong_body(draw: Random) -> Any:
    """JSON that is not what a request for scores is made of."""
    profiles: Any = ["a"]
    more: dict[str, Any] = {}
    kind = draw.randrange(8)
    if kind == 0:
        profiles = draw.choice(
            [[], None, "a", 7, {}, [[]], [None], ["a", 1], ["a" * 501], [""], ["a"] * 1_001, [{"a": 1}]]
        )
    elif kind == 1:
        more = {"tasks": draw.choice([[], "churn", [1], [None], {"churn": 1}, ["x" * 501], ["churn"] * 101, 0, [""]])}
    elif kind == 2:
        more = {draw.choice(["reasons", "features"]): draw.choice(["yes", 1, 0, None, [], "true", {}])}
    elif kind == 3:
        more = {draw.choice([*ODD, "profile", "task", "Profiles", "limit"]): anything(draw)}
    elif kind == 4:
        more = {"tasks": [draw.choice(["chrun", "nothing", *[odd for odd in ODD if 0 < len(odd) <= 500]])]}
    elif kind == 5:
        profiles = ["x" * 400] * (LARGEST // 400 + draw.randrange(1, 1_000))
    else:
        found = anything(draw)
        return found if not isinstance(found, dict) or "profiles" not in found else None
    return {"profiles": profiles, **more}


def malformed(draw: Random) -> dict[str, Any]:
    """A request that must not be answered with 200."""
    path, kind = "/v1/scores", draw.randrange(7)
    if kind < 2:
        body = bad_json(draw) if kind else json.dumps(wrong_body(draw)).encode()
        return {"method": "POST", "url": path, "content": body, "headers": {"Content-Type": "application/json"}}
    if kind == 2:
        said = {"Content-Type": draw.choice(KINDS).encode()}
        return {"method": "POST", "url": path, "content": b'{"profiles": ["a"]}', "headers": said}
    if kind == 3:
        method = draw.choice(["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "PROPFIND", "MKCOL", "POST"])
        return {"method": method, "url": draw.choice(ROUTES), "headers": {}}
    if kind == 4:
        who = quote(draw.choice([odd for odd in ODD if odd.strip()]), safe="")
        who = draw.choice([who, who, "a/b", "a" * 5_000, "%FF%FE", "scores", "..%2f..%2f"])
        rest = draw.choice(
            ["", "/scores", "/scores/", "/scores/x", "?reasons=maybe", "/scores?features=2", "/scores?task="]
        )
        return {"method": "GET", "url": f"/v1/profiles/{who}{rest}", "headers": {}}
    if kind == 5:
        return {"method": draw.choice(["GET", "POST"]), "url": draw.choice(NO_ROUTES), "headers": {}}
    key = {"Authorization": draw.choice(NO_KEYS).encode()}
    return {"method": "GET", "url": draw.choice(["/v1/tasks", "/v1/profiles/a", "/nowhere"]), "headers": key}


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_malformed_requests(served: tuple[Behind, str], seed: int) -> None:
    """250 of each seed: 4xx, with what was wrong in the shape of every error, and never the service's failure."""
    service, url = served
    draw, seen = Random(seed), Counter[int]()
    with httpx.Client(base_url=url, timeout=60) as client:
        for n in range(250):
            request = malformed(draw)
            authorization = {"Authorization": service.headers("everything")["Authorization"]}
            headers = {**authorization, **request.pop("headers"), "X-Request": str(n)}
            answer = client.request(**request, headers=headers)
            said = f"seed {seed}, request {n}: {str(request)[:300]} -> {answer.status_code} {answer.text[:300]}"
            assert 400 <= answer.status_code < 500, said
            if request["method"] != "HEAD":
                refused(answer, answer.status_code)
            seen[answer.status_code] += 1
        assert client.get("/readyz").status_code == 200
    assert {400, 401, 404, 405, 415, 422} <= seen.keys(), seen
