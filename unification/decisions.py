"""What did people decide about who is who? Vetoes, links said to be wrong, and decisions taken back.

A decision is a fact with a time of its own: it changes the graph from then on, and the past stays as it was known. The
table only grows; taking one back is a row too.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta

import duckdb
import pandas as pd
import pyarrow as pa

from foretell.errors import UnknownName, unknown
from foretell.project import Project
from lake.engine import table
from unification.graph import UNLINK, VETO

TABLE = "decisions"
UNDO = "undo"
SAME = "same"  # an answer that two are one person: a link from then on
MATCHES = "matches"  # the table of pairs that matching has found: links like those of facts
SCHEMA = pa.schema([
    ("decision_id", pa.string()), ("kind", pa.string()), ("a", pa.string()), ("b", pa.string()),
    ("undoes", pa.string()), ("reason", pa.string()),
    ("made_at", pa.timestamp("us", tz="UTC")), ("known_at", pa.timestamp("us", tz="UTC")),
])  # fmt: skip
_COLUMNS = ["decision_id", "kind", "a", "b", "reason", "made_at", "known_at", "known_to"]


def decisions(project: Project) -> pd.DataFrame:
    """Every decision: decision_id, kind ("veto", "unlink", "same"), a, b (nodes), reason, made_at, known_at, known_to.

    known_to: when it was taken back; NaT: it stands.
    """
    stored = table(project, TABLE)
    if not (files := stored.files()):
        empty = SCHEMA.empty_table().to_pandas()
        return empty.assign(known_to=pd.Series(dtype="datetime64[us, UTC]"))[_COLUMNS]
    return duckdb.execute(
        f"""SELECT d.decision_id, d.kind, d.a, d.b, d.reason, d.made_at, d.known_at, u.known_at AS known_to
            FROM {stored.scan(files)} d LEFT JOIN (
                SELECT undoes, min(known_at) AS known_at FROM {stored.scan(files)} WHERE kind = '{UNDO}' GROUP BY 1
            ) u ON u.undoes = d.decision_id
            WHERE d.kind <> '{UNDO}' ORDER BY d.made_at, d.decision_id"""
    ).df()[_COLUMNS]


def decide(project: Project, kind: str, a: str, b: str, reason: str = "") -> str:
    """Write down a decision about two nodes; returns its id. It counts from the project's now on."""
    if kind not in (VETO, UNLINK, SAME):
        raise unknown("kind of decision", kind, (VETO, UNLINK, SAME))
    return _append(project, kind, reason, a=a, b=b)


def take_back(project: Project, decision: str, reason: str = "") -> None:
    """Take a decision back: from now on the graph is as if it had not been made."""
    known = decisions(project)
    found = known[known["decision_id"] == decision]
    if found.empty:
        raise unknown("decision", decision, list(known["decision_id"]))
    if not pd.isna(found["known_to"].iloc[0]):
        raise UnknownName(decision, "is taken back already", "`foretell identity decisions` lists those that stand")
    _append(project, UNDO, reason, undoes=decision)


def digest(project: Project) -> str:
    """What the graph depends on beside facts and rules, in short; empty before the first decision or match."""
    files = sorted([*table(project, TABLE).files(), *table(project, MATCHES).files()])
    names = [file.rsplit("/", 1)[-1] for file in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8] if names else ""


def _append(project: Project, kind: str, reason: str, **named: str) -> str:
    clock = datetime.now(UTC)
    # where "now" is set to a past day, a decision made today must still be known at it
    row = {
        "decision_id": f"d{secrets.token_hex(4)}", "kind": kind, "a": None, "b": None, "undoes": None, **named,
        "reason": reason, "made_at": clock, "known_at": min(clock, project.now - timedelta(microseconds=1)),
    }  # fmt: skip
    table(project, TABLE).append(pa.Table.from_pylist([row], SCHEMA), why=f"identity {kind}")
    return row["decision_id"]
