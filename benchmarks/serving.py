"""How fast does the service answer, and what does it cost over HTTP itself?

The shop of `benchmarks.batch`, in which learned models win, is generated, loaded, unified, trained and scored for four
tasks (or --project: one that is), and `foretell serve` is started on it. Beside it two more: the service that one
writes first (_serving_peer.py: BentoML, Feast's get_online_features and a model of MLflow's for each task), and the
product's own application under uvicorn alone, without BentoML (_serving_bare.py). Each has one process, and they take
turns. Clients keep their connections open, and share the machine with the services. Cold: whoever is asked for was not
asked for before.

  serving.cold_c1_speedup        answers a second of all tasks for one profile, 1 client, over the naive service's
  serving.cold_c16_speedup       the same of 16 clients
  serving.hot_c16_speedup        of 16 clients that ask for the same few hundred profiles
  serving.reasons_c16_speedup    with reasons, cold, 16 clients; the naive service asks shap.TreeExplainer
  serving.cold_c16_vs_constant   over those of /livez, which is a constant of the same service
  serving.p99_over_p50           of the cold ones
  serving.non_2xx                answers other than 2xx, and others than scores, in all of it

In the details: seconds to start, latencies, 100 profiles at a time; and BentoML's own share of a request, as a part of
the time that the service takes for a cold one and for a constant, and what it is of a constant that an API of BentoML's
gives (`bentoml_*`).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import batch, report
from benchmarks._load import Heard, Load, Request
from benchmarks.report import apart, progress
from foretell.project import Project

PATIENCE = 300  # seconds until the service must be ready
ROOT = Path(__file__).parents[1]
FULL, QUICK = 100_000, 3_000  # people


def prepare(folder: Path, people: int) -> None:
    """A project that can be served: four tasks, trained and scored."""
    from serving.score import score

    score(batch.trained(folder, people), list(batch.TASKS), progress=progress, reasons="none")


def eligible(project: Project, tasks: Sequence[str]) -> list[str]:
    """Everyone that the last batch of all these tasks scored, in an order that means nothing."""
    from serving.batch import last

    found = [set(known.values()["profile_id"]) for task in tasks if (known := last(project, task))]
    everyone = sorted(set.intersection(*found))
    return [everyone[place] for place in np.random.default_rng(7).permutation(len(everyone))]


def start(command: list[str], port: int, log: Path, probe: str, environment: Mapping[str, str]) -> tuple[Any, float]:
    """A server, once it answers, and the seconds that took."""
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **environment}
        )  # fmt: skip
    while time.perf_counter() - began < PATIENCE and process.poll() is None:
        try:
            if _get(port, probe)[0] == 200:
                return process, time.perf_counter() - began
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the service did not get ready:\n{log.read_text()[-3000:]}")


def one_each(profiles: Iterable[str], reasons: bool = False) -> list[Request]:
    asked = [{"profiles": [profile], "reasons": reasons} for profile in profiles]
    return [("POST", "/v1/scores", json.dumps(body)) for body in asked]


def naive(profiles: Iterable[str], route: str) -> list[Request]:
    return [("POST", f"/{route}", json.dumps({"profile": profile})) for profile in profiles]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "serving")
    parser.add_argument("--project", type=Path, help="a scored project to serve (default: one is generated)")
    parser.add_argument("--keep", type=Path, help="leave the project in this folder")
    parser.epilog = f"Full size: {FULL:,} people. Quick: {QUICK:,}."
    given = parser.parse_args(arguments)
    people, repeats = QUICK if given.quick else FULL, report.repeats(given)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = given.project or given.keep or Path(name) / "shop"
        if not given.project:
            folder.mkdir(parents=True)
            apart(prepare, folder, people)
        project = Project.find(folder)
        ports = _free(3)
        progress("starting the services")
        command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "serve", "--port"]
        process, ready_s = start([*command, str(ports[0])], ports[0], Path(name) / "log", "/readyz", {})
        try:
            served = json.loads(_get(ports[0], "/readyz")[1])["tasks"]
            peer, _ = start(
                [sys.executable, "-m", "bentoml", "serve", "benchmarks._serving_peer:Peer", "--port", str(ports[1])],
                ports[1], Path(name) / "peer", "/readyz", {
                    "PEER_PROJECT": str(project.folder), "BENTOML_HOME": name, "BENTOML_DO_NOT_TRACK": "True",
                    "PEER_TASKS": json.dumps({task: facts["version"] for task, facts in served.items()}),
                },
            )  # fmt: skip
            bare, _ = start(
                [sys.executable, "-m", "benchmarks._serving_bare", str(ports[2])],
                ports[2], Path(name) / "bare", "/readyz", {"FORETELL_PROJECT": str(project.folder)},
            )  # fmt: skip
            try:
                profiles = eligible(project, list(served))
                measured = measure(ports, profiles, repeats, 200 if given.quick else 4_000)
            finally:
                for other in (peer, bare):
                    other.terminate()
                    other.wait(60)
        finally:
            process.terminate()
            process.wait(60)
    everything = [heard for several in measured.values() for heard in several]

    def faster(one: str, other: str, limit: str) -> report.Bar:
        ours, theirs = ([heard.per_second for heard in measured[name]] for name in (one, other))
        return report.ratio(
            f"serving.{one}_{'speedup' if other.startswith('naive') else 'vs_constant'}", ours, theirs, limit
        )

    def added(whole: str, bare: str) -> float:
        """What part of the time of the whole is not the bare one's."""
        took = [report.summary([heard.per_second for heard in measured[name]])[0] for name in (bare, whole)]
        return 1 - took[1] / took[0]

    report.Report(
        benchmark="serving",
        versions=report.versions("bentoml", "feast", "lightgbm", "mlflow", "shap", "uvicorn"),
        sizes={
            **({} if given.project else {"people": people}), "tasks": list(served), "profiles_asked": len(profiles),
            "repeats": repeats, "quick": given.quick, "load": os.getloadavg()[0],
        },
        bars=[
            faster("cold_c1", "naive_c1", ">=5"),
            faster("cold_c16", "naive_c16", ">=8"),
            faster("hot_c16", "naive_c16", ">=15"),
            faster("reasons_c16", "naive_reasons_c16", ">=2"),
            faster("cold_c16", "constant_c16", ">=0.5"),
            report.bar("serving.p99_over_p50", [h.ms(99) / h.ms(50) for h in measured["cold_c16"]], "<=10"),
            report.bar("serving.non_2xx", [float(sum(h.bad for h in everything))], "==0"),
        ],
        details={
            "ready_s": ready_s, "estimators": {task: facts["estimator"] for task, facts in served.items()},
            "bentoml_of_cold": added("cold_c16", "bare_cold_c16"),
            "bentoml_of_constant": added("constant_c16", "bare_constant_c16"),
            "bentoml_of_its_own_constant": added("naive_constant_c16", "bare_constant_c16"),
            "bad": next((heard.said for heard in everything if heard.said), ""),
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


def measure(ports: Sequence[int], profiles: list[str], repeats: int, most: int) -> dict[str, list[Heard]]:
    """Every question in every round; nobody is asked for twice, but where that is the question."""
    found: dict[str, list[Heard]] = {}
    ours, theirs, bare = ports
    few, rest = max(20, most // 20), list(profiles)
    hot = [rest.pop() for _ in range(max(50, few))]

    def fresh(count: int) -> list[str]:
        if len(rest) < count:
            raise ValueError(f"expected {count} profiles that were not asked for yet, got {len(rest)}")
        return [rest.pop() for _ in range(count)]

    with Load() as load:
        for asked in (one_each(fresh(5)), one_each(fresh(5), True)):  # warm
            load.ask(ours, asked, 1)
        load.ask(bare, one_each(fresh(5)), 1)
        for route in ("score", "explained"):
            load.ask(theirs, naive(fresh(5), route), 1)
        for n in range(repeats):
            hundred = json.dumps({"profiles": fresh(100)})
            questions = {
                "cold_c1": (ours, one_each(fresh(most // 4)), 1, '"value"'),
                "cold_c16": (ours, one_each(fresh(most)), 16, '"value"'),
                "hot_c16": (ours, one_each(hot) * max(1, most // len(hot)), 16, '"value"'),
                "constant_c16": (ours, [("GET", "/livez", "")] * most, 16, "alive"),
                "bare_cold_c16": (bare, one_each(fresh(most)), 16, '"value"'),
                "bare_constant_c16": (bare, [("GET", "/livez", "")] * most, 16, "alive"),
                "naive_constant_c16": (theirs, [("POST", "/constant", "{}")] * (most // 4), 16, "alive"),
                "constant_c1": (ours, [("GET", "/livez", "")] * (most // 4), 1, "alive"),
                "reasons_c1": (ours, one_each(fresh(few), True), 1, '"value"'),
                "reasons_c16": (ours, one_each(fresh(few), True), 16, '"value"'),
                "hundred_c1": (ours, [("POST", "/v1/scores", hundred)], 1, '"value"'),
                "naive_c1": (theirs, naive(fresh(few), "score"), 1, '"values"'),
                "naive_c16": (theirs, naive(fresh(2 * few), "score"), 16, '"values"'),
                "naive_reasons_c16": (theirs, naive(fresh(few), "explained"), 16, '"values"'),
            }
            for name, question in list(questions.items())[:: 1 if n % 2 == 0 else -1]:
                heard = load.ask(*question)
                found.setdefault(name, []).append(heard)
                progress(
                    f"round {n + 1} of {repeats}: {name} {heard.per_second:,.0f} a second, "
                    f"{heard.ms(50):.1f} ms, p99 {heard.ms(99):.1f} ms"
                )
    return found


def _free(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, said


if __name__ == "__main__":
    sys.exit(main())
