"""Where are pairs and models of matching kept? An insert-only table of pairs, and a registered model in MLflow.

A pair is known from when it was found: it never changes who was who before. Its row carries weight, probability and the
version of the model that found it, and what each comparison weighed, but no value of anybody's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from foretell.errors import NotReady, unknown
from foretell.project import Project
from lake import tracking
from lake.engine import connect, table
from unification.matching.comparisons import Learnt
from unification.matching.matcher import Model

TABLE = "matches"
MODEL = "identity_match"
LINKED, REVIEW, REFUSED = "linked", "review", "refused"
_ARTIFACT, _SPLINK = "model.json", "splink.json"
_STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([
    ("match_id", pa.string()), ("state", pa.string()), ("a", pa.string()), ("b", pa.string()),
    ("probability", pa.float64()), ("weight", pa.float64()), ("model_version", pa.string()), ("parts", pa.string()),
    ("reason", pa.string()), ("found_at", _STAMP), ("known_at", _STAMP),
])  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two identifiers whose people may be one. state: "linked" (a link from known_at on), "review", or "refused" for
    `reason`. parts: comparison -> (its level in words, bits)."""

    match_id: str
    state: str
    a: str
    b: str
    probability: float
    weight: float
    model_version: str
    parts: dict[str, list[Any]]
    reason: str = ""
    known_at: datetime | None = None


def pair_id(a: str, b: str) -> str:
    """The same for the same two identifiers, whichever comes first."""
    return "m" + hashlib.sha256("\n".join(sorted((a, b))).encode()).hexdigest()[:12]


def pairs(project: Project, state: str | None = None) -> list[Pair]:
    """The pairs kept, strongest first; of a pair that was found in several states the last one only."""
    if not (files := (stored := table(project, TABLE)).files()):
        return []
    con = connect(project)
    try:
        rows = con.execute(
            f"""SELECT match_id, state, a, b, probability, weight, model_version, parts, reason, known_at
                FROM {stored.scan(files)} QUALIFY row_number() OVER (
                    PARTITION BY match_id ORDER BY state = '{LINKED}' DESC, found_at DESC) = 1
                ORDER BY weight DESC, match_id"""
        ).fetchall()
    finally:
        con.close()
    found = [Pair(*first, json.loads(parts), reason, at) for *first, parts, reason, at in rows]  # pyright: ignore[reportCallIssue]
    return [pair for pair in found if state in (None, pair.state)]


def keep(project: Project, found: Iterable[Pair]) -> list[Pair]:
    """Write down the pairs that are not there in this state yet, in one commit. Returns those."""
    there = {(pair.match_id, pair.state) for pair in pairs(project)} | {
        (pair.match_id, state) for pair in pairs(project, LINKED) for state in (REVIEW, REFUSED)
    }
    new = [pair for pair in found if (pair.match_id, pair.state) not in there]
    clock = datetime.now(UTC)
    # where "now" is set to a past day, what is found today must still be known at it
    known = min(clock, project.now - timedelta(microseconds=1))
    new = [replace(pair, known_at=known) for pair in new]
    rows = [{**asdict(pair), "parts": json.dumps(pair.parts), "found_at": clock} for pair in new]
    if rows:
        table(project, TABLE).append(pa.Table.from_pylist(rows, SCHEMA), why="identity match")
    return new


def register(project: Project, model: Model, splink: dict[str, Any], thresholds: dict[str, float]) -> str:
    """Log a trained model and make it the one in use. Returns its version."""
    kept = {
        "columns": model.columns, "blocking": model.blocking, "learnt": asdict(model.learnt), "summary": model.summary,
        "thresholds": thresholds,
    }  # fmt: skip

    def log() -> str:
        import mlflow
        from mlflow.exceptions import MlflowException

        client = tracking.client(project)
        tags = {tracking.OWNER: tracking.owner(project)}
        with mlflow.start_run(experiment_id=tracking.experiment(project, MODEL), run_name=MODEL, tags=tags) as run:
            mlflow.log_params({"columns": ", ".join(model.columns), "rules": len(model.blocking), **thresholds})
            mlflow.log_metrics({k: float(v) for k, v in model.summary.items()} | {"prior": model.learnt.prior})
            mlflow.log_dict(kept, _ARTIFACT)
            mlflow.log_dict(splink, _SPLINK)
        try:
            client.create_registered_model(MODEL)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{run.info.artifact_uri}/{_ARTIFACT}"
        version = str(client.create_model_version(MODEL, source, run.info.run_id, tags=tags).version)
        client.set_registered_model_alias(MODEL, "champion", version)
        return version

    return tracking.quietly(log)


def load(project: Project, version: str | None = None) -> tuple[str, Model] | None:
    """(version, model) in use, or of a given version; None: nothing is trained yet."""
    if not tracking.exists(project):
        return None

    def fetch() -> tuple[str, str] | None:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        client = tracking.client(project)
        try:
            found = (
                client.get_model_version(MODEL, version)
                if version
                else client.get_model_version_by_alias(MODEL, "champion")
            )
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            if version:
                raise unknown("version of identity_match", version, []) from None
            return None
        if found.tags.get(tracking.OWNER, tracking.owner(project)) != tracking.owner(project):
            raise NotReady(
                MODEL, "expected a model of this project, got another's on the tracking server", "use --train"
            )
        return str(found.version), mlflow.artifacts.load_text(f"runs:/{found.run_id}/{_ARTIFACT}")

    got = tracking.quietly(fetch)
    if got is None:
        return None
    said = json.loads(got[1])
    return got[0], Model(said["columns"], said["blocking"], Learnt(**said["learnt"]), said["summary"])
