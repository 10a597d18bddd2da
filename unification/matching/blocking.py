"""Which pairs are worth comparing? Rules chosen from the table itself, as loose as a budget of pairs lets them be.

A pair that no rule brings up is never found, so there are many rules, over different columns: whoever agrees in a
few of them, or in parts and sounds of them, is compared. Rules come in the order of what they find for what they
cost, and one that would bring up too many pairs is passed over for the narrower ones after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import duckdb

_SAMPLE = 100_000  # records that are counted; more are extrapolated from so many
_SHARE = 0.4  # of the budget that one rule may take
ALL = 1_000_000  # pairs: of so few all are compared
# The budget: so many pairs per record, and of a small table more, where comparing takes seconds.
EACH, SMALL, EACH_SMALL, LEAST = 6, 50_000, 200, 1_500_000


# Key -> the column that it is made of: who agrees in the column agrees in it.
_FROM = {
    "first_canon": "first", "first_sound": "first", "last_sound": "last", "email_user": "email",
    "email_domain": "email",
    **{f"substr({column},{at})": column for column, at in (
        ("first", "1,1"), ("first", "1,3"), ("last", "1,1"), ("last", "1,3"), ("birth", "1,4"), ("birth", "1,6"),
        ("birth", "3,2"), ("birth", "5,4"), ("birth", "7,2"), ("email", "1,5"), ("nid", "1,5"), ("nid", "4,9"),
    )},
}  # fmt: skip


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
    candidates = _candidates(set(columns))
    scale = _sample(con, table, records, candidates)
    taken: dict[frozenset[str], int] = {}
    for keys in candidates:
        said = _implied(keys)
        if any(loose <= said for loose in taken):
            continue  # a looser one brings these up already
        tighter = [other for other in taken if frozenset(keys) <= _implied(other)]
        left = most - sum(pairs for other, pairs in taken.items() if other not in tighter)
        pairs = int(_pairs(con, keys) * scale)
        if 0 < pairs <= min(left, _SHARE * most):
            taken = {other: n for other, n in taken.items() if other not in tighter} | {frozenset(keys): pairs}
    chosen = [
        Rule(" AND ".join(f"{_on(k, 'l')} = {_on(k, 'r')}" for k in sorted(keys)), n) for keys, n in taken.items()
    ]
    left = most - sum(taken.values())
    if {"first", "last"} <= set(columns):
        chosen.append(Rule("l.first = r.last AND l.last = r.first", 0))
        if left > 0.5 * most:
            chosen.append(Rule("l.first_sound = r.last_sound AND l.last_sound = r.first_sound", 0))
    return chosen


def _implied(keys: Iterable[str]) -> frozenset[str]:
    """All keys in which two agree that agree in these."""
    return frozenset(keys) | {key for key in _FROM if _FROM[key] in keys}


def _on(key: str, side: str) -> str:
    return key.replace("(", f"({side}.") if "(" in key else f"{side}.{key}"


def _sample(con: duckdb.DuckDBPyConnection, table: str, records: int, candidates: Sequence[Sequence[str]]) -> float:
    """Make `_keys`, every key that a candidate reads as a number, of a part of the records. Returns how many pairs
    there are for one among these."""
    share = -(-records // _SAMPLE)
    names = dict.fromkeys(key for keys in candidates for key in keys)
    numbers = ", ".join(f'CASE WHEN {key} IS NOT NULL THEN hash({key}) END AS "{key}"' for key in names)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE _keys AS SELECT {numbers} FROM {table} WHERE hash(unique_id) % {share} = 0"
    )
    return float(share**2)


def _pairs(con: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> int:
    """How many pairs of the sample agree in all of these."""
    names = [f'"{key}"' for key in keys]
    said = " AND ".join(f"{name} IS NOT NULL" for name in names)
    query = f"SELECT count(*) AS n FROM _keys WHERE {said} GROUP BY {', '.join(names)}"
    return int(con.execute(f"SELECT coalesce(sum(n * (n - 1) // 2), 0) FROM ({query})").fetchall()[0][0])


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
