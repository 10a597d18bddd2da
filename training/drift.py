"""Are those asked about like those a model learned from? The population stability index of each column, and its chance.

PSI = Σ (q − p) ln(q / p) over the bins of a column, p being the shares of what was learned from and q those of who is
asked about (Siddiqi, Credit Risk Scorecards, 2006, ch. 10): 0.1 is worth a look, 0.25 is another population. Where both
are samples of one population it is about (1/n + 1/m) times a chi-squared variable of bins − 1 degrees of freedom
(Yurdakul & Naranjo, Journal of Risk Model Validation 14, 2020), which is what few people alone make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

WARN, ALERT = 0.1, 0.25
BINS = 10
FALSE_ALARMS = 0.05  # a year, over all columns of a model that is looked at LOOKS times
LOOKS = 12

Column = dict[str, Any]
"""edges (rising; a value belongs to the first bin whose edge it does not exceed), shares (of the bins, of all rows),
nulls (share of rows without a value), within (the largest PSI of the rows of one cutoff against all others); rows and
profiles, where they are others than the reference's."""
Reference = dict[str, Any]
"""rows, profiles (different ones), columns: name -> Column."""


def reference(X: pd.DataFrame, profiles: pd.Series, groups: pd.Series, codes: Mapping[str, Sequence[str]]) -> Reference:
    """How each column of what was learned from is distributed.

    X: floats, text by its codes. groups: which rows were seen at the same time. codes: text column -> its values, of
    which the most frequent have a bin each.
    """
    columns = {}
    for name in X.columns:
        values = X[name].to_numpy(dtype=float)
        edges = _edges(values, len(codes[name]) if name in codes else None)
        counts = count(values, edges)
        each = [counts_of for _, part in X[name].groupby(groups.to_numpy())
                if (counts_of := count(part.to_numpy(dtype=float), edges)).sum()]  # fmt: skip
        within = max((psi(counts - one, one) for one in each), default=0.0) if len(each) > 1 else 0.0
        shares = counts / max(counts.sum(), 1)
        columns[str(name)] = {
            "edges": edges.tolist(), "shares": shares[:-1].tolist(), "nulls": float(shares[-1]), "within": within,
        }  # fmt: skip
    return {"rows": len(X), "profiles": int(profiles.nunique()), "columns": columns}


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
    within: the largest among the times that were learned from. level: "alert", "warn" or ""."""

    column: str
    psi: float
    chance: float
    within: float

    @property
    def level(self) -> str:
        beyond = self.psi > max(self.chance, self.within)
        return ("alert" if self.psi > ALERT else "warn" if self.psi > WARN else "") if beyond else ""


def drifts(known: Reference, X: pd.DataFrame, profiles: int) -> list[Drift]:
    """The drift of every column of the reference that X has; profiles: how many different ones X is of."""
    found, shared = [], [name for name in known["columns"] if name in X.columns]
    for name in shared:
        column = known["columns"][name]
        then = np.array([*column["shares"], column["nulls"]]) * column.get("rows", known["rows"])
        now = count(X[name].to_numpy(dtype=float), np.array(column["edges"]))
        limit = chance(int(((then + now) > 0).sum()), column.get("profiles", known["profiles"]), profiles, len(shared))
        found.append(Drift(name, psi(then, now), limit, float(column.get("within", 0.0))))
    return found


def chance(bins: int, then: int, now: int, columns: int) -> float:
    """What the index of one of so many columns stays below if nothing is another, but FALSE_ALARMS times a year."""
    if bins < 2 or not then or not now:
        return 0.0
    return float((1 / then + 1 / now) * chi2.ppf(1 - FALSE_ALARMS / (columns * LOOKS), bins - 1))
