"""Does a general AutoML tool find more in our features than our own recipe does, and at what price in time?

    python -m benchmarks.automl [--tasks churn90,propensity30] [--cutoffs 2011-06-01,2011-09-01] [--seconds 300]

A project of the product lives through a log, as in benchmarks/accuracy.py. At each cutoff T a task is trained as by
`foretell train`, and its champion predicts for everyone eligible. The rows that the champion was fitted on (features as
it reads them, labels, weights) and those at T are then given to FLAML and to AutoGluon, each of which has so many
seconds on as many threads as ours uses. Both choose by log loss, and know which rows are of one person, so that they
validate on people whom they have not seen (see _automl_peer.py). Then, as means over the cutoffs:

  accuracy.TASK.auc_minus_PEER       the champion's less the peer's. Spread: 95% of a bootstrap over profiles
  accuracy.TASK.log_loss_minus_PEER  likewise
  accuracy.TASK.seconds_vs_PEER      our seconds over the peer's: the median over the cutoffs, smallest and largest

Our seconds are those of `train` with all of it: leaks, seasons, tuning, backtest, plots, registry. Building features is
counted on neither side. Each peer is installed on first use into an environment of its own below the temporary
directory. Where that fails there are no bars against it, and with --quick there are no peers but those that --peers
names.

A run takes long (two tasks at two cutoffs: 40 minutes for the peers alone), so what is done is kept below the temporary
directory until all is: a run that was stopped goes on when the same is asked of the same code and data. --keep writes
the result to a file, with the command, the date and the machine; the machine should have nothing else to do, for other
work takes from the peers what they could have found in their time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import presets, report
from benchmarks.accuracy import QUICK_TRIALS, _dates, _listed, _tasks
from benchmarks.automl_peers import PEERS, Ask, Place, ask, digest, theirs
from benchmarks.judging import CHAMPION, aligned
from benchmarks.log import Log, answers, span, write_lines
from benchmarks.presets import PRESETS, RETAIL, Preset
from benchmarks.report import Bar, progress
from benchmarks.sdks import Missing
from benchmarks.shop import Asked, live_until, open_shop, people_of
from foretell.console import table
from foretell.errors import DataError, ForetellError, did_you_mean
from foretell.project import Project
from models.registry import champion, quietly
from training import dataset
from training.champion import train
from training.cutoffs import plan
from training.pooled import Pooled

TASKS, QUICK_TASKS, SECONDS, QUICK_SECONDS = ("churn90", "propensity30"), ("churn90",), 300.0, 20.0
METRICS = {"auc": ">=0", "log_loss": "<=0", "ece": None}
HERE = Path(__file__).parent


def ours(place: Place, project: Project, lines: Path, preset: Preset | None, more: Mapping[str, Any]) -> None:
    """Train as of the project's now, let the champion predict, and write the rows for the peers."""
    asked, task = place.asked, project.definitions.task(place.asked.task)
    progress(f"{place.label}: features")
    cutoffs = plan(
        task, project.now, dataset.first_fact(project, task), project.setting("cutoffs"), project.setting("folds")
    )
    dataset.build_for(project, [task], [*cutoffs.all, project.now])
    progress(f"{place.label}: training")
    start = time.perf_counter()
    with project.writing(f"train {task.name}"):
        contest = train(project, task.name, **more).contest
    seconds = time.perf_counter() - start
    profiles, X, learn = contest.now["profile_id"], contest.now[contest.columns], contest.rows
    y = aligned(answers(lines, project.now, asked.days, people_of(project)), profiles, asked, place.label)
    if len(set(y)) < 2:
        raise DataError(place.label, f"all of {len(y):,} profiles did the same", "ask something else")
    if preset:
        preset.check(asked, f"{place.cutoff:%Y-%m-%d}", len(y), float(y.mean()))
    p = quietly(lambda: champion(project, task.name)).predict(X, project.now).to_numpy()
    place.folder.mkdir(parents=True, exist_ok=True)
    who = pd.factorize(learn["person"])[0]
    learn[contest.columns].assign(
        label=learn["label"].astype(int), weight=learn["weight"].astype(float), person=who
    ).reset_index(drop=True).to_parquet(place.folder / "learn.parquet")
    X.reset_index(drop=True).to_parquet(place.folder / "asked.parquet")
    place.keep(CHAMPION, pd.DataFrame({"profile_id": profiles.astype(str).to_numpy(), "y": y, "p": p}), {
        "seconds": seconds, "chosen": contest.winner, "trials": more.get("trials", project.setting("trials")),
        "threads": project.setting("threads"), "columns": contest.columns, "categories": sorted(contest.categories),
        "rows": len(learn), "persons": int(who.max()) + 1, "profiles": len(y), "base_rate": float(y.mean()),
        "cutoffs": [f"{c:%Y-%m-%d}" for c in contest.cutoffs.final],
    })  # fmt: skip


def run(
    log: Log, places: Sequence[Place], peers: Sequence[str], seconds: float, preset: Preset | None, folder: Path,
    more: Mapping[str, Any], ask: Ask,
) -> dict[str, str]:  # fmt: skip
    """Whatever is not done yet. Returns the peers that cannot be had, and why."""
    missing, todo = {}, [place for place in places if not place.about(CHAMPION)]
    lines = folder / "lines.parquet"
    if todo:
        write_lines(log, lines)
        n, customers, end = span(lines)
        if preset:
            preset.check_file(n, customers)
        for place in todo:
            if place.cutoff + timedelta(days=place.asked.days) > end:
                problem = f"its horizon ends after the data do ({end:%Y-%m-%d})"
                raise DataError(place.label, problem, "choose an earlier cutoff")
    for cutoff in sorted({place.cutoff for place in todo}):
        here = [place for place in todo if place.cutoff == cutoff]
        progress(f"loading what came in until {cutoff:%Y-%m-%d}")
        # a project for each: where a champion is in use already it may stay, and it has learned from other rows
        project = open_shop(folder / f"{cutoff:%Y%m%dT%H%M%S}", log.clock, [place.asked for place in here])
        project = live_until(project, lines, cutoff)
        for place in here:
            ours(place, project, lines, preset, more)
    for place in places:
        for peer in peers:
            if peer not in missing and not place.about(peer):
                try:
                    theirs(place, peer, seconds, ask)
                except Missing as why:
                    progress(f"without {peer}, so without bars against it: {why}")
                    missing[peer] = str(why)
    return missing


def summary(name: str, places: Sequence[Place], peers: Sequence[str]) -> tuple[list[Bar], dict[str, Any]]:
    """Show one task; its bars and details."""
    pooled = Pooled("probability", [place.judged(peers) for place in places], metrics=list(METRICS))
    abouts = {m: [place.about(m) for place in places] for m in (CHAMPION, *peers)}
    took = {m: [about["seconds"] for about in abouts[m]] for m in abouts}
    bars, rows, minus = [], [], {}
    for m in pooled.models:
        cells = [f"{pooled.value(m, k):.4f}" for k in METRICS] + [" ".join(f"{s:.0f}" for s in took[m])]
        if m != CHAMPION:
            apart = {k: pooled.difference(CHAMPION, m, k) for k in METRICS}
            minus[m] = {k: list(d) for k, d in apart.items()}
            cells += [f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]" for d in apart.values()]
            bars += [
                Bar(f"accuracy.{name}.{k}_minus_{m}", apart[k].value, limit, (apart[k].low, apart[k].high))
                for k, limit in METRICS.items() if limit
            ]  # fmt: skip
            bars.append(report.ratio(f"accuracy.{name}.seconds_vs_{m}", took[CHAMPION], took[m], "<=1"))
        rows.append((m, *cells, *[""] * (len(METRICS) if m == CHAMPION else 0)))
    print(f"\n{name}: means over {', '.join(f'{place.cutoff:%Y-%m-%d}' for place in places)}")
    table(["model", *METRICS, "seconds", *(f"champion less this, {k}" for k in METRICS)], rows)
    return bars, {
        "models": {m: {k: [pooled.value(m, k), *pooled.interval(m, k)] for k in METRICS} for m in pooled.models},
        "champion_minus": minus, "seconds": took,
        "cutoffs": {
            f"{place.cutoff:%Y-%m-%d}": {
                m: {k: v for k, v in place.about(m).items() if k not in ("columns", "versions")} for m in pooled.models
            } for place in places
        },
    }  # fmt: skip


def main(arguments: list[str] | None = None, ask: Ask = ask) -> None:
    """Read the command line, measure, report."""
    parser = command_line()
    given = parser.parse_args(arguments)
    preset = None if given.quick and not (given.preset or given.file) else PRESETS[given.preset or RETAIL]
    peers = given.peers if given.peers is not None else [] if given.quick else list(PEERS)
    seconds = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    trials = QUICK_TRIALS if given.quick and given.trials is None else given.trials
    tasks = [Asked.parse(t) for t in dict.fromkeys(given.tasks or (QUICK_TASKS if given.quick else TASKS))]
    if other := [a.name for a in tasks if a.answer not in ("left", "bought")]:
        parser.error(f"--tasks: expected a yes or no, such as {', '.join(TASKS)}, got {other[0]}")
    cutoffs = given.cutoffs or _dates(",".join(preset.cutoffs[-2:] if preset else presets.GENERATED_CUTOFFS))
    begun = {"cores": os.cpu_count(), "processor": _processor(), "load_at_start": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as held:
        folder = Path(held)
        log = preset.log(preset.located(given.file)) if preset else presets.generate(folder)
        code = _code(log.file if preset else None, seconds, trials)
        scratch = Path(tempfile.gettempdir()) / f"foretell-automl-{code}"
        progress(f"what is done is kept in {scratch} until all is")
        places = [Place(scratch / f"{a.name}_{c:%Y%m%dT%H%M%S}", a, c) for c in cutoffs for a in tasks]
        before = sum(bool(place.about(who)) for place in places for who in (CHAMPION, *peers))
        missing = run(log, places, peers, seconds, preset, folder, {} if trials is None else {"trials": trials}, ask)
    there = [peer for peer in peers if peer not in missing]
    bars, said = [], {"without": missing or ("none were asked for" if not peers else {})}
    for a in tasks:
        more, said[a.name] = summary(a.name, [place for place in places if place.asked == a], there)
        bars += more
    found = report.Report(
        "automl", {
            "cutoffs": [f"{c:%Y-%m-%d}" for c in cutoffs], "file": log.file.name, "quick": given.quick,
            "seconds": seconds, **{k: places[0].about(CHAMPION)[k] for k in ("trials", "threads")},
        }, bars, report.versions("lightgbm", "scikit-learn", "numpy", "pandas"),
        said | {"peers": {peer: places[0].about(peer)["versions"] for peer in there}},
    )  # fmt: skip
    if given.keep or not given.quick:
        command = shlex.join(["python", "-m", "benchmarks.automl", *(sys.argv[1:] if arguments is None else arguments)])
        machine = begun | {"load_at_end": os.getloadavg()[0], "done_before_start": before}
        about = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z", "machine": report.rounded(machine)}
        file = given.keep or HERE / "automl.json"
        file.write_text(json.dumps(about | found.as_json(), indent=1, allow_nan=False) + "\n")
        progress(f"kept in {file}")
    print()
    found.show()
    if not missing:  # else the next run need not do the rest again
        shutil.rmtree(scratch)


def command_line() -> argparse.ArgumentParser:
    parser = report.options(__doc__ or "", "automl", repeats=False)
    parser.add_argument("file", nargs="?", type=Path, metavar="TRANSACTIONS", help="the preset's file, if elsewhere")
    parser.add_argument("--preset", choices=list(PRESETS), help=f"a known log (default: {RETAIL}; quick: generated)")
    parser.add_argument("--tasks", type=_tasks, help=f"predictions of yes or no (default: {','.join(TASKS)})")
    parser.add_argument("--cutoffs", type=_dates, help="dates such as 2011-06-01 (default: the preset's last two)")
    parser.add_argument("--seconds", type=_seconds, help=f"for each fit of a peer (default: {SECONDS:g})")
    parser.add_argument("--peers", type=_peers, help=f"some of {','.join(PEERS)} (default: all; quick: none)")
    parser.add_argument("--trials", type=int, help="sets of parameters to try for our model (default: its own)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="default: benchmarks/automl.json; quick: nowhere")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 1 to 86,400, got {text!r}")
    return value


def _peers(text: str) -> list[str]:
    for name in (names := _listed(text)):
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"no such peer: {name!r}; {did_you_mean(name, PEERS)}")
    return list(dict.fromkeys(names))


def _code(file: Path | None, *more: Any) -> str:
    """Whether what was done before still counts: a digest of the data file, the settings, the product and the peers."""
    rooms = ("features", "foretell", "ingestion", "lake", "models", "segments", "training", "unification")
    code = [*HERE.glob("*automl*.py"), *(f for room in rooms for f in (HERE.parent / room).rglob("*.py"))]
    data = f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" if file else "generated"
    return digest(data, *map(repr, more), *(f.read_text() for f in sorted(code)))


def _processor() -> str:
    said = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in said if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    try:
        main()
    except ForetellError as error:
        print(f"automl: {error}", file=sys.stderr)
        sys.exit(2)  # as the product's own commands do
