"""What is online about some profiles? Rows of feature services, read from the packed store, with the T they are of.

Feast's own `get_online_features` goes through its registry and makes an object of every value; here a packed row is
read and unpacked, and that is all.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import yaml

from features.store.packed import Row
from features.store.redis_rows import RedisRows
from features.store.registered import registry_path
from features.store.sqlite_rows import SqliteRows
from foretell.project import Project

if TYPE_CHECKING:
    import feast

KEY = "profile_id"
FILE = "packed.db"


def open_store(project: Project) -> feast.FeatureStore:
    """The Feast store of this home; its feature_store.yaml is written on first use, so the `feast` CLI works there.

    Features are online where the setting `online` says: in `feast/packed.db`, or in Redis.
    """
    import feast

    folder, where = project.home / "feast", project.setting("online")
    folder.mkdir(parents=True, exist_ok=True)
    online = {"type": "features.store.packed_store.PackedOnlineStore", "path": str(folder / FILE)}
    if where != "sqlite":
        online |= {"url": where, "namespace": _namespace(project)}
    config = {
        "project": "foretell",
        "provider": "features.store.provider.PackedProvider",
        "registry": {"registry_type": "sql", "path": registry_path(project)},
        "offline_store": offline_store(project),
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    file, text = folder / "feature_store.yaml", yaml.safe_dump(config, sort_keys=False)
    if not file.exists() or file.read_text() != text:  # others may be reading it
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(file)
    if not (definitions := folder / "definitions.py").exists():
        definitions.write_text(_DEFINITIONS.format(folder=str(project.folder)))
    return feast.FeatureStore(repo_path=str(folder))


def open_rows(project: Project) -> list[SqliteRows | RedisRows]:
    """Where this home's online rows may be, as they are kept: its file, and Redis if the setting `online` says so."""
    found: list[SqliteRows | RedisRows] = [SqliteRows(project.home / "feast" / FILE)]
    if (where := project.setting("online")) != "sqlite":
        found.append(RedisRows(where, _namespace(project)))
    return found


def _namespace(project: Project) -> str:
    """Several homes may share a database: a word that is this home's alone."""
    return hmac.digest(project.key.encode(), b"online", "sha256").hex()[:12]


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
    """Some feature services of a home, opened once and asked often."""

    def __init__(self, project: Project, services: Iterable[str]):
        store = open_store(project)
        self._config, self._store = store.config, cast(Any, store.provider).packed
        self._services = {
            name: {view.name: [f.name for f in view.features] for view in projections}
            for name in services
            if (projections := store.get_feature_service(name).feature_view_projections)
        }  # fmt: skip
        self._views = {name: store.get_feature_view(name) for views in self._services.values() for name in views}

    def read(self, services: Iterable[str], profiles: Sequence[str]) -> dict[str, Rows]:
        """For each service the rows of these profiles. Every view is read once, whichever services share it."""
        wanted = {name: self._services[name] for name in services}
        names = list(dict.fromkeys(view for views in wanted.values() for view in views))
        rows = self._store.read_views(self._config, [self._views[name] for name in names], profiles)
        found = dict(zip(names, rows, strict=True))
        places = {name: {f.name: place for place, f in enumerate(self._views[name].features)} for name in found}
        return {service: Rows(profiles, views, found, places) for service, views in wanted.items()}


class Rows:
    """The online rows of one service for some profiles."""

    def __init__(
        self, profiles: Sequence[str], views: Mapping[str, list[str]], found: Mapping[str, list[Row | None]],
        places: Mapping[str, Mapping[str, int]],
    ):  # fmt: skip
        self._profiles, self._found = profiles, found
        self._views = {view: [(f, places[view][f]) for f in features] for view, features in views.items()}

    def times(self, place: int) -> set[datetime | None]:
        """The T of the rows of the profile at this place, None among them where a view has no row of it."""
        rows = [self._found[view][place] for view in self._views]
        return {row.at if row is not None else None for row in rows}

    def values(self, places: Iterable[int]) -> list[dict[str, Any]]:
        """profile_id and every feature of the service, of the profiles at these places."""
        made = []
        for i in places:
            row: dict[str, Any] = {KEY: self._profiles[i]}
            for view, features in self._views.items():
                known = self._found[view][i]
                row |= {feature: known.values[at] if known is not None else None for feature, at in features}
            made.append(row)
        return made
