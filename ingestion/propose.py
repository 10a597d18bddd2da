"""How does a company's file become a source contract? By a proposal, tried on the file's own rows.

It is a start to be read and mended, not magic: what is a guess is marked `# check:` in the file.
"""

from __future__ import annotations

import json
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from foretell.connectors import Connector
from foretell.declarations import RESERVED, Source
from foretell.errors import DataError
from ingestion.contract import plan
from ingestion.draft import Draft
from ingestion.excel import EmptySheet
from ingestion.files import SUFFIXES, Raw, read, sheets_of
from ingestion.load import stamp
from ingestion.understand import Column, understand

MOST_ROWS = 200_000  # enough to tell 1 December from 12 January, and to answer at once
_VALUES = 3_000  # of which names and contents are judged


@dataclass
class Proposal:
    """A contract for a file. doubts: what to check, by the argument (or its key) that it is about.

    understood: (column, sample values, understood as, why). good, bad, reasons: how the file's rows fare under it.
    """

    source: Source
    rows: int
    understood: list[tuple[str, str, str, str]]
    doubts: dict[str, str]
    notes: list[str]
    good: int = 0
    bad: int = 0
    anonymous: int = 0
    reasons: list[tuple[str, int]] = field(default_factory=list)


def propose(
    con: duckdb.DuckDBPyConnection, file: Path, *, name: str, files: str | Connector, kind: str | None = None,
    known: Iterable[Source] = (), taken: Iterable[str] = (),
) -> Proposal:  # fmt: skip
    """Read the first rows of a file, propose a contract, and try it on them.

    known: the project's other sources, whose identifier types, time zone and currency are taken up. taken: names that
    no trait may have, because something else is called so.
    """
    con.execute("SET TimeZone='UTC'")
    raw, notes = _first_sheet(con, file)
    rows = int(con.execute("SELECT count(*) FROM raw").fetchall()[0][0])
    if not rows:
        raise DataError(str(file), "expected rows, got none", "export it again")
    columns = _columns(con, raw)
    for column in columns:
        understand(column, con)
    draft = Draft(columns, list(known), set(taken))
    source = draft.source(file, name, files, kind)
    made = Proposal(source, rows, draft.table(), draft.doubts, notes + draft.notes)
    _try(con, made, raw, file)
    return made


def _first_sheet(con: duckdb.DuckDBPyConnection, file: Path) -> tuple[Raw, list[str]]:
    sheets = sheets_of(file)
    for n, sheet in enumerate(sheets):
        try:
            raw = read(con, file, sheet, most=MOST_ROWS)
        except EmptySheet:
            continue
        others = f", {len(sheets) - 1} more should look like it" if len(sheets) > n + 1 else ""
        return raw, [f"Read from the sheet {sheet!r}{others}."] if sheet else []
    raise DataError(str(file), "expected a header and rows, got an empty file", "export it again")


def _columns(con: duckdb.DuckDBPyConnection, raw: Raw) -> list[Column]:
    """The file's columns, or the paths that its JSON rows have, with values from all over the rows read."""
    rows = con.execute(f"SELECT _payload FROM raw USING SAMPLE reservoir({_VALUES} ROWS) REPEATABLE (1)").fetchall()
    packed = [json.loads(text) for (text,) in rows]
    values: dict[tuple[str, ...], list[str]] = {(name,): [] for name in raw.columns or ()}
    for row in packed:
        for path, value in _leaves(row) if raw.columns is None else (((k,), v) for k, v in row.items()):
            found = values.setdefault(path, [])
            if value is not None and (text := _text(value)).strip():
                found.append(text)
    times = [name for name, kind in (raw.columns or {}).items() if kind.startswith(("TIMESTAMP", "DATE"))]
    return [Column(".".join(path), _spelt(path), some, len(packed), path[0] in times) for path, some in values.items()]


def _leaves(row: dict, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    found = []
    for key, value in row.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _spelt(path: tuple[str, ...]) -> str:
    """A column as SQL: quoted only where it must be."""
    text = ".".join(path)
    try:
        tree = sqlglot.parse_one(f"{text} + 1", dialect="duckdb").this
        plain = isinstance(tree, exp.Column) and [p.name for p in tree.parts] == list(path)
    except SqlglotError:
        plain = False
    quoted = [part.replace('"', '""') for part in path]
    return text if plain and "$" not in text else ".".join(f'"{escaped}"' for escaped in quoted)


def _try(con: duckdb.DuckDBPyConnection, made: Proposal, raw: Raw, file: Path) -> None:
    """Apply the contract to the rows read, by the very code that loads."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    stamp(con, plan(made.source, raw, file=file.name, batch=0, received_at=now), made.source, file.name)
    ((made.good, made.anonymous),) = con.execute(
        "SELECT count(*), count(*) FILTER (node IS NULL) FROM stamped WHERE _reason IS NULL"
    ).fetchall()
    reasons = Counter(why for _, _, why in raw.unreadable)
    for (why,) in con.execute("SELECT _reason FROM stamped WHERE _reason IS NOT NULL ORDER BY _row").fetchall():
        reasons[why] += 1
    made.bad, made.reasons = sum(reasons.values()), reasons.most_common(3)


def name_of(file: Path) -> str:
    """A source's name from a file's: "till/2017-01.parquet" is till, "Orders 2024.xlsx" is orders."""
    for part in (_split(file)[0], file.resolve().parent.name, "source"):
        name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\d[\d_.-]*$", "", part.lower())).strip("_")
        if re.fullmatch(r"[a-z][a-z0-9_]*", name):
            return f"{name}_source" if name in RESERVED else name
    raise AssertionError("the last part is a name")


def files_of(file: Path, exports: Path | None, name: str) -> str:
    """The glob of the contract: the file's, with its numbers left open, if it lies in exports; else a folder's."""
    stem, suffix = _split(file)
    if exports and file.resolve().is_relative_to(exports.resolve()):
        inside = file.resolve().relative_to(exports.resolve())
        return str(inside.with_name(re.sub(r"\d[\d_.-]*", "*", stem) + suffix))
    return f"{name}/*{suffix.lower()}"


def _split(file: Path) -> tuple[str, str]:
    """Stem and suffix, which may be two: (orders, .csv.gz)."""
    suffix = max((s for s in SUFFIXES if file.name.lower().endswith(s)), key=len, default=file.suffix)
    at = len(file.name) - len(suffix)
    return file.name[:at], file.name[at:]


def text_of(made: Proposal, file: Path) -> str:
    """The contract as a file of the project's sources folder."""
    source = made.source
    what = "Records" if source.kind == "records" else "Events"
    variable = f"{source.name}_" if keyword.iskeyword(source.name) else source.name
    lines = [
        f'"""{what} of {source.name}, as proposed from {_origin(source, file)}; what says `check` is a guess."""',
        *(
            "",
            f"from foretell import {'SQL, ' if source.connector else ''}Source",
            "",
            f"{variable} = Source(",
            f"    name={_literal(source.name)},",
        ),
    ]

    def say(argument: str, value: object, default: object = None) -> None:
        if value == default or (isinstance(value, Mapping) and not value):
            return
        if not isinstance(value, Mapping):
            lines.append(f"    {argument}={_literal(str(value))},{_check(made.doubts.get(argument))}")
            return
        lines.append(f"    {argument}={{")
        lines.extend(f"        {_literal(k)}: {_literal(v)},{_check(made.doubts.get(k))}" for k, v in value.items())
        lines.append("    },")

    if source.connector:
        said = ", ".join(
            f"{key}={_literal(value)}" for key, value in vars(source.connector).items() if _is_said(key, value)
        )
        lines.append(f"    connector=SQL({said}),{_check(made.doubts.get('connector'))}")
    say("files", source.files)
    if source.key:
        say("key", source.key)
    say("kind", source.kind, "events")
    say("role", source.role, "person" if source.kind == "records" else None)
    say("event_at", source.event_at)
    say("timezone", source.timezone, None if source.event_at else source.timezone)
    say("currency", source.currency if source.role == "order_line" else None)
    say("identifiers", source.identifiers)
    say("columns", source.columns)
    say("traits", source.traits)
    return "\n".join([*lines, ")", ""])


def _origin(source: Source, file: Path) -> str:
    return source.connector.shown if source.connector else file.name


def _is_said(argument: str, value: object) -> bool:
    return isinstance(value, str) and argument in {"url", "table", "query", "watermark"}


def _check(doubt: str | None) -> str:
    return f"  # check: {doubt}" if doubt else ""


def _literal(text: str) -> str:
    """A string as a formatter would write it: in double quotes unless that takes more backslashes."""
    mark = "'" if text.count('"') > text.count("'") else '"'
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark).replace("\n", "\\n") + mark
