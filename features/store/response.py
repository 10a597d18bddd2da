"""How do packed rows become Feast's answer? Its bytes are written at once, and read by protobuf in one go.

Feast makes an object of each value it reads, of each key and of each time it needs one, and sorts the entities for
every view; two thirds of the time of a request go there. The answer is a protobuf message, whose bytes have a fixed
form: https://protobuf.dev/programming-guides/encoding. The numbers of its fields are Feast's own, taken from its
descriptors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from features.store.packed import Layout, Row

FIELDS: Mapping[str, str] = {
    "INT64": "int64_val", "DOUBLE": "double_val", "BOOL": "bool_val", "STRING": "string_val", "INT32": "int32_val",
    "FLOAT": "float_val", "BYTES": "bytes_val", "UNIX_TIMESTAMP": "unix_timestamp_val",
}  # fmt: skip
VALUES: Mapping[str, Callable[[Any], Value]] = {
    "INT64": lambda v: Value(int64_val=v),
    "DOUBLE": lambda v: Value(double_val=v),
    "BOOL": lambda v: Value(bool_val=v),
    "STRING": lambda v: Value(string_val=v),
    "INT32": lambda v: Value(int32_val=v),
    "FLOAT": lambda v: Value(float_val=v),
    "BYTES": lambda v: Value(bytes_val=v),
    "UNIX_TIMESTAMP": lambda v: Value(unix_timestamp_val=v),
}
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5  # protobuf's wire types
_PRESENT, _NOT_FOUND = bytes([FieldStatus.PRESENT]), bytes([FieldStatus.NOT_FOUND])


def _varint(number: int) -> bytes:
    """A whole number as protobuf writes it, seven bits a byte; a negative one as its 64 bits."""
    number &= 2**64 - 1
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _tag(message: Any, field: str, wire: int) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire)


_LENGTHS = [_varint(n) for n in range(20_000)]
_Vector = GetOnlineFeaturesResponse.FeatureVector
_VALUE = _tag(_Vector, "values", _LENGTH)
_STATUSES, _TIME = _tag(_Vector, "statuses", _LENGTH), _tag(_Vector, "event_timestamps", _LENGTH)
_RESULT = _tag(GetOnlineFeaturesResponse, "results", _LENGTH)
_NULL, _NEVER = _VALUE + b"\0", _TIME + b"\0"


def _long(text: bytes) -> bytes:
    """Bytes with their length before them."""
    return (_LENGTHS[len(text)] if len(text) < len(_LENGTHS) else _varint(len(text))) + text


Write = Callable[[Any], bytes]


def _fixed(kind: str, wire: int, letter: str) -> tuple[Write, Write]:
    """A number of a fixed width, and columns of such."""
    head = _tag(Value, FIELDS[kind], wire)
    packed = struct.Struct(f"<{len(head) + 2}s{letter}")
    begin = _VALUE + bytes([packed.size - 2]) + head
    pack = packed.pack
    return (
        lambda v: _NULL if v is None else pack(begin, v),
        lambda column: b"".join([_NULL if v is None else pack(begin, v) for v in column]),
    )


def _whole(kind: str) -> tuple[Write, Write]:
    """A whole number, and columns of such; those that are often met are written once."""
    head = _tag(Value, FIELDS[kind], _VARINT)
    known: dict[Any, bytes] = {n: _VALUE + _long(head + _varint(n)) for n in range(1_024)} | {None: _NULL}
    return (
        lambda v: known.get(v) or _VALUE + _long(head + _varint(v)),
        lambda column: b"".join([known.get(v) or _VALUE + _long(head + _varint(v)) for v in column]),
    )


def _texts(kind: str) -> tuple[Write, Write]:
    head = _tag(Value, FIELDS[kind], _LENGTH)

    def written(v: str | bytes | None) -> bytes:
        if v is None:
            return _NULL
        return _VALUE + _long(head + _long(v if isinstance(v, bytes) else v.encode()))

    return written, lambda column: b"".join(map(written, column))


# Of each type: how a value is written, and a column of values.
_WRITERS: Mapping[str, tuple[Write, Write]] = {
    "INT64": _whole("INT64"), "INT32": _whole("INT32"), "UNIX_TIMESTAMP": _whole("UNIX_TIMESTAMP"),
    "BOOL": _whole("BOOL"), "DOUBLE": _fixed("DOUBLE", _EIGHT, "d"), "FLOAT": _fixed("FLOAT", _FOUR, "f"),
    "STRING": _texts("STRING"), "BYTES": _texts("BYTES"),
}  # fmt: skip


@lru_cache(maxsize=1_024)
def names_of(names: tuple[str, ...]) -> bytes:
    """The part of the answer that says what its results are of."""
    answer = GetOnlineFeaturesResponse()
    answer.metadata.feature_names.val.extend(names)
    return answer.SerializeToString()


def keys_of(kind: str, values: Sequence[Any]) -> bytes:
    """The result of a key: as it was asked for, present, at no time."""
    tail = _STATUSES + _long(_PRESENT * len(values)) + _NEVER * len(values)
    return _RESULT + _long(_WRITERS[kind][1](values) + tail)


def results_of(shape: Layout, features: tuple[str, ...], rows: Sequence[Row | None]) -> bytes:
    """The results of some features of a view, each with a value for every row."""
    writers = _writers(shape, features)
    if len(rows) == 1:  # a request that waits for one profile: nothing is turned into columns
        (row,) = rows
        values = row.values if row else (None,) * len(shape.names)
        tail = _STATUSES + (b"\1" + _PRESENT + _stamp(row.event) if row else b"\1" + _NOT_FOUND + _NEVER)
        return b"".join([_RESULT + _long(one(values[at]) + tail) for at, one, _ in writers])
    nothing = (None,) * len(shape.names)
    columns = list(zip(*(row.values if row else nothing for row in rows), strict=True))
    statuses = b"".join([_PRESENT if row else _NOT_FOUND for row in rows])
    tail = _STATUSES + _long(statuses) + b"".join([_stamp(row.event) if row else _NEVER for row in rows])
    return b"".join([_RESULT + _long(column(columns[at]) + tail) for at, _, column in writers])


@lru_cache(maxsize=1_024)
def _writers(shape: Layout, features: tuple[str, ...]) -> list[tuple[int, Write, Write]]:
    """Of each feature its place in a row, and how a value and a column of it are written."""
    places = [shape.places[name] for name in features]
    return [(at, *_WRITERS[shape.kinds[at]]) for at in places]


@lru_cache(maxsize=4_096)
def _stamp(event: int) -> bytes:
    """An instant as the time of a value."""
    seconds, rest = divmod(event, 1_000_000)
    return _TIME + _long(Timestamp(seconds=seconds, nanos=1_000 * rest).SerializeToString())
