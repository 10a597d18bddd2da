"""What do `past`, `future` and `days_since` mean inside a declaration?

Expressions are deferred ibis expressions over one table of facts. The kernel gives that table a column `cutoff`
(the instant T), and hands a feature view only facts that happened and were known before T; a label sees the facts
of its horizon `[T, T + horizon)` and nothing else. `past` and `future` therefore only narrow what the kernel gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from ibis import _
from ibis.common.deferred import Attr, BinaryOperator, Deferred, Item, Just, Resolver

from foretell.errors import DefinitionError

__all__ = [
    "_",
    "attributes",
    "days",
    "days_since",
    "days_until",
    "future",
    "future_windows",
    "hours",
    "minutes",
    "past",
    "past_windows",
]

# Exists only on the table a label sees. Reading it is what makes an expression a look into the future.
FUTURE_COLUMN = "horizon_start"


def days(n: float) -> timedelta:
    """A duration of n × 24 hours."""
    return timedelta(days=n)


def hours(n: float) -> timedelta:
    """A duration of n hours."""
    return timedelta(hours=n)


def minutes(n: float) -> timedelta:
    """A duration of n minutes."""
    return timedelta(minutes=n)


def _length(window: timedelta, word: str) -> timedelta:
    if not isinstance(window, timedelta):
        raise DefinitionError(f"{word}({window!r})", "expected a duration, got a number", f"write {word}(days(90))")
    if window <= timedelta(0):
        raise DefinitionError(
            f"{word}({window})", f"expected a positive duration, got {window}", f"write {word}(days(90))"
        )
    return window


def past(window: timedelta) -> Any:
    """True for facts of the lookback `[T − window, T)`.

    >>> past(days(-1))
    Traceback (most recent call last):
    ...
    foretell.errors.DefinitionError: past(-1 day, 0:00:00): expected a positive duration, got -1 day, 0:00:00; ...
    """
    if _length(window, "past") > timedelta(days=1) and window % timedelta(days=1):  # no engine has such an interval
        problem = f"from a day on, a duration is of whole days, got {window}"
        raise DefinitionError(f"past({window})", problem, f"write past(days({-(-window // timedelta(days=1))}))")
    return _.event_at >= _.cutoff - window


def future(window: timedelta) -> Any:
    """True for facts of `[T, T + window)`, a part of a label's horizon. Refused in feature views."""
    return _.event_at < _[FUTURE_COLUMN] + _length(window, "future")


def days_since(instant: Any) -> Any:
    """Elapsed time from an aggregated instant to the cutoff, in days of 24 hours (float); null without facts.

    Engines disagree on date differences, so it is seconds of the epoch, with their fractions, divided by 86,400.
    """
    return (_.cutoff.max().epoch_seconds() - instant.epoch_seconds()) / 86_400.0


def days_until(instant: Any) -> Any:
    """Time from the cutoff to an aggregated instant, in days of 24 hours (float); null without facts. For labels."""
    return -days_since(instant)


def attributes(expression: Any) -> frozenset[str]:
    """Every attribute name a deferred expression reads: columns and methods alike."""
    return frozenset(name for name in map(_attribute, _nodes(expression)) if name is not None)


def future_windows(expression: Any) -> list[timedelta]:
    """The lengths of all `future(...)` windows in a deferred expression."""
    return [
        node.right.value
        for node in _nodes(expression)
        if isinstance(node, BinaryOperator) and _attribute(node.left) == FUTURE_COLUMN and isinstance(node.right, Just)
    ]


def past_windows(expression: Any) -> list[timedelta]:
    """The lengths of all `past(...)` windows in a deferred expression."""
    return [
        node.right.value
        for node in _nodes(expression)
        if isinstance(node, BinaryOperator) and _attribute(node.left) == "cutoff" and isinstance(node.right, Just)
        and isinstance(node.right.value, timedelta)
    ]  # fmt: skip


def _attribute(node: Any) -> str | None:
    name = node.name if isinstance(node, Attr) else node.indexer if isinstance(node, Item) else None
    return name.value if isinstance(name, Just) and isinstance(name.value, str) else None


def _nodes(expression: Any) -> Iterator[Any]:
    """The tree of a deferred expression, from its root down (ibis offers no walk of its own)."""
    node = expression._resolver if isinstance(expression, Deferred) else expression
    yield node
    if isinstance(node, Resolver):
        children = [getattr(node, slot, None) for slot in type(node).__slots__]
    elif isinstance(node, tuple | list):
        children = list(node)
    elif isinstance(node, Mapping):
        children = list(node.values())
    else:
        return
    for child in children:
        yield from _nodes(child)
