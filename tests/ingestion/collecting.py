"""A real collector in a process of its own, for tests: start it, send to it, kill it, load what it took."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import one_source
import pytest

from benchmarks import sdks
from foretell import Source
from foretell.project import Project
from ingestion.collector.keys import Keys

ROOT = Path(__file__).parents[2]

everything = Source(
    name="everything", stream="web", event_at="timestamp", known_at="receivedAt", unique="messageId",
    identifiers={"user_id": "userId", "anonymous_id": "anonymousId"}, columns={"message": "messageId"},
)  # fmt: skip


@dataclass
class Shop:
    """A project with a write key for the stream `web`."""

    project: Project
    key: str
    port: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None  # the largest file it may write
    process: subprocess.Popen | None = None

    @property
    def home(self) -> Path:
        return self.project.home

    def start(self) -> None:
        """Run `foretell collect` until it answers."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "foretell", "--project", str(self.project.folder), "collect"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), **self.environ}
        log = (self.project.folder / "collector.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=log, stderr=log, env=environ, cwd=self.project.folder,
            preexec_fn=self._limited if self.limit else None,
        )  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask("GET", "/livez")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        pytest.fail((self.project.folder / "collector.log").read_text())

    def _limited(self) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit or 0, self.limit or 0))

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> tuple[int, dict, dict]:
        """Status, JSON (of a text: its lines), headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
            try:
                said = json.loads(text) if text else {}
            except ValueError:
                said = dict(line.rsplit(" ", 1) for line in text.splitlines())
            return answer.status, said, dict(answer.getheaders())
        finally:
            connection.close()

    def send(self, path: str, message: object, key: str | None = None, **headers: str) -> tuple[int, dict, dict]:
        import base64

        user = base64.b64encode(f"{self.key if key is None else key}:".encode()).decode()
        body = message if isinstance(message, bytes | str) else json.dumps(message)
        return self.ask("POST", path, body, Authorization=f"Basic {user}", Content_Type="application/json", **headers)

    def counts(self) -> dict[str, int]:
        return {name.removeprefix("foretell_collector_"): int(n) for name, n in self.ask("GET", "/metrics")[1].items()}

    def load(self) -> list[one_source.Loaded]:
        """Load what was collected; every result must be a good one."""
        found = one_source.loaded(self.project)
        assert all(isinstance(result, one_source.Loaded) for result in found), found
        return found  # pyright: ignore[reportReturnType]

    def messages(self, source: str = "everything") -> dict[str, dict]:
        """What is in the lake: message id -> message, each of which is there once."""
        rows = one_source.ask(self.project, f"SELECT message, payload FROM {source}")
        found = {id: json.loads(payload) for id, payload in rows}
        assert len(found) == len(rows), "a message is in the lake twice"
        return found


def make(folder: Path, *sources: Source, **more) -> Shop:
    project = one_source.project(folder, *(sources or [everything]))
    return Shop(project, Keys(project.home).new_key("web")[0], **more)


@contextmanager
def running(folder: Path, *sources: Source, **more) -> Iterator[Shop]:
    """A collector that is stopped at the end, whatever happens."""
    shop = make(folder, *sources, **more)
    shop.start()
    try:
        yield shop
    finally:
        shop.stop(signal.SIGKILL if sys.exc_info()[0] else signal.SIGTERM)


def run_python(script: str, *arguments: object) -> list[dict]:
    """Run a script with the Python SDK. The JSON objects it prints."""
    return _printed([str(_have(sdks.python)), "-c", script, *map(str, arguments)], None)


def run_node(script: str, *arguments: object) -> list[dict]:
    """Run a script with the Node SDK. The JSON objects it prints."""
    folder = _have(sdks.node)
    return _printed(["node", "-e", script, "--", *map(str, arguments)], folder)


def _have(sdk) -> Path:
    try:
        return sdk()
    except sdks.Missing as missing:
        pytest.skip(str(missing))


def _printed(command: list[str], folder: Path | None) -> list[dict]:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder, env=environ)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if re.match(r"[\[{]", line)]
