"""What does a value of an expression come to in plain Python? The functions behind ibis' operations, one row at a time.

Written from what SQL says of each operation, not from how an engine does it. What is not here raises
NotImplementedError, which names the operation: teach it here, and say in tests/laws/test_naive.py what it gives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Function = Callable[..., Any]


def unknown(what: str) -> NotImplementedError:
    """The error of something that the oracle has not been taught."""
    return NotImplementedError(f"the naive oracle does not know {what}: teach it in tests/laws/naive*.py")


def function_of(node: ops.Value) -> Function:
    """What makes a value of an operation of those of its arguments, in their order; absent ones are left out."""
    if isinstance(node, ops.TryCast):
        return partial(try_cast, to=node.to)
    if isinstance(node, ops.Cast):
        return partial(cast, to=node.to)
    if isinstance(node, ops.Clip):
        return partial(clip, below=node.lower is not None)
    if (function := _LENIENT.get(type(node))) is not None:
        return function
    if (function := _STRICT.get(type(node))) is not None:
        return partial(_null_of_null, function)
    raise unknown(f"the operation {type(node).__name__}")


def _null_of_null(function: Function, *values: Any) -> Any:
    return None if any(value is None for value in values) else function(*values)


def same(said: Any, wanted: Any) -> bool:
    """Floats and money to nine digits, everything else exactly."""
    if (
        not isinstance(said, float | Decimal)
        or not isinstance(wanted, int | float | Decimal)
        or isinstance(wanted, bool)
    ):
        return said == wanted and isinstance(said, bool) == isinstance(wanted, bool)
    return math.isclose(said, wanted, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(said) and math.isnan(wanted))


# Logic of three values.


def conjunction(one: bool | None, other: bool | None) -> bool | None:
    """AND: false if either is, unknown if either is."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def disjunction(one: bool | None, other: bool | None) -> bool | None:
    """OR: true if either is, unknown if either is."""
    if one is True or other is True:
        return True
    return None if one is None or other is None else False


def is_in(value: Any, *options: Any) -> bool | None:
    """IN: unknown of an unknown value, and where it is not among options of which one is unknown."""
    if value is None:
        return None
    return value in options or (None if None in options else False)


def coalesce(*values: Any) -> Any:
    """The first value that is known."""
    return next((value for value in values if value is not None), None)


def null_if(value: Any, other: Any) -> Any:
    """The value, unless it is the other."""
    return None if value is not None and value == other else value


def if_else(condition: bool | None, yes: Any, no: Any) -> Any:
    """What is unknown counts as no."""
    return yes if condition is True else no


# Numbers. Money is Decimal and stays exact until it meets a float or a division.


def _alike(function: Function) -> Function:
    def of(one: Any, other: Any) -> Any:
        if isinstance(one, float) or isinstance(other, float):
            one, other = float(one), float(other)
        return function(one, other)

    return of


def divide(one: Any, other: Any) -> float:
    """A float, as IEEE 754 has it: over zero it is infinite, and zero over zero no number."""
    one, other = float(one), float(other)
    if other:
        return one / other
    return math.nan if one == 0 or math.isnan(one) else math.copysign(math.inf, one)


def clip(value: Any, *bounds: Any, below: bool) -> Any:
    """The value, or the bound that it lies beyond; below: whether the first bound is the lower one."""
    if value is None:
        return None
    lower, upper = (bounds[0] if below else None, bounds[-1] if len(bounds) > below else None)
    if lower is not None:
        value = max(value, lower)
    return value if upper is None else min(value, upper)


def rounded(value: Any, digits: int = 0) -> Any:
    """Half away from zero."""
    exact = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return exact if isinstance(value, Decimal) else float(exact)


# Instants. A date is its first instant in UTC; seconds of the epoch keep their fraction.


def at(value: date) -> datetime:
    """A date or an instant as an instant."""
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


def epoch_seconds(value: date) -> float:
    """Seconds since 1970."""
    return (at(value) - EPOCH) / timedelta(seconds=1)


def literal(node: ops.Literal) -> Any:
    """A constant; an interval is a timedelta."""
    if isinstance(node.dtype, dt.Interval) and not isinstance(node.value, timedelta | None):
        unit = node.dtype.unit.plural
        if unit in ("years", "quarters", "months"):
            raise unknown(f"an interval of {unit}, whose length depends on when")
        return timedelta(**{unit: int(node.value)}) if unit != "nanoseconds" else _never(unit)
    return node.value


def _never(unit: str) -> timedelta:
    raise unknown(f"an interval of {unit}")


# Types.


def cast(value: Any, to: dt.DataType) -> Any:
    """A value as another type; an error where an engine would raise one, or has a form of its own."""
    if value is None:
        return None
    if to.is_string() and isinstance(value, str):
        return value
    if to.is_boolean() and isinstance(value, bool):
        return value
    if to.is_timestamp() and isinstance(value, date):
        return at(value)
    if to.is_date() and isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, bool | int | float | Decimal):
        if to.is_floating():
            return float(value)
        if to.is_integer():
            # a float goes to the even one, money away from zero
            return round(value) if isinstance(value, float) else int(rounded(Decimal(value)))
        if isinstance(to, dt.Decimal) and to.scale is not None:
            return rounded(Decimal(value), to.scale)
    raise unknown(f"a cast of {type(value).__name__} to {to}")


def try_cast(value: Any, to: dt.DataType) -> Any:
    """A value as another type, null where it is none of it."""
    if not to.is_date() or not isinstance(value, str | None):
        raise unknown(f"a try_cast of {type(value).__name__} to {to}")
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        return None


# Null if an argument is.
_STRICT: dict[type[ops.Node], Function] = {
    ops.Not: operator.not_,
    ops.Equals: operator.eq,
    ops.NotEquals: operator.ne,
    ops.Less: operator.lt,
    ops.LessEqual: operator.le,
    ops.Greater: operator.gt,
    ops.GreaterEqual: operator.ge,
    ops.Between: lambda value, low, high: low <= value <= high,
    ops.Add: _alike(operator.add),
    ops.Subtract: _alike(operator.sub),
    ops.Multiply: _alike(operator.mul),
    ops.Divide: divide,
    ops.Negate: operator.neg,
    ops.Abs: abs,
    ops.Exp: math.exp,
    ops.Sqrt: math.sqrt,
    ops.Round: rounded,
    ops.TimestampAdd: operator.add,
    ops.TimestampSub: operator.sub,
    ops.ExtractEpochSeconds: epoch_seconds,
    ops.Strip: lambda text: text.strip(" \t\n\r\v\f"),
    ops.Lowercase: str.lower,
    ops.MapValues: lambda counted: list(counted.values()),
    ops.ArrayMax: lambda values: max((value for value in values if value is not None), default=None),
}
# What is unknown means something to these.
_LENIENT: dict[type[ops.Node], Function] = {
    ops.And: conjunction,
    ops.Or: disjunction,
    ops.IsNull: lambda value: value is None,
    ops.NotNull: lambda value: value is not None,
    ops.Coalesce: coalesce,
    ops.NullIf: null_if,
    ops.IfElse: if_else,
    ops.InValues: is_in,
    ops.Alias: lambda value: value,
}


# Aggregates, of the values that are known.


def total(values: list[Any]) -> Any:
    """Their sum, unknown of none."""
    if not values:
        return None
    return math.fsum(values) if isinstance(values[0], float) else sum(values)


def median(values: list[Any]) -> Any:
    """The middle one, or halfway between the two in the middle; unknown of none."""
    if not values:
        return None
    line, half = sorted(values), len(values) // 2
    if len(values) % 2:
        return line[half]
    return (line[half - 1] + line[half]) / (2.0 if isinstance(line[0], float | int) else 2)


def histogram(values: list[Any]) -> dict[Any, int] | None:
    """How often each occurs; unknown of none."""
    return {value: values.count(value) for value in values} or None


def entropy(values: list[Any]) -> float:
    """Shannon entropy in bits; 0 of none."""
    shares = [count / len(values) for count in (histogram(values) or {}).values()]
    return -math.fsum(share * math.log2(share) for share in shares) if shares else 0.0


REDUCTIONS: dict[type[ops.Node], Callable[[list[Any]], Any]] = {
    ops.Count: len,
    ops.CountDistinct: lambda values: len(set(values)),
    ops.Sum: total,
    ops.Mean: lambda values: divide(total(values), len(values)) if values else None,
    ops.Median: median,
    ops.Max: lambda values: max(values, default=None),
    ops.Min: lambda values: min(values, default=None),
    ops.Any: lambda values: any(values) if values else None,
    ops.All: lambda values: all(values) if values else None,
}
FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {"histogram": histogram, "entropy": entropy}  # an engine's own


def reduction_of(node: ops.Value) -> Callable[[list[Any]], Any]:
    """What makes an aggregate of the values that are known."""
    name = getattr(node, "__func_name__", None) if isinstance(node, ops.AggUDF) else None
    function = FUNCTIONS.get(str(name)) if name else REDUCTIONS.get(type(node))
    if function is None:
        raise unknown(f"the aggregate {name or type(node).__name__}")
    return function


def ordered(line: Iterable[int], values: list[Any], *, ascending: bool, nulls_first: bool) -> list[int]:
    """Places put in the order of their values; those of equal values stay as they were, the unknown come last."""
    line = list(line)
    said = sorted((i for i in line if values[i] is not None), key=values.__getitem__, reverse=not ascending)
    silent = [i for i in line if values[i] is None]
    return silent + said if nulls_first else said + silent
