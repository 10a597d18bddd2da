"""Why this prediction? What each feature adds to it, and the largest of these in words.

Contributions live on a model's margin, where effects add up: the log-odds for a probability, the log for an amount
(so exp(effect) is the factor by which a feature multiplies the odds or the amount), for a time minus the log of the
hazard (so it divides the chance that it happens the next day).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import factorial, isfinite
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from foretell.errors import DataError
from models.encoding import Categories
from models.wording import Wording, Words

FLOOR = 1e-9  # A probability this close to 0 or 1 counts as this far from it: its log-odds stay finite.
FARTHEST = 20.0  # that a level is moved by, on the margin
CENT = 0.01  # An amount below counts as this, as log 0 does not exist.
MAX_SHAPLEY_COLUMNS = 12  # 2^12 predictions of the whole table
MOST_ROWS = 200_000  # rows of one prediction among them
_RAISES, _LOWERS = ", which raises the score", ", which lowers the score"


def margin(model: Any, X: pd.DataFrame) -> np.ndarray:
    """(n,): per row of X, log-odds of true, log of the amount, or of a time minus the log of the cumulative hazard at
    the horizon. model: fitted, of models.estimators."""
    return model.margins(model.read(X))


def level(margins: np.ndarray, mean: float, weight: np.ndarray | None = None) -> float:
    """What to add to the log-odds of rows, that the mean of their probabilities is another."""
    found = brentq(lambda by: float(np.average(expit(margins + by), weights=weight)) - mean, -FARTHEST, FARTHEST)
    return float(found)  # pyright: ignore[reportArgumentType]


def shifted(predicted: np.ndarray, kind: str, by: float) -> np.ndarray:
    """Predictions whose margin is moved: log-odds of a "probability", the log of an "amount"."""
    if not by:
        return predicted
    if kind != "probability":
        return predicted * np.exp(by)
    p = np.clip(predicted, FLOOR, 1 - FLOOR)
    return expit(np.log(p) - np.log1p(-p) + by)


def contributions(model: Any, X: pd.DataFrame, background: pd.Series) -> pd.DataFrame:
    """What each column adds to the margin of each row: same index and columns as X; row sum + base = margin.

    model: fitted, of models.estimators; background: a typical profile, one value per column of X (say, the medians).
    A model that splits its own margin (trees, regressions, blends) does so against its training rows. Any other gets
    the exact Shapley values of its columns against the background. Columns a model does not read contribute 0.
    See `base` for the base. Raises DataError when the background lacks a column, or when the columns are too many.
    """
    return split(model, X, background)[0].reindex(columns=X.columns, fill_value=0.0)


def base(model: Any, background: pd.Series) -> float:
    """The margin all rows start from: of a model that splits its own margin its own, else that of the background."""
    return split(model, background.to_frame().T.astype(float), background)[1]


def split(model: Any, X: pd.DataFrame, background: pd.Series) -> tuple[pd.DataFrame, float]:
    """(contributions of the columns that the model reads, base): see `contributions`."""
    if hasattr(model, "effects"):
        added, start = model.effects(model.read(X))
        return pd.DataFrame(added, X.index, pd.Index(told(model, X.columns))), start
    return shapley(partial(margin, model), list(model.columns_), X, background, type(model).__name__)


def told(model: Any, columns: Container[str]) -> list[str]:
    """What the columns that a model reads are called in its reasons: one may be known by another name (told_as)."""
    others: dict[str, str] = getattr(model, "told_as", {})
    return [name if (name := others.get(column) or column) in columns else column for column in model.columns_]


def shapley(
    of: Callable[[pd.DataFrame], np.ndarray], columns: list[str], X: pd.DataFrame, background: pd.Series, subject: str
) -> tuple[pd.DataFrame, float]:
    """(exact Shapley values of the k columns, the background's margin), n × k; `of` gives the margin of rows.

    The mean, over all orders in which the background's values could be replaced by the row's, of the change that each
    replacement makes: Shapley 1953; Lundberg & Lee 2017, eq. 4.
    """
    if len(columns) > MAX_SHAPLEY_COLUMNS:
        raise DataError(
            subject,
            f"expected a model of at most {MAX_SHAPLEY_COLUMNS} columns, got {len(columns)}",
            "give it a method effects",
        )
    if lacking := [column for column in columns if column not in background.index]:
        raise DataError(
            subject,
            f"expected a background value for {', '.join(lacking)}, got none",
            "pass X.median() of the training rows",
        )
    k, rows = len(columns), X.reindex(columns=columns).to_numpy(dtype=float)
    typical = background.reindex(columns).to_numpy(dtype=float)
    taken = subsets(k)
    margins = np.empty((len(taken), len(rows)))
    together = max(1, MOST_ROWS // max(1, len(rows)))  # one prediction of many rows, not many of one
    for some in (slice(start, start + together) for start in range(0, len(taken), together)):
        mixed = np.where(taken[some, None, :], rows, typical).reshape(-1, k)
        margins[some] = of(pd.DataFrame(mixed, columns=pd.Index(columns))).reshape(margins[some].shape)
    started = of(pd.DataFrame(typical[None], columns=pd.Index(columns)))[0]
    return pd.DataFrame(values_of(margins), X.index, pd.Index(columns)), float(started)


@lru_cache
def subsets(k: int) -> np.ndarray:
    """(2^k, k) bool: which of k players are in each subset. A subset is a number, its bits are its players."""
    return (np.arange(2**k)[:, None] >> np.arange(k)) & 1 == 1


@lru_cache
def _orders(k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each of k players the subsets without it, and in what share of all orders it comes right after each."""
    taken, found = subsets(k), []
    for player in range(k):
        without = np.flatnonzero(~taken[:, player])
        sizes = taken[without].sum(axis=1).tolist()
        found.append((without, np.array([factorial(n) * factorial(k - n - 1) / factorial(k) for n in sizes])))
    return found


def values_of(margins: np.ndarray) -> np.ndarray:
    """(n, k): Shapley values of k players, from the margins of n rows for each of their subsets, (2^k, n)."""
    k = len(margins).bit_length() - 1
    result = np.zeros((margins.shape[1], k))
    for player, (without, share) in enumerate(_orders(k)):
        result[:, player] = share @ (margins[without | (1 << player)] - margins[without])
    return result


def top_reasons(
    contrib: pd.DataFrame, X: pd.DataFrame, background: pd.Series, n: int = 3, categories: Categories | None = None,
    words: Words | None = None,
) -> list[list[dict[str, Any]]]:  # fmt: skip
    """Per row the n features of the largest |effect|, ties by name; fewer where fewer have an effect.

    contrib: of `contributions`; X: the same rows and columns; background: the typical value shown beside each value;
    categories: what the codes of text columns stand for; words: what the columns mean (models.wording).
    A reason: feature; value (None when unknown); effect on the margin, to six decimals (so that rounding errors
    neither order reasons nor make any); text, in words: "3 orders in 90 days (typical: 1), which lowers the score".
    """
    names = [str(name) for name in contrib.columns]
    typical = dict(zip(names, background.reindex(names).astype(float).tolist(), strict=True))
    wording = Wording(words or {}, categories or {}, typical)
    return largest(contrib.to_numpy(dtype=float), X[names].to_numpy(dtype=float), names, wording, n)


def largest(
    effects: np.ndarray, values: np.ndarray, columns: Sequence[str], wording: Wording, n: int = 3
) -> list[list[dict[str, Any]]]:
    """`top_reasons` of arrays: effects and values are of the same rows and columns."""
    by_name, order, sizes = _ranked(effects, columns, n)
    names: list[str] = [columns[place] for place in by_name]

    def reason(said: dict[str, float], name: str, effect: float) -> dict[str, Any]:
        value, text = said[name], wording.text(name, said)
        return {
            "feature": name,
            "value": value if isfinite(value) else None,
            "effect": effect,
            "text": text + (_RAISES if effect > 0 else _LOWERS),
        }

    made = []
    for places, those, row in zip(order.tolist(), sizes.tolist(), values[:, by_name].tolist(), strict=True):
        said = dict(zip(names, row, strict=True))
        made.append([
            reason(said, names[place], effect) for place, effect in zip(places, those, strict=True) if effect != 0
        ])  # fmt: skip
    return made


def _ranked(effects: np.ndarray, columns: Sequence[str], n: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(places of the columns in the order of their names, which of these have the n largest effects in each row, the
    effects to six decimals), the latter (rows, n)."""
    by_name = sorted(range(len(columns)), key=columns.__getitem__)
    effects = effects[:, by_name].round(6)
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :n]
    return by_name, order, np.take_along_axis(effects, order, axis=1)


@dataclass(frozen=True)
class Reasons:
    """The reasons of n rows, m in all, one after another, as a table has them. counts (n,): how many each row has;
    feature (m,): its place among the names; value (NaN, ±inf: unknown), effect, text (m,): see top_reasons."""

    names: Sequence[str]
    counts: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    effect: np.ndarray
    text: np.ndarray


def largest_in_columns(
    effects: np.ndarray, values: np.ndarray, columns: Sequence[str], wording: Wording, n: int = 3
) -> Reasons:
    """`largest` of many rows: no object is made of a reason but its text, and texts are made column by column."""
    columns = list(columns)
    by_name, order, sizes = _ranked(effects, columns, n)
    some = sizes != 0
    rows, feature, effect = np.nonzero(some)[0], np.asarray(by_name)[order[some]], sizes[some]
    text = np.empty(len(rows), dtype=object)
    for place in np.unique(feature).tolist():
        at = np.flatnonzero(feature == place)
        said = wording.texts(columns[place], values[rows[at]], columns)
        ends = np.where(effect[at] > 0, _RAISES, _LOWERS).tolist()
        text[at] = [one + end for one, end in zip(said, ends, strict=True)]
    return Reasons(columns, some.sum(axis=1), feature, values[rows, feature], effect, text)
