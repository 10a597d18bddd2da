"""Which aggregates does a view need that ibis does not name? Written once, for every view and every engine.

Like every ibis aggregate they are deferred, skip nulls and take `where=`.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import ibis
import ibis.expr.datatypes as dt
from ibis import _
from ibis.common.deferred import Call, Deferred

from foretell.errors import DefinitionError

__all__ = ["decayed", "entropy", "latest", "top_share"]


def latest(value: Any, where: Any = None) -> Any:
    """The value that survives among the facts by the golden record's rule, null without one.

    The most trusted source wins, among equals the latest fact, ties going to the larger fact id: builds agree.
    """
    order = [_.trust.desc(), _.event_at.desc(), _.fact_id.desc()]
    known = _expression("latest", value).notnull()
    return value.first(where=known if where is None else where & known, order_by=order)


def top_share(value: Any, where: Any = None) -> Any:
    """The share of the facts that have the most frequent value, 0 to 1; null without one."""
    counted = _counted(_expression("top_share", value), where)
    return Deferred(Call(_largest, counted)) / counted.count().nullif(0)


def entropy(value: Any, where: Any = None) -> Any:
    """Shannon entropy of a value over the facts, in bits: 0 where all have the same one; null without one."""
    counted = _counted(_expression("entropy", value), where)
    # rounded, because a sum over a hash table ends in other bits from run to run; DuckDB says 0 where there is nothing
    return Deferred(Call(_bits, counted)).round(9) + counted.count().nullif(0) * 0.0


def decayed(value: Any, half_life: timedelta, where: Any = None) -> Any:
    """The sum of a value over the facts, each worth half as much for every half-life that it lies before the cutoff.

    `decayed(1, days(30))` counts facts. 0 without facts; exact to nine digits, whatever the order of the facts.
    """
    if not isinstance(half_life, timedelta) or half_life <= timedelta(0):
        problem = f"expected a positive duration, got {half_life!r}"
        raise DefinitionError(f"decayed({value!r}, {half_life!r})", problem, "write decayed(_.amount, days(90))")
    age = (_.cutoff.epoch_seconds() - _.event_at.epoch_seconds()) / half_life.total_seconds()
    worth = (-math.log(2) * age).exp() * value
    # a sum of decimals is the same in every order, that of floats is not
    return worth.cast("decimal(38, 9)").sum(where=where).cast("float64").fill_null(0)


def _expression(word: str, value: Any) -> Any:
    if not isinstance(value, Deferred):
        problem = f"expected an expression over the facts, got {value!r}"
        raise DefinitionError(f"{word}({value!r})", problem, f"write {word}(_.category)")
    return value


def _counted(value: Any, where: Any) -> Any:
    text = value.cast("string")  # what the two functions below count
    return text if where is None else where.ifelse(text, ibis.null())


# Plain functions between declaration and ibis' own wrappers, which cannot be pickled.
def _largest(value: Any) -> Any:
    counts: Any = _histogram(value)
    return counts.values().maxs()


def _bits(value: Any) -> Any:
    return _entropy(value)


@ibis.udf.agg.builtin(name="histogram")
def _histogram(value: str) -> dt.Map(dt.string, dt.int64):  # type: ignore[valid-type]
    """How many facts have each value."""


@ibis.udf.agg.builtin(name="entropy")
def _entropy(value: str) -> float:  # type: ignore[empty-body]
    """Shannon entropy in bits."""
