"""Under which text does a row lie? The entity's id; of several keys all of them, in the order of the keys' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute

from foretell.errors import DataError

if TYPE_CHECKING:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
BETWEEN = "\x1f"
_WRITTEN = (("\\", "\\\\"), (BETWEEN, "\\s"))  # how these are written within one of several keys
_KINDS = ("string_val", "int64_val", "int32_val")


def one_of(part: str) -> str:
    """A key as it is written where a row has several."""
    for text, written in _WRITTEN:
        part = part.replace(text, written)
    return part


def of_parts(parts: Sequence[Any]) -> str:
    """The text of one entity. parts: its keys' values, in the order of the keys' names."""
    if len(parts) == 1:
        return str(parts[0])
    return BETWEEN.join(one_of(str(part)) for part in parts)


def of_protos(keys: Iterable[EntityKey]) -> list[str]:
    """The texts of Feast's entity keys; DataError if a key is neither text nor a whole number."""
    return [
        of_parts(
            [value_of(value) for _, value in sorted(zip(key.join_keys, key.entity_values, strict=True), key=_name)]
        )
        if len(key.join_keys) > 1
        else str(value_of(key.entity_values[0]))
        for key in keys
    ]


def _name(pair: tuple[str, Any]) -> str:
    return pair[0]


def value_of(value: Any) -> str | int:
    """A Feast value that is a key."""
    kind = value.WhichOneof("val")
    if kind not in _KINDS:
        raise DataError("entity key", f"expected a text or a whole number, got {kind or 'nothing'}", "mend the key")
    return getattr(value, kind)


def of_columns(columns: Mapping[str, pa.Array]) -> list[str]:
    """The texts of the entities of every row. columns: of each key; DataError where one is null or of another type."""
    parts = []
    for name, column in sorted(columns.items()):
        if column.null_count:
            raise DataError(name, f"expected a key in every row, got {column.null_count} nulls", "leave these rows out")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (_text(column.type) or pa.types.is_integer(column.type)):
            raise DataError(name, f"expected keys of text or whole numbers, got {column.type}", "cast the column")
        parts.append(column.cast(pa.large_string()))
    if len(parts) == 1:
        return parts[0].to_numpy(zero_copy_only=False).tolist()
    for text, written in _WRITTEN:
        parts = [pc.replace_substring(part, text, written) for part in parts]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(BETWEEN, pa.large_string()))
    return joined.to_numpy(zero_copy_only=False).tolist()


def _text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
