"""Pictures of how good predictions are and where they come from.

Each function returns a `matplotlib.figure.Figure` of its own; pyplot and its global state are never touched, so figures
can be drawn in any thread and need no closing. Colours are those of Okabe & Ito, which colour-blind readers can tell
apart; beyond seven candidates the line style changes as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from foretell.errors import DataError, unknown
from foretell.pictures import (
    BLUE,
    GREY,
    INK,
    LOW_TO_HIGH,
    MISSING,
    ORANGE,
    PALETTE,
    SKY,
    STYLES,
    as_text,
    canvas,
    dress,
    title,
)  # fmt: skip
from training.metrics import METRICS, Kind, Metric, auc, bias_pct, bins, ece, gain_curve, norm_gini

BELOW_TO_ABOVE = LinearSegmentedColormap.from_list("below_to_above", [SKY, "#F7F7F7", ORANGE]).with_extremes(
    bad=MISSING
)
DOTS = 3000  # of one feature in the importance plot; more only cost time and space


def _amount(value: float, _: object = None) -> str:
    """1234567 as 1,234,567; decimals only where they matter."""
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:,.2f}"


def _percent(share: float, _: object = None) -> str:
    return f"{round(100 * share, 6):g}"


def calibration_plot(y: ArrayLike, p: ArrayLike, name: str, weight: ArrayLike | None = None) -> Figure:
    """Whether predicted probabilities come true, for the model or task `name`.

    Above, the observed share against the mean probability in ten bins of equal mass, with 95% (Wilson) intervals: bars
    that miss the diagonal are more than chance. Beneath, how many profiles have which probability.
    """
    table = bins(y, p, "probability", weight)
    error = ece(y, p, weight)
    scores = np.asarray(p, dtype=np.float64)
    weights = np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=np.float64)
    limit = min(1.0, 1.1 * max(table["predicted"].max(), table["high"].max(), np.quantile(scores[weights > 0], 0.99)))
    beyond = scores[weights > 0].max() > limit

    figure = canvas(7.0, 7.0)
    top, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    top.plot([0, limit], [0, limit], color=GREY, linewidth=1.2, linestyle="--", label="perfect: share = probability")
    top.vlines(table["predicted"], table["low"], table["high"], color=BLUE, linewidth=2, alpha=0.45)
    top.plot(
        table["predicted"],
        table["actual"],
        color=BLUE,
        marker="o",
        markersize=6,
        linewidth=1,
        label="a tenth of the profiles, with 95% interval",
    )
    top.set(xlim=(0, limit), ylim=(0, limit), ylabel="Observed share of positives (%)")
    top.legend(loc="upper left", frameon=False, fontsize=9)
    title(
        figure,
        f"{as_text(name)}: probabilities miss by {100 * error:.1f} points on average",
        "Below the dashed line the model promises too much, above it too little",
    )
    beneath.hist(
        np.minimum(scores, limit),
        bins=list(np.linspace(0, limit, 41)),
        weights=weights / weights.sum(),
        color=SKY,
        edgecolor="white",
    )
    last = "; the last bar holds the rest" if beyond else ""
    beneath.set(xlabel=f"Predicted probability (%{last})", ylabel="Profiles (%)")
    for ax, axis in ((top, top.xaxis), (top, top.yaxis), (beneath, beneath.yaxis)):
        axis.set_major_formatter(FuncFormatter(_percent))
        dress(ax)
    dress(beneath, grid="y")
    beneath.yaxis.set_major_locator(MaxNLocator(3))
    return figure


def decile_plot(y: ArrayLike, pred: ArrayLike, name: str, weight: ArrayLike | None = None, unit: str = "") -> Figure:
    """Whether predicted amounts, or days, come true: their means in each tenth by what was predicted.

    Bars are 95% intervals of the actual mean. `unit` names the unit ("USD") on the axis; days say so themselves.
    """
    table = bins(y, pred, "amount", weight)
    figure = canvas(7.2, 4.8)
    ax = figure.subplots()
    ax.vlines(table["bin"], table["low"], table["high"], color=BLUE, linewidth=2, alpha=0.45)
    ax.plot(table["bin"], table["actual"], "o", color=BLUE, markersize=7, label="actual, with 95% interval")
    ax.plot(
        table["bin"],
        table["predicted"],
        color=ORANGE,
        marker="D",
        markersize=6,
        linewidth=1.2,
        markerfacecolor="white",
        markeredgewidth=1.8,
        label="predicted",
    )
    try:
        bias = bias_pct(y, pred, weight)
        if abs(bias) < 0.05:
            says = "the predicted total is right to 0.1%"
        else:
            says = f"the predicted total is {abs(bias):.1f}% too {'high' if bias > 0 else 'low'}"
    except DataError:  # amounts that add up to nothing
        says = "predicted and actual amounts"
    title(
        figure,
        f"{as_text(name)}: {says}",
        "Where a diamond leaves its bar, that tenth is predicted wrong by more than chance",
    )
    ax.set(
        xlabel="Tenth of the profiles by predicted amount (1 = lowest)",
        ylabel=f"Mean amount per profile{f' ({as_text(unit)})' if unit else ''}",
        xlim=(0.5, 10.5),
        xticks=range(1, 11),
    )
    ax.yaxis.set_major_formatter(FuncFormatter(_amount))
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    dress(ax, grid="y")
    return figure


def gain_plot(
    y: ArrayLike, predictions: Mapping[str, ArrayLike], kind: Kind, weight: ArrayLike | None = None
) -> Figure:
    """How early each candidate's ranking finds what there is to find: cumulative gains, with random and perfect order.

    The legend lists the candidates from best to worst by AUC or normalised Gini.
    """
    if not predictions:
        raise DataError("gain_plot", "expected predictions of at least one model, got none", 'pass {"name": numbers}')
    if kind not in METRICS:
        raise unknown("kind of prediction", kind, METRICS)
    score, label = (auc, "AUC") if kind == "probability" else (norm_gini, "Gini")
    what = "positives" if kind == "probability" else "amount"
    scores = {model: score(y, pred, weight) for model, pred in predictions.items()}
    ranked = sorted(scores, key=lambda model: -scores[model])
    curves = {model: gain_curve(y, predictions[model], kind, weight) for model in ranked}
    perfect = gain_curve(y, y, kind, weight)

    figure = canvas(6.8, 5.6)
    ax = figure.subplots()
    ax.plot(perfect["taken"], perfect["found"], color=GREY, linewidth=1.2, linestyle=":", label="perfect order")
    colours = {model: i for i, model in enumerate(predictions)}
    for model in ranked:
        at = colours[model]
        ax.plot(
            curves[model]["taken"],
            curves[model]["found"],
            color=PALETTE[at % len(PALETTE)],
            linestyle=STYLES[at // len(PALETTE) % len(STYLES)],
            linewidth=2,
            zorder=3 if model == ranked[0] else 2,
            label=f"{as_text(model)} ({label} {scores[model]:.3f})",
        )
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="random order")
    best = curves[ranked[0]]
    tenth = float(np.interp(0.1, best["taken"], best["found"]))
    ax.plot([0.1, 0.1, 0], [0, tenth, tenth], color=GREY, linewidth=0.8)
    ax.plot([0.1], [tenth], "o", color=PALETTE[colours[ranked[0]] % len(PALETTE)], markersize=6, zorder=4)
    of = "of all positives" if kind == "probability" else "of the whole amount"
    title(
        figure,
        f"The best 10% by {as_text(ranked[0])} hold {100 * tenth:.0f}% {of}",
        "The further a curve bends to the upper left, the fewer profiles are needed",
    )
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1.01),
        xlabel="Profiles taken, best-ranked first (%)",
        ylabel=f"Share of all {what} found (%)" if kind == "probability" else "Share of the whole amount found (%)",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(_percent))
    ax.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    dress(ax)
    return figure


def _metric(name: str) -> Metric:
    known = {metric.name: metric for metrics in METRICS.values() for metric in metrics.values()}
    if name not in known:
        raise unknown("metric", name, known)
    return known[name]


def comparison_plot(evaluation: pd.DataFrame, metric: str) -> Figure:
    """One metric of all models with its intervals, best on top. `evaluation` is what `evaluate` returns."""
    chosen = _metric(metric)
    rows = evaluation[evaluation["metric"] == metric]
    if rows.empty:
        raise unknown("metric in the evaluation", metric, evaluation["metric"].unique())
    rows = rows.assign(loss=[chosen.loss(value) for value in rows["value"]]).sort_values("loss", kind="stable")
    best = rows.iloc[0]
    ends = rows[["value", "low", "high"]].to_numpy(dtype=np.float64)
    spread = float(np.nanmax(ends) - np.nanmin(ends)) or abs(float(best["value"])) or 1.0
    decimals = int(np.clip(2 - np.floor(np.log10(spread)), 0, 8))  # enough to tell a hundredth of the width apart

    figure = canvas(7.2, 1.9 + 0.42 * len(rows))
    ax = figure.subplots()
    for place, (value, low, high) in enumerate(ends):
        colour = BLUE if place == 0 else GREY
        ax.hlines(place, low, high, color=colour, linewidth=3, alpha=0.45)
        ax.plot(value, place, "o", color=colour, markersize=8)
        ax.annotate(
            f"{value:,.{decimals}f}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=INK,
            fontweight="bold" if place == 0 else "normal",
        )
    ax.axvline(best["value"], color=BLUE, linewidth=0.8, linestyle=":", zorder=0)
    if chosen.target is not None:
        ax.axvline(chosen.target, color=INK, linewidth=1, zorder=0)
    ax.set_yticks(range(len(rows)), [as_text(str(model)) for model in rows["model"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    unit = {"label": "in the unit of the label", "×": "times the base rate"}.get(chosen.unit, chosen.unit)
    ax.set_xlabel(f"{chosen.title}{f' ({unit})' if unit else ''}")
    ax.xaxis.set_major_locator(MaxNLocator(7))
    title(
        figure,
        f"{chosen.title}: {as_text(str(best['model']))} does best",
        f"{chosen.direction.capitalize()}; bars are 95% bootstrap intervals",
    )
    dress(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return figure


def stability_plot(by_cutoff: pd.DataFrame, metric: str, winner: str) -> Figure:
    """One metric at each exam, the winner's line before the others': cutoff, model, metric, value (of a Backtest)."""
    chosen = _metric(metric)
    rows = by_cutoff[by_cutoff["metric"] == metric]
    if rows.empty:
        raise unknown("metric in the backtest", metric, by_cutoff["metric"].unique())
    wide = rows.pivot(index="cutoff", columns="model", values="value")
    ordered = [name for name in rows["model"].unique() if name != winner] + [winner]
    ends = {name: float(wide[name].iloc[-1]) for name in ordered if np.isfinite(wide[name].iloc[-1])}
    places = _apart(ends, 0.055 * (float(np.nanmax(wide.to_numpy()) - np.nanmin(wide.to_numpy())) or 1.0))

    figure = canvas(7.6, 4.0)
    ax = figure.subplots()
    for name in ordered:
        mine = name == winner
        ax.plot(
            wide.index, wide[name], marker="o", markersize=6 if mine else 4, color=BLUE if mine else GREY,
            linewidth=2.4 if mine else 1.2, zorder=3 if mine else 2,
        )  # fmt: skip
        if name in places:
            ax.annotate(
                as_text(str(name)), (1.01, places[name]), xycoords=("axes fraction", "data"), va="center", fontsize=9,
                color=INK, fontweight="bold" if mine else "normal",
            )  # fmt: skip
    ax.set_xticks(wide.index, [f"{cutoff:%d %b %Y}" for cutoff in wide.index], rotation=20, ha="right")
    ax.set_ylabel(chosen.title)
    if chosen.target is not None:
        ax.axhline(chosen.target, color=INK, linewidth=1, zorder=0)
    title(figure, f"{chosen.title} at each cutoff: {as_text(winner)}", chosen.direction.capitalize())
    dress(ax, grid="y")
    return figure


def _apart(values: dict[str, float], least: float) -> dict[str, float]:
    """Where to write names, in the order of their values and no nearer than `least` to each other."""
    placed: dict[str, float] = {}
    for name in sorted(values, key=values.__getitem__):
        below = max(placed.values(), default=-np.inf)
        placed[name] = max(values[name], below + least)
    return placed


def importance_plot(contributions: pd.DataFrame, X: pd.DataFrame, top: int = 15, unit: str = "") -> Figure:
    """What drives the predictions: every profile's contribution (SHAP value) of the `top` features, as a beeswarm.

    One dot is one profile, placed by how much the feature moved its prediction (in `unit`) and coloured by the
    feature's value from low to high; values without an order, and missing ones, are grey. Features are sorted by their
    mean absolute contribution, which stands on the right. `contributions` and `X` hold the same rows in the same order.
    """
    if contributions.empty:
        raise DataError("importance_plot", "expected contributions of some profiles, got none", "explain some rows")
    if top < 1:
        raise DataError("importance_plot", f"expected to show at least 1 feature, got top={top}", "pass top=15")
    if missing := [str(column) for column in contributions.columns if column not in X.columns]:
        problem = f"expected a column in X for every contribution, got none for {', '.join(missing)}"
        raise DataError("importance_plot", problem, "pass the X that was explained")
    if len(X) != len(contributions):
        problem = f"expected {len(contributions)} rows in X, one for each row of contributions, got {len(X)}"
        raise DataError("importance_plot", problem, "pass the X that was explained")
    values = contributions.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        problem = f"expected finite contributions, got {int((~np.isfinite(values)).sum())} NaN or infinite"
        raise DataError("importance_plot", problem, "explain the rows again")
    mean = np.abs(values).mean(axis=0)
    order = np.argsort(-mean, kind="stable")
    shown, rest = order[:top], order[top:]
    picked = np.unique(np.linspace(0, len(values) - 1, min(DOTS, len(values))).astype(np.intp))

    figure = canvas(8.4, 1.9 + 0.38 * len(shown))
    ax = figure.subplots()
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    names = [as_text(str(contributions.columns[i])) for i in shown]
    for place, i in enumerate(shown):
        column = X[contributions.columns[i]].iloc[picked]
        across = values[picked, i]
        height = place + _swarm(across)
        shade = _shade(column)
        plain = np.isnan(shade)
        ax.scatter(across[plain], height[plain], s=9, color=MISSING, linewidths=0, alpha=0.7, rasterized=True)
        ax.scatter(
            across[~plain],
            height[~plain],
            s=9,
            c=shade[~plain],
            cmap=LOW_TO_HIGH,
            vmin=0,
            vmax=1,
            linewidths=0,
            alpha=0.8,
            rasterized=True,
        )
        ax.annotate(
            f"{mean[i]:.3g}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK
        )
    ax.annotate(
        "mean |move|",
        (1.01, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=GREY,
    )
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel(
        f"Contribution to the prediction{f' ({as_text(unit)})' if unit else ''}: left lowers it, right raises it"
    )
    total = float(mean.sum())
    kept = f"{len(shown)} features"
    if len(rest) and total > 0:
        kept = f"the top {len(shown)} of {len(order)} features, which do {mean[shown].sum() / total:.0%} of all moving"
    title(figure, f"{names[0]} moves the predictions most", f"One dot per profile; {kept}")
    colours = ScalarMappable(Normalize(0, 1), LOW_TO_HIGH)
    bar = figure.colorbar(colours, ax=ax, ticks=[0, 1], aspect=30, pad=0.09, fraction=0.03)
    bar.ax.set_yticklabels(["low", "high"], fontsize=9)
    bar.set_label("Value of the feature (grey: missing or without order)", fontsize=8, labelpad=-12)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    dress(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return figure


def groups_plot(titles: Sequence[str], shares: np.ndarray, typical: pd.DataFrame, standing: pd.DataFrame) -> Figure:
    """What is typical of groups: one row a group, coloured by where it stands among everybody, and how large it is.

    titles, shares: (groups,). typical: texts, a column a measure, everybody in the last row. standing: groups ×
    measures, 0 (lowest) to 1; NaN (no typical value) is grey.
    """
    rows, columns = standing.shape
    figure = canvas(3.6 + 1.25 * columns + 1.8, 1.7 + 0.5 * (rows + 1))
    ax, right = figure.subplots(1, 2, width_ratios=[1.25 * columns, 1.5], sharey=True)
    ax.imshow(standing.to_numpy(dtype=float), cmap=BELOW_TO_ABOVE, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(rows + 1, columns):
        far = row < rows and abs(float(standing.to_numpy()[row, column]) - 0.5) > 0.25
        said = textwrap.fill(as_text(str(typical.iat[row, column])), 14)
        weight = "bold" if far else "normal"
        ax.text(column, row, said, ha="center", va="center", fontsize=9, color=INK, fontweight=weight)
    ax.set_xticks(range(columns), [textwrap.fill(as_text(c.replace("_", " ")), 13) for c in typical.columns])
    ax.xaxis.tick_top()
    ax.set_yticks(range(rows + 1), [textwrap.fill(as_text(t), 30) for t in [*titles, "everybody"]])
    ax.set_ylim(rows + 0.5, -0.5)
    right.barh(range(rows), shares, color=BLUE, height=0.6)
    for row, share in enumerate(shares):
        right.annotate(f"{share:.0%}", (share, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    right.set(xlim=(0, 1.35 * shares.max()), xticks=[])
    right.set_title("share of profiles", loc="left", fontsize=9, color=INK)
    title(
        figure, f"{rows} kinds of customers",
        "What is typical of each: blue is less than of everybody, orange more",
    )  # fmt: skip
    for axes in (ax, right):
        dress(axes, grid="none")
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def tuning_plot(trials: pd.DataFrame, objective: str) -> Figure:
    """Whether trying parameters helped: the loss of each trial, and the best so far. `trials` are those of a Tuning."""
    done = trials[trials["state"] == "complete"]
    if done.empty:
        raise DataError("tuning_plot", "expected at least one complete trial, got none", "pass the trials of a Tuning")
    best = done["value"].cummin()
    start, end = float(done["value"].iloc[0]), float(best.iloc[-1])
    figure = canvas(7.2, 4.2)
    ax = figure.subplots()
    ax.plot(done["number"], done["value"], "o", color=BLUE, markersize=6, label="a trial")
    ax.step(done["number"], best, where="post", color=ORANGE, linewidth=2, label="the best so far")
    ax.axhline(start, color=GREY, linewidth=1.2, linestyle="--", label="the defaults")
    pruned = trials.loc[trials["state"] == "pruned", "number"]
    if len(pruned):
        ax.plot(
            pruned, np.full(len(pruned), 0.02), "x", color=GREY, transform=ax.get_xaxis_transform(), label="given up"
        )
    title(
        figure,
        f"{len(trials)} trials brought {objective} from {start:.4g} to {end:.4g}",
        "Measured before the evaluation cutoff; the lowest of many is partly luck and must beat the defaults by more",
    )
    ax.set(xlabel="Trial (0 has the defaults)", ylabel=f"{objective} (lower is better)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    dress(ax)
    return figure


def _shade(column: pd.Series) -> np.ndarray:
    """0 to 1 from the feature's lowest value to its highest, by rank; NaN if missing or without order."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        if not column.cat.ordered:
            return np.full(len(column), np.nan)
        column = column.cat.codes.where(column.notna())
    elif not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
        return np.full(len(column), np.nan)
    rank = column.dropna().rank(method="average").to_numpy(dtype=np.float64)
    shade = np.full(len(column), np.nan)
    if not len(rank):
        return shade
    low, high = rank.min(), rank.max()
    shade[column.notna().to_numpy()] = (rank - low) / (high - low) if high > low else 0.5
    return shade


def _swarm(across: np.ndarray, bins: int = 100, width: float = 0.36) -> np.ndarray:
    """How far each dot stands off its row's middle: dots in the same place are stacked, alternately up and down."""
    low, high = across.min(), across.max()
    place = np.zeros(len(across), dtype=np.intp)
    if high > low:
        place = np.minimum(((across - low) / (high - low) * bins).astype(np.intp), bins - 1)
    nth = pd.Series(place).groupby(place).cumcount().to_numpy()
    step = (nth + 1) // 2 * np.where(nth % 2, 1, -1)
    return step * min(0.06, width / max(1, np.abs(step).max()))
