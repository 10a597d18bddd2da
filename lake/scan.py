"""Is a text left anywhere below a folder? Every file is decoded, whatever its format, and searched.

Parquet: every value of every column, and the bytes with footer, statistics and metadata. JSON and the Delta log: every
text, with escapes and JSON within JSON resolved. SQLite: every value of every table, and all bytes, free pages and
write-ahead log among them. gzip, zip, npz and xlsx: what they pack. Everything else, pickles too: the bytes, in UTF-8,
UTF-16 and UTF-32, as NumPy keeps text. In a text a word is found where it stands by itself, not within a longer word or
number; upper and lower case are one.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

# Shorter texts stand in any file by chance.
SHORTEST = 5
# In binary data a text of as many bytes is no chance.
SURE = 8
LARGE, PIECE = 256_000_000, 64_000_000  # bytes
_JSON = (".json", ".jsonl", ".ndjson", ".draft")


@dataclass
class Searched:
    """hits: (file, place within it, the text as asked for). files: how many were searched. formats: format -> files;
    "bytes" are those of no known format. short: texts that are too short to be searched for."""

    hits: list[tuple[Path, str, str]] = field(default_factory=list)
    files: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)


def search(folders: Iterable[Path], texts: Iterable[str], skip: Iterable[Path] = ()) -> Searched:
    """Search every file below these folders (or these files) for any of the texts.

    skip: files, or folders, that are left out.
    """
    wanted = list(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    found = Searched(short=[text for text in wanted if len(text) < SHORTEST])
    words = Words([text for text in wanted if len(text) >= SHORTEST])
    left_out = set(skip)
    for folder in folders:
        for file in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if not file.is_file() or left_out.intersection([file, *file.parents]):
                continue
            found.files += 1
            kind, hits = _search_file(file, words)
            found.formats[kind] = found.formats.get(kind, 0) + 1
            found.hits += [(file, place, text) for place, text in dict.fromkeys(hits)]
    return found


class Words:
    """Finds any of some texts, where it stands by itself, in a text or in bytes."""

    def __init__(self, texts: list[str]):
        # as it is, and as SQL quotes it: the Delta log keeps statements
        self._by_lower = {form.lower(): text for text in texts for form in (text, text.replace("'", "''"))}
        words = "|".join(re.escape(form) for form in sorted(self._by_lower, key=len, reverse=True))
        self._text = re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])")
        forms = {
            form.encode(code, "surrogatepass").lower(): text
            for lower, text in self._by_lower.items()
            for form in (lower, text, text.upper(), text.title(), json.dumps(text)[1:-1])
            for code in ("utf-8", "utf-16-le", "utf-32-le")
        }
        # In binary data a value may be followed at once by another: a short one must stand by itself, a number must not
        # be part of a longer one.
        self._forms = {form: (text, re.compile(_apart(form))) for form, text in forms.items()}

    def in_text(self, text: str) -> set[str]:
        lower = text.lower()
        if not any(word in lower for word in self._by_lower):  # much faster than the pattern, which knows of words
            return set()
        return {self._by_lower[m[0]] for m in self._text.finditer(lower)}

    def in_bytes(self, data: bytes) -> set[str]:
        lower = data.lower()
        return {text for form, (text, apart) in self._forms.items() if form in lower and apart.search(lower)}


def _apart(form: bytes) -> bytes:
    if len(form) < SURE:
        before = after = b"[0-9a-z]"
    else:
        before, after = (b"[0-9]" if edge.isdigit() else b"" for edge in (form[:1], form[-1:]))
    return (b"(?<!" + before + b")" if before else b"") + re.escape(form) + (b"(?!" + after + b")" if after else b"")


def _search_file(file: Path, words: Words) -> tuple[str, list[tuple[str, str]]]:
    """(format, hits)."""
    hits = [("its name", text) for text in words.in_text(str(file.name))]
    if file.stat().st_size > LARGE:
        return _search_large(file, words, hits)
    data = file.read_bytes()
    kind, more = _decoded(data, file, words)
    if kind not in ("JSON", "text"):  # these were read whole
        hits += [("its bytes", text) for text in words.in_bytes(data)]
    return kind, hits + more


def _search_large(file: Path, words: Words, hits: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """Piece by piece: a file that does not fit in memory well. Its bytes, and the values if it is Parquet."""
    overlap = b""
    with file.open("rb") as stream:
        parquet = stream.read(4) == b"PAR1"
        stream.seek(0)
        while piece := stream.read(PIECE):
            hits += [("its bytes", text) for text in words.in_bytes(overlap + piece)]
            overlap = (overlap + piece)[-4096:]
    return ("Parquet", hits + _parquet(file, words)) if parquet else ("bytes", hits)


def _decoded(data: bytes, file: Path | None, words: Words) -> tuple[str, list[tuple[str, str]]]:
    name = file.name if file else ""
    if data[:4] == b"PAR1":
        return "Parquet", _parquet(data, words)
    if data[:16] == b"SQLite format 3\x00" and file is not None:
        return "SQLite", _sqlite(file, words)
    if data[:2] == b"\x1f\x8b":
        try:
            return "gzip", _inner("its content", gzip.decompress(data), words)
        except (OSError, EOFError, zlib.error):
            return "bytes", []
    if data[:4] == b"PK\x03\x04":
        found: list[tuple[str, str]] = []
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                for member in packed.namelist():
                    found += _inner(member, packed.read(member), words)
            return "zip", found
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
            return "bytes", found
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "picture", []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes", []
    if "\x00" in text:
        return "bytes", []
    if name.endswith(_JSON) or text[:1] in "{[":
        return "JSON", [("its texts", found) for found in _json(text, words)]
    return "text", [("its text", found) for found in words.in_text(text)]


def _inner(place: str, data: bytes, words: Words) -> list[tuple[str, str]]:
    kind, hits = _decoded(data, None, words)
    seen = words.in_bytes(data) if kind not in ("JSON", "text") else ()
    return [(place, text) for text in seen] + [(f"{place}: {where}", text) for where, text in hits]


def _json(text: str, words: Words) -> set[str]:
    found: set[str] = set()
    try:
        rows = [json.loads(text)]
    except ValueError:
        rows = []
        for line in text.splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                found |= words.in_text(line)
    for value in _texts(rows):
        found |= words.in_text(value)
    return found


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, and in the JSON that a text may hold, as the statistics of the Delta log do."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            try:
                yield from _texts(json.loads(value))
            except ValueError:
                return
    elif value is not None:
        yield str(value)


def _parquet(data: bytes | Path, words: Words) -> list[tuple[str, str]]:
    """Every value of every column, the parts of nested ones too; and the metadata of the footer."""
    import pyarrow.parquet as pq

    found: dict[tuple[str, str], None] = {}
    with pq.ParquetFile(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
        for key, value in (opened.metadata.metadata or {}).items():
            found |= {("the footer", text): None for text in words.in_bytes(key + b" " + value)}
        for part in opened.iter_batches(batch_size=65_536):
            for name, column in zip(part.schema.names, part.columns, strict=True):
                for values in _leaves(column):
                    found |= {(f"column {name}", text): None for text in words.in_text(values)}
    return list(found)


def _leaves(column: pa.Array) -> Iterator[str]:
    """The distinct values of a column, each part of a nested one by itself, as lines of text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_map(column.type):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif pa.types.is_struct(column.type):
        for child in column.flatten():
            yield from _leaves(child)
    elif pa.types.is_nested(column.type):
        yield from _leaves(column.flatten())
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        yield "\n".join(value.decode("utf-8", "replace") for value in column.unique().to_pylist() if value)
    elif not pa.types.is_null(column.type):
        yield "\n".join(filter(None, column.unique().cast(pa.string()).to_pylist()))


def _sqlite(file: Path, words: Words) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    con = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    con.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        names = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            seen: set[str] = set()
            for row in con.execute(f'SELECT * FROM "{name}"'):
                for value in row:
                    if isinstance(value, str):
                        seen |= words.in_text(value)
                        if value[:1] in ("{", "["):
                            seen |= _json(value, words)
                    elif isinstance(value, bytes):
                        seen |= words.in_bytes(value) | {text for _, text in _decoded(value, None, words)[1]}
            found += [(f"table {name}", text) for text in sorted(seen)]
    finally:
        con.close()
    return found
