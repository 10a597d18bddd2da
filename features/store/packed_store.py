"""How does Feast keep a row online in one piece? Its `OnlineStore` of packed rows, in SQLite or in Redis.

Feast's own stores keep each feature by itself, written value by value. Here a row is one value (see packed.py), written
only over an older one. What Feast asks of a store is answered as its own stores answer; they too give a row however
old it is. Two of Feast's habits differ from each other: of an entity without a row its SQLite store says NOT_FOUND, as
this one does, its Redis store nulls of the year 1970.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from features.store import keys, response
from features.store.packed import Layout, Row, layout, micros
from features.store.redis_rows import RedisRows
from features.store.response import FIELDS, VALUES
from features.store.sqlite_rows import SqliteRows
from foretell.errors import DataError

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

ROWS = 20_000  # packed and written at once
LEAST_LIFE = timedelta(days=30)  # how long a row stays in Redis at least, however short its view's ttl is

Written = tuple["EntityKey", dict[str, Value], datetime, datetime | None]
Answer = tuple[datetime | None, dict[str, Value] | None]


class Rows(Protocol):
    """Where packed rows are kept: in a table for each view, by the text of the entity's keys."""

    def write(self, table: str, keys: Sequence[str], values: Sequence[bytes], life: int | None = None) -> None: ...
    def read(self, table: str, keys: Sequence[str]) -> list[bytes | None]: ...
    async def read_async(self, table: str, keys: Sequence[str]) -> list[bytes | None]: ...
    def keys(self, table: str) -> Iterator[str]: ...
    def delete(self, table: str, keys: Sequence[str]) -> int: ...
    def drop(self, table: str) -> None: ...
    def tables(self) -> list[str]: ...
    def settle(self, vacuum: bool = False) -> None: ...
    def close(self) -> None: ...


class PackedOnlineStoreConfig(FeastConfigBaseModel):
    """What feature_store.yaml says of the store.

    path: the SQLite file, relative to the repository. url: of Redis instead, "redis://host:port/db", or "env:NAME" for
    a variable that holds one. namespace: before each of its keys, for who shares a database with others.
    """

    type: Literal["features.store.packed_store.PackedOnlineStore"] = "features.store.packed_store.PackedOnlineStore"
    path: StrictStr = "data/packed.db"
    url: StrictStr | None = None
    namespace: StrictStr = "feast"


class PackedOnlineStore(OnlineStore):
    """One packed row for each entity and view. Text and whole numbers are keys; DataError for types that cannot be
    packed."""

    _versioned_read_supported = True

    def __init__(self) -> None:
        self._rows: Rows | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True, write=True)

    def rows(self, config: RepoConfig) -> Rows:
        """Where the rows of this configuration are; opened once."""
        if self._rows is None:
            said: Any = config.online_store
            if said.url:
                self._rows = RedisRows(said.url, said.namespace)
            else:
                self._rows = SqliteRows(Path(config.repo_path or ".") / said.path)
        return self._rows

    # By columns.

    def write(self, config: RepoConfig, view: FeatureView, batches: Iterable[pa.RecordBatch]) -> int:
        """Write rows, batch by batch: columns of the view's keys and features and of its stamps, others are left out.

        A row replaces one whose event_timestamp, then created, is not later. Returns how many rows came.
        """
        source, shape, joins = view.batch_source, layout_of(view), sorted(view.join_keys)
        assert source is not None
        rows, table, life, count = self.rows(config), table_of(config, view), life_of(view), 0
        for batch in _pieces(batches):
            columns = {name: batch.column(name) for name in batch.schema.names}
            if missing := [c for c in [*joins, source.timestamp_field, *shape.names] if c not in columns]:
                raise DataError(view.name, f"expected the column {missing[0]}", f"got {', '.join(columns)}")
            texts = keys.of_columns({name: columns[name] for name in joins})
            created = columns.get(source.created_timestamp_column or "")
            packed = shape.pack_columns(columns, columns[source.timestamp_field], created)
            rows.write(table, texts, packed, life)
            count += len(texts)
        return count

    def read(self, config: RepoConfig, view: FeatureView, texts: Sequence[str]) -> list[Row | None]:
        """The rows under these keys (see keys.py), None where there is none."""
        return list(map(layout_of(view).unpack, self.rows(config).read(table_of(config, view), texts)))

    def delete(self, config: RepoConfig, view: FeatureView, texts: Sequence[str]) -> int:
        """Remove the rows under these keys. Returns how many there were."""
        return self.rows(config).delete(table_of(config, view), texts)

    # As Feast asks.

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        shape, rows, name, life = layout_of(table), self.rows(config), table_of(config, table), life_of(table)
        for start in range(0, len(data), ROWS):
            some = data[start : start + ROWS]
            packed = [_packed(shape, values, event, created) for _, values, event, created in some]
            rows.write(name, keys.of_protos(key for key, *_ in some), packed, life)
            if progress:
                progress(len(some))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:  # fmt: skip
        packed = self.rows(config).read(table_of(config, table), keys.of_protos(entity_keys))
        return _answers(layout_of(table), packed, requested_features)

    async def online_read_async(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:  # fmt: skip
        packed = await self.rows(config).read_async(table_of(config, table), keys.of_protos(entity_keys))
        return _answers(layout_of(table), packed, requested_features)

    def _read_features_per_fv(
        self, config: RepoConfig, grouped_refs: list, join_key_values: dict, entity_name_to_join_key_map: dict,
        online_features_response: Any, full_feature_names: bool, include_feature_view_version_metadata: bool,
    ) -> None:  # fmt: skip
        """What is between Feast's questions about a request and its answer: see response.py."""
        rows = self.rows(config)
        for view, features in grouped_refs:
            texts = response.texts_of(view, join_key_values, entity_name_to_join_key_map)
            found = map(layout_of(view).unpack, rows.read(table_of(config, view), texts))
            response.fill(
                online_features_response, view, features, layout_of(view), list(found), full_feature_names,
                include_feature_view_version_metadata,
            )  # fmt: skip

    async def _read_features_per_fv_async(
        self, config: RepoConfig, grouped_refs: list, join_key_values: dict, entity_name_to_join_key_map: dict,
        online_features_response: Any, full_feature_names: bool, include_feature_view_version_metadata: bool,
    ) -> None:  # fmt: skip
        rows = self.rows(config)
        asked = [
            rows.read_async(
                table_of(config, view), response.texts_of(view, join_key_values, entity_name_to_join_key_map)
            )
            for view, _ in grouped_refs
        ]
        for (view, features), packed in zip(grouped_refs, await asyncio.gather(*asked), strict=True):
            response.fill(
                online_features_response, view, features, layout_of(view), list(map(layout_of(view).unpack, packed)),
                full_feature_names, include_feature_view_version_metadata,
            )  # fmt: skip

    def update(
        self, config: RepoConfig, tables_to_delete: Sequence[FeatureView], tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any], entities_to_keep: Sequence[Any], partial: bool,
    ) -> None:  # fmt: skip
        """Refuse views that cannot be packed, and drop the rows of those that are gone. Tables make themselves."""
        for view in tables_to_keep:
            layout_of(view)
        for view in tables_to_delete:
            self.rows(config).drop(table_of(config, view))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Any]) -> None:
        rows = self.rows(config)
        for view in tables:
            rows.drop(table_of(config, view))
        rows.settle(vacuum=True)
        rows.close()
        self._rows = None

    async def close(self) -> None:
        if isinstance(self._rows, RedisRows):
            await self._rows.close_async()
        if self._rows is not None:
            self._rows.close()


def layout_of(view: FeatureView) -> Layout:
    """The layout of a view's rows; DataError for a type that cannot be packed."""
    return _layout(tuple([(field.name, field.dtype) for field in view.features]))


def table_of(config: RepoConfig, view: FeatureView) -> str:
    """The name of a view's table."""
    registry: Any = config.registry
    return compute_table_id(config.project, view, registry.enable_online_feature_view_versioning)


def life_of(view: FeatureView) -> int | None:
    """After how many seconds a row may go: twice as long as it may be used, and LEAST_LIFE at least. None: never."""
    return int(max(2 * view.ttl, LEAST_LIFE).total_seconds()) if view.ttl else None


def _layout(features: tuple[tuple[str, Any], ...]) -> Layout:
    if features not in _LAYOUTS:
        _LAYOUTS[features] = layout(tuple((name, kind.to_value_type().name) for name, kind in features))
    return _LAYOUTS[features]


_LAYOUTS: dict[tuple[tuple[str, Any], ...], Layout] = {}


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            yield batch.slice(start, ROWS)


def _packed(shape: Layout, values: dict[str, Value], event: datetime, created: datetime | None) -> bytes:
    row: list[Any] = []
    for name, kind in zip(shape.names, shape.kinds, strict=True):
        value = values.get(name)
        field = value.WhichOneof("val") if value is not None else None
        if field not in (None, FIELDS[kind]):
            raise DataError(name, f"expected a value of type {kind}, got {field}", "write it as the view declares it")
        row.append(getattr(value, field) if field else None)
    return shape.pack(row, micros(event), micros(created))


def _answers(shape: Layout, packed: list[bytes | None], wanted: list[str] | None) -> list[Answer]:
    places = [(shape.names.index(name), name) for name in wanted or shape.names if name in shape.names]
    makers = [(place, name, VALUES[shape.kinds[place]]) for place, name in places]
    answers: list[Answer] = []
    for row in map(shape.unpack, packed):
        if row is None:
            answers.append((None, None))
        else:
            made = {name: Value() if (v := row.values[i]) is None else make(v) for i, name, make in makers}
            answers.append((row.at, made))
    return answers
