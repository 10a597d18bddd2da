"""How does Feast see our views? One Feast view per version of ours, one feature service per task.

Views carry their fingerprint in their name (`orders__1a2b3c4d`): an edited view is another view, and what a model in
production was trained on stays what it was.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from features import build
from features.store.online import KEY, open_store
from foretell.declarations import PredictionTask
from foretell.project import Project
from foretell.views import FeatureView

if TYPE_CHECKING:
    import feast

ENTITY = "profile"


def service_name(project: Project, task: PredictionTask) -> str:
    """`churn__` and a digest of its views' versions: the set of features a model was trained on."""
    sources = dict(project.definitions.sources)
    versions = [build.versioned(v, sources) for v in project.definitions.views_of(task)]
    return f"{task.name}__{hashlib.sha256(' '.join(versions).encode()).hexdigest()[:8]}"


def apply(project: Project, tasks: Iterable[PredictionTask]) -> feast.FeatureStore:
    """Register the current versions of these tasks' views and a feature service each. Older versions stay."""
    import feast

    store = open_store(project)
    entity = feast.Entity(name=ENTITY, join_keys=[KEY], value_type=feast.ValueType.STRING)
    objects: list = [entity]
    made: dict[str, feast.FeatureView] = {}
    for task in tasks:
        for view in project.definitions.views_of(task):
            if view.name not in made:
                made[view.name] = _feast_view(project, view, entity)
                objects += [made[view.name].batch_source, made[view.name]]
        features: list[Any] = [made[v.name] for v in project.definitions.views_of(task)]
        objects.append(feast.FeatureService(name=service_name(project, task), features=features))
    store.apply(objects)
    return store


def _feast_view(project: Project, view: FeatureView, entity: feast.Entity) -> feast.FeatureView:
    import feast
    from feast import types

    sources = dict(project.definitions.sources)
    names = {"int64": types.Int64, "float64": types.Float64, "boolean": types.Bool, "string": types.String}
    name = build.versioned(view, sources)
    source = feast.FileSource(
        name=name, path=str(build.file_of(project, view, datetime.now(UTC)).parent / "*.parquet"),
        timestamp_field="event_timestamp", created_timestamp_column="created",
    )  # fmt: skip
    fields = [feast.Field(name=f, dtype=names[kind]) for f, kind in build.types(view, sources).items()]
    return feast.FeatureView(
        name=name, entities=[entity], ttl=view.ttl, schema=fields, source=source, description=view.description
    )


def historical(store: feast.FeatureStore, service: str, entities: pd.DataFrame) -> pd.DataFrame:
    """Feast's point-in-time join: `entities` (profile_id, event_timestamp) with every feature of a service."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ibis 12 on DuckDB 2
        return store.get_historical_features(entities, features=store.get_feature_service(service)).to_df()


def materialise(project: Project, store: feast.FeatureStore, views: Iterable[FeatureView], cutoff: datetime) -> int:
    """Bring the rows built at `cutoff` to the online store through Feast. Returns the number of rows."""
    import duckdb

    sources, rows = dict(project.definitions.sources), 0
    for view in views:
        store.materialize(
            start_date=cutoff - timedelta(microseconds=1), end_date=cutoff,
            feature_views=[build.versioned(view, sources)], disable_event_timestamp=False,
        )  # fmt: skip
        rows += int(duckdb.execute(f"SELECT count(*) FROM {build.read(project, view, cutoff)}").fetchall()[0][0])
    return rows
