"""One law over every format: the same rows make the same facts, whatever kind of file brings them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from one_source import ask, loaded, project, quarantined, sales
from openpyxl import Workbook

from ingestion.files import SUFFIXES
from ingestion.load import Loaded

Row = dict[str, Any]

ROWS: list[Row] = [
    {"at": at, "order no": number, "price": price, "units": units, "email": email, "returned": returned, "note": note}
    for at, number, price, units, email, returned, note in [
        (datetime(2024, 3, 5, 10), 1001, 9.9, 2, "Ann@Example.org", False, 'two\nlines, "é"'),
        (datetime(2024, 7, 15, 1, 30, 59), 1002, 12.0, 1, None, False, None),
        (datetime(2024, 7, 15, 1, 30, 59), 1002, 12.0, 1, None, False, None),
        (datetime(2023, 12, 31, 23, 59), 1003, 2.25, -3, "bob@example.org", True, "007"),
        (datetime(2024, 1, 1), 1004, 0.0, 5, "bob@example.org", False, " blank "),
        (datetime(2024, 1, 2), 1005, None, 5, "bob@example.org", False, "no price"),
        (datetime(2024, 1, 3), 1006, 1e6, 1, "unknown", None, "x"),
    ]
]
HEADER = list(ROWS[0])


def write_csv(rows: list[Row], file: Path, delimiter: str = ",") -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(HEADER)
        writer.writerows(
            ["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in r.values()] for r in rows
        )


def write_json(rows: list[Row], file: Path) -> None:
    file.write_text("".join(json.dumps(r, default=str, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def write_parquet(rows: list[Row], file: Path) -> None:
    frame = pd.DataFrame(rows).astype({"returned": "boolean"})  # DuckDB sees a table of its own types
    con = duckdb.connect()
    con.register("frame", frame)
    con.execute(f'COPY (SELECT * REPLACE ("at"::TIMESTAMP AS "at") FROM frame) TO \'{file}\'')


def write_xlsx(rows: list[Row], file: Path) -> None:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Orders")
    for cells in [HEADER, *(list(r.values()) for r in rows)]:
        sheet.append(cells)
    book.save(file)


def packed(write: Callable[[list[Row], Path], None]) -> Callable[[list[Row], Path], None]:
    def write_packed(rows: list[Row], file: Path) -> None:
        write(rows, file)
        file.write_bytes(gzip.compress(file.read_bytes()))

    return write_packed


WRITERS: dict[str, Callable[[list[Row], Path], None]] = {
    ".csv": write_csv,
    ".csv.gz": packed(write_csv),
    ".jsonl": write_json,
    ".ndjson": write_json,
    ".jsonl.gz": packed(write_json),
    ".parquet": write_parquet,
    ".xlsx": write_xlsx,
}
FACTS = """SELECT event_at, event_day, known_at, node, id_email, order_id, amount, quantity, cancelled, note
           FROM sales ORDER BY ALL"""


def test_every_format_is_held_to_the_law():
    assert set(WRITERS) == set(SUFFIXES)


def facts(folder: Path, suffix: str) -> tuple[list[tuple], list[tuple], tuple[int, ...]]:
    made = project(folder, sales(
        files="*", timezone="Europe/Oslo", only="units <> 5 OR price IS NULL",
        columns={"order_id": "OrderNo", "amount": "price * units", "quantity": "units", "cancelled": "returned",
                 "note": "note"},
        types={"note": "VARCHAR"}, aliases={"OrderNo": ("order no",)},
    ))  # fmt: skip
    WRITERS[suffix](ROWS, made.exports / f"a{suffix}")
    (result,) = loaded(made)
    assert isinstance(result, Loaded), result
    counts = (result.added, result.quarantined, result.left_out, result.anonymous)
    return ask(made, FACTS), [(line, why) for _, line, why in quarantined(made)], counts


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_rows_are_the_same_facts(tmp_path, suffix):
    found, bad, counts = facts(tmp_path / "one", suffix)
    expected, *_ = facts(tmp_path / "csv", ".csv")
    assert found == expected
    assert counts == (5, 1, 1, 3)
    assert [why for _, why in bad] == ["amount (price * units): expected DECIMAL(18,4), got nothing"]
    assert len(found) == 5
    assert {row[-1] for row in found} == {'two\nlines, "é"', None, "007", "x"}
