"""How is a champion found? By a backtest: all candidates sit the same exams, at cutoffs after what they learned from.

The learned challenger becomes champion only if it beats every baseline by more than chance would; else a baseline is
served, and the report says so. The champion that is in use stays where it foretold the exams that came after it better.
The winner is fitted again on the latest complete cutoffs and registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.base import clone

from features.store import repository
from foretell.binding import kind_of
from foretell.declarations import PredictionTask
from foretell.errors import DataError, unknown
from foretell.project import Project
from lake.engine import last_batch
from models import encoding, interval, registry, wording
from models.estimators import LEARNED, candidates, trees
from training import backtest, dataset, incumbent, leaks, lineage, metrics, question, season
from training.backtest import Backtest
from training.cutoffs import Cutoffs, plan, shortened, told
from training.metrics import Kind
from training.rebuilt import as_scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.tuning import Tuning

Progress = Callable[[str], None]


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture that a notebook shows by itself. png: as the bytes of a file of that kind."""

    name: str
    png: bytes

    def __repr__(self) -> str:
        return f"Picture({self.name})"  # a notebook keeps this beside the picture: no one's folders

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True, repr=False)
class Contest:
    """A task judged, and its winner fitted for use, before anything of it is registered.

    at: the project's now, one instant for all of it. known: the candidates, unfitted, as they are fitted on `rows`,
    those of the latest complete cutoffs; now: those who will be asked about then. Both have their features encoded.
    final: the winner, fitted on them. counts: rows learned from and judged over all exams, and learned from by `final`.
    season: day to come -> what it adds to the margin of the winner. against: how it compares with the champion in use,
    in words; stays: whether that one does. allowed: feature -> why it looks as if it knew the future; somebody said
    that it does not. interval: around what the winner says (models.interval), from all exams; held: the share of an
    exam's outcomes that the intervals of the others hold. judged_days: the horizon of the exams and of what was learned
    from, where that of the task is longer than its history allows: the winner is stretched to it then; 0: the task's.
    """

    task: PredictionTask
    kind: Kind
    at: datetime
    cutoffs: Cutoffs
    columns: list[str]
    backtest: Backtest
    winner: str
    reason: str
    known: dict[str, Any]
    rows: pd.DataFrame
    now: pd.DataFrame
    categories: dict[str, list[str]]
    final: Any
    counts: dict[str, int]
    season: dict[str, float]
    tuned: Tuning | None = None
    without_consent: int = 0
    against: str = ""
    stays: bool = False
    allowed: dict[str, str] = field(default_factory=dict)
    interval: interval.Interval = field(default_factory=dict)
    held: float = float("nan")
    judged_days: float = 0.0

    @property
    def base_rate(self) -> float:
        """The mean outcome; of a stretched winner, which nobody has seen yet, the mean that it foretells."""
        outcomes, weights = self._outcomes
        return float(np.average(outcomes, weights=weights))

    @property
    def base_rate_interval(self) -> tuple[float, float]:
        """The 95% of the base rate, as many persons as it is of; the rows of one are no more evidence than one."""
        persons = len(self.now) if self.judged_days else self.rows["person"].nunique()
        return metrics.mean_interval(*self._outcomes, self.kind, persons)

    @cached_property
    def _outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """What the base rate is the mean of, and its weights."""
        if self.judged_days and len(self.now):
            return backtest.predict(self.final, self.now[self.columns], self.kind), np.ones(len(self.now))
        return self.rows["label"].to_numpy(dtype=float), self.rows["weight"].to_numpy(dtype=float)

    def __repr__(self) -> str:
        judged = self.backtest.evaluation[self.backtest.evaluation["metric"] == self.task.metric]
        lines = [
            f"{'*' if row.model == self.winner else ' '} {row.model}: {row.metric} {row.value:,.4g} "
            f"[{row.low:,.4g}, {row.high:,.4g}]"
            for row in judged.itertuples()
        ]
        tuned = [f"Tuning: {self.tuned.reason}."] if self.tuned else []
        exams = [f"{j.fold.judged:%Y-%m-%d}" for j in self.backtest.judgements]
        head = f"{self.task.name}, judged at {len(exams)} cutoffs, {exams[0]} to {exams[-1]}"
        return "\n".join([head, *lines, *tuned, f"Champion: {self.winner}. {self.reason}."])

    @cached_property
    def drawn(self) -> dict[str, Figure]:
        """The pictures by name; contributions take long, so they are drawn once."""
        from training.figures import figures

        return figures(self)

    def plot(self, name: str) -> Picture:
        """A picture: "calibration" and "shap" of the winner, "gain", "compare", "stability", "tuning"."""
        for known in (name, f"{name}_{self.winner}", f"{name}_{self.task.metric}"):
            if known in self.drawn:
                held = BytesIO()
                self.drawn[known].savefig(held, format="png")
                return Picture(f"{known}.png", held.getvalue())
        raise unknown("plot", name, self.drawn, where=f"task {self.task.name}")

    def report(self, file: Path | str) -> Path:
        """Write the page for people, one HTML file. Returns its place."""
        from training.document import document

        made = Path(file)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(document(self, self.drawn), encoding="utf-8")
        return made


@dataclass(frozen=True, repr=False)
class Trained:
    """What a training found out: the contest, and where it is kept.

    version: of the registered model. plots: name -> file, among the artifacts of the MLflow run; report: the page for
    people, as HTML.
    """

    contest: Contest
    version: str
    run_id: str
    plots: dict[str, Path] = field(default_factory=dict)

    @property
    def task(self) -> PredictionTask:
        return self.contest.task

    @property
    def kind(self) -> Kind:
        return self.contest.kind

    @property
    def winner(self) -> str:
        return self.contest.winner

    @property
    def base_rate(self) -> float:
        return self.contest.base_rate

    @property
    def evaluation(self) -> pd.DataFrame:
        """model, metric, value, low, high: means over the exams."""
        return self.contest.backtest.evaluation

    def __repr__(self) -> str:
        head, *lines = repr(self.contest).split("\n")
        return "\n".join([head.replace(self.task.name, f"{self.task.name} v{self.version}", 1), *lines])

    def plot(self, name: str) -> Picture:
        """A picture of the run, which a notebook shows: "calibration" and "shap" of the champion, "gain", "tuning", …

        `plots` holds the files of all of them.
        """
        for known in (name, f"{name}_{self.winner}", f"{name}_{self.task.metric}"):
            if known in self.plots:
                return Picture(self.plots[known].name, self.plots[known].read_bytes())
        raise unknown("plot", name, self.plots, where=f"task {self.task.name}")


def train(
    project: Project, name: str, progress: Progress = lambda _: None, trials: int | None = None,
    allow: Sequence[str] = (),
) -> Trained:  # fmt: skip
    """Train, judge and register the champion of a task.

    trials: how many sets of parameters are tried for the learned candidate; None: as the project's setting says.
    allow: features that may look as if they knew the future; any other that does is refused (see training/leaks.py).
    """
    from training.tracking import plots_of, register

    found = contest(project, name, progress, trials, allow)
    progress(f"{name}: registering in MLflow")
    version, run_id = register(project, found, contract_of(project, found))
    return Trained(found, version, run_id, plots_of(project, run_id))


def contest(
    project: Project, name: str, progress: Progress = lambda _: None, trials: int | None = None,
    allow: Sequence[str] = (),
) -> Contest:  # fmt: skip
    """Judge every candidate of a task and fit the winner; nothing is registered. See `train`."""
    from training.tuning import tune

    task = project.definitions.task(name)
    kind = cast(Kind, kind_of(task, dict(project.definitions.sources)))
    if task.metric not in metrics.METRICS[kind]:
        raise metrics.unknown(f"{kind} metric", task.metric, metrics.METRICS[kind], where=f"task {name}")
    registry.quietly(lambda: registry.trained_at(project, name))  # a registry out of reach is told before the work
    columns = dataset.feature_columns(project, task)
    for what, names in (("groups", task.groups), ("allowed", allow)):
        if lacking := [each for each in names if each not in columns]:
            raise unknown("feature", lacking[0], columns, where=f"{what} of {name}")
    at, first_fact = project.now, dataset.first_fact(project, task)
    asked = _that_can_be_judged(task, kind, columns, at, first_fact)
    stretched = asked is not task
    begins = told(asked, first_fact) if stretched else first_fact
    cutoffs = plan(asked, at, begins, project.setting("cutoffs"), project.setting("folds"))
    rows = dataset.training_set(project, asked, cutoffs.all, progress=progress)
    now = dataset.eligible(project, task, at, progress)
    progress(f"{name}: looking for leaks")
    all_rows, all_now, codes = backtest.encoded(backtest.usable(rows), now, columns)
    then, again = as_scored(project, task) or (None, None)
    suspects = leaks.inspect(all_rows, columns, kind, codes, now=all_now, earlier=then, again=again, allowed=allow)
    leaks.refuse(name, suspects)
    del all_rows, all_now  # of millions of rows a copy takes gigabytes
    progress(f"{name}: the seasons of {len(cutoffs.all)} cutoffs")
    levels = {} if stretched else season.levels(project, task, kind, cutoffs.all, first_fact)
    wanted = project.setting("trials") if trials is None else trials
    tuned = None
    if wanted and not stretched:
        oldest = rows[rows["cutoff"].isin(cutoffs.folds[0].training)]
        learn, _, categories = backtest.encoded(backtest.usable(oldest), oldest, columns)
        estimator = trees(kind, _days(task), num_threads=project.setting("threads"), categorical=categories)
        tuned = tune(project, task, kind, learn, columns, estimator, wanted, progress)

    def known(categories: encoding.Categories) -> dict[str, Any]:
        return candidates(
            kind, columns, _days(asked), num_threads=project.setting("threads"), categorical=categories,
            target=task.target, tuned=tuned.taken if tuned else {}, stretched=stretched,
        )  # fmt: skip

    judged = backtest.run(asked, kind, rows, cutoffs.folds, columns, known, levels, progress)
    progress(f"{name}: comparing {len(judged.pooled.models)} candidates")
    winner, reason = judged.choose()
    progress(f"{name}: fitting {winner} on the latest cutoffs")
    final, latest, now, categories = fit_for_use(
        asked, kind, rows[rows["cutoff"].isin(cutoffs.final)], now, columns, known, winner
    )  # fmt: skip
    final.set_params(horizon_days=_days(task))
    counts = {
        "training": sum(len(j.learned) for j in judged.judgements),
        "evaluation": sum(len(j.rows) for j in judged.judgements), "final": len(latest) + len(now),
    }  # fmt: skip
    to_come: dict[str, float] = {}
    if winner == LEARNED:
        ahead = season.levels(project, task, kind, season.days_ahead(task, at), first_fact)
        moves = {day: season.shift({**levels, day: level}, cutoffs.final, day) for day, level in ahead.items()}
        to_come = {day.isoformat(): season.instead(final, by) for day, by in moves.items() if by}
    against, stays = incumbent.compare(project, judged, winner, rows)
    exams = [(j.y, j.predictions[winner]) for j in judged.judgements]
    around = {} if stretched else interval.learn(kind, exams)
    held = interval.elsewhere(kind, exams, around["within"]) if around else float("nan")
    return Contest(
        task, kind, at, cutoffs, columns, judged, winner, reason, known(categories), latest, now, categories, final,
        counts, to_come, tuned, int(rows.attrs.get("without_consent", 0)), against, stays,
        {leak.column: leak.reason for leak in suspects}, around, held, _days(asked) if stretched else 0.0,
    )  # fmt: skip


def _that_can_be_judged(
    task: PredictionTask, kind: Kind, columns: list[str], at: datetime, first_fact: datetime
) -> PredictionTask:  # fmt: skip
    """The task, or where its history allows no exam, the same of a shorter horizon, if an answer can be stretched."""
    try:
        plan(task, at, first_fact, wanted=1)
    except DataError:
        short = shortened(task, at, first_fact)
        if short is None or not candidates(kind, columns, _days(task), stretched=True):
            raise
        return short
    return task


def fit_for_use(
    task: PredictionTask, kind: str, rows: pd.DataFrame, now: pd.DataFrame, columns: list[str], known: backtest.Known,
    name: str,
) -> tuple[Any, pd.DataFrame, pd.DataFrame, dict[str, list[str]]]:  # fmt: skip
    """Fit one of the candidates for use.

    rows: of the latest complete cutoffs, as `dataset.training_set` gives them; now: those who will be asked about.
    Returns (the fitted candidate, the rows learned from, now, both encoded, what their codes stand for). Raises
    DataError for rows that nothing can be learned from.
    """
    latest = backtest.usable(rows)
    backtest.check(task, kind, latest, latest)
    latest, now, categories = backtest.encoded(latest, now, columns)
    final = backtest.fit(clone(known(categories)[name]), latest, columns, now if len(now) else None)
    return final, latest, now, categories


def contract_of(project: Project, found: Contest) -> dict[str, Any]:
    """What goes with the model wherever it is used: see models.registry.Champion."""
    task = found.task
    return {
        "task": task.name, "kind": found.kind, "columns": found.columns, "estimator": found.winner,
        "base_rate": found.base_rate, "base_rate_interval": list(found.base_rate_interval),
        "service": repository.service_name(project, task), "categories": found.categories,
        "background": encoding.background(found.rows[found.columns], found.categories), "horizon_days": _days(task),
        "judged_days": found.judged_days or _days(task),
        "purpose": task.purpose, "population": task.population, "metric": task.metric, "batch": last_batch(project),
        "cutoffs": [c.isoformat() for c in found.cutoffs.final], "now": found.at.isoformat(),
        "evaluated_on": [j.fold.judged.isoformat() for j in found.backtest.judgements], "rows": found.counts,
        "reason": found.reason, "tuned": found.tuned.taken if found.tuned else {}, "season": found.season,
        "allowed": found.allowed, "interval": found.interval,
        "words": wording.words(project.definitions.views_of(task)), "question": question.said(project, task),
    }  # fmt: skip


def whose(found: Contest) -> pd.DataFrame:
    """How many rows of each profile were learned from, judged, and learned from for use (see training/lineage.py)."""
    exams = found.backtest.judgements
    return lineage.counts({
        "training": pd.concat([j.learned for j in exams]), "evaluation": pd.concat([j.rows for j in exams]),
        "final": pd.concat([found.rows, found.now]),
    })  # fmt: skip


def _days(task: PredictionTask) -> float:
    return task.horizon.total_seconds() / 86_400
