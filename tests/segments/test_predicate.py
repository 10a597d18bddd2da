"""The predicate language, held to a naive evaluator with SQL's three-valued logic, and each of its refusals."""

from __future__ import annotations

import doctest
import math
import operator
import pickle
import re
from collections.abc import Callable
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.errors import DefinitionError, ForetellError, UnknownName
from segments import predicate
from segments.predicate import Predicate, parse

SCHEMA = {"i": "BIGINT", "x": "DOUBLE", "s": "VARCHAR", "b": "BOOLEAN", "d": "DATE"}
Row = dict[str, Any]
Rule = tuple[str, Callable[[Row, list[Row]], Any]]  # its text, and its value for a row of a table


CON = duckdb.connect(config={"threads": 1})


def selected(rule: Predicate, rows: list[Row], schema: dict[str, str] = SCHEMA) -> set[str]:
    """The profiles that DuckDB selects by `rule` from a table of `rows`."""
    names = [name.replace('"', '""') for name in schema]
    columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, schema.values(), strict=True))
    CON.execute(f"CREATE OR REPLACE TEMP TABLE attributes (profile_id VARCHAR, {columns})")
    if rows:
        marks = ", ".join(["(" + ", ".join("?" * (len(schema) + 1)) + ")"] * len(rows))
        values = [value for row in rows for value in (row["profile_id"], *(row.get(name) for name in schema))]
        CON.execute(f"INSERT INTO attributes VALUES {marks}", values)
    return {profile for (profile,) in CON.execute(rule.bind(schema).sql()).fetchall()}


# The oracle: every strategy draws a text together with a Python function of the same meaning; None is NULL.


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """NULL in, NULL out."""
    return lambda *values: None if any(value is None for value in values) else function(*values)


def lift(function: Callable[..., Any], *parts: Rule) -> Callable[[Row, list[Row]], Any]:
    return lambda row, rows: function(*(part[1](row, rows) for part in parts))


def negation(value: bool | None) -> bool | None:
    return None if value is None else not value


def conjunction(*values: bool | None) -> bool | None:
    return False if False in values else None if None in values else True


def disjunction(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def among(value: Any, *options: Any) -> bool | None:
    return disjunction(*(strict(operator.eq)(value, option) for option in options))


def like(pattern: str, case: bool) -> Callable[[str], bool]:
    shape = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return lambda text: bool(re.fullmatch(shape, text, re.DOTALL | (0 if case else re.IGNORECASE)))


def best(name: str, share: str, sign: int) -> Callable[[Row, list[Row]], bool | None]:
    def chosen(row: Row, rows: list[Row]) -> bool | None:
        if row[name] is None:
            return None
        key = (lambda r: r[name].toordinal()) if name == "d" else (lambda r: r[name])
        ranked = sorted((r for r in rows if r[name] is not None), key=lambda r: (-sign * key(r), r["profile_id"]))
        return row in ranked[: math.ceil(Fraction(share) * len(ranked))]

    return chosen


COMPARISONS = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda one, two: one / two if two else None,
}
SHARES = ["0.1", ".25", "0.3", "0.5", "1", "0.000000001"]
DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(4)]
WORDS = ["i", "s", "b", "(", ")", "and", "or", "not", "=", ">", "'", ",", "top", "0.1", "-", "*", "in", "null"]
TEXTS = ["", "a", "A", "ab", "O'Neil", "%", "æ b"]


def attribute(name: str) -> Rule:
    return name, lambda row, _: row[name]


def constant(text: str, value: Any) -> Rule:
    return text, lambda *_: value


numbers = st.sampled_from([attribute("i"), attribute("x")]) | st.sampled_from(
    [constant(str(n), n) for n in range(4)] + [constant("0.25", 0.25), constant("1.5", 1.5), constant("null", None)]
)
texts = st.sampled_from([attribute("s"), ("S", attribute("s")[1])]) | st.sampled_from(
    [constant("'" + text.replace("'", "''") + "'", text) for text in TEXTS]
)
days = st.just(attribute("d")) | st.sampled_from([constant(f"date '{day}'", day) for day in DAYS])


@st.composite
def quantity(draw: st.DrawFn, depth: int = 2) -> Rule:
    form = draw(st.sampled_from(["leaf", "op", "neg", "abs", "coalesce"])) if depth else "leaf"
    one = draw(quantity(depth - 1)) if form != "leaf" else draw(numbers)
    if form == "op":
        two, sign = draw(quantity(depth - 1)), draw(st.sampled_from(sorted(ARITHMETIC)))
        return f"({one[0]} {sign} {two[0]})", lift(strict(ARITHMETIC[sign]), one, two)
    if form == "neg":
        return f"-({one[0]})", lift(strict(operator.neg), one)
    if form == "abs":
        return f"abs({one[0]})", lift(strict(abs), one)
    if form == "coalesce":
        two = draw(numbers)
        return f"coalesce({one[0]}, {two[0]})", lift(lambda p, q: q if p is None else p, one, two)
    return one


@st.composite
def simple_rule(draw: st.DrawFn) -> Rule:
    """A rule without and, or, not."""
    form = draw(st.sampled_from(["compare", "between", "in", "like", "null", "flag", "top"]))
    values = draw(st.sampled_from([quantity(), texts, days]))
    one, two, three = draw(values), draw(values), draw(values)
    no = draw(st.booleans())
    wrap, word = (negation, "not ") if no else (lambda value: value, "")
    if form == "compare":
        sign = draw(st.sampled_from(sorted(COMPARISONS)))
        return f"{one[0]} {sign} {two[0]}", lift(strict(COMPARISONS[sign]), one, two)
    if form == "between":
        inside = lift(
            lambda v, low, high: wrap(conjunction(strict(operator.ge)(v, low), strict(operator.le)(v, high))),
            one,
            two,
            three,
        )
        return f"{one[0]} {word}between {two[0]} and {three[0]}", inside
    if form == "in":
        options = draw(st.lists(st.sampled_from([*TEXTS, None]), min_size=1, max_size=3))
        said = ", ".join("null" if text is None else "'" + text.replace("'", "''") + "'" for text in options)
        return f"lower(s) {word}in ({said})", lambda row, _: wrap(among(strict(str.lower)(row["s"]), *options))
    if form == "like":
        pattern, case = draw(st.sampled_from(["a%", "_", "%", "%'%", "A_", "x"])), draw(st.booleans())
        said = pattern.replace("'", "''")
        match = strict(like(pattern, case))
        return f"s {word}{'like' if case else 'ilike'} '{said}'", lambda row, _: wrap(match(row["s"]))
    if form == "null":
        return f"{one[0]} is {word}null", lift(lambda value: (value is None) != no, one)
    if form == "flag":
        return draw(st.sampled_from([attribute("b"), constant("true", True), constant("FALSE", False)]))
    name, share, sign = draw(st.sampled_from("ixd")), draw(st.sampled_from(SHARES)), draw(st.sampled_from([1, -1]))
    return f"{'top' if sign > 0 else 'bottom'}({name}, {share})", best(name, share, sign)


@st.composite
def rule_of_depth(draw: st.DrawFn, depth: int = 3) -> Rule:
    form = draw(st.sampled_from(["test", "and", "or", "not", "equal"])) if depth else "test"
    if form == "test":
        return draw(simple_rule())
    one = draw(rule_of_depth(depth - 1))
    if form == "not":
        return f"not ({one[0]})", lift(negation, one)
    two = draw(rule_of_depth(depth - 1))
    if form == "equal":
        return f"({one[0]}) = ({two[0]})", lift(strict(operator.eq), one, two)
    return f"({one[0]}) {form} ({two[0]})", lift(conjunction if form == "and" else disjunction, one, two)


tables = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-3, 3),
            "x": st.none() | st.integers(-8, 8).map(lambda n: n / 4),
            "s": st.none() | st.sampled_from(TEXTS),
            "b": st.none() | st.booleans(),
            "d": st.none() | st.sampled_from(DAYS),
        }
    ),
    max_size=12,
).flatmap(lambda rows: st.permutations([{**row, "profile_id": f"p{n:02}"} for n, row in enumerate(rows)]))


@settings(max_examples=200, deadline=None)
@given(rule_of_depth(), tables)
def test_a_rule_selects_the_profiles_for_which_the_oracle_says_true(rule: Rule, rows: list[Row]) -> None:
    text, evaluate = rule
    checked = parse(text)
    assert checked.columns <= set(SCHEMA)
    assert selected(checked, rows) == {row["profile_id"] for row in rows if evaluate(row, rows) is True}


def rows_of(**columns: list[Any]) -> list[Row]:
    count = len(next(iter(columns.values())))
    return [{"profile_id": f"p{n}", **{name: column[n] for name, column in columns.items()}} for n in range(count)]


@pytest.mark.parametrize(
    ("rule", "same"),
    [
        ("i = 1 or i = 2 and b", "i = 1 or (i = 2 and b)"),
        ("not i = 1 and b", "(not (i = 1)) and b"),
        ("i + 2 * 3 - 1 > 4", "((i + (2 * 3)) - 1) > 4"),
        ("i between 0 and 1 and b", "(i between 0 and 1) and b"),
        ("-i - -1 > 0", "((-i) - (-1)) > 0"),
        ("i - (1 - 1) = 1", "i = 1"),
        ("2 / (i / 2) >= 2", "2 / ((i) / (2)) >= 2"),
    ],
)
def test_precedence_survives_the_rebuilding(rule: str, same: str) -> None:
    rows = [
        {"profile_id": f"p{i}{b}", "i": i, "b": b, "x": None, "s": None, "d": None}
        for i in (-2, 0, 1, 2)
        for b in (True, False, None)
    ]
    assert selected(parse(rule), rows) == selected(parse(same), rows)


def test_top_takes_exactly_the_ceiling_and_breaks_ties_by_profile() -> None:
    rows = rows_of(x=[1.0] * 30 + [None] * 7)
    assert selected(parse("top(x, 0.1)"), rows) == {"p0", "p1", "p10"}  # 0.1 * 30 is 3.0000000000000004 in floats
    assert selected(parse("bottom(x, 0.1)"), rows) == {"p0", "p1", "p10"}
    assert len(selected(parse("not top(x, 0.1)"), rows)) == 27
    assert selected(parse("top(x, 0.1) or x is null"), rows) >= {"p0", "p36"}
    assert len(selected(parse("top(x, 1)"), rows)) == 30


def test_top_ranks_the_whole_table_not_the_profiles_left_by_the_rest_of_the_rule() -> None:
    rows = rows_of(i=[1, 2, 3, 4], b=[True, True, False, False])
    assert selected(parse("b and top(i, 0.5)"), rows) == set()


def test_null_does_not_select_and_neither_does_its_negation() -> None:
    rows = rows_of(i=[None, 1])
    assert selected(parse("i > 0"), rows) == {"p1"}
    assert selected(parse("not i > 0"), rows) == set()
    assert selected(parse("1 / (i - 1) > 0 or not 1 / (i - 1) > 0"), rows) == set()


def test_times_and_intervals() -> None:
    schema = {"seen": "TIMESTAMP WITH TIME ZONE", "born": "DATE"}
    rows = rows_of(seen=["2024-03-01 00:00:00+00", "2023-12-01 00:00:00+00"], born=["2000-02-29", "1980-01-01"])
    for rule in (
        "seen > timestamp '2024-01-31' - interval '3 weeks'",
        "born >= '2000-01-01'",
        "seen - born < interval '10000' day and born - date '1999-12-31' > 30",
        "coalesce(seen, '2024-01-01') > date '2024-01-31'",
        "cast('2024-01-31' as timestamptz) < seen",
        "seen between '2024-01-31' and '2024-12-31T10:00:00Z'",
    ):
        assert selected(parse(rule), rows, schema) == {"p0"}, rule
    assert "'2024-01-31 00:00:00+00:00'" in parse("seen > timestamptz '2024-01-31'").condition()


def test_a_predicate_is_a_value() -> None:
    rule = parse(" Churn > 0.6 AND top(CLV, 0.2)\n", where="task")
    assert rule == parse("Churn > 0.6 AND top(CLV, 0.2)")
    assert hash(rule) == hash(parse(rule.text))
    assert rule != parse("churn > 0.5")
    assert str(rule) == "Churn > 0.6 AND top(CLV, 0.2)"
    assert rule.columns == {"churn", "clv"}
    again = pickle.loads(pickle.dumps(rule))
    assert (again, again.columns, again.where, again.sql()) == (rule, rule.columns, "task", rule.sql())


def test_names_are_quoted_and_texts_cannot_break_out() -> None:
    schema = {"order": "BIGINT", "select": "BIGINT", 'we"ird': "VARCHAR"}
    rows = [{"profile_id": "p", "order": 1, "select": 2, 'we"ird': "'); DROP TABLE attributes; --"}]
    rule = parse("""order = 1 and "SELECT" = 2 and "we""ird" = '''); DROP TABLE attributes; --'""")
    assert selected(rule, rows, schema) == {"p"}
    assert parse("i = 1").sql('odd"; drop') == 'SELECT profile_id FROM "odd""; drop" WHERE "i" = 1'
    assert parse("top(i, 1)").condition("lake.wide").count('FROM "lake"."wide"') == 2


def test_long_chains_are_fine_and_deep_nesting_is_refused() -> None:
    assert parse(" and ".join(["b"] * 3000)).columns == {"b"}
    for rule in ("(" * 500 + "b" + ")" * 500, "not " * 3000 + "b", " + ".join(["i"] * 500) + " > 1"):
        with pytest.raises(DefinitionError, match="nested"):
            parse(rule)


@pytest.mark.parametrize(
    ("rule", "construct"),
    [
        ("i = (select 1)", "a sub-query (select)"),
        ("i in (select i from attributes)", "a sub-query (select)"),
        ("exists(select 1)", "a sub-query (select)"),
        ("select true", "a sub-query (select)"),
        ("current_date > d", "the function current_date()"),
        ("if(b, b, b)", "the function if()"),
        ("s = 'a' 'b'", "the function concat()"),
        ("b; drop table attributes", "a semicolon"),
        ("b;", "a semicolon"),
        ("b -- all", "a comment"),
        ("/* all */ b", "a comment"),
        ("-- nothing", "a comment"),
        ("*", "*"),
        ("a.i > 1", "the name a.i with a table in front"),
        ("a.* > 1", "the name a.* with a table in front"),
        ("count(*) > 1", "the aggregate count()"),
        ("sum(i) > 1", "the aggregate sum()"),
        ("rank() over (order by i) = 1", "a window function (over)"),
        ("top(i, 0.1) over () = b", "a window function (over)"),
        ("i::varchar = s", "a cast"),
        ("cast('x' as blob) = s", "a cast"),
        ("try_cast('2024-01-01' as date) = d", "a cast"),
        ("case when b then b end", "a case expression"),
        ("i = ?", "a parameter"),
        ("i = $1", "a parameter"),
        ("i % 2 = 1", "the operator %"),
        ("i // 2 = 1", "the operator //"),
        ("s || s = 'aa'", "the operator ||"),
        ("s ~ 'a'", "the operator ~"),
        ("s like 'a' escape '!'", "the escape of a like"),
        ("i is distinct from 1", "the operator is distinct from"),
        ("b is true", "an `is` with something else than null"),
        ("i in (x)", "an in (…) of something else than literals"),
        ("i in x", "an in (…) of something else than literals"),
        ("i between symmetric 1 and 2", "between symmetric"),
        ("s = e'a'", "byte string"),
        ("s = $$a$$", "raw string"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is_and_an_example(rule: str, construct: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(rule, where="somewhere")
    said = str(caught.value)
    assert construct in said
    assert "abs, bottom, coalesce, consent, lower, top" in said
    assert "e.g. churn > 0.6 and top(clv, 0.2)" in said
    assert said.endswith("(somewhere)")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("", "expected a true/false rule, got an empty one; write one such as"),
        (" \n ", "got an empty one"),
        ("i > 0.6 and", "got a syntax error at character 9: i > 0.6 »and« (something is missing here)"),
        ("i > 1\nand and b", "at character 11: i > 1\nand »and« b"),
        ("b i", "at character 3: b »i« (this was not expected here)"),
        ("b as i", "at character 3: b »as« i"),
        ("(b", "at character 2: (»b« (Expecting ))"),
        ("b)", "at character 2: b»)«"),
        ("s = 'x", "cannot be read at character 5: s = »'«x; close every quote"),
        ("drop table attributes", "at character 1: »drop« table"),
        ("churn + 1", 'got a number; compare it, as in "churn" + 1 > 0.6'),
        ("churn * clv", "got a computed value"),
        ("7", "got a number"),
        ("'x'", "got text"),
        ("null", "got null"),
        ("lower(city)", "got text"),
        ("b and i + 1", "expected true/false beside and, got a number"),
        ("not abs(i)", "expected true/false after not, got a number"),
        ("0 < i < 3", "a < b < c is written a < b and b < c"),
        ("b = true > false", "values that have an order"),
        ("s in ()", "expected a list of values, got nothing to look in"),
        ("top(x, 0)", "expected a share above 0 and at most 1 in top(), got 0; write a fraction"),
        ("top(x, 1.01)", "got 1.01"),
        ("bottom(x, -0.1)", "in bottom(), got -0.1"),
        ("top(x, 0.0000000001)", "at most nine decimals"),
        ("top(x, i)", 'got "i"'),
        ("top(x, '0.1')", "got '0.1'"),
        ("top(x)", "expected top(attribute, share), got other arguments"),
        ("top(x + 1, 0.1)", "expected top(attribute, share)"),
        ("top(distinct x, 0.1)", "expected top(attribute, share)"),
        ("d = date 'soon'", "expected a date of the calendar, got 'soon'"),
        ("d = date '2024-02-30'", "expected a date of the calendar"),
        ("d > d - interval 'x'", "expected a whole number of a unit of time, got x"),
        ("d > d - interval '1.5' day", "got 1.5 DAY"),
        ("i = 9e99999", "expected a number of at most 38 digits"),
        ("'a' > 1", "expected something to compare with text ('a'), got a number (1)"),
    ],
)
def test_what_is_wrong_in_itself_is_said(rule: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(rule)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x", "expected a true/false rule, got a number; compare it"),
        ("b and s", "expected true/false beside and, got text"),
        ("i = '5'", "expected something to compare with a number (\"i\"), got text ('5'); write 5 without quotes"),
        ("s = 5", "write '5' in quotes"),
        ("s in ('a', 5)", "write '5' in quotes"),
        ("b = 1", "use true/false by itself"),
        ("b > b", "values that have an order"),
        ("d > 20240131", "compare it with a time such as date '2024-01-31'"),
        ("d > 'yesterday'", "write it as '2024-01-31'"),
        ("d > s", "compare it with a time"),
        ("x between 'a' and 'b'", "expected something to compare with a number"),
        ("s + 1 > 1", "values that + can take"),
        ("d + 1 > d", "a time and an interval such as interval '30 days'"),
        ("-s = s", "expected a number after -"),
        ("lower(x) = 'a'", "expected text in lower()"),
        ("abs(s) > 1", "expected a number in abs()"),
        ("i like '5%'", "expected text beside like"),
        ("coalesce(x, 'none') = 'none'", "expected something to compare with a number"),
        ("top(s, 0.1)", "expected a number or a time in top(), got text"),
        ("list = 1", "test it with is null"),
        ("list", "only be tested with is null"),
    ],
)
def test_types_that_do_not_fit_are_refused_when_bound(rule: str, said: str) -> None:
    checked = parse(rule)  # nothing is known of the types yet
    with pytest.raises(DefinitionError) as caught:
        checked.bind({**SCHEMA, "list": "DOUBLE[]"})
    assert said in str(caught.value)


def test_unknown_attributes_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match='did you mean "churn"') as caught:
        parse("top(chrun, 0.1)", where="segments/risk.yaml").bind({"Churn": "DOUBLE", "clv": "DOUBLE"})
    assert "segments/risk.yaml" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_a_rule_or_is_refused_in_our_words(text: str) -> None:
    try:
        checked = parse(text).bind(SCHEMA)
    except ForetellError:
        return
    selected(checked, [])


def test_the_examples_of_the_module_hold() -> None:
    results = doctest.testmod(predicate, optionflags=doctest.ELLIPSIS)
    assert results.attempted
    assert not results.failed
