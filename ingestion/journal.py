"""What happened at the last loads and runs? A small SQLite file in the home, for `foretell status` and for back-off.

It holds no data of a source: names, times, counts, and the words of errors.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import Loaded

FILE = "journal.db"
_KEEP = 10_000  # runs
_TABLES = (
    """CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, process INTEGER, steps TEXT, started_at TEXT,
       ended_at TEXT, added INTEGER, error TEXT, next_at TEXT)""",
    """CREATE TABLE IF NOT EXISTS sources (source TEXT PRIMARY KEY, tried_at TEXT, loaded_at TEXT, added INTEGER,
       error TEXT, failures INTEGER, changes TEXT, changed_at TEXT)""",
)


@dataclass(frozen=True)
class Outcome:
    """How a source fared: when it was last tried and last loaded without an error, failures in a row, last changes."""

    source: str
    tried_at: datetime
    loaded_at: datetime | None
    added: int
    error: str | None
    failures: int
    changes: str | None
    changed_at: datetime | None


@dataclass(frozen=True)
class Run:
    """One run. ended_at None: it is under way, or its process is gone. next_at: when its process runs again."""

    steps: str
    started_at: datetime
    ended_at: datetime | None
    added: int
    error: str | None
    next_at: datetime | None
    alive: bool


@dataclass
class _Tally:
    added: int = 0
    errors: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def kept(project: Project, source: str, results: Iterable[Loaded | ForetellError]) -> Iterator[Loaded | ForetellError]:
    """The results of loading a source, as they come; in the end they are in the journal."""
    tally = _Tally()
    for result in results:
        if isinstance(result, ForetellError):
            tally.errors.append(str(result))
        else:
            tally.added += result.added
            tally.changes += result.changes
        yield result
    _note(project, source, tally)


def _note(project: Project, source: str, tally: _Tally) -> None:
    now, error = _now(), tally.errors[0] if tally.errors else None
    more = f" (and {len(tally.errors) - 1} more)" if len(tally.errors) > 1 else ""
    changes = "; ".join(dict.fromkeys(tally.changes)) or None
    with _open(project) as con:
        con.execute(
            """INSERT INTO sources VALUES (:source, :now, iif(:error IS NULL, :now, NULL), :added, :error,
                   iif(:error IS NULL, 0, 1), :changes, iif(:changes IS NULL, NULL, :now))
               ON CONFLICT (source) DO UPDATE SET tried_at = :now, added = :added, error = :error,
                   loaded_at = coalesce(excluded.loaded_at, loaded_at),
                   failures = iif(:error IS NULL, 0, failures + 1),
                   changes = coalesce(:changes, changes), changed_at = coalesce(excluded.changed_at, changed_at)""",
            {"source": source, "now": now, "added": tally.added, "error": error and error + more, "changes": changes},
        )


def sources(project: Project) -> dict[str, Outcome]:
    """How each source fared the last time."""
    if not (project.home / FILE).exists():
        return {}
    with _open(project) as con:
        rows = con.execute("SELECT * FROM sources").fetchall()
    return {
        source: Outcome(source, _at(tried), _maybe(loaded), added, error, failures, changes, _maybe(changed))
        for source, tried, loaded, added, error, failures, changes, changed in rows
    }


def begin(project: Project, steps: Iterable[str]) -> int:
    """Note that a run begins. Returns its number."""
    with _open(project) as con:
        con.execute(f"DELETE FROM runs WHERE id <= (SELECT max(id) - {_KEEP} FROM runs)")
        cursor = con.execute(
            "INSERT INTO runs (process, steps, started_at) VALUES (?, ?, ?)", [os.getpid(), ", ".join(steps), _now()]
        )
        return int(cursor.lastrowid or 0)


def end(project: Project, run: int, added: int, error: str | None) -> None:
    with _open(project) as con:
        con.execute("UPDATE runs SET ended_at = ?, added = ?, error = ? WHERE id = ?", [_now(), added, error, run])


def plan_next(project: Project, run: int, at: datetime | None) -> None:
    """Note when the process of a run runs again; None: never."""
    with _open(project) as con:
        con.execute("UPDATE runs SET next_at = ? WHERE id = ?", [at and at.isoformat(timespec="seconds"), run])


def runs(project: Project, most: int = 10) -> list[Run]:
    """The last runs, the latest first."""
    if not (project.home / FILE).exists():
        return []
    with _open(project) as con:
        rows = con.execute(
            "SELECT steps, started_at, ended_at, added, error, next_at, process FROM runs ORDER BY id DESC LIMIT ?",
            [most],
        ).fetchall()
    return [
        Run(steps, _at(start), _maybe(stop), added or 0, error, _maybe(then), _alive(process))
        for steps, start, stop, added, error, then, process in rows
    ]


def _open(project: Project):
    project.home.mkdir(parents=True, exist_ok=True)
    con = sqlite3.connect(project.home / FILE, timeout=30, isolation_level=None)
    for table in _TABLES:
        con.execute(table)
    return closing(con)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _maybe(text: str | None) -> datetime | None:
    return _at(text) if text else None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
