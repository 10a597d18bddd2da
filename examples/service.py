"""How does an application ask for scores? It starts `foretell serve` here, asks over HTTP, and stops it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any
from urllib.request import Request, urlopen

import click

STARTING = 180  # seconds the service may take to start before it is given up


def walk(project: Path, who: str, many: list[str]) -> None:
    """Start the service, ask for one profile with reasons, then for many, showing each question; stop it."""
    click.secho("\n$ foretell serve &", fg="cyan", bold=True)
    started = time.time()
    with serving(project) as root:
        click.echo(f"{root} is ready after {time.time() - started:.0f} s")
        answer = _post(root, {"profiles": [who], "tasks": ["churn"], "reasons": True})
        click.echo(json.dumps(answer, indent=2))
        asked = time.time()
        answer = _post(root, {"profiles": many})
        found = sum(len(result["scores"]) for result in answer["results"])
        click.echo(f"{len(many)} profiles, {found} scores in {1000 * (time.time() - asked):.0f} ms")
    click.echo("The service is stopped.")


@contextmanager
def serving(project: Path, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """`foretell serve` on a free port while the block runs; gives its address once it is ready.

    RuntimeError with what the service said if it does not start.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "foretell", "--project", str(project), "serve", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as said:
        service = subprocess.Popen(command, cwd=project, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + STARTING
            while not _ready(f"http://127.0.0.1:{port}"):
                if service.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"the service did not start:\n{said.read()}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            service.terminate()
            service.wait(30)


def _ready(root: str) -> bool:
    try:
        with urlopen(f"{root}/readyz", timeout=5):
            return True
    except OSError:  # not listening yet, or not ready
        return False


def _post(root: str, question: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(question)
    click.secho(f"\n$ curl {root}/v1/scores --json '{_clip(text)}'", fg="cyan", bold=True)
    request = Request(f"{root}/v1/scores", text.encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _clip(text: str) -> str:
    return text if len(text) < 120 else text[:100] + " …"
