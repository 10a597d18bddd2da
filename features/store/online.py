"""What is online about some profiles? Rows of feature services, read through Feast's provider, with the T they are of.

Feast's own `get_online_features` goes through its registry and three forms of every value, and leaves out the times;
its provider, which that call uses too, answers the same question a hundred times faster.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import yaml

from foretell.project import Project

if TYPE_CHECKING:
    import feast

KEY = "profile_id"


def open_store(project: Project) -> feast.FeatureStore:
    """The Feast store of this home; its feature_store.yaml is written on first use, so the `feast` CLI works there."""
    import feast

    folder = project.home / "feast"
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "project": "foretell",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}"},
        "offline_store": offline_store(project),
        "online_store": {"type": "sqlite", "path": str(folder / "online.db")},
        "entity_key_serialization_version": 3,
        # Feast makes an object of each value: of everybody at once they would not fit into memory.
        "materialization": {"online_write_batch_size": 5_000},
    }
    file, text = folder / "feature_store.yaml", yaml.safe_dump(config, sort_keys=False)
    if not file.exists() or file.read_text() != text:  # others may be reading it
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(file)
    if not (definitions := folder / "definitions.py").exists():
        definitions.write_text(_DEFINITIONS.format(folder=str(project.folder)))
    return feast.FeatureStore(repo_path=str(folder))


def offline_store(project: Project) -> dict[str, Any]:
    """What joins features to rows of people and times, as Feast is told it: by the setting `offline`."""
    if project.setting("offline") == "duckdb":
        return {"type": "duckdb"}
    from lake.spark import settings_of

    return {"type": "spark", "spark_conf": settings_of(project)}


_DEFINITIONS = '''"""For the `feast` command line: today's definitions, and all that was registered before."""

from pathlib import Path

from features.store.repository import everything
from foretell.project import Project

objects = everything(Project(Path({folder!r})))
globals().update({{f"object_{{place}}": one for place, one in enumerate(objects)}})
'''


class Online:
    """Some feature services of a home, opened once and asked often. Not for several threads at once."""

    def __init__(self, project: Project, services: Iterable[str]):
        from feast.infra.provider import get_provider
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        store = open_store(project)
        self._config, self._provider = store.config, get_provider(store.config)
        self._key, self._value = EntityKey, Value
        self._services = {
            name: {view.name: [f.name for f in view.features] for view in projections}
            for name in services
            if (projections := store.get_feature_service(name).feature_view_projections)
        }  # fmt: skip
        self._views = {name: store.get_feature_view(name) for views in self._services.values() for name in views}

    def read(self, services: Iterable[str], profiles: Sequence[str]) -> dict[str, Rows]:
        """For each service the rows of these profiles. Every view is read once, whichever services share it."""
        wanted = {name: self._services[name] for name in services}
        keys = [self._key(join_keys=[KEY], entity_values=[self._value(string_val=p)]) for p in profiles]
        found: dict[str, list] = {}
        for name in dict.fromkeys(view for views in wanted.values() for view in views):
            answer = self._provider.online_read(self._config, self._views[name], keys) if keys else []
            found[name] = [(at, {f: _plain(v) for f, v in (values or {}).items()}) for at, values in answer]
        return {service: Rows(profiles, views, found) for service, views in wanted.items()}


class Rows:
    """The online rows of one service for some profiles."""

    def __init__(self, profiles: Sequence[str], views: Mapping[str, list[str]], found: Mapping[str, list]):
        self._profiles, self._views, self._found = profiles, views, found

    def times(self, place: int) -> set[datetime | None]:
        """The T of the rows of the profile at this place, None among them where a view has no row of it."""
        return {self._found[view][place][0] for view in self._views}

    def values(self, places: Iterable[int]) -> list[dict[str, Any]]:
        """profile_id and every feature of the service, of the profiles at these places."""
        made = []
        for i in places:
            row: dict[str, Any] = {KEY: self._profiles[i]}
            for view, features in self._views.items():
                known = self._found[view][i][1]
                row |= {feature: known.get(feature) for feature in features}
            made.append(row)
        return made


def _plain(value: Any) -> Any:
    """A Feast value as Python has it: None if it is not set."""
    kind = value.WhichOneof("val")
    return getattr(value, kind) if kind else None
