"""Who is held out of an audience, so that what the others earn can be measured? Drawn once, kept for ever.

A person's lot is a keyed digest of the segment's name and the person's oldest birth id, which is the profile's id: it
is the same at every export, and says nothing about the lot in another segment. Where a draw has been written down it
stands, also when the person has merged since; of two people who became one the earlier draw counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import duckdb
import pandas as pd

from foretell.errors import DataError
from foretell.project import Project
from lake.engine import instant, last_batch, quote, session, table
from segments.audience import Audience, audience, declared, export
from segments.definitions import Segment
from segments.history import digest, today

TABLE = "exposures"
TREATED, CONTROL = "treated", "control"


@dataclass(frozen=True)
class Handed:
    """An export: how many members the file has, how many are held out of it (and in which share), how many more did
    not agree to the purpose. profiles: whose rows the file has."""

    members: int
    held_out: int
    share: float
    purpose: str
    without_consent: int
    profiles: list[str] = field(default_factory=list, repr=False)


def hand_out(
    project: Project, name: str, file: Path, columns: list[str] | None = None, purpose: str | None = None
) -> Handed:  # fmt: skip
    """Write the members of a segment, or of a rule, to a CSV file, without the segment's control group.

    Of a segment with `control`, who is in the file and who is held out is written down before the file is there: a
    command that was killed is run again. Whoever calls it holds the project's writing lock.
    """
    if file.suffix.lower() != ".csv":
        raise DataError(str(file), "audiences are exported as CSV", f"name it {file.with_suffix('.csv').name}")
    found, segment = audience(project, name, columns, purpose), declared(project).get(name)
    if segment is None or not segment.control:
        everyone = found.members["profile_id"].tolist()
        return Handed(export(found, file), 0, 0.0, found.purpose, found.without_consent, everyone)
    sides = draw(project, segment, found.members["profile_id"].tolist())
    _keep(project, segment, found, sides)
    treated = found.members[found.members["profile_id"].map(sides) == TREATED].reset_index(drop=True)
    written = export(replace(found, members=treated), file)
    held_out, profiles = len(found.members) - written, treated["profile_id"].tolist()
    return Handed(written, held_out, segment.control, found.purpose, found.without_consent, profiles)


def draw(project: Project, segment: Segment, profiles: list[str]) -> dict[str, str]:
    """profile_id -> "treated" or "control", for these profiles of today; nothing is written."""
    with session(project) as con:
        con.execute("CREATE TEMP TABLE members AS SELECT unnest(?::VARCHAR[]) AS profile_id", [profiles])
        drawn = "SELECT NULL::VARCHAR AS profile_id, NULL::VARCHAR AS side WHERE false"
        if table(project, TABLE).exists:
            drawn = f"""SELECT profile_id, min_by(side, (exported_at, recorded)) AS side
                FROM ({exposures(project, segment.name)}) GROUP BY 1"""
        lot = f"{lot_sql(project.key, segment.name, 'profile_id')} < {segment.control!r}"
        return dict(
            con.execute(
                f"""SELECT profile_id, coalesce(side, CASE WHEN {lot} THEN '{CONTROL}' ELSE '{TREATED}' END)
                    FROM members LEFT JOIN ({drawn}) USING (profile_id)"""
            ).fetchall()
        )


def lot_sql(key: str, segment: str, column: str) -> str:
    """SQL for a person's lot in a segment: a number in [0, 1), of 52 bits of HMAC-SHA256(key, segment, 0, id)."""
    text = f"'{quote(segment)}' || chr(0) || {column}"
    return f"('0x' || left({hmac_sql(key, text)}, 13))::BIGINT / {2**52}::DOUBLE"


def hmac_sql(key: str, text: str) -> str:
    """SQL for HMAC-SHA256 in hexadecimal digits, of a SQL text, as hmac.digest makes it (RFC 2104)."""
    secret = key.encode()
    block = (secret if len(secret) <= 64 else sha256(secret).digest()).ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block).hex() for pad in (0x36, 0x5C))
    return f"sha256(unhex('{outer}') || unhex(sha256(unhex('{inner}') || encode({text}))))"


def exposures(project: Project, name: str) -> str:
    """SQL for what was handed out of a segment: profile_id (of today), recorded (the id then), side, exported_at,
    purpose."""
    return f"""SELECT coalesce(m.profile_id, e.profile_id) AS profile_id, e.profile_id AS recorded, side, exported_at,
        purpose FROM exposures e LEFT JOIN ({today(project)}) m ON m.former_id = e.profile_id
        WHERE segment = '{quote(name)}' AND exported_at <= {instant(project.now)}"""


def _keep(project: Project, segment: Segment, found: Audience, sides: dict[str, str]) -> None:
    """Write down who is on which side; what is there already, of an export of the same moment, is not written again."""
    stored, now = table(project, TABLE), instant(project.now)
    rows = pd.DataFrame({"profile_id": list(sides), "side": list(sides.values())}, dtype=object)
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone='UTC'")
        con.register("rows_now", rows)
        known = "SELECT NULL::VARCHAR AS profile_id WHERE false"
        if files := stored.files():
            known = f"""SELECT profile_id FROM {stored.scan(files)} WHERE segment = '{quote(segment.name)}'
                AND exported_at = {now}"""
        new = con.sql(
            f"""SELECT '{quote(segment.name)}' AS segment, profile_id::VARCHAR AS profile_id, side::VARCHAR AS side,
                {now} AS exported_at, {last_batch(project)}::BIGINT AS batch,
                '{digest(segment)}' AS rule, {segment.control!r}::DOUBLE AS share,
                '{quote(found.purpose)}' AS purpose, {instant(datetime.now(UTC))} AS written_at
                FROM rows_now ANTI JOIN ({known}) USING (profile_id) ORDER BY profile_id"""
        ).to_arrow_table()
    finally:
        con.close()
    if new.num_rows:
        stored.append(new, why="audience")
