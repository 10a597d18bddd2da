"""How is a row of features packed? One value of bytes per entity and view: schema, stamps, nulls, numbers, then texts.

    8  digest of the features' names and types, in their order: a row of another schema counts as absent
    8  event_timestamp, 8 created: microseconds since 1970, big-endian with the sign turned round, so that
       the bytes of the two compare as the times do
    ⌈features / 8⌉  a bit for each feature that is null, the first feature's the lowest of the first byte
    then of each feature its number, little-endian: 8 bytes of Int64, Float64 and UnixTimestamp (whole seconds), 4 of
       Int32 and Float32, 1 of Bool; of a String or Bytes the 4 bytes of where its text ends
    then the texts, one after the other

Columns are packed and unpacked whole; a single row is unpacked by one call of `struct`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from foretell.errors import DataError

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
STAMPED = 24  # bytes of schema and stamps
UNKNOWN = -(2**63)  # `created` of a row that was written without: before any other
NULL_TIME = -(2**63)  # Feast's null of a UnixTimestamp
_SIGN = 2**63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMPS = struct.Struct(">QQ")


class Kind(NamedTuple):
    """A type of values: its letter in `struct`, its type in NumPy and in Arrow."""

    letter: str
    number: str
    arrow: pa.DataType


KINDS: Mapping[str, Kind] = {
    "INT64": Kind("q", "<i8", pa.int64()),
    "DOUBLE": Kind("d", "<f8", pa.float64()),
    "BOOL": Kind("?", "u1", pa.bool_()),
    "STRING": Kind("I", "<u4", pa.large_string()),
    "INT32": Kind("i", "<i4", pa.int32()),
    "FLOAT": Kind("f", "<f4", pa.float32()),
    "BYTES": Kind("I", "<u4", pa.large_binary()),
    "UNIX_TIMESTAMP": Kind("q", "<i8", pa.int64()),
}
TEXTS = ("STRING", "BYTES")


class Row(NamedTuple):
    """An unpacked row: its stamps in microseconds since 1970, and the features' values in the schema's order."""

    event: int
    created: int
    values: tuple[Any, ...]

    @property
    def at(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.event)


@lru_cache(maxsize=65_536)
def _places_of(nulls: bytes) -> tuple[int, ...]:
    """Which features are null."""
    bits = int.from_bytes(nulls, "little")
    return tuple(i for i in range(8 * len(nulls)) if bits >> i & 1)


_new = tuple.__new__  # what a named tuple calls, after looking at its arguments


def micros(at: datetime | None) -> int:
    """An instant in microseconds since 1970; one without a zone is UTC, none at all is before any other."""
    if at is None:
        return UNKNOWN
    return ((at.replace(tzinfo=UTC) if at.tzinfo is None else at) - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=4096)
def layout(features: tuple[tuple[str, str], ...]) -> Layout:
    """The layout of a schema: names of features with their types, as Feast calls them ("INT64", …)."""
    return Layout(features)


class Layout:
    """How rows of one schema are packed. DataError if a type is not one of KINDS."""

    def __init__(self, features: Sequence[tuple[str, str]]):
        for name, kind in features:
            if kind not in KINDS:
                raise DataError(
                    name, f"expected a type that can be packed ({', '.join(KINDS)}), got {kind}",
                    "declare the feature as one of them, or keep it in one of Feast's own stores",
                )  # fmt: skip
        self.names = tuple(name for name, _ in features)
        self.kinds = tuple(kind for _, kind in features)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.schema = sha256(repr(tuple(features)).encode()).digest()[:8]
        self._nulls = (len(self.names) + 7) // 8
        self._numbers = struct.Struct("<" + "".join(KINDS[kind].letter for kind in self.kinds))
        self._first = STAMPED + self._nulls
        self.width = self._first + self._numbers.size  # bytes before the texts
        self._texts = tuple((i, kind == "STRING") for i, kind in enumerate(self.kinds) if kind in TEXTS)
        self._full = bytes(self._nulls)

    # One row.

    def pack(self, values: Sequence[Any], event: int, created: int) -> bytes:
        """One row of Python values in the schema's order; None is null. A text is str or bytes, as its type says."""
        nulls, numbers, texts, end = 0, [], [], 0
        for i, (value, kind) in enumerate(zip(values, self.kinds, strict=True)):
            if value is None:
                nulls |= 1 << i
            if kind in TEXTS:
                text = b"" if value is None else value.encode() if kind == "STRING" else value
                texts.append(text)
                end += len(text)
                numbers.append(end)
            else:
                numbers.append(0 if value is None else value)
        head = self.schema + _STAMPS.pack(event + _SIGN, created + _SIGN) + nulls.to_bytes(self._nulls, "little")
        return b"".join([head, self._numbers.pack(*numbers), *texts])

    def unpack(self, packed: bytes | None) -> Row | None:
        """The row, or None if there is none or if it is one of another schema."""
        if packed is None or packed[:8] != self.schema:
            return None
        event, created = _STAMPS.unpack_from(packed, 8)
        values: tuple[Any, ...] = self._numbers.unpack_from(packed, self._first)
        nulls = packed[STAMPED : self._first]
        if self._texts or nulls != self._full:
            whole, begin, width = list(values), 0, self.width
            for i, decoded in self._texts:
                end = values[i]
                text = packed[width + begin : width + end]
                whole[i] = text.decode() if decoded else text
                begin = end
            if nulls != self._full:
                for i in _places_of(nulls):
                    whole[i] = None
            values = tuple(whole)
        return _new(Row, (event - _SIGN, created - _SIGN, values))

    # Many rows.

    def pack_columns(self, columns: Mapping[str, pa.Array], event: pa.Array, created: pa.Array | None) -> list[bytes]:
        """Every row of some columns. As Feast has it, NaN is null, and a null UnixTimestamp is its least number.

        event, created: times of any unit. DataError if a column cannot be read as its feature's type.
        """
        rows = len(event)
        fixed = np.zeros((rows, self.width), np.uint8)
        fixed[:, :8] = np.frombuffer(self.schema, np.uint8)
        fixed[:, 8:16] = _stamps(event, rows)
        fixed[:, 16:24] = _stamps(created, rows)
        nulls, texts, begin, ends = np.zeros((rows, len(self.names)), bool), [], self._first, np.zeros(rows, np.int64)
        for i, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            column = _typed(name, kind, columns[name])
            if column.null_count:
                nulls[:, i] = column.is_null().to_numpy(zero_copy_only=False)
            if kind in TEXTS:
                texts.append(column.fill_null("" if kind == "STRING" else b"").cast(pa.large_binary()))
                ends = ends + pc.binary_length(texts[-1]).to_numpy()
                numbers = ends
            elif kind == "BOOL":
                numbers = column.fill_null(False).to_numpy(zero_copy_only=False)
            else:
                numbers = column.fill_null(0).to_numpy()
            typed = np.ascontiguousarray(numbers, dtype=KINDS[kind].number)
            fixed[:, begin : begin + typed.itemsize] = typed.view(np.uint8).reshape(rows, -1)
            begin += typed.itemsize
        if nulls.any():
            fixed[:, STAMPED : self._first] = np.packbits(nulls, axis=1, bitorder="little")
        return _sliced(fixed, texts)

    def unpack_columns(self, packed: Sequence[bytes]) -> pa.Table:
        """event_timestamp, created and every feature of rows of this schema, in their order; ValueError for others."""
        rows = len(packed)
        if any(row[:8] != self.schema for row in packed):
            raise ValueError("expected rows of one schema, the layout's own")
        fixed = np.frombuffer(b"".join(row[: self.width] for row in packed), np.uint8).reshape(rows, self.width)
        stamps = np.ascontiguousarray(fixed[:, 8:STAMPED]).view(">u8").astype(np.uint64) ^ np.uint64(_SIGN)
        times = pa.timestamp("us", tz="UTC")
        made = {
            "event_timestamp": pa.array(stamps[:, 0].view(np.int64)).cast(times),
            "created": pa.array(stamps[:, 1].view(np.int64), mask=stamps[:, 1] == np.uint64(_SIGN)).cast(times),
        }
        nulls = np.unpackbits(fixed[:, STAMPED : self._first], axis=1, bitorder="little").astype(bool)
        begin, last = self._first, np.zeros(rows, np.int64)
        for i, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            size = np.dtype(KINDS[kind].number).itemsize
            numbers = np.ascontiguousarray(fixed[:, begin : begin + size]).view(KINDS[kind].number).ravel()
            begin += size
            if kind in TEXTS:
                spans = zip(packed, (last + self.width).tolist(), (numbers + self.width).tolist(), strict=True)
                column = pa.array([row[a:b] for row, a, b in spans], pa.large_binary()).cast(KINDS[kind].arrow)
                last = numbers.astype(np.int64)
                column = pc.if_else(pa.array(nulls[:, i]), pa.scalar(None, column.type), column)
            else:
                typed = numbers.astype(bool) if kind == "BOOL" else numbers
                column = pa.array(typed, KINDS[kind].arrow, mask=nulls[:, i])
            made[name] = column
        return pa.table(made)


def _stamps(times: pa.Array | None, rows: int) -> np.ndarray:
    """Times as rows of 8 bytes that compare as they do."""
    if times is None:
        numbers = np.full(rows, UNKNOWN, np.int64)
    else:
        micros = times.cast(pa.timestamp("us", tz=times.type.tz), safe=False).cast(pa.int64())
        numbers = micros.fill_null(UNKNOWN).to_numpy()
    turned = numbers.astype(np.int64).view(np.uint64) ^ np.uint64(_SIGN)
    return turned.astype(">u8").view(np.uint8).reshape(rows, 8)


def _typed(name: str, kind: str, column: pa.Array) -> pa.Array:
    try:
        if kind == "UNIX_TIMESTAMP":
            if not pa.types.is_timestamp(column.type):
                return column.cast(pa.int64()).fill_null(NULL_TIME)
            fine = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
            whole = pa.array(fine.fill_null(0).to_numpy() // 1_000_000)
            return pc.if_else(fine.is_null(), pa.scalar(NULL_TIME), whole)
        column = column.cast(KINDS[kind].arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            name, f"expected values of type {kind}, got {column.type} ({str(error).splitlines()[0]})",
            "cast the column before it is written",
        ) from None  # fmt: skip
    if kind in ("DOUBLE", "FLOAT"):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _sliced(fixed: np.ndarray, texts: list[pa.Array]) -> list[bytes]:
    """The rows of a matrix of bytes, each followed by its texts."""
    rows, width = fixed.shape
    if not texts:
        data = fixed.tobytes()
        return [data[a : a + width] for a in range(0, rows * width, width)]
    offsets = pa.py_buffer(np.arange(0, (rows + 1) * width, width, dtype=np.int64))
    first = pa.Array.from_buffers(pa.large_binary(), rows, [None, offsets, pa.py_buffer(fixed.tobytes())])
    joined = pc.binary_join_element_wise(first, *texts, pa.scalar(b"", pa.large_binary()))
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.combine_chunks()
    _, ends, data = joined.buffers()
    where = np.frombuffer(ends, np.int64)[joined.offset : joined.offset + rows + 1].tolist()
    whole = data.to_pybytes() if data is not None else b""
    return [whole[a:b] for a, b in pairwise(where)]
