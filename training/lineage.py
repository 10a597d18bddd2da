"""Who did a model learn from? How many rows of each profile, kept in a table of its own, which can be erased.

MLflow keeps no row of anyone. Once somebody is erased, the model says "k of n rows erased": n is what its contract
counts, k what the receipts of erasures count for its version (`erased_rows`). Whoever trains it anew, to reproduce it,
starts from n − k rows, and must name both beside the deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from foretell.project import Project
from lake.engine import session, table
from lake.erasure import mine, receipts
from models.registry import client, exists, quietly

TABLE = "training_rows"
PARTS = ("training", "evaluation", "final")
SCHEMA = pa.schema([
    ("task", pa.string()), ("version", pa.string()), ("run_id", pa.string()), ("profile_id", pa.string()),
    *[(part, pa.int64()) for part in PARTS],
])  # fmt: skip


def counts(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """profile_id and its number of rows in each of PARTS."""
    found = {part: rows["profile_id"].value_counts() for part, rows in parts.items()}
    made = pd.DataFrame(found).fillna(0).astype("int64").rename_axis("profile_id").reset_index()
    return made.sort_values("profile_id", ignore_index=True)[["profile_id", *PARTS]]


def keep(project: Project, task: str, version: str, run_id: str, whose: pd.DataFrame) -> None:
    rows = whose.assign(task=task, version=version, run_id=run_id)[SCHEMA.names]
    table(project, TABLE).append(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False), why=f"train {task}")


def learned_from(project: Project, profile_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The models that these ids' rows went into: task, version, and per part its rows and (`of`) everyone's."""
    if not table(project, TABLE).exists:
        return []
    with session(project) as con:
        mine(con, "ids", profile_ids)
        theirs = "FILTER (profile_id IN (SELECT value FROM ids))"
        counted = [f"coalesce(sum({part}) {theirs}, 0)::BIGINT AS {part}" for part in PARTS]
        counted += [f"sum({part})::BIGINT AS of_{part}" for part in PARTS]
        found = con.execute(
            f"""SELECT task, version, {", ".join(counted)} FROM training_rows GROUP BY task, version
                HAVING count(*) {theirs} > 0 ORDER BY task, version::INTEGER"""
        )
        names = [d[0] for d in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def untraced(project: Project) -> list[str]:
    """Models ("churn v1") in the registry of which it was not written down whom they learned from."""
    if not exists(project):
        return []
    known: set[tuple[str, str]] = set()
    if table(project, TABLE).exists:
        with session(project) as con:
            known = set(con.execute("SELECT DISTINCT task, version FROM training_rows").fetchall())
    found = quietly(lambda: client(project).search_model_versions(max_results=10_000))
    models = sorted((m.name, int(m.version)) for m in found if m.name in project.definitions.tasks)
    return [f"{name} v{version}" for name, version in models if (name, str(version)) not in known]


def erased_rows(project: Project, task: str, version: str) -> int:
    """How many of the rows that a model was fitted on have been erased since."""
    models = [model for receipt in receipts(project) for model in receipt["models"]]
    return sum(model["final"] for model in models if (model["task"], model["version"]) == (task, version))
