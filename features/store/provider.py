"""How does Feast bring columns online without making an object of every value? By a provider that hands them on whole.

Feast's own turns each value into a protobuf message before a store sees it, which costs more than all the rest. With
any other online store than the packed one this is Feast's own provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureView, utils
from feast.infra.passthrough_provider import PassthroughProvider
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from features.store.packed_store import ROWS, PackedOnlineStore


class PackedProvider(PassthroughProvider):
    """Feast's provider, but for how columns come to the packed store."""

    @property
    def packed(self) -> PackedOnlineStore:
        """The online store; TypeError if it is another."""
        store = self.online_store
        if not isinstance(store, PackedOnlineStore):
            raise TypeError(f"expected the packed online store, got {type(store).__name__}")
        return store

    def write(self, view: FeatureView, batches: Iterable[pa.RecordBatch]) -> int:
        """Bring rows online, batch by batch. Returns how many came."""
        return self.packed.write(self.repo_config, view, batches)

    def ingest_df(self, feature_view: Any, df: pd.DataFrame, field_mapping: dict | None = None) -> None:
        """Of `push` and `write_to_online_store`."""
        if not self._takes(feature_view):
            super().ingest_df(feature_view, df, field_mapping)
            return
        table = pa.Table.from_pandas(df, preserve_index=False)
        table = utils._run_pyarrow_field_mapping(table, feature_view.batch_source.field_mapping or {})
        self.write(feature_view, table.to_batches(max_chunksize=ROWS))

    async def ingest_df_async(self, feature_view: Any, df: pd.DataFrame, field_mapping: dict | None = None) -> None:
        if not self._takes(feature_view):
            await super().ingest_df_async(feature_view, df, field_mapping)
            return
        await asyncio.to_thread(self.ingest_df, feature_view, df, field_mapping)

    def materialize_single_feature_view(
        self, config: RepoConfig, feature_view: Any, start_date: datetime, end_date: datetime, registry: BaseRegistry,
        project: str, tqdm_builder: Callable, disable_event_timestamp: bool = False,
    ) -> None:  # fmt: skip
        """Of `materialize`: the latest row of each entity between two instants, as the offline store finds it."""
        if not self._takes(feature_view) or not feature_view.online or feature_view.offline:
            super().materialize_single_feature_view(
                config, feature_view, start_date, end_date, registry, project, tqdm_builder, disable_event_timestamp
            )
            return
        entities = [registry.get_entity(name, project) for name in feature_view.entities]
        joins, features, timestamp, created = utils._get_column_names(feature_view, entities)
        job = self.offline_store.pull_latest_from_table_or_query(
            config=config, data_source=feature_view.batch_source, join_key_columns=joins,
            feature_name_columns=features, timestamp_field=timestamp, created_timestamp_column=created,
            start_date=start_date, end_date=end_date,
        )  # fmt: skip
        mapping = feature_view.batch_source.field_mapping or {}
        # Feast hands a job's result over as a whole; `repository.materialise` reads a built cutoff piece by piece
        self.write(feature_view, utils._run_pyarrow_field_mapping(job.to_arrow(), mapping).to_batches(ROWS))

    def _takes(self, view: Any) -> bool:
        """Is it a view of plain columns, for the packed store?"""
        plain = type(view) is FeatureView and view.batch_source is not None and view.join_keys != ["__dummy_id"]
        return plain and not getattr(view, "aggregations", None) and isinstance(self.online_store, PackedOnlineStore)
