"""How fast are events collected, durably, and does a burst of the SDKs arrive complete?

16 clients, each with a connection of its own, send messages to `foretell collect` and wait for each answer. Beside it a
bare Starlette route does the least that durable means: it appends the same bytes to a file, calls fsync, and answers.
Both run in the same server, one process, and share the machine with the clients; they take turns. The route is there
twice: as one would write it, and with write and fsync in threads, so that 16 of them wait for the disk together.

  collector.single_vs_bare     events a second, one message in a request, over those of the bare route
  collector.single_vs_threads  … over those of the route with threads
  collector.batch_vs_bare      100 messages in a request, as the SDKs send them, over those of the bare route
  collector.batch_vs_threads   … over those of the route with threads
  collector.non_2xx            answers other than 2xx in all of it
  collector.burst_missing      messages of a burst, sent by both SDKs at once, that are not in the lake exactly once

Latencies, events a second and the burst are in the details.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, sdks
from benchmarks.report import progress
from foretell import Source
from foretell.discovery import Definitions
from foretell.project import Project
from ingestion.collector.keys import Keys
from ingestion.load import load
from lake.engine import session

CLIENTS, BATCH = 16, 100
FULL = {"seconds": 4.0, "burst": 1_000_000}
QUICK = {"seconds": 1.0, "burst": 4_000}

BARE = """
import os, sys
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def append(body):
    os.write(fd, body + b"\\n")
    os.fsync(fd)

async def bare(request):
    append(await request.body())
    return JSONResponse({"success": True})

async def threads(request):
    await run_in_threadpool(append, await request.body())
    return JSONResponse({"success": True})

route = Route("/v1/batch", {"bare": bare, "threads": threads}[sys.argv[3]], methods=["POST"])
uvicorn.run(Starlette(routes=[route]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""

PYTHON_BURST = """
import logging, sys
from segment.analytics.client import Client

host, key, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
failed = []
logging.getLogger("segment").setLevel(logging.ERROR)  # it warns of a full queue, for which this waits
client = Client(key, host=host, max_queue_size=20_000, on_error=lambda error, items: failed.append(str(error)))
for n in range(first, first + count):
    event = ("u%d" % (n % 5000), "Product Viewed", {"n": n, "price": 9.5, "sku": "tea-%d" % (n % 100)})
    while not client.track(*event, message_id="p%d" % n)[0]:
        client.queue.join()  # as its documentation says: a full queue is the sender's to wait for
client.flush()
client.join()
sys.exit(str(failed[:3]) if failed else 0)
"""

NODE_BURST = """
const { Analytics } = require('@segment/analytics-node')
const [host, key, first, count] = [process.argv[1], process.argv[2], +process.argv[3], +process.argv[4]]
const analytics = new Analytics({ writeKey: key, host, flushAt: 100, flushInterval: 500 })
analytics.on('error', (error) => { console.error(error); process.exitCode = 1 })
async function main () {
  for (let n = first; n < first + count; n += 2000) {
    const done = []
    for (let i = n; i < Math.min(n + 2000, first + count); i++) {
      done.push(new Promise((resolve) => analytics.track({ userId: 'u' + i % 5000, event: 'Product Viewed',
        messageId: 'n' + i, properties: { n: i, price: 9.5, sku: 'tea-' + i % 100 } }, resolve)))
    }
    await Promise.all(done)
  }
  await analytics.closeAndFlush()
}
main()
"""


@dataclass
class Heard:
    """Answers of one round: seconds each took, seconds in all, and how many were no success."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    bad: int = 0

    def ms(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent)) * 1e3


class Client:
    """One connection that speaks as little HTTP as it must, so that the clients take little of the machine."""

    def __init__(self, port: int, body: bytes, user: str):
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {user}\r\n"
        self.request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        self.link = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> bool:
        self.link.sendall(self.request)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            part = self.link.recv(65_536)
            if not part:
                raise ConnectionError("the server hung up")
            answer += part
        return answer.startswith(b"HTTP/1.1 2")


def body_of(messages: int, key: str) -> bytes:
    """A request as analytics-node sends it. It is sent again and again: nobody looks at ids before they are loaded."""
    batch = [
        {
            "type": "track", "event": "Product Viewed", "userId": f"u{n}", "timestamp": f"2026-05-04T12:00:00.{n:03}Z",
            "properties": {"sku": f"tea-{n}", "price": 9.5, "currency": "EUR", "category": "tea", "position": n},
            "context": {"library": {"name": "@segment/analytics-node", "version": "3.1.0"}, "locale": "en-GB"},
            "messageId": f"node-next-1767225600{n:03}-2f1e9a52-55a5-4a65-9b7c-6a6f1c6f3c11", "integrations": {},
            "_metadata": {"nodeVersion": "20.20.2", "jsRuntime": "node"},
        }
        for n in range(messages)
    ]  # fmt: skip
    sent = {"batch": batch, "writeKey": key, "sentAt": "2026-05-04T12:00:00.900Z"}
    return json.dumps(sent, separators=(",", ":")).encode()


def together(port: int, body: bytes, user: str, seconds: float) -> Heard:
    """All clients at once for some seconds, from processes of their own: threads of one would wait for each other."""
    script = "from benchmarks.collector import half; half()"
    said = json.dumps({"port": port, "user": user, "seconds": seconds, "clients": CLIENTS // 2})
    halves = [
        subprocess.Popen(
            [sys.executable, "-c", script, said], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(2)
    ]  # fmt: skip
    found = Heard()
    for process in halves:
        assert process.stdin is not None
        process.stdin.write(body)
        process.stdin.close()
    for process in halves:
        assert process.stdout is not None
        part = json.loads(process.stdout.read())
        if process.wait():
            raise RuntimeError("the clients could not go on")
        found.seconds += part["seconds"]
        found.bad += part["bad"]
        found.wall = max(found.wall, part["wall"])
    return found


def half() -> None:
    """Half of the clients: what they heard, as JSON on standard output."""
    given = json.loads(sys.argv[1])
    body, heard, parts = sys.stdin.buffer.read(), Heard(), []
    clients = [Client(given["port"], body, given["user"]) for _ in range(given["clients"])]
    for client in clients:
        client.ask()  # warm
    began = time.perf_counter()

    def run(client: Client) -> None:
        part = Heard()
        while (sent := time.perf_counter()) - began < given["seconds"]:
            part.bad += not client.ask()
            part.seconds.append(time.perf_counter() - sent)
        parts.append(part)

    threads = [threading.Thread(target=run, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard.wall = time.perf_counter() - began
    if len(parts) != len(clients):
        sys.exit(1)
    seconds = [s for part in parts for s in part.seconds]
    print(json.dumps({"seconds": seconds, "bad": sum(p.bad for p in parts), "wall": heard.wall}))


@dataclass
class Server:
    """A running server, and the port it listens on."""

    process: subprocess.Popen[bytes]
    port: int


def serve(command: list[str], log: Path) -> Server:
    """Start a server whose command takes the port in place of PORT; return once it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [word.replace("PORT", str(port)) for word in command], stdout=out, stderr=out, cwd=Path(__file__).parents[1]
        )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return Server(process, port)
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"a server did not start:\n{log.read_text()[-2000:]}")


everything = Source(
    name="everything", stream="web", event_at="timestamp", known_at="receivedAt", unique="messageId",
    identifiers={"user_id": "userId"}, columns={"message": "messageId"},
)  # fmt: skip


def prepare(folder: Path) -> tuple[Project, str]:
    """A project with one write key and one contract, which takes every message."""
    folder.mkdir()
    (folder / "foretell.toml").write_text("[foretell]\n")
    project = Project(folder)
    project.__dict__["definitions"] = Definitions({"everything": everything}, {}, {})
    return project, Keys(project.home).new_key("web")[0]


def collector(project: Project, log: Path) -> Server:
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "collect", "--port", "PORT"]
    return serve(command, log)


def rates(folder: Path, project: Project, key: str, repeats: int, seconds: float) -> dict[str, list[Heard]]:
    """Every contestant in every round, in turned order."""
    servers = {"collector": collector(project, folder / "log")}
    for way in ("bare", "threads"):
        servers[way] = serve([sys.executable, "-c", BARE, str(folder / way), "PORT", way], folder / "log")
    user, found = base64.b64encode(f"{key}:".encode()).decode(), {}
    try:
        for n in range(repeats):
            for size, messages in (("single", 1), ("batch", BATCH)):
                body = body_of(messages, key)
                for name in list(servers)[:: 1 if n % 2 == 0 else -1]:
                    heard = together(servers[name].port, body, user, seconds)
                    found.setdefault(f"{name}_{size}", []).append(heard)
                    rate = len(heard.seconds) * messages / heard.wall
                    progress(
                        f"round {n + 1} of {repeats}: {name}, {messages} a request: {rate:,.0f} events a second, "
                        f"p99 {heard.ms(99):.1f} ms"
                    )
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait(60)
    return found


def burst(folder: Path, count: int) -> dict[str, Any]:
    """A burst by both SDKs at once, two processes of each; then a load. What is in the lake, and how long it took."""
    project, key = prepare(folder)
    server = collector(project, folder / "log")
    host, share = f"http://127.0.0.1:{server.port}", count // 4
    commands: list[tuple[list[str], Path | None]] = []
    python = str(sdks.python())
    commands += [([python, "-c", PYTHON_BURST, host, key, str(i * share), str(share)], None) for i in (0, 1)]
    try:
        node = sdks.node()
        commands += [(["node", "-e", NODE_BURST, "--", host, key, str(i * share), str(share)], node) for i in (0, 1)]
    except sdks.Missing as missing:
        progress(f"without the Node SDK: {missing}")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    began = time.perf_counter()
    senders = [subprocess.Popen(command, cwd=cwd, env=environ) for command, cwd in commands]
    codes = [sender.wait() for sender in senders]
    sent_s = time.perf_counter() - began
    server.process.terminate()
    server.process.wait(60)
    if any(codes):
        raise RuntimeError(f"an SDK could not deliver: exit codes {codes}")
    progress(f"{share * len(commands):,} messages sent in {sent_s:.0f} s; loading")
    began = time.perf_counter()
    for result in load(project, ["everything"]):
        if isinstance(result, Exception):
            raise result
    with session(project) as con:
        ((rows, different),) = con.execute("SELECT count(*), count(DISTINCT message) FROM everything").fetchall()
    expected = share * len(commands)
    return {
        "sent": expected, "missing": abs(expected - different) + abs(rows - different), "sent_s": sent_s,
        "events_per_s": expected / sent_s, "load_s": time.perf_counter() - began,
        "sdks": "python and node" if len(commands) == 4 else "python",
    }  # fmt: skip


def measure(quick: bool, repeats: int | None = None) -> dict[str, Any]:
    """The benchmark's JSON object."""
    return run(quick, repeats or (report.QUICK_REPEATS if quick else report.REPEATS)).as_json()


def run(quick: bool, repeats: int) -> report.Report:
    sizes = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name)
        project, key = prepare(folder / "shop")
        heard = rates(folder, project, key, repeats, float(sizes["seconds"]))
        progress(f"a burst of {sizes['burst']:,} messages")
        arrived = burst(folder / "burst", int(sizes["burst"]))

    def per_second(name: str, size: str) -> list[float]:
        messages = 1 if size == "single" else BATCH
        return [len(h.seconds) * messages / h.wall for h in heard[f"{name}_{size}"]]

    def against(size: str, other: str) -> report.Bar:
        both = per_second("collector", size), per_second(other, size)
        return report.ratio(f"collector.{size}_vs_{other}", *both, ">=0.5")

    everything = [h for several in heard.values() for h in several]
    return report.Report(
        benchmark="collector",
        versions=report.versions("starlette", "uvicorn", "msgspec"),
        sizes={**sizes, "clients": CLIENTS, "batch": BATCH, "repeats": repeats, "quick": quick},
        bars=[
            against("single", "bare"), against("single", "threads"),
            against("batch", "bare"), against("batch", "threads"),
            report.bar("collector.non_2xx", [float(sum(h.bad for h in everything))], "==0"),
            report.bar("collector.burst_missing", [float(arrived["missing"])], "==0"),
        ],
        details={
            "burst": arrived,
            **{
                f"{name}_{size}": {
                    "events_per_s": report.summary(per_second(name, size))[0],
                    "p50_ms": report.summary([h.ms(50) for h in heard[f"{name}_{size}"]])[0],
                    "p99_ms": report.summary([h.ms(99) for h in heard[f"{name}_{size}"]])[0],
                }
                for name in ("collector", "bare", "threads")
                for size in ("single", "batch")
            },
        },
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "collector")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    given = parser.parse_args(arguments)
    found = run(given.quick, report.repeats(given))
    print(json.dumps(found.as_json(), allow_nan=False)) if given.json else found.show()


if __name__ == "__main__":
    sys.exit(main())
