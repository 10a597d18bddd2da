"""What do trained libraries make of the values that SQL cannot settle? Each distinct value is asked about once.

Their answers are kept in the table `normal_forms` of the lake, by type, library and version: loading again asks nothing
twice. It holds personal data: the answers, and for each value a digest keyed with the home's secret, by which it
can be found and deleted. It may be deleted at any time; what is needed is asked again.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from foretell.declarations import Source
from foretell.project import Project
from ingestion.files import Raw
from ingestion.normalise import ask, form_kind, library, unsettled
from lake.engine import quote, table

TABLE = "normal_forms"
_SCHEMA = pa.schema([
    ("kind", pa.string()), ("key", pa.string()), ("form", pa.string()), ("library", pa.string()),
    ("made_at", pa.timestamp("us", tz="UTC")),
])  # fmt: skip


def unknown(source: Source, raw: Raw) -> str:
    """SQL for whether the table `raw` has anything that SQL cannot settle, so that `look_up` has something to do."""
    found = [
        unsettled(kind, raw.expression(text, what=f"source {source.name}"), source.country)
        for kind, text in source.identifiers.items()
    ]
    return f"SELECT {' OR '.join(f'coalesce(bool_or({one[1]}), false)' for one in found if one) or 'false'} FROM raw"


def look_up(con: duckdb.DuckDBPyConnection, project: Project, source: Source, raw: Raw) -> set[str]:
    """Make the table `forms(kind, value, form)` of what SQL cannot settle in the table `raw`.

    Returns the identifier types for which it has rows.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE forms (kind VARCHAR, value VARCHAR, form VARCHAR)")
    found = set()
    for kind, text in source.identifiers.items():
        asked = unsettled(kind, raw.expression(text, what=f"source {source.name}"), source.country)
        if asked and _look_up(con, project, kind, source.country, *asked):
            found.add(kind)
    return found


def _look_up(
    con: duckdb.DuckDBPyConnection, project: Project, kind: str, country: str | None, value: str, condition: str
) -> bool:
    name = form_kind(kind, country)
    key = f"sha256('{project.key}' || chr(31) || '{quote(name)}' || chr(31) || value)"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE wanted AS SELECT value, {key} AS key FROM
            (SELECT DISTINCT {value} AS value FROM raw WHERE {condition})"""
    )
    if not con.execute("SELECT 1 FROM wanted LIMIT 1").fetchall():
        return False
    version, stored = library(kind), table(project, TABLE)
    seen = "SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS form WHERE false"
    if files := stored.files():
        seen = f"""SELECT key, any_value(form) AS form FROM {stored.scan(files)}
            WHERE kind = '{quote(name)}' AND library = '{quote(version)}' GROUP BY key"""
    con.execute(f"CREATE OR REPLACE TEMP TABLE seen AS {seen}")
    unseen = con.execute("SELECT value, key FROM wanted ANTI JOIN seen USING (key) ORDER BY value").fetchall()
    if unseen:
        now = datetime.now(UTC)
        forms = [ask(kind, text, country) for text, _ in unseen]
        rows = pa.table(
            [[name] * len(unseen), [k for _, k in unseen], forms, [version] * len(unseen), [now] * len(unseen)],
            schema=_SCHEMA,
        )
        stored.append(rows, why="answers of libraries")
        con.register("answers", rows)
        con.execute("INSERT INTO seen SELECT key, form FROM answers")
        con.unregister("answers")
    con.execute(f"INSERT INTO forms SELECT '{quote(name)}', value, form FROM wanted JOIN seen USING (key)")
    return True
