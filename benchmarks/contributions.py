"""What does a group of features add to the features that are there? Differences, what chance makes of them, verdicts.

Each group is added to the base alone, and left out of all features together: what it knows that the base does not, and
what it knows that nothing else does. A model of the same recipe is fitted on each set of features.

One fit is not enough. The recipe draws rows and columns for every tree, and a column more makes all draws others: that
luck alone moves a metric as far as most groups do, and no bootstrap over profiles sees it. So each set is fitted more
than once at every cutoff, with other seeds, the metric is the mean over them, and what the seeds did is part of the
interval. A group of drawn numbers (NOISE) is judged like any other; it shows what all of this is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import hypot, sqrt

import numpy as np
import pandas as pd
from scipy.stats import t as student

from models import encoding
from models.estimators import trees
from training.backtest import fit, predict
from training.metrics import METRICS, Difference, Kind, Metric
from training.metrics import verdict as judged_by
from training.pooled import Judged, Pooled

ADDED, LEFT_OUT = "added to the base", "left out of all"
BASE, ALL, NOISE = "base", "all groups", "noise"
NOISE_COLUMNS = [f"noise_{n}" for n in range(6)]
SHOWN: dict[Kind, tuple[str, ...]] = {
    "probability": ("auc", "log_loss"),
    "amount": ("mae", "norm_gini"),
    "duration": ("mae", "concordance"),
}
"""The metrics in the tables; the task's own, and MORE, are measured too."""

MORE: dict[Kind, tuple[str, ...]] = {"probability": (), "amount": ("rmse",), "duration": ()}

Differences = dict[str, dict[str, dict[str, Difference]]]
"""Group -> way (ADDED, LEFT_OUT) -> metric -> with the group less without it."""


@dataclass(frozen=True)
class Part:
    """The rows of one test cutoff (columns as of `training_set`): those learned from, and those predicted."""

    learn: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True)
class Judgement:
    """What groups do for one task. metric: the task's own; values: of BASE and ALL, metric -> value."""

    kind: Kind
    metric: str
    differences: Differences
    values: Mapping[str, Mapping[str, float]]


def sets_of(
    base: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[tuple[str, str], tuple[str, str]]]:
    """The sets of features to fit on, and (group, way) -> which two sets to compare: with the group, and without it."""
    everything = [*base, *(column for columns in groups.values() for column in columns)]
    sets = {BASE: list(base), ALL: everything}
    pairs = {(ALL, ADDED): (ALL, BASE)}
    for group, columns in groups.items():
        more, less = f"{BASE} and {group}", f"{ALL} but {group}"
        sets |= {more: [*base, *columns], less: [column for column in everything if column not in set(columns)]}
        pairs |= {(group, ADDED): (more, BASE), (group, LEFT_OUT): (ALL, less)}
    more, most = f"{BASE} and {NOISE}", f"{ALL} and {NOISE}"
    sets |= {more: [*base, *NOISE_COLUMNS], most: [*everything, *NOISE_COLUMNS]}
    pairs |= {(NOISE, ADDED): (more, BASE), (NOISE, LEFT_OUT): (most, ALL)}
    return sets, pairs


def contributions(
    kind: Kind, metric: str, horizon_days: float, parts: Sequence[Part], base: Sequence[str],
    groups: Mapping[str, Sequence[str]], *, fits: int = 2, threads: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Judgement:  # fmt: skip
    """What each group of columns adds, over all cutoffs.

    kind, metric, horizon_days: of the task. parts: one per cutoff, with the columns of base and groups. fits: how often
    each set is fitted at a cutoff; with one, the intervals know nothing of the luck of a seed. threads: sets that are
    fitted at a time, each by one thread; a fit says the same by any number of threads.
    """
    sets, pairs = sets_of(base, groups)
    judged = []
    for place, part in enumerate(parts):
        categories = encoding.learn(part.learn, sets[ALL])
        for seed in range(place * fits, (place + 1) * fits):  # no seed twice: its luck would not cancel out
            rng = np.random.default_rng(seed)
            learn, test = (_encoded(rows, sets[ALL], categories, rng) for rows in (part.learn, part.test))
            predicted = partial(_predicted, kind, horizon_days, learn, test, tuple(categories), seed)
            with ThreadPoolExecutor(threads) as pool:
                said = dict(zip(sets, pool.map(predicted, sets.values()), strict=True))
            judged.append(Judged(test["person"].to_numpy(dtype=str), test["label"].to_numpy(dtype=float), said))
            progress(f"{len(judged)} of {len(parts) * fits} rounds, {len(sets)} sets of features fitted in each")
    names = list(dict.fromkeys([*SHOWN[kind], *MORE[kind], metric]))
    pooled = Pooled(kind, judged, metrics=names)
    found: Differences = {}
    for (group, way), (model, other) in pairs.items():
        found.setdefault(group, {})[way] = {name: difference(pooled, model, other, name, fits) for name in names}
    values = {name: {m: pooled.value(name, m) for m in names} for name in (BASE, ALL)}
    return Judgement(kind, metric, found, values)


def _encoded(
    rows: pd.DataFrame, columns: list[str], categories: encoding.Categories, rng: np.random.Generator
) -> pd.DataFrame:
    """What a fit needs of the rows, text as codes, and columns of noise."""
    noise = pd.DataFrame(rng.normal(size=(len(rows), len(NOISE_COLUMNS))), rows.index, pd.Index(NOISE_COLUMNS))
    return pd.concat(
        [rows[["label", "weight", "person", "cutoff"]], encoding.encode(rows, columns, categories), noise], axis=1
    )


def _predicted(
    kind: Kind, horizon_days: float, learn: pd.DataFrame, test: pd.DataFrame, categorical: tuple[str, ...], seed: int,
    columns: list[str],
) -> np.ndarray:  # fmt: skip
    """What the learned candidate says of the test rows by these columns."""
    model = trees(kind, horizon_days, num_threads=1, categorical=categorical).set_params(seed=seed)
    return predict(fit(model, learn, columns), test[columns], kind)


def difference(pooled: Pooled, model: str, other: str, metric: str, fits: int) -> Difference:
    """`model` less `other`, with 95%: of the profiles drawn, and of the seeds, `fits` of which follow each other.

    The two are independent, so that their half widths add up as the sides of a right angle do.
    """
    found = pooled.difference(model, other, metric)
    apart = np.subtract(pooled.at(model, metric), pooled.at(other, metric))
    luck, free = 0.0, len(apart) - len(apart) // fits
    if free:
        variance = apart.reshape(-1, fits).var(axis=1, ddof=1).mean()
        luck = float(student.ppf(0.975, free)) * sqrt(variance / len(apart))
    below, above = max(0.0, found.value - found.low), max(0.0, found.high - found.value)
    return Difference(found.value, found.value - hypot(below, luck), found.value + hypot(above, luck))


def verdict(tasks: Mapping[str, Judgement], group: str) -> tuple[str, list[str]]:
    """What a group does, and for which tasks: "adds", "hurts" or "no measurable difference", by the tasks' own metrics.

    It adds if some task is better beyond chance with it, on top of the base or on top of all others. It hurts if it
    adds nowhere, and some task is worse beyond chance for having it beside all others.
    """
    adds, hurts = [], []
    for name, judged in tasks.items():
        ways = {
            way: judged_by(found[judged.metric], METRICS[judged.kind][judged.metric])
            for way, found in judged.differences[group].items()
        }
        if "better" in ways.values():
            adds.append(name)
        if ways.get(LEFT_OUT) == "worse":
            hurts.append(name)
    if adds:
        return "adds", adds
    return ("hurts", hurts) if hurts else ("no measurable difference", [])


def improvement(found: Difference, metric: Metric) -> Difference:
    """A difference turned so that more is better."""
    if metric.greater:
        return found
    return Difference(-found.value, -found.high, -found.low)
