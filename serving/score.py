"""How is an audience scored? The champion's answer for everyone eligible at T, each with its contract, as facts.

A score's id is a digest of task, model version, profile, cutoff and feature row: scoring that was killed half way is
repaired by scoring again, and asking the same question twice adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from features.store import repository
from foretell.declarations import PredictionTask
from foretell.errors import DataError, DefinitionError, NotReady
from foretell.project import Project
from lake.engine import last_batch, session, table
from models.explain import contributions, top_reasons
from models.registry import Champion, champion, quietly
from segments.predicate import parse
from training import dataset
from unification.identity import resolve

_STAMP = pa.timestamp("us", tz="UTC")
_REASON = pa.struct(
    [("feature", pa.string()), ("value", pa.float64()), ("effect", pa.float64()), ("text", pa.string())]
)
SCHEMA = pa.schema([
    ("score_id", pa.string()), ("task", pa.string()), ("kind", pa.string()), ("profile_id", pa.string()),
    ("value", pa.float64()), ("percentile", pa.float64()), ("base_rate", pa.float64()),
    ("reasons", pa.list_(_REASON)), ("model_version", pa.string()), ("estimator", pa.string()),
    ("feature_service", pa.string()), ("features", pa.map_(pa.string(), pa.float64())),
    ("cutoff", _STAMP), ("scored_at", _STAMP), ("expires_at", _STAMP), ("batch", pa.int64()), ("purpose", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One task's batch: how many profiles were eligible, how many scores are new, their mean, the model and cutoff."""

    task: str
    eligible: int
    added: int
    mean: float
    version: str
    estimator: str
    cutoff: datetime


def score(
    project: Project, names: list[str], cutoff: datetime | None = None, progress: Callable[[str], None] = lambda _: None
) -> list[Scored]:
    """Score everyone eligible at the cutoff (default: the project's now) for each task, and write the scores.

    Features come from Feast, and are brought to the online store too. Raises NotReady for a task never trained.
    """
    cutoff = cutoff or project.now
    if cutoff > project.now:
        raise DataError(
            "score", f"expected a cutoff up to now ({project.now:%Y-%m-%d %H:%M}), got {cutoff:%Y-%m-%d %H:%M}",
            "what will be known then is not known yet; leave --at out",
        )  # fmt: skip
    tasks = [project.definitions.task(name) for name in names]
    champions = {t.name: _matching_champion(project, t) for t in tasks}
    dataset.build_for(project, tasks, [cutoff], progress)
    _bring_online(project, tasks, cutoff, progress)
    return [_score_task(project, task, champions[task.name], cutoff, progress) for task in tasks]


def _score_task(
    project: Project, task: PredictionTask, model: Champion, cutoff: datetime, progress: Callable[[str], None]
) -> Scored:
    with session(project) as con:
        eligible = dataset.population(con, project, task, cutoff)
    if not eligible:
        return Scored(task.name, 0, 0, float("nan"), model.version, model.contract["estimator"], cutoff)
    progress(f"{task.name}: scoring {len(eligible):,} profiles")
    rows = pd.DataFrame({"profile_id": pd.Series(eligible, dtype=object), "event_timestamp": pd.Timestamp(cutoff)})
    rows = dataset.with_features(project, task, rows).sort_values("profile_id", ignore_index=True)
    found = contract_rows(project, task, model, rows, cutoff)
    stored = table(project, "scores")
    known: set[str] = set()
    if files := stored.files():
        with session(project) as con:
            query = f"SELECT score_id FROM {stored.scan(files)} WHERE task = ? AND cutoff = ?"
            known = {i for (i,) in con.execute(query, [task.name, cutoff]).fetchall()}
    new = [row for row in found if row["score_id"] not in known]
    if new:
        stored.append(pa.Table.from_pylist(new, schema=SCHEMA), why=f"score {task.name} v{model.version}")
    mean = float(np.mean([row["value"] for row in found]))
    return Scored(task.name, len(found), len(new), mean, model.version, model.contract["estimator"], cutoff)


def contract_rows(
    project: Project, task: PredictionTask, model: Champion, rows: pd.DataFrame, cutoff: datetime,
    among: np.ndarray | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The score contract of each row (profile_id and the model's columns).

    percentile: share of scores that are no higher, in %, among these rows or among `among`.
    """
    X = model.encode(rows)
    values = model.predict(X).to_numpy()
    crowd = np.sort(values if among is None else among)
    # One row alone and the same row among many may differ in the last bit: as good as equal is equal.
    percentiles = 100.0 * np.searchsorted(crowd, values + 1e-9 * np.abs(values), side="right") / len(crowd)
    reasons = top_reasons(
        contributions(model.model, X, model.background), X, model.background, categories=model.categories
    )  # fmt: skip
    scored_at, batch = datetime.now(UTC), last_batch(project)
    shared = {
        "task": task.name, "kind": model.contract["kind"], "base_rate": model.contract["base_rate"],
        "model_version": model.version, "estimator": model.contract["estimator"],
        "feature_service": model.contract["service"], "cutoff": cutoff, "scored_at": scored_at,
        "expires_at": cutoff + task.horizon, "batch": batch, "purpose": task.purpose,
    }  # fmt: skip
    made = []
    for i, profile in enumerate(rows["profile_id"]):
        features = list(zip(X.columns, X.iloc[i].tolist(), strict=True))
        key = json.dumps([task.name, model.version, model.run_id, profile, cutoff.isoformat(), features])
        made.append({
            **shared, "score_id": hashlib.sha256(key.encode()).hexdigest()[:32], "profile_id": profile,
            "value": float(values[i]), "percentile": float(percentiles[i]), "reasons": reasons[i], "features": features,
        })  # fmt: skip
    return made


def score_one(project: Project, name: str, who: str) -> dict[str, Any]:
    """One profile's score now, from the online store: the contract as a dict. Nothing is written.

    who: a profile id, an old one, or any identifier. Its percentile is among the last batch of the same model.
    """
    task = project.definitions.task(name)
    model = _matching_champion(project, task)
    cutoff = online_cutoff(project)
    if cutoff is None:
        raise NotReady(name, "no features are online yet", "run `foretell score` first")
    stored = table(project, "scores")
    with session(project) as con:
        profile = resolve(con, project, who)
        among = None
        if stored.exists:
            query = "SELECT value FROM scores WHERE task = ? AND model_version = ? AND cutoff = ?"
            among = con.execute(query, [name, model.version, cutoff]).df()["value"].to_numpy()
        store = repository.open_store(project)
        row = quietly(lambda: repository.online(store, model.contract["service"], [profile]))
        con.register("one", row)
        rule = parse(task.population, where=f"population of {name}")
        readable = {c for c, *_ in con.execute("DESCRIBE one").fetchall()}
        if rule.columns <= readable and not con.execute(rule.sql("one")).fetchall():
            raise NotReady(
                who,
                f"is not in the population of {name} ({task.population})",
                "score someone who is",
                where=f"at {cutoff:%Y-%m-%d}",
            )
    made = contract_rows(project, task, model, row, cutoff, among if among is not None and len(among) else None)
    return made[0]


def _matching_champion(project: Project, task: PredictionTask) -> Champion:
    """The champion, if the views it was trained on are still what they were."""
    model = quietly(lambda: champion(project, task.name))
    if model.contract["service"] != (today := repository.service_name(project, task)):
        raise DefinitionError(
            task.name, f"its features were {model.contract['service']} when the champion was trained, now {today}",
            f"run `foretell train {task.name}` again, or take back the change to its views or sources",
        )  # fmt: skip
    return model


def _bring_online(
    project: Project, tasks: list[PredictionTask], cutoff: datetime, progress: Callable[[str], None]
) -> None:
    """Bring the features at the cutoff to the online store, unless later ones are there already."""
    online = online_cutoff(project)
    if online is not None and online > cutoff:
        return
    progress("features to the online store")
    store = repository.apply(project, tasks)
    views = {v.name: v for t in tasks for v in project.definitions.views_of(t)}
    _mark_online(project, None)  # between two cutoffs nobody is told that old features are new, or new ones old
    quietly(lambda: repository.materialise(project, store, views.values(), cutoff))
    _mark_online(project, cutoff)


def _mark_online(project: Project, cutoff: datetime | None) -> None:
    file = project.home / "feast" / "online.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"cutoff": cutoff.isoformat() if cutoff else None}))
    draft.replace(file)


def online_cutoff(project: Project) -> datetime | None:
    """The T of the features that are online, or None."""
    file = project.home / "feast" / "online.json"
    stamp = json.loads(file.read_text())["cutoff"] if file.exists() else None
    return datetime.fromisoformat(stamp) if stamp else None
