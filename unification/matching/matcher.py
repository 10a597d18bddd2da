"""Which rows of a table are one person? The matcher of any table of people: understand, prepare, block, learn, predict.

Splink compares and weighs; which columns it compares, which pairs, and what the levels are worth is settled here,
without anybody having labelled a pair. Runs on the same table give the same answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from unification.matching.blocking import choose
from unification.matching.cluster import UNLIKE, Clustered, Fact, cluster, other_day, slips
from unification.matching.comparisons import Compared, Learnt, compared, settings, splink
from unification.matching.kinds import Understood, understand
from unification.matching.learn import Counted, learn
from unification.matching.prepare import prepare

MATCH_AT = 0.5  # probability from which a pair counts, before clustering looks for contradictions
_LEARN_FROM, _RANDOM = 500_000, 250_000  # pairs
_RELIABLE = 0.1  # of those who are one person may differ in a fact that parts groups
_AT_HOME = ("equal", "the same house, the street alike", "the same street")
LEAST = 1 / (1 + 2.0**-UNLIKE)  # probability below which a pair is not kept


@dataclass(frozen=True)
class Model:
    """What is needed to weigh pairs of a prepared table. columns: of that table; blocking: rules on l and r."""

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
    rules = choose(con, columns)
    blocking = [rule.sql for rule in rules]
    records = int(con.execute("SELECT count(*) FROM people").fetchall()[0][0])
    step("learning from pairs")
    with _Linker(con, columns, blocking) as (linker, _):
        pairs = linker.inference.compute_blocked_pairs_for_predict()
        n = int(con.execute(f"SELECT count(*) FROM {pairs.physical_name}").fetchall()[0][0])
        part = max(1, -(-n // _LEARN_FROM))
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE _some AS SELECT * FROM {pairs.physical_name}
                WHERE hash(join_key_l, join_key_r) % {part} = 0;
            CREATE OR REPLACE TABLE _blocked AS FROM {pairs.physical_name}"""
        )
    blocked = _patterns(con, columns, "_some", part)
    drawn = _random_pairs(con, records)
    random = _patterns(con, columns, drawn, 1)
    learnt = learn(compared(columns), blocked, random, records, _equal_by_chance(con, columns, records))
    return Model(
        columns, blocking, learnt, {"records": records, "pairs": n, "learnt_from": int(blocked.pairs.sum() / part)}
    )


class _Linker:
    """Splink over `people` in this connection; its tables are dropped when it is done."""

    def __init__(self, con: duckdb.DuckDBPyConnection, columns: Sequence[str], blocking: Sequence[str],
                 learnt: Learnt | None = None, *, intermediate: bool = False) -> None:  # fmt: skip
        package = splink()
        logging.getLogger("splink").setLevel(logging.ERROR)
        self.con = con
        self.api = package.DuckDBAPI(con)
        people = self.api.register("people")
        self.linker = package.Linker(people, settings(columns, blocking, learnt, intermediate=intermediate))

    def __enter__(self) -> tuple[Any, Any]:
        return self.linker, self.api

    def __exit__(self, *_: object) -> None:
        self.linker.table_management.delete_tables_created_by_splink_from_db()


def _patterns(con: duckdb.DuckDBPyConnection, columns: Sequence[str], pairs: str, part: int) -> Counted:
    """Compare these pairs, and count how many have each pattern of levels. part: one in so many pairs is here."""
    made = settings(columns, []).create_settings_dict("duckdb")["comparisons"]
    cases = []
    for one in made:
        null, *levels, _ = [level["sql_condition"] for level in one["comparison_levels"]]
        whens = "".join(f" WHEN {condition} THEN {place}" for place, condition in enumerate(levels))
        cases.append(f"(CASE WHEN {null} THEN -1{whens} ELSE {len(levels)} END)::TINYINT")
    sides = ", ".join(f"{side}.{column} AS {column}_{side}" for column in columns for side in "lr")
    rows = con.execute(
        f"""SELECT {", ".join(cases)}, count(*) FROM (SELECT {sides} FROM {pairs} p
            JOIN people l ON l.unique_id = p.join_key_l JOIN people r ON r.unique_id = p.join_key_r)
            GROUP BY ALL ORDER BY ALL"""
    ).fetchnumpy()
    table = np.stack([np.asarray(column, np.int64) for column in rows.values()], axis=1)
    return Counted(table[:, :-1], table[:, -1].astype(float) * part)


def _random_pairs(con: duckdb.DuckDBPyConnection, records: int) -> str:
    """Make a table of pairs at random, the same ones every time; of few records all pairs."""
    if records * (records - 1) // 2 <= _RANDOM:
        query = "SELECT a.unique_id, b.unique_id FROM people a JOIN people b ON a.unique_id < b.unique_id"
    else:
        query = f"""SELECT least(l, r), greatest(l, r) FROM (
            SELECT (hash(i) % {records})::BIGINT AS l, (hash(i + 1000000007) % {records})::BIGINT AS r
            FROM range({_RANDOM}) t(i)) WHERE l <> r GROUP BY ALL"""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE _drawn AS SELECT '0' AS match_key, p.* FROM ({query}) p(join_key_l, join_key_r)"
    )
    return "_drawn"


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
    table of the pairs that are compared (join_key_l, join_key_r, match_key) in place of those that blocking brings
    up.
    """
    with _Linker(con, model.columns, model.blocking, model.learnt, intermediate=True) as (linker, api):
        pairs = only or ("_blocked" if _there(con, "_blocked") else "")
        if pairs:
            linker.table_management.register_blocked_pairs_for_predict(api.register(pairs))
        found = linker.inference.predict(threshold_match_probability=least, warning_mode="never")
        there = {name for name, *_ in con.execute(f"DESCRIBE {found.physical_name}").fetchall()}
        columns = []
        for one in model.comparisons:
            name = one.name
            level = f'CASE WHEN "gamma_{name}" < 0 THEN -1 ELSE {len(one.levels) - 1} - "gamma_{name}" END'
            columns.append(f"({level})::TINYINT AS c_{name}")
            weighs = [f'"{w}{name}"' for w in ("mw_", "mw_tf_adj_") if f"{w}{name}" in there]
            columns.append(f"({' + '.join(weighs)})::FLOAT AS b_{name}")
        living = _household(model)
        con.execute(
            f"""CREATE OR REPLACE TABLE {into} AS SELECT l, r, 1 / (1 + o) AS probability, -log2(o) AS weight,
                -log2(o) - w AS household, * EXCLUDE (l, r, o, w) FROM (SELECT least(unique_id_l, unique_id_r) AS l,
                greatest(unique_id_l, unique_id_r) AS r, (2.0 ** (-match_weight) + {living}) AS o, match_weight AS w,
                {", ".join(columns)} FROM {found.physical_name})
                WHERE 1 / (1 + o) >= {least} ORDER BY probability DESC, l, r"""
        )


def _there(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    return bool(con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall())


def fit(con: duckdb.DuckDBPyConnection, columns: Sequence[str], model: Model) -> None:
    """Give `people` the columns that a model trained before wants, empty where nothing is said."""
    for column in model.columns:
        if column not in columns:
            kind = "INTEGER" if column == "age" else "VARCHAR"
            con.execute(f"ALTER TABLE people ADD COLUMN {column} {kind}")
    con.execute("DROP TABLE IF EXISTS _blocked")


def splink_json(con: duckdb.DuckDBPyConnection, model: Model) -> dict[str, Any]:
    """The trained model as Splink writes it."""
    with _Linker(con, model.columns, model.blocking, model.learnt) as (linker, _):
        return linker.misc.save_model_to_json()


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
        cases = " ".join(f"WHEN {len(ratio) - 1 - place} THEN {value:.6f}" for place, value in enumerate(ratio))
        parts.append(f'CASE "gamma_{one.name}" {cases} ELSE 0.0 END')
    return f"2.0 ** least(60.0, {' + '.join(parts)})"


def group(
    con: duckdb.DuckDBPyConnection, model: Model, match_at: float = MATCH_AT, pairs: str = "pairs", apart: str = "false"
) -> Clustered:
    """Cluster `people` by the table of pairs. apart: SQL on a pair, true of those that count as unlike."""
    records = int(con.execute("SELECT count(*) FROM people").fetchall()[0][0])
    weight = f"CASE WHEN {apart} THEN least(weight, {UNLIKE}) ELSE weight END"
    found: Any = con.execute(f"SELECT l, r, {weight} AS weight FROM {pairs}").fetchnumpy()
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
