"""Which rows of a table are one person? The matcher of any table of people: understand, prepare, block, learn, predict.

Pairs are compared by Splink's levels and weighed as Splink weighs them; which columns are compared, which pairs, and
what the levels are worth is settled here, without anybody having labelled a pair. Runs on the same table give the same
answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from unification.matching import pairs
from unification.matching.blocking import choose
from unification.matching.cluster import UNLIKE, Clustered, Fact, cluster, other_day, slips
from unification.matching.comparisons import Compared, Learnt, compared, settings, splink
from unification.matching.kinds import Understood, understand
from unification.matching.learn import learn
from unification.matching.prepare import prepare

MATCH_AT = 0.5  # probability from which a pair counts, before clustering looks for contradictions
_RELIABLE = 0.1  # of those who are one person may differ in a fact that parts groups
_AT_HOME = ("equal", "the same house, the street alike", "the same street")
LEAST = 1 / (1 + 2.0**-UNLIKE)  # probability below which a pair is not kept


@dataclass(frozen=True)
class Model:
    """What is needed to weigh pairs of a prepared table. columns: of that table; blocking: the rules, on l and r, that
    brought up what it was learnt from (other tables have their own)."""

    columns: list[str]
    blocking: list[str]
    learnt: Learnt
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def comparisons(self) -> list[Compared]:
        return compared(self.columns)


def read(
    con: duckdb.DuckDBPyConnection, table: str, *, named: Mapping[str, str] | None = None, never: Sequence[str] = ()
) -> tuple[Understood, list[str]]:
    """Understand a table and make `people` of it. Returns what was understood, and the columns of `people`."""
    found = understand(con, table, named=named, never=never)
    return found, prepare(con, table, found.kinds)


def train(
    con: duckdb.DuckDBPyConnection, columns: Sequence[str], step: Callable[[str], Any] = lambda text: None
) -> Model:
    """Learn from the table `people`, unsupervised."""
    columns = sorted(columns)
    step("choosing which pairs to compare")
    blocking = [rule.sql for rule in choose(con, columns)]
    records = int(con.execute("SELECT count(*) FROM people").fetchall()[0][0])
    step("comparing pairs")
    found = pairs.block(con, blocking)
    pairs.compare(con, columns, "_blocked", "_compared")
    pairs.draw(con, records)
    pairs.compare(con, columns, "_drawn", "_drawn_compared")
    step("learning from pairs")
    blocked, random = pairs.count(con, "_compared"), pairs.count(con, "_drawn_compared")
    learnt = learn(compared(columns), blocked, random, records, _equal_by_chance(con, columns, records))
    return Model(columns, blocking, learnt, {"records": records, "pairs": found})


def _equal_by_chance(con: duckdb.DuckDBPyConnection, columns: Sequence[str], records: int) -> dict[str, float]:
    """Column -> how many of all pairs of filled rows have the same value."""
    found = {}
    for column in {level.exact for one in compared(columns) for level in one.levels} - {""}:
        n, same = con.execute(
            f"""SELECT coalesce(sum(n), 0), coalesce(sum(n::DOUBLE * (n - 1)), 0) FROM (
                SELECT count(*) AS n FROM people WHERE {column} IS NOT NULL GROUP BY {column})"""
        ).fetchall()[0]
        found[column] = max(1e-9, float(same) / max(1.0, float(n) * (float(n) - 1)))
    return found


def predict(
    con: duckdb.DuckDBPyConnection, model: Model, into: str = "pairs", least: float = LEAST, only: str = ""
) -> None:
    """Make the table of pairs of `people` that may be one person.

    l, r (l < r, places of rows), probability, weight, household (of it, what living together takes away), and of
    each comparison c_<name>, its level (the place from the surest; -1: not said), and b_<name>, its bits. only: a
    table of the pairs that are compared (join_key_l < join_key_r) in place of those that blocking brings up.
    """
    if only or not _there(con, "_compared"):
        if not only:
            pairs.block(con, [rule.sql for rule in choose(con, model.columns)])
        pairs.compare(con, model.columns, only or "_blocked", "_compared")
    as_floats = ", ".join(f"b_{one.name}::FLOAT AS b_{one.name}" for one in model.comparisons)
    con.execute(
        f"""CREATE OR REPLACE TABLE {into} AS SELECT join_key_l AS l, join_key_r AS r, 1 / (1 + o) AS probability,
                -log2(o) AS weight, -log2(o) - w AS household,
                * EXCLUDE (join_key_l, join_key_r, o, w) REPLACE ({as_floats})
            FROM (SELECT *, 2.0 ** -w + {_household(model)} AS o FROM (
                {pairs.weighed(con, model.columns, model.learnt, "_compared")}))
            WHERE 1 / (1 + o) >= {least} ORDER BY probability DESC, l, r;
        DROP TABLE _compared"""
    )


def _there(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    return bool(con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall())


def fit(con: duckdb.DuckDBPyConnection, columns: Sequence[str], model: Model) -> None:
    """Give `people` the columns that a model trained before wants, empty where nothing is said."""
    for column in model.columns:
        if column not in columns:
            kind = "INTEGER" if column == "age" else "VARCHAR"
            con.execute(f"ALTER TABLE people ADD COLUMN {column} {kind}")
    con.execute("DROP TABLE IF EXISTS _compared")


def splink_json(con: duckdb.DuckDBPyConnection, model: Model) -> dict[str, Any]:
    """The trained model as Splink writes it."""
    package = splink()
    logging.getLogger("splink").setLevel(logging.ERROR)
    people = package.DuckDBAPI(con).register("people")
    return package.Linker(people, settings(model.columns, model.blocking, model.learnt)).misc.save_model_to_json()


def parts(model: Model, row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Of a row of `pairs`: the prior, each comparison's level in words with its bits, and what living together
    takes."""
    prior = model.learnt.prior
    found: dict[str, list[Any]] = {"prior": ["two at random", round(float(np.log2(prior / (1 - prior))), 4)]}
    for one in model.comparisons:
        level = int(row[f"c_{one.name}"])
        label = one.levels[level].label if level >= 0 else "not said"
        found[one.name] = [label, round(float(row[f"b_{one.name}"]), 4)]
    if abs(row["household"]) > 0.005:
        found["household"] = ["may live together", round(float(row["household"]), 4)]
    return found


def _household(model: Model) -> str:
    """SQL for how much likelier than one person it is that the two live together."""
    learnt = model.learnt
    if not learnt.h:
        return "0.0"
    parts = [str(float(np.log2(learnt.household / learnt.prior)))]
    for one in model.comparisons:
        ratio = np.log2(np.array(learnt.h[one.name]) / np.array(learnt.m[one.name]))
        cases = " ".join(f"WHEN {place} THEN {value:.6f}" for place, value in enumerate(ratio))
        parts.append(f"CASE c_{one.name} {cases} ELSE 0.0 END")
    return f"2.0 ** least(60.0, {' + '.join(parts)})"


def group(con: duckdb.DuckDBPyConnection, model: Model, match_at: float = MATCH_AT, apart: str = "false") -> Clustered:
    """Cluster `people` by the table `pairs`. apart: SQL on a pair, true of those that count as unlike."""
    records = int(con.execute("SELECT count(*) FROM people").fetchall()[0][0])
    weight = f"CASE WHEN {apart} THEN least(weight, {UNLIKE}) ELSE weight END"
    found: Any = con.execute(f"SELECT l, r, {weight} AS weight FROM pairs").fetchnumpy()
    at = float(np.log2(match_at / (1 - match_at)))
    return cluster(records, found["l"], found["r"], found["weight"], at=at, facts=facts(con, model))


def housemates(model: Model) -> str:
    """SQL on a row of pairs: different first names at one address, and no id, e-mail or phone that says who it is."""
    there = {one.name: one.levels for one in model.comparisons}
    if not {"first", "address"} <= there.keys():
        return "false"
    sure = "".join(f" AND c_{name} <> 0" for name in ("nid", "email", "phone") if name in there)
    near = [str(place) for place, level in enumerate(there["address"]) if level.label in _AT_HOME]
    return f"(c_first = {len(there['first']) - 1} AND c_address IN ({', '.join(near) or '-2'}){sure})"


def facts(con: duckdb.DuckDBPyConnection, model: Model) -> list[Fact]:
    """What people seldom say otherwise by mistake, as this model has learnt it: national id and birth date."""
    found = []
    for column, differ in (("nid", slips), ("birth", other_day)):
        if column in model.columns and model.learnt.m[column][-1] < _RELIABLE:
            said = [v for (v,) in con.execute(f"SELECT {column} FROM people ORDER BY unique_id").fetchall()]
            found.append(Fact(column, said, differ))
    return found
