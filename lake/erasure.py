"""Who has been erased, and how is a person removed from tables? Keyed digests stand for what must not be kept.

An erasure is written down before anything is removed: the ids of the profile, and of each of its identifiers an HMAC
with the home's key (its tombstone). Whatever still belongs to the person is found by these alone, so an erasure that
was cut short is finished by running it again, and facts of the past that come in later are recognised. Nobody can tell
from a tombstone who it was, but by guessing with the key at hand.
"""

from __future__ import annotations

import getpass
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import duckdb
import pyarrow as pa

from foretell.project import Project
from lake.catalogue import held, tables
from lake.engine import connect, table

TABLE = "erasures"
_STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([
    ("erasure_id", pa.string()), ("state", pa.string()), ("profile_id", pa.string()),
    ("profile_ids", pa.list_(pa.string())), ("digests", pa.list_(pa.string())), ("blocks_before", _STAMP),
    ("written_at", _STAMP), ("by", pa.string()), ("receipt", pa.string()),
])  # fmt: skip
BEGUN, DONE = "begun", "done"


def digest(key: str, node: str) -> str:
    """The tombstone of an identifier in normal form, "type:value"."""
    return hmac.digest(key.encode(), node.encode(), "sha256").hex()


@dataclass(frozen=True)
class Person:
    """Whoever is being erased. profile_id: the id at the time; profile_ids: with all former ones, by which rows may be
    theirs. digests: tombstones of the identifiers. before: facts dated before it are theirs."""

    erasure_id: str
    profile_id: str
    profile_ids: frozenset[str]
    digests: frozenset[str]
    before: datetime
    key: str

    def owns(self, node: str) -> bool:
        return digest(self.key, node) in self.digests

    def nodes_among(self, nodes: Iterable[str | None]) -> list[str]:
        """Those identifiers that are the person's, once each."""
        return [node for node in dict.fromkeys(nodes) if node is not None and self.owns(node)]


def begin(project: Project, profile: str, profile_ids: Iterable[str], nodes: Iterable[str], before: datetime) -> Person:
    """Write down that a person is being erased: from here on it will be finished, whatever happens."""
    person = Person(
        f"e{secrets.token_hex(4)}", profile, frozenset(profile_ids),
        frozenset(digest(project.key, node) for node in nodes), before, project.key,
    )  # fmt: skip
    _append(project, person, BEGUN, None)
    return person


def finish(project: Project, person: Person, receipt: dict[str, Any]) -> None:
    _append(project, person, DONE, json.dumps(receipt))


def _append(project: Project, person: Person, state: str, receipt: str | None) -> None:
    begun = state == BEGUN
    row = {
        "erasure_id": person.erasure_id, "state": state, "profile_id": person.profile_id,
        "profile_ids": sorted(person.profile_ids) if begun else None,
        "digests": sorted(person.digests) if begun else None, "blocks_before": person.before if begun else None,
        "written_at": datetime.now(UTC), "by": getpass.getuser(), "receipt": receipt,
    }  # fmt: skip
    table(project, TABLE).append(pa.Table.from_pylist([row], SCHEMA), why=f"erase: {state}")


def unfinished(project: Project) -> list[Person]:
    """Erasures that were begun and cut short, the oldest first."""
    rows = _rows(project, "state, erasure_id, profile_id, profile_ids, digests, blocks_before", "ORDER BY written_at")
    done = {row[1] for row in rows if row[0] == DONE}
    return [
        Person(erasure, profile, frozenset(ids), frozenset(digests), before.astimezone(UTC), project.key)
        for state, erasure, profile, ids, digests, before in rows
        if state == BEGUN and erasure not in done
    ]


def receipts(project: Project) -> list[dict[str, Any]]:
    """The receipts of all erasures, the oldest first."""
    return [json.loads(text) for (text,) in _rows(project, "receipt", f"WHERE state = '{DONE}' ORDER BY written_at")]


def tombstones(project: Project) -> dict[str, tuple[datetime, int]]:
    """Digest -> (facts dated before this instant stay out, how often the identifier was erased)."""
    query = f"WHERE state = '{BEGUN}' GROUP BY 1"
    found = _rows(project, "digest, max(blocks_before), count(*)", query, ", unnest(digests) AS u(digest)")
    return {d: (before.astimezone(UTC), int(times)) for d, before, times in found}


def rebirths(project: Project, nodes: Iterable[str]) -> dict[str, str]:
    """Birth ids of identifiers that were erased and came back: whoever returns is a new profile, with a new id.

    node -> birth id; identifiers that were never erased are left out, and keep the birth id they always had.
    """
    known = tombstones(project)
    if not known:
        return {}
    again = {node: known[d][1] for node in nodes if (d := digest(project.key, node)) in known}
    return {n: "p" + sha256(f"{project.key}{n}#{times}".encode()).hexdigest()[:20] for n, times in again.items()}


def _rows(project: Project, columns: str, rest: str, more: str = "") -> list[tuple]:
    stored = table(project, TABLE)
    if not (files := stored.files()):
        return []
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone='UTC'")
        return con.execute(f"SELECT {columns} FROM {stored.scan(files)}{more} {rest}").fetchall()
    finally:
        con.close()


def forget(project: Project, person: Person) -> dict[str, int]:
    """Remove the person from every table whose rows belong to one by identifier or profile id. Table -> rows.

    Facts and quarantine are left to ingestion, which knows what their text may hold.
    """
    gone: dict[str, int] = {}
    for name in tables(project):
        keys = held(name)
        if keys is None or keys.text or not (keys.node or keys.profile):
            continue
        con = connect(project)
        try:
            gone[name] = _forget_rows(con, project, name, person)
        finally:
            con.close()
        table(project, name).vacuum()
    return gone


def _forget_rows(con: duckdb.DuckDBPyConnection, project: Project, name: str, person: Person) -> int:
    keys, stored = held(name), table(project, name)
    assert keys is not None
    if not (files := stored.files()):
        return 0
    parts = []
    for column in keys.node:
        values = [v for (v,) in con.execute(f"SELECT DISTINCT {column} FROM {stored.scan(files)}").fetchall()]
        mine(con, f"nodes_{column}", person.nodes_among(values))
        parts.append(f"{column} IN (SELECT value FROM nodes_{column})")
    mine(con, "profiles_gone", person.profile_ids)
    parts += [f"{column} IN (SELECT value FROM profiles_gone)" for column in keys.profile]
    gone = " OR ".join(parts)
    if keys.follows:
        column, key = keys.follows
        con.execute(f"CREATE TEMP TABLE heads AS SELECT {key} AS value FROM {stored.scan(files)} WHERE {gone}")
        gone += f" OR {column} IN (SELECT value FROM heads)"
    return stored.rewrite(con, f"coalesce({gone}, false)", why="erase")


def mine(con: duckdb.DuckDBPyConnection, name: str, values: Iterable[str]) -> None:
    """Make a temporary table of one column, `value`."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT unnest(?::VARCHAR[]) AS value", [list(values)])
