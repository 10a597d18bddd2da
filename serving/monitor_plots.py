"""Pictures of models in use: figures over time beside what was promised, calibration then and now, and drift."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter

from foretell.pictures import BLUE, GREY, INK, MISSING, ORANGE, SKY, VERMILION, as_text, canvas, dress, title
from serving.watched import Batch, Watched
from training.drift import SCORE, WARN, Drift
from training.expected import metric_of
from training.metrics import bins

COLOURS = {"within": BLUE, "outside": ORANGE, "alert": VERMILION, "unknown": GREY}
SAYS = {
    "within": "as expected", "outside": "outside, as one in twenty is by chance", "alert": "an alert",
    "unknown": "compared with nothing",
}  # fmt: skip
MOST = 25  # columns of a heat map


def over_time(of: Watched, name: str) -> Picture:
    """A figure at the exams and at graded cutoffs, with 95% of chance, the band of one cutoff and an alert's limits."""
    metric, exams = metric_of(of.kind, name), _exams(of, name)
    live = [(g.cutoff, g.verdicts[name]) for g in of.graded if name in g.verdicts]
    picture = canvas(8.4, 4.2)
    ax = picture.subplots()
    if exams:
        days, values = _days(at for at, _ in exams), [value for _, value in exams]
        ax.plot(days, values, "o", color=GREY, markersize=5, label="at the backtest's exams")
        ends = _days([exams[0][0], live[-1][0] if live else exams[-1][0]])
        ax.plot(ends, np.full(2, np.mean(values)), color=GREY, linewidth=1, linestyle="--")
    if live:
        days = _days(cutoff for cutoff, _ in live)
        low, high = zip(*(verdict.band for _, verdict in live), strict=True)
        if np.isfinite(low).all():
            ax.fill_between(
                days, low, high, color=SKY, alpha=0.25, linewidth=0, label="95% of cutoffs as good as the exams"
            )
        for end in (0, 1):
            limit = [v.limits[end] for _, v in live]
            if np.isfinite(limit).all():
                told = "alert beyond" if end == 1 or not np.isfinite([v.limits[1] for _, v in live]).all() else None
                ax.plot(days, limit, color=VERMILION, linewidth=1, linestyle=":", label=told)
        ax.plot(days, [v.live.value for _, v in live], color=INK, linewidth=1, zorder=2)
        for state, colour in COLOURS.items():
            shown = [(at, v.live) for at, v in live if v.state == state]
            if shown:
                at, figures = _days(day for day, _ in shown), [figure for _, figure in shown]
                ax.vlines(at, [f.low for f in figures], [f.high for f in figures], color=colour, linewidth=2, alpha=0.5)
                ax.plot(
                    at, [f.value for f in figures], "o", color=colour, markersize=7, zorder=3,
                    label=f"live: {SAYS[state]}",
                )  # fmt: skip
    if metric.target is not None:
        ax.axhline(metric.target, color=INK, linewidth=0.8, zorder=0)
    _see_all(ax, exams, live)
    ax.set_ylabel(metric.title)
    ax.tick_params(axis="x", rotation=20)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False, fontsize=8)
    title(picture, f"{as_text(of.name)}: {metric.title} {_headline(live)}", metric.direction.capitalize())
    dress(ax, grid="y")
    return picture


def _days(at: Iterable[datetime]) -> np.ndarray:
    return np.array([day.replace(tzinfo=None) for day in at], dtype="datetime64[us]")


def _see_all(ax, exams: Sequence[tuple[datetime, float]], live) -> None:
    """The limits of an alert may be far away: the axis holds what was seen, and the limits where these are near."""
    seen = [value for _, value in exams] + [end for _, v in live for end in (v.live.low, v.live.high, *v.band)]
    seen = [value for value in seen if np.isfinite(value)]
    if not seen:
        return
    low, high = min(seen), max(seen)
    room = (high - low) or abs(high) or 1.0
    near = [e for _, v in live for e in v.limits if np.isfinite(e) and low - room <= e <= high + room]
    ax.set_ylim(min([low, *near]) - 0.06 * room, max([high, *near]) + 0.06 * room)


def _headline(live) -> str:
    if not live:
        return "waits for its first outcomes"
    states = [verdict.state for _, verdict in live]
    if "alert" in states:
        return f"left what its exams promised at {states.count('alert')} of {len(states)} cutoffs"
    if set(states) == {"unknown"}:
        return f"at {len(states)} cutoffs"
    return f"was as expected at {states.count('within')} of {len(states)} cutoffs"


def _exams(of: Watched, name: str) -> list[tuple[datetime, float]]:
    found = [(e["cutoff"], e["figures"].get(name)) for e in of.expected.get("exams", ())] if of.exams else []
    return [(datetime.fromisoformat(at), numbers[0]) for at, numbers in found if numbers and numbers[0] is not None]


def calibration(of: Watched) -> Picture | None:
    """What came beside what was foretold, in ten bins: at the exams, and of all that is graded. None before that."""
    if not of.graded:
        return None
    y, said, weight = (np.concatenate([getattr(g, part) for g in of.graded]) for part in ("y", "said", "weight"))
    if len(np.unique(y)) < 2:
        return None
    live = bins(y, said, of.kind, weight)
    then = pd.DataFrame(of.expected.get("calibration", []) if of.exams else [])
    picture = canvas(7.0, 5.6)
    ax = picture.subplots()
    shown = [(then, GREY, "s", "at the exams"), (live, BLUE, "o", "live, with 95% interval")]
    most = max(float(t[["predicted", "high"]].to_numpy().max()) for t, *_ in shown if len(t))
    least = min(0.0, *(float(t[["predicted", "low"]].to_numpy().min()) for t, *_ in shown if len(t)))
    ax.plot([least, most], [least, most], color=GREY, linewidth=1.2, linestyle="--", label="perfect")
    for table, colour, mark, label in shown:
        if len(table):
            ax.vlines(table["predicted"], table["low"], table["high"], color=colour, linewidth=2, alpha=0.45)
            ax.plot(
                table["predicted"], table["actual"], color=colour, marker=mark, markersize=6, linewidth=1, label=label
            )
    if of.kind == "probability":
        ax.set(xlabel="Mean probability foretold (%)", ylabel="Share of which it came true (%)")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    else:
        ax.set(xlabel="Mean foretold", ylabel="Mean of what came")
    off = float(np.average(said, weights=weight) - np.average(y, weights=weight))
    far = f"{100 * abs(off):.1f} points" if of.kind == "probability" else f"{abs(off):,.1f}"
    says = f"it foretold {far} {'more' if off > 0 else 'less'} than came, over {len(of.graded)} cutoffs"
    title(
        picture, f"{as_text(of.name)}: {says}",
        "Below the dashed line it promised too much, above it too little",
    )  # fmt: skip
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    dress(ax)
    return picture


def drift_map(of: Watched) -> Picture | None:
    """The PSI of the columns that drift most, batch by batch; None without a batch."""
    if not of.batches:
        return None
    columns = _worst(of.batches)
    table = np.array([[_of(batch, column) for batch in of.batches] for column in columns], dtype=float)
    picture = canvas(3.4 + 0.62 * len(of.batches), 1.9 + 0.3 * len(columns))
    ax = picture.subplots()
    colours = np.empty((*table.shape, 4))
    for row, column in np.ndindex(table.shape):
        found = next((d for d in of.batches[column].drifts if d.column == columns[row]), None)
        colours[row, column] = to_rgba(_colour(found))
        if found is not None:
            ax.text(column, row, f"{found.psi:.2f}", ha="center", va="center", fontsize=8, color=INK)
    ax.imshow(colours, aspect="auto")
    ax.set_yticks(range(len(columns)), [as_text("the score itself" if c == SCORE else c) for c in columns])
    ax.set_xticks(range(len(of.batches)), [f"{b.cutoff:%Y-%m-%d}" for b in of.batches], rotation=60, ha="right")
    alerts = sum(d.level == "alert" for d in of.batches[-1].drifts)
    title(
        picture, f"{as_text(of.name)}: {alerts or 'no'} column{'' if alerts == 1 else 's'} drifted in the last batch",
        "PSI; yellow: worth a look, red: an alert, pale: explained",
    )  # fmt: skip
    dress(ax, grid="none")
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return picture


def _worst(batches: Sequence[Batch]) -> list[str]:
    """The score, then the columns by their largest PSI."""
    largest: dict[str, float] = {}
    for batch in batches:
        for d in batch.drifts:
            largest[d.column] = max(largest.get(d.column, 0.0), d.psi)
    ranked = sorted((c for c in largest if c != SCORE), key=lambda c: -largest[c])
    return [*([SCORE] if SCORE in largest else []), *ranked][:MOST]


def _of(batch: Batch, column: str) -> float:
    return next((d.psi for d in batch.drifts if d.column == column), np.nan)


def _colour(found: Drift | None) -> str:
    if found is None:
        return MISSING
    if found.level:
        return {"alert": "#E8704A", "warn": "#F2C14E"}[found.level]
    return "#FBEFD5" if found.psi > WARN else "#EAF3FA"
