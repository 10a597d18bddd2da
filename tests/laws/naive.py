"""A naive oracle for ibis expressions: relations and aggregates over plain rows, one loop after the other.

No SQL, no pandas: a table is a list of dicts, whose values are None, bool, int, float, Decimal, str, date and aware
datetimes. What an operation does with values is in naive_values.py; here is what is done with rows. A running window
without a frame has SQL's: up to the present row and those that tie with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import ibis.expr.operations as ops
import ibis.expr.types as ir
from naive_values import Function, function_of, literal, ordered, reduction_of, unknown

Row = dict[str, Any]
_CHANCE = "among rows that tie is chance: order them by something more, such as fact_id"


def rows_of(table: ir.Table, facts: list[Row]) -> list[Row]:
    """The rows of an expression over one unbound table, of the rows of that table."""
    return _relation(table.op(), facts)


def value_of(scalar: ir.Scalar, rows: list[Row] | Rows) -> Any:
    """The value of an aggregate over these rows."""
    return (rows if isinstance(rows, Rows) else Rows(rows)).scalar(scalar.op())


def _relation(node: ops.Node, facts: list[Row]) -> list[Row]:
    if isinstance(node, ops.UnboundTable):
        return facts
    if not isinstance(node, ops.Filter | ops.Project | ops.Aggregate | ops.Distinct | ops.Sort | ops.DropColumns):
        raise unknown(f"the relation {type(node).__name__}")
    parent = Rows(_relation(node.parent, facts))
    if isinstance(node, ops.Filter):
        kept = [parent.column(predicate) for predicate in node.predicates]
        return [row for i, row in enumerate(parent.rows) if all(values[i] is True for values in kept)]
    if isinstance(node, ops.Project):
        columns = {name: parent.column(value) for name, value in node.values.items()}
        return [{name: values[i] for name, values in columns.items()} for i in range(len(parent.rows))]
    if isinstance(node, ops.Aggregate):
        groups = parent.groups(list(node.groups.values())) if node.groups else {(): list(range(len(parent.rows)))}
        made = []
        for key, places in groups.items():
            group = parent.some(places)
            named = dict(zip(node.groups, key, strict=True))
            made.append(named | {name: group.scalar(value) for name, value in node.metrics.items()})
        return made
    if isinstance(node, ops.Distinct):
        return list({tuple(row.items()): row for row in parent.rows}.values())
    if isinstance(node, ops.Sort):
        return [parent.rows[i] for i in parent.sorted(range(len(parent.rows)), node.keys)]
    return [{name: v for name, v in row.items() if name not in node.columns_to_drop} for row in parent.rows]


class Rows:
    """Rows, of which columns and aggregates can be asked; each is made once."""

    def __init__(self, rows: list[Row]):
        self.rows = rows
        self._columns: dict[ops.Node, list[Any]] = {}
        self._scalars: dict[ops.Node, Any] = {}

    def some(self, places: Iterable[int]) -> Rows:
        """The rows at these places."""
        return Rows([self.rows[i] for i in places])

    def groups(self, keys: Sequence[ops.Value]) -> dict[tuple, list[int]]:
        """Values of the keys -> places of the rows that have them; unknown ones are alike."""
        columns, found = [self.column(key) for key in keys], {}
        for i in range(len(self.rows)):
            found.setdefault(tuple(values[i] for values in columns), []).append(i)
        return found

    def sorted(self, places: Iterable[int], keys: Sequence[ops.SortKey]) -> list[int]:
        """Places in the order of the keys; where all are equal, in the order they had."""
        line = list(places)
        for key in reversed(keys):
            line = ordered(line, self.column(key.arg), ascending=key.ascending, nulls_first=key.nulls_first)
        return line

    def column(self, node: ops.Value) -> list[Any]:
        """The value of an expression for every row."""
        if node not in self._columns:
            self._columns[node] = self._column(node)
        return self._columns[node]

    def _column(self, node: ops.Value) -> list[Any]:
        if isinstance(node, ops.Field):
            return [row[node.name] for row in self.rows]
        if isinstance(node, ops.Literal):
            return [literal(node)] * len(self.rows)
        if isinstance(node, ops.WindowFunction):
            return self._window(node)
        if isinstance(node, ops.Reduction | ops.Analytic):
            raise unknown(f"{type(node).__name__} of a row, without a window")
        function, parts = _made_of(node)
        return [function(*values) for values in zip(*map(self.column, parts), strict=True)]

    def scalar(self, node: ops.Value) -> Any:
        """The value of an aggregate, or of an expression of some."""
        if node not in self._scalars:
            self._scalars[node] = self._scalar(node)
        return self._scalars[node]

    def _scalar(self, node: ops.Value) -> Any:
        if isinstance(node, ops.Literal):
            return literal(node)
        if isinstance(node, ops.Reduction):
            return self._reduced(node)
        if isinstance(node, ops.Field | ops.WindowFunction | ops.Analytic):
            raise unknown(f"{type(node).__name__} among aggregates")
        function, parts = _made_of(node)
        return function(*map(self.scalar, parts))

    def _reduced(self, node: ops.Reduction) -> Any:
        where = [True] * len(self.rows) if node.where is None else self.column(node.where)
        chosen = [i for i, kept in enumerate(where) if kept is True]
        if isinstance(node, ops.CountStar):
            return len(chosen)
        values = self.column(_parts(node)[0])
        if isinstance(node, ops.First | ops.Last):
            if node.include_null or not node.order_by:
                raise unknown(f"{type(node).__name__} that includes nulls, or without an order")
            line = self.sorted([i for i in chosen if values[i] is not None], node.order_by)
            end = 0 if isinstance(node, ops.First) else -1
            if len({values[i] for i in line if self._key(node, i) == self._key(node, line[end])}) > 1:
                raise ValueError(f"{type(node).__name__} {_CHANCE}")
            return values[line[end]] if line else None
        if getattr(node, "order_by", ()) or getattr(node, "how", "sample") != "sample":
            raise unknown(f"{type(node).__name__} with an order or a way of its own")
        return reduction_of(node)([values[i] for i in chosen if values[i] is not None])

    # Windows.

    def _window(self, node: ops.WindowFunction) -> list[Any]:
        made: list[Any] = [None] * len(self.rows)
        for places in self.groups(node.group_by).values():
            line = self.sorted(places, node.order_by)
            if isinstance(node.func, ops.Lag | ops.Lead):
                values = self._shifted(node, line)
            elif isinstance(node.func, ops.RowNumber):
                values = self._numbered(node, line)
            else:
                values = self._framed(node, line)
            for i, value in zip(line, values, strict=True):
                made[i] = value
        return made

    def _shifted(self, node: ops.WindowFunction, line: list[int]) -> list[Any]:
        """LAG and LEAD: the value so many rows before or after in the line."""
        self._refuse_ties(node, line)
        func = node.func
        step = 1 if func.offset is None else int(Rows([]).scalar(func.offset))
        default = None if func.default is None else Rows([]).scalar(func.default)
        values = self.column(func.arg)
        back = step if isinstance(func, ops.Lag) else -step
        return [values[line[n - back]] if 0 <= n - back < len(line) else default for n in range(len(line))]

    def _numbered(self, node: ops.WindowFunction, line: list[int]) -> list[int]:
        """ROW_NUMBER, which ibis counts from 0."""
        self._refuse_ties(node, line)
        return list(range(len(line)))

    def _key(self, node: ops.Node, place: int) -> tuple:
        return tuple(self.column(key.arg)[place] for key in node.order_by)

    def _refuse_ties(self, node: ops.WindowFunction, line: list[int]) -> None:
        """Which of two rows comes first must not be chance."""
        if len({self._key(node, i) for i in line}) < len(line):
            raise ValueError(f"{type(node.func).__name__} {_CHANCE}")

    def _framed(self, node: ops.WindowFunction, line: list[int]) -> list[Any]:
        """An aggregate over the frame of each row in the line."""
        if not isinstance(node.func, ops.Reduction):
            raise unknown(f"the window function {type(node.func).__name__}")
        whole = (0, len(line))
        if node.start is None and node.end is None and not node.order_by:
            frames = [whole] * len(line)
        elif node.how == "rows" and not (node.start is None and node.end is None):
            self._refuse_ties(node, line)
            frames = [
                (max(0, n + _offset(node.start, -n)), min(len(line), n + _offset(node.end, len(line) - n) + 1))
                for n in range(len(line))
            ]
        else:
            frames = self._range(node, line)
        return [self.some(line[low:high]).scalar(node.func) for low, high in frames]

    def _range(self, node: ops.WindowFunction, line: list[int]) -> list[tuple[int, int]]:
        """RANGE from the first row, or the first that ties with the present one, to the last that does."""
        if _offset(node.start, 0) or _offset(node.end, 0) or (node.end is None and node.start is not None):
            raise unknown("a window over a range of values, or to its end")
        keys = [self._key(node, i) for i in line]
        first = [keys.index(key) if node.start is not None else 0 for key in keys]
        last = [len(keys) - keys[::-1].index(key) for key in keys]
        return list(zip(first, last, strict=True))


def _offset(boundary: ops.WindowBoundary | None, otherwise: int) -> int:
    """How many rows after the present one a frame begins or ends; before it: less than 0."""
    if boundary is None:
        return otherwise
    length = abs(int(Rows([]).scalar(boundary.value)))
    return -length if boundary.preceding else length


@cache
def _made_of(node: ops.Value) -> tuple[Function, list[ops.Value]]:
    """What an operation does, and the values that it does it to."""
    return function_of(node), _parts(node)


def _parts(node: ops.Value) -> list[ops.Value]:
    """The values that an operation is made of, in their order."""
    found: list[ops.Value] = []

    def collect(argument: Any) -> None:
        if isinstance(argument, ops.Value):
            found.append(argument)
        elif isinstance(argument, tuple):
            for each in argument:
                collect(each)

    for argument in node.__args__:
        collect(argument)
    return found
