"""What do a view's values look like, and do they drift? Distributions at a cutoff, beside those at an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from features import build
from foretell.pictures import BLUE, GREY, as_text, canvas, dress, title
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import session

BINS = 10
STABLE, SHIFTED = 0.1, 0.25  # the population stability index below which nothing happened, and above which much did
_FLOOR = 1e-4  # of a share: an empty bin counts as this
_FEW = 20  # values of a text that are counted by themselves


@dataclass(frozen=True)
class Described:
    """One feature at a cutoff. missing, zero: shares of the profiles, 0 to 1. low, middle, high: the 5%, 50% and 95%
    quantiles of what is known; None for text. top: the most frequent text and its share of what is known. psi: the
    population stability index against the earlier cutoff, over its tenths (or texts) and the missing; None without."""

    feature: str
    kind: str
    missing: float
    zero: float
    low: float | None
    middle: float | None
    high: float | None
    top: str | None
    psi: float | None

    @property
    def drift(self) -> str:
        """The index in a word."""
        if self.psi is None:
            return ""
        return "stable" if self.psi < STABLE else "shifted" if self.psi < SHIFTED else "drifted"


def rows_of(
    project: Project, view: FeatureView, cutoff: datetime, step: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """The view at a cutoff, one row per profile known then; it is built if it is not yet."""
    build.build(project, [view], [cutoff], step)
    with session(project) as con:
        return con.execute(f"SELECT * FROM {build.read(project, view, cutoff)}").df()


def describe(view: FeatureView, now: pd.DataFrame, before: pd.DataFrame | None = None) -> list[Described]:
    """Every feature of a view's rows, in the view's order, beside earlier rows."""
    return [_one(name, now[name], None if before is None else before[name]) for name in view.features]


def _one(name: str, now: pd.Series, before: pd.Series | None) -> Described:
    known = now.dropna()
    drifted = None if before is None else psi(before, now)
    if _is_text(now):
        counts = known.value_counts()
        top = f"{counts.index[0]} ({counts.iloc[0] / len(known):.0%})" if len(counts) else None
        return Described(name, "text", _missing(now), 0.0, None, None, None, top, drifted)
    values = known.astype(float)
    low, middle, high = (float(values.quantile(q)) if len(values) else None for q in (0.05, 0.5, 0.95))
    zero = float((values == 0).sum() / max(1, len(now)))
    return Described(name, "number", _missing(now), zero, low, middle, high, None, drifted)


def _is_text(values: pd.Series) -> bool:
    return values.dtype == object or str(values.dtype).startswith("str")


def _missing(values: pd.Series) -> float:
    return float(values.isna().mean()) if len(values) else 0.0


def psi(before: pd.Series, now: pd.Series) -> float:
    """The population stability index of a feature: 0 where it is distributed as before, above 0.25 where much moved.

    Bins are the tenths of the earlier values, or its texts; the missing are a bin of their own. (Siddiqi, Credit Risk
    Scorecards, 2006.)
    """
    if not len(before) or not len(now):
        return 0.0
    shares = [_shares(values, *_edges(before)) for values in (before, now)]
    old, new = (np.maximum(share, _FLOOR) for share in shares)
    return float(((new - old) * np.log(new / old)).sum())


def _edges(before: pd.Series) -> tuple[list[str], np.ndarray]:
    if _is_text(before):
        return [str(value) for value in before.dropna().value_counts().index[:_FEW]], np.empty(0)
    known = before.dropna().astype(float)
    return [], np.unique(known.quantile(np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.empty(0)


def _shares(values: pd.Series, texts: list[str], edges: np.ndarray) -> np.ndarray:
    known = values.dropna()
    if _is_text(values):
        counts = known.astype(str).value_counts()
        found = [*(int(counts.get(text, 0)) for text in texts), int(counts[~counts.index.isin(texts)].sum())]
    else:
        place = np.searchsorted(edges, known.astype(float).to_numpy(), side="left")
        found = np.bincount(place, minlength=len(edges) + 1)
    return np.array([*found, len(values) - len(known)], float) / len(values)


def picture(view: FeatureView, now: pd.DataFrame, before: pd.DataFrame | None, says: str, detail: str) -> Figure:
    """The distribution of every feature, at the cutoff in blue, at the earlier one in grey; without the missing."""
    names = list(view.features)
    wide = min(3, len(names))
    high = -(-len(names) // wide)
    drawn = canvas(4.0 * wide, 2.4 * high + 0.8)
    for ax, name in zip(drawn.subplots(high, wide, squeeze=False).flat, names, strict=False):
        frames = [(now[name], BLUE, 0.75)] if before is None else [(before[name], GREY, 0.6), (now[name], BLUE, 0.6)]
        _draw(ax, frames)
        ax.set_xlabel(as_text(name), fontsize=8)
        dress(ax, grid="y")
    for ax in drawn.axes[len(names) :]:
        ax.set_visible(False)
    title(drawn, says, detail)
    return drawn


def _draw(ax, frames: list[tuple[pd.Series, str, float]]) -> None:
    series = [values.dropna() for values, *_ in frames]
    if _is_text(series[-1]):
        texts = [str(text) for text in series[-1].value_counts().index[:8]]
        for values, (_, colour, alpha) in zip(series, frames, strict=True):
            counts = values.astype(str).value_counts(normalize=True)
            ax.bar(texts, [100 * counts.get(text, 0.0) for text in texts], color=colour, alpha=alpha)
        ax.tick_params(axis="x", labelrotation=30)
        return
    everything = pd.concat(series).astype(float)
    if everything.empty:
        return
    low, high = everything.quantile(0.01), everything.quantile(0.99)  # a few far away would press the others together
    edges = np.linspace(low, high if high > low else low + 1, 31)
    for values, (_, colour, alpha) in zip(series, frames, strict=True):
        inside = values.astype(float).clip(low, high)
        ax.hist(inside, edges, weights=np.full(len(inside), 100 / max(1, len(inside))), color=colour, alpha=alpha)
