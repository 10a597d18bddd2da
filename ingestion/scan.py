"""Is a text file fit to be read? Lines that are too long to be rows are taken out; what is no UTF-8 text is refused.

The engine passes over a line that is longer than its buffer without a word, and hangs on a quoted value that is. So
every file is looked through once, in blocks, at the speed of counting line ends.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import os
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from foretell.errors import DataError

LONGEST_LINE = 10_000_000
SHOWN = 10_000  # characters kept of a line that is no row
_BLOCK = 4_000_000  # three blocks without the end of a row are more than the longest line, and less than any buffer
_ENDLESS = 3
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


@dataclass
class Fit:
    """A file that can be read. taken_out: (line, first characters, reason) of lines that were too long for a row."""

    file: Path
    taken_out: list[tuple[int, str, str]] = field(default_factory=list)

    def line_of(self, n: int) -> int:
        """The line in the file as it came of the n-th line of the one that is read."""
        return n + bisect_right([line - k for k, (line, *_) in enumerate(self.taken_out)], n)


@contextmanager
def fit(file: Path, *, quotes: bool) -> Iterator[Fit]:
    """The file itself, or a copy without the lines that are too long, which is there until the end of the block.

    quotes: it is CSV, where a quoted value may go over several lines.
    """
    _check_encoding(file)
    long = _long_lines(file) if _may_be_long(file) else []
    if not long:
        if quotes and _may_be_long(file):
            _check_quotes(file, file)
        yield Fit(file)
        return
    if quotes and long[0].number == 1:
        length = long[0].end - long[0].start
        problem = f"expected a header, got a first line of {length:,} bytes"
        raise DataError(str(file), problem, "is it a CSV file, with line ends?")
    folder = Path(tempfile.mkdtemp(prefix="foretell-"))
    try:
        copy = folder / file.name.removesuffix(".gz")
        taken = _copy(file, copy, long, quotes)
        if quotes:
            _check_quotes(copy, file)
        yield Fit(copy, taken)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_text(file: Path) -> IO[str]:
    """The file as text, decompressed; what is no UTF-8 becomes the replacement character."""
    opener = gzip.open if _is_packed(file) else open
    return cast(IO[str], opener(file, "rt", encoding="utf-8-sig", newline="", errors="replace"))


def _is_packed(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def _open(file: Path) -> IO[bytes]:
    return cast(IO[bytes], (gzip.open if _is_packed(file) else open)(file, "rb"))


def _may_be_long(file: Path) -> bool:
    return _is_packed(file) or os.path.getsize(file) > LONGEST_LINE


def _check_encoding(file: Path) -> None:
    with _open(file) as stream:
        start = stream.read(1000)
    if start.startswith(_UTF16) or start.count(0) > len(start) // 4:
        name = file.name
        raise DataError(
            str(file), "expected text in UTF-8, got UTF-16 or binary data",
            f"save it as UTF-8: `iconv -f UTF-16 -t UTF-8 {name} > new-{name}`",
        )  # fmt: skip


@dataclass
class _Line:
    """A long line: its number, and its bytes [start, end) with the line end."""

    number: int
    start: int
    end: int


def _long_lines(file: Path) -> list[_Line]:
    """The lines longer than the longest that can be a row."""
    found: list[_Line] = []
    start, number, at = 0, 1, 0  # where the line that goes on begins, its number, where the block begins
    with _open(file) as stream:
        while block := stream.read(_BLOCK):
            if (first := block.find(b"\n")) >= 0:
                if at + first + 1 - start > LONGEST_LINE:
                    found.append(_Line(number, start, at + first + 1))
                number += block.count(b"\n")
                start = at + block.rfind(b"\n") + 1
            at += len(block)
    if at - start > LONGEST_LINE:
        found.append(_Line(number, start, at))
    return found


def _copy(file: Path, copy: Path, long: list[_Line], quotes: bool) -> list[tuple[int, str, str]]:
    """Write the file without these lines; returns what is told of them."""
    taken = []
    with _open(file) as stream, copy.open("wb") as out:
        at = 0
        for line in long:
            length = line.end - line.start
            _pass(stream, line.start - at, out)
            start = stream.read(SHOWN)
            open_quotes = start.count(b'"') + _pass(stream, length - len(start), None)
            if quotes and open_quotes % 2:
                problem = f"line {line.number:,} has {length:,} bytes, and a quote that goes on beyond it"
                raise DataError(str(file), problem, "mend that line; nothing of the file was loaded")
            why = f"expected a line of at most {LONGEST_LINE:,} bytes, got {length:,}; this is how it begins"
            taken.append((line.number, start.decode("utf-8", "replace"), why))
            at = line.end
        shutil.copyfileobj(stream, out, _BLOCK)
    return taken


def _pass(stream: IO[bytes], count: int, out: IO[bytes] | None) -> int:
    """Read on by so many bytes, and copy them. Returns how many quotes there are among them."""
    quotes = 0
    while count > 0 and (block := stream.read(min(_BLOCK, count))):
        count -= len(block)
        quotes += block.count(b'"')
        if out:
            out.write(block)
    return quotes


def _check_quotes(file: Path, shown: Path) -> None:
    """Refuse a CSV file in which a quoted value goes on for longer than the longest row."""
    if not _seems_endless(file):
        return
    longest, line = csv.field_size_limit(LONGEST_LINE), 1
    try:
        with open_text(file) as lines:
            reader = csv.reader(lines)
            for _ in reader:
                line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            problem = f"a quoted value that begins on line {line:,} is longer than {LONGEST_LINE:,} characters"
            fix = "is its closing quote missing? Mend it there; nothing of the file was loaded"
            raise DataError(str(shown), problem, fix) from None
    finally:
        csv.field_size_limit(longest)


def _seems_endless(file: Path) -> bool:
    """Whether there are several blocks in which no row ends, if every quote opens or closes a value."""
    inside, endless = False, 0
    with _open(file) as stream:
        while block := stream.read(_BLOCK):
            endless = 0 if _has_end(block, inside) else endless + 1
            if endless >= _ENDLESS:
                return True
            inside ^= bool(block.count(b'"') % 2)
    return False


def _has_end(block: bytes, inside: bool) -> bool:
    """Whether a line ends outside of quotes in this block, which begins inside of them or not."""
    at = 0
    while at <= len(block):
        quote = block.find(b'"', at)
        end = len(block) if quote < 0 else quote
        if not inside and block.find(b"\n", at, end) >= 0:
            return True
        inside, at = not inside, end + 1
    return False
