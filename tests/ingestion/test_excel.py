"""Workbooks: every cell as text that says the same, every sheet a batch of its own, every bad row by sheet and row."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path

import duckdb
import pytest
from one_source import ask, loaded, project, quarantined, sales, write
from openpyxl import Workbook
from openpyxl.chart import BarChart

from foretell.errors import DataError, ForetellError
from ingestion.excel import EmptySheet
from ingestion.files import read, sheets_of
from ingestion.load import Loaded

HEADER = ["at", "order_no", "amount", "email"]


def row(n: int = 1, at: object = datetime(2024, 3, 5, 10), amount: object = 9.9) -> list[object]:
    return [at, n, amount, "ann@example.org"]


def workbook(file: Path, **sheets: list[list]) -> Path:
    book = Workbook(write_only=True)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for cells in rows:
            sheet.append(cells)
    book.save(file)
    return file


def payloads(file: Path, sheet: str) -> list[tuple[int, dict]]:
    con = duckdb.connect()
    raw = read(con, file, sheet)
    found = con.execute("SELECT _row, _payload FROM raw ORDER BY _row").fetchall()
    return [(raw.line_of(n), json.loads(text)) for n, text in found]


def counts(result: object) -> tuple[str, int, int, int]:
    assert isinstance(result, Loaded), result
    return result.file, result.added, result.known, result.quarantined


CELLS = {
    "a whole number": (13085.0, "13085"),
    "a number": (2.1, "2.1"),
    "a long fraction": (1 / 3, "0.3333333333333333"),
    "a large number": (1e21, "1000000000000000000000"),
    "a negative number": (-0.5, "-0.5"),
    "text": ("007", "007"),
    "text with blanks": (" a  b ", " a  b "),
    "text over lines": ("two\nlines é", "two\nlines é"),
    "a time": (datetime(2009, 12, 1, 7, 45), "2009-12-01 07:45:00"),
    "a second": (datetime(2011, 12, 9, 12, 50, 59), "2011-12-09 12:50:59"),
    "a day": (date(2010, 1, 2), "2010-01-02"),
    "a time of day": (time(1, 2, 3), "01:02:03"),
    "true": (True, "true"),
    "false": (False, "false"),
    "nothing": (None, None),
    "no text": ("", None),
    "one": (1, "1"),
    "an error": ("#N/A", None),
}


def test_cells_are_kept_as_they_are(tmp_path):
    file = workbook(tmp_path / "a.xlsx", S=[list(CELLS), [cell for cell, _ in CELLS.values()]])
    ((line, found),) = payloads(file, "S")
    assert line == 2
    assert found == {name: text for name, (_, text) in CELLS.items()}


def test_rows_are_numbered_as_excel_does(tmp_path):
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet["B3"], sheet["C3"], sheet["E3"] = "a", " b ", "c"
    sheet["B4"], sheet["C4"], sheet["D4"] = 1, 2, 3
    sheet["E7"] = 4
    book.save(tmp_path / "a.xlsx")
    first, second = payloads(tmp_path / "a.xlsx", "Sheet")
    assert first == (4, {"a": "1", "b": "2", "column_4": "3", "c": None})
    assert second == (7, {"a": None, "b": None, "column_4": None, "c": "4"})


def test_each_sheet_is_a_batch_and_what_is_on_two_counts_once(tmp_path):
    made = project(tmp_path, sales(files="*.xlsx"))
    both = [row(2), row(3), row(3)]
    workbook(made.exports / "a.xlsx", **{"Year 1": [HEADER, row(1), *both], "Year 2": [HEADER, *both, row(4)]})
    assert [counts(r) for r in loaded(made)] == [("a.xlsx#Year 1", 4, 0, 0), ("a.xlsx#Year 2", 1, 3, 0)]
    assert ask(made, "SELECT order_id, count(*) FROM sales GROUP BY 1 ORDER BY 1") == [
        ("1", 1), ("2", 1), ("3", 2), ("4", 1)
    ]  # fmt: skip
    assert ask(made, "SELECT batch, file FROM batches ORDER BY 1") == [(1, "a.xlsx#Year 1"), (2, "a.xlsx#Year 2")]
    again = loaded(made)
    assert all(isinstance(r, Loaded) and r.skipped for r in again)


def test_quarantine_names_sheet_and_row(tmp_path):
    made = project(tmp_path, sales(files="*.xlsx"))
    workbook(made.exports / "a.xlsx", Till=[HEADER, row(1), [], row(2, at="never"), row(3, amount="free")])
    (result,) = loaded(made)
    assert counts(result) == ("a.xlsx#Till", 1, 0, 2)
    assert quarantined(made) == [
        ("a.xlsx#Till", 4, 'at: expected a time, got "never"'),
        ("a.xlsx#Till", 5, 'amount: expected DECIMAL(18,4), got "free"'),
    ]


def test_sheets_without_rows_are_passed_over_and_others_lack_columns(tmp_path):
    made = project(tmp_path, sales(files="*.xlsx"))
    sheets = {"Sheet1": [], "Notes": [["made by"], ["Ann"]], "Till": [HEADER, row(1)], "Head": [HEADER], "Sheet5": []}
    workbook(made.exports / "a.xlsx", **sheets)
    notes, till, head = loaded(made)
    assert str(notes) == "order_no: no such column; known: made by. (source sales, a.xlsx#Notes)"
    assert counts(till) == ("a.xlsx#Till", 1, 0, 0)
    assert str(head) == "a.xlsx#Head: expected rows, got none; export it again, or remove the file"


def test_only_sheets_of_cells_are_read(tmp_path):
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["a"])
    book.create_chartsheet("Picture").add_chart(BarChart())
    book.save(tmp_path / "a.xlsx")
    assert sheets_of(tmp_path / "a.xlsx") == ["Sheet"]


def test_workbooks_that_cannot_be_read(tmp_path):
    made = project(tmp_path, sales(files="*.xlsx"))
    workbook(made.exports / "a.xlsx", One=[], Two=[])
    write(made, "b.xlsx", b"PK\x03\x04 cut short")
    workbook(made.exports / "c.xlsx", Till=[["at", "At"], [1, 2]])
    empty, broken, twice = loaded(made)
    assert str(empty) == "a.xlsx: expected a header and rows, got an empty file; export it again"
    assert isinstance(broken, ForetellError)
    assert "b.xlsx: cannot be read: " in str(broken)
    assert str(broken).endswith("; is the file whole, and of the kind it says?")
    assert str(twice).endswith("c.xlsx#Till: two columns have the same name; rename one of ['at', 'At']")
    with pytest.raises(EmptySheet, match=r"a\.xlsx#One: expected a header and rows, got an empty sheet"):
        read(duckdb.connect(), made.exports / "a.xlsx", "One")
    with pytest.raises(DataError, match=r"gone\.xlsx: no such file; check the path"):
        sheets_of(made.exports / "gone.xlsx")


LOAD = """
from benchmarks.report import peak_rss
from foretell.__main__ import cli
cli(["load"], standalone_mode=False)
print("peak", peak_rss() // 2**20)
"""


@pytest.mark.slow
def test_half_a_million_rows_on_a_sheet_fit_into_memory(tmp_path):
    """A million on two sheets need no more: each is read by itself."""
    made = project(tmp_path)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "sales.py").write_text(
        'from foretell import Source\n\nsales = Source(name="sales", files="*.xlsx", role="order_line",\n'
        '    event_at="at", identifiers={"email": "email"}, columns={"order_id": "order_no", "amount": "amount"})\n'
    )
    start, book = datetime(2024, 1, 1), Workbook(write_only=True)
    sheet = book.create_sheet("All")
    sheet.append([*HEADER, "note", "country", "quantity", "price"])
    for n in range(500_000):
        who, what = f"p{n % 9999}@example.org", f"ITEM {n % 999}"
        sheet.append([start + timedelta(minutes=n), n, n / 100, who, what, "UK", n % 7, 2.5])
    book.save(made.exports / "a.xlsx")
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "a.xlsx#All: 500,000 facts" in done.stdout
    assert int(done.stdout.split("peak ")[1]) < 2000  # MB
