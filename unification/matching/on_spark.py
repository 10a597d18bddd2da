"""How are pairs compared on Spark? The same rules and levels, in Splink's words for it; what comes back are the levels.

Preparing, learning, weighing and grouping stay here: of a pair they need a few small numbers, not what is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from foretell.project import Project
from lake.spark import landed
from lake.spark_splink import splink_api
from unification.matching.pairs import brought_up, levels


def blocked(project: Project, con: duckdb.DuckDBPyConnection, rules: Sequence[str], columns: Sequence[str]) -> int:
    """What `pairs.blocked` does, on the project's Spark: makes `_compared` in `con`. Returns how many pairs."""
    session = splink_api(project).spark  # it knows what likens texts
    session.createDataFrame(con.sql("FROM people").to_arrow_table()).createOrReplaceTempView("people")
    try:
        found = session.sql(levels(columns, f"({brought_up(rules)})", "spark"))
        with landed(project, found) as rows:
            con.execute(f"CREATE OR REPLACE TABLE _compared AS FROM {rows}")
    finally:
        session.catalog.dropTempView("people")
    return int(con.execute("SELECT count(*) FROM _compared").fetchall()[0][0])
