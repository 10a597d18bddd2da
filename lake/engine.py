"""Which tables can be asked, and as of when? A DuckDB session with one view per table of the home.

A state is `at(T, batch)`: facts known before T, from ingest batches up to a watermark. The watermark is the last batch
in the ledger, so a load that was cut short stays invisible until it has been repeated to the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from foretell.project import Project
from lake import consent, derived, scored
from lake.literals import instant as instant
from lake.literals import quote as quote
from lake.place import files_of
from lake.place import table as table
from lake.tables import Table

FACTS = "facts"
_PLAIN = ("batches", "outcomes", "training_rows", "erasures", "memberships", "exposures")


def source_table(project: Project, source: str) -> Table:
    return table(project, f"{FACTS}/{source}")


def connect(project: Project) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(f"SET TimeZone='UTC'; SET threads={int(project.setting('threads'))}")
    con.execute("SET memory_limit=?", [project.setting("memory")])
    con.execute("SET temp_directory=?", [str(project.home / "tmp")])  # not where the command happens to be run
    con.execute("SET autoinstall_known_extensions=false")
    if con.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]:
        con.execute("SET enable_progress_bar=false")  # in a notebook it is off, and setting it fails without ipywidgets
    con.execute("SET python_enable_replacements=false")  # a missing table must not become a Python variable
    return con


def few(con: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """The result of a query that has a few rows.

    `sql` binds a query when it is made and when it is run, which is most of what so few rows cost; this way there is
    one copy more of them, of which DuckDB warns.
    """
    with warnings.catch_warnings():  # where threads cross, that one warning may stay ignored, and nothing else
        warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)
        return con.execute(query).to_arrow_table()


@contextmanager
def session(project: Project, watermark: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with a view for every table; facts are cut at the watermark (default: the last whole batch)."""
    con = connect(project)
    try:
        limit = last_batch(project) if watermark is None else watermark
        plain = {name: table(project, name) for name in _PLAIN}
        for (name, stored), files in zip(plain.items(), files_of([*plain.values()]), strict=True):
            if files:
                con.execute(f"CREATE VIEW {name} AS SELECT * FROM {stored.scan(files)}")
        scored.create_view(con, *(table(project, name) for name in scored.TABLES))
        if rows := in_quarantine(project, limit):
            con.execute(f"CREATE VIEW quarantine AS {rows}")
        create_views(con, project, limit)
        yield con
    finally:
        con.close()


def create_views(con: Any, project: Project, watermark: int) -> None:
    """Make a view of every source's facts up to a watermark, of consents, and of every derived table."""
    loaded = []
    facts = {name: source_table(project, source.name) for name, source in project.definitions.sources.items()}
    for (name, stored), files in zip(facts.items(), files_of([*facts.values()]), strict=True):
        if files:
            con.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {stored.scan(files)} WHERE batch <= {int(watermark)}')
            loaded.append(name)
    consent.create_view(con, project, loaded)
    for file in sorted((project.home / "derived").glob("*.parquet")):
        con.execute(f'CREATE VIEW "{file.stem}" AS SELECT * FROM {derived.scan(file)}')


@contextmanager
def workers(project: Project, con: duckdb.DuckDBPyConnection, watermark: int | None = None) -> Iterator[Any]:
    """Who aggregates facts, by the setting `engine`: the session `con` itself, or Spark, which is asked alike.

    On Spark there are the views of facts, consents and derived tables, and nothing else of the session.
    """
    if project.setting("engine") == "duckdb":
        yield con
        return
    from lake import spark

    with spark.session(project, last_batch(project) if watermark is None else watermark) as cluster:
        yield cluster


def in_quarantine(project: Project, watermark: int) -> str:
    """SQL for the rows in quarantine as of a watermark: the last version of each, unless it has left. "" before any."""
    if not (files := (stored := table(project, "quarantine")).files()):
        return ""
    versions = f"""(SELECT * FROM {stored.scan(files)} WHERE batch <= {int(watermark)}
        UNION ALL BY NAME SELECT NULL::VARCHAR AS fact_id, NULL::VARCHAR AS columns WHERE false)"""  # of older tables
    last = f"SELECT quarantine_id, max(batch) AS batch FROM {versions} GROUP BY 1"
    return f"SELECT * FROM {versions} SEMI JOIN ({last}) USING (quarantine_id, batch) WHERE reason IS NOT NULL"


def last_batch(project: Project) -> int:
    """The watermark: the number of the last ingest batch that was completed, 0 before the first."""
    stored = table(project, "batches")
    if not (files := stored.files()):
        return 0
    return int(duckdb.execute(f"SELECT coalesce(max(batch), 0) FROM {stored.scan(files)}").fetchall()[0][0])
