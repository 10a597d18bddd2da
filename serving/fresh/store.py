"""How do fresh rows reach the service? Written into `serving/fresh.db`, all of a turn at once (see serving.http.fresh).

The file can be made again from facts and log, so that no write waits for the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from foretell.project import Project
from serving.http.fresh import fresh_file, instant_of, micros

_TABLES = """
    CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS row (profile_id TEXT PRIMARY KEY, at INTEGER, packed BLOB) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS who (key TEXT PRIMARY KEY, profile_id TEXT) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS changed (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
"""
_KEEP = 100_000  # of what changed


class Store:
    """The one writer of the file."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self._con = sqlite3.connect(file, timeout=30, isolation_level=None)
        # erased people must not stay on freed pages
        self._con.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA secure_delete=ON;" + _TABLES)
        self.inode = file.stat().st_ino

    def close(self) -> None:
        self._con.close()

    @property
    def replaced(self) -> bool:
        """Whether the file is not there any more: an erasure has removed it."""
        return not self.file.exists() or self.file.stat().st_ino != self.inode

    @property
    def of(self) -> str:
        """Which publication the rows go with."""
        return self._about().get("of", "")

    @property
    def at(self) -> datetime | None:
        """The T of the last turn."""
        found = self._about().get("at")
        return instant_of(int(found)) if found else None

    def _about(self) -> dict[str, str]:
        return dict(self._con.execute("SELECT key, value FROM about").fetchall())

    def begin(self, of: str) -> None:
        """Begin anew, with another publication."""
        self._con.executescript(
            """BEGIN; INSERT INTO changed (name) SELECT profile_id FROM row; DELETE FROM row; DELETE FROM who;"""
        )
        self._con.execute("INSERT OR REPLACE INTO about VALUES ('of', ?)", [of])
        self._con.execute("COMMIT")

    def write(
        self,
        rows: Mapping[str, bytes],
        gone: Iterable[str],
        who: Mapping[str, str],
        at: datetime,
        of: str | None = None,
    ) -> None:
        """Write a turn: rows as of T, profiles that have none any more, keys that mean another profile. An older row
        never takes the place of a newer one. of: from now on they go with this publication."""
        gone, moment = list(gone), micros(at)
        con = self._con
        con.execute("BEGIN")
        con.executemany(
            """INSERT INTO row VALUES (?, ?, ?) ON CONFLICT (profile_id) DO UPDATE
                SET at = excluded.at, packed = excluded.packed WHERE excluded.at >= at""",
            [(profile, moment, packed) for profile, packed in rows.items()],
        )
        con.executemany("DELETE FROM row WHERE profile_id = ?", [(profile,) for profile in gone])
        con.executemany("INSERT OR REPLACE INTO who VALUES (?, ?)", who.items())
        names = {*rows, *gone, *who.values()}
        con.executemany("INSERT INTO changed (name) VALUES (?)", [(name,) for name in names])
        con.execute("DELETE FROM changed WHERE seq <= (SELECT max(seq) FROM changed) - ?", [_KEEP])
        about = {"at": str(moment)} | ({"of": of} if of else {})
        con.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())
        con.execute("COMMIT")


def forget(project: Project) -> None:
    """Remove the file, for ever: whoever writes it makes it again from what is left of facts and log."""
    file = fresh_file(project)
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        file.with_name(name).unlink(missing_ok=True)
