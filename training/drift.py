"""Are those asked about like those a model learned from? The population stability index of each column, and its chance.

PSI = Σ (q − p) ln(q / p) over the bins of a column, p being the shares of what was learned from and q those of who is
asked about (Siddiqi, Credit Risk Scorecards, 2006, ch. 10): 0.1 is worth a look, 0.25 is another population. Where both
are samples of one population it is about (1/n + 1/m) times a chi-squared variable of bins − 1 degrees of freedom
(Yurdakul & Naranjo, Journal of Risk Model Validation 14, 2020), which is what few people alone make of it. And what
was under way while the model learned goes on: in a young shop everybody has been a customer for longer every month. For
small shifts PSI grows with the square of the shift, so a column is given what its own pace makes of the time since, for
as long a time as the cutoffs that were learned from span, and no longer: an old model learns anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

WARN, ALERT = 0.1, 0.25
BINS = 10
FALSE_ALARMS = 0.05  # a year, over all columns of a model that is looked at LOOKS times
LOOKS = 12
LEAST = 0.05  # of all moving of the predictions: a column of less may do what it likes
SLACK = 1.5  # a pace is known of two cutoffs only
SCORE = "score"  # the column that is the prediction itself

Column = dict[str, Any]
"""edges (rising; a value belongs to the first bin whose edge it does not exceed), shares (of the bins, of all rows),
nulls (share of rows without a value), pace (PSI per squared day between the first or last cutoff and all of them,
beyond chance); rows, profiles, centre and span, where they are others than the reference's."""
Reference = dict[str, Any]
"""rows, profiles (different ones), centre (the mean cutoff, as text), span (days between the first and the last one),
columns: name -> Column."""


def reference(X: pd.DataFrame, rows: pd.DataFrame, codes: Mapping[str, Sequence[str]]) -> Reference:
    """How each column of what was learned from is distributed.

    X: floats, text by its codes. rows: profile_id and cutoff of each. codes: text column -> its values, of which the
    most frequent have a bin each.
    """
    at = pd.to_datetime(rows["cutoff"], utc=True).reset_index(drop=True)
    columns = {}
    for name in X.columns:
        values = X[name].to_numpy(dtype=float)
        edges = _edges(values, len(codes[name]) if name in codes else None)
        counts = count(values, edges)
        shares = counts / max(counts.sum(), 1)
        columns[str(name)] = {
            "edges": edges.tolist(), "shares": shares[:-1].tolist(), "nulls": float(shares[-1]),
            "pace": _pace(values, at, edges, counts),
        }  # fmt: skip
    return {
        "rows": len(X), "profiles": int(rows["profile_id"].nunique()), "centre": at.mean().isoformat(),
        "span": (at.max() - at.min()) / pd.Timedelta(days=1), "columns": columns,
    }  # fmt: skip


def _pace(values: np.ndarray, at: pd.Series, edges: np.ndarray, counts: np.ndarray) -> float:
    """How fast a column moved while it was learned from: the geometric mean of what tells the first cutoff, and the
    last, from all. What jumped once, at one of them, has no pace."""
    if at.nunique() < 3:
        return 0.0
    found = []
    for end in (at.min(), at.max()):
        one = count(values[(at == end).to_numpy()], edges)
        bins = int((counts > 0).sum())
        beyond = psi(counts, one) - (1 / one.sum() + 1 / counts.sum()) * (bins - 1)
        found.append(max(0.0, beyond) / ((end - at.mean()) / pd.Timedelta(days=1)) ** 2)
    return float(np.sqrt(found[0] * found[1]))


def _edges(values: np.ndarray, codes: int | None) -> np.ndarray:
    """Between ten bins of equal mass, fewer where values repeat; of codes, one each for the most frequent."""
    if codes is not None:
        return np.arange(min(codes, BINS) - 1, dtype=float)
    known = values[np.isfinite(values)]
    if not len(known):
        return np.empty(0)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
    return edges[edges < known.max()]  # beyond the last edge there is somebody


def count(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many rows are in each bin, and last how many have no value."""
    known = values[np.isfinite(values)]
    place = np.searchsorted(edges, known, side="left")
    return np.append(np.bincount(place, minlength=len(edges) + 1), len(values) - len(known)).astype(float)


def psi(then: np.ndarray, now: np.ndarray) -> float:
    """Of counts in the same bins. Half a row is added to each bin that anybody is in, so that none is empty."""
    used = (then + now) > 0
    p, q = then[used] + 0.5, now[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


@dataclass(frozen=True)
class Drift:
    """One column in one batch. psi: its index. chance: what it would stay below, were nothing another (see LOOKS).
    trend: what it would be, had it gone on as while it was learned from. weight: the share of all moving of predictions
    that is the column's, 1 if not known.

    level: "alert" above ALERT and beyond both, of a column that has LEAST weight; "warn" above WARN and beyond chance.
    """

    column: str
    psi: float
    chance: float
    trend: float
    weight: float = 1.0

    @property
    def level(self) -> str:
        if self.psi > max(ALERT, self.chance, self.trend) and self.weight >= LEAST:
            return "alert"
        return "warn" if self.psi > max(WARN, self.chance) else ""


def drifts(
    known: Reference, X: pd.DataFrame, profiles: int, at: datetime, weights: Mapping[str, float] | None = None
) -> list[Drift]:  # fmt: skip
    """The drift of every column of the reference that X has, asked at a cutoff.

    profiles: how many different ones X is of. weights: column -> its share of what moves the predictions.
    """
    found, shared = [], [name for name in known["columns"] if name in X.columns]
    for name in shared:
        column = {**known, **known["columns"][name]}
        then = np.array([*column["shares"], column["nulls"]]) * column["rows"]
        now = count(X[name].to_numpy(dtype=float), np.array(column["edges"]))
        limit = chance(int(((then + now) > 0).sum()), column["profiles"], profiles, len(shared))
        days = min((at - datetime.fromisoformat(column["centre"])) / timedelta(days=1), column["span"])
        weight = weights.get(name, 0.0) if weights is not None and name != SCORE else 1.0
        found.append(Drift(name, psi(then, now), limit, SLACK * column["pace"] * days**2, weight))
    return found


def chance(bins: int, then: int, now: int, columns: int) -> float:
    """What the index of one of so many columns stays below if nothing is another, but FALSE_ALARMS times a year."""
    if bins < 2 or not then or not now:
        return 0.0
    return float((1 / then + 1 / now) * chi2.ppf(1 - FALSE_ALARMS / (columns * LOOKS), bins - 1))
