"""How does Feast see our views? One Feast view per version of ours, one feature service per task.

Views carry their fingerprint in their name (`orders__1a2b3c4d`): an edited view is another view, and what a model in
production was trained on stays what it was. So a view once read from the registry need not be read again.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import pandas as pd
import pyarrow as pa

from features import build
from features.built import file_of, patches, profiles_file
from features.store import keys
from features.store.online import open_store
from features.store.registered import alone
from foretell.declarations import PredictionTask
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import connect, quote

if TYPE_CHECKING:
    import feast

ENTITY = "profile"
BATCH = 50_000  # rows that are read at once


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
    with alone(project):
        store = open_store(project)
        store.apply(_objects(project, tasks, views))
    return store


def _objects(project: Project, tasks: Iterable[PredictionTask], views: Iterable[FeatureView]) -> list:
    import feast

    sources = dict(project.definitions.sources)
    entities = {
        key: feast.Entity(name=name, join_keys=[key], value_type=feast.ValueType.STRING)
        for key, name in (("profile_id", "profile"), ("account_id", "account"), ("category", "category"))
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
    """Bring the rows built at `cutoff` online, in columns, and have Feast know it. Returns the number of rows.

    Profiles that are no longer (merged, or erased) since the cutoff was built lose their rows. What is online of a
    later instant stays.
    """
    sources, rows, packed = dict(project.definitions.sources), 0, cast(Any, store.provider)
    for view in views:
        known = _known(store, build.versioned(view, sources))
        with connect(project) as con:
            columns = ", ".join(f'"{c}"' for c in [*view.keys, "event_timestamp", "created", *view.features])
            query = f"SELECT {columns} FROM {build.read(project, view, cutoff)}"
            rows += packed.write(known, con.sql(query).to_arrow_reader(BATCH))
            if patches(file_of(project, view, cutoff)):
                query = f"SELECT profile_id FROM read_parquet('{quote(profiles_file(project, cutoff))}') WHERE gone"
                remove(store, known.name, [profile for (profile,) in con.execute(query).fetchall()])
        store.registry.apply_materialization(known, store.project, cutoff - timedelta(microseconds=1), cutoff)
    packed.packed.rows(store.config).settle()
    return rows


def put(store: feast.FeatureStore, version: str, rows: pa.Table) -> None:
    """Bring rows of a version of a view ("orders__1a2b3c4d") online, each with stamps of its own.

    rows: its keys, event_timestamp, created and every feature; other columns are left out. A row that is online stays
    if its event_timestamp, then its created, is later; of equal ones the last written stays.
    """
    cast(Any, store.provider).write(_known(store, version), rows.to_batches())


def get(store: feast.FeatureStore, version: str, entities: Sequence[str | Sequence[str]]) -> pa.Table:
    """The online rows there are of some entities: entity, event_timestamp, created and every feature.

    entities: as `remove` has them. Of several keys `entity` is their text (see keys.py).
    """
    return cast(Any, store.provider).packed.read_columns(store.config, _known(store, version), _texts(entities))


def remove(store: feast.FeatureStore, version: str, entities: Sequence[str | Sequence[str]]) -> int:
    """Take the rows of some entities of a version of a view offline. Returns how many there were.

    entities: the value of the view's key, or of several those of all, in the order of the keys' names.
    """
    return cast(Any, store.provider).packed.delete(store.config, _known(store, version), _texts(entities))


def _texts(entities: Sequence[str | Sequence[str]]) -> list[str]:
    return [keys.of_parts([one] if isinstance(one, str) else one) for one in entities]


def _known(store: feast.FeatureStore, version: str) -> feast.FeatureView:
    """A registered view. Reading the registry takes milliseconds, and what a version is never changes."""
    found = _KNOWN.setdefault(store, {})
    if version not in found:
        found[version] = store.get_feature_view(version)
    return found[version]


_KNOWN: WeakKeyDictionary[feast.FeatureStore, dict[str, feast.FeatureView]] = WeakKeyDictionary()
