"""How does Feast see our views? One Feast view per version of ours, one feature service per task.

Views carry their fingerprint in their name (`orders__1a2b3c4d`): an edited view is another view, and what a model in
production was trained on stays what it was.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from features import build
from features.store.online import open_store
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


def apply(
    project: Project, tasks: Iterable[PredictionTask], views: Iterable[FeatureView] = ()
) -> feast.FeatureStore:  # fmt: skip
    """Register the current versions of these tasks' views, of other views, and a feature service for each task.

    Older versions stay.
    """
    store = open_store(project)
    store.apply(_objects(project, tasks, views))
    return store


def _objects(project: Project, tasks: Iterable[PredictionTask], views: Iterable[FeatureView]) -> list:
    import feast

    sources = dict(project.definitions.sources)
    keys = {"profile_id": "profile", "account_id": "account", "category": "category"}
    entities = {
        key: feast.Entity(name=name, join_keys=[key], value_type=feast.ValueType.STRING) for key, name in keys.items()
    }
    made: dict[str, feast.FeatureView] = {}

    def view_of(view: FeatureView) -> feast.FeatureView:
        version = build.versioned(view, sources)
        if version not in made:
            made[version] = _feast_view(project, view, [entities[key] for key in view.keys])
        return made[version]

    for view in views:
        view_of(view)
    services = [
        feast.FeatureService(
            name=service_name(project, task), features=[view_of(view) for view in project.definitions.views_of(task)]
        )
        for task in tasks
    ]
    used = {name for view in made.values() for name in view.entities} | {ENTITY}
    found = [entity for entity in entities.values() if entity.name in used]
    return [*found, *(part for view in made.values() for part in (view.batch_source, view)), *services]


def everything(project: Project) -> list:
    """All objects of the repository: today's, and what was registered before. For `feast apply`, which removes all
    else."""
    store = open_store(project)
    now = _objects(project, project.definitions.tasks.values(), project.definitions.views.values())
    names = {(type(one).__name__, one.name) for one in now}
    # with a view comes its source: given twice, Feast takes the two for different ones
    before: list = [*store.list_entities(), *store.list_feature_views(), *store.list_feature_services()]
    return [*now, *(one for one in before if (type(one).__name__, one.name) not in names)]


def versions(project: Project) -> set[str]:
    """The versions of views that are registered."""
    return {view.name for view in open_store(project).list_feature_views()}


def _feast_view(project: Project, view: FeatureView, entities: list[feast.Entity]) -> feast.FeatureView:
    import feast
    from feast import types

    sources = dict(project.definitions.sources)
    names = {"int64": types.Int64, "float64": types.Float64, "boolean": types.Bool, "string": types.String}
    name = build.versioned(view, sources)
    files = str(build.file_of(project, view, datetime.now(UTC)).parent / "*.parquet")
    kind, own = _source(project)
    source = kind(
        name=f"{name}{own}", path=files, timestamp_field="event_timestamp", created_timestamp_column="created"
    )
    fields = [
        feast.Field(name=feature, dtype=names[kind], description=_said(view, feature))
        for feature, kind in build.types(view, sources).items()
    ]
    return feast.FeatureView(
        name=name, entities=entities, ttl=view.ttl, schema=fields, source=source, description=view.description
    )


def _source(project: Project) -> tuple[Any, str]:
    """How Feast is told of Parquet files, and what is added to their name: its Spark store takes a source of its own
    only, and the registry no other source under a name that it knows."""
    if project.setting("offline") == "duckdb":
        from feast import FileSource

        return FileSource, ""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    return partial(SparkSource, file_format="parquet"), "__spark"


def _said(view: FeatureView, feature: str) -> str:
    """What a feature means, in a line: what, unit, window and null."""
    if not (doc := view.docs.get(feature)):
        return ""
    return f"{doc.what} ({doc.unit}, {view.window(feature)})" + (f"; null: {doc.null}" if doc.null else "")


def historical(store: feast.FeatureStore, service: str, entities: pd.DataFrame) -> pd.DataFrame:
    """Feast's point-in-time join: `entities` (profile_id, event_timestamp) with every feature of a service."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ibis 12 on DuckDB 2
        found = store.get_historical_features(entities, features=store.get_feature_service(service)).to_df()
    if found["event_timestamp"].dt.tz is None:  # Spark's store: it hands on instants in its session's zone, UTC
        found["event_timestamp"] = found["event_timestamp"].dt.tz_localize(UTC)
    return found


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
