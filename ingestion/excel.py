"""How is a sheet of an Excel workbook read? Every cell as the text that a careful CSV export would have.

A whole number is written without a fraction, a time as ISO, a truth as true or false; an empty cell, and one that shows
an error such as #N/A, is NULL. A sheet is read by itself, so that memory holds one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum

from foretell.errors import DataError

SUFFIX = ".xlsx"
_ROWS_AT_ONCE = 20_000


class EmptySheet(DataError):
    """A sheet without a single cell: Excel adds such sheets by itself."""


def sheets(file: Path) -> list[str]:
    """The names of a workbook's sheets that hold cells rather than a chart or a macro, in its order."""
    with _open(file) as workbook:
        return [sheet.name for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]


def read(file: Path, sheet: str) -> tuple[list[str], pa.RecordBatchReader]:
    """The header of a sheet (its first row with cells), and its rows: `_row`, their number in Excel, and the columns.

    Rows without any value are passed over, like the blank lines of a CSV file.
    """
    with _open(file) as workbook:
        try:
            cells = workbook.get_sheet_by_name(sheet)
        except CalamineError as error:
            raise _unreadable(file, error) from None
    if cells.start is None:
        raise EmptySheet(f"{file}#{sheet}", "expected a header and rows, got an empty sheet", "export it again")
    rows = islice(enumerate(cells.iter_rows(), 1), cells.start[0], None)
    _, first = next(rows)
    header = [(_text(name) or "").strip() or f"column_{n}" for n, name in enumerate(first, cells.start[1] + 1)]
    schema = pa.schema([("_row", pa.int64()), *((name, pa.string()) for name in header)])
    return header, pa.RecordBatchReader.from_batches(schema, _batches(rows, schema))


def _batches(rows: Iterator[tuple[int, list[Any]]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        some = [(n, row) for n, row in some if any(cell != "" for cell in row)]
        texts = [pa.array([_text(row[i]) for _, row in some], pa.string()) for i in range(len(schema) - 1)]
        yield pa.record_batch([pa.array([n for n, _ in some], pa.int64()), *texts], schema=schema)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)


def _open(file: Path) -> CalamineWorkbook:
    try:
        return CalamineWorkbook.from_path(file)
    except (CalamineError, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> DataError:
    if isinstance(error, PasswordError):
        return DataError(str(file), "cannot be read: it is locked with a password", "save it without one")
    problem = f"cannot be read: {str(error).splitlines()[0]}"
    return DataError(str(file), problem, "is the file whole, and of the kind it says?")
