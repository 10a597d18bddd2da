"""The service as it is used: `foretell serve` in a process of its own, asked over HTTP.

One server for the module, on a copy of the trained shop; what needs no server is in test_http_input.py.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, copy_of, trained
from test_score import rows_of

from foretell.errors import DataError
from foretell.project import Project
from lake.engine import session
from models import registry
from serving.score import score
from serving.serve import check_port

__all__ = ["trained"]

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a busy machine takes long to import what a service needs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "foretell", "--project", str(folder), "serve", "--port", str(port)]
    with log.open("wb") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder)


def until(found: Callable[[], bool], log: Path) -> None:
    """Wait for it; what the service said is the message if it takes too long."""
    end = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > end:
            pytest.fail(log.read_text())
        time.sleep(0.1)


def stopped(server: subprocess.Popen[bytes], how: signal.Signals, port: int, log: Path) -> None:
    """Stop it, and see that nothing of it is left."""
    family = psutil.Process(server.pid).children(recursive=True)
    server.send_signal(how)
    server.wait(60)
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, (alive, gone)
    check_port("127.0.0.1", port)
    assert "Traceback" not in log.read_text()


@dataclass
class Served:
    """A running service: its project, address, log, and how /readyz answered until it was ready."""

    project: Project
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    before: list[int]
    client: httpx.Client

    def ask(self, profiles: list[str], **more: object) -> list[dict]:
        answer = self.client.post("/v1/scores", json={"profiles": profiles, "features": True, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]


@pytest.fixture(scope="module")
def served(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    project, port, log = copy_of(trained.project, folder / "shop"), free_port(), folder / "log"
    process, before = start(project.folder, port, log), []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                before.append(client.get("/readyz").status_code)
            except httpx.TransportError:
                return False
            return before[-1] == 200

        try:
            until(ready, log)
            yield Served(project, process, port, log, before, client)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


@pytest.fixture(scope="module")
def batch(served: Served) -> dict[str, dict[str, dict]]:
    """task -> profile -> the row that the batch wrote."""
    return {task: {row["profile_id"]: row for row in rows_of(served.project, task)} for task in TASKS}


def everyone(project: Project) -> list[str]:
    with session(project) as con:
        return sorted(p for (p,) in con.execute("SELECT profile_id FROM profiles").fetchall())


def same(answer: dict, row: dict) -> None:
    """Is this what the batch said? All of the contract but the time of asking."""
    assert answer["value"] == pytest.approx(row["value"], abs=1e-12, rel=1e-12)
    assert answer["percentile"] == pytest.approx(row["percentile"], abs=1e-9)
    for name in (
        "score_id", "task", "kind", "profile_id", "base_rate", "model_version", "estimator", "feature_service", "batch",
        "purpose",
    ):  # fmt: skip
        assert answer[name] == row[name], name
    for name in ("cutoff", "expires_at"):
        assert answer[name] == row[name].isoformat().replace("+00:00", "Z")
    features = {name: value if math.isfinite(value) else None for name, value in row["features"]}
    assert answer["features"] == features


def test_ready_only_when_it_can_answer(served: Served) -> None:
    assert served.before[-1] == 200
    assert set(served.before[:-1]) == {503}
    said = served.client.get("/readyz").json()
    assert said["status"] == "ready"
    served_from = {name: (task["version"], task["cutoff"]) for name, task in said["tasks"].items()}
    assert served_from == dict.fromkeys(TASKS, ("1", "2024-07-01T00:00:00Z"))
    assert {p["task"] for p in said["problems"]} == {*served.project.definitions.tasks} - {*TASKS}
    for probe in ("/livez", "/healthz"):
        assert served.client.get(probe).status_code == 200


def test_everyone_is_answered_as_in_the_batch(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    profiles = everyone(served.project)
    assert len(profiles) > len(batch["churn"]) > 100
    results = served.ask(profiles)
    assert [r["profile"] for r in results] == [r["profile_id"] for r in results] == profiles
    seen = dict.fromkeys(TASKS, 0)
    for result in results:
        scores = {s["task"]: s for s in result["scores"]}
        assert {p["task"] for p in result["problems"]} | scores.keys() == set(TASKS)
        for task in TASKS:
            row = batch[task].get(result["profile_id"])
            if row is None:
                problem = next(p for p in result["problems"] if p["task"] == task)
                assert "not in its population (orders_365d > 0)" in problem["problem"]
                continue
            same(scores[task], row)
            assert scores[task]["reasons"] is None
            seen[task] += 1
    assert seen == {task: len(batch[task]) for task in TASKS}


def test_one_alone_is_the_same(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    for profile in list(batch["churn"])[::20]:
        (result,) = served.ask([profile])
        for answer in result["scores"]:
            same(answer, batch[answer["task"]][profile])


def test_reasons_on_request(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    some = list(batch["churn"])[:5]
    for result in served.ask(some, tasks=["churn"], reasons=True):
        (answer,) = result["scores"]
        assert answer["reasons"] == batch["churn"][result["profile_id"]]["reasons"] != []
    one = served.client.get(f"/v1/profiles/{some[0]}/scores", params={"task": "churn", "reasons": "true"}).json()
    assert one["scores"][0]["reasons"] == batch["churn"][some[0]]["reasons"]
    assert one["scores"][0]["features"] is None, "the row is handed out on request only, too"


def test_every_way_to_name_a_person(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    with session(served.project) as con:
        former, today = con.execute(
            """SELECT a.loser, m.profile_id FROM alias a JOIN member m ON m.birth_id = a.loser
               WHERE m.known_to IS NULL ORDER BY 1"""
        ).fetchall()[0]
        nodes = [n for (n,) in con.execute("SELECT node FROM member WHERE profile_id = ?", [today]).fetchall()]
    bare = [node.partition(":")[2] for node in nodes]
    shouted = [f" {node.upper()} " for node in bare if "@" in node]
    asked = [today, former, *nodes, *bare, *shouted, "nobody@nowhere.example"]
    assert any(node.startswith("email:") for node in nodes)
    results = served.ask(asked, tasks=["churn"])
    assert [r["profile"] for r in results] == asked
    assert {r["profile_id"] for r in results[:-1]} == {today}
    assert results[-1] == {
        "profile": "nobody@nowhere.example", "problem": "no such profile or identifier",
        "fix": "`foretell segment show` lists ids; try an e-mail or card",
    }  # fmt: skip
    for who in asked[:-1]:
        page = served.client.get(f"/v1/profiles/{who}").json()
        assert page["profile_id"] == today
        assert former in page["former_ids"]
        assert {i["identifier"] for i in page["identifiers"]} == set(nodes)
        assert {t["attribute"] for t in page["traits"]} >= {"city", "first_name"}


def test_bodies_without_a_length(served: Served) -> None:
    def chunks(n: int) -> Iterator[bytes]:
        for _ in range(n):
            yield b" " * 100_000

    for size in (11, 60):
        answer = served.client.post(
            "/v1/scores", content=chunks(size), headers={"Content-Type": "application/json"}
        )  # fmt: skip
        assert answer.status_code == 413
        assert answer.json()["error"]["fix"] == "ask for fewer profiles at a time"
    assert served.client.get("/livez").status_code == 200


def test_many_at_once(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    asked = list(batch["churn"])[:48]
    wrong: list[object] = []

    def ask(some: list[str]) -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=60) as client:
            for profile in some:
                answer = client.get(f"/v1/profiles/{profile}/scores", params={"task": "churn"})
                found = answer.json()["scores"][0]
                if abs(found["value"] - batch["churn"][profile]["value"]) > 1e-12 or found["profile_id"] != profile:
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(asked[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_taken_port_is_refused(served: Served) -> None:
    with pytest.raises(DataError, match=rf"port {served.port}: another program is listening there; .*--port"):
        check_port("127.0.0.1", served.port)
    with pytest.raises(DataError, match="cannot be listened on"):
        check_port("203.0.113.1", free_port())


@pytest.mark.slow
def test_stopped_while_it_starts(served: Served, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    process = start(served.project.folder, port, log)
    try:
        until(lambda: bool(psutil.Process(process.pid).children()), log)
        stopped(process, signal.SIGTERM, port, log)
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
def test_a_new_batch_and_champion_are_served_without_a_restart(
    served: Served, batch: dict[str, dict[str, dict]]
) -> None:
    """While they come, every answer is wholly of the old batch or wholly of the new one, or says why there is none."""
    later = NOW + timedelta(days=1)
    settings = served.project.folder / "foretell.toml"
    settings.write_text(settings.read_text().replace(NOW.isoformat(), later.isoformat()))
    project = Project(served.project.folder)

    tracking = registry.client(project)
    first = tracking.get_model_version("churn", "1")
    second = tracking.create_model_version("churn", str(first.source), first.run_id)
    registry.promote(project, "churn", second.version)
    profile = next(iter(batch["churn"]))
    (unmoved,) = served.ask([profile], tasks=["churn"])
    assert unmoved["scores"][0]["model_version"] == "1"  # nobody has been scored by the new one yet

    answers: list[dict] = []
    done = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=60) as client:
            while not done.is_set():
                answers.append(
                    client.post("/v1/scores", json={"profiles": list(batch["churn"])[:3], "features": True}).json()
                )
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        score(project, list(TASKS))
        until(lambda: served.client.get("/readyz").json()["tasks"]["churn"]["version"] == "2", served.log)
        time.sleep(0.5)
    finally:
        done.set()
        watcher.join()
    new = {task: {r["profile_id"]: r for r in rows_of(project, task) if r["cutoff"] == later} for task in TASKS}
    assert {row["model_version"] for row in new["churn"].values()} == {"2"}
    seen = set()
    for answer in answers:
        for result in answer["results"]:
            for found in result["scores"]:
                rows = batch if found["cutoff"].startswith("2024-07-01") else new
                same(found, rows[found["task"]][found["profile_id"]])
                seen.add((found["task"], found["cutoff"][:10], found["model_version"]))
            for problem in result["problems"]:
                assert "the features online are not those of 2024-07-01" in problem["problem"] or (
                    "not in its population" in problem["problem"]
                )
    assert seen == {
        (t, *batch) for t in TASKS for batch in (("2024-07-01", "1"), ("2024-07-02", "2" if t == "churn" else "1"))
    }
    profiles = everyone(project)
    for result in served.ask(profiles):
        for found in result["scores"]:
            same(found, new[found["task"]][found["profile_id"]])


def test_the_log_names_no_person(served: Served, batch: dict[str, dict[str, dict]]) -> None:
    who = "person1@example.org"
    assert served.client.get(f"/v1/profiles/{who}/scores").status_code in (200, 409)
    assert served.client.get("/v1/profiles/nobody@nowhere.example").status_code == 404
    said = served.log.read_text()
    assert re.search(r"GET /v1/profiles/\{who:path\}/scores (200|409) [\d.]+ ms", said)
    assert re.search(r"POST /v1/scores 200 [\d.]+ ms", said)
    lines = [line for line in said.splitlines() if "curl" not in line]  # the example shows an id
    assert not [line for line in lines if "@" in line or re.search(r"p[0-9a-f]{20}", line)]


def test_stopped_by_the_keyboard(served: Served) -> None:
    assert "Ctrl-C stops it." in served.log.read_text()
    stopped(served.process, signal.SIGINT, served.port, served.log)
