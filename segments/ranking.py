"""Who is among the top or bottom share of an attribute? One threshold per rank, found for many rules at once.

A rule's own SQL sorts the whole table for each `top` and `bottom` that it asks for. Here every attribute is sorted
once, and each rank becomes a comparison with the value of the last one inside, and with an id where several have it.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from lake.engine import quote
from segments.predicate import Predicate, Rank


def thresholds(con: duckdb.DuckDBPyConnection, rules: Iterable[Predicate]) -> dict[Rank, str]:
    """SQL conditions over the table `attributes` for all ranks of these rules, as `Predicate.condition` takes them."""
    asked: dict[str, list[Rank]] = {}
    for rank in sorted(set().union(*(rule.ranks for rule in rules))):
        asked.setdefault(rank.attribute, []).append(rank)
    return {rank: sql for name, ranks in asked.items() for rank, sql in _of_one(con, name, ranks).items()}


def _of_one(con: duckdb.DuckDBPyConnection, name: str, ranks: list[Rank]) -> dict[Rank, str]:
    column = '"' + name.replace('"', '""') + '"'
    count = int(con.execute(f"SELECT count({column}) FROM attributes").fetchall()[0][0])
    if not count:  # nobody has it
        return dict.fromkeys(ranks, "NULL::BOOLEAN")
    sizes = {rank: -(-rank.share.as_integer_ratio()[0] * count // rank.share.as_integer_ratio()[1]) for rank in ranks}
    places = [size if rank.best == "bottom" else count - size + 1 for rank, size in sizes.items()]
    kind, last = con.execute(
        f"""SELECT typeof(v[1]), list_transform({places}, lambda i: v[i]::VARCHAR)
            FROM (SELECT list_sort(list({column})) AS v FROM attributes WHERE {column} IS NOT NULL)"""
    ).fetchall()[0]
    return {rank: _condition(con, column, rank, sizes[rank], kind, at) for rank, at in zip(ranks, last, strict=True)}


def _condition(con: duckdb.DuckDBPyConnection, column: str, rank: Rank, size: int, kind: str, at: str) -> str:
    """at: the value of the last one inside, as text: of those that have it as many are inside as there is room for."""
    value, better = f"CAST('{quote(at)}' AS {kind})", ">" if rank.best == "top" else "<"
    before, equal = con.execute(
        f"SELECT count(*) FILTER ({column} {better} {value}), count(*) FILTER ({column} = {value}) FROM attributes"
    ).fetchall()[0]
    if (room := size - before) == equal:
        return f"{column} {better}= {value}"
    who = con.execute(
        f"SELECT profile_id FROM attributes WHERE {column} = {value} ORDER BY 1 LIMIT 1 OFFSET {room - 1}"
    ).fetchall()[0][0]
    return f"({column} {better} {value} OR ({column} = {value} AND profile_id <= '{quote(who)}'))"
