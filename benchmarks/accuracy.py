"""How good are the predictions of the default recipe, on a shop whose future we know, and against whom?

Two years of a web shop's invoices (Online Retail II), and the example's own project. It lives through the two years:
at each cutoff T it has been given the lines before T and nothing else, every standard task is trained as by `foretell
train`, and its champion predicts for everyone eligible. What happened in the horizon after T is worked out from the
file by plain SQL. Then:

  accuracy.TASK.METRIC                      the champion's, as a mean over the cutoffs; of bias_pct, the mean distance
                                            from 0. Spread: 95% of a bootstrap over profiles (200 draws, seed 0).
  accuracy.TASK.METRIC_minus_best_baseline  champion less the baseline that is best by that metric, seen afterwards.
                                            Spread: the paired interval on the same draws; 0 if that is the champion.

Every candidate is fitted on the rows that the champion was fitted on, and predicts the same rows. Checked on the way,
and an error if not so: the product's labels equal the SQL's; its features are the same once it knows what came later;
the candidate of the champion's name, fitted anew, says what the registered champion says; and, on Online Retail II,
there are as many profiles and outcomes as there ought to be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import report, retail
from benchmarks.pooled import Judged, Pooled
from benchmarks.report import Bar, progress
from foretell.console import table
from foretell.errors import DataError
from foretell.project import Project
from lake.engine import session
from models.estimators import candidates
from models.registry import Champion, champion, quietly
from training import dataset, metrics
from training.champion import LEARNED, Trained, train

CHAMPION = "champion"
QUICK_TASKS, QUICK_TRIALS = ["churn90", "clv90"], 1
LIMITS: dict[str, dict[str, str]] = {
    "churn90": {"auc": ">=0.792", "log_loss": "<=0.546", "ece": "<=0.022"},
    "propensity30": {"auc": ">=0.791", "log_loss": "<=0.408", "ece": "<=0.022"},
    "clv90": {"norm_gini": ">=0.816", "rmse": "<=1300", "mae": "<=328", "bias_pct": "<=15"},
    "clv180": {"norm_gini": ">=0.855", "mae": "<=586"},
    "lookalike": {"auc": ">=0.868", "lift10": ">=5.49"},
}
"""What the champion should reach on Online Retail II, as a mean over its three cutoffs."""

AGAINST = {"probability": ("auc", "log_loss", "lift10"), "amount": ("mae", "rmse", "norm_gini")}
"""The metrics in which a champion is compared with the best baseline."""


@dataclass(frozen=True)
class Found:
    """One task at one cutoff: what was trained, the features as known then, what was said and what became true."""

    asked: retail.Asked
    cutoff: datetime
    trained: Trained
    rows: pd.DataFrame
    judged: Judged

    @property
    def base_rate(self) -> float:
        return float(self.judged.y.mean())

    @property
    def best(self) -> str:
        """The candidate that would have been best by the task's metric, seen afterwards."""
        metric = metrics.METRICS[self.trained.kind][self.trained.task.metric]
        said = {m: p for m, p in self.judged.predictions.items() if m != CHAMPION}
        return min(said, key=lambda m: metric.loss(metric.function(self.judged.y, said[m])))


def judge(project: Project, file: Path, asked: retail.Asked, more: Mapping[str, Any]) -> Found:
    """Train a task as of the project's now, let every candidate predict, and look into the file what happened.

    more: what `train` is told beside the defaults.
    """
    cutoff, label = project.now, f"{asked.name} at {project.now:%Y-%m-%d}"
    progress(label)
    task = project.definitions.task(asked.task)
    with project.writing(f"train {task.name}"):
        trained = train(project, task.name, **more)
    model = quietly(lambda: champion(project, task.name))
    dataset.build_for(project, [task], [cutoff])
    with session(project) as con:
        eligible = dataset.population(con, project, task, cutoff)
    rows = pd.DataFrame({"profile_id": pd.Series(eligible, dtype=object), "event_timestamp": pd.Timestamp(cutoff)})
    rows = dataset.with_features(project, task, rows).sort_values("profile_id", ignore_index=True)
    predictions = _predictions(project, trained, model, model.encode(rows))

    truth = retail.answers(file, cutoff, asked.days, retail.people_of(project))
    if asked.answer == "entered":
        truth = truth[~truth["seed"].astype(bool)]
    y = aligned(truth, rows["profile_id"], asked, label)
    return Found(asked, cutoff, trained, rows, Judged(rows["profile_id"].to_numpy(dtype=str), y, predictions))


def _predictions(project: Project, trained: Trained, model: Champion, X: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the champion says of X, and what every candidate says that is fitted on the champion's training rows."""
    contract = model.contract
    columns, days = contract["columns"], trained.task.horizon / timedelta(days=1)
    rows = dataset.training_set(project, trained.task, trained.cutoffs.final)
    rows = rows[~rows["split"].astype(bool)]
    y = rows["label"].astype(int if trained.kind == "probability" else float)
    known = candidates(
        trained.kind, columns, days, num_threads=project.setting("threads"), categorical=model.categories,
        target=trained.task.target, tuned=contract.get("tuned"),
    )  # fmt: skip
    said = {}
    for name, estimator in known.items():
        if name in trained.skipped:
            continue
        estimator.fit(model.encode(rows), y, sample_weight=rows["weight"].to_numpy())
        made: Any = estimator
        said[name] = made.predict_proba(X)[:, 1] if trained.kind == "probability" else made.predict(X)
    ours = model.predict(X).to_numpy()
    if not np.allclose(said[trained.winner], ours, rtol=1e-9, atol=1e-12):
        raise ValueError(f"{trained.task.name}: {trained.winner}, fitted anew, differs from the registered champion")
    return {CHAMPION: ours, **said}


def aligned(truth: pd.DataFrame, profiles: pd.Series, asked: retail.Asked, label: str) -> np.ndarray:
    """The answers in the order of the profiles, who must be the same people."""
    found = truth.set_index("profile_id")[asked.answer].astype(float)
    if set(found.index) != set(profiles) or len(found) != len(profiles):
        mine, theirs = set(profiles), set(found.index)
        raise ValueError(
            f"{label}: {len(mine)} profiles are eligible, by SQL {len(theirs)} are; "
            f"{len(mine - theirs)} and {len(theirs - mine)} are in one only"
        )
    return found.loc[list(profiles)].to_numpy()


def check_afterwards(project: Project, found: Sequence[Found]) -> None:
    """Now that it knows what came later: the product's labels are the SQL's, and no feature has changed."""
    for name in {f.trained.task.name for f in found}:
        of = [f for f in found if f.trained.task.name == name]
        progress(f"{of[0].asked.name}: labels and features once more, now that the future is known")
        everything = dataset.training_set(project, of[0].trained.task, [f.cutoff for f in of])
        for f in of:
            rows = everything[everything["cutoff"] == pd.Timestamp(f.cutoff)]
            check_rows(f.rows, rows, f.judged.y, f"{f.asked.name} at {f.cutoff:%Y-%m-%d}")


def check_rows(then: pd.DataFrame, now: pd.DataFrame, y: np.ndarray, label: str) -> None:
    """Refuse labels of `now` that are not y, and features of `then` that are others now."""
    now = now.set_index("profile_id").reindex(list(then["profile_id"])).reset_index()
    if not np.allclose(now["label"].to_numpy(dtype=float), y, rtol=1e-9, atol=1e-6):
        raise ValueError(f"{label}: the product's labels differ from those by SQL")
    for column in then.columns.drop(["profile_id", "event_timestamp"], errors="ignore"):
        a, b = then[column], now[column]
        if pd.api.types.is_numeric_dtype(a):
            same = np.allclose(a.astype(float), b.astype(float), rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            same = bool(((a == b) | (a.isna() & b.isna())).all())
        if not same:
            raise ValueError(f"{label}: {column} has changed since the future is known")


# What is shown


def pooled_bars(name: str, pooled: Pooled, baselines: Sequence[str], limits: Mapping[str, str]) -> list[Bar]:
    """The bars of one task: its limits, and the champion against the best baseline."""
    bars = [
        Bar(f"accuracy.{name}.{metric}", pooled.value(CHAMPION, metric), limit, pooled.interval(CHAMPION, metric))
        for metric, limit in limits.items()
    ]
    for metric in AGAINST[pooled.kind]:
        found = pooled.difference(CHAMPION, pooled.best(metric, baselines), metric)
        limit = ">=0" if pooled.metrics[metric].greater else "<=0"
        bars.append(Bar(f"accuracy.{name}.{metric}_minus_best_baseline", found.value, limit, (found.low, found.high)))
    return bars


def show_task(found: Sequence[Found], pooled: Pooled) -> None:
    """Print a task's table: champion and candidates, means over cutoffs, and how the champion compares."""
    first = found[0]
    metric, asked = first.trained.task.metric, first.asked.name
    print(f"\n{asked}: {first.trained.task.population}, {first.asked.days} days; means over {len(found)} cutoffs")
    what = "base rate" if pooled.kind == "probability" else "mean"
    rows = []
    for f in found:
        shown = f"{f.base_rate:.3f}" if pooled.kind == "probability" else f"{f.base_rate:,.2f}"
        rows.append((f"{f.cutoff:%Y-%m-%d}", f"{len(f.judged.y):,}", shown, f.trained.winner, f.best,
                     f"{f.trained.cutoffs.evaluation:%Y-%m-%d}"))  # fmt: skip
    table(["cutoff", "profiles", what, "champion", f"best by {metric}, seen afterwards", "champion judged on"], rows)
    names = list(pooled.metrics)
    against = [m for m in AGAINST[pooled.kind] if m != metric][:1]
    rows = []
    for model in pooled.models:
        cells = [f"{pooled.value(model, m):,.4g}" for m in names]
        for m in (metric, *against):
            d = pooled.difference(CHAMPION, model, m)
            cells.append("" if model == CHAMPION else f"{d.value:+.4g} [{d.low:+.3g}, {d.high:+.3g}]")
        rows.append((("* " if model == CHAMPION else "  ") + model, *cells))
    table(["  model", *names, *(f"champion less this, {m}" for m in (metric, *against))], rows)


def details(found: Sequence[Found], pooled: Pooled) -> dict[str, Any]:
    """A task's figures for programs."""
    return {
        "kind": pooled.kind,
        "metric": found[0].trained.task.metric,
        "cutoffs": {
            f"{f.cutoff:%Y-%m-%d}": {
                "profiles": len(f.judged.y), "base_rate": f.base_rate, "champion": f.trained.winner,
                "best_afterwards": f.best, "judged_on": f"{f.trained.cutoffs.evaluation:%Y-%m-%d}",
            } for f in found
        },
        "models": {
            m: {k: [pooled.value(m, k), *pooled.interval(m, k)] for k in pooled.metrics} for m in pooled.models
        },
        "champion_minus": {
            m: {k: list(pooled.difference(CHAMPION, m, k)) for k in AGAINST[pooled.kind]}
            for m in pooled.models if m != CHAMPION
        },
    }  # fmt: skip


# The run


def run(
    file: Path,
    cutoffs: Sequence[datetime],
    tasks: Sequence[str],
    preset: retail.Preset | None,
    folder: Path,
    more: Mapping[str, Any],
) -> tuple[list[Found], dict[str, float]]:
    """Every task at every cutoff, and the seconds it took. One whose horizon ends after the file does is left out."""
    lines, customers, end = retail.span(file)
    if preset:
        preset.check_file(lines, customers)
    progress(f"{lines:,} lines of {customers:,} customers until {end:%Y-%m-%d}")
    clock, found = {"load": 0.0, "measure": 0.0}, []
    project, since = retail.open_shop(folder / "shop"), time.perf_counter()

    def spent(on: str) -> None:
        nonlocal since
        clock[on] += time.perf_counter() - since
        since = time.perf_counter()

    for cutoff in cutoffs:
        wanted = [retail.ASKED[t] for t in tasks if cutoff + timedelta(days=retail.ASKED[t].days) <= end]
        for name in [t for t in tasks if t not in {a.name for a in wanted}]:
            progress(f"{name} at {cutoff:%Y-%m-%d} is left out: its horizon ends after the data do")
        if not wanted:
            continue
        progress(f"loading what came in until {cutoff:%Y-%m-%d}")
        project = retail.live_until(project, file, cutoff)
        spent("load")
        for asked in wanted:
            found.append(judge(project, file, asked, more))
            if preset:
                preset.check(asked, cutoff, len(found[-1].judged.y), found[-1].base_rate)
        spent("measure")
    if not found:
        raise DataError("accuracy", "no horizon ends before the data do", f"choose cutoffs well before {end:%Y-%m-%d}")
    project = retail.live_until(project, file, end + timedelta(days=1))
    spent("load")
    check_afterwards(project, found)
    spent("measure")
    return found, clock


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "accuracy", repeats=False)
    parser.add_argument("--data", type=Path, help="the shop's invoice lines, a Parquet file")
    parser.add_argument(
        "--preset", choices=["none", *retail.PRESETS], help="whose limits and counts hold (default: the data's own)"
    )
    parser.add_argument("--tasks", type=_listed, help=f"some of {','.join(retail.ASKED)} (default: all)")
    parser.add_argument("--cutoffs", type=_dates, help="dates such as 2011-03-01,2011-06-01 (default: the preset's)")
    parser.add_argument("--trials", type=int, help="sets of parameters to try for the learned model (default: its own)")
    given = parser.parse_args(arguments)
    trials = QUICK_TRIALS if given.quick and given.trials is None else given.trials
    more = {} if trials is None else {"trials": trials}
    for name in given.tasks or []:
        if name not in retail.ASKED:
            parser.error(f"no task {name!r}; known: {', '.join(retail.ASKED)}")
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name)
        file, preset = _data(given, folder)
        defaults = [_cutoff(text) for text in (preset.cutoffs if preset else retail.GENERATED_CUTOFFS)]
        cutoffs = given.cutoffs or (defaults[:1] if given.quick else defaults)
        tasks = given.tasks or (QUICK_TASKS if given.quick else list(retail.ASKED))
        found, clock = run(file, cutoffs, tasks, preset, folder, more)
    own = not given.quick and preset is not None and cutoffs == defaults
    bars, said = [], {}
    for name in tasks:
        if not (of := [f for f in found if f.asked.name == name]):
            continue
        pooled = Pooled(of[0].trained.kind, [f.judged for f in of])
        show_task(of, pooled)
        baselines = [m for m in pooled.models if m not in (CHAMPION, LEARNED)]
        bars += pooled_bars(name, pooled, baselines, LIMITS[name] if own else {})
        said[name] = details(of, pooled)
    print()
    report.Report(
        benchmark="accuracy",
        versions=report.versions("lightgbm", "scikit-learn", "scipy", "numpy", "pandas", "duckdb"),
        sizes={
            "cutoffs": [f"{c:%Y-%m-%d}" for c in cutoffs], "profiles": max((len(f.judged.y) for f in found), default=0),
            "preset": given.preset, "quick": given.quick, "seconds": clock,
        },
        bars=bars, details=said,
    ).show()  # fmt: skip


def _data(given: argparse.Namespace, folder: Path) -> tuple[Path, retail.Preset | None]:
    """The file to measure on, and what is known of it; says where to get one if there is none."""
    if given.quick and not given.data:
        retail.generate(made := folder / "generated.parquet")
        given.preset = "none"
        return made, None
    file = retail.located(given.data)
    given.preset = given.preset or "online_retail_ii"
    return file, retail.PRESETS.get(given.preset)


def _cutoff(text: str) -> datetime:
    return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)


def _dates(text: str) -> list[datetime]:
    return sorted(_cutoff(part) for part in _listed(text))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
