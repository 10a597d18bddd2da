"""Scores that nobody worked out, written as the product writes them, so that grading can be tested without training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from foretell.declarations import PredictionTask
from foretell.project import Project
from lake.engine import last_batch, session, table
from models.registry import CONTRACT
from serving import grade as grading
from serving import monitor as monitoring
from serving.contract import SCHEMA
from training import question


def write_scores(
    project: Project, task: PredictionTask, cutoff: datetime, profiles: Sequence[str], values: Sequence[float], *,
    version: str = "1", kind: str = "probability", features: dict[str, Sequence[float]] | None = None,
) -> list[str]:  # fmt: skip
    """Append a batch of everyone eligible; returns the ids of the scores."""
    order, made = pd.Series(list(values), dtype=float).rank(method="max", pct=True) * 100, []
    for n, (profile, value) in enumerate(zip(profiles, values, strict=True)):
        key = json.dumps([task.name, version, profile, cutoff.isoformat()])
        made.append({
            "score_id": hashlib.sha256(key.encode()).hexdigest()[:32], "task": task.name, "kind": kind,
            "profile_id": profile, "value": float(value), "percentile": float(order.iloc[n]), "base_rate": 0.5,
            "model_version": version, "estimator": "made_up", "feature_service": f"{task.name}__none",
            "features": [(name, float(column[n])) for name, column in (features or {}).items()],
            "cutoff": cutoff, "scored_at": datetime.now(UTC), "expires_at": cutoff + task.horizon,
            "batch": last_batch(project), "purpose": task.purpose,
        })  # fmt: skip
    table(project, "scores").append(pa.Table.from_pylist(made, SCHEMA), why="test")
    return [row["score_id"] for row in made]


def contract_of(project: Project, task: PredictionTask) -> dict[str, Any]:
    """As much of a model's contract as grading reads."""
    asked = question.said(project, task)
    return {
        "question": asked, "horizon_days": asked["horizon_days"], "population": task.population,
        "purpose": task.purpose,
    }  # fmt: skip


def as_if_trained(
    monkeypatch: pytest.MonkeyPatch, contracts: dict[tuple[str, str], dict[str, Any]],
    more: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """(task, version) -> its contract, in place of the registry; the last is in use. more: artifact -> text, of all."""

    def kept(project: Project, task: str, version: str, name: str) -> str | None:
        found = contracts.get((task, version))
        if found is None:
            return None
        return json.dumps(found) if name == CONTRACT else (more or {}).get(name)

    def trained_at(project: Project, task: str) -> tuple[str, datetime] | None:
        versions = [version for name, version in contracts if name == task]
        return (versions[-1], datetime.now(UTC)) if versions else None

    for module in (grading, monitoring):
        monkeypatch.setattr(module, "kept", kept)
    monkeypatch.setattr(monitoring, "trained_at", trained_at)


def outcomes(project: Project, task: str, version: str = "1") -> pd.DataFrame:
    """profile_id, label, weight, person, split, reason: the grades of a task, by profile and cutoff."""
    if not table(project, grading.TABLE).exists:
        return pd.DataFrame()
    with session(project) as con:
        return con.execute(
            """SELECT profile_id, label, weight, person, split, reason, cutoff, score_id, asked FROM outcomes
               WHERE task = ? AND model_version = ? ORDER BY cutoff, profile_id""", [task, version],
        ).df()  # fmt: skip
