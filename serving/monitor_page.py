"""What would a manager read of the models in use? One page of HTML, with its pictures inside, and the same as text."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from jinja2 import Environment, StrictUndefined

from foretell.console import table, worth
from serving.alerts import FALSE_ALARMS, LEAST, Verdict, watched
from serving.monitor_plots import calibration, drift_map, over_time
from serving.watched import Graded, Monitored, Watched
from training.document import _figure, _inline
from training.drift import ALERT, SCORE, WARN
from training.drift import LEAST as WEIGHT
from training.expected import metric_of

TEMPLATE = Path(__file__).with_name("monitor.html")
LEVELS = ("alert", "warn", "")
SHOWN = 5  # drifting columns in the terminal


def page(found: Monitored, now: datetime) -> str:
    """The page, as HTML."""
    made = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return made.render(
        now=f"{now:%Y-%m-%d}", alerts=found.alerts, headline=headline(found), picture=_inline, rules=_rules(),
        watched=[_section(each) for each in found.watched],
    )  # fmt: skip


def headline(found: Monitored) -> str:
    tasks = len({each.task for each in found.watched})
    if not found.alerts:
        return f"No alert: {tasks} task{'s' if tasks > 1 else ''} looked at."
    return f"{len(found.alerts)} alert{'s' if len(found.alerts) > 1 else ''} in {tasks} task{'s' if tasks > 1 else ''}."


def _section(of: Watched) -> dict[str, Any]:
    names = _names(of)
    watch = [name for name in watched(of.kind, of.metric) if name in names]
    pictures = [(over_time(of, name), f"{name} over time") for name in watch]
    pictures += [(p, s) for p, s in ((calibration(of), "Calibration"), (drift_map(of), "Drift")) if p is not None]
    return {
        "name": of.name, "in_use": of.in_use, "lines": lines(of),
        "metrics": [metric_of(of.kind, name) for name in names],
        "promised": [promised(of, name) for name in names] if of.exams else [], "pictures": pictures,
        "cutoffs": [
            {
                "at": f"{g.cutoff:%Y-%m-%d}", "rows": f"{len(g.y):,}", "came": worth(of.kind, g.came),
                "foretold": worth(of.kind, g.foretold),
                "cells": [
                    {"text": live(g.verdicts.get(name)), "state": g.verdicts[name].state if name in g.verdicts else ""}
                    for name in names
                ],
            } for g in of.graded
        ],
    }  # fmt: skip


def _names(of: Watched) -> list[str]:
    return list(dict.fromkeys(name for g in of.graded for name in g.verdicts))


def lines(of: Watched) -> list[str]:
    """What is to be said of a version, in sentences."""
    made = []
    if of.graded:
        last = of.graded[-1]
        made.append(
            f"Of those scored at {last.cutoff:%Y-%m-%d} it foretold {worth(of.kind, last.foretold)} on average, and "
            f"{worth(of.kind, last.came)} came."
        )
        if left := sum(g.left_out for g in of.graded):
            made.append(f"{left:,} graded scores are left out: their people have withdrawn consent since.")
    made += waiting(of)
    if of.exams and 0 < min(map(len, of.exams.values())) < LEAST:
        made.append(f"It sat fewer than {LEAST} exams: how much its figures vary from month to month is not known.")
    return [*made, *(f"{note[0].upper()}{note[1:]}." for note in of.notes)]


def waiting(of: Watched) -> list[str]:
    """How many scores wait for their outcome, and until when."""
    if not of.waiting:
        return []
    n, known = sum(w.scores for w in of.waiting), sorted(w.until for w in of.waiting if w.until)
    said = f"{n:,} scores of {len(of.waiting)} cutoff{'s' if len(of.waiting) > 1 else ''} wait for their outcome"
    if known:
        said += f": until {known[0]:%Y-%m-%d}" + (f", the last until {known[-1]:%Y-%m-%d}" if known[1:] else "")
    return [f"{said}.", *dict.fromkeys(f"Cannot be graded: {w.why}" for w in of.waiting if w.why)]


def _rules() -> list[str]:
    return [
        f"A figure raises an alert when it is worse than what one more exam would give, but in one of "
        f"{1 / FALSE_ALARMS:.0f} years, as far as the exams can tell. Of fewer than {LEAST} exams none does.",
        "Watched are the task's own metric, and whether what is foretold is right on average.",
        f"PSI tells how differently a column is distributed from what was learned from: above {WARN:g} is worth a "
        f"look; above {ALERT:g} an alert, if it is more than chance, and more than its own pace while it was learned "
        f"from explains, and the column moves predictions ({WEIGHT:.0%} of all moving, or more).",
        "Alerts are about the last graded cutoff and the last batch of each task.",
    ]


def live(verdict: Verdict | None) -> str:
    if verdict is None:
        return "–"
    return f"{_figure(verdict.live.value)} [{_figure(verdict.live.low)}, {_figure(verdict.live.high)}]"


def promised(of: Watched, name: str) -> str:
    """The mean of the exams, with the backtest's interval where it has one."""
    exams = of.exams.get(name)
    if not exams:
        return "–"
    numbers = of.expected.get("figures", {}).get(name)
    mean = _figure(np.mean([exam.value for exam in exams]))
    if (
        not numbers or None in numbers or metric_of(of.kind, name).target is not None
    ):  # of distances, which have no sign
        return mean
    return f"{mean} [{_figure(numbers[1])}, {_figure(numbers[2])}]"


def show(found: Monitored) -> None:
    """Print tables of each version, then the alerts."""
    for of in found.watched:
        click.secho(f"\n{of.name}{'' if of.in_use else ', not in use any more'}", bold=True)
        if of.graded:
            _show_latest(of, of.graded[-1])
            if len(of.graded) > 1:
                click.echo()
                _show_history(of)
        _show_drift(of)
        for line in lines(of):
            click.echo(f"- {line}")
    click.echo()
    if not found.alerts:
        click.echo(headline(found))
    for alert in found.alerts:
        click.secho(f"ALERT {alert}.", fg="red")


def _show_latest(of: Watched, last: Graded) -> None:
    marked = watched(of.kind, of.metric)
    rows = []
    for name, v in last.verdicts.items():
        band = f"{_figure(v.band[0])} … {_figure(v.band[1])}" if np.isfinite(v.band).all() else "–"
        star = "* " if name in marked else "  "
        rows.append([star + name, live(v), promised(of, name), band, v.state])
    at = f"live, {last.cutoff:%Y-%m-%d}"
    table(["  figure", at, "backtest", "expected of one cutoff", ""], rows)


def _show_history(of: Watched) -> None:
    names = [name for name in watched(of.kind, of.metric) if name in _names(of)]
    table(
        ["cutoff", "graded", "foretold", "came", *names, ""],
        [
            [
                f"{g.cutoff:%Y-%m-%d}", f"{len(g.y):,}", worth(of.kind, g.foretold), worth(of.kind, g.came),
                *(live(g.verdicts.get(name)) for name in names), g.state,
            ] for g in of.graded
        ],
    )  # fmt: skip


def _show_drift(of: Watched) -> None:
    if not of.batches:
        return
    last = of.batches[-1]
    ranked = sorted(last.drifts, key=lambda d: (LEVELS.index(d.level), d.column != SCORE, -d.weight, -d.psi))
    score = [d for d in last.drifts if d.column == SCORE and d not in ranked[:SHOWN]]
    click.echo()
    table(
        [f"drift, {last.cutoff:%Y-%m-%d}", "PSI", "by chance", "by its pace", "weight", ""],
        [
            [
                d.column, f"{d.psi:.3f}", f"{d.chance:.3f}", f"{d.trend:.3f}",
                "" if d.column == SCORE else f"{d.weight:.0%}", d.level,
            ] for d in [*ranked[:SHOWN], *score]
        ],
    )  # fmt: skip
