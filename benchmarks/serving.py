"""How fast does the service answer, and what does it cost over HTTP itself?

A small shop is generated, loaded, unified, trained and scored (or --project: one that is), and `foretell serve` is
started on it. Nobody is asked for twice in a round, so that no answer can be a repeated one. Clients keep their
connection open, and share the machine with the service.

  serving.cold_c16_vs_constant  answers a second with 16 clients, over those of /livez, which computes nothing
  serving.p99_over_p50          of one client that asks for one profile after another
  serving.non_2xx               answers other than 2xx in all of it

Seconds to start, latencies with 1 and 16 clients, with reasons, and of 100 profiles at a time are in the details.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import features, report
from benchmarks.report import progress
from foretell.project import Project

PATIENCE = 300  # seconds until the service must be ready
FULL, QUICK = features.Sizes(100_000, 5_000, 4), features.Sizes(12_000, 600, 1)


@dataclass
class Heard:
    """Answers: seconds each took, seconds in all, and how many were no success."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    bad: int = 0

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.wall

    def ms(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent)) * 1e3


def prepare(folder: Path, sizes: features.Sizes) -> None:
    """A project that can be served: churn, trained on as many cutoffs as said, and scored."""
    from serving.score import score
    from training.champion import train

    os.environ["FORETELL_CUTOFFS"] = str(sizes.cutoffs)
    features.prepare(folder, sizes)
    project = Project(folder)
    train(project, "churn", progress)
    score(project, ["churn"], progress=progress)


def eligible(project: Project, task: str) -> list[str]:
    """Everyone that the task's last batch scored, in an order that means nothing."""
    from serving import batch

    last = batch.last(project, task)
    return [] if last is None else last.values()["profile_id"].sample(frac=1.0, random_state=7).tolist()


def start(project: Project, port: int, log: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The service, once it is ready, and the seconds that took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "serve", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[1])
    while time.perf_counter() - began < PATIENCE and process.poll() is None:
        try:
            if ask(port, [("GET", "/readyz", "")]).bad == 0:
                return process, time.perf_counter() - began
        except OSError:
            pass
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the service did not get ready:\n{log.read_text()[-3000:]}")


def ask(port: int, requests: Iterable[tuple[str, str, str]]) -> Heard:
    """One client: these requests (method, path, body), one after the other, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    heard, began = Heard(), time.perf_counter()
    for method, path, body in requests:
        sent = time.perf_counter()
        connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        said = answer.read()
        heard.seconds.append(time.perf_counter() - sent)
        heard.bad += not 200 <= answer.status < 300
        if answer.status == 200 and path == "/v1/scores" and b'"value"' not in said:
            raise ValueError(f"expected a score, got {said[:200]!r}")  # nothing but scores is measured
    connection.close()
    heard.wall = time.perf_counter() - began
    return heard


def together(port: int, requests: Sequence[tuple[str, str, str]], clients: int) -> Heard:
    """Several clients at once, each with its share of the requests."""
    parts: list[Heard] = []
    threads = [
        threading.Thread(target=lambda share=requests[i::clients]: parts.append(ask(port, share)))
        for i in range(clients)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(parts) != clients:
        raise RuntimeError(f"{clients - len(parts)} of {clients} clients could not go on")
    return Heard([s for p in parts for s in p.seconds], time.perf_counter() - began, sum(p.bad for p in parts))


def one_each(profiles: Iterable[str], task: str, reasons: bool = False) -> list[tuple[str, str, str]]:
    asked = [{"profiles": [profile], "tasks": [task], "reasons": reasons} for profile in profiles]
    return [("POST", "/v1/scores", json.dumps(body)) for body in asked]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "serving")
    parser.add_argument("--project", type=Path, help="a scored project to serve (default: one is generated)")
    parser.epilog = f"Full size: {FULL.profiles:,} people. Quick: {QUICK.profiles:,}."
    given = parser.parse_args(arguments)
    sizes, repeats = QUICK if given.quick else FULL, report.repeats(given)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = given.project or Path(name) / "shop"
        if not given.project:
            folder.mkdir()
            prepare(folder, sizes)
        project = Project.find(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        progress("starting the service")
        process, ready_s = start(project, port, Path(name) / "log")
        try:
            served = json.loads(_get(port, "/readyz"))["tasks"]
            task = next(iter(served))
            profiles = eligible(project, task)
            measured = measure(port, profiles, task, repeats, 100 if given.quick else 1_000)
        finally:
            process.terminate()
            process.wait(60)
    everything = [heard for several in measured.values() for heard in several]
    alone = measured["cold_c1"]
    report.Report(
        benchmark="serving",
        versions=report.versions("bentoml", "fastapi", "feast", "lightgbm", "uvicorn"),
        sizes={
            **({} if given.project else asdict(sizes)), "profiles_asked": len(profiles), "repeats": repeats,
            "quick": given.quick,
        },
        bars=[
            report.ratio(
                "serving.cold_c16_vs_constant", [h.per_second for h in measured["cold_c16"]],
                [h.per_second for h in measured["constant_c16"]], ">=0.1",
            ),
            report.bar("serving.p99_over_p50", [h.ms(99) / h.ms(50) for h in alone], "<=4"),
            report.bar("serving.non_2xx", [float(sum(h.bad for h in everything))], "==0"),
        ],
        details={
            "ready_s": ready_s, "task": task, "estimator": served[task]["estimator"],
            **{
                name: {
                    "p50_ms": report.summary([h.ms(50) for h in several])[0],
                    "p99_ms": report.summary([h.ms(99) for h in several])[0],
                    "per_s": report.summary([h.per_second for h in several])[0],
                }
                for name, several in measured.items()
            },
        },
    ).show()  # fmt: skip


def measure(port: int, profiles: list[str], task: str, repeats: int, most: int) -> dict[str, list[Heard]]:
    """Every question in every round; nobody is asked for twice in one."""
    ask(port, one_each(profiles[:20], task, True))  # warm
    found: dict[str, list[Heard]] = {}
    for n in range(repeats):
        some = [*profiles[n % len(profiles) :], *profiles[: n % len(profiles)]][:most]
        hundred = json.dumps({"profiles": some[:100], "tasks": [task]})
        questions = {
            "cold_c1": (one_each(some, task), 1),
            "cold_c16": (one_each(some, task), 16),
            "constant_c16": ([("GET", "/livez", "")] * most, 16),
            "constant_c1": ([("GET", "/livez", "")] * most, 1),
            "reasons_c1": (one_each(some[: most // 4], task, True), 1),
            "reasons_c16": (one_each(some[: most // 4], task, True), 16),
            "hundred_c1": ([("POST", "/v1/scores", hundred)] * 5, 1),
        }
        for name, (requests, clients) in list(questions.items())[:: 1 if n % 2 == 0 else -1]:
            heard = together(port, requests, clients)
            found.setdefault(name, []).append(heard)
            progress(
                f"round {n + 1} of {repeats}: {name} {heard.per_second:,.0f} a second, "
                f"{heard.ms(50):.1f} ms, p99 {heard.ms(99):.1f} ms"
            )
    return found


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    said = connection.getresponse().read()
    connection.close()
    return said


if __name__ == "__main__":
    sys.exit(main())
