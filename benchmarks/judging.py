"""One task at one cutoff: train it, let every candidate predict, hold it to what happened; and what is shown of that.

Every candidate is fitted on the rows that the champion was fitted on, and predicts the same rows. What cannot be so is
an error: other people, other labels than by SQL, features that change once the future is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from benchmarks.log import answers
from benchmarks.report import Bar, progress
from benchmarks.shop import Asked, people_of
from foretell.console import table
from foretell.errors import DataError
from foretell.project import Project
from lake.engine import session
from models.explain import shifted
from models.registry import Champion, champion, quietly
from training import backtest, dataset, metrics
from training.champion import Trained, train
from training.pooled import Judged, Pooled

CHAMPION = "champion"
AGAINST = {
    "probability": ("auc", "log_loss", "lift10"),
    "amount": ("mae", "rmse", "norm_gini"),
    "duration": ("mae", "rmse", "concordance"),
}
"""The metrics in which a champion is compared with the best baseline."""

COVERED = "0.87..0.93"  # of intervals that are to hold 90%
DRAWS = 200


@dataclass(frozen=True)
class Found:
    """One task at one cutoff: what was trained, the features as known then, what was said and what became true.

    coverage: the share of what became true that the champion's intervals hold; NaN where it gives none.
    """

    asked: Asked
    cutoff: datetime
    trained: Trained
    rows: pd.DataFrame
    judged: Judged
    coverage: float

    @property
    def base_rate(self) -> float:
        return float(self.judged.y.mean())

    @property
    def exams(self) -> list[str]:
        """The days at which the champion was judged when it was trained."""
        return [f"{j.fold.judged:%Y-%m-%d}" for j in self.trained.contest.backtest.judgements]

    @property
    def best(self) -> str:
        """The candidate that would have been best by the task's metric, seen afterwards."""
        metric = metrics.METRICS[self.trained.kind][self.trained.task.metric]
        said = {m: p for m, p in self.judged.predictions.items() if m != CHAMPION}
        return min(said, key=lambda m: metric.loss(metric.function(self.judged.y, said[m])))


def judge(project: Project, lines: Path, asked: Asked, more: Mapping[str, Any]) -> Found:
    """Train a task as of the project's now, let every candidate predict, and look into the lines what happened.

    lines: the file of them. more: what `train` is told beside the defaults. Raises DataError where nothing can be
    learned or judged.
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
    if not eligible:
        raise DataError(label, f"nobody is eligible ({task.population})", "choose other cutoffs")
    rows = pd.DataFrame({"profile_id": pd.Series(eligible, dtype=object), "event_timestamp": pd.Timestamp(cutoff)})
    rows = dataset.with_features(project, task, rows).sort_values("profile_id", ignore_index=True)
    predictions = _predictions(project, trained, model, model.encode(rows))
    low, high = model.interval(predictions[CHAMPION])

    truth = answers(lines, cutoff, asked.days, people_of(project))
    if asked.answer == "entered":
        truth = truth[~truth["seed"].astype(bool)]
    y = aligned(truth, rows["profile_id"], asked, label)
    if len(np.unique(y)) < 2:
        raise DataError(label, f"all of {len(y):,} profiles did the same, nothing can be told apart", "ask another")
    inside = (y >= low - 1e-9 * np.abs(y)) & (y <= high + 1e-9 * np.abs(y))
    coverage = float("nan") if np.isnan(low).all() else float(inside.mean())
    judged = Judged(rows["profile_id"].to_numpy(dtype=str), y, predictions)
    return Found(asked, cutoff, trained, rows, judged, coverage)


def _predictions(project: Project, trained: Trained, model: Champion, X: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the champion says of X, and what every candidate says that is fitted on the champion's training rows."""
    contest, said = trained.contest, {}
    for name, estimator in contest.known.items():
        if name in contest.backtest.pooled.models:
            made = backtest.fit(clone(estimator), contest.rows, contest.columns, contest.now)
            made.set_params(horizon_days=contest.final.horizon_days)
            said[name] = backtest.predict(made, X, contest.kind)
    ours = model.predict(X, project.now).to_numpy()
    said[contest.winner] = shifted(said[contest.winner], contest.kind, model.season(project.now))
    if not np.allclose(said[contest.winner], ours, rtol=1e-9, atol=1e-12):
        raise ValueError(f"{contest.task.name}: {contest.winner}, fitted anew, differs from the registered champion")
    return {CHAMPION: ours, **said}


def aligned(truth: pd.DataFrame, profiles: pd.Series, asked: Asked, label: str) -> np.ndarray:
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


def trusted(name: str, found: Sequence[Found], pooled: Pooled) -> list[Bar]:
    """Whether what the champion says of itself is so: its probabilities, or the intervals around its amounts."""
    if pooled.kind == "probability":
        return [calibration(name, pooled)]
    held = [f.coverage for f in found if not np.isnan(f.coverage)]
    return [Bar(f"accuracy.{name}.coverage90", float(np.mean(held)), COVERED, (min(held), max(held)))] if held else []


def calibration(name: str, pooled: Pooled) -> Bar:
    """The calibration error over the rows of all cutoffs, held to what a perfect model's would be.

    Outcomes are drawn by the champion's own probabilities: 97.5% of such errors are within the limit.
    """
    y = np.concatenate([judged.y for judged in pooled.judged])
    p = np.concatenate([judged.predictions[CHAMPION] for judged in pooled.judged])
    rng = np.random.default_rng(0)
    perfect = [metrics.ece((rng.random(len(p)) < p).astype(float), p) for _ in range(DRAWS)]
    low, high = np.percentile(perfect, [2.5, 97.5])
    return Bar(f"accuracy.{name}.ece_pooled", metrics.ece(y, p), f"<={high:.4f}", (float(low), float(high)))


def worse(chances: Mapping[str, float], level: float = 0.05) -> list[str]:
    """Which of several comparisons are beyond chance, by Holm's correction for how many there are.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scandinavian Journal of Statistics 6, 1979).

    >>> worse({"a": 0.04, "b": 0.001, "c": 0.02})
    ['b', 'c', 'a']
    >>> worse({"a": 0.04, "b": 0.03, "c": 0.02})
    []
    """
    ordered = sorted(chances, key=lambda name: chances[name])
    found: list[str] = []
    for place, name in enumerate(ordered):
        if chances[name] > level / (len(ordered) - place):
            break
        found.append(name)
    return found


def chances(name: str, pooled: Pooled, baselines: Sequence[str]) -> dict[str, float]:
    """task.metric -> how likely the champion's distance to the best baseline is if it were no worse."""
    metrics_of = AGAINST[pooled.kind]
    return {f"{name}.{m}": pooled.chance(CHAMPION, pooled.best(m, baselines), m) for m in metrics_of}


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
                     f"{f.exams[0]} … {f.exams[-1]}"))  # fmt: skip
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
                "best_afterwards": f.best, "judged_on": f.exams,
                **({} if np.isnan(f.coverage) else {"coverage90": f.coverage}),
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
