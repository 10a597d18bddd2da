"""A small shop with features and scores that were made up: segments ask nothing of what made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import Facts, make_shop

from features import build
from foretell.project import Project
from lake.engine import session, table
from serving.contract import SCHEMA
from unification.identity import ensure

TASKS = {"churn": ("probability", "retention"), "clv": ("amount", "retention"), "propensity": ("probability", "email")}
SEGMENTS = {
    "everybody": "rule: identifiers > 0\n",
    "osloers": "rule: city = 'Oslo'\ndescription: Who lives in Oslo\n",
    "leaving": "rule: churn > 0.5 and top(clv, 0.5)\npurpose: email\n",
    "tested": "rule: orders_365d >= 0\npurpose: email\ncontrol: 0.3\n",
}


def number(*parts: object) -> float:
    """A number in [0, 1) that follows from these."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def score(project: Project, cutoff: datetime | None = None, days: float = 28, **changes: Any) -> None:
    """Score everyone now for every task, and build the features of then. changes: to each row; with task="x" for that
    one only."""
    cutoff = cutoff or project.now
    ensure(project)
    build.build(project, project.definitions.of_profiles.values(), [cutoff])
    with session(project) as con:
        profiles = [p for (p,) in con.execute("SELECT profile_id FROM profiles ORDER BY 1").fetchall()]
    rows = [
        {
            "score_id": hashlib.sha256(f"{task}{profile}{cutoff}{changes}".encode()).hexdigest()[:32], "task": task,
            "kind": kind, "profile_id": profile, "value": (v := round(number(task, profile, cutoff), 2)),
            "value_low": v, "value_high": v, "percentile": 100 * v, "base_rate": 0.5, "model_version": "1",
            "reasons": [{"feature": "orders_90d", "value": v, "effect": v, "text": f"because of {v}"}],
            "estimator": "blend", "feature_service": f"{task}__1", "features": [("orders_90d", v)], "cutoff": cutoff,
            "scored_at": cutoff + timedelta(minutes=1), "expires_at": cutoff + timedelta(days=days), "batch": 1,
            "purpose": purpose,
        } | changes
        for task, (kind, purpose) in list(TASKS.items())[: 1 if "task" in changes else None]
        for profile in profiles
        # every seventh is in no population
        if number(profile) > 1 / 7
    ]  # fmt: skip
    table(project, "scores").append(pa.Table.from_pylist(rows, schema=SCHEMA), why="test")


def declare(project: Project, segments: Mapping[str, str]) -> None:
    (project.folder / "segments").mkdir(exist_ok=True)
    for name, text in segments.items():
        (project.folder / "segments" / f"{name}.yaml").write_text(text)


def scored_shop(folder: Path, segments: Mapping[str, str] | None = None, facts: Facts | None = None) -> Project:
    """A shop that is loaded, unified and scored, with segments."""
    project = make_shop(folder, facts=facts)
    declare(project, SEGMENTS if segments is None else segments)
    score(project)
    return project


def at(project: Project, moment: datetime, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project at another time: its profiles are those of then."""
    monkeypatch.setenv("FORETELL_AS_OF", moment.isoformat())
    moved = Project(project.folder)
    ensure(moved)
    return moved
