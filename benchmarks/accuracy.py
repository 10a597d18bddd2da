"""How good are the predictions of the default recipe, on a log whose future we know, and against whom?

    python -m benchmarks.accuracy TRANSACTIONS --profile COL --time COL --amount COL --cutoffs 2011-03-01,2011-06-01
    python -m benchmarks.accuracy --preset online_retail_ii

Any log of transactions, Parquet or CSV, and a project of the product with one source. It lives through the log: at each
cutoff T it has been given the lines before T and nothing else, every task is trained as by `foretell train`, and its
champion predicts for everyone eligible, that is with a purchase in the 365 days before T. What happened in the horizon
after T is worked out from the lines by plain SQL. Then:

  accuracy.TASK.METRIC                      the champion's, as a mean over the cutoffs; of bias_pct, the mean distance
                                            from 0. Spread: 95% of a bootstrap over profiles (200 draws, seed 0). A bar
                                            where a preset has a limit at its own cutoffs; all are in the details.
  accuracy.TASK.ece_pooled                  the calibration error over all cutoffs; the limit is that of 97.5% of the
                                            errors that a perfectly calibrated model of the same size would show.
  accuracy.TASK.coverage90                  how many amounts fell into the champion's intervals, as a mean over cutoffs.
  accuracy.worse_than_a_baseline            in how many of all comparisons the champion is worse than the best baseline
                                            seen afterwards, beyond chance, by Holm's correction.
  accuracy.TASK.METRIC_minus_best_baseline  champion less the baseline that is best by that metric, seen afterwards.
                                            Spread: the paired interval on the same draws; 0 if that is the champion.

Tasks, for any number of days N: churnN, propensityN (or buyN), clvN, purchasesN (days with a purchase); and lookalike.
A column may be an SQL expression. Rows without a profile, a time or a finite amount are left out, and counted. What
cannot be asked at a cutoff is left out, and said: its horizon ends after the data, or there is too little before.

Every candidate is fitted on the rows that the champion was fitted on, and predicts the same rows. Checked on the way,
and an error if not so: the product's labels equal the SQL's; its features are the same once it knows what came later;
the candidate of the champion's name, fitted anew, says what the registered champion says; and, with a preset, there are
as many lines, profiles and outcomes as there ought to be.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import presets, report
from benchmarks.judging import (
    CHAMPION,
    Found,
    chances,
    check_afterwards,
    details,
    judge,
    pooled_bars,
    show_task,
    trusted,
    worse,
)
from benchmarks.log import Log, span, write_lines
from benchmarks.presets import PRESETS, Preset
from benchmarks.report import Bar, progress
from benchmarks.shop import EXAMPLES, Asked, live_until, open_shop
from foretell.errors import DataError, ForetellError, NotReady, UnknownName
from models.estimators import LEARNED
from training.pooled import Pooled

QUICK_TASKS, QUICK_TRIALS = ("churn90", "clv90"), 1
NEEDED = ("profile", "time", "amount")
COLUMNS = {
    "profile": "whose: an id, number or text", "time": "when: a date or a time, with or without an offset",
    "amount": "how much, negative for returns", "item": "what", "order": "the order's id (default: one a day)",
    "quantity": "how many", "cancelled": "whether: yes or no, 0 or 1, or a text that begins with C "
    "(default: where the amount is not above 0)",
}  # fmt: skip
"""What a column of a log may say; each may be an SQL expression."""


@dataclass
class Run:
    """What was found; what was left out ("churn90 at 2011-03-01") and why; unusable rows by reason; seconds taken."""

    found: list[Found] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    rows_left_out: dict[str, int] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "measure": 0.0})

    def leave_out(self, asked: Asked, cutoff: datetime, why: str) -> None:
        self.left_out[f"{asked.name} at {cutoff:%Y-%m-%d}"] = why
        progress(f"{asked.name} at {cutoff:%Y-%m-%d} is left out: {why}")

    @contextmanager
    def spent(self, on: str) -> Iterator[None]:
        since = time.perf_counter()
        try:
            yield
        finally:
            self.clock[on] += time.perf_counter() - since


def run(
    log: Log, cutoffs: Sequence[datetime], tasks: Sequence[Asked], preset: Preset | None, folder: Path,
    more: Mapping[str, Any],
) -> Run:  # fmt: skip
    """Every task at every cutoff, but for those that cannot be asked there. preset: whose counts hold."""
    made = Run()
    with made.spent("load"):
        made.rows_left_out = write_lines(log, lines := folder / "lines.parquet")
        n, customers, end = span(lines)
        for why, count in made.rows_left_out.items():
            progress(f"{count:,} rows are left out: {why}")
        progress(f"{n:,} lines of {customers:,} profiles until {end - timedelta(days=1):%Y-%m-%d}")
        if preset:
            preset.check_file(n, customers)
        project = open_shop(folder / "shop", log.clock, tasks)
    inside = {c: [a for a in tasks if c + timedelta(days=a.days) <= end] for c in cutoffs}
    if not any(inside.values()):
        raise DataError("accuracy", "no horizon ends before the data do", f"choose cutoffs well before {end:%Y-%m-%d}")
    for cutoff, wanted in inside.items():
        for asked in (a for a in tasks if a not in wanted):
            made.leave_out(asked, cutoff, f"its horizon of {asked.days} days ends after the data do ({end:%Y-%m-%d})")
        if not wanted:
            continue
        progress(f"loading what came in until {cutoff:%Y-%m-%d}")
        try:
            with made.spent("load"):
                project = live_until(project, lines, cutoff)
        except DataError as error:  # nothing came in yet
            for asked in wanted:
                made.leave_out(asked, cutoff, str(error))
            continue
        for asked in wanted:
            try:
                with made.spent("measure"):
                    found = judge(project, lines, asked, more)
            except (DataError, NotReady) as error:  # the product says that it cannot, and why
                made.leave_out(asked, cutoff, str(error))
                continue
            if preset:
                preset.check(asked, f"{cutoff:%Y-%m-%d}", len(found.judged.y), found.base_rate)
            made.found.append(found)
    if made.found:
        with made.spent("load"):
            project = live_until(project, lines, end + timedelta(days=1))
        with made.spent("measure"):
            check_afterwards(project, made.found)
    return made


def summary(
    name: str, found: Sequence[Found], limits: Mapping[str, str]
) -> tuple[list[Bar], dict[str, Any], dict[str, float]]:
    """Show one prediction; its bars, details, and chances (see judging). One that could be made at no cutoff misses its
    limits."""
    if not found:
        nothing, unknown = math.nan, (math.nan, math.nan)
        return [Bar(f"accuracy.{name}.{metric}", nothing, limit, unknown) for metric, limit in limits.items()], {}, {}
    pooled = Pooled(found[0].trained.kind, [f.judged for f in found])
    show_task(found, pooled)
    baselines = [m for m in pooled.models if m not in (CHAMPION, LEARNED)]
    bars = pooled_bars(name, pooled, baselines, limits) + trusted(name, found, pooled)
    return bars, details(found, pooled), chances(name, pooled, baselines)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = command_line()
    given = parser.parse_args(arguments)
    trials = QUICK_TRIALS if given.quick and given.trials is None else given.trials
    bars, said, luck = [], {}, {}
    with ExitStack() as stack:
        if given.json:
            stack.enter_context(redirect_stdout(sys.stderr))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        log, preset = _log(parser, given, folder)
        defaults = _dates(",".join(preset.cutoffs if preset else presets.GENERATED_CUTOFFS if given.quick else ()))
        cutoffs = given.cutoffs or (defaults[:1] if given.quick else defaults)
        if not cutoffs:
            parser.error("--cutoffs: expected dates such as 2011-03-01,2011-06-01, got none")
        names = given.tasks or (QUICK_TASKS if given.quick else preset.tasks if preset else presets.TASKS)
        tasks = [Asked.parse(name) for name in dict.fromkeys(names)]
        made = run(log, cutoffs, tasks, preset, folder, {} if trials is None else {"trials": trials})
        limits = preset.limits if preset and cutoffs == defaults and not given.quick else {}
        for asked in tasks:
            found = [f for f in made.found if f.asked == asked]
            more, about, likely = summary(asked.name, found, limits.get(asked.name, {}))
            bars, said = bars + more, said | ({asked.name: about} if about else {})
            luck |= likely
        if luck:
            beyond = worse(luck)
            bars.append(Bar("accuracy.worse_than_a_baseline", float(len(beyond)), "<=0", (0.0, float(len(luck)))))
            said["worse_than_a_baseline"] = {name: luck[name] for name in beyond}
        print()
    found = report.Report(
        benchmark="accuracy",
        versions=report.versions("lightgbm", "scikit-learn", "scipy", "numpy", "pandas", "duckdb"),
        sizes={
            "cutoffs": [f"{c:%Y-%m-%d}" for c in cutoffs], "file": log.file.name, "preset": given.preset,
            "profiles": max((len(f.judged.y) for f in made.found), default=0), "quick": given.quick,
            "seconds": made.clock, "left_out": made.left_out, "rows_left_out": made.rows_left_out,
        },
        bars=bars, details=said,
    )  # fmt: skip
    if given.json:
        print(json.dumps(found.as_json(), allow_nan=False), flush=True)
    else:
        found.show()


# The command line


def command_line() -> argparse.ArgumentParser:
    parser = report.options(__doc__ or "", "accuracy", repeats=False)
    parser.add_argument("file", nargs="?", type=Path, metavar="TRANSACTIONS", help="Parquet or CSV")
    parser.add_argument("--preset", choices=list(PRESETS), help=f"a known log, whose file lies below ${presets.FOLDER}")
    for name, what in COLUMNS.items():
        parser.add_argument(f"--{name}", metavar="COL", help=what)
    parser.add_argument("--where", metavar="SQL", help="a condition; other rows are no part of the log")
    parser.add_argument("--timezone", metavar="ZONE", help="of the shop's days, such as Europe/Oslo (default: UTC)")
    parser.add_argument("--tasks", type=_tasks, help=f"some of {', '.join(EXAMPLES)}; any number of days will do")
    parser.add_argument("--cutoffs", type=_dates, help="dates such as 2011-03-01,2011-06-01 (default: the preset's)")
    parser.add_argument("--trials", type=int, help="sets of parameters to try for the learned model (default: its own)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone; all else goes to stderr")
    return parser


def _log(parser: argparse.ArgumentParser, given: argparse.Namespace, folder: Path) -> tuple[Log, Preset | None]:
    """The log to measure on, and the preset, whose counts and limits hold if nothing is read otherwise than it says."""
    named = {k: v for k in (*COLUMNS, "where", "timezone") if (v := getattr(given, k)) is not None}
    if not (given.file or given.preset or named):
        if given.quick:
            return presets.generate(folder), None
        given.preset = presets.RETAIL
    if given.preset:
        preset = PRESETS[given.preset]
        log = preset.log(preset.located(given.file))
        return (replace(log, **named), preset.loosened()) if named else (log, preset)
    if given.file is None:
        parser.error("expected a file of transactions or --preset, got neither")
    if lacking := [f"--{name}" for name in NEEDED if name not in named]:
        known = ", ".join(Log(given.file, "", "", "").columns)
        parser.error(
            f"expected --profile, --time and --amount, or --preset, got no {', '.join(lacking)}; known: {known}"
        )
    return Log(given.file, **named), None


def _dates(text: str) -> list[datetime]:
    """Instants, the earliest first; a date is its midnight, and what says no offset is UTC's."""
    found = set()
    for part in _listed(text):
        try:
            at = datetime.fromisoformat(part)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected dates such as 2011-03-01, got {part!r}") from None
        found.add(at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC))
    return sorted(found)


def _tasks(text: str) -> list[str]:
    try:
        return [Asked.parse(name).name for name in _listed(text)]
    except UnknownName as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    try:
        main()
    except ForetellError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        sys.exit(2)  # as the product's own commands do
