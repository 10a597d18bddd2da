"""How do the pairs that are worth comparing agree? Each is compared once, by Splink's levels, and that is kept.

Everything that is learnt and weighed afterwards follows from these numbers: no value is looked at twice. The SQL of a
level is what Splink makes of the settings, so that Splink itself, on whatever engine, finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np

from unification.matching.comparisons import RAREST, Learnt, compared, settings
from unification.matching.learn import Counted

_RANDOM = 250_000  # pairs


def blocked(con: duckdb.DuckDBPyConnection, rules: Sequence[str], columns: Sequence[str]) -> int:
    """Make `_compared` (see `compare`) of the pairs that some rule brings up (`_blocked`). Returns how many."""
    found = block(con, rules)
    compare(con, columns, "_blocked", "_compared")
    return found


def block(con: duckdb.DuckDBPyConnection, rules: Sequence[str], into: str = "_blocked") -> int:
    """Make the table of the pairs of `people` that some rule brings up. Returns how many."""
    con.execute(f"CREATE OR REPLACE TABLE {into} AS {brought_up(rules)}")
    return int(con.execute(f"SELECT count(*) FROM {into}").fetchall()[0][0])


def brought_up(rules: Sequence[str]) -> str:
    """SQL of the pairs of `people` that some rule brings up, each once: join_key_l < join_key_r."""
    each = " UNION ALL ".join(
        f"SELECT l.unique_id AS join_key_l, r.unique_id AS join_key_r FROM people l JOIN people r ON {rule} "
        "WHERE l.unique_id < r.unique_id" for rule in rules
    )  # fmt: skip
    return f"SELECT DISTINCT join_key_l, join_key_r FROM ({each})"


def draw(con: duckdb.DuckDBPyConnection, records: int, into: str = "_drawn") -> None:
    """Make a table of pairs at random, the same ones every time; of few records all pairs."""
    if records * (records - 1) // 2 <= _RANDOM:
        query = "SELECT a.unique_id, b.unique_id FROM people a JOIN people b ON a.unique_id < b.unique_id"
    else:
        query = f"""SELECT least(l, r), greatest(l, r) FROM (
            SELECT (hash(i) % {records})::BIGINT AS l, (hash(i + 1000000007) % {records})::BIGINT AS r
            FROM range({_RANDOM}) t(i)) WHERE l <> r GROUP BY ALL"""
    con.execute(f"CREATE OR REPLACE TEMP TABLE {into} AS FROM ({query}) p(join_key_l, join_key_r)")


def compare(con: duckdb.DuckDBPyConnection, columns: Sequence[str], pairs: str, into: str) -> None:
    """Make the table of these pairs with c_<name> of each comparison: the place of its level from the surest, -1 where
    nothing is said."""
    con.execute(f"CREATE OR REPLACE TABLE {into} AS {levels(columns, pairs, 'duckdb')}")


def levels(columns: Sequence[str], pairs: str, dialect: str) -> str:
    """SQL of that, in the words of an engine of Splink's ("duckdb", "spark")."""
    cases = []
    for one in settings(columns, []).create_settings_dict(dialect)["comparisons"]:
        null, *conditions, _ = [level["sql_condition"] for level in one["comparison_levels"]]
        whens = "".join(f" WHEN {condition} THEN {place}" for place, condition in enumerate(conditions))
        level = f"CAST(CASE WHEN {null} THEN -1{whens} ELSE {len(conditions)} END AS TINYINT)"
        cases.append(f"{level} AS c_{one['output_column_name']}")
    sides = ", ".join(f"{side}.{column} AS {column}_{side}" for column in columns for side in "lr")
    return f"""SELECT join_key_l, join_key_r, {", ".join(cases)} FROM (
        SELECT join_key_l, join_key_r, {sides} FROM {pairs} p
        JOIN people l ON l.unique_id = p.join_key_l JOIN people r ON r.unique_id = p.join_key_r)"""


def count(con: duckdb.DuckDBPyConnection, table: str) -> Counted:
    """How many of the compared pairs have each pattern of levels."""
    rows = con.execute(
        f"SELECT * EXCLUDE (join_key_l, join_key_r), count(*) FROM {table} GROUP BY ALL ORDER BY ALL"
    ).fetchnumpy()
    found = np.stack([np.asarray(column, np.int64) for column in rows.values()], axis=1)
    return Counted(found[:, :-1], found[:, -1].astype(float))


def weighed(con: duckdb.DuckDBPyConnection, columns: Sequence[str], learnt: Learnt, table: str) -> str:
    """SQL of compared pairs with w, their weight in bits, and b_<name>, what each comparison adds to the prior's.

    As Splink weighs: log2(m / u) of the level, and where it is equality of a column with term frequencies
    log2(u / share of the value), u that of equality.
    """
    rare: dict[str, str] = {}
    bits = []
    for one in compared(columns):
        m, u = learnt.m[one.name], learnt.u[one.name]
        whens = []
        for place, level in enumerate(one.levels):
            known, less = float(np.log2(m[place] / u[place])), ""
            if level.frequency:
                equal = [k for k, other in enumerate(one.levels) if other.exact == level.frequency]
                known += float(np.log2(u[equal[0]]))
                less = " - " + rare.setdefault(level.frequency, f"f_{level.frequency}")
            whens.append(f"WHEN {place} THEN {known!r}::DOUBLE{less}")
        bits.append(f"(CASE c_{one.name} {' '.join(whens)} ELSE 0.0 END)::DOUBLE AS b_{one.name}")
    _rarity(con, rare)
    prior = float(np.log2(learnt.prior / (1 - learnt.prior)))
    total = " + ".join(f"b_{one.name}" for one in compared(columns))
    return f"""SELECT *, {prior!r}::DOUBLE + {total} AS w FROM (
        SELECT p.*, {", ".join(bits)} FROM {table} p JOIN _rare ON _rare.unique_id = p.join_key_l)"""


def _rarity(con: duckdb.DuckDBPyConnection, columns: dict[str, str]) -> None:
    """Make `_rare`: of each record log2 of the share that its value in a column has of all that are said."""
    joins = " ".join(
        f"""LEFT JOIN (SELECT {column} AS v, log2(greatest(count(*) / sum(count(*)) OVER (), {RAREST})) AS {name}
            FROM people WHERE {column} IS NOT NULL GROUP BY {column}) t_{column} ON t_{column}.v = people.{column}"""
        for column, name in columns.items()
    )
    names = "".join(f", {name}" for name in columns.values())
    con.execute(f"CREATE OR REPLACE TEMP TABLE _rare AS SELECT unique_id{names} FROM people {joins}")
