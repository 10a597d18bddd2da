"""How does a feature become a number a model can read? Text by integer codes, whose meaning is kept with the model.

Codes go by how often a value was seen in training, the most frequent being 0, so that a code means the same for ever. A
value that training did not see, or saw too rarely to learn from, is as good as unknown: NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Categories = Mapping[str, Sequence[str]]

RAREST = 20  # rows a value must have to get a code
MOST = 100  # codes a feature has at most


def learn(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[str]]:
    """The values of each text column, the most frequent first; a value's place is its code."""
    found = {}
    for column in columns:
        if not _is_text(rows[column]):
            continue
        counts = rows[column].dropna().astype(str).value_counts()
        kept = counts[counts >= RAREST]
        ordered = sorted(kept.index, key=lambda value: (-kept[value], value))
        found[column] = ordered[:MOST]
    return found


def encode(rows: pd.DataFrame, columns: Sequence[str], categories: Categories) -> pd.DataFrame:
    """The columns as floats, in this order: numbers and true/false as they are, text by its code."""
    made = {}
    for column in columns:
        if column in categories:
            codes = {value: code for code, value in enumerate(categories[column])}
            made[column] = rows[column].astype(object).map(codes, na_action="ignore").to_numpy(dtype=float)
        elif _is_text(rows[column]):  # there was none of it in training: nothing was learned of any value
            made[column] = np.full(len(rows), np.nan)
        else:
            made[column] = rows[column].astype(float).to_numpy()
    return pd.DataFrame(made, index=rows.index, columns=pd.Index(list(columns)), dtype=float)


def encode_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], categories: Categories) -> pd.DataFrame:
    """The same as `encode`, from a mapping per row: of few rows, a table of objects costs more than the model."""
    codes = {column: {value: code for code, value in enumerate(categories[column])} for column in categories}

    def number(column: str, value: Any) -> float:
        if column in codes:
            return codes[column].get(value, np.nan)
        return np.nan if value is None or isinstance(value, str) else float(value)

    made = [[number(column, row[column]) for column in columns] for row in rows]
    return pd.DataFrame(np.array(made, dtype=float).reshape(-1, len(columns)), columns=pd.Index(list(columns)))


def decode(column: str, code: float, categories: Categories) -> str | None:
    """The text that a code stands for; None for a number's column, and for a code that means nothing."""
    values = categories.get(column)
    if values is None or not np.isfinite(code) or not 0 <= int(code) < len(values):
        return None
    return values[int(code)]


def background(X: pd.DataFrame, categories: Categories) -> dict[str, float]:
    """A typical profile: the median of each number (0 if never known), the most frequent value of each text."""
    typical = X.median().fillna(0.0)
    return {str(column): 0.0 if column in categories else float(typical[column]) for column in X.columns}


def _is_text(values: pd.Series) -> bool:
    """Text, as opposed to numbers and true/false (which come as objects where some are unknown)."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    return any(isinstance(value, str) for value in values.dropna().head(1))
