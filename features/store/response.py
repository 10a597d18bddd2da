"""How do packed rows become Feast's answer? Its bytes are written at once, and read by protobuf in one go.

Feast makes an object of each value it reads, of each key and of each time it needs one, and sorts the entities for
every view; two thirds of the time of a request go there. The answer is a protobuf message, whose bytes have a fixed
form: https://protobuf.dev/programming-guides/encoding. The numbers of its fields are Feast's own, taken from its
descriptors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
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


def _fixed(kind: str, wire: int, letter: str) -> Callable[[Sequence[Any]], bytes]:
    """Columns of numbers of a fixed width."""
    head = _tag(Value, FIELDS[kind], wire)
    packed = struct.Struct(f"<{len(head) + 2}s{letter}")
    begin = _VALUE + bytes([packed.size - 2]) + head
    pack = packed.pack
    return lambda column: b"".join([_NULL if v is None else pack(begin, v) for v in column])


def _whole(kind: str) -> Callable[[Sequence[Any]], bytes]:
    """Columns of whole numbers; those that are often met are written once."""
    head = _tag(Value, FIELDS[kind], _VARINT)
    known: dict[Any, bytes] = {n: _VALUE + _long(head + _varint(n)) for n in range(1_024)} | {None: _NULL}

    def written(column: Sequence[Any]) -> bytes:
        return b"".join([known.get(v) or _VALUE + _long(head + _varint(v)) for v in column])

    return written


def _texts(kind: str) -> Callable[[Sequence[Any]], bytes]:
    head = _tag(Value, FIELDS[kind], _LENGTH)

    def written(column: Sequence[Any]) -> bytes:
        parts = (_NULL if v is None else v if isinstance(v, bytes) else v.encode() for v in column)
        return b"".join([v if v is _NULL else _VALUE + _long(head + _long(v)) for v in parts])

    return written


_COLUMNS: Mapping[str, Callable[[Sequence[Any]], bytes]] = {
    "INT64": _whole("INT64"), "INT32": _whole("INT32"), "UNIX_TIMESTAMP": _whole("UNIX_TIMESTAMP"),
    "BOOL": _whole("BOOL"), "DOUBLE": _fixed("DOUBLE", _EIGHT, "d"), "FLOAT": _fixed("FLOAT", _FOUR, "f"),
    "STRING": _texts("STRING"), "BYTES": _texts("BYTES"),
}  # fmt: skip


def names_of(names: Sequence[str]) -> bytes:
    """The part of the answer that says what its results are of."""
    answer = GetOnlineFeaturesResponse()
    answer.metadata.feature_names.val.extend(names)
    return answer.SerializeToString()


def keys_of(kind: str, values: Sequence[Any]) -> bytes:
    """The result of a key: as it was asked for, present, at no time."""
    tail = _STATUSES + _long(_PRESENT * len(values)) + _NEVER * len(values)
    return _RESULT + _long(_COLUMNS[kind](values) + tail)


def results_of(shape: Layout, features: Sequence[str], rows: Sequence[Row | None]) -> bytes:
    """The results of some features of a view, each with a value for every row."""
    times: dict[int, bytes] = {}
    stamps, statuses, found = [], [], []
    nothing = (None,) * len(shape.names)
    for row in rows:
        if row is None:
            stamps.append(_NEVER)
            statuses.append(_NOT_FOUND)
            found.append(nothing)
            continue
        if (stamp := times.get(row.event)) is None:
            stamp = times[row.event] = _TIME + _long(_time(row.event).SerializeToString())
        stamps.append(stamp)
        statuses.append(_PRESENT)
        found.append(row.values)
    tail = _STATUSES + _long(b"".join(statuses)) + b"".join(stamps)
    columns = list(zip(*found, strict=True))
    places = [shape.places[name] for name in features]
    return b"".join([_RESULT + _long(_COLUMNS[shape.kinds[at]](columns[at]) + tail) for at in places])


def _time(event: int) -> Timestamp:
    seconds, rest = divmod(event, 1_000_000)
    return Timestamp(seconds=seconds, nanos=1_000 * rest)
