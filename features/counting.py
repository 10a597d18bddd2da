"""How are distinct values under several filters counted in one pass?

DuckDB groups by the value anew for each `COUNT(DISTINCT value) FILTER (WHERE condition)`, though a dozen of them count
the same orders in other windows. Here rows are grouped by the value once, with a flag for every condition that holds
for some row, and flags are counted: the same numbers, by one grouping.
"""

from __future__ import annotations

from functools import lru_cache

import sqlglot
from sqlglot import Expr, exp

DIALECT = "duckdb"


@lru_cache(maxsize=1024)
def counted_once(query: str) -> str:
    """The same query, `SELECT keys, aggregates FROM … GROUP BY keys`, with its distinct values counted so.

    Left as they are: expressions that have, beside such a count, something not known to be one aggregate or none.
    """
    tree = sqlglot.parse_one(query, dialect=DIALECT)
    group = tree.args.get("group")
    if not isinstance(tree, exp.Select) or group is None:
        return query
    keys, values = tree.expressions[: len(group.expressions)], tree.expressions[len(group.expressions) :]
    asked = _Asked()
    outer = [asked.split(value) for value in values]
    if not asked.flags:
        return query
    names = [key.alias_or_name for key in keys]
    listed = ", ".join(f'"{name}"' for name in names)
    joined = f"({_select(tree, [*keys, *asked.aggregates()], len(keys))}) AS made"
    for place, (value, conditions) in enumerate(asked.flags.items()):
        flags = [f"bool_or({condition}) AS flag{n}" for condition, n in conditions.items()]
        rows = _select(tree, [*keys, f"{value} AS counted", *flags], len(keys) + 1)
        counts = [
            f"count(*) FILTER (counted IS NOT NULL AND flag{n}) AS {_count(place, n)}" for n in conditions.values()
        ]
        joined += f" JOIN (SELECT {listed}, {', '.join(counts)} FROM ({rows}) GROUP BY ALL) USING ({listed})"
    return f"SELECT {listed}, {', '.join(outer)} FROM {joined}"


def columns(query: str) -> set[str]:
    """The columns that a query names, whatever of."""
    return {column.name for column in sqlglot.parse_one(query, dialect=DIALECT).find_all(exp.Column)}


def names_all(query: str) -> bool:
    """Whether a query names every column that it reads: nowhere does it say `*`, but to count rows."""
    stars = sqlglot.parse_one(query, dialect=DIALECT).find_all(exp.Star)
    return all(isinstance(star.parent, exp.Count) for star in stars)


class _Asked:
    """What the select list of a query is made of: distinct counts by value and condition, and all other aggregates."""

    def __init__(self) -> None:
        self.flags: dict[str, dict[str, int]] = {}
        self._others: dict[str, str] = {}

    def aggregates(self) -> list[str]:
        return [f"{text} AS {name}" for text, name in self._others.items()]

    def split(self, value: Expr) -> str:
        """The value as an expression over those counts and aggregates."""
        named, whole = f'"{value.alias_or_name}"', value.unalias()
        found = [node for node in whole.find_all(exp.AggFunc) if not node.find_ancestor(exp.AggFunc)]
        parts: list[Expr] = [node.parent if isinstance(node.parent, exp.Filter) else node for node in found]
        if not any(map(_is_distinct, parts)) or not _understood(whole, parts):
            return f"{self._other(whole)} AS {named}"
        if not any(whole is part for part in parts):
            for part in parts:
                part.replace(exp.column(self._part(part)))
            return f"{whole.sql(DIALECT)} AS {named}"
        return f"{self._part(whole)} AS {named}"

    def _part(self, node: Expr) -> str:
        if not _is_distinct(node):
            return self._other(node)
        condition = node.expression.this.sql(DIALECT) if isinstance(node, exp.Filter) else "true"
        value = node.find(exp.Distinct).expressions[0].sql(DIALECT)  # pyright: ignore[reportOptionalMemberAccess]
        conditions = self.flags.setdefault(value, {})
        return _count(list(self.flags).index(value), conditions.setdefault(condition, len(conditions)))

    def _other(self, node: Expr) -> str:
        return self._others.setdefault(node.sql(DIALECT), f"other{len(self._others)}")


def _count(place: int, condition: int) -> str:
    return f"count{place}_{condition}"


def _is_distinct(node: Expr) -> bool:
    count = node.this if isinstance(node, exp.Filter) else node
    if not isinstance(count, exp.Count) or not isinstance(count.this, exp.Distinct):
        return False
    return len(count.this.expressions) == 1


def _understood(whole: Expr, parts: list[Expr]) -> bool:
    """Whether nothing outside of these aggregates reads a row, nor may be an aggregate that has no name here."""
    inside = {id(node) for part in parts for node in part.walk()}
    unknown = (exp.Column, exp.Anonymous, exp.Window, exp.Subquery, exp.WithinGroup)
    return not any(isinstance(node, unknown) and id(node) not in inside for node in whole.walk())


def _select(tree: exp.Select, listed: list[Expr | str], keys: int) -> str:
    """Something else of the same rows, grouped by the first so many of it."""
    query = tree.select(*listed, append=False, dialect=DIALECT)
    query.set("group", exp.Group(expressions=[exp.Literal.number(n + 1) for n in range(keys)]))
    return query.sql(DIALECT)
