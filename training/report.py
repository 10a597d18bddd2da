"""How is a training told on the terminal? Cutoffs, base rate, every candidate beside the others, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from foretell.console import table, worth
from models.estimators import LEARNED
from training.champion import Contest, Trained
from training.clustering import STEP, Clusters
from training.lookalike import Lookalikes
from training.metrics import METRICS


def show(found: Trained) -> None:
    """Print what a training found out."""
    show_contest(found.contest)
    if found.contest.stays:
        click.echo(f"Registered as version {found.version}; {found.contest.against}.")
        return
    click.echo(f"Champion: {found.winner}, version {found.version}. {found.contest.reason}.")
    if found.contest.against:
        click.echo(f"- {found.contest.against}")


def show_contest(found: Contest) -> None:
    """Print a backtest: base rate, exams, every candidate beside the others, and what was left out."""
    task, cutoffs, judged = found.task, found.cutoffs, found.backtest
    low, high = found.base_rate_interval
    what = "base rate" if found.kind == "probability" else "mean"
    rate = f"{what} {worth(found.kind, found.base_rate)} [{worth(found.kind, low)}, {worth(found.kind, high)}]"
    click.secho(f"\n{task.name}: {task.population}, horizon {task.horizon.days} days, {rate}", bold=True)
    exams = [j.fold.judged for j in judged.judgements]
    most = max(len(j.fold.training) for j in judged.judgements)
    click.echo(
        f"judged at {len(exams)} cutoffs ({exams[0]:%Y-%m-%d} … {exams[-1]:%Y-%m-%d}, "
        f"{found.counts['evaluation']:,} rows), each time after learning from up to {most} cutoffs before"
    )
    if found.judged_days:
        click.echo(_stretched(found))
    metrics = list(judged.pooled.metrics)
    wide = judged.evaluation.set_index(["model", "metric"])
    rows = []
    for model in judged.pooled.models:
        cells = [_figure(wide.loc[(model, m), "value"]) for m in metrics]
        if task.metric in metrics:
            low, high = wide.loc[(model, task.metric), "low"], wide.loc[(model, task.metric), "high"]
            cells.append(f"[{_figure(low)}, {_figure(high)}]")
        rows.append([("* " if model == found.winner else "  ") + model, *cells])
    table(["  candidate", *metrics, *([f"95% of {task.metric}"] if task.metric in metrics else [])], rows)
    for column, groups in judged.by_group(found.winner).groupby("column", sort=False):
        click.echo()
        table(
            [str(column), "rows", "what came", "foretold", task.metric],
            [
                [str(g.group), f"{g.rows:,}", f"{g.base:,.4g}", f"{g.predicted:,.4g}", _figure(g[-1])]
                for g in groups.drop(columns="column").itertuples(index=False)
            ],
        )
    if found.tuned:
        click.echo(f"{LEARNED}, {len(found.tuned.trials)} trials before those cutoffs: {found.tuned.reason}.")
    if found.interval:
        seen = f"; those learned at the other exams held {found.held:.1%}" if np.isfinite(found.held) else ""
        click.echo(f"its intervals are to hold {found.interval['coverage']:.0%} of what comes{seen}")
    click.echo(f"fitted on the cutoffs from {cutoffs.final[0]:%Y-%m-%d} to {cutoffs.final[-1]:%Y-%m-%d}")
    if found.without_consent:
        click.echo(f"- {found.without_consent:,} rows are left out: no consent to {task.purpose}, or withdrawn since")
    for column, why in found.allowed.items():
        click.echo(f"- {column} was allowed: {why}")
    for name, why in judged.skipped.items():
        click.echo(f"- {name} did not compete: {why}")
    for cutoff, why in judged.left_out.items():
        click.echo(f"- {cutoff} could not be judged: {why}")


def _stretched(found: Contest) -> str:
    return (
        f"of {found.judged_days:g} days, the most that this history lets be judged, stretched to "
        f"{found.task.horizon.days} by models of purchase histories: nobody has seen so long a time here yet"
    )


def summary(trainings: Sequence[Trained]) -> None:
    """Print one line a task: who won, by how much against the best baseline, and where learning did not pay."""
    rows = []
    for found in trainings:
        metric = METRICS[found.kind][found.task.metric]
        judged = found.evaluation[found.evaluation["metric"] == metric.name].set_index("model")
        baselines = judged.drop(index=LEARNED, errors="ignore")
        best = baselines.iloc[int(np.argmin([metric.loss(v) for v in baselines["value"]]))] if len(baselines) else None
        value, low, high = (judged.loc[found.winner, part] for part in ("value", "low", "high"))
        rate = worth(found.kind, found.contest.base_rate)
        rows.append(
            [
                found.task.name, f"{found.contest.counts['final']:,}", rate, f"{found.winner} v{found.version}",
                metric.name,
                f"{value:,.4g} [{low:,.4g}, {high:,.4g}]",
                f"{best.name} {best['value']:,.4g}" if best is not None else "none",
                "learned" if found.winner == LEARNED else "baseline",
            ]
        )  # fmt: skip
    header = ["task", "rows", "base rate", "champion", "metric", "its value, 95%", "best baseline", "verdict"]
    table(header, rows)
    for found in trainings:
        if left := found.contest.without_consent:
            click.echo(
                f"- {found.task.name}: {left:,} rows are left out: no consent to {found.task.purpose}, or withdrawn"
            )
        if found.contest.stays:
            click.echo(f"- {found.task.name}: {found.contest.against}")
    if kept := [found.task.name for found in trainings if found.winner != LEARNED]:
        click.echo(f"Learning did not beat the best baseline beyond chance: {', '.join(kept)}. There it is served.")
    if tuned := [found.task.name for found in trainings if found.contest.tuned and found.contest.tuned.taken]:
        click.echo(f"Tuning beat the defaults beyond chance: {', '.join(tuned)}.")


def show_lookalikes(found: Lookalikes, top: int) -> None:
    """Print an expanded seed: how well the held-out seeds were found, what marks them, and the likest others."""
    click.echo(f"{found.seeds:,} seeds among {found.seeds + len(found.ranked):,} profiles")
    for text in found.unknown[:5]:
        click.echo(f"- {text} is nobody's identifier")
    if len(found.unknown) > 5:
        click.echo(f"- and {len(found.unknown) - 5:,} more")
    wide = found.evaluation.set_index(["model", "metric"])
    rows = []
    for model in found.evaluation["model"].unique():
        cells = [f"{wide.loc[(model, m), 'value']:,.4g}" for m in ("auc", "average_precision", "lift10")]
        low, high = wide.loc[(model, "auc"), "low"], wide.loc[(model, "auc"), "high"]
        rows.append([("* " if model == found.winner else "  ") + model, *cells, f"[{low:,.3g}, {high:,.3g}]"])
    table(["  on seeds held out", "auc", "average_precision", "lift10", "95% of auc"], rows)
    click.echo(f"Ranked by {found.winner}: {found.reason}.\n")
    table(
        ["what marks a seed", "typical seed", "typical other"],
        [(m.feature, _short(m.seed), _short(m.others)) for m in found.marks.itertuples(index=False)],
    )
    click.echo()
    likest = found.ranked.head(top)
    table(["profile_id", "likeness"], [(r.profile_id, f"{r.likeness:.4f}") for r in likest.itertuples(index=False)])
    if found.replayable:
        click.echo("This seed can be replayed in the past: `--as-task` predicts who will come to be one.")


def show_clusters(found: Clusters) -> None:
    """Print the groups of a population: how large, what is typical beside everybody, rules, and how they hold."""
    among = found.population or "everyone"
    click.secho(f"{found.found.groups} groups of {len(found.members):,} profiles: {among}", bold=True)
    measures, groups = list(found.typical.columns), found.groups.to_dict("records")
    rows = [[g["title"], f"{g['profiles']:,}", f"{g['share']:.1%}"] for g in groups] + [
        ["everybody", f"{len(found.members):,}", "100.0%"]
    ]
    for row, typical in zip(rows, found.typical.to_dict("records"), strict=True):
        row += [found.said(c, typical[c]) for c in measures]
    table(["typical of", "profiles", "share", *measures], rows)
    click.echo()
    table(
        ["segment", "found again", f"stayed {STEP.days} days", "rule"],
        [(g["name"], _percent(g["found_again"]), _percent(g["stayed"]), g["rule"]) for g in groups],
    )
    click.echo()
    part = found.found
    doubt = "" if part.holds else "; they do NOT hold: another sample would give other groups"
    click.echo(f"Found again: of the weakest group another sample has {part.found_again.min():.0%} in common{doubt}.")
    if np.isfinite(found.stayed):
        click.echo(f"{found.stayed:.0%} were in the same group {STEP.days} days before.")
    click.echo(
        f"The rules tell {part.explained:.0%} of how profiles differ; unrelated features would {part.chance:.0%}, "
        f"groups without rules (k-means) {part.kmeans:.0%}, which put {part.agreement:.0%} of the profiles alike."
    )
    for name, why in found.left_out.items():
        click.echo(f"- {name} is left out: {why}")


def _percent(share: float) -> str:
    return f"{share:.0%}" if np.isfinite(share) else "–"


def _figure(value: Any) -> str:
    """A dash where there is none: of too few rows, or of too few draws in which the metric is defined."""
    return f"{value:,.4g}" if np.isfinite(value) else "–"


def _short(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
