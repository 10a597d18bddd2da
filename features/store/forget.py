"""How are a person's features forgotten? Built cutoffs are written again without them, online rows are removed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from foretell.project import Project
from lake import derived
from lake.erasure import Person


def forget(project: Project, person: Person) -> dict[str, int]:
    """Remove a person's rows from every built cutoff and from the online store. What -> rows."""
    gone = {"features": derived.forget(project.home / "features", person.profile_ids)[0]}
    if (online := project.home / "feast" / "online.db").exists():
        gone["online store"] = _forget_online(str(online), person)
    return gone


def _forget_online(file: str, person: Person) -> int:
    """Rows whose key, a serialised profile id, is the person's; then no page of the file keeps what was on it."""
    rows = 0
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as con:
        con.execute("PRAGMA secure_delete=ON")
        for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = {row[1] for row in con.execute(f'PRAGMA table_info("{name}")')}
            if "entity_key" in columns:
                for profile in person.profile_ids:
                    where = f'DELETE FROM "{name}" WHERE instr(entity_key, ?)'
                    rows += con.execute(where, [profile.encode()]).rowcount
        con.execute("VACUUM")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows
