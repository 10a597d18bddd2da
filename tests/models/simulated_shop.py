"""Customers who behave exactly as BG/NBD and Gamma-Gamma say, the table of features and labels they leave, and every
estimator there is to learn from it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import models.estimators
from models.estimators import KINDS, candidates
from models.estimators.base import AmountCandidate, Candidate, ProbabilityCandidate
from models.estimators.duration import DurationCandidate
from models.estimators.lifetime import BGNBD, GammaGamma

TRUTH = BGNBD(r=0.6, alpha=30.0, a=0.8, b=2.4)  # times in days
VALUES = GammaGamma(p=6.0, q=4.0, gamma=15.0)
HORIZON = 90
TARGET = "coffee"  # every third purchase has some
SETTINGS = {"num_threads": 1, "target": TARGET}  # threads of small fits only wait for each other


def purchase_days(rng: np.random.Generator, truth: BGNBD, T: float) -> np.ndarray:
    """Times (0 < time <= T) of one customer's repeat purchases after the first one at 0."""
    rate, dropout = rng.gamma(truth.r, 1 / truth.alpha), rng.beta(truth.a, truth.b)
    times, now = [], 0.0
    while True:
        now += rng.exponential(1 / rate)
        if now > T:
            return np.array(times)
        times.append(now)
        if rng.random() < dropout:
            return np.array(times)


def shop(customers: int = 1500, never: int = 60, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """(X, amount): customers first seen 1 to 400 days before the cutoff, and their spend in HORIZON days after it.

    The last `never` rows are profiles that never ordered: NaN everywhere, amount 0.
    """
    return _simulated(customers, never, seed)[:2]


def labels(kind: str, amount: np.ndarray) -> np.ndarray:
    """What a task of the kind asks of the shop's customers; of a duration, those of no amount have not come back."""
    if kind == "duration":
        return np.where(amount > 0, _simulated(1500, 60, 0)[2], HORIZON)
    return amount > 0 if kind == "probability" else amount


@cache
def _simulated(customers: int, never: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """X and amount, and the days until the next purchase, or HORIZON."""
    rng = np.random.default_rng(seed)
    rows, amounts, waits = [], [], []
    for _ in range(customers):
        T = float(rng.integers(1, 400))
        times = np.append(0.0, purchase_days(rng, TRUTH, T + HORIZON))
        value = rng.gamma(VALUES.p, 1 / rng.gamma(VALUES.q, 1 / VALUES.gamma), len(times))
        past = times <= T
        recent = past & (times > T - 365)
        coffee = past & (rng.random(len(times)) < 1 / 3)
        gap = times[past].max() / (past.sum() - 1) if past.sum() > 1 else T
        rows.append(
            {
                "days_since_order": T - times[past].max(),
                "order_days_ever": float(past.sum()),
                "days_first_to_last_order": times[past].max(),
                "days_since_first_order": T,
                "orders_365d": float(recent.sum()),
                "spend_365d": value[recent].sum(),
                "mean_spend_per_order_day_ever": value[past].mean(),
                "noise": rng.normal(),
                "mean_gap_days_ever": gap,
                f"days_since_{TARGET}": T - times[coffee].max() if coffee.any() else np.nan,
                f"{TARGET}_facts_90d": float((coffee & (times > T - 90)).sum()),
                f"{TARGET}_facts_365d": float((coffee & recent).sum()),
            }
        )
        amounts.append(value[~past].sum())
        waits.append(times[~past].min() - T if (~past).any() else HORIZON)
    X = pd.concat([pd.DataFrame(rows), pd.DataFrame(np.nan, range(never), list(rows[0]))], ignore_index=True)
    return X, np.append(amounts, np.zeros(never)), np.append(waits, np.full(never, float(HORIZON)))


def estimators() -> dict[tuple[str, str], Any]:
    """Every estimator of the room, unfitted, by kind and name: the candidates, and those that others make use of."""
    columns = shop()[0].columns
    made: dict[tuple[str, str], Any] = {
        (kind, name): estimator
        for kind in KINDS
        for name, estimator in candidates(kind, columns, HORIZON, **SETTINGS).items()
    }
    for info in pkgutil.iter_modules(models.estimators.__path__):
        importlib.import_module(f"{models.estimators.__name__}.{info.name}")
    for kind, base in zip(KINDS, (ProbabilityCandidate, AmountCandidate, DurationCandidate), strict=True):
        for each in _descendants(base):
            if hasattr(each, "name") and (kind, each.name) not in made:
                settings = {k: v for k, v in SETTINGS.items() if k in inspect.signature(each).parameters}
                made[kind, each.name] = each(HORIZON, **settings)
    return made


def _descendants(base: type[Candidate]) -> Iterator[type[Candidate]]:
    for each in base.__subclasses__():
        yield each
        yield from _descendants(each)
