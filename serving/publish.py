"""What does the service know? Who is who, everyone's page, each batch, and what scores are computed from.

One SQLite file in the home, `serving/index.db`, replaced atomically after every `foretell score` and when the service
starts. It names the cutoff, the model and the features that go together, so that the service never mixes two batches.
It holds personal data, as `derived/` does.

  task(name, facts)       facts: JSON of what is asked, and of the batch that can be answered for, or why there is none
  crowd(task, sorted)     the values of everyone eligible in that batch, sorted, as 64 bit floats
  who(key, profile_id)    a current identifier ("email:jo@example.org"), a profile id or a former one
  page(profile_id, page)  JSON: traits, identifiers, former_ids, segments, eligible (tasks), insufficient (tasks that
                          there is too little evidence for), refused (purposes that the person did not agree to)
  model, row              what scores are computed from (see packing)
  segment(name, facts)    JSON: name, rule, description, size, problem
  about(key, value)       published_at, kinds (JSON: the types of identifiers), countries (JSON: of phone numbers),
                          personal (JSON: the features that are made of traits), rows (JSON: how a row is packed)
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from foretell.errors import ForetellError, NotReady
from foretell.project import Project
from lake.engine import quote, session
from segments import attributes
from segments.audience import selections
from serving import batch, packing, profile
from serving.http.index import Index, file_of
from unification.consent import barred
from unification.identity import members_at

_TABLES = (
    """
    CREATE TABLE task (name TEXT PRIMARY KEY, facts TEXT);
    CREATE TABLE crowd (task TEXT PRIMARY KEY, sorted BLOB);
    CREATE TABLE who (key TEXT PRIMARY KEY, profile_id TEXT) WITHOUT ROWID;
    CREATE TABLE page (profile_id TEXT PRIMARY KEY, page TEXT);
    CREATE TABLE segment (name TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID;
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
    + packing.TABLES
)
_ISO = "'%Y-%m-%dT%H:%M:%S.%fZ'"


def publish(project: Project, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write the index from what is unified, trained and scored now. Readers see the old one or the new one."""
    if not (project.home / "derived" / "profiles.parquet").exists():
        raise NotReady("serve", "there are no profiles yet", "run `foretell load` and `foretell unify` first")
    progress("publishing to the service")
    file = file_of(project)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    out = sqlite3.connect(draft.resolve().as_uri(), uri=True)
    try:
        # Nobody sees the draft before it is whole, and what is cut short is written again.
        out.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")
        served = {name: last for name in project.definitions.tasks if (last := batch.last(project, name))}
        packed = packing.prepare(project, served, file)
        _write_tasks(project, out, served, packed.broken)
        with session(project) as con:
            _write_profiles(con, project, out, served)
            purposes = {task.name: task.purpose for task in project.definitions.tasks.values()}
            packing.write(con, out, packed, served, purposes, _refused(con, project))
        kinds = sorted({kind for s in project.definitions.sources.values() for kind in s.identifiers})
        countries = sorted({s.country for s in project.definitions.sources.values() if s.country})
        about = {"published_at": datetime.now(UTC).isoformat(), "kinds": json.dumps(kinds),
                 "countries": json.dumps(countries), "personal": json.dumps(_personal(project))}  # fmt: skip
        out.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        out.commit()
        out.close()
        os.replace(draft, file)
    finally:
        out.close()
        draft.unlink(missing_ok=True)
    return file


def _personal(project: Project) -> list[str]:
    """The features of views over the golden record, which say what a person has told: those of now, and those of
    earlier publications, which a champion that is still served may have learned from."""
    now = {name for view in project.definitions.views.values() if "person" in view.roles for name in view.features}
    before = frozenset()
    if file_of(project).exists():
        index = Index(project)
        before = index.personal or before
        index.close()
    return sorted(now | before)


def _write_tasks(
    project: Project, out: sqlite3.Connection, served: Mapping[str, batch.Batch], broken: Mapping[str, ForetellError]
) -> None:
    """Every declared task, and the batch that can be answered for."""
    for task in project.definitions.tasks.values():
        facts: dict[str, Any] = {
            "name": task.name, "description": task.description, "population": task.population, "purpose": task.purpose,
            "horizon_days": task.horizon.total_seconds() / 86_400, "metric": task.metric, "base": task.base,
        }  # fmt: skip
        # A batch is answered for with its own model and features, whatever was promoted or edited since.
        if task.name in broken:
            facts |= {"problem": broken[task.name].problem, "fix": broken[task.name].fix}
        elif last := served.get(task.name):
            views = project.definitions.views_of(task)
            facts["batch"] = {
                "version": last.version, "service": last.service, "cutoff": last.cutoff.isoformat(),
                "batch": last.batch, "expires_at": (last.cutoff + task.horizon).isoformat(),
                "fresh_until": (last.cutoff + min(view.ttl for view in views)).isoformat(), "empty": last.empty,
            }  # fmt: skip
            out.execute("INSERT INTO crowd VALUES (?, ?)", [task.name, last.crowd().tobytes()])
        else:
            facts["problem"] = "nobody has been scored yet"
            facts["fix"] = (
                f"run `foretell score {task.name}`, after `foretell train {task.name}` if it is not trained yet"
            )
        out.execute("INSERT INTO task VALUES (?, ?)", [task.name, json.dumps(facts)])


def _refused(con: duckdb.DuckDBPyConnection, project: Project) -> str:
    """SQL for profile_id, purpose: who did not agree to what tasks are for."""
    purposes = {task.purpose for task in project.definitions.tasks.values()}
    refusals = {purpose: barred(con, project, purpose, project.now) for purpose in sorted(purposes)}
    parts = [f"SELECT profile_id, '{quote(p)}' AS purpose FROM ({query})" for p, query in refusals.items() if query]
    return " UNION ALL ".join(parts) or "SELECT NULL::VARCHAR AS profile_id, NULL::VARCHAR AS purpose LIMIT 0"


def _write_profiles(
    con: duckdb.DuckDBPyConnection, project: Project, out: sqlite3.Connection, served: dict[str, batch.Batch]
) -> None:
    """Who is who, everyone's page, and the segments: each by one query over all profiles."""
    today = members_at(project.now)
    keys = f"SELECT node, profile_id FROM ({today}) UNION SELECT birth_id, profile_id FROM ({today}) ORDER BY 1"
    _copy(con, keys, out, "who")
    schema = attributes.create(con, project)
    con.execute("CREATE TEMP TABLE inside (profile_id VARCHAR, segment VARCHAR)")
    for segment, query in selections(con, project, schema):
        facts: dict[str, Any] = {"name": segment.name, "rule": segment.rule.text, "description": segment.description}
        if isinstance(query, ForetellError):
            facts |= {"size": None, "problem": str(query)}
        else:
            name = quote(segment.name)
            added = con.execute(f"INSERT INTO inside SELECT profile_id, '{name}' FROM ({query})").fetchall()
            facts |= {"size": int(added[0][0]), "problem": None}
        out.execute("INSERT INTO segment VALUES (?, ?)", [segment.name, json.dumps(facts)])
    batches = " UNION ALL ".join(
        f"SELECT profile_id, '{name}' AS task, value IS NOT NULL AS scored FROM read_parquet('{quote(last.file)}')"
        for name, last in served.items()
    ) or "SELECT NULL::VARCHAR AS profile_id, NULL::VARCHAR AS task, false AS scored LIMIT 0"  # fmt: skip
    parts = {
        "traits": (
            f"""{{'attribute': attribute, 'value': value, 'source': source, 'known_at': strftime(known_at, {_ISO}),
                'distinct_values': distinct_values}}""", "attribute", profile.TRAITS,
        ),
        "identifiers": (
            f"{{'identifier': identifier, 'known_since': strftime(known_since, {_ISO}), 'source': source}}",
            "known_since, identifier", profile.identifiers(project),
        ),
        "former_ids": ("former_id", "former_id", profile.former_ids(project)),
        "segments": ("segment", "segment", "SELECT * FROM inside"),
        "eligible": ("task", "task", f"SELECT profile_id, task FROM ({batches}) WHERE scored"),
        "insufficient": ("task", "task", f"SELECT profile_id, task FROM ({batches}) WHERE NOT scored"),
        "refused": ("purpose", "purpose", _refused(con, project)),
    }  # fmt: skip
    joins = "".join(
        f" LEFT JOIN (SELECT profile_id, list({value} ORDER BY {order}) AS {name} FROM ({query}) GROUP BY 1) AS {name}_"
        " USING (profile_id)"
        for name, (value, order, query) in parts.items()
    )
    listed = ", ".join(f"'{name}': coalesce({name}_.{name}, [])" for name in parts)
    _copy(con, f"SELECT profile_id, to_json({{{listed}}})::VARCHAR FROM profiles{joins} ORDER BY 1", out, "page")


def _copy(con: duckdb.DuckDBPyConnection, query: str, out: sqlite3.Connection, name: str) -> None:
    found = con.execute(query)
    while rows := found.fetchmany(50_000):
        out.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)
