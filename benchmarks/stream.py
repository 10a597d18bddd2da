"""How long does it take from an event to the scores of its profile, and is any lost when ten times as many come?

The shop of `benchmarks.batch`, up to today, with four champions, is served by `foretell serve --collect`, and
`foretell stream` works beside it, everything on the same machine. Events of its people (lines of baskets, of people
known and new) are sent one by one at a steady rate, for a minute; of some of them the scores are asked for until they
are as of the event. Then ten times as many come for a minute, in batches as the SDKs send them, and queue.

  stream.p95_ms  from before an event is sent until the scores of its profile, asked for over HTTP, know it; 95% of them
  stream.lost    events that were said to be safe and are not facts once all is loaded, or are so twice; and profiles
                 whose fresh features are others than those that are rebuilt for the same T

In the details: the median and the longest; how long events waited at most at ten times the rate, and how long it took
until the queue was empty; memory of the worker.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks import batch, features_shop, report
from benchmarks.features_shop import START
from benchmarks.report import apart, progress
from benchmarks.serving import _free, start
from foretell.project import Project


@dataclass(frozen=True)
class Sizes:
    """People of the shop, seconds of each part, events a second, what is predicted."""

    people: int
    seconds: float
    rate: int
    tasks: tuple[str, ...]


FULL, QUICK = Sizes(20_000, 60.0, 100, tuple(batch.TASKS)), Sizes(1_500, 8.0, 50, ("churn",))
SETTINGS = '[foretell]\nthreads = 2\nmemory = "3GB"\ncutoffs = 3\nfolds = 2\ntrials = 0\n'
SOURCE = '''"""Lines of baskets, as the shop's web site sends them."""

from foretell import Source

web = Source(
    name="web",
    stream="web",
    role="order_line",
    only="event = 'order_line'",
    event_at="timestamp",
    known_at="receivedAt",
    unique="messageId",
    timezone="Europe/Oslo",
    times_in="UTC",
    identifiers={"email": "context.traits.email", "loyalty_card": "userId"},
    columns={
        "order_id": "properties.basket_id",
        "amount": "properties.paid",
        "quantity": "properties.quantity",
        "product_id": "properties.product_id",
        "category": "properties.category",
    },
)
'''


def prepare(folder: Path, people: int, tasks: Sequence[str]) -> None:
    """A project up to now with a champion for each task, everyone scored, and a stream."""
    from ingestion.collector.keys import Keys
    from ingestion.load import load
    from serving.score import score
    from training.champion import train
    from unification.identity import unify

    texts = {f"tasks/{name}.py": batch.TASK.format(name=name, views=batch.VIEWS) for name in tasks}
    texts |= {"foretell.toml": SETTINGS, "sources/shop.py": features_shop.SOURCE, "sources/web.py": SOURCE}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    file = folder / "exports" / "shop" / "lines.parquet"
    batch.generate(file, people)
    lines = pd.read_parquet(file)
    ahead = pd.Timestamp.now("UTC").floor("s") - lines["uploaded_at"].max()
    for column in ("sold_at", "uploaded_at"):
        lines[column] += ahead - pd.Timedelta(minutes=5)
    lines.to_parquet(file, index=False)
    project = Project(folder)
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, Exception):
            raise loaded
    unify(project)
    for name in tasks:
        progress(f"{name}: {train(project, name, progress).winner}")
    score(project, list(tasks), progress=progress, reasons="none")
    (folder / "write_key").write_text(Keys(project.home).new_key("web")[0])


class Sender:
    """Sends events of the shop's people, over one connection. sent: messageId -> whose."""

    def __init__(self, port: int, key: str, people: int, seed: int = 1):
        self._port, self._people, self._rng = port, people, np.random.default_rng(seed)
        self._auth = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.sent: dict[str, str] = {}

    def event(self, who: str | None = None) -> dict[str, Any]:
        n, rng = len(self.sent), self._rng
        new = rng.random() < 0.05
        who = who or (f"N{n}" if new else f"C{rng.integers(self._people)}")
        message = f"m{self._port}-{n}-{rng.integers(1 << 40)}"
        self.sent[message] = who
        product = int(2_000 * rng.random() ** 2.5)
        return {
            "type": "track", "event": "order_line", "messageId": message, "userId": who,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "context": {"traits": {"email": f"{who.lower()}@shop.example"} if rng.random() < 0.2 else {}},
            "properties": {
                "basket_id": f"w{n}", "paid": round(float(rng.gamma(4, 6)), 2), "quantity": 1,
                "product_id": f"sku{product}", "category": f"c{product % 30}",
            },
        }  # fmt: skip

    def send(self, events: list[dict[str, Any]]) -> None:
        """Returns once they are durable; comes again while the collector says that it has too much to do."""
        path, body = ("/v1/track", events[0]) if len(events) == 1 else ("/v1/batch", {"batch": events})
        while True:
            headers = {"Content-Type": "application/json", "Authorization": self._auth}
            status, said = _asked(self._connection, "POST", path, json.dumps(body), headers)
            if status == 200:
                return
            if status not in (429, 503):
                raise RuntimeError(f"the collector answered {status}: {said[:200]!r}")
            time.sleep(1)


def _asked(connection: http.client.HTTPConnection, *request: Any) -> tuple[int, bytes]:
    """Status and body; asked again where the server has closed a connection that lay idle."""
    for last in (False, True):
        try:
            connection.request(*request)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            if last:
                raise
    raise AssertionError


class Asker:
    """Asks for the scores of a profile until they know an event."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def cutoff(self, who: str) -> datetime:
        """The latest T of the scores."""
        said = json.loads(_asked(self._connection, "GET", f"/v1/profiles/loyalty_card:{who}/scores?task=churn")[1])
        return max((datetime.fromisoformat(score["cutoff"]) for score in said.get("scores", ())), default=START)


def steady(sender: Sender, asker: Asker, seconds: float, rate: int, probes: list[str]) -> list[float]:
    """Send at a steady rate, five a second of people whose scores are then asked for. Seconds until they knew."""
    found: list[float] = []
    waiting: queue.Queue[tuple[str, float, datetime] | None] = queue.Queue()

    def ask() -> None:
        while (probe := waiting.get()) is not None:
            who, began, at = probe
            while asker.cutoff(who) <= at:
                if time.perf_counter() - began > 60:
                    found.append(float("inf"))
                    break
                time.sleep(0.004)
            else:
                found.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    start, n = time.perf_counter(), 0
    while (now := time.perf_counter() - start) < seconds:
        if n / rate > now:
            time.sleep(n / rate - now)
        probe = n % max(1, rate // 5) == 0
        event = sender.event(probes[n % len(probes)] if probe else None)
        began = time.perf_counter()
        at = datetime.fromisoformat(event["timestamp"])
        sender.send([event])
        if probe:
            waiting.put((event["userId"], began, at))
        n += 1
    waiting.put(None)
    thread.join()
    return found


def burst(sender: Sender, seconds: float, rate: int) -> None:
    """Send at a rate, fifty at a time as the SDKs do."""
    start, n = time.perf_counter(), 0
    while (now := time.perf_counter() - start) < seconds:
        if n / rate > now:
            time.sleep(n / rate - now)
        sender.send([sender.event() for _ in range(50)])
        n += 50


def lost(folder: Path, sent: dict[str, str], some: int = 40) -> tuple[int, int, int]:
    """Of the events sent: how many are no facts, or several, once all is loaded; and of some profiles, how many have
    fresh features other than those rebuilt for the same T, and how many were looked at."""
    from ingestion.load import load
    from lake.engine import session
    from serving.fresh.rows import Rows
    from serving.http.index import Index
    from unification.identity import unify

    project = Project(folder)
    for loaded in load(project, ["web"]):
        if isinstance(loaded, Exception):
            raise loaded
    unify(project)
    with session(project) as con:
        query = "SELECT order_id, count(*) FROM web WHERE order_id LIKE 'w%' GROUP BY 1"
        found = Counter(dict(con.execute(query).fetchall()))
    wrong = sum(found[f"w{n}"] != 1 for n in range(len(sent))) + max(0, found.total() - len(sent))
    index = Index(project)
    index.look_for_news(project)
    rng = np.random.default_rng(0)
    people = [f"loyalty_card:{who}" for who in rng.permutation(sorted(set(sent.values())))[:some]]
    profiles = [p for p in index.resolve(people) if isinstance(p, str)]
    rows, other = Rows(project), len(people) - len(profiles)
    for profile, (packed, at) in index.newer(profiles).items():
        wanted, features = rows.rebuilt(profile, at), index.layout.features(packed)
        other += not np.allclose(features[wanted.own], wanted.features[wanted.own], rtol=1e-9, equal_nan=True)
    return wrong, other, len(people)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "stream", repeats=False)
    parser.add_argument("--project", type=Path, help="the folder of a project that `--keep` has left; it is copied")
    parser.add_argument("--keep", type=Path, help="leave the project in this folder")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = given.keep or Path(name) / "shop"
        if given.project:
            shutil.copytree(given.project, folder)
        else:
            folder.mkdir(parents=True)
            apart(prepare, folder, sizes.people, sizes.tasks)
        (port,) = _free(1)
        progress("starting the service and the worker")
        command = [sys.executable, "-m", "foretell", "--project", str(folder)]
        service, _ = start(
            [*command, "serve", "--collect", "--port", str(port)], port, Path(name) / "log", "/readyz", {}
        )
        with (Path(name) / "worker").open("w") as out:
            worker = subprocess.Popen([*command, "stream"], stdout=out, stderr=out)
        try:
            while "Streaming" not in (Path(name) / "worker").read_text():
                if worker.poll() is not None:
                    raise RuntimeError((Path(name) / "worker").read_text())
                time.sleep(0.1)
            sender = Sender(port, (folder / "write_key").read_text(), sizes.people)
            probes = eligible(Project(folder))
            asker = Asker(port)
            progress(f"{sizes.rate} events a second for {sizes.seconds:.0f} s")
            steady(sender, asker, min(5.0, sizes.seconds), sizes.rate, probes)  # warm
            seconds = steady(sender, asker, sizes.seconds, sizes.rate, probes)
            progress(f"{10 * sizes.rate} events a second for {sizes.seconds:.0f} s")
            burst(sender, sizes.seconds, 10 * sizes.rate)
            last, began = sender.event(probes[0]), time.perf_counter()
            sender.send([last])
            while asker.cutoff(probes[0]) <= datetime.fromisoformat(last["timestamp"]):
                time.sleep(0.05)
            drained = time.perf_counter() - began
            memory = psutil.Process(worker.pid).memory_info().rss
        finally:
            for process in (worker, service):
                process.send_signal(signal.SIGINT)
                process.wait(120)
        told = (Path(name) / "worker").read_text().splitlines()
        wrong, other, looked = apart(lost, folder, sender.sent)
    late = np.array(seconds) * 1e3
    report.Report(
        benchmark="stream",
        versions=report.versions("duckdb", "bentoml", "lightgbm"),
        sizes={"people": sizes.people, "tasks": len(sizes.tasks), "features": 40, "events": len(sender.sent),
               "rate": sizes.rate, "probes": len(late), "quick": given.quick, "load": os.getloadavg()[0]},
        bars=[
            report.Bar("stream.p95_ms", float(np.percentile(late, 95)), "<=250", (late.min(), late.max())),
            report.bar("stream.lost", [float(wrong + other)], "==0"),
        ],
        details={
            "p50_ms": float(np.percentile(late, 50)), "queue_empty_after_s": drained, "worker_gb": memory / 1e9,
            "events_lost_or_twice": wrong, "profiles_other_than_rebuilt": other, "profiles_rebuilt": looked,
            "worker_said": told[-3:],
        },
    ).show()  # fmt: skip


def eligible(project: Project, most: int = 5_000) -> list[str]:
    """Cards of people whom churn is asked of."""
    from lake.engine import session
    from serving.http.index import Index

    index = Index(project)
    with session(project) as con:
        query = "SELECT node, profile_id FROM member WHERE node LIKE 'loyalty_card:C%' ORDER BY node LIMIT ?"
        known = con.execute(query, [most]).fetchall()
    place = index.layout.tasks.index("churn")
    rows = index.rows([profile for _, profile in known])
    return [node.partition(":")[2] for node, profile in known if profile in rows and rows[profile][place] == 1]


if __name__ == "__main__":
    sys.exit(main())
