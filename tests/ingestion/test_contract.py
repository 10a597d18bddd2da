"""Contracts: the stamps of a fact, its typed columns, and why a row is refused while the rest loads."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest
from one_source import HEADER, ask, line, loaded, project, quarantined, sales, write

from foretell import Source, hours
from foretell.errors import DataError, UnknownName


def stamps(made, name="sales"):
    return ask(made, f"SELECT event_at, known_at, event_day FROM {name} ORDER BY event_at, fact_id")


def one(folder, source, content, name="a.csv"):
    made = project(folder, source)
    write(made, name, content)
    (result,) = loaded(made)
    assert not isinstance(result, Exception), result
    return made


BAD = {
    "empty time": (line(at=""), "no time: at is empty"),
    "blank time": (line(at="  "), "no time: at is empty"),
    "unparsable time": (line(at="yesterday"), 'at: expected a time, got "yesterday"'),
    "no such day": (line(at="2024-02-30"), 'at: expected a time, got "2024-02-30"'),
    "infinity": (line(at="-infinity"), 'at: expected a time, got "-infinity"'),
    "word for a time": (line(at="epoch"), 'at: expected a time, got "epoch"'),
    "future": (line(at="2999-01-01"), "happens in the future: 2999-01-01"),
    "money": (line(amount="9.9O"), 'amount: expected DECIMAL(18,4), got "9.9O"'),
    "money in words": (
        line(amount='it\'s "free"'.replace('"', "")),
        'amount: expected DECIMAL(18,4), got "it\'s free"',
    ),
    "money not a number": (line(amount="NaN"), 'amount: expected DECIMAL(18,4), got "NaN"'),
    "money too large": (line(amount="1e30"), 'amount: expected DECIMAL(18,4), got "1e30"'),
}


def test_bad_rows_are_named_while_the_rest_loads(tmp_path):
    made = one(tmp_path, sales(), HEADER + line(1) + "".join(text for text, _ in BAD.values()) + "short\n" + line(2))
    assert ask(made, "SELECT order_id, amount FROM sales ORDER BY 1") == [("1", Decimal("9.9")), ("2", Decimal("9.9"))]
    reasons = [(n, reason) for n, (_, reason) in enumerate(BAD.values(), 3)]
    reasons.append((len(BAD) + 3, "Expected Number of Columns: 4 Found: 1"))
    assert quarantined(made) == [("a.csv", n, reason) for n, reason in reasons]
    assert ask(made, "SELECT raw FROM quarantine WHERE line = 5") == [
        ('{"at":"yesterday","order_no":"1","amount":"9.90","email":"ann@example.org"}',)
    ]


def test_numbers_that_would_poison_a_sum(tmp_path):
    source = sales(columns={"order_id": "order_no", "amount": "1", "quantity": "amount"})
    made = one(tmp_path, source, HEADER + line(1, amount="nan") + line(2, amount="inf") + line(3, amount="") + line(4))
    assert ask(made, "SELECT order_id, quantity FROM sales ORDER BY 1") == [("3", None), ("4", 9.9)]
    assert [reason for *_, reason in quarantined(made)] == [
        f'quantity: expected DOUBLE, got "{x}"' for x in ("nan", "inf")
    ]


def test_a_clock_a_little_ahead_is_no_future(tmp_path):
    soon = datetime.now(UTC) + timedelta(minutes=5)
    assert len(stamps(one(tmp_path, sales(), HEADER + line(at=soon.isoformat())))) == 1


OSLO = {
    "winter": ("2024-01-15 00:30:00", datetime(2024, 1, 14, 23, 30, tzinfo=UTC), date(2024, 1, 15)),
    "summer": ("2024-07-15 01:30:00", datetime(2024, 7, 14, 23, 30, tzinfo=UTC), date(2024, 7, 15)),
    "before the change": ("2024-03-31 01:59:59", datetime(2024, 3, 31, 0, 59, 59, tzinfo=UTC), date(2024, 3, 31)),
    "after the change": ("2024-03-31 03:00:00", datetime(2024, 3, 31, 1, 0, tzinfo=UTC), date(2024, 3, 31)),
    "after the change back": ("2024-10-27 03:00:00", datetime(2024, 10, 27, 2, 0, tzinfo=UTC), date(2024, 10, 27)),
    "a date": ("2024-05-01", datetime(2024, 4, 30, 22, 0, tzinfo=UTC), date(2024, 5, 1)),
    "Z": ("2024-05-01T23:00:00Z", datetime(2024, 5, 1, 23, 0, tzinfo=UTC), date(2024, 5, 2)),
    "offset": ("2024-05-01T23:00:00-05:00", datetime(2024, 5, 2, 4, 0, tzinfo=UTC), date(2024, 5, 2)),
    "short offset": ("2024-05-01 23:00:00+02", datetime(2024, 5, 1, 21, 0, tzinfo=UTC), date(2024, 5, 1)),
    "zone's name": ("2024-05-01 23:00:00 UTC", datetime(2024, 5, 1, 23, 0, tzinfo=UTC), date(2024, 5, 2)),
    "fraction": ("2024-05-01T10:00:00.25", datetime(2024, 5, 1, 8, 0, 0, 250_000, tzinfo=UTC), date(2024, 5, 1)),
}


def test_naive_times_are_the_shops_and_a_day_is_the_shops_day(tmp_path):
    content = HEADER + "".join(line(n, at=text) for n, (text, *_) in enumerate(OSLO.values()))
    made = one(tmp_path, sales(timezone="Europe/Oslo"), content)
    found = ask(made, "SELECT event_at, event_day FROM sales ORDER BY order_id::INT")
    assert dict(zip(OSLO, found, strict=True)) == {name: (at, day) for name, (_, at, day) in OSLO.items()}


def test_times_in_another_zone_than_the_shops(tmp_path):
    source = sales(timezone="America/New_York", times_in="UTC")
    made = one(tmp_path, source, HEADER + line(at="2024-03-01 02:00:00"))
    at = datetime(2024, 3, 1, 2, tzinfo=UTC)
    assert stamps(made) == [(at, at, date(2024, 2, 29))]
    assert ask(made, "SELECT DISTINCT event_month FROM sales") == [(date(2024, 2, 1),)]


def test_typed_times_of_parquet(tmp_path):
    made = project(tmp_path, sales(files="*.parquet", timezone="Europe/Oslo"))
    duckdb.connect().execute(
        f"""SET TimeZone = 'America/New_York'; COPY (SELECT TIMESTAMPTZ '2024-01-01 10:00:00+00' AS at, 1 AS order_no,
            2.5 AS amount, NULL AS email) TO '{made.exports}/a.parquet'"""
    )
    duckdb.connect().execute(
        f"""COPY (SELECT TIMESTAMP '2024-01-01 12:00:00' AS at, 1 AS order_no, 2.5 AS amount, NULL AS email)
            TO '{made.exports}/b.parquet'"""
    )
    loaded(made)
    assert [at for at, *_ in stamps(made)] == [datetime(2024, 1, 1, h, tzinfo=UTC) for h in (10, 11)]


AT = datetime(2024, 3, 5, 10, tzinfo=UTC)


def test_known_when_it_happened_or_a_delay_later(tmp_path):
    assert stamps(one(tmp_path / "a", sales(), HEADER + line()))[0][:2] == (AT, AT)
    assert stamps(one(tmp_path / "b", sales(delay=hours(36)), HEADER + line()))[0][:2] == (AT, AT + hours(36))


def test_live_facts_are_known_when_received(tmp_path):
    made = one(tmp_path, sales(delay=None), HEADER + line())
    ((event, known, received),) = ask(made, "SELECT event_at, known_at, received_at FROM sales")
    assert event == AT
    assert known == received
    assert timedelta(0) <= datetime.now(UTC) - received < timedelta(minutes=1)


def test_a_column_that_says_when_it_was_known(tmp_path):
    source = sales(known_at="seen", delay=hours(1), timezone="Europe/Oslo")
    content = "at,seen,order_no,amount,email\n2024-03-05 10:00:00,2024-03-09 10:00:00,1,1,\n2024-03-06,,2,1,\n"
    made = one(tmp_path, source, content)
    ((first,), (second,)) = ask(made, "SELECT known_at FROM sales ORDER BY order_id")
    assert first == datetime(2024, 3, 9, 9, tzinfo=UTC)
    assert datetime.now(UTC) - second < timedelta(minutes=1)  # unsaid: when we received it


@pytest.mark.parametrize("since", [None, datetime(2020, 1, 1, tzinfo=UTC)])
def test_records_without_a_time(tmp_path, since):
    people = Source(
        name="people", files="*.csv", kind="records", identifiers={"email": "email"}, traits={"city": "city"},
        known_since=since,
    )  # fmt: skip
    made = project(tmp_path, people)
    write(made, "a.csv", "email,city\nann@example.org,Oslo\nbob@example.org,Rome\n")
    (result,) = loaded(made)
    known = {known for _, known, _ in stamps(made, "people")}
    if since:
        assert (known, result.undated_links) == ({since}, 0)
    else:
        assert result.undated_links == 2
        assert ask(made, "SELECT DISTINCT known_at = received_at FROM people") == [(True,)]


def test_the_first_identifier_present_anchors_the_fact(tmp_path):
    source = sales(identifiers={"loyalty_card": "card", "email": "email"})
    content = "at,order_no,amount,card,email\n" + "".join(
        f"2024-03-05,{n},1,{card},{email}\n"
        for n, (card, email) in enumerate([("A-1", "x@y.org"), ("", "X@y.org"), ("0000", "x@y.org"), ("", "unknown")])
    )
    made = one(tmp_path, source, content)
    found = ask(made, "SELECT node, id_loyalty_card, id_email FROM sales ORDER BY order_id")
    assert found == [
        ("loyalty_card:A1", "A1", "x@y.org"),
        ("email:x@y.org", None, "x@y.org"),
        ("email:x@y.org", None, "x@y.org"),
        (None, None, None),
    ]


def test_expressions_over_the_files_columns(tmp_path):
    source = sales(
        columns={"order_id": "order_no", "amount": "amount::DOUBLE * 2", "category": "'food'", "size": "length(email)"},
        types={"size": "INTEGER"},
    )
    made = one(tmp_path, source, HEADER + line(amount="2.5"))
    assert ask(made, "SELECT amount, category, size, brand FROM sales") == [(Decimal(5), "food", 15, None)]


@pytest.mark.parametrize(
    ("column", "fix"), [("ammount", 'did you mean "amount"?'), ("zzz", "known: amount, at, email, order_no")]
)
def test_a_column_that_a_file_lacks(tmp_path, column, fix):
    made = project(tmp_path, sales(columns={"order_id": "order_no", "amount": column}))
    write(made, "a.csv", HEADER + line())
    (error,) = loaded(made)
    assert isinstance(error, UnknownName)
    assert str(error) == f"{column}: no such column; {fix}. (source sales, a.csv)"


@pytest.mark.parametrize("expression", ["amount::DATE", "no_such_function(amount)"])
def test_an_expression_that_does_not_fit_the_file(tmp_path, expression):
    made = project(tmp_path, sales(columns={"order_id": "order_no", "amount": expression}))
    write(made, "a.csv", HEADER + line())
    (error,) = loaded(made)
    assert isinstance(error, DataError)
    assert str(error).startswith("sales: the contract cannot be applied to a.csv: ")
    assert str(error).endswith("; mend the expression in the contract")


@pytest.mark.parametrize("amount", ["", "NOK 7"])
def test_an_amount_that_cannot_be_reckoned_is_quarantined(tmp_path, amount):
    """Arithmetic on text columns works; a line without the amount that its role needs would be a silent loss."""
    made = project(tmp_path, sales(columns={"order_id": "order_no", "amount": "2 * (amount - 1)"}))
    write(made, "a.csv", HEADER + line() + line(amount=amount))
    (result,) = loaded(made)
    assert (result.added, result.quarantined) == (1, 1)
    assert result.reasons == ["a.csv:3: amount (2 * (amount - 1)): expected DECIMAL(18,4), got nothing"]


ONLY = {
    "a comparison with a number": ("amount > 5", ["1", "3"]),
    "numbers that are text are not compared as text": ("amount > 10", ["3"]),
    "not true is left out, unknown too": ("nullif(email, 'x') IS NOT NULL", ["1", "2", "3"]),
    "false": ("false", []),
    "several": ("amount BETWEEN 1 AND 10 AND order_no <> 2", ["1"]),
}


@pytest.mark.parametrize("case", ONLY)
def test_rows_that_are_no_facts_of_the_source_are_counted_and_left_out(tmp_path, case):
    condition, kept = ONLY[case]
    made = project(tmp_path, sales(only=condition))
    rows = [line(1), line(2, amount="2"), line(3, amount="100"), line(4, amount="free", email="x"), "short\n"]
    write(made, "a.csv", HEADER + "".join(rows))
    (result,) = loaded(made)
    if kept:
        assert ask(made, "SELECT order_id FROM sales ORDER BY 1") == [(n,) for n in kept]
    assert (result.added, result.left_out, result.quarantined) == (len(kept), 4 - len(kept), 1)
    assert quarantined(made) == [("a.csv", 6, "Expected Number of Columns: 4 Found: 1")]
    assert ask(made, "SELECT rows, added, left_out, quarantined FROM batches") == [(5, len(kept), 4 - len(kept), 1)]


def test_a_condition_reads_json_too(tmp_path):
    source = sales(files="*.jsonl", only="amount > 5 AND NOT is_test::BOOLEAN")
    rows = [f'{{"at":"2024-03-05","order_no":{n},"amount":{n * 3},"is_test":{t}}}\n' for n, t in
            [(1, "false"), (2, "false"), (3, "true"), (4, "false")]]  # fmt: skip
    made = one(tmp_path, source, "".join(rows), "a.jsonl")
    assert ask(made, "SELECT order_id FROM sales ORDER BY 1") == [("2",), ("4",)]


def test_a_condition_that_names_no_column_of_the_file(tmp_path):
    made = project(tmp_path, sales(only="amuont > 5"))
    write(made, "a.csv", HEADER + line())
    (error,) = loaded(made)
    assert str(error) == 'amuont: no such column; did you mean "amount"?. (source sales, a.csv)'


ALIASES = {"order no": ("order_no", "OrderNo"), "email": ("mail",)}


def renamed(**more):
    columns = {"order_id": "order no", "amount": "amount", "category": 'upper("order no")'}
    return sales(columns=columns, aliases=ALIASES, **more)


@pytest.mark.parametrize("header", ["at,order no,amount,email", "at,order_no,amount,mail", "at,OrderNo,amount,email"])
def test_a_column_by_its_other_names(tmp_path, header):
    made = one(tmp_path, renamed(), f"{header}\n2024-03-05,a1,2,ann@example.org\n")
    assert ask(made, "SELECT order_id, category, id_email FROM sales") == [("a1", "A1", "ann@example.org")]


def test_other_names_in_json_are_each_rows_own(tmp_path):
    source = sales(
        files="*.jsonl",
        columns={"order_id": "order_no", "amount": "amount * 2"},
        identifiers={"email": '"user".email'},
        aliases={"order_no": ("OrderNo",), "amount": ("total",), "user.email": ("contact.mail",)},
    )
    rows = [
        '{"at":"2024-03-05","order_no":"1","amount":"2","user":{"email":"a@x.org"}}\n',
        '{"at":"2024-03-05","OrderNo":"2","total":3,"contact":{"mail":"b@x.org"}}\n',
    ]
    made = one(tmp_path, source, "".join(rows), "a.jsonl")
    found = ask(made, "SELECT order_id, amount, id_email FROM sales ORDER BY 1")
    assert found == [("1", Decimal(4), "a@x.org"), ("2", Decimal(6), "b@x.org")]


WRONG_NAMES = {
    "two of them": (
        "at,order_no,OrderNo,amount,email",
        "order no: expected one column for it, got order_no and OrderNo; remove one from the file, or from `aliases` "
        "in the contract. (source sales, a.csv)",
    ),
    "none of them": (
        "at,order_nr,amount,email",
        'order no: no such column, nor any of its aliases order_no, OrderNo; did you mean "order_nr"?. '
        "(source sales, a.csv)",
    ),
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_a_file_with_too_many_or_none_of_the_names(tmp_path, case):
    header, message = WRONG_NAMES[case]
    made = project(tmp_path, renamed())
    write(made, "a.csv", header + "\n" + ",".join("1" for _ in header.split(",")) + "\n")
    (error,) = loaded(made)
    assert str(error) == message


def test_a_column_that_some_files_lack(tmp_path):
    source = sales(
        columns={"order_id": "order_no", "amount": "amount - rebate", "discount": "rebate"},
        only="is_copy::BOOLEAN IS NOT TRUE", optional=("rebate", "is_copy"),
    )  # fmt: skip
    made = project(tmp_path, source)
    write(made, "a.csv", "at,order_no,amount,email,rebate,is_copy\n2024-03-05,1,5,,2,false\n2024-03-05,2,5,,1,true\n")
    write(made, "b.csv", "at,order_no,amount,email,rebate\n2024-03-05,3,5,,1\n")
    assert [r.added for r in loaded(made)] == [1, 1]
    assert ask(made, "SELECT order_id, amount, discount FROM sales ORDER BY 1") == [
        ("1", Decimal(3), Decimal(2)), ("3", Decimal(4), Decimal(1))
    ]  # fmt: skip
    lacking = one(tmp_path / "b", sales(columns={"order_id": "order_no", "amount": "amount", "discount": "rebate"},
                                        optional=("rebate",)), HEADER + line())  # fmt: skip
    assert ask(lacking, "SELECT amount, discount FROM sales") == [(Decimal("9.9"), None)]
