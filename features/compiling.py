"""What does a view mean? Its declaration as SQL, the types of its values, and its version, which changes with both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

import ibis
import ibis.expr.types as ir

from foretell.binding import aggregate, players, seen
from foretell.declarations import Source
from foretell.views import FeatureView, FrozenView
from unification.identity import IDENTITY_RULE

COMPILER_VERSION = "1"


def compile_view(view: FeatureView, sources: dict[str, Source]) -> tuple[str, str]:
    """SQL over the view `facts`: (one row per profile with facts, the view's empty row).

    Money and ratios leave as double, counts as bigint.
    """
    return compiled((view,), tuple(sources.items()), False)


@lru_cache(maxsize=1024)  # declarations do not change once made, and a view's version is asked for at every turn
def compiled(
    views: tuple[FeatureView, ...], sources: tuple[tuple[str, Source], ...], numbered: bool = True
) -> tuple[str, str]:
    """The same for several views of the same facts at once; numbered: features are named by the view's place too."""
    if isinstance(one := views[0], FrozenView):
        named = ", ".join(f'"{f}" AS "{placed(0, f) if numbered else f}"' for f in one.features)
        keys = ", ".join(_keys(one))
        return f"SELECT {keys}, {named} FROM ({one.sql[0]})", f"SELECT {named} FROM ({one.sql[1]})"
    facts = seen(views[0], dict(sources))
    nothing = facts.filter(cast(ir.BooleanValue, ibis.literal(False)))
    grouped, empty = (
        [v.name(placed(i, v.get_name()) if numbered else v.get_name()) for i, view in enumerate(views)
         for v in _values(view, of)]
        for of in (facts, nothing)
    )  # fmt: skip
    keys = _keys(views[0])
    if len(keys) > 1:
        facts = facts.filter(*(facts[key].notnull() for key in keys))
    return _sql(facts.group_by(keys).aggregate(grouped)), _sql(nothing.aggregate(empty))


def _keys(view: FeatureView) -> list[str]:
    """What facts are grouped by: they say by number whose they are, be that a profile or an account."""
    return [key if key != "account_id" else "profile_id" for key in view.keys]


def placed(place: int, feature: str) -> str:
    """How a feature is named where several views are made at once."""
    return f"{place}__{feature}"


def types(view: FeatureView, sources: dict[str, Source]) -> dict[str, str]:
    """Feature -> its type: int64, float64, boolean or string."""
    if isinstance(view, FrozenView):
        return dict(view.kinds)
    return {value.get_name(): str(value.type()).lstrip("!") for value in _values(view, seen(view, sources))}


def _values(view: FeatureView, facts: ir.Table) -> list[ir.Scalar]:
    values = []
    for name, expression in view.features.items():
        value = aggregate(facts, name, expression, what=view.name, where=view.where)
        kind = value.type()
        if kind.is_numeric():
            value = value.cast("int64" if kind.is_integer() else "float64")
        values.append(value.name(name))
    return values


def _sql(expression: ir.Table) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb"))


def contracts(view: FeatureView, sources: dict[str, Source]) -> str:
    """What the values of a view hang on beside its own SQL, as JSON: rules, sources, whose facts it is about."""
    plays = sorted(players(view.source, sources), key=lambda s: s.name)
    said = [
        [s.name, s.event_at, s.known_at, str(s.delay), s.timezone, s.times_in, sorted(s.columns.items()),
         sorted(s.types.items()), list(s.identifiers.items()), s.only, sorted(s.aliases.items()), sorted(s.optional),
         *([s.key] if s.key else [])]
        for s in plays
    ]  # fmt: skip
    if countries := {s.name: s.country for s in plays if s.country}:
        said.append(sorted(countries.items()))
    if '"trust"' in compile_view(view, sources)[0]:  # which of two values survives
        said.append([s.standing for s in plays])
    rules = [COMPILER_VERSION, IDENTITY_RULE, str(view.ttl), str(view.lookback)]
    return json.dumps([rules, said, view.roles, view.entity, view.facts_of])


def fingerprint(view: FeatureView, sources: dict[str, Source]) -> str:
    """Eight hex digits that change when a value of the view might: by its SQL, its sources, the identity rule."""
    if isinstance(view, FrozenView):
        return view.version.rpartition("__")[2]
    parts = [*compile_view(view, sources), contracts(view, sources)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]


def versioned(view: FeatureView, sources: dict[str, Source]) -> str:
    """The name under which Feast knows this version of a view: `orders__1a2b3c4d`."""
    return f"{view.name}__{fingerprint(view, sources)}"


def frozen(view: FeatureView, sources: dict[str, Source]) -> dict[str, Any]:
    """All that makes a view, as JSON: what `thawed` needs to build it when its file has been edited."""
    return {
        "name": view.name, "version": versioned(view, sources),
        "roles": view.roles, "several": view.source == view.roles,
        "ttl_seconds": view.ttl.total_seconds(), "entity": view.entity, "facts_of": view.facts_of,
        "lookback_seconds": view.lookback.total_seconds() if view.lookback else None,
        "description": view.description, "sql": compile_view(view, sources), "kinds": types(view, sources),
        "contracts": contracts(view, sources),
    }  # fmt: skip


def thawed(said: Mapping[str, Any]) -> FrozenView:
    """The view that was `frozen`."""
    roles, lookback = tuple(said["roles"]), said["lookback_seconds"]
    return FrozenView(
        name=said["name"], source=roles if said["several"] else roles[0], features=dict.fromkeys(said["kinds"]),
        ttl=timedelta(seconds=said["ttl_seconds"]), entity=said["entity"], facts_of=said["facts_of"],
        lookback=timedelta(seconds=lookback) if lookback else None, description=said["description"],
        version=said["version"], sql=tuple(said["sql"]), kinds=said["kinds"], contracts=said["contracts"],
    )  # fmt: skip
