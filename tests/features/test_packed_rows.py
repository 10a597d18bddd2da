"""The format of packed rows: what is packed is unpacked, by rows as by columns, and a row of another schema is none."""

from __future__ import annotations

import math
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.store import keys
from features.store.packed import KINDS, NULL_TIME, UNKNOWN, Row, layout, micros
from foretell.errors import DataError

INTS, SMALL = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
VALUES: dict[str, st.SearchStrategy] = {
    "INT64": INTS,
    "DOUBLE": st.floats(allow_nan=False),
    "BOOL": st.booleans(),
    "STRING": st.text(st.characters(exclude_categories=["Cs"])),
    "INT32": SMALL,
    "FLOAT": st.floats(width=32, allow_nan=False),
    "BYTES": st.binary(),
    "UNIX_TIMESTAMP": INTS,
}
STAMPS = st.integers(UNKNOWN, 2**63 - 1)
Schema = tuple[tuple[str, str], ...]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Schema, list[Row]]:
    """A schema of up to 20 features, and rows of it with nulls."""
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), max_size=20))
    row = st.tuples(*[st.none() | VALUES[kind] for kind in kinds])
    rows = draw(st.lists(st.builds(Row, STAMPS, STAMPS, row), min_size=1, max_size=8))
    return tuple((f"f{i}", kind) for i, kind in enumerate(kinds)), rows


def columns_of(schema: Schema, rows: list[Row]) -> dict[str, pa.Array]:
    return {name: pa.array([row.values[i] for row in rows], KINDS[kind].arrow) for i, (name, kind) in enumerate(schema)}


def test_every_type_has_values_here() -> None:
    assert VALUES.keys() == KINDS.keys()


@given(tables())
@settings(deadline=None, max_examples=200)
def test_packed_by_row_or_by_column_it_is_the_same(made: tuple[Schema, list[Row]]) -> None:
    """A null UnixTimestamp is Feast's least number in columns, and stays a null in a row."""
    schema, rows = made
    shape = layout(schema)
    packed = [shape.pack(row.values, row.event, row.created) for row in rows]
    assert [shape.unpack(one) for one in packed] == rows
    as_feast_has_it = [
        row._replace(values=tuple(
            NULL_TIME if v is None and kind == "UNIX_TIMESTAMP" else v
            for v, (_, kind) in zip(row.values, schema, strict=True)
        ))
        for row in rows
    ]  # fmt: skip
    event, created = (pa.array([row[i] for row in rows], pa.timestamp("us", tz="UTC")) for i in (0, 1))
    in_columns = shape.pack_columns(columns_of(schema, rows), event, created)
    assert [shape.unpack(one) for one in in_columns] == as_feast_has_it
    table = shape.unpack_columns(packed)
    assert table.select([name for name, _ in schema]).to_pylist() == [
        dict(zip([name for name, _ in schema], row.values, strict=True)) for row in rows
    ]
    assert table["event_timestamp"].cast(pa.int64()).to_pylist() == [row.event for row in rows]
    assert [UNKNOWN if at is None else at for at in table["created"].cast(pa.int64()).to_pylist()] == [
        row.created for row in rows
    ]


@given(st.tuples(STAMPS, STAMPS), st.tuples(STAMPS, STAMPS))
def test_stamps_compare_as_bytes(one: tuple[int, int], other: tuple[int, int]) -> None:
    shape = layout((("a", "INT64"),))
    a, b = (shape.pack([0], *stamps)[8:24] for stamps in (one, other))
    assert (a < b) == (one < other)


def test_nan_is_null_in_columns_as_feast_has_it_and_a_value_in_a_row() -> None:
    shape = layout((("a", "DOUBLE"), ("b", "FLOAT")))
    now = pa.array([datetime(2024, 1, 1, tzinfo=UTC)])
    nan = {"a": pa.array([math.nan]), "b": pa.array([math.nan], pa.float32())}
    (packed,) = shape.pack_columns(nan, now, now)
    assert shape.unpack(packed).values == (None, None)
    assert all(map(math.isnan, shape.unpack(shape.pack([math.nan, math.nan], 0, 0)).values))


@pytest.mark.parametrize(
    "other",
    [
        (("a", "INT64"), ("b", "STRING"), ("c", "INT64")), (("a", "INT64"),), (("b", "STRING"), ("a", "INT64")),
        (("a", "INT64"), ("c", "STRING")), (("a", "DOUBLE"), ("b", "STRING")), (("a", "INT64"), ("b", "BYTES")), (),
    ],
)  # fmt: skip
def test_a_row_of_another_schema_is_none(other: Schema) -> None:
    """More, fewer, others by order, name or type."""
    shape, strange = layout((("a", "INT64"), ("b", "STRING"))), layout(other)
    packed = shape.pack([1, "x"], 0, 0)
    assert shape.unpack(packed) is not None
    assert strange.unpack(packed) is None
    assert shape.unpack(strange.pack([None] * len(other), 0, 0)) is None
    assert shape.unpack(None) is shape.unpack(b"") is None
    with pytest.raises(ValueError, match="rows of one schema"):
        strange.unpack_columns([packed])


def test_types_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"^tags: expected a type that can be packed \(INT64, .*\), got STRING_LIST; dec"
    ):
        layout((("a", "INT64"), ("tags", "STRING_LIST")))
    now = pa.array([datetime(2024, 1, 1, tzinfo=UTC)])
    with pytest.raises(DataError, match=r"^a: expected values of type INT64, got string \(Failed to parse string: 'x'"):
        layout((("a", "INT64"),)).pack_columns({"a": pa.array(["x"])}, now, now)
    with pytest.raises(DataError, match="a: expected values of type INT64, got double"):
        layout((("a", "INT64"),)).pack_columns({"a": pa.array([1.5])}, now, now)
    with pytest.raises(DataError, match="a: expected values of type INT32, got int64"):
        layout((("a", "INT32"),)).pack_columns({"a": pa.array([2**40])}, now, now)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Oslo"])
def test_times_of_any_unit_and_zone(unit: str, zone: str | None) -> None:
    at = datetime(2024, 7, 1, 12, 30, 15, tzinfo=UTC)
    times = pa.array([at.replace(tzinfo=None), None], pa.timestamp(unit))
    times = times if zone is None else times.cast(pa.timestamp(unit, tz=zone))
    shape = layout((("seen", "UNIX_TIMESTAMP"),))
    first, second = map(shape.unpack, shape.pack_columns({"seen": times}, times, times))
    assert first == Row(micros(at), micros(at), (int(at.timestamp()),))
    assert first.at == at
    assert second == Row(UNKNOWN, UNKNOWN, (NULL_TIME,))


def test_seconds_are_whole_and_rounded_down() -> None:
    times = [
        datetime(1969, 12, 31, 23, 59, 58, 700_000, tzinfo=UTC),
        datetime(2024, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC),
    ]
    shape, stamps = layout((("seen", "UNIX_TIMESTAMP"),)), pa.array(times)
    found = [shape.unpack(row).values[0] for row in shape.pack_columns({"seen": stamps}, stamps, None)]
    assert found == [-2, 1704067200]
    assert micros(times[1]) - micros(times[1].replace(tzinfo=None)) == 0
    assert micros(None) == UNKNOWN
    assert shape.unpack(shape.pack([None], micros(times[0]), micros(None))).at == times[0] + timedelta(0)


def test_columns_are_read_from_slices_and_dictionaries() -> None:
    """What Arrow hands over need not begin where its buffer does."""
    shape = layout((("a", "INT64"), ("b", "STRING"), ("c", "BOOL")))
    texts = [f"é{i}" if i % 3 else None for i in range(100)]
    table = pa.table({
        "a": list(range(100)), "b": pa.array(texts).dictionary_encode(), "c": [i % 2 == 0 for i in range(100)],
        "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 100),
    })  # fmt: skip
    batch = table.to_batches()[0].slice(37, 50)
    columns: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    rows = [shape.unpack(row).values for row in shape.pack_columns(columns, columns["at"], None)]
    assert rows == [(i, texts[i], i % 2 == 0) for i in range(37, 87)]


PARTS = st.text(string.ascii_lowercase + "\\" + keys.BETWEEN + "s", max_size=4)


@given(st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=20, unique=True))
def test_entities_of_several_keys_never_share_a_text(entities: list[tuple[str, str]]) -> None:
    texts = [keys.of_parts(entity) for entity in entities]
    assert len(set(texts)) == len(texts)
    columns = {"b": pa.array([b for _, b in entities]), "a": pa.array([a for a, _ in entities])}
    assert keys.of_columns(columns) == texts  # by the order of the keys' names
    for (a, b), text in zip(entities, texts, strict=True):
        assert text.split(keys.BETWEEN) == [keys.one_of(a), keys.one_of(b)]


def test_keys_that_cannot_be() -> None:
    assert keys.of_columns({"a": pa.array([1, -2])}) == ["1", "-2"]
    with pytest.raises(DataError, match="a: expected a key in every row, got 1 nulls"):
        keys.of_columns({"a": pa.array(["x", None])})
    with pytest.raises(DataError, match="a: expected keys of text or whole numbers, got double"):
        keys.of_columns({"a": pa.array([1.5])})
