"""Who was eligible in a task's last batch, and at what value? The crowd among whom a percentile is counted.

Kept for everyone eligible, also when the scores of one segment only were written: `scored/<task>.parquet`, replaced
atomically, with the model, the cutoff and the ingest batch it is of. Of whom there is too little evidence for a score,
the value is null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from features.compiling import versioned
from features.wide import empty_row
from foretell.project import Project
from foretell.views import FeatureView
from lake import derived
from lake.engine import connect, last_batch
from models.encoding import encode_rows
from models.registry import Champion
from serving.evidence import Empty


@dataclass(frozen=True)
class Batch:
    """A task's last batch: profile_id and value of everyone scored, and the model, cutoff and facts they are of.

    empty: what the model reads of a profile without facts (see serving.evidence).
    """

    task: str
    version: str
    service: str
    cutoff: datetime
    batch: int
    file: Path
    empty: Empty = field(default_factory=dict)

    def values(self) -> pd.DataFrame:
        """profile_id and value of everyone scored."""
        query = "SELECT profile_id, value FROM read_parquet(?) WHERE value IS NOT NULL"
        return duckdb.execute(query, [str(self.file)]).df()

    def crowd(self) -> np.ndarray:
        """The values, sorted."""
        query = "SELECT value FROM read_parquet(?) WHERE value IS NOT NULL"
        return np.sort(duckdb.execute(query, [str(self.file)]).fetchnumpy()["value"])

    def value_of(self, profile: str) -> list[float | None]:
        """A profile's value; [None] if there is too little evidence for one; [] if it was not eligible."""
        query = "SELECT value FROM read_parquet(?) WHERE profile_id = ?"
        return [value for (value,) in duckdb.execute(query, [str(self.file), profile]).fetchall()]


def keep(
    project: Project, model: Champion, cutoff: datetime, profiles: pa.Array, values: np.ndarray, lacking: pa.Array,
    empty: Empty,
) -> None:  # fmt: skip
    """Make this the task's last batch, unless there is a later one. lacking: the profiles without enough evidence."""
    before = last(project, model.task)
    if before is not None and before.cutoff > cutoff:
        return
    said = {
        "task": model.task, "version": model.version, "service": model.contract["service"],
        "cutoff": cutoff.isoformat(), "batch": last_batch(project), "empty": empty,
    }  # fmt: skip
    con = connect(project)
    try:
        con.register("scored", pa.table({"profile_id": profiles, "value": pa.array(values)}))
        con.register("lacking", pa.table({"profile_id": lacking.cast(pa.string())}))
        query = "SELECT profile_id, value FROM scored UNION ALL SELECT profile_id, NULL::DOUBLE FROM lacking"
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
    """Say of which T the features online are, and where; None while they are between two."""
    file = project.home / "feast" / "online.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"cutoff": cutoff.isoformat() if cutoff else None, "where": project.setting("online")}))
    draft.replace(file)


def online_cutoff(project: Project) -> datetime | None:
    """The T of the features that are online where the settings say; None if there are none."""
    file = project.home / "feast" / "online.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    here = said.get("where") == project.setting("online")  # an earlier version of Foretell kept them in another file
    return datetime.fromisoformat(said["cutoff"]) if here and said["cutoff"] else None


def empty_rows(
    con: duckdb.DuckDBPyConnection, project: Project, model: Champion, views: Sequence[FeatureView], cutoff: datetime,
    known: dict[str, dict[str, Any]] | None = None,
) -> Empty:  # fmt: skip
    """What a model reads of nobody. con: a lake session; views: of its task, as it was trained; known: by the version
    of a view what it says of nobody, which is added to: tasks share views."""
    found: dict[str, dict[str, float | None]] = {}
    said, sources = {} if known is None else known, dict(project.definitions.sources)
    for view in views:
        version = versioned(view, sources)
        if version not in said:
            said[version] = empty_row(con, project, view, cutoff)
        columns = [c for c in model.contract["columns"] if c in view.features]
        row = encode_rows([said[version]], columns, model.categories).iloc[0]
        if columns:
            found[view.name] = {c: None if np.isnan(row[c]) else float(row[c]) for c in columns}
    return found
