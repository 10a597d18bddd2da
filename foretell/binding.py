"""Does a declaration fit its source? Every expression is bound to the columns it will see before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.backends.sql.datatypes import DuckDBType

from foretell.checks import short
from foretell.declarations import Enters, Label, PredictionTask, Source, Until
from foretell.errors import DefinitionError, UnknownName, did_you_mean, unknown
from foretell.roles import ROLES, STAMPS
from foretell.views import FeatureView
from foretell.windows import FUTURE_COLUMN


def players(source: str | tuple[str, ...], sources: Mapping[str, Source]) -> list[Source]:
    """The sources that play a role (or one of several), or the one source of that name."""
    if isinstance(source, tuple):
        return list({s.name: s for name in source for s in players(name, sources)}.values())
    if source in sources:
        return [sources[source]]
    return [s for s in sources.values() if s.role == source]


def facts_schema(
    source: str | tuple[str, ...], sources: Mapping[str, Source], *, label: bool = False
) -> dict[str, str]:
    """Column -> SQL type of the facts a view (or a label) over this role or source, or over several, sees."""
    names = source if isinstance(source, tuple) else (source,)
    own: dict[str, str] = {}
    for name in names:
        for column, kind in (sources[name].fields if name in sources else ROLES[name]).items():
            if own.setdefault(column, kind) != kind:
                problem = f"is {own[column]} in one of {', '.join(names)} and {kind} in another"
                raise DefinitionError(column, problem, "rename it in one contract")
    several = {"role": "VARCHAR"} if isinstance(source, tuple) else {}
    return {**STAMPS, **several, **own, **({FUTURE_COLUMN: STAMPS["cutoff"]} if label else {})}


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


def seen(view: FeatureView, sources: Mapping[str, Source]) -> ir.Table:
    """What the features of a view aggregate: its facts, with whose they are, or the rows that its `each` makes of them.

    Raises DefinitionError where `each` is no such function.
    """
    facts = table({"profile_id": "VARCHAR", **facts_schema(view.source, sources)})
    if view.each is None:
        return facts
    subject, at = f"{view.name}, each", short(view.where)
    try:
        rows = view.each(facts)
    except AttributeError as error:
        raise _misspelt(subject, error, facts, at) from None
    except Exception as error:
        raise DefinitionError(subject, f"fails: {str(error).splitlines()[0]}", "mend it", where=at) from None
    keys = {"profile_id", "cutoff", *(key for key in view.keys if key != "account_id")}
    if not isinstance(rows, ir.Table) or not keys <= set(rows.columns):
        got = f"the columns {', '.join(rows.columns)}" if isinstance(rows, ir.Table) else repr(rows)
        wanted = ", ".join(sorted(keys))
        raise DefinitionError(subject, f"expected a table with {wanted}; got {got}", f"group by {wanted} too", where=at)
    if mixing := _mixing(rows, subject, view.facts_of == "everybody"):
        problem = f"{mixing} would mix the facts of several profiles"
        raise DefinitionError(subject, problem, "say profile_id in its grouping", where=at)
    return rows


def _mixing(rows: ir.Table, subject: str, may: bool) -> str | None:
    """What in a table of facts brings different profiles together, or None.

    may: whether windows may, as in a view of everybody's facts.
    """

    def names(values: Any) -> set[str]:
        return {value.name for value in values}

    for node in rows.op().find((ops.Aggregate, ops.WindowFunction, ops.JoinChain, ops.Limit, ops.Subquery)):
        if isinstance(node, ops.Aggregate):
            if "profile_id" not in names(node.groups.values()):
                return "an aggregate"
        elif isinstance(node, ops.WindowFunction):
            if "profile_id" not in names(node.group_by) and not may:
                return "a window"
            if node.order_by and isinstance(node.func, ops.Reduction) and node.start is None and node.end is None:
                problem = f"{node.func.name} over an order is of all rows, before and after"
                raise DefinitionError(subject, problem, "say rows=(None, 0), use row_number(), or leave order_by out")
        else:
            return f"a {type(node).__name__.lower().removesuffix('chain')}"
    return None


def bind_view(view: FeatureView, sources: Mapping[str, Source]) -> str | None:
    """Check a view against what its facts will look like. Returns why it must idle, or None if it can run."""
    at = short(view.where)
    for name in view.roles:
        if not players(name, sources):
            if name in ROLES:
                return f"no source plays the role {name}"
            raise unknown("source or role", name, [*sources, *ROLES], where=at)
    if "account" in (view.entity, view.facts_of) and not any(s.account for s in sources.values()):
        return "no source says who belongs to which account"
    rows = seen(view, sources)
    if view.each is None:
        rows = rows.drop("profile_id")  # that is whose the facts are, not one of them
    if lacking := [key for key in view.keys if key not in ("account_id", "profile_id", *rows.columns)]:
        problem = f"its rows are of a {view.entity}, and its facts have no {', '.join(lacking)}"
        raise DefinitionError(view.name, problem, f"known: {', '.join(rows.columns)}", where=at)
    for name, expression in view.features.items():
        kind = aggregate(rows, name, expression, what=view.name, where=at).type()
        if not (kind.is_boolean() or kind.is_numeric() or kind.is_string()):
            raise DefinitionError(
                f"{view.name}.{name}", f"a feature is a number, true/false or text, got {kind}",
                "write days_since(...) for an instant", where=at,
            )  # fmt: skip
    return None


def bind_label(label: Label, sources: Mapping[str, Source], task: str) -> dt.DataType:
    """The type of a label's value: boolean or a number; anything else is refused."""
    if label.source not in sources and label.source not in ROLES:
        raise unknown("source or role", label.source, [*sources, *ROLES], where=short(label.where))
    facts = counted(table(facts_schema(label.source, sources, label=True)), label, task)
    kind = aggregate(facts, "label", label.value, what=task, where=short(label.where)).type()
    if not (kind.is_boolean() or kind.is_numeric()):
        raise DefinitionError(
            task, f"a label is true/false or a number, got {kind}", "compare or sum", where=short(label.where)
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
        raise _misspelt(f"{task}.only", error, facts, short(label.where)) from None
    except Exception as error:
        raise DefinitionError(
            f"{task}.only", f"not a condition on {', '.join(facts.columns)}: {str(error).splitlines()[0]}",
            'write for example _.category == "DELI"', where=short(label.where),
        ) from None  # fmt: skip


def bind_task(
    task: PredictionTask, declared: Mapping[str, FeatureView], views: Mapping[str, FeatureView],
    sources: Mapping[str, Source],
) -> str | None:  # fmt: skip
    """Check a task; returns why it must idle (its label's or all of its views' sources are absent), or None."""
    for name in task.view_names:
        if name not in declared:
            raise unknown("feature view", name, declared, where=short(task.where))
        if (entity := declared[name].entity) != "profile":
            problem = f"is about profiles, and the view {name} about a {entity}"
            raise DefinitionError(task.name, problem, "leave it out of its views", where=short(task.where))
    if isinstance(task.label, Label):
        if task.label.source in ROLES and not players(task.label.source, sources):
            return f"no source plays the role {task.label.source}"
        bind_label(task.label, sources, task.name)
    if not any(name in views for name in task.view_names):
        return "none of its views can be filled"
    return None


def kind_of(task: PredictionTask, sources: Mapping[str, Source]) -> str:
    """ "probability" for a true/false label, "amount" for a number, "duration" for the days Until something."""
    if isinstance(task.label, Enters):
        return "probability"
    if isinstance(task.label, Until):
        return "duration"
    return "probability" if bind_label(task.label, sources, task.name).is_boolean() else "amount"
