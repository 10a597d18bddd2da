"""Who said yes or no to what, and when? Consent per purpose, as facts in time, from sources and by hand.

A source whose contract has `consents` brings one in each row that says something; by hand, or by another program, they
are written here. All of them are the view `consents` of a session: node, purpose, granted, event_at, known_at,
received_at, source, fact_id. What that means for a profile at T is decided in one place, unification/consent.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from foretell.project import Project
from lake.catalogue import CONSENT
from lake.place import table

TABLE = "consents"
BY_HAND = "by hand"
_STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([
    ("consent_id", pa.string()), ("node", pa.string()), ("purpose", pa.string()), ("granted", pa.bool_()),
    ("event_at", _STAMP), ("known_at", _STAMP), ("written_at", _STAMP), ("reason", pa.string()),
])  # fmt: skip
NOTHING = """SELECT NULL::VARCHAR AS node, NULL::VARCHAR AS purpose, NULL::BOOLEAN AS granted,
    NULL::TIMESTAMPTZ AS event_at, NULL::TIMESTAMPTZ AS known_at, NULL::TIMESTAMPTZ AS received_at,
    NULL::VARCHAR AS source, NULL::VARCHAR AS fact_id WHERE false"""


def say(
    project: Project, node: str, purpose: str, granted: bool, *, reason: str = "", at: datetime | None = None
) -> str:  # fmt: skip
    """Write down that the person of an identifier ("email:jo@home.org") gave or withdrew consent. Returns its id.

    at: when they did, if not now. It is known from now on.
    """
    clock = datetime.now(UTC)
    # where "now" is set to a past day, what is said today must still be known at it
    known = min(clock, project.now - timedelta(microseconds=1))
    row = {
        "consent_id": f"c{secrets.token_hex(6)}", "node": node, "purpose": purpose, "granted": granted,
        "event_at": min(at or known, known), "known_at": known, "written_at": clock, "reason": reason,
    }  # fmt: skip
    stored = table(project, TABLE)
    stored.append(pa.Table.from_pylist([row], SCHEMA), why="consent")
    return str(row["consent_id"])


def create_view(con: duckdb.DuckDBPyConnection, project: Project, sources: Iterable[str]) -> None:
    """Make the view `consents` in a session that has a view of each of these sources."""
    view_of(con, project, sources, by_hand(project))


def view_of(con: duckdb.DuckDBPyConnection, project: Project, sources: Iterable[str], *more: str) -> None:
    """The same, with what else says so (SQL) in place of what was written by hand."""
    parts = [NOTHING]
    for name in sources:
        has = {column for column, *_ in con.execute(f'DESCRIBE "{name}"').fetchall()}
        parts += [
            f"""SELECT node, '{purpose}' AS purpose, "{CONSENT}{purpose}" AS granted, event_at, known_at, received_at,
                '{name}' AS source, fact_id FROM "{name}" WHERE "{CONSENT}{purpose}" IS NOT NULL"""
            for purpose in project.definitions.sources[name].consents
            if f"{CONSENT}{purpose}" in has
        ]
    con.execute(f"CREATE OR REPLACE VIEW consents AS {' UNION ALL '.join([*parts, *more])}")


def by_hand(project: Project) -> str:
    """SQL for what was written by hand, as the view `consents` has it."""
    stored = table(project, TABLE)
    if not (files := stored.files()):
        return NOTHING
    return f"""SELECT node, purpose, granted, event_at, known_at, written_at AS received_at, '{BY_HAND}' AS source,
        consent_id AS fact_id FROM {stored.scan(files)}"""


def purposes(project: Project, con: duckdb.DuckDBPyConnection) -> Mapping[str, str]:
    """Purpose -> "opt-in" (nobody without a grant) or "opt-out" (everybody but who withdrew).

    As the setting `purposes` declares; else opt-in where a source's contract brings consents for it, and opt-out where
    consents were only given or withdrawn by hand. A purpose of which nothing is known is not in it: it is open to all.
    """
    said = con.execute("SELECT DISTINCT purpose FROM consents WHERE purpose IS NOT NULL ORDER BY 1").fetchall()
    found = dict.fromkeys((purpose for (purpose,) in said), "opt-out")
    for source in project.definitions.sources.values():
        found |= dict.fromkeys(source.consents, "opt-in")
    return found | dict(project.setting("purposes"))
