"""`foretell serve --collect`: the service that answers with scores takes events too, and seals them when it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fixtures_trained import TrainedShop, copy_of, trained

from ingestion.collector.keys import Keys

__all__ = ["trained"]

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a busy machine takes long to import what a service needs


@pytest.mark.slow
def test_the_service_collects(trained: TrainedShop, tmp_path: Path) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    key, _ = Keys(project.home).new_key("web")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "serve", "--collect"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, cwd=project.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and server.poll() is None:
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
            sent = [{"type": "track", "event": "e", "userId": "u", "messageId": f"m{n}"} for n in range(20)]
            answer = client.post("/v1/batch", json={"batch": sent}, auth=(key, ""))
            assert (answer.status_code, answer.json()) == (200, {"success": True}), (tmp_path / "log").read_text()
            assert client.post("/v1/track", json=sent[0]).status_code == 401
            too_large = client.post("/v1/batch", content=b"x" * 600_000, auth=(key, ""))
            assert too_large.status_code == 413
            found = client.get("/v1/tasks")
            assert found.status_code == 200
        segments = list((project.home / "collected" / "web").iterdir())
        assert [file.suffix for file in segments] == [".open"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    (segment,) = (project.home / "collected" / "web").iterdir()
    assert segment.suffix == ".jsonl"
    kept = [json.loads(line) for line in segment.read_text().splitlines()]
    assert [line["messageId"] for line in kept] == [message["messageId"] for message in sent]
