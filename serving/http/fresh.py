"""What is known of a few profiles since the publication? Rows that the stream's worker writes, as events come in.

One SQLite file in the home, `serving/fresh.db`, which `foretell stream` writes and every worker of the service reads:

  row(profile_id, at, packed)  what scores are computed from (see serving/packing.py), as of T, in microseconds
  who(key, profile_id)         identifiers and ids that mean another profile than when it was published
  changed(seq, name)           profiles whose row or meaning changed, in order
  about(key, value)            `of`: which publication these rows go with: those of another say nothing

A state of KEPT in a row says that the task is answered from the publication: what it asks cannot be known afresh.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foretell.project import Project

KEPT = 64
MOST = 900  # parameters of one query
_START = datetime(1970, 1, 1, tzinfo=UTC)
_OURS = "EXISTS (SELECT 1 FROM about WHERE key = 'of' AND value = ?)"


def fresh_file(project: Project) -> Path:
    return project.home / "serving" / "fresh.db"


def instant_of(at: int) -> datetime:
    return _START + timedelta(microseconds=at)


def micros(at: datetime) -> int:
    return (at - _START) // timedelta(microseconds=1)


class Fresh:
    """The rows that go with a publication. of: its stamp. For a few threads at a time."""

    def __init__(self, file: Path, of: str, at_once: int = 4):
        self.file, self.of = file, of
        self.inode = os.stat(file).st_ino
        self._free = deque(self._open() for _ in range(at_once))
        self._watching = self._open()
        self._version = self._data_version()
        self._seen = self._last()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=5)

    def close(self) -> None:
        self._watching.close()
        while self._free:
            self._free.pop().close()

    def rows(self, profiles: Sequence[str]) -> dict[str, tuple[bytes, datetime]]:
        """profile -> (its packed row, T), of those that there is one of."""
        return {
            profile: (packed, instant_of(at))
            for profile, at, packed in self._pick(
                "SELECT profile_id, at, packed FROM row WHERE profile_id IN", profiles
            )
        }

    def meaning(self, keys: Sequence[str]) -> dict[str, str]:
        """key -> the profile that it means now, of those that mean another one than when it was published."""
        return dict(self._pick("SELECT key, profile_id FROM who WHERE key IN", keys))

    def changes(self) -> set[str] | None:
        """The profiles that changed since this was asked before; None: nobody knows any more. For one thread."""
        if (version := self._data_version()) == self._version:
            return set()
        self._version = version
        found = self._watching.execute("SELECT seq, name FROM changed WHERE seq >= ?", [self._seen]).fetchall()
        if self._seen and (not found or found[0][0] != self._seen):  # what was seen last is gone: others are too
            self._seen = self._last()
            return None
        names = {name for seq, name in found if seq > self._seen}
        self._seen = max((seq for seq, _ in found), default=self._seen)
        return names

    def _data_version(self) -> int:
        return self._watching.execute("PRAGMA data_version").fetchone()[0]

    def _last(self) -> int:
        return self._watching.execute("SELECT coalesce(max(seq), 0) FROM changed").fetchone()[0]

    def _pick(self, query: str, keys: Sequence[str]) -> list[tuple]:
        found: list[tuple] = []
        con = self._free.pop()
        try:
            for start in range(0, len(keys), MOST):
                some = keys[start : start + MOST]
                found += con.execute(f"{query} ({', '.join('?' * len(some))}) AND {_OURS}", [*some, self.of]).fetchall()
        finally:
            self._free.append(con)
        return found
