"""What does a request for online features ask of the packed store? Worked out once for each set of features.

Most requests name features of some views, and give texts or whole numbers as keys: these are answered here. Whatever
else Feast knows (features computed on demand, aliases of keys, vectors computed beforehand, entities as protobuf) takes
Feast's own way, for which the store answers view by view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from feast import FeatureService, utils
from feast.infra.online_stores.online_store import OnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

from features.store import keys, response

_KEYS = {"STRING": str, "INT64": int, "INT32": int}


class Asked(NamedTuple):
    """Of a view: the view, the names of its keys, sorted, and the features that are asked for."""

    view: Any
    joins: tuple[str, ...]
    features: tuple[str, ...]


class Plan(NamedTuple):
    """context: Feast's, of which this was made. keys: name -> type. names: of all features, as they are answered."""

    context: Any
    views: tuple[Asked, ...]
    keys: Mapping[str, str]
    names: tuple[str, ...]
    types: Mapping[str, Any]


def plan_of(known: dict[Any, Plan | None], features: Any, registry: Any, project: str, full: bool) -> Plan | None:
    """The plan of a request; None if it takes Feast's own way. known: plans so far, of use as long as Feast's context
    of such a request is."""
    key = features.name if isinstance(features, FeatureService) else tuple(features), project, full
    context = utils._get_cached_request_context(registry, project, features, full)
    found = known.get(key)
    if found is None or found.context is not context:
        if len(known) > 1_000:
            known.clear()
        found = known[key] = _made(features, context, full)
    return found


def _made(features: Any, context: Any, full: bool) -> Plan | None:
    _, on_demand, joins, types, _, grouped, _, needed, entityless = context
    if on_demand or needed or entityless or getattr(features, "precompute_online", False):
        return None
    views, names = [], []
    for view, wanted in grouped:
        if view.projection.join_key_map or not {field.name for field in view.features}.issuperset(wanted):
            return None
        views.append(Asked(view, tuple(sorted(view.join_keys)), tuple(wanted)))
        names += [f"{view.projection.name_to_use()}__{name}" if full else name for name in wanted]
    kinds = {name: types[name].name for view in views for name in view.joins if name in types}
    if not all(name in kinds and kinds[name] in _KEYS for view in views for name in view.joins):
        return None
    if any(joins.get(entity) not in kinds for view in views for entity in view.view.entities):
        return None
    return Plan(context, tuple(views), kinds, tuple(names), OnlineStore._build_feature_types(grouped))


def columns_of(plan: Plan, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """The keys of a request, each with a value for every row; None if it takes Feast's own way, or is wrong."""
    if isinstance(rows, list):
        if not rows or any(row.keys() != rows[0].keys() for row in rows):
            return None
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    elif isinstance(rows, Mapping) and all(isinstance(values, list | tuple) for values in rows.values()):
        columns = {name: list(values) for name, values in rows.items()}
    else:
        return None
    if columns.keys() != plan.keys.keys() or len({len(values) for values in columns.values()}) != 1:
        return None
    for name, values in columns.items():
        wanted = _KEYS[plan.keys[name]]
        if not values or any(type(value) is not wanted for value in values):
            return None
    return columns


def texts_of(asked: Asked, columns: Mapping[str, list[Any]]) -> list[str]:
    """The texts of a view's keys of every row of a request."""
    if len(asked.joins) == 1:
        return list(map(str, columns[asked.joins[0]]))
    return [keys.of_parts(parts) for parts in zip(*(columns[name] for name in asked.joins), strict=True)]


def answer_of(plan: Plan, columns: Mapping[str, list[Any]], found: Sequence[bytes]) -> OnlineResponse:
    """The answer. found: of each view the results of its features (see response.py)."""
    given = b"".join([response.keys_of(plan.keys[name], values) for name, values in columns.items()])
    whole = b"".join([response.names_of((*columns, *plan.names)), given, *found])
    return OnlineResponse(GetOnlineFeaturesResponse.FromString(whole), feature_types=dict(plan.types))
