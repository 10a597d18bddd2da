"""Does a declaration fit its source? Every expression is bound to the columns it will see before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
from ibis.backends.sql.datatypes import DuckDBType

from foretell.declarations import Enters, FeatureView, Label, PredictionTask, Source, _short
from foretell.errors import DefinitionError, UnknownName, did_you_mean, unknown
from foretell.roles import ROLES, STAMPS
from foretell.windows import FUTURE_COLUMN


def players(source: str, sources: Mapping[str, Source]) -> list[Source]:
    """The sources that play a role, or the one source of that name."""
    if source in sources:
        return [sources[source]]
    return [s for s in sources.values() if s.role == source]


def facts_schema(source: str, sources: Mapping[str, Source], *, label: bool = False) -> dict[str, str]:
    """Column -> SQL type of the facts a view (or a label) over this role or source sees."""
    own = sources[source].fields if source in sources else ROLES[source]
    return {**STAMPS, **own, **({FUTURE_COLUMN: STAMPS["cutoff"]} if label else {})}


# What a misspelt word may have meant, beside a column.
_METHODS = ("count", "sum", "mean", "max", "min", "nunique", "std", "fill_null", "nullif", "isin", "isnull", "cast")


@cache
def _type(sql: str) -> dt.DataType:
    return DuckDBType.from_string(sql)


def table(schema: Mapping[str, str], name: str = "facts") -> ir.Table:
    """An unbound ibis table of this schema."""
    return ibis.table({column: _type(sql) for column, sql in schema.items()}, name=name)


def aggregate(facts: ir.Table, name: str, expression: Any, *, what: str, where: str) -> ir.Scalar:
    """`expression` resolved on `facts`; a DefinitionError with a suggestion if it does not fit."""
    try:
        bound = facts.bind(expression)[0].name(name)
        if not isinstance(bound, ir.Scalar):
            raise TypeError("it has a value for every row")
        facts.aggregate(bound)
    except AttributeError as error:
        raise _misspelt(f"{what}.{name}", error, facts, where) from None
    except Exception as error:
        raise DefinitionError(
            f"{what}.{name}", f"not an aggregate of {', '.join(facts.columns)}: {str(error).splitlines()[0]}",
            "write for example _.amount.sum(where=past(days(90)))", where=where,
        ) from None  # fmt: skip
    return bound


def _misspelt(subject: str, error: AttributeError, facts: ir.Table, where: str) -> UnknownName:
    problem = f"no column or method {error.name!r}"
    known = [*facts.columns, *_METHODS]
    if isinstance(error.obj, ir.Value):
        problem = f"no method {error.name!r} of type {error.obj.type()}"
        known = [method for method in _METHODS if hasattr(error.obj, method)]
    return UnknownName(subject, problem, did_you_mean(str(error.name), known), where=where)


def bind_view(view: FeatureView, sources: Mapping[str, Source]) -> str | None:
    """Check a view against what its facts will look like. Returns why it must idle, or None if it can run."""
    if not players(view.source, sources):
        if view.source in ROLES:
            return f"no source plays the role {view.source}"
        raise unknown("source or role", view.source, [*sources, *ROLES], where=_short(view.where))
    facts = table(facts_schema(view.source, sources))
    for name, expression in view.features.items():
        kind = aggregate(facts, name, expression, what=view.name, where=_short(view.where)).type()
        if not (kind.is_boolean() or kind.is_numeric() or kind.is_string()):
            raise DefinitionError(
                f"{view.name}.{name}", f"a feature is a number, true/false or text, got {kind}",
                "write days_since(...) for an instant", where=_short(view.where),
            )  # fmt: skip
    return None


def bind_label(label: Label, sources: Mapping[str, Source], task: str) -> dt.DataType:
    """The type of a label's value: boolean or a number; anything else is refused."""
    if label.source not in sources and label.source not in ROLES:
        raise unknown("source or role", label.source, [*sources, *ROLES], where=_short(label.where))
    facts = counted(table(facts_schema(label.source, sources, label=True)), label, task)
    kind = aggregate(facts, "label", label.value, what=task, where=_short(label.where)).type()
    if not (kind.is_boolean() or kind.is_numeric()):
        raise DefinitionError(
            task, f"a label is true/false or a number, got {kind}", "compare or sum", where=_short(label.where)
        )
    return kind


def counted(facts: ir.Table, label: Label, task: str) -> ir.Table:
    """The facts that count for a label: those its `only` selects."""
    if label.only is None:
        return facts
    try:
        condition = facts.bind(label.only)[0]
        if not isinstance(condition, ir.BooleanColumn):  # ibis would compare an aggregate over everybody's facts
            kind = condition.type()
            raise TypeError(f"it is {kind}" if not kind.is_boolean() else "it has one value for all facts")
        return facts.filter(condition)
    except AttributeError as error:
        raise _misspelt(f"{task}.only", error, facts, _short(label.where)) from None
    except Exception as error:
        raise DefinitionError(
            f"{task}.only", f"not a condition on {', '.join(facts.columns)}: {str(error).splitlines()[0]}",
            'write for example _.category == "DELI"', where=_short(label.where),
        ) from None  # fmt: skip


def bind_task(
    task: PredictionTask, declared: Mapping[str, FeatureView], views: Mapping[str, FeatureView],
    sources: Mapping[str, Source],
) -> str | None:  # fmt: skip
    """Check a task; returns why it must idle (its label's or all of its views' sources are absent), or None."""
    for name in task.view_names:
        if name not in declared:
            raise unknown("feature view", name, declared, where=_short(task.where))
    if isinstance(task.label, Label):
        if task.label.source in ROLES and not players(task.label.source, sources):
            return f"no source plays the role {task.label.source}"
        bind_label(task.label, sources, task.name)
    if not any(name in views for name in task.view_names):
        return "none of its views can be filled"
    return None


def kind_of(task: PredictionTask, sources: Mapping[str, Source]) -> str:
    """ "probability" for a true/false label, "amount" for a number."""
    if isinstance(task.label, Enters):
        return "probability"
    return "probability" if bind_label(task.label, sources, task.name).is_boolean() else "amount"
