"""How is a query that was written for DuckDB asked of Spark? Translated by sqlglot, and mended where the two differ.

sqlglot knows another engine's words, not what they mean there. What differs in meaning is rewritten here: division,
rounding, elapsed time, the first of several rows in an order, what a histogram or a median is. Nothing is guessed: a
query that says something which is not known to mean the same in both engines is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import Expr, exp

from foretell.errors import DefinitionError

_SHAPE = (  # what a query is built of
    exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Qualify,
    exp.Subquery, exp.With, exp.CTE, exp.Union, exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier,
    exp.Literal, exp.Null, exp.Boolean, exp.Star, exp.Paren, exp.Tuple, exp.Array, exp.Window, exp.WindowSpec,
    exp.Filter, exp.Distinct, exp.DataType, exp.DataTypeParam, exp.Var, exp.ReadParquet, exp.Columns, exp.Lambda,
)  # fmt: skip
_WORDS = (  # what means the same in both engines, or is made to
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeNEQ, exp.NullSafeEQ,
    exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Exists, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.Case,
    exp.If, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Cast, exp.TryCast, exp.Interval, exp.TimeToUnix,
    exp.DPipe, exp.Trim, exp.Lower, exp.Upper, exp.Length, exp.Abs, exp.Round, exp.Ceil, exp.Floor, exp.Sqrt, exp.Exp,
    exp.Ln, exp.Pow, exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.LogicalOr, exp.LogicalAnd, exp.AnyValue,
    exp.StddevSamp, exp.Stddev, exp.ArgMax, exp.ArgMin, exp.First, exp.Last, exp.Median, exp.PercentileCont,
    exp.IgnoreNulls, exp.BitwiseOrAgg,
    exp.RowNumber, exp.Rank, exp.DenseRank, exp.Lag, exp.Lead, exp.ArrayMax, exp.Explode, exp.Unnest,
)  # fmt: skip
_CALLS = frozenset({"HISTOGRAM", "MAP_VALUES", "ENTROPY", "DUCKDB_VIEWS"})
_INSTANTS = frozenset({"TIMESTAMP", "TIMESTAMPNTZ", "TIMESTAMPTZ"})
_WHOLE = frozenset({"BIGINT", "INT", "UBIGINT"})
_TYPES = _INSTANTS | _WHOLE | {"DOUBLE", "VARCHAR", "TEXT", "BOOLEAN", "DATE", "DECIMAL", "ARRAY"}
_UNORDERED = (exp.RowNumber, exp.Rank, exp.DenseRank, exp.Lag, exp.Lead)  # a frame means nothing to them
_DATE = r"^\\s*([0-9]{1,4})([-/ ])([0-9]{1,2})\\2([0-9]{1,2})(\\s*| [0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?)$"


@dataclass(frozen=True)
class Known:
    """What the engine is asked for while a query is translated.

    files: a table's name for these Parquet files, and whether they may differ in columns. views: the names of all
    views. columns: those of a query of Spark's; kinds: the types of its columns, as Spark names them.
    """

    files: Callable[[Sequence[str], bool], str]
    views: Callable[[], Sequence[str]]
    columns: Callable[[str], Sequence[str]]
    kinds: Callable[[str], Sequence[str]]


def statements(text: str) -> list[Expr]:
    """The statements of a text for DuckDB."""
    return [tree for tree in sqlglot.parse(text, dialect="duckdb") if tree is not None]


def for_spark(tree: Expr, known: Known) -> str:
    """A query as SQL for Spark; a DefinitionError of one that says what is not known to mean the same there."""
    tree = tree.copy()
    _check(tree)
    for node in reversed(list(tree.walk(bfs=False))):  # inner queries first, in each what it reads before what it says
        made = _mended(node, known)
        if made is not None and made is not node:
            if node is tree:
                tree = made
            else:
                node.replace(made)
    return tree.sql(dialect="spark")


def _check(tree: Expr) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Anonymous):
            said = "" if node.name.upper() in _CALLS else node.name
        elif isinstance(node, exp.IntDiv):  # of counts: floats, and what may be zero, are others' business
            said = "" if node.this.find(exp.Count) and node.expression.is_int else node.sql("duckdb")
        elif isinstance(node, exp.DataType):
            said = "" if node.this.value in _TYPES else node.sql("duckdb")
        else:
            said = "" if isinstance(node, _SHAPE + _WORDS) else node.sql("duckdb")[:60]
        if said:
            raise DefinitionError(
                "engine spark", f"expected what means the same on DuckDB and on Spark, got {said} in a query",
                "leave --engine spark out for it, or teach lake/spark_sql.py",
            )  # fmt: skip


def _mended(node: Expr, known: Known) -> Expr | None:
    """What stands in place of a node whose parts are mended; None: it means the same."""
    match node:
        case exp.Table(this=exp.ReadParquet() as read):
            return _files(node, read, known)
        case exp.Table(this=exp.Anonymous()):
            return _views(known)
        case exp.Select():
            return _selected(node, known)
        case exp.Union(args={"by_name": True}):
            return _by_name(node, known)
        case exp.Div():
            return _divided(node)
        case exp.Avg():
            return _put("AVG({})", _double(node.this))
        case exp.TryCast(to=to) if to.this.value == "DATE":
            return _date(node.this)
        case exp.Cast(to=to) if to.this.value in _WHOLE:
            return _rounded(node, known)
        case exp.TimeToUnix():
            return _put("CAST(UNIX_MICROS(CAST({} AS TIMESTAMP)) AS DOUBLE) / 1000000D", node.this)
        case exp.DataType():
            kind = node.this.value  # both engines' sessions are in UTC: an instant is one with or without a zone
            name = "TIMESTAMPTZ" if kind in _INSTANTS else "BIGINT" if kind == "UBIGINT" else None
            return exp.DataType.build(name) if name else None
        case exp.Literal(is_string=True) if re.search(r"[\a\f\v]", node.name):  # sqlglot writes escapes Spark has not
            return _put(f"DECODE(X'{node.name.encode().hex()}', 'UTF-8')")
        case exp.IgnoreNulls(this=exp.AnyValue() as one):  # said so that a filter may follow
            return exp.Anonymous(this="ANY_VALUE", expressions=[one.this.copy(), exp.true()])
        case exp.Window():
            return _window(node)
        case exp.Filter():
            return _filtered(node)
        case exp.ArgMax() | exp.ArgMin():
            return _of_most(node)
        case exp.Like() | exp.ILike():
            return _like(node)
    return _aggregate(node, None) if isinstance(node, (exp.First, exp.Last, *_SAME)) or _calls(node) else None


def _put(text: str, *parts: Expr) -> Expr:
    """SQL of Spark's with these parts in it, each in place of a {}."""
    places = iter(range(len(parts)))
    made = sqlglot.parse_one(re.sub(r"\{\}", lambda _: f"_part{next(places)}", text), dialect="spark")
    for column in list(made.find_all(exp.Column)):
        if found := re.fullmatch(r"_part(\d+)", column.name):
            part = parts[int(found[1])].copy()
            column.replace(exp.paren(part, copy=False) if isinstance(part, (exp.Binary, exp.Unary)) else part)
    return exp.paren(made, copy=False) if isinstance(made, exp.Binary) else made


def _double(node: Expr) -> Expr:
    return exp.cast(node.copy(), "DOUBLE")


# --- tables and columns -----------------------------------------------------------------------------------------------


def _files(table: Expr, read: exp.ReadParquet, known: Known) -> Expr:
    listed, *options = read.expressions
    files = [literal.name for literal in (listed.expressions if isinstance(listed, exp.Array) else [listed])]
    differ = any(option.this.name == "union_by_name" for option in options)
    return exp.Table(this=exp.to_identifier(known.files(files, differ)), alias=table.args.get("alias"))


def _views(known: Known) -> Expr:
    names = ", ".join(exp.Literal.string(name).sql("spark") for name in known.views()) or "''"
    return exp.maybe_parse(
        f"SELECT EXPLODE(ARRAY({names})) AS view_name, false AS internal", dialect="spark"
    ).subquery()


def _selected(select: exp.Select, known: Known) -> Expr | None:
    """COLUMNS(lambda name: name IN (…)) as those of the columns there are; * REPLACE as all others and the new one."""
    for value in list(select.expressions):
        if isinstance(value, exp.Columns):
            wanted = {literal.name.lower() for literal in value.this.this.expressions}
            rows = select.copy()
            rows.set("expressions", [exp.Star()])
            there = [name for name in known.columns(rows.sql("spark")) if name.lower() in wanted]
            at = next(place for place, one in enumerate(select.expressions) if one is value)
            listed = [exp.column(name, quoted=True) for name in there]
            select.set("expressions", [*select.expressions[:at], *listed, *select.expressions[at + 1 :]])
        elif isinstance(value, exp.Star) and (new := value.args.get("replace")):
            value.set("replace", None)
            value.set("except_", [exp.to_identifier(one.alias, quoted=True) for one in new])
            select.set("expressions", [*select.expressions, *new])
    limit = select.args.get("limit")
    return _limited(select, limit.expression) if limit is not None and limit.find(exp.Select) else None


def _limited(select: exp.Select, count: Expr) -> Expr:
    """As many rows as a query says: Spark wants a number there, so that rows are numbered in their order."""
    inner = select.copy()
    inner.set("limit", None)
    order = inner.args["order"].pop()
    place = exp.Window(this=exp.RowNumber(), order=order)
    names = [exp.column(value.alias_or_name, quoted=True) for value in inner.expressions]
    inner = inner.select(exp.alias_(place, "_place"), copy=False)
    return exp.select(*names).from_(inner.subquery()).where(exp.LTE(this=exp.column("_place"), expression=count.copy()))


def _by_name(union: exp.Union, known: Known) -> Expr:
    """UNION ALL BY NAME as one by place: a side that lacks a column has null in it."""
    sides = [union.this, union.expression]
    texts = [side.sql("spark") for side in sides]
    own = [list(known.columns(text)) for text in texts]
    names = list(dict.fromkeys(name for columns in own for name in columns))
    parts = [
        f"SELECT {', '.join(f'`{n}`' if n in columns else f'NULL AS `{n}`' for n in names)} FROM ({text})"
        for text, columns in zip(texts, own, strict=True)
    ]
    return sqlglot.parse_one(" UNION ALL ".join(parts), dialect="spark")


# --- values -----------------------------------------------------------------------------------------------------------


def _divided(node: exp.Div) -> Expr:
    """Of floats always, as DuckDB divides; over zero it is infinite or no number, and no error."""
    over = node.expression.unnest()
    never_zero = isinstance(over, exp.Nullif) or (over.is_number and float(over.name) != 0)
    if never_zero:
        return _put("CAST({} AS DOUBLE) / CAST({} AS DOUBLE)", node.this, over)
    infinite = "CASE WHEN {} = 0 THEN CAST({} AS DOUBLE) * DOUBLE('Infinity') ELSE CAST({} AS DOUBLE) / {} END"
    return _put(infinite, over, node.this, node.this, _double(over))


def _rounded(node: exp.Cast, known: Known) -> Expr | None:
    """A float that is made a whole number is rounded, as DuckDB does, to the even one if it lies between two."""
    value = node.this.unnest()
    if isinstance(value, (exp.Predicate, exp.Connector, exp.Not, exp.Boolean, exp.Count, exp.Literal, exp.Null)):
        return None
    within = node.find_ancestor(exp.Select)
    kind = "double"
    if within is not None:
        asked = within.copy()
        asked.set("expressions", [exp.alias_(value.copy(), "asked")])
        for clause in ("order", "limit", "qualify", "having"):
            asked.set(clause, None)
        kind = known.kinds(asked.sql("spark"))[0]
    if kind in ("double", "float"):
        return exp.cast(_put("RINT({})", value), node.to)
    if kind.startswith("decimal"):
        return exp.cast(_put("ROUND({}, 0)", value), node.to)
    return None


def _date(value: Expr) -> Expr:
    """Text as a date, null if it is none. Spark would take a year alone, and whatever follows a blank."""
    parts = [f"LPAD(REGEXP_EXTRACT({{}}, '{_DATE}', {n}), {width}, '0')" for n, width in ((1, 4), (3, 2), (4, 2))]
    return _put(f"TRY_CAST(CONCAT({parts[0]}, '-', {parts[1]}, '-', {parts[2]}) AS DATE)", value, value, value)


def _like(node: Expr) -> Expr | None:
    """A backslash in a pattern is a backslash: only Spark takes it for more."""
    pattern = node.expression
    if isinstance(pattern, exp.Literal) and "\\" in pattern.name:
        pattern.replace(exp.Literal.string(pattern.name.replace("\\", "\\\\")))
    return None


# --- aggregates and windows -------------------------------------------------------------------------------------------

_COUNTED = (  # value -> count, of the sorted values: a value's run ends where another begins
    "ELEMENT_AT(TRANSFORM(ARRAY(ARRAY_SORT(COLLECT_LIST({}))), s -> CASE WHEN SIZE(s) > 0 THEN ELEMENT_AT(TRANSFORM("
    "ARRAY(FILTER(SEQUENCE(1, SIZE(s)), i -> i = SIZE(s) OR GET(s, i - 1) <> GET(s, i))), e -> MAP_FROM_ARRAYS("
    "TRANSFORM(e, k -> GET(s, k - 1)), TRANSFORM(e, (k, j) -> CAST(k - COALESCE(GET(e, j - 1), 0) AS BIGINT)))), 1) "
    "END), 1)"
)
_BITS = (
    "COALESCE(ELEMENT_AT(TRANSFORM(ARRAY(MAP_VALUES({})), c -> LOG2(AGGREGATE(c, 0D, (a, n) -> a + n)) - "
    "AGGREGATE(c, 0D, (a, n) -> a + n * LOG2(n)) / AGGREGATE(c, 0D, (a, n) -> a + n)), 1), 0D)"
)
_SAME = (exp.Median, exp.PercentileCont)


def _calls(node: Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.upper() in ("HISTOGRAM", "ENTROPY")


def _aggregate(node: Expr, where: Expr | None) -> Expr | None:
    """An aggregate that Spark has under another name or not at all; where: of which rows."""
    if isinstance(node.parent, exp.Filter) and where is None:
        return None  # its turn comes with its filter
    clause = f" FILTER(WHERE {where.sql('spark')})" if where is not None else ""
    if isinstance(node, exp.Median):
        return _put(f"PERCENTILE({{}}, 0.5){clause}", _double(node.this))
    if isinstance(node, exp.PercentileCont):
        return _put(f"PERCENTILE({{}}, {{}}){clause}", _double(node.this), node.expression)
    if isinstance(node, (exp.First, exp.Last)):
        return _first(node, clause)
    if _calls(node):
        counted = _put(_COUNTED.replace("COLLECT_LIST({})", f"COLLECT_LIST({{}}){clause}"), node.expressions[0])
        return counted if node.name.upper() == "HISTOGRAM" else _put(_BITS, counted)
    return None


def _filtered(node: exp.Filter) -> Expr | None:
    aggregate, where = node.this, node.expression.this
    if isinstance(node.parent, exp.Window):  # Spark has no filter there
        counted = exp.Literal.number(1) if isinstance(aggregate.this, exp.Star) else aggregate.this
        made = aggregate.copy()
        made.set("this", exp.Case(ifs=[exp.If(this=where.copy(), true=counted.copy())]))
        return made
    return _aggregate(aggregate, where)


def _first(node: Expr, clause: str) -> Expr:
    """The first or last of an order: what has the smallest or the largest key, made of all that the order says."""
    order = node.this
    if not isinstance(order, exp.Order):
        problem = f"expected an order in {node.sql('duckdb')[:60]}, got none"
        raise DefinitionError("engine spark", problem, "say order_by: rows come in no order of their own")
    keys = [(key.this, bool(key.args.get("desc")), bool(key.args.get("nulls_first"))) for key in order.expressions]
    last, down = isinstance(node, exp.Last), keys[0][1]
    if any(desc != down for _, desc, _ in keys):
        return _sorted_first(order.this, keys, clause, last)
    parts: list[Expr] = []
    for value, _, nulls_first in keys:  # of each key first whether it is null: nulls stand where the order wants them
        null = exp.Is(this=value.copy(), expression=exp.null())
        parts += [null if nulls_first == down else exp.not_(null, copy=False), value]
    said = ", ".join("{}" for _ in parts)
    return _put(f"{'MAX' if down != last else 'MIN'}_BY({{}}, STRUCT({said})){clause}", order.this, *parts)


def _sorted_first(value: Expr, keys: list[tuple[Expr, bool, bool]], clause: str, last: bool) -> Expr:
    """The same where some keys go up and others down: the rows' keys are collected and sorted by a comparison."""
    listed = ", ".join(f"{{}} AS k{n}" for n in range(len(keys)))
    compared = "0"
    for n, (_, desc, nulls_first) in reversed(list(enumerate(keys))):
        less, more = ("1", "-1") if desc != last else ("-1", "1")
        null, known = ("-1", "1") if nulls_first != last else ("1", "-1")
        compared = (
            f"CASE WHEN l.k{n} IS NULL AND r.k{n} IS NULL THEN {compared} WHEN l.k{n} IS NULL THEN {null} "
            f"WHEN r.k{n} IS NULL THEN {known} WHEN l.k{n} < r.k{n} THEN {less} "
            f"WHEN l.k{n} > r.k{n} THEN {more} ELSE {compared} END"
        )
    rows = f"ARRAY_SORT(COLLECT_LIST(STRUCT({{}} AS v, {listed})){clause}, (l, r) -> {compared})"
    return _put(f"GET({rows}, 0).v", value, *(key for key, *_ in keys))


def _of_most(node: Expr) -> Expr:
    """arg_max and arg_min leave out rows whose value is null; of several keys the first that differs decides."""
    name = "MAX_BY" if isinstance(node, exp.ArgMax) else "MIN_BY"
    key = node.expression
    said = ", ".join("{}" for _ in key.expressions) if isinstance(key, exp.Tuple) else "{}"
    made = f"STRUCT({said})" if isinstance(key, exp.Tuple) else said
    parts = key.expressions if isinstance(key, exp.Tuple) else [key]
    return _put(f"{name}({{}}, CASE WHEN {{}} IS NOT NULL THEN {made} END)", node.this, node.this, *parts)


def _window(node: exp.Window) -> Expr | None:
    if isinstance(node.this, _UNORDERED):
        node.set("spec", None)
    return None
