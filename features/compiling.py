"""What does a view mean? Its declaration as SQL, the types of its values, and its version, which changes with both."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import cast

import ibis
import ibis.expr.types as ir

from foretell.binding import aggregate, players, seen
from foretell.declarations import Source
from foretell.views import FeatureView
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
    facts = seen(views[0], dict(sources))
    nothing = facts.filter(cast(ir.BooleanValue, ibis.literal(False)))
    grouped, empty = (
        [v.name(placed(i, v.get_name()) if numbered else v.get_name()) for i, view in enumerate(views)
         for v in _values(view, of)]
        for of in (facts, nothing)
    )  # fmt: skip
    keys = [key if key != "account_id" else "profile_id" for key in views[0].keys]
    if len(keys) > 1:
        facts = facts.filter(*(facts[key].notnull() for key in keys))
    return _sql(facts.group_by(keys).aggregate(grouped)), _sql(nothing.aggregate(empty))


def placed(place: int, feature: str) -> str:
    """How a feature is named where several views are made at once."""
    return f"{place}__{feature}"


def types(view: FeatureView, sources: dict[str, Source]) -> dict[str, str]:
    """Feature -> its type: int64, float64, boolean or string."""
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


def fingerprint(view: FeatureView, sources: dict[str, Source]) -> str:
    """Eight hex digits that change when a value of the view might: by its SQL, its sources, the identity rule."""
    plays = sorted(players(view.source, sources), key=lambda s: s.name)
    contracts = [
        [s.name, s.event_at, s.known_at, str(s.delay), s.timezone, s.times_in, sorted(s.columns.items()),
         sorted(s.types.items()), list(s.identifiers.items()), s.only, sorted(s.aliases.items()), sorted(s.optional),
         *([s.key] if s.key else [])]
        for s in plays
    ]  # fmt: skip
    if countries := {s.name: s.country for s in plays if s.country}:
        contracts.append(sorted(countries.items()))
    grouped, empty = compile_view(view, sources)
    if '"trust"' in grouped:  # which of two values survives
        contracts.append([s.standing for s in plays])
    parts = [
        COMPILER_VERSION,
        IDENTITY_RULE,
        str(view.ttl),
        str(view.lookback),
        grouped,
        empty,
        json.dumps(contracts),
    ]
    if (of := (view.entity, view.facts_of)) != ("profile", "profile"):
        parts.append(str(of))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]


def versioned(view: FeatureView, sources: dict[str, Source]) -> str:
    """The name under which Feast knows this version of a view: `orders__1a2b3c4d`."""
    return f"{view.name}__{fingerprint(view, sources)}"
