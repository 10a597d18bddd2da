"""What does a score say? Value, interval, percentile, base rate, reasons, versions, cutoff, expiry, feature row.

Rows in, contracts out: nothing is read or written here, so that the batch and the service answer by the same code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from models.explain import contributions, top_reasons
from models.registry import Champion

_STAMP = pa.timestamp("us", tz="UTC")
_REASON = pa.struct(
    [("feature", pa.string()), ("value", pa.float64()), ("effect", pa.float64()), ("text", pa.string())]
)
SCHEMA = pa.schema([
    ("score_id", pa.string()), ("task", pa.string()), ("kind", pa.string()), ("profile_id", pa.string()),
    ("value", pa.float64()), ("value_low", pa.float64()), ("value_high", pa.float64()), ("percentile", pa.float64()),
    ("base_rate", pa.float64()),
    ("reasons", pa.list_(_REASON)), ("model_version", pa.string()), ("estimator", pa.string()),
    ("feature_service", pa.string()), ("features", pa.map_(pa.string(), pa.float64())),
    ("cutoff", _STAMP), ("scored_at", _STAMP), ("expires_at", _STAMP), ("batch", pa.int64()), ("purpose", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """What all scores of one task and cutoff share beside the model. batch: the last ingest batch they know."""

    cutoff: datetime
    expires_at: datetime
    batch: int
    purpose: str


def contract_rows(
    model: Champion, profiles: Sequence[str], X: pd.DataFrame, crowd: np.ndarray, terms: Terms, *,
    values: np.ndarray | None = None, reasons: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """The score contract of each profile, whose encoded features are the row of X at its place.

    crowd: the sorted values of everyone eligible, among whom the percentile is counted (the share that is no higher, in
    %), so that it means the same whoever is asked about. values: the model's answers, if they are known already.
    reasons: what costs most; without them they are None.
    """
    answers = np.asarray(model.predict(X, terms.cutoff)) if values is None else values
    # One row alone and the same row among many may differ in the last bit: as good as equal is equal.
    percentiles = 100.0 * np.searchsorted(crowd, answers + 1e-9 * np.abs(answers), side="right") / len(crowd)
    ends = [[None if np.isnan(end) else float(end) for end in side] for side in model.interval(answers)]
    said: list[Any] = [None] * len(X)
    if reasons:
        effects = contributions(model.model, X, model.background)
        said = top_reasons(effects, X, model.background, categories=model.categories, words=model.words)
    shared = {
        "task": model.task, "kind": model.contract["kind"], "base_rate": model.contract["base_rate"],
        "model_version": model.version, "estimator": model.contract["estimator"],
        "feature_service": model.contract["service"], "cutoff": terms.cutoff, "scored_at": datetime.now(UTC),
        "expires_at": terms.expires_at, "batch": terms.batch, "purpose": terms.purpose,
    }  # fmt: skip
    columns, rows = list(X.columns), X.to_numpy().tolist()
    made = []
    for i, profile in enumerate(profiles):
        features = list(zip(columns, rows[i], strict=True))
        # The same question has the same id: scoring that was killed half way is repaired by scoring again.
        key = json.dumps([model.task, model.version, model.run_id, profile, terms.cutoff.isoformat(), features])
        made.append({
            **shared, "score_id": hashlib.sha256(key.encode()).hexdigest()[:32], "profile_id": profile,
            "value": float(answers[i]), "value_low": ends[0][i], "value_high": ends[1][i],
            "percentile": float(percentiles[i]), "reasons": said[i], "features": features,
        })  # fmt: skip
    return made
