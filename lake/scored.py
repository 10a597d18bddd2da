"""Where are the rows that scores were worked out from? Once for each profile and batch, whichever tasks read them.

Three tables. `scores` has a contract a row, and names the set its features are in. `scored_rows` has the features of
each profile of a set as one list of numbers. `scored_columns` says of each set and task what the numbers are called,
and at which places of the list they stand, from 1 on:

  scores          … rows, profile_id, task …
  scored_rows     rows, profile_id, values: list of double
  scored_columns  rows, task, columns: list of text, places: list of integer

Sessions show them as one view, `scores`, in which each row has its `features` as a map, as old tables have them
themselves. Whoever does not ask for the features does not pay for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb
import pyarrow as pa

from lake.tables import Table

TABLES = ("scores", "scored_rows", "scored_columns")
ROWS = pa.schema([("rows", pa.string()), ("profile_id", pa.string()), ("values", pa.list_(pa.float64()))])
COLUMNS = pa.schema([
    ("rows", pa.string()), ("task", pa.string()), ("columns", pa.list_(pa.string())),
    ("places", pa.list_(pa.int32())),
])  # fmt: skip
_NAMES = "getvariable('scored_columns')[s.rows || ' ' || s.task]"
_MAP = f'map({_NAMES}.columns, list_select(f."values", {_NAMES}.places))'


def create_view(con: duckdb.DuckDBPyConnection, scores: Table, rows: Table, columns: Table) -> None:
    """Make the view `scores`, if there are any; `stored_scores`, `scored_rows` and `scored_columns` as they lie."""
    if not (files := scores.files()):
        return
    scan = scores.scan(files)
    con.execute(f"CREATE VIEW stored_scores AS SELECT * FROM {scan}")
    names = [name for name, *_ in con.execute("DESCRIBE stored_scores").fetchall()]
    parts = [(rows, "scored_rows"), (columns, "scored_columns")]
    kept = {name: stored.scan(found) for stored, name in parts if (found := stored.files())}
    if "rows" not in names or len(kept) < len(parts):  # a table of before
        con.execute("CREATE VIEW scores AS SELECT * FROM stored_scores")
        return
    for name, found in kept.items():
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM {found}")
    own = "coalesce(s.features, {})" if "features" in names else "{}"
    listed = [
        f's."{name}"' if name != "rows" else f"{own.format(_MAP)} AS features" for name in names if name != "features"
    ]
    # What the numbers are called is little, and looked up. One join, grouped, so that the engine sees that it adds no
    # row, and leaves it out where nobody reads features; of two joins it would leave out none.
    con.execute(
        f"""SET VARIABLE scored_columns = (SELECT map_from_entries(list((name, said))) FROM (
                SELECT rows || ' ' || task AS name, any_value({{'columns': columns, 'places': places}}) AS said
                FROM scored_columns GROUP BY ALL));
        CREATE VIEW scores AS SELECT {", ".join(listed)} FROM stored_scores s
            LEFT JOIN (SELECT rows, profile_id, any_value("values") AS "values" FROM scored_rows
                GROUP BY ALL) f ON f.rows = s.rows AND f.profile_id = s.profile_id"""
    )


def of_scores(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """score_id -> features, of a few thousand scores: far faster than the view is, which has everybody's to join."""
    con.execute("CREATE OR REPLACE TEMP TABLE asked_scores AS SELECT unnest(?::VARCHAR[]) AS score_id", [list(ids)])
    names = {name for name, *_ in con.execute("DESCRIBE stored_scores").fetchall()}
    listed = ", ".join(f's."{name}"' if name in names else f"NULL AS {name}" for name in ("features", "rows"))
    found = con.execute(
        f"SELECT score_id, task, profile_id, {listed} FROM stored_scores s SEMI JOIN asked_scores USING (score_id)"
    ).fetchall()
    made = {score: dict(own) for score, _, _, own, _ in found if own is not None}
    by_task: dict[str, list[tuple[str, str, str]]] = {}
    for score, task, profile, own, rows in found:
        if own is None:
            by_task.setdefault(task, []).append((score, rows, profile))
    for task, several in by_task.items():
        known = _features_of(con, task, [(rows, profile) for _, rows, profile in several])
        made |= {score: known[rows, profile] for score, rows, profile in several if (rows, profile) in known}
    return made


def _features_of(
    con: duckdb.DuckDBPyConnection, task: str, whose: Iterable[tuple[str, str]]
) -> Mapping[tuple[str, str], dict[str, float]]:
    """(rows, profile_id) -> features, of some scores of a task. What files say of both columns finds them."""
    asked = sorted(set(whose))
    con.execute(
        """CREATE OR REPLACE TEMP TABLE asked_rows AS
            SELECT unnest(?::VARCHAR[]) AS "rows", unnest(?::VARCHAR[]) AS profile_id""",
        [[rows for rows, _ in asked], [profile for _, profile in asked]],
    )
    listed = ", ".join(f"'{name}'" for name in sorted({rows for rows, _ in asked}))
    profiles = [profile for _, profile in asked]
    found = con.execute(
        f"""SELECT f.rows, f.profile_id, g.columns, list_select(f.values, g.places) FROM scored_rows f
            SEMI JOIN asked_rows a ON a.rows = f.rows AND a.profile_id = f.profile_id
            JOIN scored_columns g ON g.rows = f.rows AND g.task = ?
            WHERE f.rows IN ({listed}) AND f.profile_id BETWEEN ? AND ?""",
        [task, min(profiles), max(profiles)],
    ).fetchall()
    return {(rows, profile): dict(zip(names, values, strict=True)) for rows, profile, names, values in found}
