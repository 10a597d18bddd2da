"""Which pairs are worth comparing? Rules chosen from the table itself, those that find the most for what they cost.

A pair that no rule brings up is never found, so there are many rules, over different columns: whoever agrees in a
few of them, or in parts and sounds of them, is compared. What a rule finds is judged by a sample: pairs that agree in
so much that chance hardly does it, and that no rule before has brought up. What is left of the budget of pairs then
goes to the loosest rules that it still pays for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import duckdb
import numpy as np

from unification.matching.prepare import COLUMNS

_SAMPLE, _PAIRS = 60_000, 50_000  # most records that are looked at, and most of their pairs to be chosen from
_WHO = ("first", "birth", "nid", "email", "phone")  # who agrees in none of these is seldom one person
_MARGIN = 5.0  # bits by which likely pairs agree in more than chance does once in so many records
_SHARE = 0.4  # of the budget that one rule may take
ALL = 1_000_000  # pairs: of so few all are compared
# The budget: so many pairs per record, and of a small table more, where comparing takes seconds.
EACH, SMALL, EACH_SMALL, LEAST = 6, 50_000, 200, 1_500_000
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """sql: on l and r, as Splink takes it. pairs: about how many it brings up."""

    sql: str
    pairs: int


def budget(records: int) -> int:
    """How many pairs may be compared."""
    return max(LEAST, min(5_000_000, EACH_SMALL * records)) if records <= SMALL else max(LEAST, EACH * records)


def choose(con: duckdb.DuckDBPyConnection, columns: Sequence[str], table: str = "people", most: int = 0) -> list[Rule]:
    """The rules for a prepared table. most: pairs in all (default: `budget`)."""
    records = int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
    most = most or budget(records)
    if records * (records - 1) // 2 <= ALL:
        return [Rule("1 = 1", records * (records - 1) // 2)]  # of so few all pairs are compared
    share = max(-(-records // _SAMPLE), math.ceil(math.sqrt(most / _PAIRS)))
    candidates = _candidates(set(columns))
    numbers = _numbers(con, table, share, {key for keys in candidates for key in keys} | set(columns) - {"unique_id"})
    left = most // share**2
    brought = {keys: _agreeing([numbers[key] for key in keys], int(_SHARE * left)) for keys in candidates}
    few = [(keys, 0) for keys, pairs in brought.items() if pairs is not None and not len(pairs)]
    seen = {keys: pairs for keys, pairs in brought.items() if pairs is not None and len(pairs)}
    taken = _greedy(seen, numbers, records, left) if seen else []
    # what the sample does not show brings up few pairs: of many that does not matter, of few it may be all there are
    taken = _loosest([*taken, *(reversed(few) if records <= SMALL else ())])
    chosen = [Rule(" AND ".join(f"{_on(k, 'l')} = {_on(k, 'r')}" for k in keys), n * share**2)
              for keys, n in taken.items()]  # fmt: skip
    left = most - sum(rule.pairs for rule in chosen)
    if {"first", "last"} <= set(columns):
        chosen.append(Rule("l.first = r.last AND l.last = r.first", 0))
        if left > 0.5 * most:
            chosen.append(Rule("l.first_sound = r.last_sound AND l.last_sound = r.first_sound", 0))
    return chosen or [Rule("1 = 0", 0)]


def _on(key: str, side: str) -> str:
    return key.replace("(", f"({side}.") if "(" in key else f"{side}.{key}"


def _greedy(
    brought: dict[Keys, np.ndarray], numbers: dict[str, np.ndarray], records: int, left: int
) -> list[tuple[Keys, int]]:
    """Which keys, and how many pairs each adds to those before. brought: the pairs of each; left: how many may be."""
    universe, where = np.unique(np.concatenate([*brought.values()]), return_inverse=True)
    ends = np.cumsum([len(pairs) for pairs in brought.values()])[:-1]
    places = dict(zip(brought, np.split(where, ends), strict=True))
    likely, open_ = _likely(universe, numbers, records), np.ones(len(universe), bool)
    found: list[tuple[Keys, int]] = []

    def take(keys: Keys) -> None:
        nonlocal left
        cost = int(open_[places[keys]].sum())
        found.append((keys, cost))
        open_[places.pop(keys)] = False
        left -= cost

    while places:
        worth = {}
        for keys, at in places.items():
            new = at[open_[at]]
            if len(new) <= left and (gain := int(likely[new].sum())):
                worth[keys] = gain / len(new)
        if not worth:
            break
        take(max(worth, key=lambda keys: worth[keys]))
    for keys in brought:
        if keys in places and 0 < open_[places[keys]].sum() <= left:
            take(keys)
    return found


def _loosest(taken: Sequence[tuple[Keys, int]]) -> dict[Keys, int]:
    """Without those of which a looser one, taken later, brings up all pairs."""
    found: dict[Keys, int] = {}
    for keys, pairs in reversed(taken):
        loose = next((other for other in found if set(other) <= set(keys)), keys)
        found[loose] = found.get(loose, 0) + pairs
    return found


def _numbers(con: duckdb.DuckDBPyConnection, table: str, share: int, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Every key of a part of the records as a number; 0 where nothing is said."""
    numbers = ", ".join(f'CASE WHEN {key} IS NULL THEN 0 ELSE hash({key}) END AS "{key}"' for key in sorted(keys))
    found: Any = con.execute(f"SELECT {numbers} FROM {table} WHERE hash(unique_id) % {share} = 0").fetchnumpy()
    return found


def _agreeing(columns: Sequence[np.ndarray], most: int) -> np.ndarray | None:
    """The pairs (the first's place * records + the second's) that agree in all columns; None: they are too many."""
    said = np.flatnonzero(np.logical_and.reduce([column != 0 for column in columns]))
    code = np.zeros(len(said), np.uint64)
    for column in columns:
        code = code * np.uint64(0x9E3779B97F4A7C15) + column[said]
    order = np.argsort(code, kind="stable")
    code, said = code[order], said[order]
    _, many = np.unique(code, return_counts=True)
    if (many * (many - 1) // 2).sum() > most:
        return None
    found, at, step = [], np.arange(len(code)), 0
    while len(at):
        step += 1
        at = at[at < len(code) - step]
        at = at[code[at] == code[at + step]]
        found.append(said[at] * len(columns[0]) + said[at + step])
    return np.concatenate([*found, np.empty(0, np.int64)])


def _likely(pairs: np.ndarray, numbers: dict[str, np.ndarray], records: int) -> np.ndarray:
    """Which pairs agree in so much that they probably are one person."""
    left, right = np.divmod(pairs, len(next(iter(numbers.values()))))
    bits, who = np.zeros(len(pairs)), np.zeros(len(pairs), bool)
    for column in [column for column in COLUMNS if column in numbers]:
        values = numbers[column]
        many = np.unique(values[values != 0], return_counts=True)[1].astype(float)
        equal = (values[left] == values[right]) & (values[left] != 0)
        if len(many):
            bits += equal * -np.log2((many**2).sum() / many.sum() ** 2)
        who |= equal & (column in _WHO)
    return (bits > np.log2(records) + _MARGIN) & (who if any(c in numbers for c in _WHO) else True)


def _candidates(have: set[str]) -> list[tuple[str, ...]]:
    """Sets of keys that two records may agree in, in the order in which they are tried."""
    strong = [c for c in ("nid", "email", "phone", "birth") if c in have]
    names = [c for c in ("first", "last") if c in have]
    found: list[tuple[str, ...]] = [(c,) for c in strong]
    found += [("first", "last"), ("first_canon", "last"), ("first_sound", "last_sound")]
    where = ["street", "postcode", "city", "house", "place"]
    parts = [
        "first", "last", "first_canon", "first_sound", "last_sound", "substr(birth,1,4)", "substr(birth,5,4)",
        "email_user", *where,
    ]  # fmt: skip
    found += [("email_user",), ("street", "house"), ("last",), ("first",), ("last_sound",), ("street",), ("place",)]
    found += [
        ("email_domain",),
        ("substr(email,1,5)",),
        ("email_domain", "substr(first,1,1)"),
        ("email_domain", "substr(last,1,1)"),
    ]
    found += [("substr(first,1,3)", "substr(birth,1,4)"), ("substr(last,1,3)", "substr(birth,1,4)")]
    found += [("substr(first,1,3)", "city"), ("substr(last,1,3)", "city"), ("substr(birth,3,2)", "substr(birth,7,2)")]
    found += [("substr(nid,1,5)",), ("substr(nid,4,9)",), ("substr(birth,1,6)",), ("substr(birth,5,4)",)]
    found += [(a, b) for a, b in combinations(parts, 2)]
    found += [("birth", part) for part in ("last_sound", "first_sound", *where, "email_user", "sex")]
    found += [("substr(birth,1,6)", "sex"), ("substr(birth,5,4)", "sex"), ("age", "first_sound"), ("age", "last_sound")]
    found += [
        ("first_sound",),
        ("postcode", "sex"),
        ("substr(first,1,3)", "substr(last,1,3)"),
        ("city",),
        ("postcode",),
    ]
    found += [("first", a, b) for a, b in combinations(("age", "sex", "middle", *where), 2)]
    found += [("last", a, b) for a, b in combinations(("age", "sex", "middle", *where), 2)]
    found += [(name, "middle") for name in names] + [(name, "substr(birth,1,4)", "sex") for name in names]

    def there(key: str) -> bool:
        return (key.partition("(")[2].partition(",")[0] or key) in have

    return [keys for keys in dict.fromkeys(found) if all(map(there, keys))]
