"""How does Feast keep a row online in one piece? Its `OnlineStore` of packed rows, in SQLite or in Redis.

Feast's own stores keep each feature by itself, written value by value. Here a row is one value (see packed.py), written
only over an older one. What Feast asks of a store is answered as its own stores answer; they too give a row however
old it is. Two of Feast's habits differ from each other: of an entity without a row its SQLite store says NOT_FOUND, as
this one does, its Redis store nulls of the year 1970.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from features.store import keys, request, response
from features.store.packed import Layout, Row, layout, micros
from features.store.redis_rows import RedisRows
from features.store.request import Plan
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
    def read_views(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]: ...
    async def read_views_async(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]: ...
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
        self._views: dict[int, tuple[FeatureView, list, tuple[Layout, str]]] = {}
        self._plans: dict[Any, Plan | None] = {}

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
        source, joins, life, count = view.batch_source, sorted(view.join_keys), life_of(view), 0
        assert source is not None
        rows, (shape, table) = self.rows(config), self._kept(config, view)
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
        return self.read_views(config, [view], texts)[0]

    def read_views(
        self, config: RepoConfig, views: Sequence[FeatureView], texts: Sequence[str]
    ) -> list[list[Row | None]]:
        """The rows of several views under the same keys, in one question to the server."""
        kept = [self._kept(config, view) for view in views]
        found = self.rows(config).read_views([(table, texts) for _, table in kept])
        return [list(map(shape.unpack, packed)) for (shape, _), packed in zip(kept, found, strict=True)]

    def read_columns(self, config: RepoConfig, view: FeatureView, texts: Sequence[str]) -> pa.Table:
        """The rows there are under these keys, in columns: entity (its text), event_timestamp, created, features."""
        shape, table = self._kept(config, view)
        there = [
            (text, packed)
            for text, packed in zip(texts, self.rows(config).read(table, texts), strict=True)
            if packed is not None and packed[:8] == shape.schema
        ]
        rows = shape.unpack_columns([packed for _, packed in there])
        return rows.add_column(0, "entity", pa.array([text for text, _ in there], pa.string()))

    def delete(self, config: RepoConfig, view: FeatureView, texts: Sequence[str]) -> int:
        """Remove the rows under these keys. Returns how many there were."""
        return self.rows(config).delete(self._kept(config, view)[1], texts)

    def _kept(self, config: RepoConfig, view: FeatureView) -> tuple[Layout, str]:
        """The layout and the table of a view; worked out once for each object that Feast hands over."""
        found = self._views.get(id(view))
        if found is None or found[0] is not view or found[1] is not view.features:
            if len(self._views) > 1_000:  # Feast makes new objects whenever it reads its registry
                self._views.clear()
            made = layout_of(view), table_of(config, view)
            found = self._views[id(view)] = (view, view.features, made)
        return found[2]

    # As Feast asks.

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        rows, life, (shape, name) = self.rows(config), life_of(table), self._kept(config, table)
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
        shape, name = self._kept(config, table)
        return _answers(shape, self.rows(config).read(name, keys.of_protos(entity_keys)), requested_features)

    async def online_read_async(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:  # fmt: skip
        shape, name = self._kept(config, table)
        (packed,) = await self.rows(config).read_views_async([(name, keys.of_protos(entity_keys))])
        return _answers(shape, packed, requested_features)

    def get_online_features(
        self, config: RepoConfig, features: Any, entity_rows: Any, registry: Any, project: str,
        full_feature_names: bool = False, include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:  # fmt: skip
        asked = self._asked(features, entity_rows, registry, project, full_feature_names)
        if asked is None or include_feature_view_version_metadata or _metered():
            return super().get_online_features(
                config, features, entity_rows, registry, project, full_feature_names,
                include_feature_view_version_metadata,
            )  # fmt: skip
        wanted = self._wanted(config, *asked)
        return self._answer(config, *asked, self.rows(config).read_views(wanted))

    async def get_online_features_async(
        self, config: RepoConfig, features: Any, entity_rows: Any, registry: Any, project: str,
        full_feature_names: bool = False, include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:  # fmt: skip
        asked = self._asked(features, entity_rows, registry, project, full_feature_names)
        if asked is None or include_feature_view_version_metadata or _metered():
            return await super().get_online_features_async(
                config, features, entity_rows, registry, project, full_feature_names,
                include_feature_view_version_metadata,
            )  # fmt: skip
        wanted = self._wanted(config, *asked)
        return self._answer(config, *asked, await self.rows(config).read_views_async(wanted))

    def _wanted(self, config: RepoConfig, plan: Plan, columns: dict[str, list[Any]]) -> list[tuple[str, list[str]]]:
        return [(self._kept(config, one.view)[1], request.texts_of(one, columns)) for one in plan.views]

    def _answer(
        self, config: RepoConfig, plan: Plan, columns: dict[str, list[Any]], found: list[list[bytes | None]]
    ) -> OnlineResponse:
        results = []
        for one, packed in zip(plan.views, found, strict=True):
            shape, _ = self._kept(config, one.view)
            results.append(response.results_of(shape, one.features, list(map(shape.unpack, packed))))
        return request.answer_of(plan, columns, results)

    def _asked(
        self, features: Any, rows: Any, registry: Any, project: str, full: bool
    ) -> tuple[Plan, dict[str, list[Any]]] | None:
        plan = request.plan_of(self._plans, features, registry, project, full)
        columns = request.columns_of(plan, rows) if plan else None
        return (plan, columns) if plan and columns else None

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
    return layout(tuple((field.name, field.dtype.to_value_type().name) for field in view.features))


def table_of(config: RepoConfig, view: FeatureView) -> str:
    """The name of a view's table."""
    registry: Any = config.registry
    return compute_table_id(config.project, view, registry.enable_online_feature_view_versioning)


def life_of(view: FeatureView) -> int | None:
    """After how many seconds a row may go: twice as long as it may be used, and LEAST_LIFE at least. None: never."""
    return int(max(2 * view.ttl, LEAST_LIFE).total_seconds()) if view.ttl else None


def _metered() -> bool:
    """Does Feast count its reads? Then they go its own way."""
    metrics = sys.modules.get("feast.metrics")
    return metrics is not None and bool(metrics._config.online_features)


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
    places = [(shape.places[name], name) for name in wanted or shape.names if name in shape.places]
    makers = [(place, name, VALUES[shape.kinds[place]]) for place, name in places]
    answers: list[Answer] = []
    for row in map(shape.unpack, packed):
        if row is None:
            answers.append((None, None))
        else:
            made = {name: Value() if (v := row.values[i]) is None else make(v) for i, name, make in makers}
            answers.append((row.at, made))
    return answers
