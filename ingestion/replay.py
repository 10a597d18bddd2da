"""How do rows leave the quarantine? They are read again, as they came or as they were mended, by today's contract.

A replay is an ingest batch of its own, one for each file of origin; its ledger row is written last. So a replay that is
killed at any point leaves rows either in quarantine or among the facts, and is finished by running it again.

Time: `received_at` stays the time at which the row first came. Of a live source (`delay=None`), and of records without
a time of their own, the fact is known since the replay: nobody could have used it before. Of a source with a declared
delay it is known that long after it happened, as if it had been good when it came: the declaration says so of history.
The fact has the id that it would have had then, so that loading the file again finds it known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from foretell.declarations import Source
from foretell.errors import DataError, ForetellError, UnknownName
from foretell.project import Project
from ingestion import ledger, quarantine
from ingestion.erased import leave_out
from ingestion.files import Raw
from ingestion.load import append_facts, compiled, roll_back, stamp
from ingestion.quarantine import Chosen
from lake.engine import connect, in_quarantine, last_batch, quote, source_table


@dataclass
class Replayed:
    """What came of the rows of one file: new facts, facts known already, rows that are no facts of the source by now
    (`only`), rows that are still bad, with samples of why."""

    source: str
    file: str
    added: int = 0
    known: int = 0
    left_out: int = 0
    still: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many rows have left the quarantine."""
        return self.added + self.known + self.left_out


def replay(project: Project, chosen: Chosen, mended: Path | None = None) -> Iterator[Replayed | ForetellError]:
    """Read rows in quarantine again. A file of origin whose rows cannot be read yields its error; the others go on.

    mended: a file of `foretell quarantine list --to`, edited: these rows, as they are there, instead of as they came.
    """
    roll_back(project)
    edited = _mended(project, mended) if mended else {}
    if mended:
        chosen = Chosen(chosen.source, chosen.reason, chosen.file, tuple(edited), chosen.since)
    con = connect(project)
    try:
        if not (kept := in_quarantine(project, last_batch(project))):
            return
        con.execute(f"CREATE TEMP TABLE asked AS SELECT * FROM ({kept}) WHERE {chosen.condition()}")
        texts = pa.table(
            {"quarantine_id": pa.array(edited, pa.string()), "text": pa.array(edited.values(), pa.string())}
        )
        con.register("edits", texts)
        con.execute("CREATE TEMP TABLE edited AS SELECT * FROM edits")
        con.unregister("edits")
        parts = con.execute("SELECT DISTINCT source, file, columns FROM asked ORDER BY ALL").fetchall()
        for name, file, columns in parts:
            try:
                source = project.definitions.source(name)
                yield _replay_file(con, project, source, file, columns)
            except ForetellError as error:
                yield error
    finally:
        con.close()


def _replay_file(
    con: duckdb.DuckDBPyConnection, project: Project, source: Source, file: str, columns: str | None
) -> Replayed:
    """Read the rows of the table `asked` that came with one file, as one ingest batch."""
    started, batch = datetime.now(UTC), last_batch(project) + 1
    same = "columns IS NULL" if columns is None else f"columns = '{quote(columns)}'"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE part AS SELECT row_number() OVER (ORDER BY line, quarantine_id) AS _row, a.*,
            text FROM asked a LEFT JOIN edited USING (quarantine_id)
            WHERE source = '{quote(source.name)}' AND file = '{quote(file)}' AND {same}"""
    )
    raw = read_again(con, columns)
    made = compiled(con, project, source, raw, file, batch, started, again=True)
    con.execute("DROP TABLE IF EXISTS stamped; DROP TABLE IF EXISTS known")
    stamp(con, made, source, file)
    leave_out(con, project, source)
    con.execute(  # what became of each row; a row that `only` leaves out is in none of the others
        """CREATE OR REPLACE TEMP TABLE outcome AS SELECT p.*, s.payload, CASE
                WHEN r._row IS NULL THEN coalesce(p.reason, 'cannot be read')
                WHEN s._row IS NOT NULL THEN s._reason END AS why,
                s._row IS NOT NULL AND s._reason IS NULL AS good
            FROM part p LEFT JOIN raw r USING (_row) LEFT JOIN stamped s USING (_row)"""
    )
    # one line may be in quarantine twice, where its file grew above it
    con.execute(
        "DELETE FROM stamped WHERE (fact_id, _row) NOT IN (SELECT (fact_id, min(_row)) FROM stamped GROUP BY fact_id)"
    )
    result = Replayed(source.name, file)
    counts = "count(*), count(*) FILTER (good), count(*) FILTER (why IS NULL AND NOT good), count(why)"
    ((rows, good, result.left_out, result.still),) = con.execute(f"SELECT {counts} FROM outcome").fetchall()
    samples = "SELECT file || ':' || line || ': ' || why FROM outcome WHERE why IS NOT NULL ORDER BY line LIMIT 3"
    result.reasons = [text for (text,) in con.execute(samples).fetchall()]
    changed = "why IS NOT NULL AND (why IS DISTINCT FROM reason OR text IS NOT NULL)"
    versions = {"batch": f"{batch}::BIGINT", "reason": "why", "raw": "coalesce(payload, text, raw)",
                "fact_id": "CASE WHEN text IS NULL THEN fact_id END"}  # fmt: skip
    listed = ", ".join(versions.get(c, c) for c in map(str, quarantine.SCHEMA.names))
    why = f"replay {source.name}"
    moved = quarantine.leave(con, project, "SELECT * FROM outcome WHERE why IS NULL", batch, why=why)
    moved += quarantine.append(con, project, f"SELECT {listed} FROM outcome WHERE {changed}", why=why)
    result.added = append_facts(con, source_table(project, source.name), source, made)
    result.known = good - result.added
    if moved:
        ledger.write(project, {
            "batch": batch, "source": source.name, "file": f"{file}{ledger.REPLAYED}", "sha256": "", "rows": rows,
            "added": result.added, "known": result.known, "quarantined": 0, "left_out": result.left_out,
            "received_at": started, "finished_at": datetime.now(UTC),
        })  # fmt: skip
    return result


def read_again(con: duckdb.DuckDBPyConnection, columns: str | None) -> Raw:
    """Make the table `raw` of the rows in the table `part` that can be read, with `_fact_id` and `_received`."""
    con.execute("DROP TABLE IF EXISTS raw")
    text = "coalesce(text, raw)"
    same = "CASE WHEN text IS NULL OR text = raw THEN fact_id END AS _fact_id, received_at AS _received"
    whole = f"CASE WHEN json_valid({text}) THEN json_type({text}) = 'OBJECT' ELSE false END"
    if columns is None:
        con.execute(f"CREATE TEMP TABLE raw AS SELECT _row, {text} AS _payload, {same} FROM part WHERE {whole}")
        return Raw(None, [], lambda row: row)
    types: dict[str, str] = json.loads(columns)
    names = ['"' + c.replace('"', '""') + '"' for c in types]
    packed = ", ".join(f"{name} := {name}" for name in names)
    # of the columns' order and spacing as a load would write it, so that a mended row is the fact of a mended file
    con.execute(
        f"""CREATE TEMP TABLE raw AS
            SELECT * EXCLUDE (fact_id, raw), CASE WHEN raw = _payload THEN fact_id END AS _fact_id FROM (
                SELECT *, to_json(struct_pack({packed}))::VARCHAR AS _payload FROM (
                    SELECT _row, received_at AS _received, fact_id, raw,
                        unnest(from_json({text}, '{quote(columns)}')) FROM part
                    WHERE {whole} AND (text IS NOT NULL OR fact_id IS NOT NULL)))"""
    )
    return Raw(types, [], lambda row: row)


def _mended(project: Project, file: Path) -> dict[str, str]:
    """quarantine id -> the row as text, from a file of mended rows."""
    known = {row["quarantine_id"] for row in quarantine.rows(project, Chosen())}
    found: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(file), f"cannot be read: {error}", "check the path; it is JSON Lines in UTF-8") from None
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        said = _json_object(line)
        if said is None or "quarantine_id" not in said or "row" not in said:
            problem = "expected a JSON object with quarantine_id and row"
            raise DataError(f"{file}:{n}", problem, "`foretell quarantine list --to FILE` writes such lines")
        if said["quarantine_id"] not in known:
            fix = "it may have left since; remove the line" if known else "it is empty"
            raise UnknownName(str(said["quarantine_id"]), "is not in quarantine", fix, where=f"{file}:{n}")
        row = said["row"]
        found[said["quarantine_id"]] = row if isinstance(row, str) else _compact(row)
    return found


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _compact(row: object) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def reading(project: Project, row: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """How today's contract reads a row in quarantine: (column of the fact, its expression, value), stamps first.

    The last one is "reason": what is wrong, None if nothing is. Empty for a line that is no row.
    """
    source = project.definitions.source(row["source"])
    con = connect(project)
    try:
        kept = in_quarantine(project, last_batch(project))
        con.execute(
            f"""CREATE TEMP TABLE part AS SELECT 1 AS _row, NULL::VARCHAR AS text, q.* FROM ({kept}) q
                WHERE quarantine_id = '{row["quarantine_id"]}'"""
        )
        raw = read_again(con, row["columns"])
        made = compiled(con, project, source, raw, row["file"], 0, datetime.now(UTC), again=True)
        stamp(con, made, source, row["file"])
        said = {"event_at": source.event_at, "known_at": source.known_at, **source.columns, **source.traits,
                **{f"id_{kind}": text for kind, text in source.identifiers.items()}}  # fmt: skip
        names = [c for c in made.columns if said.get(c)]
        listed = ", ".join(f'"{c}"::VARCHAR' for c in names)
        found = con.execute(f"SELECT {listed}{', ' if listed else ''}_reason FROM stamped").fetchall()
        if not found:
            return []
        return [*((c, str(said[c]), v) for c, v in zip(names, found[0], strict=False)), ("reason", "", found[0][-1])]
    finally:
        con.close()
