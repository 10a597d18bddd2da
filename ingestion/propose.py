"""How does a company's file become a source contract? By a proposal, tried on the file's own rows.

It is a start to be read and mended, not magic: what is a guess is marked `# check:` in the file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from foretell.declarations import RESERVED, Source
from foretell.errors import DataError
from ingestion.contract import plan
from ingestion.excel import EmptySheet
from ingestion.files import Raw, read, sheets_of
from ingestion.understand import IDENTIFIERS, NUMBERED, TRAITS, Column, number, time_rank, understand

MOST_ROWS = 200_000  # enough to tell 1 December from 12 January, and to answer at once
_VALUES = 3_000
_FIELDS = {"redemption": ("coupon_id", "campaign_id", "kind"), "message": ("campaign_id", "channel", "kind")}


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
    con: duckdb.DuckDBPyConnection, file: Path, *, name: str, files: str, kind: str | None = None,
    known: Mapping[str, Source] | None = None,
) -> Proposal:  # fmt: skip
    """Read the first rows of a file, propose a contract, and try it on them.

    known: the project's other sources, whose identifier types, time zone and currency are taken up.
    """
    raw, notes = _first_sheet(con, file)
    rows = int(con.execute("SELECT count(*) FROM raw").fetchall()[0][0])
    if not rows:
        raise DataError(str(file), "expected rows, got none", "export it again")
    columns = _columns(con, raw)
    for column in columns:
        understand(column, con)
    draft = _Draft(columns, rows, list((known or {}).values()))
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
    rows = con.execute("SELECT _payload FROM raw USING SAMPLE reservoir(3000 ROWS) REPEATABLE (1)").fetchall()
    packed = [json.loads(text) for (text,) in rows]
    values: dict[tuple[str, ...], list[str]] = {(name,): [] for name in raw.columns or ()}
    for row in packed:
        for path, value in _leaves(row) if raw.columns is None else (((k,), v) for k, v in row.items()):
            found = values.setdefault(path, [])
            if value is not None and (text := _text(value)).strip():
                found.append(text)
    times = [name for name, kind in (raw.columns or {}).items() if kind.startswith(("TIMESTAMP", "DATE"))]
    return [
        Column(".".join(path), _spelt(path, bare=raw.columns is not None), some, len(packed), path[0] in times)
        for path, some in values.items()
    ]


def _leaves(row: dict, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    found = []
    for key, value in row.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _spelt(path: tuple[str, ...], *, bare: bool) -> str:
    """A column as SQL: quoted only where it must be."""
    text = ".".join(path)
    try:
        tree = sqlglot.parse_one(f"{text} + 1", dialect="duckdb").this
        plain = isinstance(tree, exp.Column) and [p.name for p in tree.parts] == list(path)
    except SqlglotError:
        plain = False
    return text if plain and "$" not in text else ".".join(f'"{part}"' for part in path)


class _Draft:
    """The columns of a file, and what is made of them."""

    def __init__(self, columns: list[Column], rows: int, known: list[Source]):
        self.columns, self.rows, self.known = columns, rows, known
        self.doubts: dict[str, str] = {}
        self.notes: list[str] = []
        self.used: dict[str, str] = {}  # column -> what the contract makes of it

    def find(self, meaning: str) -> Column | None:
        """The column of a meaning: the one called just that, else the first."""
        found = [c for c in self.columns if c.meaning == meaning]
        return min(found, key=lambda c: (c.said != meaning, self.columns.index(c)), default=None)

    def use(self, column: Column, as_what: str) -> str:
        self.used[column.name] = as_what
        return column.sql

    def source(self, file: Path, name: str, files: str, kind: str | None) -> Source:
        identifiers = self.identifiers(file)
        when = max((c for c in self.columns if c.meaning == "time"), key=time_rank, default=None)
        kind = kind or self.kind(when)
        if kind == "events" and not when:
            raise DataError(
                file.name, "events need a time, and no column reads as one",
                "pass --kind records if a row says who somebody is, or export when each row happened",
            )  # fmt: skip
        fields: dict = {"name": name, "files": files, "identifiers": identifiers}
        if kind == "records":
            fields["kind"] = "records"
        else:
            fields["role"], fields["columns"] = self.role()
        if when:
            self.use(when, "the time")
            fields["event_at"] = when.time
            if when.doubts:
                self.doubts["event_at"] = when.doubts[0]
        else:
            self.notes.append(
                "No column reads as a time, so these are records: who people are, not what they did. They count as "
                "known from the day they are loaded, and predictions need another file, of events."
            )
        if kind == "records":
            fields["traits"] = self.traits()
        elif not fields["columns"]:
            del fields["columns"]
        zone, currency = self.custom()
        if not when or not re.search(r"[Zz]$|[+-]\d\d(:?\d\d)?$", (when.values or [""])[0]):
            self.doubts["timezone"] = "the zone of these times, and the shop's"
        else:
            self.doubts["timezone"] = 'the shop\'s: it says what "a day" is'
        fields["timezone"] = zone
        if fields.get("role") == "order_line":
            fields["currency"] = currency
            self.doubts["currency"] = "the shop's"
        return Source(**fields)

    def custom(self) -> tuple[str, str]:
        """Time zone and currency: those that most of the project's sources have."""
        pairs = Counter((s.timezone, s.currency) for s in self.known)
        return pairs.most_common(1)[0][0] if pairs else ("UTC", "EUR")

    def kind(self, when: Column | None) -> str:
        """Records say who somebody is; events that something happened."""
        if not when:
            return "records"
        happens = {"amount", "price", "order_id", "product_id", "campaign_id", "coupon_id", "kind", "quantity"}
        meanings = {c.meaning for c in self.columns}
        return "records" if len(meanings & set(TRAITS)) >= 2 and len(meanings & happens) < 2 else "events"

    def identifiers(self, file: Path) -> dict[str, str]:
        found = {}
        for kind in IDENTIFIERS:
            if column := self.find(kind):
                called = self.called(kind)
                found[called] = self.use(column, f"the identifier {called}")
                if column.share(lambda v: re.fullmatch(r"\d+\.0", v)) > 0.5:
                    found[called] = f"regexp_replace({column.sql}::VARCHAR, '[.]0$', '')"
        if found:
            return found
        numbered = [
            c for c in self.columns if not c.meaning and re.search(rf"(^|_){NUMBERED}$", c.said) and c.distinct > 9
        ]
        if not numbered:
            raise DataError(
                file.name, f"no column says who a row is about: {', '.join(c.name for c in self.columns[:9])} …",
                "export it with a customer number, e-mail, phone, card or device, or write the contract by hand",
            )  # fmt: skip
        self.doubts["customer"] = "a guess: the first column with a number of its own"
        numbered[0].why = "a guess: its name ends like a number's"
        return {self.called("customer"): self.use(numbered[0], "the identifier customer")}

    def called(self, kind: str) -> str:
        """What the project's sources call this type of identifier, so that they link."""
        theirs = Counter(key for s in self.known for key in s.identifiers)
        if kind in theirs:
            return kind
        stem = kind.rsplit("_", 1)[-1]
        return next((key for key, _ in theirs.most_common() if stem in key.split("_")), kind)

    def role(self) -> tuple[str | None, dict[str, str]]:
        order, amount = self.find("order_id"), self.amount()
        if amount:
            columns = {"amount": amount}
            if order:
                columns = {"order_id": self.use(order, "order_id"), **columns}
            else:
                parts = [self.find(m) for m in (*IDENTIFIERS, "time")]
                who = next((c.sql for c in parts if c), self.columns[0].sql)
                when = max((c for c in self.columns if c.meaning == "time"), key=time_rank)
                columns = {"order_id": f"{who}::VARCHAR || ' ' || {when.sql}::VARCHAR", **columns}
                self.doubts["order_id"] = "no order number: what one has at one time counts as one order"
            if quantity := self.find("quantity"):
                columns["quantity"] = number(quantity)
                self.use(quantity, self.used.get(quantity.name, "quantity"))
                if not self.find("cancelled") and quantity.share(lambda v: v.lstrip().startswith("-")) > 0:
                    columns["cancelled"] = f"{number(quantity)} < 0"
                    self.doubts["cancelled"] = "lines with a negative quantity are taken for returns"
            if reductions := [c for c in self.columns if c.meaning == "discount"]:
                columns["discount"] = " + ".join(number(c) for c in reductions)
                for column in reductions:
                    self.use(column, "discount" if len(reductions) == 1 else "discount, a part of it")
            for meaning in ("product_id", "category", "brand", "cancelled"):
                if column := self.find(meaning):
                    columns[meaning] = self.use(column, meaning)
            return "order_line", columns
        role = "redemption" if self.find("coupon_id") else "message" if self.find("campaign_id") else None
        columns = {m: self.use(c, m) for m in _FIELDS.get(role or "", ()) if (c := self.find(m))}
        if role and "kind" not in columns:  # "campaign_type" is a kind too
            loose = (c for c in self.columns if c.said.endswith(("_type", "_kind")) and c.distinct <= 50)
            if column := next(loose, None):
                columns["kind"] = self.use(column, "kind")
        if not role:
            self.notes.append(
                "No role fits (order_line, message, redemption): its identifiers will link people, and a view of your "
                'own can read it by name, with the columns that you add in columns={"…": "…"}.'
            )
        return role, columns

    def amount(self) -> str | None:
        """What a line costs: a total, else quantity × unit price."""
        total, price, quantity = self.find("amount"), self.find("price"), self.find("quantity")
        if total:
            return number(total) if self.use(total, "amount") else None
        if price and quantity:
            self.use(quantity, "quantity; amount, times price")
            self.use(price, "amount, times quantity")
            return f"{number(quantity)} * {number(price)}"
        if price:
            self.doubts["amount"] = "taken for the price of the whole line"
            return number(price) if self.use(price, "amount") else None
        return None

    def traits(self) -> dict[str, str]:
        traits = {}
        for column in self.columns:
            if column.name in self.used or column.meaning in {"time", *IDENTIFIERS} or not column.values:
                continue
            name = column.meaning if column.meaning in TRAITS else column.said
            short = column.share(lambda v: len(v) <= 60) >= 0.9
            if short and re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in traits:
                traits[name] = self.use(column, f"the trait {name}")
        return traits

    def table(self) -> list[tuple[str, str, str, str]]:
        rows = []
        for c in self.columns:
            some = _short(", ".join(_short(v, 24) for v in dict.fromkeys(c.values[:40])), 48)
            used = self.used.get(c.name, "")
            why = c.why if used else "empty" if not c.values else f"another {c.meaning}" if c.meaning else ""
            rows.append((c.name, some, used or "kept in the row, not used", why))
        return rows


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _try(con: duckdb.DuckDBPyConnection, made: Proposal, raw: Raw, file: Path) -> None:
    """Apply the contract to the rows read, by the very code that loads."""
    stamped = plan(made.source, raw, file=file.name, batch=0, received_at=datetime.now(UTC).isoformat())
    con.execute(f"CREATE OR REPLACE TEMP TABLE stamped AS {stamped.sql}")
    ((made.good, made.anonymous),) = con.execute(
        "SELECT count(*), count(*) FILTER (node IS NULL) FROM stamped WHERE _reason IS NULL"
    ).fetchall()
    reasons = Counter(why for _, _, why in raw.unreadable)
    for (why,) in con.execute("SELECT _reason FROM stamped WHERE _reason IS NOT NULL ORDER BY _row").fetchall():
        reasons[why] += 1
    made.bad, made.reasons = sum(reasons.values()), reasons.most_common(3)


def name_of(file: Path) -> str:
    """A source's name from a file's: "till/2017-01.parquet" is till, "Orders 2024.xlsx" is orders."""
    for part in (file.name.split(".")[0], file.resolve().parent.name, "source"):
        name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\d[\d_.-]*$", "", part.lower())).strip("_")
        if re.fullmatch(r"[a-z][a-z0-9_]*", name):
            return f"{name}_source" if name in RESERVED else name
    raise AssertionError("the last part is a name")


def files_of(file: Path, exports: Path | None, name: str) -> str:
    """The glob of the contract: the file's, with its numbers left open, if it lies in exports; else a folder's."""
    suffix = file.name[len(file.name.split(".")[0]) :].lower()
    if exports and file.resolve().is_relative_to(exports.resolve()):
        inside = file.resolve().relative_to(exports.resolve())
        stem = re.sub(r"\d[\d_.-]*", "*", inside.name.split(".")[0])
        return str(inside.with_name(stem + file.name[len(file.name.split(".")[0]) :]))
    return f"{name}/*{suffix}"


def text_of(made: Proposal, file: Path) -> str:
    """The contract as a file of the project's sources folder."""
    source = made.source
    what = "Records" if source.kind == "records" else "Events"
    lines = [
        f'"""{what} of {source.name}, as proposed from {file.name}; what says `check` is a guess."""',
        "", "from foretell import Source", "", f"{source.name} = Source(", f"    name={_literal(source.name)},",
    ]  # fmt: skip

    def say(argument: str, value: object, default: object = None) -> None:
        if value == default or (isinstance(value, Mapping) and not value):
            return
        if not isinstance(value, Mapping):
            lines.append(f"    {argument}={_literal(str(value))},{_check(made.doubts.get(argument))}")
            return
        lines.append(f"    {argument}={{")
        lines.extend(f"        {_literal(k)}: {_literal(v)},{_check(made.doubts.get(k))}" for k, v in value.items())
        lines.append("    },")

    say("files", source.files)
    say("kind", source.kind, "events")
    say("role", source.role, "person" if source.kind == "records" else None)
    say("event_at", source.event_at)
    say("timezone", source.timezone)
    say("currency", source.currency if source.role == "order_line" else None)
    say("identifiers", source.identifiers)
    say("columns", source.columns)
    say("traits", source.traits)
    return "\n".join([*lines, ")", ""])


def _check(doubt: str | None) -> str:
    return f"  # check: {doubt}" if doubt else ""


def _literal(text: str) -> str:
    """A string as a formatter would write it: in double quotes unless that takes more backslashes."""
    mark = "'" if text.count('"') > text.count("'") else '"'
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark).replace("\n", "\\n") + mark
