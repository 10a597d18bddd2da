"""What would a manager read of a training? One page of HTML, with its pictures inside: it can be mailed as it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from foretell.console import worth
from models.estimators import LEARNED
from training.champion import Contest
from training.metrics import METRICS

TEMPLATE = Path(__file__).with_name("document.html")


def document(found: Contest, drawn: Mapping[str, Figure]) -> str:
    """The page. drawn: the pictures of training.figures."""
    judged, task, pooled = found.backtest, found.task, found.backtest.pooled
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    winner, days = found.winner, f"{task.horizon.total_seconds() / 86_400:g} days"
    names = {
        "calibration": f"calibration_{winner}", "gain": "gain", "compare": f"compare_{task.metric}",
        "stability": "stability", "shap": f"shap_{winner}", "tuning": "tuning",
    }  # fmt: skip
    said = {(r.model, r.metric): (r.value, r.low, r.high) for r in judged.evaluation.itertuples(index=False)}
    table = [
        {
            "model": model, "winner": model == winner,
            "cells": [
                {"value": _figure(value), "interval": f"[{_figure(low)}, {_figure(high)}]"}
                for value, low, high in (said[model, name] for name in pooled.metrics)
            ],
        } for model in pooled.models
    ]  # fmt: skip
    exams = [
        {
            "judged": f"{j.fold.judged:%Y-%m-%d}",
            "learned": f"{len(j.fold.training)} cutoffs to {j.fold.training[-1]:%Y-%m-%d}",
            "asked": f"{len(j.rows):,}", "came": _level(found, np.average(j.y, weights=j.weight)),
            "foretold": _level(found, np.average(j.predictions[winner], weights=j.weight)),
            "value": _figure(pooled.at(winner, task.metric)[place]) if task.metric in pooled.metrics else "–",
        } for place, j in enumerate(judged.judgements)
    ]  # fmt: skip
    return page.render(
        name=task.name, question=task.description or task.name, population=task.population, horizon=days,
        facts=f"{len(found.now):,} profiles eligible now", learned=winner == LEARNED, headline=_headline(found),
        reason=found.reason, against=found.against, lines=_lines(found),
        picture=lambda image, says: _inline(image, says) if image else "",
        pictures={what: drawn.get(name) for what, name in names.items()}, metrics=list(pooled.metrics.values()),
        metric=METRICS[found.kind][task.metric].title, table=table, exams=exams, left_out=judged.left_out,
        groups=_by_group(found), tuning=found.tuned.reason if found.tuned else "", notes=_notes(found),
    )  # fmt: skip


def _headline(found: Contest) -> str:
    if found.stays:
        return "The champion in use stays: this one is kept beside it."
    if found.winner == LEARNED:
        return "The learned model is worth its complexity: it answers from now on."
    return f"Learning does not pay here yet: the baseline {found.winner} answers."


def _lines(found: Contest) -> list[str]:
    """What the figures say, in sentences."""
    pooled, winner = found.backtest.pooled, found.winner
    low, high = found.base_rate_interval
    rate = f"{_level(found, found.base_rate)} [{_level(found, low)}, {_level(found, high)}]"
    if found.kind == "duration":
        lines = [f"It takes {rate} on average, longer waits counting as {_level(found, found.final.horizon_days)}."]
        never = np.average(found.rows["label"] >= found.final.horizon_days, weights=found.rows["weight"])
        lines.append(f"Of {never:.0%} of the profiles it was not seen within {found.task.horizon.days} days.")
        lines.append(
            f"Of two profiles, it knows which one is sooner in {pooled.value(winner, 'concordance'):.0%} of cases."
        )
        return [*lines, *_intervals(found)]
    if found.kind == "amount":
        lines = [f"A profile brings {rate} on average."]
        if "norm_gini" in pooled.metrics:
            gini = pooled.value(winner, "norm_gini")
            lines.append(f"It ranks profiles {gini:.0%} as well as somebody who knew the future would.")
        if "bias_pct" in pooled.metrics:
            lines.append(f"Its totals were {pooled.value(winner, 'bias_pct'):.0f}% off at an exam, on average.")
        return [*lines, *_intervals(found)]
    lines = [f"It is true of {rate} of the profiles."]
    lift, share = pooled.value(winner, "lift10"), pooled.value(winner, "auc")
    lines.append(
        f"Among the tenth that it ranks highest it is {lift:.2f} times as frequent as among all; a tenth drawn by lot "
        "would have 1.00."
    )
    lines.append(f"Of two profiles, one of which it is true of, it ranks that one higher in {share:.0%} of cases.")
    lines.append(f"Its probabilities are off by {100 * pooled.value(winner, 'ece'):.1f} points on average.")
    return lines


def _intervals(found: Contest) -> list[str]:
    if not found.interval:
        return []
    of = f"{found.interval['coverage']:.0%}"
    seen = f"; those learned at the other exams held {found.held:.0%}" if np.isfinite(found.held) else ""
    return [f"Beside each prediction stands an interval that is to hold {of} of what comes{seen}."]


def _by_group(found: Contest) -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in found.backtest.by_group(found.winner).to_dict("records"):
        groups.setdefault(row["column"], []).append({
            "group": row["group"], "rows": f"{row['rows']:,}", "base": _level(found, row["base"]),
            "predicted": _level(found, row["predicted"]), "value": _figure(row[found.task.metric]),
        })  # fmt: skip
    return groups


def _notes(found: Contest) -> list[str]:
    task, last = found.task, found.backtest.latest
    notes = [
        f"Fitted for use on {found.counts['final']:,} rows, at cutoffs from {found.cutoffs.final[0]:%Y-%m-%d} to "
        f"{found.cutoffs.final[-1]:%Y-%m-%d}; features: {len(found.columns)}.",
        f"Labels are complete {task.horizon.days} days after a cutoff, and {task.settle.days} more are waited for late "
        "facts.",
    ]  # fmt: skip
    if found.without_consent:
        notes.append(f"{found.without_consent:,} rows are left out: no consent to {task.purpose}, or withdrawn since.")
    if found.judged_days:
        notes.insert(
            0, f"Learned and judged on {found.judged_days:g} days, the most that this history allows, and stretched to "
            f"{task.horizon.days} by a model of purchase histories: nobody has seen so long a time here yet.",
        )  # fmt: skip
    if found.season:
        notes.append(f"The season is taken into account; at the last exam it moved the margin by {last.shift:+.2f}.")
    notes += [
        f"{column} looks as if it knew the future, and was allowed: {why}" for column, why in found.allowed.items()
    ]
    notes += [f"{name} did not compete: {why}" for name, why in found.backtest.skipped.items()]
    return notes


def _inline(figure: Figure, says: str) -> Markup:
    held = io.BytesIO()
    figure.savefig(held, format="png")
    data = base64.b64encode(held.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(says, data)


def _level(found: Contest, value: Any) -> str:
    return worth(found.kind, value)


def _figure(value: Any) -> str:
    return "–" if not np.isfinite(value) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
