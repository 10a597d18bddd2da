"""How is a training told on the terminal? Cutoffs, base rate, every candidate beside the others, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import click
import numpy as np

from foretell.console import table
from training.champion import LEARNED, Trained
from training.lookalike import Lookalikes
from training.metrics import METRICS


def show(found: Trained) -> None:
    """Print what a training found out."""
    task, cutoffs = found.task, found.cutoffs
    rate = f"base rate {found.base_rate:.1%}" if found.kind == "probability" else f"mean {found.base_rate:,.2f}"
    click.secho(f"\n{task.name}: {task.population}, horizon {task.horizon.days} days, {rate}", bold=True)
    click.echo(
        f"learned at {len(cutoffs.training)} cutoffs ({cutoffs.training[0]:%Y-%m-%d} … "
        f"{cutoffs.training[-1]:%Y-%m-%d}, {found.rows['training']:,} rows), judged at "
        f"{cutoffs.evaluation:%Y-%m-%d} ({found.rows['evaluation']:,} rows)"
    )
    metrics = list(METRICS[found.kind])
    wide = found.evaluation.set_index(["model", "metric"])
    rows = []
    for model in found.evaluation["model"].unique():
        cells = [f"{wide.loc[(model, m), 'value']:,.4g}" for m in metrics]
        low, high = wide.loc[(model, task.metric), "low"], wide.loc[(model, task.metric), "high"]
        mark = "* " if model == found.winner else "  "
        rows.append([mark + model, *cells, f"[{low:,.4g}, {high:,.4g}]"])
    table(["  candidate", *metrics, f"95% of {task.metric}"], rows)
    if found.tuned:
        click.echo(f"{LEARNED}, {len(found.tuned.trials)} trials before that cutoff: {found.tuned.reason}.")
    click.echo(f"Champion: {found.winner}, version {found.version}. {found.reason}.")
    if found.without_consent:
        click.echo(f"- {found.without_consent:,} rows are left out: no consent to {task.purpose}, or withdrawn since")
    for name, why in found.skipped.items():
        click.echo(f"- {name} did not compete: {why}")


def summary(trainings: Sequence[Trained]) -> None:
    """Print one line a task: who won, by how much against the best baseline, and where learning did not pay."""
    rows = []
    for found in trainings:
        metric = METRICS[found.kind][found.task.metric]
        judged = found.evaluation[found.evaluation["metric"] == metric.name].set_index("model")
        baselines = judged.drop(index=LEARNED, errors="ignore")
        best = baselines.iloc[int(np.argmin([metric.loss(v) for v in baselines["value"]]))] if len(baselines) else None
        value, low, high = (judged.loc[found.winner, part] for part in ("value", "low", "high"))
        rate = f"{found.base_rate:.1%}" if found.kind == "probability" else f"{found.base_rate:,.2f}"
        rows.append(
            [
                found.task.name, f"{found.rows['training']:,}", rate, f"{found.winner} v{found.version}", metric.name,
                f"{value:,.4g} [{low:,.4g}, {high:,.4g}]",
                f"{best.name} {best['value']:,.4g}" if best is not None else "none",
                "learned" if found.winner == LEARNED else "baseline",
            ]
        )  # fmt: skip
    header = ["task", "rows", "base rate", "champion", "metric", "its value, 95%", "best baseline", "verdict"]
    table(header, rows)
    for found in trainings:
        if found.without_consent:
            said = (
                f"{found.without_consent:,} rows are left out: no consent to {found.task.purpose}, or withdrawn since"
            )
            click.echo(f"- {found.task.name}: {said}")
    if kept := [found.task.name for found in trainings if found.winner != LEARNED]:
        click.echo(f"Learning did not beat the best baseline beyond chance: {', '.join(kept)}. There it is served.")
    if tuned := [found.task.name for found in trainings if found.tuned and found.tuned.taken]:
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


def _short(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
