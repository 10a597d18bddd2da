"""How does the loader read what was collected? Sealed segments of a stream, without the messages that are none."""

from __future__ import annotations

from pathlib import Path

import duckdb

from foretell.errors import DataError, did_you_mean
from foretell.project import Project
from ingestion.collector.log import folder_of, sealed
from ingestion.collector.messages import INVALID
from ingestion.files import Raw
from lake.engine import quote


def segments_of(project: Project, stream: str) -> list[Path]:
    """The sealed segments of a stream. One that nothing was ever sent to is an error."""
    folder = folder_of(project.home) / stream
    if not folder.is_dir():
        known = [f.name for f in folder.parent.glob("*") if f.is_dir()]
        raise DataError(f"stream {stream}", "nothing has been collected", did_you_mean(stream, known))
    return sealed(folder)


def set_aside(con: duckdb.DuckDBPyConnection, raw: Raw, *, report: bool) -> None:
    """Move the lines of messages that could not be understood from the rows of `raw` to its unreadable ones.

    Every contract of a stream meets them; one reports them.
    """
    marked = f"starts_with(_payload, '{quote(INVALID)}')"
    bad = con.execute(
        f"""SELECT _row, json_extract_string(_payload, '$.invalid'), json_extract(_payload, '$.message')::VARCHAR
            FROM raw WHERE {marked} ORDER BY _row"""
    ).fetchall()
    if bad:
        con.execute(f"DELETE FROM raw WHERE {marked}")
    found = [(raw.line_of(int(row)), text, reason) for row, reason, text in bad]
    raw.unreadable = sorted([*raw.unreadable, *found]) if report else []
