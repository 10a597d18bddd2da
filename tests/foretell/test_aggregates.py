"""Aggregates that ibis does not name, against plain Python on random facts, and bit for bit on several threads."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pandas as pd
import pytest

from features import build
from foretell import FeatureView, Source, _, days, entropy, latest, past, top_share
from foretell.binding import facts_schema
from foretell.errors import DefinitionError

CUTOFF = datetime(2024, 6, 1, tzinfo=UTC)
TILL = Source(
    name="till", files="*.csv", role="order_line", event_at="at",
    columns={"order_id": "o", "amount": "a", "shelf": "s"},
    types={"shelf": "INTEGER"},
)  # fmt: skip
recent = past(days(90))
VIEW = FeatureView(
    name="likes",
    source="till",
    features={
        "brand": latest(_.brand),
        "amount": latest(_.amount),
        "recent_brand": latest(_.brand, where=recent & (_.quantity > 0)),
        "share": top_share(_.category),
        "recent_share": top_share(_.category, where=recent),
        "bits": entropy(_.category),
        "recent_bits": entropy(_.category, where=recent),
        "shelf_share": top_share(_.shelf),
        "shelf_bits": entropy(_.shelf),
        "reduced_share": top_share(_.brand, where=_.discount > 0),  # a condition that may be unknown
    },
)
Fact = dict[str, Any]


def facts(seed: int, profiles: int, most: int) -> list[Fact]:
    """Facts with nulls, few distinct values and few distinct instants, so that ties are many."""
    draw = Random(seed)
    made = []
    for profile in range(profiles):
        varied = draw.choice([1, 3, 30])
        for _n in range(draw.randrange(1, most)):
            made.append({
                "profile_id": f"p{profile:05d}", "fact_id": f"f{draw.randrange(10**12):012d}",
                "trust": draw.randrange(3), "event_at": CUTOFF - timedelta(days=draw.randrange(1, 180)),
                "brand": draw.choice([None, "x", "y", "z", ""]), "quantity": draw.choice([None, -1.0, 1.0]),
                "category": draw.choice([None, *(f"c{n}" for n in range(varied))]),
                "amount": draw.choice([None, 1.25, -3]),
                "discount": draw.choice([None, 0, 1]), "shelf": draw.choice([None, 1, 2, 3]), "order_id": "o",
                "cutoff": CUTOFF,
            })  # fmt: skip
    return made


def computed(rows: list[Fact], threads: int = 1, folder: Path | None = None) -> pd.DataFrame:
    """The view over these facts; with a folder, read from a file of many row groups, which threads share."""
    grouped, _empty = build.compile_view(VIEW, {"till": TILL})
    con = duckdb.connect()
    con.execute(f"SET TimeZone='UTC'; SET threads={threads}")
    frame = pd.DataFrame(rows)  # noqa: F841  (DuckDB reads it)
    con.execute(
        """CREATE TABLE facts AS SELECT profile_id, fact_id, trust::INTEGER AS trust, event_at, cutoff, brand, category,
               quantity::DOUBLE AS quantity, discount::DECIMAL(18,4) AS discount, amount::DECIMAL(18,4) AS amount,
               shelf::INTEGER AS shelf, order_id, NULL::DATE AS event_day, NULL::VARCHAR AS product_id,
               NULL::BOOLEAN AS cancelled FROM frame"""
    )
    if folder:
        file = folder / "facts.parquet"
        con.execute(f"COPY facts TO '{file}' (ROW_GROUP_SIZE 2048)")
        con.execute(f"DROP TABLE facts; CREATE VIEW facts AS SELECT * FROM read_parquet('{file}')")
    return con.execute(f"SELECT * FROM ({grouped}) ORDER BY profile_id").df().set_index("profile_id")


@cache
def example() -> tuple[list[Fact], pd.DataFrame]:
    rows = facts(0, 400, 12)
    return rows, computed(rows)


def naive_latest(rows: list[Fact], column: str) -> Any:
    known = [row for row in rows if row[column] is not None]
    return max(known, key=lambda row: (row["trust"], row["event_at"], row["fact_id"]))[column] if known else None


def naive_share(rows: list[Fact], column: str) -> float | None:
    counts = Counter(row[column] for row in rows if row[column] is not None)
    return max(counts.values()) / counts.total() if counts else None


def naive_bits(rows: list[Fact], column: str) -> float | None:
    counts = Counter(row[column] for row in rows if row[column] is not None)
    shares = [count / counts.total() for count in counts.values()]
    return sum(share * math.log2(1 / share) for share in shares) if counts else None


def lately(rows: list[Fact]) -> list[Fact]:
    return [row for row in rows if row["event_at"] >= CUTOFF - timedelta(days=90)]


NAIVE: dict[str, Callable[[list[Fact]], Any]] = {
    "brand": lambda rows: naive_latest(rows, "brand"),
    "amount": lambda rows: naive_latest(rows, "amount"),
    "recent_brand": lambda rows: naive_latest([row for row in lately(rows) if (row["quantity"] or 0) > 0], "brand"),
    "share": lambda rows: naive_share(rows, "category"),
    "recent_share": lambda rows: naive_share(lately(rows), "category"),
    "bits": lambda rows: naive_bits(rows, "category"),
    "recent_bits": lambda rows: naive_bits(lately(rows), "category"),
    "shelf_share": lambda rows: naive_share(rows, "shelf"),
    "shelf_bits": lambda rows: naive_bits(rows, "shelf"),
    "reduced_share": lambda rows: naive_share([row for row in rows if (row["discount"] or 0) > 0], "brand"),
}


@pytest.mark.parametrize("feature", VIEW.features)
def test_values_are_those_of_plain_python(feature: str) -> None:
    rows, found = example()
    mine: dict[str, list[Fact]] = {}
    for row in rows:
        mine.setdefault(row["profile_id"], []).append(row)
    assert set(found.index) == set(mine)
    unknown = 0
    for profile, own in mine.items():
        expected, got = NAIVE[feature](own), found.loc[profile, feature]
        if expected is None:
            unknown += 1
            assert pd.isna(got), profile
        elif isinstance(expected, str):
            assert got == expected, profile
        else:
            assert got == pytest.approx(float(expected), abs=1e-8), profile
    assert 0 < unknown < len(mine) / 2
    assert found[feature].nunique() > 1


def test_nothing_is_unknown() -> None:
    con = duckdb.connect()
    columns = {"profile_id": "VARCHAR", **facts_schema("till", {"till": TILL})}
    listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    con.execute(f"CREATE TABLE facts ({listed})")
    assert con.execute(build.compile_view(VIEW, {"till": TILL})[1]).fetchall() == [(None,) * len(VIEW.features)]


def test_one_value_has_no_entropy_and_two_have_a_bit() -> None:
    one = facts(1, 1, 2)[0]
    rows = [{**one, "profile_id": p, "category": c} for p, c in [("a", "x"), ("a", "x"), ("b", "x"), ("b", "y")]]
    found = computed(rows)
    assert found["bits"].to_dict() == {"a": 0.0, "b": 1.0}
    assert found["share"].to_dict() == {"a": 1.0, "b": 0.5}


def test_builds_agree_to_the_bit_on_any_number_of_threads_and_in_any_order(tmp_path: Path) -> None:
    rows = facts(2, 800, 60)
    assert len(rows) > 10 * 2048
    one = computed(rows)
    Random(3).shuffle(rows)
    for threads in (2, 8):
        pd.testing.assert_frame_equal(computed(rows, threads, tmp_path), one, check_exact=True)


def test_they_pickle_and_say_what_they_want() -> None:
    copy = pickle.loads(pickle.dumps(VIEW))
    assert build.compile_view(copy, {"till": TILL}) == build.compile_view(VIEW, {"till": TILL})
    for word, make in {"latest": latest, "top_share": top_share, "entropy": entropy}.items():
        with pytest.raises(
            DefinitionError, match=rf"{word}\('brand'\): expected an expression over the facts, got 'br"
        ):
            make("brand")
