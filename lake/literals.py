"""How are values written in SQL?"""

from __future__ import annotations

from datetime import UTC, datetime


def quote(text: object) -> str:
    """Text for use between single quotes in SQL."""
    return str(text).replace("'", "''")


def instant(at: datetime) -> str:
    """A UTC instant as a SQL literal."""
    return f"TIMESTAMPTZ '{at.astimezone(UTC).isoformat(timespec='microseconds')}'"
