"""The one language that says which profiles are meant: a SQL boolean over the wide table of attributes.

>>> rule = parse("churn > 0.6 and top(clv, 0.2) and city in ('Oslo', 'Bergen')")
>>> sorted(rule.columns)
['churn', 'city', 'clv']
>>> parse("Order > 3 or city is null").sql()
'SELECT profile_id FROM "attributes" WHERE ("order" > 3) OR ("city" IS NULL)'
>>> rule.bind({"churn": "DOUBLE", "clv": "DOUBLE", "city": "VARCHAR"}) is rule
True
>>> rule.bind({"churn": "DOUBLE", "clvs": "DOUBLE", "city": "VARCHAR"})
Traceback (most recent call last):
...
foretell.errors.UnknownName: clv: no such attribute; did you mean "clvs"?. (in the rule "churn > 0.6 and ...")
>>> parse("churn + 1")
Traceback (most recent call last):
...
foretell.errors.DefinitionError: rule "churn + 1": expected a true/false rule, got a number; compare it, as in ...

The meaning is SQL's, with its three-valued logic: a comparison with a missing value is NULL, and **a rule that is NULL
for a profile does not select it**; neither does its negation (say `churn is null` or `coalesce(churn, 0) > 0.6`).
`top(clv, 0.2)` ranks the whole table: it is true for exactly ceil(0.2 × n) of the n profiles that have a clv, those
with the highest values (`bottom`: the lowest), ties going to the lower profile_id, and NULL for a profile without one.
`consent('email')` is true for who may be used for that purpose now. Division by zero is NULL. Names of attributes are
lower case, whatever case the rule writes them in.

Nothing of the text reaches the database: the SQL is rebuilt, node by node, from the tree of what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Any, NamedTuple, NoReturn

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import ParseError, TokenError

from foretell.errors import DefinitionError, unknown
from lake.catalogue import CONSENT

FUNCTIONS = ("abs", "bottom", "coalesce", "consent", "lower", "top")
ALLOWED = (
    "allowed are and, or, not, comparisons, between, in (…), like, ilike, is null, + - * /, numbers, 'text', true, "
    f"false, null, date '…', timestamp '…', interval '…', and the functions {', '.join(FUNCTIONS)}"
)
EXAMPLE = "churn > 0.6 and top(clv, 0.2)"
DEEPEST = 60  # levels of nesting; chains of and/or do not count


class Rank(NamedTuple):
    """Who is among the first of all: best is "top" or "bottom", by an attribute; share of those that have it."""

    best: str
    attribute: str
    share: Decimal


@dataclass(frozen=True)
class Predicate:
    """A checked rule. Two are equal when their texts are; `columns` are the attributes it reads."""

    text: str
    columns: frozenset[str] = field(compare=False)
    tree: exp.Expr = field(compare=False, repr=False)
    where: str = field(default="", compare=False, repr=False)

    def bind(self, schema: Mapping[str, str]) -> Predicate:
        """This predicate, once `schema` (name to DuckDB type) is seen to have its attributes, of types that fit it."""
        _Walk(self.text, self.where, schema={name.lower(): kind for name, kind in schema.items()}).rule(self.tree)
        return self

    def condition(self, table: str = "attributes", ranks: Mapping[Rank, str] | None = None) -> str:
        """The bare boolean SQL. `table` is the whole wide table, over which `top` and `bottom` rank.

        ranks: conditions that stand for these ranks, where they are known already (see segments.ranking).
        """
        return _Walk(self.text, self.where, table=table, ranks=ranks).rule(self.tree)

    @property
    def ranks(self) -> frozenset[Rank]:
        """The ranks that it asks for with top() and bottom()."""
        walk = _Walk(self.text, self.where)
        walk.rule(self.tree)
        return frozenset(walk.asked)

    @property
    def operator(self) -> str:
        """What joins its parts: "and", "or", "not"; "" of a single condition, such as `city is not null`."""
        node = self.tree.unnest()
        if isinstance(node, exp.Not) and isinstance(node.this, exp.Is | exp.In | exp.Between | exp.Like | exp.ILike):
            return ""
        return {exp.And: "and", exp.Or: "or", exp.Not: "not"}.get(type(node), "")

    @property
    def parts(self) -> list[Predicate]:
        """The predicates that it joins: a and (b or c) and d has three, of which the second has two."""
        node = self.tree.unnest()
        if not self.operator:
            return []
        return [self._part(part) for part in ([node.this] if self.operator == "not" else node.flatten())]

    def _part(self, node: exp.Expr) -> Predicate:
        node = node.unnest()
        walk = _Walk(self.text, self.where)
        walk.rule(node)
        text = node.sql("duckdb", normalize_functions="lower")
        if isinstance(node, exp.Not) and isinstance(node.this, exp.Is):
            text = f"{node.this.this.sql('duckdb')} IS NOT NULL"
        return Predicate(text, frozenset(walk.columns), node, self.where)

    def sql(self, table: str = "attributes") -> str:
        """The query for the profiles selected, in no order."""
        return f"SELECT profile_id FROM {_table(table)} WHERE {self.condition(table)}"

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[..., Predicate], tuple[str]]:
        return partial(parse, where=self.where), (self.text,)


def parse(rule: str, *, where: str = "") -> Predicate:
    """The Predicate that `rule` spells; `where` (a file, a task) is named in errors."""
    text = rule.strip()
    walk = _Walk(text, where)
    if not text:
        walk.refuse("got an empty one", f"write one such as {EXAMPLE}")
    try:
        tokens = sqlglot.tokenize(text, dialect="duckdb")
        if not tokens or any(token.comments for token in tokens):
            walk.refuse_construct("a comment")
        for token in tokens:
            if construct := _NEVER.get(token.token_type):
                walk.refuse_construct(construct)
        tree = sqlglot.parse_one(text, dialect="duckdb", into=exp.Condition)
    except TokenError:
        closed = re.sub(r"""'[^']*'|"[^"]*\"""", lambda quoted: "_" * len(quoted[0]), text)
        at = re.search("['\"]", closed)
        spot = f" at character {at.start() + 1}: {_mark(text, at.start(), at.start() + 1)}" if at else ""
        walk.refuse(f"got a text that cannot be read{spot}", "close every quote and bracket")
    except ParseError as error:
        walk.refuse(*_syntax(text, error))
    except RecursionError:
        walk.refuse("got one nested too deeply", "use fewer parentheses")
    walk.rule(tree)
    return Predicate(text, frozenset(walk.columns), tree, where)


_NEVER = {TokenType.SEMICOLON: "a semicolon", TokenType.SELECT: "a sub-query (select)"}


def _mark(text: str, start: int, stop: int) -> str:
    """`text` around a spot, the spot itself between » and «."""
    return f"{text[max(0, start - 40) : start]}»{text[start:stop]}«{text[stop : stop + 40]}"


def _syntax(text: str, error: ParseError) -> tuple[str, str]:
    """What is wrong with the grammar, and where."""
    if not error.errors:
        return "got a syntax error", f"write one such as {EXAMPLE}"
    first = error.errors[0]
    line, column, spot = first["line"] or 1, first["col"] or 1, first["highlight"] or ""
    stop = sum(len(above) for above in text.splitlines(keepends=True)[: line - 1]) + column
    said = str(first["description"] or "")
    if said.startswith("Required keyword"):
        said = "something is missing here"
    elif said.startswith("Invalid expression"):
        said = "this was not expected here"
    problem = f"got a syntax error at character {stop - len(spot) + 1}: {_mark(text, stop - len(spot), stop)}"
    return f"{problem} ({said})", f"write one such as {EXAMPLE}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(name: str) -> str:
    """A table's name as SQL; its dots part catalog, schema and table."""
    return ".".join(_quoted(part) for part in name.split("."))


class Kind(StrEnum):
    """What a piece of a rule evaluates to, as errors name it."""

    NUMBER = "a number"
    TEXT = "text"
    BOOLEAN = "true/false"
    DATE = "a date"
    TIMESTAMP = "a timestamp"
    INTERVAL = "an interval"
    OTHER = "a value of a type that can only be tested with is null"
    NULL = "null"
    QUANTITY = "a computed value"  # a number, a time or an interval: the types of the attributes are not known yet
    ANY = "a value"  # an attribute whose type is not known yet


_QUANTITIES = frozenset({Kind.NUMBER, Kind.DATE, Kind.TIMESTAMP, Kind.INTERVAL})
_TIMES = frozenset({Kind.DATE, Kind.TIMESTAMP})
_KNOWN = frozenset(Kind) - {Kind.NULL, Kind.QUANTITY, Kind.ANY}
_MEANS = {Kind.ANY: _KNOWN, Kind.NULL: _KNOWN, Kind.QUANTITY: _QUANTITIES}  # what a vague kind may turn out to be
_TYPES = {
    r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|REAL|(DECIMAL|NUMERIC)(\(.*\))?": Kind.NUMBER,
    r"VARCHAR|TEXT|STRING|CHAR|ENUM(\(.*\))?": Kind.TEXT,
    r"BOOL(EAN)?": Kind.BOOLEAN,
    r"DATE": Kind.DATE,
    r"TIMESTAMP(TZ|_S|_MS|_NS)?( WITH TIME ZONE)?|DATETIME": Kind.TIMESTAMP,
    r"INTERVAL": Kind.INTERVAL,
}
_ARITHMETIC = {  # the kinds of either side, of the result, and the operators between them
    ("NUMBER", "NUMBER", "NUMBER"): "+-*/",
    ("DATE", "DATE", "NUMBER"): "-",
    ("TIMESTAMP", "TIMESTAMP", "INTERVAL"): "-",
    ("DATE", "TIMESTAMP", "INTERVAL"): "-",
    ("TIMESTAMP", "DATE", "INTERVAL"): "-",
    ("DATE", "INTERVAL", "TIMESTAMP"): "+-",
    ("TIMESTAMP", "INTERVAL", "TIMESTAMP"): "+-",
    ("INTERVAL", "DATE", "TIMESTAMP"): "+",
    ("INTERVAL", "TIMESTAMP", "TIMESTAMP"): "+",
    ("INTERVAL", "INTERVAL", "INTERVAL"): "+-",
    ("INTERVAL", "NUMBER", "INTERVAL"): "*/",
    ("NUMBER", "INTERVAL", "INTERVAL"): "*",
}
_RESULT = {(op, Kind[a], Kind[b]): Kind[c] for (a, b, c), ops in _ARITHMETIC.items() for op in ops}
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:\d\d)?)?)?")
_INTERVAL = re.compile(r"(-?\d{1,9}) (second|minute|hour|day|week|month|quarter|year)s?", re.IGNORECASE)
_CASTS = {"DATE": "DATE", "TIMESTAMP": "TIMESTAMP", "TIMESTAMPNTZ": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMPTZ"}


def kind_of(duckdb_type: str) -> Kind:
    """The kind of the values of a DuckDB type.

    >>> kind_of("DECIMAL(18,2)").name, kind_of("timestamp with time zone").name, kind_of("DOUBLE[]").name
    ('NUMBER', 'TIMESTAMP', 'OTHER')
    """
    name = duckdb_type.strip().upper()
    if name.endswith("]"):
        return Kind.OTHER
    return next((kind for pattern, kind in _TYPES.items() if re.fullmatch(pattern, name)), Kind.OTHER)


def _comparable(left: Kind, right: Kind) -> bool:
    one, two = ({*_MEANS.get(kind, {kind})} | (_TIMES if kind in _TIMES else set()) for kind in (left, right))
    return bool(one & two)


def _instant(text: str) -> datetime | None:
    if not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Piece:
    """A part of the rule, checked: its kind, its SQL, and whether that stands without parentheses."""

    kind: Kind
    sql: str
    atom: bool = False
    literal: str | None = None  # the value, if it is a text or a number literal

    @property
    def arg(self) -> str:
        return self.sql if self.atom else f"({self.sql})"

    def __str__(self) -> str:
        return self.kind if self.kind is Kind.NULL else f"{self.kind} ({self.sql})"


class _Walk:
    """One pass over a tree: refuses what is not allowed, collects the columns and writes the SQL."""

    def __init__(
        self, text: str, where: str, table: str = "attributes", schema: Mapping[str, str] | None = None,
        ranks: Mapping[Rank, str] | None = None,
    ):  # fmt: skip
        self.text, self.where, self.table, self.schema, self.ranks = text, where, table, schema, ranks or {}
        self.columns: set[str] = set()
        self.asked: set[Rank] = set()
        self.depth = 0

    @property
    def quoted(self) -> str:
        return f'"{self.text}"' if len(self.text) <= 120 else f'"{self.text[:120]}…"'

    def refuse(self, got: str, fix: str, expected: str = "a true/false rule") -> NoReturn:
        raise DefinitionError(f"rule {self.quoted}", f"expected {expected}, {got}", fix, where=self.where) from None

    def refuse_construct(self, construct: str) -> NoReturn:
        self.refuse(f"got {construct}, which rules do not have", f"{ALLOWED}; e.g. {EXAMPLE}")

    def rule(self, tree: exp.Expr) -> str:
        return self.boolean(tree, "a true/false rule").sql

    def visit(self, node: Any) -> _Piece:
        if node is None:
            self.refuse("got an operator with nothing beside it", "say what it compares or changes")
        rule, args = _NODES.get(type(node), (None, ""))
        if rule is None:
            self.refuse_construct(_construct(node))
        if more := {key for key, value in node.args.items() if value} - set(args.split()):
            self.refuse_construct(_construct(node, more))
        self.depth += 1
        if self.depth > DEEPEST:
            self.refuse(f"got one nested more than {DEEPEST} levels deep", "use fewer parentheses or several rules")
        piece = rule(self, node)
        self.depth -= 1
        return piece

    # Each of these checks one kind of node and writes it.

    def boolean(self, node: Any, expected: str) -> _Piece:
        piece = self.visit(node)
        if piece.kind not in (Kind.BOOLEAN, Kind.ANY) and not (piece.kind is Kind.NULL and node is not node.root()):
            said = piece.sql if piece.kind in (Kind.NUMBER, Kind.QUANTITY) and len(piece.sql) < 60 else "churn"
            self.refuse(f"got {piece.kind}", f"compare it, as in {said} > 0.6, or test it with is null", expected)
        return piece

    def connect(self, node: Any, word: str) -> _Piece:
        parts = [self.boolean(part, f"true/false beside {word.lower()}") for part in node.flatten()]
        return _Piece(Kind.BOOLEAN, f" {word} ".join(part.arg for part in parts))

    def negate(self, node: Any) -> _Piece:
        return _Piece(Kind.BOOLEAN, f"NOT {self.boolean(node.this, 'true/false after not').arg}")

    def same(self, left: _Piece, right: _Piece, ordered: bool = False) -> None:
        """Refuses two values that cannot be compared."""
        for one, other in ((left, right), (right, left)):
            if one.kind in _TIMES and other.kind is Kind.TEXT and other.literal is not None:
                if _instant(other.literal):
                    return
                self.refuse(f"got {other}", "write it as '2024-01-31' or '2024-01-31 10:00:00'", f"a time beside {one}")
        if not _comparable(left.kind, right.kind):
            self.refuse(f"got {right}", _mend(left, right), f"something to compare with {left}")
        if ordered and Kind.BOOLEAN in (left.kind, right.kind):
            fix = "join two comparisons with and, or use between; true/false is compared with = only"
            self.refuse(f"got {left} and {right}", fix, "values that have an order")

    def compare(self, node: Any, operator: str) -> _Piece:
        left, right = self.visit(node.this), self.visit(node.expression)
        self.same(left, right, ordered=operator not in ("=", "<>"))
        return _Piece(Kind.BOOLEAN, f"{left.arg} {operator} {right.arg}")

    def between(self, node: Any) -> _Piece:
        value, low, high = (self.visit(node.args[key]) for key in ("this", "low", "high"))
        self.same(value, low, ordered=True)
        self.same(value, high, ordered=True)
        return _Piece(Kind.BOOLEAN, f"{value.arg} BETWEEN {low.arg} AND {high.arg}")

    def within(self, node: Any) -> _Piece:
        if not node.expressions:
            self.refuse(
                "got nothing to look in", "write them out, as in city in ('Oslo', 'Bergen')", "a list of values"
            )
        value, options = self.visit(node.this), []
        for option in node.expressions:
            if not isinstance(option.this if isinstance(option, exp.Neg) else option, _LITERALS):
                self.refuse_construct("an in (…) of something else than literals")
            options.append(self.visit(option))
            self.same(value, options[-1])
        return _Piece(Kind.BOOLEAN, f"{value.arg} IN ({', '.join(option.sql for option in options)})")

    def like(self, node: Any, operator: str) -> _Piece:
        value, pattern = self.visit(node.this), self.visit(node.expression)
        for piece in (value, pattern):
            self.need(piece, {Kind.TEXT}, f"text beside {operator.lower()}", "like compares text, as in city like 'O%'")
        return _Piece(Kind.BOOLEAN, f"{value.arg} {'NOT ' if node.args.get('negate') else ''}{operator} {pattern.arg}")

    def is_null(self, node: Any) -> _Piece:
        if not isinstance(node.expression, exp.Null):
            self.refuse_construct("an `is` with something else than null")
        return _Piece(Kind.BOOLEAN, f"{self.visit(node.this).arg} IS NULL")

    def need(self, piece: _Piece, kinds: set[Kind], expected: str, fix: str) -> None:
        if not kinds & {piece.kind, *_MEANS.get(piece.kind, ())}:
            self.refuse(f"got {piece}", fix, expected)

    def arithmetic(self, node: Any, operator: str) -> _Piece:
        left, right = self.visit(node.this), self.visit(node.expression)
        pairs = product(*(_MEANS.get(piece.kind, {piece.kind}) for piece in (left, right)))
        results = {_RESULT[key] for one, two in pairs if (key := (operator, one, two)) in _RESULT}
        if not results:
            fix = "calculate with numbers, or with a time and an interval such as interval '30 days'"
            self.refuse(f"got {left} and {right}", fix, f"values that {operator} can take")
        divisor = f"nullif({right.sql}, 0)" if operator == "/" else right.arg
        return _Piece(results.pop() if len(results) == 1 else Kind.QUANTITY, f"{left.arg} {operator} {divisor}")

    def minus(self, node: Any) -> _Piece:
        value = self.visit(node.this)
        self.need(value, {Kind.NUMBER, Kind.INTERVAL}, "a number after -", "negate numbers only")
        return _Piece(Kind.QUANTITY if value.kind is Kind.ANY else value.kind, f"-{value.arg}")

    def absolute(self, node: Any) -> _Piece:
        value = self.visit(node.this)
        self.need(value, {Kind.NUMBER}, "a number in abs()", "give it a number, as in abs(balance)")
        return _Piece(Kind.NUMBER, f"abs({value.sql})", atom=True)

    def lower(self, node: Any) -> _Piece:
        value = self.visit(node.this)
        self.need(value, {Kind.TEXT}, "text in lower()", "give it text, as in lower(city)")
        return _Piece(Kind.TEXT, f"lower({value.sql})", atom=True)

    def coalesce(self, node: Any) -> _Piece:
        values = [self.visit(value) for value in (node.this, *node.expressions)]
        first = max(values, key=lambda piece: piece.kind in _KNOWN and piece.literal is None)
        for value in values:
            self.same(first, value)
        vague = first.kind is Kind.ANY  # then a literal such as '2024-01-31' may be a time as well as text
        kinds = [value.kind for value in (first, *values) if not (vague and value.literal and _instant(value.literal))]
        kind = next((kind for kind in kinds if kind in _KNOWN), first.kind)
        return _Piece(kind, f"coalesce({', '.join(value.sql for value in values)})", atom=True)

    def function(self, node: Any) -> _Piece:
        """consent(purpose), top(attribute, share) and bottom(attribute, share): sqlglot does not know them itself."""
        name = node.name.lower()
        if name == "consent":
            return self.consent(node)
        if name not in ("top", "bottom"):
            self.refuse_construct(_construct(node))
        example = f"as in {name}(clv, 0.2) for the {'best' if name == 'top' else 'lowest'} fifth"
        if len(node.expressions) != 2 or not isinstance(node.expressions[0], exp.Column):
            self.refuse("got other arguments", f"write the two, {example}", f"{name}(attribute, share)")
        attribute = self.visit(node.expressions[0])
        fix = f"rank by a number or a time, {example}"
        self.need(attribute, set(_QUANTITIES), f"a number or a time in {name}()", fix)
        share = self.visit(node.expressions[1])
        part = Decimal(share.literal) if share.kind is Kind.NUMBER and share.literal else Decimal(0)
        if not (0 < part <= 1 and part == round(part, 9)):
            fix = f"write a fraction of at most nine decimals, {example}"
            self.refuse(f"got {share.sql}", fix, f"a share above 0 and at most 1 in {name}()")
        rank = Rank(name, node.expressions[0].name.lower(), part)
        self.asked.add(rank)
        if rank in self.ranks:
            return _Piece(Kind.BOOLEAN, self.ranks[rank])
        above, below = part.as_integer_ratio()  # in whole numbers: 0.1 * 30 is above 3 in floating point
        source, order = f"FROM {_table(self.table)}", "DESC" if name == "top" else "ASC"
        count = f"SELECT (count({attribute.sql}) * {above} + {below - 1}) // {below} {source}"
        best = f"SELECT profile_id {source} WHERE {attribute.sql} IS NOT NULL"
        best += f" ORDER BY {attribute.sql} {order}, profile_id LIMIT ({count})"
        sql = f"CASE WHEN {attribute.sql} IS NOT NULL THEN profile_id IN ({best}) END"
        return _Piece(Kind.BOOLEAN, sql)

    def consent(self, node: Any) -> _Piece:
        purpose = node.expressions[0].name if len(node.expressions) == 1 else ""
        if not purpose or not (isinstance(node.expressions[0], exp.Literal) and node.expressions[0].is_string):
            self.refuse("got other arguments", "write it as consent('email')", "the name of a purpose in consent()")
        name = f"{CONSENT}{purpose}"
        self.columns.add(name)
        if self.schema is not None and name not in self.schema:
            known = [column.removeprefix(CONSENT) for column in self.schema if column.startswith(CONSENT)]
            raise unknown("purpose", purpose, known, where=f"in the rule {self.quoted}")
        return _Piece(Kind.BOOLEAN, _quoted(name), atom=True)

    def column(self, node: Any) -> _Piece:
        if not isinstance(node.this, exp.Identifier):
            self.refuse_construct("*")
        name = node.name.lower()
        self.columns.add(name)
        kind = Kind.ANY
        if self.schema is not None:
            if name not in self.schema:
                place = f", {self.where}" if self.where else ""
                raise unknown("attribute", name, self.schema, where=f"in the rule {self.quoted}{place}")
            kind = kind_of(self.schema[name])
        return _Piece(kind, _quoted(name), atom=True)

    def literal(self, node: Any) -> _Piece:
        value = str(node.this)
        if node.is_string:
            quoted = value.replace("'", "''")
            return _Piece(Kind.TEXT, f"'{quoted}'", atom=True, literal=value)
        if not re.fullmatch(r"\d{0,38}(\.\d{0,38})?(e[+-]?\d{1,3})?", value, re.IGNORECASE | re.ASCII):
            self.refuse(f"got {value}", "write a shorter one", "a number of at most 38 digits")
        return _Piece(Kind.NUMBER, value, atom=True, literal=value)

    def constant(self, node: Any) -> _Piece:
        if isinstance(node, exp.Null):
            return _Piece(Kind.NULL, "NULL", atom=True)
        return _Piece(Kind.BOOLEAN, "TRUE" if node.this else "FALSE", atom=True)

    def instant(self, node: Any) -> _Piece:
        target = _CASTS.get(node.to.sql("duckdb"), _CASTS.get(node.to.this.name))
        if target is None or not (isinstance(node.this, exp.Literal) and node.this.is_string):
            self.refuse_construct("a cast")
        value = _instant(node.this.name)
        if value is None or (target == "DATE" and len(node.this.name) > 10):
            fix = "write date '2024-01-31' or timestamp '2024-01-31 10:00:00'"
            self.refuse(f"got '{node.this.name}'", fix, f"a {target.lower()} of the calendar")
        if target == "DATE":
            return _Piece(Kind.DATE, f"DATE '{date.isoformat(value)}'", atom=True)
        if target == "TIMESTAMPTZ" and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)  # not the time zone of whoever runs it
        return _Piece(Kind.TIMESTAMP, f"{target} '{value.isoformat(sep=' ')}'", atom=True)

    def interval(self, node: Any) -> _Piece:
        unit = node.args.get("unit")
        said = f"{node.this.name} {unit.name}" if unit and isinstance(node.this, exp.Literal) else node.name
        if not (match := _INTERVAL.fullmatch(said)):
            self.refuse(
                f"got {said or 'something else'}", "write interval '30 days'", "a whole number of a unit of time"
            )
        return _Piece(Kind.INTERVAL, f"INTERVAL '{match[1]}' {match[2].upper()}", atom=True)


_LITERALS = (exp.Literal, exp.Boolean, exp.Null, exp.Cast, exp.Interval)
_TWO = "this expression"
_NODES: dict[type, tuple[Callable[[_Walk, Any], _Piece], str]] = {  # by exact type, with the arguments it may have
    exp.And: (partial(_Walk.connect, word="AND"), _TWO),
    exp.Or: (partial(_Walk.connect, word="OR"), _TWO),
    exp.Not: (_Walk.negate, "this"),
    exp.Paren: (lambda walk, node: walk.visit(node.this), "this"),
    exp.EQ: (partial(_Walk.compare, operator="="), _TWO),
    exp.NEQ: (partial(_Walk.compare, operator="<>"), _TWO),
    exp.LT: (partial(_Walk.compare, operator="<"), _TWO),
    exp.LTE: (partial(_Walk.compare, operator="<="), _TWO),
    exp.GT: (partial(_Walk.compare, operator=">"), _TWO),
    exp.GTE: (partial(_Walk.compare, operator=">="), _TWO),
    exp.Between: (_Walk.between, "this low high"),
    exp.In: (_Walk.within, "this expressions"),
    exp.Like: (partial(_Walk.like, operator="LIKE"), "this expression negate"),
    exp.ILike: (partial(_Walk.like, operator="ILIKE"), "this expression negate"),
    exp.Is: (_Walk.is_null, _TWO),
    exp.Add: (partial(_Walk.arithmetic, operator="+"), _TWO),
    exp.Sub: (partial(_Walk.arithmetic, operator="-"), _TWO),
    exp.Mul: (partial(_Walk.arithmetic, operator="*"), _TWO),
    exp.Div: (partial(_Walk.arithmetic, operator="/"), "this expression typed safe"),
    exp.Neg: (_Walk.minus, "this"),
    exp.Abs: (_Walk.absolute, "this"),
    exp.Lower: (_Walk.lower, "this"),
    exp.Coalesce: (_Walk.coalesce, "this expressions is_nvl is_null"),
    exp.Anonymous: (_Walk.function, "this expressions"),
    exp.Column: (_Walk.column, "this"),
    exp.Literal: (_Walk.literal, "this is_string"),
    exp.Boolean: (_Walk.constant, "this"),
    exp.Null: (_Walk.constant, ""),
    exp.Cast: (_Walk.instant, "this to"),
    exp.Interval: (_Walk.interval, "this unit"),
}
_CONSTRUCTS: dict[type, str] = {  # the first that fits
    exp.Query: "a sub-query",
    exp.Star: "*",
    exp.Window: "a window function (over)",
    exp.AggFunc: "the aggregate {name}()",
    exp.Case: "a case expression",
    exp.Cast: "a cast",
    exp.Block: "several statements",
    exp.Placeholder: "a parameter",
    exp.Exists: "a sub-query (exists)",
    exp.Mod: "the operator %",
    exp.IntDiv: "the operator //",
    exp.DPipe: "the operator ||",
    exp.Escape: "the escape of a like",
    exp.NullSafeEQ: "the operator is not distinct from",
    exp.NullSafeNEQ: "the operator is distinct from",
    exp.RegexpFullMatch: "the operator ~",
    exp.Func: "the function {name}()",
}


def _construct(node: Any, more: set[str] | None = None) -> str:
    """A name for what a rule may not contain."""
    if isinstance(node, exp.Column) and more:
        return f"the name {node.sql('duckdb')} with a table in front"
    if isinstance(node, exp.In):
        return "an in (…) of something else than literals"
    name = node.name if isinstance(node, exp.Anonymous) else getattr(node, "sql_name", lambda: node.key)()
    named = (said for kind, said in _CONSTRUCTS.items() if isinstance(node, kind))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
    return next(named, f"the construct “{words}{' ' + ', '.join(sorted(more)) if more else ''}”").format(
        name=name.lower()
    )


def _mend(left: _Piece, right: _Piece) -> str:
    """The likely cure for a comparison of `left` with `right`."""
    for one, other in ((left, right), (right, left)):
        if one.kind is Kind.NUMBER and other.kind is Kind.TEXT and re.fullmatch(r"-?\d+(\.\d+)?", other.literal or ""):
            return f"write {other.literal} without quotes"
        if one.kind is Kind.TEXT and other.kind is Kind.NUMBER and other.literal:
            return f"write '{other.literal}' in quotes"
        if one.kind in _TIMES:
            return "compare it with a time such as date '2024-01-31'"
        if one.kind is Kind.BOOLEAN:
            return "use true/false by itself or after not; a < b < c is written a < b and b < c"
        if one.kind is Kind.OTHER:
            return "test it with is null or is not null"
    return "compare two values of one kind"
