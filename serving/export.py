"""What is held about one person? All of it, as one JSON document that a machine can read.

format            "foretell-export/1"
exported_at       UTC
profile           profile_id, former_ids, traits (golden record, each with its source), identifiers, segments
links             pairs of identifiers, with the source and fact that linked them first, and how many say so
facts             source -> rows: stamps, identifiers, and `row`, the row as it came
quarantine        rows that could not be understood and mention an identifier of the person, as they came
consents          each time something was said: purpose, granted, when, by which source (now: profile.consents)
scores            every score, with its contract and the very row that was scored
outcomes          what became of each score whose time has come: the label that it was graded by
memberships       when the person entered and left which segment (now: profile.segments)
exposures         which audiences the person was handed out in, or held out of
decisions         what was decided by hand about these identifiers
reads             who read the person's data, and when
models            which models learned from the person's rows, and from how many
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from foretell.errors import DataError
from foretell.project import Project
from ingestion.erased import Mentions, kinds_of
from lake import audit, catalogue
from lake.engine import session, table
from lake.erasure import digest, mine
from serving.access.trail import take_in
from serving.profile import page
from training.lineage import learned_from
from unification.consent import history
from unification.decisions import decisions
from unification.forget import known

FORMAT = "foretell-export/1"
_STAMPS = ("fact_id", "batch", "event_at", "received_at", "known_at")


def collect(project: Project, who: str) -> dict[str, Any]:
    """Everything about the person that an id or identifier means. Raises UnknownName."""
    person = known(project, who)
    shown = page(project, person.profile)
    shown.pop("scores")
    finder = Mentions(project.key, kinds_of(project), [digest(project.key, node) for node in person.nodes])
    with session(project) as con:
        mine(con, "theirs", [*person.nodes, *person.shared])
        mine(con, "ids", person.profile_ids)
        facts = {}
        for name in catalogue.tables(project):
            if name.startswith("facts/") and (rows := _facts(con, project, name)):
                facts[name.removeprefix("facts/")] = rows
        links = _rows(con, "SELECT * FROM edges WHERE a IN (SELECT value FROM theirs) ORDER BY known_at, a, b")
        bad = []
        if table(project, "quarantine").exists:
            bad = [row for row in _rows(con, "SELECT * FROM quarantine") if finder.find(row["raw"])]
        said = history(con, project, person.profile)
        orders = {
            "scores": "cutoff, task, score_id",
            "outcomes": "cutoff, task, score_id",
            "memberships": "refresh, segment",
            "exposures": "exported_at, segment",
        }
        theirs = {name: _of_profile(con, project, name, order) for name, order in orders.items()}
    decided = decisions(project)
    take_in(project)
    reads = audit.rows(project, profiles=person.profile_ids)
    about = decided["a"].isin(person.nodes) | decided["b"].isin(person.nodes)
    return {
        "format": FORMAT, "exported_at": datetime.now(UTC), "profile": shown, "links": links, "facts": facts,
        "quarantine": bad, "consents": said, **theirs, "decisions": decided[about].to_dict("records"),
        "models": learned_from(project, person.profile_ids),
        "reads": [{name: row[name] for name in ("read_at", "who", "route", "scopes")} for row in reads],
    }  # fmt: skip


def _facts(con: duckdb.DuckDBPyConnection, project: Project, name: str) -> list[dict[str, Any]]:
    scan = table(project, name).scan()
    query = f"SELECT * FROM {scan} WHERE node IN (SELECT value FROM theirs) ORDER BY event_at, fact_id"
    made = []
    for row in _rows(con, query):
        ids = {key.removeprefix("id_"): value for key, value in row.items() if key.startswith("id_") and value}
        made.append({**{key: row[key] for key in _STAMPS}, "identifiers": ids, "row": json.loads(row["payload"])})
    return made


def _of_profile(con: duckdb.DuckDBPyConnection, project: Project, name: str, order: str) -> list[dict[str, Any]]:
    """The rows of a table that are of the person's `ids`, new and old."""
    if not table(project, name).exists:
        return []
    return _rows(con, f"SELECT * FROM {name} WHERE profile_id IN (SELECT value FROM ids) ORDER BY {order}")


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found = con.execute(query)
    names = [d[0] for d in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def write(found: dict[str, Any], file: Path) -> None:
    """Write an export, atomically; refuses a file that is there already."""
    if file.exists():
        raise DataError(str(file), "is there already", "name another file: nothing is overwritten")
    if file.suffix.lower() != ".json":
        raise DataError(str(file), "an export is JSON", f"name it {file.with_suffix('.json').name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.chmod(0o600)
    os.replace(draft, file)


def _plain(value: Any) -> Any:
    """As JSON has it: instants in ISO form, UTC; what is not a number is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value == value else None  # NaT is not itself
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
