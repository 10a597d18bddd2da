"""Who was eligible in a task's last batch, and at what value? The crowd among whom a percentile is counted.

Kept for everyone eligible, also when the scores of one segment only were written: `scored/<task>.parquet`, replaced
atomically, with the model, the cutoff and the ingest batch it is of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from foretell.project import Project
from lake import derived
from lake.engine import connect, last_batch
from models.registry import Champion


@dataclass(frozen=True)
class Batch:
    """A task's last batch: profile_id and value of everyone eligible, and the model, cutoff and facts they are of."""

    task: str
    version: str
    service: str
    cutoff: datetime
    batch: int
    file: Path

    def values(self) -> pd.DataFrame:
        """profile_id and value, by value."""
        return duckdb.execute("SELECT profile_id, value FROM read_parquet(?)", [str(self.file)]).df()

    def crowd(self) -> np.ndarray:
        return np.sort(self.values()["value"].to_numpy())


def keep(project: Project, model: Champion, cutoff: datetime, profiles: list[str], values: np.ndarray) -> None:
    """Make this the task's last batch, unless there is a later one."""
    before = last(project, model.task)
    if before is not None and before.cutoff > cutoff:
        return
    said = {
        "task": model.task, "version": model.version, "service": model.contract["service"],
        "cutoff": cutoff.isoformat(), "batch": last_batch(project),
    }  # fmt: skip
    con = connect(project)
    try:
        con.register("scored", pd.DataFrame({"profile_id": pd.Series(profiles, dtype=object), "value": values}))
        query = "SELECT profile_id, value FROM scored ORDER BY value, profile_id"
        derived.write(con, query, _file(project, model.task), metadata={"batch": json.dumps(said)})
    finally:
        con.close()


def last(project: Project, task: str) -> Batch | None:
    """The last batch of a task, or None before the first."""
    file = _file(project, task)
    if not file.exists():
        return None
    pairs = duckdb.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(file)]).fetchall()
    said = json.loads(next(value for key, value in pairs if key == b"batch"))
    return Batch(**{**said, "cutoff": datetime.fromisoformat(said["cutoff"])}, file=file)


def _file(project: Project, task: str) -> Path:
    return project.home / "scored" / f"{task}.parquet"


def mark_online(project: Project, cutoff: datetime | None) -> None:
    """Say of which T the features online are; None while they are between two."""
    file = project.home / "feast" / "online.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"cutoff": cutoff.isoformat() if cutoff else None}))
    draft.replace(file)


def online_cutoff(project: Project) -> datetime | None:
    """The T of the features that are online, or None."""
    file = project.home / "feast" / "online.json"
    stamp = json.loads(file.read_text())["cutoff"] if file.exists() else None
    return datetime.fromisoformat(stamp) if stamp else None
