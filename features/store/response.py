"""How do packed rows become Feast's answer? Column by column, equal to what Feast's own stores lead to.

Feast makes an object of each value it reads, of each key and of each time it needs them, and sorts the entities for
every view. Here keys are texts at once, and a value is made once, in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feast import utils
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from features.store import keys
from features.store.packed import Layout, Row

if TYPE_CHECKING:
    from feast import FeatureView

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
_NULL, _NEVER = Value(), Timestamp()
_PRESENT, _NOT_FOUND = FieldStatus.PRESENT, FieldStatus.NOT_FOUND


def texts_of(view: FeatureView, asked: Mapping[str, list[Value]], joins: Mapping[str, str]) -> list[str]:
    """The texts of a view's keys of every row of a request. KeyError, as Feast words it, where a key is not given."""
    given = utils._get_table_entity_values(view, dict(joins), dict(asked))
    if len(given) != len(view.join_keys) or not all(given.values()):
        utils._get_unique_entities(view, dict(asked), dict(joins))
    columns = [list(map(keys.value_of, values)) for _, values in sorted(given.items())]
    return [keys.of_parts(parts) for parts in zip(*columns, strict=True)]


def fill(
    answer: Any, view: FeatureView, features: Sequence[str], shape: Layout, rows: Sequence[Row | None],
    full_names: bool, versions: bool,
) -> None:  # fmt: skip
    """Add the features of a view to a GetOnlineFeaturesResponse, a row for each of the request."""
    name = view.projection.name_to_use()
    answer.metadata.feature_names.val.extend(f"{name}__{f}" if full_names else f for f in features)
    if versions:
        _tell_version(answer, view)
    times = [_NEVER if row is None else _time(row.event) for row in rows]
    found = [row is not None for row in rows]
    statuses = [_PRESENT if there else _NOT_FOUND for there in found]
    places = {f: place for place, f in enumerate(shape.names)}
    for feature in features:
        place = places[feature]
        make = VALUES[shape.kinds[place]]
        answer.results.add(
            values=[
                _NULL if row is None or (v := row.values[place]) is None else make(v) for row in rows
            ],
            statuses=statuses, event_timestamps=times,
        )  # fmt: skip
    _count(view, len(features) * sum(found), len(features) * (len(rows) - sum(found)))


def _time(event: int) -> Timestamp:
    seconds, rest = divmod(event, 1_000_000)
    return Timestamp(seconds=seconds, nanos=1_000 * rest)


def _tell_version(answer: Any, view: FeatureView) -> None:
    name = view.projection.name_alias or view.projection.name
    if name not in [said.name for said in answer.metadata.feature_view_metadata]:
        said = answer.metadata.feature_view_metadata.add()
        said.name = name
        said.version = getattr(view, "current_version_number", 0) or 0


def _count(view: FeatureView, present: int, absent: int) -> None:
    """For Feast's own metrics, where they are on."""
    try:
        from feast.metrics import track_feature_statuses
    except ImportError:
        return
    track_feature_statuses(view.name, present, absent)
