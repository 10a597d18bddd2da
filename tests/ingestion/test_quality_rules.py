"""Rules of a source: a row that breaks one goes to quarantine and says which; a file with too many such is refused."""

from __future__ import annotations

import json

import pytest
from one_source import HEADER, ask, line, loaded, project, quarantined, sales, write

from foretell.errors import DataError, DefinitionError
from ingestion.quarantine import Chosen
from ingestion.replay import replay
from lake.engine import last_batch, table

RULES = {
    "amount is not negative": "amount >= 0",
    "it's a known order": "order_no IN ('1', '2', '3') OR order_no LIKE 'x%'",
    "has an e-mail of ours": "email LIKE '%@example.org'",
}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_row_that_breaks_a_rule_goes_to_quarantine(tmp_path, kind):
    made = project(tmp_path, sales(files=f"*.{kind}", rules=RULES))
    amounts = ["9.90", "-1", "0", "9", "9", ""]
    orders = ["1", "2", "x7", "9", "3", "3"]
    mails = ["a@example.org", "a@example.org", "a@example.org", "a@example.org", "", "b@example.org"]
    if kind == "csv":
        rows = [line(n, amount=a, email=e) for n, a, e in zip(orders, amounts, mails, strict=True)]  # type: ignore
        write(made, "a.csv", HEADER + "".join(rows))
    else:
        names = ("at", "order_no", "amount", "email")
        rows = [dict(zip(names, ("2024-03-05", *r), strict=True)) for r in zip(orders, amounts, mails, strict=True)]
        rows[4]["email"] = None  # type: ignore
        write(made, "a.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    loaded(made)
    first = 2 if kind == "csv" else 1
    assert [(n - first, why) for _, n, why in quarantined(made)] == [
        (1, 'rule "amount is not negative": amount >= 0 is false'),
        (3, "rule \"it's a known order\": order_no IN ('1', '2', '3') OR order_no LIKE 'x%' is false"),
        (
            5,
            "amount: expected DECIMAL(18,4), got nothing"
            if kind == "csv"
            else 'amount: expected DECIMAL(18,4), got ""',
        ),
    ]
    assert ask(made, "SELECT count(*) FROM sales") == [(3,)]  # a rule about what is not there says nothing
    relaxed = project(tmp_path, sales(files=f"*.{kind}", rules={"no giants": "amount < 1000"}))
    (result,) = replay(relaxed, Chosen(reason="rule"))
    assert (result.added, result.still) == (2, 0)


def test_a_rule_about_a_column_that_is_not_there(tmp_path):
    made = project(tmp_path, sales(rules={"x": "amont > 0"}))
    write(made, "a.csv", HEADER + line())
    (error,) = loaded(made)
    assert "amont: no such column; did you mean" in str(error)
    assert last_batch(made) == 0


def test_a_file_with_too_many_bad_rows_is_refused_before_anything_is_written(tmp_path):
    contract = sales(rules={"cheap": "amount < 10"}, quarantine_at_most=0.25)
    made = project(tmp_path, contract)
    write(made, "a.csv", HEADER + line(1) + line(2) + line(3) + line(4, amount="11"))
    write(made, "b.csv", HEADER + line(5) + line(6, amount="11") + line(7, at="never") + line(8, at="soon") + "short\n")
    write(made, "c.csv", HEADER + line(9))
    first, error, last = loaded(made)
    assert (first.added, first.quarantined, last.added) == (3, 1, 1)
    assert isinstance(error, DataError)
    assert str(error) == (
        "b.csv: 4 of its 5 rows would go to quarantine (80.0%): 2 × at: expected a time, got …, "
        '1 × rule "cheap": amount < 10 is false, 1 × Expected Number of Columns: 4 Found: 1; '
        "mend the file, or raise quarantine_at_most (0.25) in sales; nothing of it was loaded"
    )
    assert len(quarantined(made)) == 1
    assert ask(made, "SELECT count(*) FROM sales") == [(4,)]
    assert table(made, "batches").rows() == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rules": {"a": ""}}, "sales, rule 'a': expected a SQL condition, got ''; write for example"),
        ({"rules": {"a": 1}}, "sales, rule 'a': expected a SQL condition, got 1"),
        ({"rules": {"a": "amount >"}}, "sales, rule 'a': 'amount >' is not a SQL condition: "),
        ({"quarantine_at_most": 5}, "sales: quarantine_at_most is a share of the rows, 0 to 1, got 5; say 0.05"),
        ({"quarantine_at_most": "5%"}, "quarantine_at_most is a share of the rows, 0 to 1, got '5%'"),
        ({"quarantine_at_most": True}, "got True"),
    ],
)
def test_rules_are_checked_when_they_are_declared(fields, says):
    with pytest.raises(DefinitionError) as error:
        sales(**fields)
    assert says in str(error.value)
