"""A simulated year: does what goes live keep what the backtest promised? Replayed month by month by the command line.

A shop's log is lived through: at first all that is known then is loaded, and the tasks are trained once. From then on
every month loads what came in (load, unify), scores everyone, grades the scores whose time has come, and looks at the
models (score, grade, monitor --fail), each as the command that people type, in a process of its own. In the end every
grade is compared with what plain SQL says of the log, and every live figure with the band in which one more exam of the
backtest would lie.

    python -m benchmarks.replay                          # Online Retail II: trained on a year, replayed for a year
    python -m benchmarks.replay --quick                  # a small generated shop, for four months
    python -m benchmarks.replay --keep FOLDER            # the project stays, with monitor.html, the page for people
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import presets, report
from benchmarks.log import Log, answers, span, write_lines
from benchmarks.presets import PRESETS
from benchmarks.report import Bar, progress
from benchmarks.shop import Asked, move_on, open_shop, people_of
from foretell.console import table, worth
from foretell.project import Project
from lake.engine import session
from serving.alerts import watched
from serving.monitor import monitor
from serving.monitor_page import live
from serving.watched import Monitored, Watched

TASKS, QUICK_TASKS = ("churn90", "propensity30", "clv90", "lookalike"), ("propensity30", "purchases30")
FIRST, MONTHS = datetime(2010, 12, 1, tzinfo=UTC), 12
QUICK_MONTHS = 4
WITHIN = 0.8  # of the watched figures should lie where 95% of them do

Command = Callable[[Path, Sequence[str]], tuple[int, str]]
"""Runs `foretell --project FOLDER WORDS…`; returns its exit code and what it printed."""


@dataclass
class Replay:
    """A replayed log. alerts: now -> lines that `monitor --fail` printed; wrong: grades that are not what happened."""

    project: Project
    seen: Monitored
    alerts: dict[str, list[str]] = field(default_factory=dict)
    graded: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def apart(folder: Path, words: Sequence[str]) -> tuple[int, str]:
    """In a process of its own, as people run it."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "foretell", "--project", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    return done.returncode, done.stdout + done.stderr


def replay(
    log: Log, folder: Path, asked: Sequence[Asked], nows: Sequence[datetime], trials: int, command: Command = apart
) -> Replay:
    """Live through a log: train at the first now, then score, grade and look at each of them. A command that fails
    is a ValueError with what it said."""
    write_lines(log, lines := folder / "lines.parquet")
    project, clock, alerts = open_shop(folder / "shop", log.clock, asked), {}, {}

    def run(*words: str, may: int = 0) -> str:
        began = time.perf_counter()
        code, said = command(project.folder, words)
        clock[words[0]] = clock.get(words[0], 0.0) + time.perf_counter() - began
        if code not in (0, may):
            raise ValueError(f"foretell {' '.join(words)} ended with {code}:\n{said}")
        return said

    names = [one.task for one in asked]
    for place, now in enumerate(nows):
        project, _, copied = move_on(project, lines, now, project.exports)
        progress(f"{now:%Y-%m-%d}: {copied:,} lines came in")
        run("load")
        run("unify")
        if not place:
            progress(run("train", *names, "--trials", str(trials)))
        run("score")
        run("grade")
        said = run("monitor", "--fail", may=1)
        alerts[f"{now:%Y-%m-%d}"] = [line for line in said.splitlines() if line.startswith("ALERT")]
    run("monitor", "--html", str(project.folder / "monitor.html"))
    made = Replay(project, monitor(project, names), alerts, seconds=clock)
    people = people_of(project)
    for one in asked:
        made.graded[one.name], made.wrong[one.name] = _checked(project, lines, one, people)
    return made


def _checked(project: Project, lines: Path, asked: Asked, people: pd.DataFrame) -> tuple[int, int]:
    """(how many grades a task has, how many are not what plain SQL over the log says)."""
    with session(project) as con:
        rows = con.execute("SELECT cutoff, profile_id, label FROM outcomes WHERE task = ?", [asked.task]).df()
    wrong = 0
    for cutoff, part in rows.groupby("cutoff"):
        said = answers(lines, pd.Timestamp(str(cutoff)).to_pydatetime(), asked.days, people)
        both = part.merge(said[["profile_id", asked.answer]], on="profile_id", how="left")
        wrong += int((~((both["label"] - both[asked.answer]).abs() < 1e-6)).sum())
    return len(rows), wrong


def show(made: Replay) -> None:
    """Print each task's live figures by month, whether they lie where the backtest has them, and the alerts."""
    for of in made.seen.watched:
        print(f"\n{of.name}: {of.metric}, {len(of.expected.get('exams', ()))} exams")
        table(["cutoff", "graded", "foretold", "came", *_heads(of), ""], [
            [
                f"{g.cutoff:%Y-%m-%d}", f"{len(g.y):,}", worth(of.kind, g.foretold), worth(of.kind, g.came),
                *(cell for name in _watched(of) for v in [g.verdicts.get(name)]
                  for cell in (live(v), f"{v.band[0]:.4g} … {v.band[1]:.4g}" if v else "–")),
                g.state,
            ] for g in of.graded
        ])  # fmt: skip
    print()
    for now, lines in made.alerts.items():
        for line in lines:
            print(f"{now}  {line}")
    if not any(made.alerts.values()):
        print("no alert in any month")


def _watched(of: Watched) -> list[str]:
    return [name for name in watched(of.kind, of.metric) if of.graded and name in of.graded[0].verdicts]


def _heads(of: Watched) -> list[str]:
    return [head for name in _watched(of) for head in (name, "expected of one cutoff")]


def bars_of(made: Replay, asked: Sequence[Asked]) -> list[Bar]:
    """No grade is wrong; of the watched figures WITHIN lie in their band."""
    wrong, graded = float(sum(made.wrong.values())), float(sum(made.graded.values()))
    bars = [Bar("replay.wrong_grades", wrong, "<=0", (0.0, graded)), Bar("replay.grades", graded, ">0", (0.0, graded))]
    for one in asked:
        states = [
            g.verdicts[name].state for of in made.seen.watched if of.task == one.task
            for g in of.graded for name in _watched(of)
        ]  # fmt: skip
        inside, known = states.count("within"), len([s for s in states if s != "unknown"])
        share = inside / known if known else float("nan")
        bars.append(Bar(f"replay.{one.name}.within", share, f">={WITHIN}", (float(inside), float(known))))
    return bars


def details(made: Replay) -> dict[str, Any]:
    """Per task and cutoff every live figure with its interval, the band, and what the rule says."""
    return {
        of.name: {
            f"{g.cutoff:%Y-%m-%d}": {
                name: {"live": [v.live.value, v.live.low, v.live.high], "exams": v.mean, "band": list(v.band),
                       "limits": list(v.limits), "state": v.state}
                for name, v in g.verdicts.items()
            } for g in of.graded
        } for of in made.seen.watched
    }  # fmt: skip


def months(first: datetime, count: int) -> list[datetime]:
    """The first instant of so many months after a first one, and that one itself."""
    later = [(first.month - 1 + n) for n in range(count + 1)]
    return [first.replace(year=first.year + m // 12, month=m % 12 + 1) for m in later]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, replay, report."""
    parser = report.options(__doc__ or "", "replay", repeats=False)
    parser.add_argument("--months", type=int, help=f"how many to replay (default: {MONTHS}, quick: {QUICK_MONTHS})")
    parser.add_argument(
        "--trials", type=int, default=0, help="sets of parameters to try for learned models (default: 0)"
    )
    parser.add_argument("--tasks", type=lambda text: text.split(","), help=f"such as {','.join(TASKS)}")
    parser.add_argument("--keep", type=Path, help="a new folder in which the project stays")
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-replay-")))
        folder.mkdir(parents=True, exist_ok=True)
        preset = PRESETS[presets.RETAIL]
        log = presets.generate(folder) if given.quick else preset.log(preset.located())
        asked = [Asked.parse(name) for name in given.tasks or (QUICK_TASKS if given.quick else TASKS)]
        count = given.months or (QUICK_MONTHS if given.quick else MONTHS)
        made = replay(log, folder, asked, months(FIRST, count), given.trials)
        if not given.quick:
            preset.check_file(*span(folder / "lines.parquet")[:2])
        show(made)
        print()
        report.Report(
            benchmark="replay", versions=report.versions("lightgbm", "scikit-learn", "pandas", "duckdb"),
            sizes={"file": log.file.name, "months": count, "quick": given.quick, "graded": made.graded,
                   "seconds": made.seconds},
            bars=bars_of(made, asked),
            details={"figures": details(made), "alerts": {"by_month": {n: len(a) for n, a in made.alerts.items()}}},
        ).show()  # fmt: skip


if __name__ == "__main__":
    main()
