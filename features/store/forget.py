"""How are a person's features forgotten? Built cutoffs are written again without them, online rows are removed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

from features.store import keys
from features.store.online import open_rows
from features.store.redis_rows import RedisRows
from features.store.sqlite_rows import SqliteRows
from foretell.project import Project
from lake import derived
from lake.erasure import Person


def forget(project: Project, person: Person) -> dict[str, int]:
    """Remove a person's rows from every built cutoff and from the online store. What -> rows.

    NotReady if Redis does not answer: then it is not done yet.
    """
    gone = {"features": derived.forget(project.home / "features", person.profile_ids)[0]}
    online = open_rows(project)
    places = [rows for rows in online if isinstance(rows, RedisRows) or rows.file.exists()]
    if places:
        gone["online store"] = sum(_forget_packed(rows, person) for rows in places)
    if (former := project.home / "feast" / "online.db").exists():  # Feast's own store, of homes that had it
        gone["former online store"] = _forget_feasts(str(former), person)
    return gone


def _forget_packed(rows: SqliteRows | RedisRows, person: Person) -> int:
    """Rows that lie under the person's ids, or of which one of several keys is such an id."""
    gone = 0
    for table in rows.tables():
        there = rows.keys(table)
        first = next(there, "")
        if keys.BETWEEN in first:
            gone += rows.delete(table, list(_theirs(chain([first], there), person)))
        else:
            gone += rows.delete(table, sorted(person.profile_ids))
    rows.settle(vacuum=True)
    return gone


def _theirs(there: Iterator[str], person: Person) -> Iterator[str]:
    wanted = {keys.one_of(profile) for profile in person.profile_ids}
    return (key for key in there if not wanted.isdisjoint(key.split(keys.BETWEEN)))


def _forget_feasts(file: str, person: Person) -> int:
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
