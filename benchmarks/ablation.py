"""What does each group of feature views add to churn, propensity and CLV, and what does it cost?

On the two example projects: two years of a web shop's invoices (Online Retail II), and a grocer's year of till lines,
coupons and mailings (The Complete Journey). A group is a feature view of profiles that the project's sources fill, but
for the base (order counts, spend, recency, cadence) and the views that tasks make for their targets; a new view is a
group by being there. Each is added to the base alone, and left out of all together.

The learner is the product's learned candidate as it is without tuning, so that the question is about features alone. At
each test cutoff it learns from the cutoffs that `foretell train` would choose if that were today's last judgeable one,
by the product's own training sets. How differences and verdicts are made, and why each set is fitted more than once, is
in benchmarks/contributions.py. Cost is CPU seconds of building the view alone, as of the project's now, over those of
the base.

--write puts the tables into a Markdown file, between the lines `<!-- ablation -->` and `<!-- /ablation -->`, with a
picture beside it. --quick is about the generated shop alone. There is no bar: what a view is worth is a finding.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from benchmarks import presets, report
from benchmarks.contributions import ALL, BASE, Judgement, Part, contributions
from benchmarks.findings import Measured, check_target, show, write
from benchmarks.log import span, write_lines
from benchmarks.report import Usage, measure, progress
from benchmarks.shop import live_until, open_shop
from examples.complete_journey.demo import make_project
from features import build
from foretell.binding import kind_of
from foretell.declarations import PredictionTask
from foretell.errors import DataError, ForetellError
from foretell.project import Project
from ingestion.load import load
from lake.engine import session
from training import dataset
from training.cutoffs import STEP, plan
from training.metrics import Kind
from unification.identity import unify

BASE_VIEWS = ("orders", "cadence")
TASKS = ("churn", "propensity", "clv")
PROJECTS = ("online_retail", "complete_journey")


@dataclass(frozen=True)
class Sizes:
    """tests: cutoffs that are predicted at; fits: of each set of features at each of them; rounds: of the cost."""

    tests: int
    fits: int
    rounds: int
    tasks: tuple[str, ...] = TASKS


FULL, QUICK = Sizes(5, 2, 3), Sizes(1, 2, 1, ("churn",))


# The projects


def online_retail(folder: Path, data: Path | None, *, generated: bool) -> Project:
    """The web shop, all of its lines loaded, as of the day after the last. generated: its lines are drawn, not real."""
    known = presets.PRESETS[presets.RETAIL]
    made = generated and not data
    log = presets.generate(folder.parent) if made else known.log(known.located(data))
    write_lines(log, lines := folder.with_suffix(".parquet"))
    return live_until(open_shop(folder, log.clock), lines, span(lines)[2])


def complete_journey(folder: Path) -> Project:
    """The grocer, loaded and unified."""
    project = Project(make_project(folder))
    for loaded in load(project, list(project.definitions.sources)):
        if isinstance(loaded, ForetellError):
            raise loaded
    unify(project)
    return project


def groups_of(project: Project) -> list[str]:
    """The views whose worth is asked: those of profiles that can be filled, but for the base and targets' own."""
    known = project.definitions
    made = {task.name for task in known.tasks.values() if task.base}
    return [v.name for v in known.views.values() if v.entity == "profile" and v.name not in {*BASE_VIEWS, *made}]


# What is measured


def tests_of(project: Project, task: PredictionTask, wanted: int) -> dict[datetime, tuple[datetime, ...]]:
    """Test cutoff -> the cutoffs learned from, newest first: as many as wanted, or as the history allows.

    The labels of both are complete: the test's by the project's now, those learned from by the test cutoff.
    """
    first, reach, step = dataset.first_fact(project, task), task.horizon + task.settle, min(task.horizon, STEP)
    found: dict[datetime, tuple[datetime, ...]] = {}
    for place in range(wanted):
        cutoff = project.now - reach - place * step
        try:
            found[cutoff] = plan(task, cutoff, first, project.setting("cutoffs")).final
        except DataError:
            if not found:
                raise
            break
    return found


def judge(
    project: Project, task: PredictionTask, groups: Sequence[str], sizes: Sizes
) -> tuple[Judgement, list[datetime], tuple[int, int]]:
    """What the groups do for one task; its test cutoffs; and how many rows were learned from and predicted."""
    views = project.definitions.views
    kind = cast(Kind, kind_of(task, dict(project.definitions.sources)))
    planned = tests_of(project, task, sizes.tests)
    asked = replace(task, views=(*BASE_VIEWS, *groups), targets={})
    cutoffs = {cutoff for test, learned in planned.items() for cutoff in (test, *learned)}
    progress(f"{task.name}: {len(planned)} test cutoffs, {len(cutoffs)} cutoffs in all")
    rows = dataset.training_set(project, asked, cutoffs)
    whole = ~rows["split"].astype(bool)  # who fell apart has no one person's outcome to learn from
    parts = [
        Part(rows[rows["cutoff"].isin(learned) & whole], rows[rows["cutoff"] == test])
        for test, learned in planned.items()
    ]
    found = contributions(
        kind, task.metric, task.horizon / timedelta(days=1), parts,
        [feature for name in BASE_VIEWS for feature in views[name].features],
        {group: list(views[group].features) for group in groups},
        fits=sizes.fits, threads=project.setting("threads"), progress=lambda text: progress(f"{task.name}: {text}"),
    )  # fmt: skip
    return found, sorted(planned), (sum(len(p.learn) for p in parts), sum(len(p.test) for p in parts))


def costs(project: Project, groups: Sequence[str], rounds: int) -> dict[str, float]:
    """CPU seconds of building the base, each group and all of them as of the project's now, each by itself."""
    views = project.definitions.views
    wanted = {BASE: BASE_VIEWS, **{group: (group,) for group in groups}, ALL: (*BASE_VIEWS, *groups)}
    with session(project) as con:

        def alone(names: Sequence[str]) -> Usage:
            def build_them() -> None:
                for _, query in build.rows_of(con, project, [views[name] for name in names], project.now):
                    con.execute(f"CREATE OR REPLACE TEMP TABLE built AS {query}")

            return measure(build_them)[0]

        contestants: dict[str, Callable[[], Usage]] = {name: partial(alone, of) for name, of in wanted.items()}
        used = report.interleaved(contestants, rounds, warm_up=1)
    return {name: took["cpu_s"] for name, took in report.medians(used).items()}


def run(name: str, project: Project, sizes: Sizes) -> Measured:
    """Everything about one project."""
    groups = groups_of(project)
    progress(f"{name}: {', '.join(groups)}")
    tasks, tests, rows = {}, {}, {}
    for task in sizes.tasks:
        tasks[task], tests[task], rows[task] = judge(project, project.definitions.task(task), groups, sizes)
    cpu, views = costs(project, groups, sizes.rounds), project.definitions.views
    features = {group: len(views[group].features) for group in groups}
    features |= {BASE: sum(len(views[base].features) for base in BASE_VIEWS)}
    return Measured(name, features | {ALL: sum(features.values())}, cpu, tests, rows, tasks)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "ablation", repeats=False)
    parser.add_argument("--project", choices=[*PROJECTS, "both"], default="both", help="(default: both)")
    parser.add_argument("--data", type=Path, help="the web shop's invoice lines, a Parquet file")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a Markdown file to put the tables into")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    wanted = PROJECTS[:1] if given.quick else PROJECTS if given.project == "both" else (given.project,)
    if given.write:
        check_target(given.write)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary:
        projects, found, since = {}, [], time.perf_counter()
        for name in wanted:  # all of them first: what is missing is told before anything is measured
            progress(f"{name}: loading")
            folder = Path(temporary) / name
            projects[name] = (
                complete_journey(folder)
                if name == "complete_journey"
                else online_retail(folder, given.data, generated=given.quick)
            )
        seconds = {"loading": time.perf_counter() - since}
        for name, project in projects.items():
            since = time.perf_counter()
            found.append(run(name, project, sizes))
            seconds[name] = time.perf_counter() - since
    for measured in found:
        show(measured)
    if given.write:
        options = " ".join(["--project " + given.project] * (given.project != "both") + ["--quick"] * given.quick)
        write(given.write, found, f"python -m benchmarks.ablation {options}".strip(), sizes.fits)
    report.Report(
        benchmark="ablation",
        versions=report.versions("lightgbm", "scikit-learn", "scipy", "numpy", "pandas", "duckdb"),
        sizes={**asdict(sizes), "quick": given.quick, "seconds": seconds, "peak_gb": report.peak_rss() / 1e9},
        bars=[], details={measured.project: measured.as_json() for measured in found},
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
