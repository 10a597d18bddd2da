"""How are packed rows kept in SQLite? A table for each view: the key, and the value in one piece.

Many may read while one writes (WAL); a writer waits for another. A transaction that was cut short is none. What is
deleted is overwritten on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foretell.errors import DataError

AT_ONCE = 500  # keys in one query


class SqliteRows:
    """The rows of a file, which is made when something is written first. For several threads and processes."""

    def __init__(self, file: Path):
        self.file = file
        self._local = threading.local()
        self._inherited: list[sqlite3.Connection] = []

    def write(self, table: str, keys: Sequence[str], values: Sequence[bytes], life: int | None = None) -> None:
        """Keep these rows, all or none, but for those of which there is a later one of the same schema.

        life: how many seconds a row is of use; this file keeps it longer.
        """
        if not keys:
            return
        statement = f"""INSERT INTO {_quoted(table)} (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE
            SET value = excluded.value WHERE substr(excluded.value, 1, 8) <> substr(value, 1, 8)
            OR substr(excluded.value, 9, 16) >= substr(value, 9, 16)"""
        with self._told("writing"):
            con = self._connected()
            con.execute("BEGIN IMMEDIATE")
            try:
                con.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(table)} {_COLUMNS}")
                con.executemany(statement, zip(keys, values, strict=True))
                con.execute("COMMIT")
            except BaseException:
                if con.in_transaction:
                    con.execute("ROLLBACK")
                raise

    def read(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values of these keys, None where there is none."""
        try:
            return self._read(_quoted(table), keys)
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return [None] * len(keys)
            raise self._error("reading", error) from error

    def _read(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        con = self._connected()
        if len(keys) == 1:
            row = con.execute(f"SELECT value FROM {table} WHERE key = ?", keys).fetchone()
            return [row[0] if row else None]
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(con.execute(f"SELECT key, value FROM {table} WHERE key IN ({marks})", some).fetchall())
        return [found.get(key) for key in keys]

    def read_views(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """The values of keys of several views."""
        return [self.read(table, keys) for table, keys in asked]

    async def read_views_async(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """The same at once: it takes microseconds, less than handing it to a thread would."""
        return self.read_views(asked)

    def keys(self, table: str) -> Iterator[str]:
        """The keys there are."""
        with self._told("reading"):
            if table not in self.tables():
                return
            rows, sign = [""], ">="
            while rows:
                query = f"SELECT key FROM {_quoted(table)} WHERE key {sign} ? ORDER BY key LIMIT {AT_ONCE}"
                rows = [key for (key,) in self._connected().execute(query, [rows[-1]]).fetchall()]
                yield from rows
                sign = ">"

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """Remove the rows of these keys. Returns how many there were."""
        if table not in self.tables():
            return 0
        with self._told("deleting"):
            con, rows = self._connected(), 0
            con.execute("BEGIN IMMEDIATE")
            for key in keys:
                rows += con.execute(f"DELETE FROM {_quoted(table)} WHERE key = ?", [key]).rowcount
            con.execute("COMMIT")
        return rows

    def drop(self, table: str) -> None:
        """Remove all rows of a view."""
        if self.file.exists():
            with self._told("deleting"):
                self._connected().execute(f"DROP TABLE IF EXISTS {_quoted(table)}")

    def settle(self, vacuum: bool = False) -> None:
        """Take the write-ahead log into the file, as far as nobody reads it. vacuum: write the file anew, without what
        was deleted."""
        if self.file.exists():
            with self._told("writing"):
                if vacuum:
                    self._connected().execute("VACUUM")
                self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def tables(self) -> list[str]:
        """The views that have, or had, rows."""
        if not self.file.exists():
            return []
        with self._told("reading"):
            found = self._connected().execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return sorted(name for (name,) in found)

    def close(self) -> None:
        """Close this thread's connection."""
        if con := getattr(self._local, "con", None):
            con.close()
            self._local.con = None

    def _connected(self) -> sqlite3.Connection:
        con: sqlite3.Connection | None = getattr(self._local, "con", None)
        if con is not None and self._local.process == os.getpid():
            return con
        if con is not None:  # of a forked parent: SQLite lets it neither be used nor closed
            self._inherited.append(con)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        con = sqlite3.connect(self.file, timeout=60, isolation_level=None, cached_statements=1_000)
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=NORMAL")  # a crash of the machine may lose the last rows, not the file
        con.execute("PRAGMA secure_delete=ON")
        self._local.con, self._local.process = con, os.getpid()
        return con

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(doing, error) from error

    def _error(self, doing: str, error: sqlite3.Error) -> DataError:
        fix = "see that the disk has room and the file may be written, and run it again"
        return DataError("online store", f"{doing} failed: {error}", fix, where=str(self.file))


_COLUMNS = "(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
