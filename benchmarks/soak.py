"""Does the service stay up, and lean, while all around it changes? And how long until it is back when it is killed?

The shop of `benchmarks.serving` (or --project: a scored one, which is copied) is served for five minutes to 16 clients
who ask for all there is to ask: scores of one profile and of fifty, of people asked for before and not, with reasons
and without, whole profiles, tasks, what-if; and who send events, which the service collects. In the midst of it the
events are loaded, a new champion is trained, and everybody is scored again, by the commands, on the same two cores.

  soak.non_2xx        answers other than 2xx in all of it
  soak.not_taken_up   new champions that the service did not answer by at the end
  soak.memory_growth  memory of the service's processes at the end (the most of the last tenth), over that after the
                      warm-up (the first three tenths, during which its cache of answers fills)

Then the worker is killed with SIGKILL, and a batch of scores half way through; in the details: seconds until the
service answers again, and seconds that the batch takes from its start, and when it is begun again. A score that is
lost or doubled by it fails the run.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benchmarks import report, serving
from benchmarks._load import Heard, Load, Request
from benchmarks.report import apart, progress
from foretell.project import Project

FULL, QUICK = {"seconds": 300.0, "people": serving.FULL}, {"seconds": 20.0, "people": serving.QUICK}
CLIENTS, TOGETHER = 16, 800  # requests between two looks at the clock
WARM, LATE = 0.3, 0.9  # parts of the time
TASK = "churn"


def questions(profiles: list[str], authorization: str, seed: int = 7) -> Iterator[Request]:
    """What they ask, without end: most for one person's scores, half of them for one of a few hundred."""
    draw, n = Random(seed), 0
    few = profiles[:300]
    while True:
        n += 1
        who = draw.choice(few if draw.random() < 0.5 else profiles)
        kind = draw.random()
        if kind < 0.70:
            yield "POST", "/v1/scores", json.dumps({"profiles": [who]})
        elif kind < 0.75:
            yield "POST", "/v1/scores", json.dumps({"profiles": [who], "reasons": True})
        elif kind < 0.76:
            yield "POST", "/v1/scores", json.dumps({"profiles": draw.sample(profiles, 50), "features": True})
        elif kind < 0.80:
            yield "GET", f"/v1/profiles/{who}", ""
        elif kind < 0.83:
            yield "POST", "/v1/whatif", json.dumps({"task": TASK, "profile": who, "rows": [{"orders_90d": 3}]})
        elif kind < 0.85:
            yield "GET", draw.choice(["/v1/tasks", "/v1/segments", "/readyz"]), ""
        else:
            event = {
                "messageId": f"soak-{n}", "userId": f"u{draw.randrange(5_000)}", "event": "Product Viewed",
                "properties": {"product_id": f"sku{draw.randrange(2_000)}"},
            }  # fmt: skip
            yield "POST", f"/v1/track\n{authorization}", json.dumps(event)


def memory(process: int) -> int:
    """Bytes that the processes of a service hold, together."""
    found = 0
    for one in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
        try:
            found += one.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return found


def command(project: Project, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "foretell", "--project", str(project.folder), *words], cwd=serving.ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"foretell {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def change(project: Project, errors: list[BaseException]) -> None:
    """What the shop's own people do meanwhile."""
    try:
        command(project, "source", "new", "--stream", "web")
        for words in (("load",), ("train", TASK, "--trials", "0"), ("score",)):
            progress(f"foretell {' '.join(words)}")
            command(project, *words)
        progress("the changes are made")
    except BaseException as error:
        errors.append(error)


def soak(project: Project, process: int, port: int, seconds: float, authorization: str) -> tuple[list[Heard], Any]:
    """(answers, (memory after the warm-up, memory at the end)) of so many seconds."""
    profiles = serving.eligible(project, serving.batch.TASKS)
    asked, heard, held = questions(profiles, authorization), [], []
    errors: list[BaseException] = []
    changing = threading.Thread(target=change, args=(project, errors))
    began = time.monotonic()
    with Load() as load:
        while (now := (time.monotonic() - began) / seconds) < 1 or changing.is_alive():
            if now > WARM and changing.ident is None:
                changing.start()
            heard.append(load.ask(port, [next(asked) for _ in range(TOGETHER)], CLIENTS))
            held.append((now, memory(process)))
    changing.join()
    if errors:
        raise errors[0]
    last = held[-1][0]
    before = [size for at, size in held if at <= WARM][-1]
    return heard, (before, max(size for at, size in held if at >= last * LATE))


def killed(process: int, port: int) -> float:
    """Seconds from the SIGKILL of the process that answers until there are scores again."""
    (worker,) = [p for p in psutil.Process(process).children(recursive=True) if _listens(p, port)]
    began = time.perf_counter()
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    while time.perf_counter() - began < serving.PATIENCE:
        try:
            if serving._get(port, "/readyz")[0] == 200:
                return time.perf_counter() - began
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.02)
    raise RuntimeError("the service did not come back")


def _listens(process: psutil.Process, port: int) -> bool:
    """Whether it is the worker: the parent listens as well, and hands its socket down."""
    listening = [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return port in listening and "worker" in " ".join(process.cmdline())


def resumed(project: Project) -> dict[str, float]:
    """A batch that is killed half way through and begun again: seconds, whole and resumed; nothing lost or doubled."""
    from lake.engine import session

    def scored() -> tuple[int, int]:
        with session(Project(project.folder)) as con:
            return con.execute("SELECT count(*), count(DISTINCT score_id) FROM stored_scores").fetchall()[0]

    def later() -> None:
        """The next day: everybody is scored anew."""
        file = project.folder / "foretell.toml"
        text = file.read_text()
        day = int(text.partition('as_of = "2024-01-')[2][:2])
        file.write_text(text.replace(f"2024-01-{day:02}", f"2024-01-{day + 1:02}", 1))

    before = scored()
    later()
    began = time.perf_counter()
    command(project, "score", "--reasons", "none")
    whole, after = time.perf_counter() - began, scored()
    later()
    began = time.perf_counter()
    words = [sys.executable, "-m", "foretell", "--project", str(project.folder), "score", "--reasons", "none"]
    batch = subprocess.Popen(words, cwd=serving.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(whole / 2)
    batch.kill()
    batch.wait()
    until, began = time.perf_counter() - began, time.perf_counter()
    command(project, "score", "--reasons", "none")
    again, end = time.perf_counter() - began, scored()
    if not end[0] == end[1] or not before[0] < after[0] < end[0]:
        raise ValueError(f"scores were lost or doubled: {before}, {after}, {end}")
    return {"batch_s": whole, "killed_after_s": until, "resumed_s": again, "scores_each": after[0] - before[0]}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    from ingestion.collector.keys import Keys

    parser = report.options(__doc__ or "", "soak")
    parser.add_argument("--project", type=Path, help="a scored project, which is copied (default: one is generated)")
    given = parser.parse_args(arguments)
    sizes: dict[str, Any] = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name) / "shop"
        if given.project:
            shutil.copytree(given.project, folder)
        else:
            folder.mkdir()
            apart(serving.prepare, folder, sizes["people"])
        project = Project(folder)
        key = b64encode(f"{Keys(project.home).new_key('web')[0]}:".encode()).decode()
        (port,) = serving._free(1)
        words = [sys.executable, "-m", "foretell", "--project", str(folder), "serve", "--collect", "--port", str(port)]
        process, ready_s = serving.start(words, port, Path(name) / "log", "/readyz", {})
        try:
            progress(f"asking for {sizes['seconds']:.0f} s")
            heard, (before, after) = soak(
                project, process.pid, port, sizes["seconds"], f"Authorization: Basic {key}\r\n"
            )
            answering = json.loads(serving._get(port, "/readyz")[1])["tasks"]
            recovery = [killed(process.pid, port) for _ in range(report.repeats(given))]
        finally:
            process.terminate()
            process.wait(60)
        batch = resumed(project)
    seconds = sorted(second for one in heard for second in one.seconds)
    report.Report(
        benchmark="soak",
        versions=report.versions("bentoml", "uvicorn", "lightgbm"),
        sizes={**sizes, "clients": CLIENTS, "requests": len(seconds), "quick": given.quick},
        bars=[
            report.bar("soak.non_2xx", [float(sum(one.bad for one in heard))], "==0"),
            report.bar("soak.not_taken_up", [float(answering[TASK]["version"] == "1")], "==0"),
            report.bar("soak.memory_growth", [after / before - 1], "<=0.05"),
        ],
        details={
            "ready_s": ready_s, "p50_ms": seconds[len(seconds) // 2] * 1e3,
            "p99_ms": seconds[int(len(seconds) * 0.99)] * 1e3, "longest_ms": seconds[-1] * 1e3,
            "mb_after_warm_up": before / 1e6, "mb_at_the_end": after / 1e6,
            "bad": next((one.said for one in heard if one.said), ""),
            "worker_back_s": report.summary(recovery)[0], "worker_back_longest_s": max(recovery), **batch,
            "load": os.getloadavg()[0],
        },
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
