"""What does a column seem to mean? Judged by its name and by its values, both of which must agree.

Names are read in English and German, however they are spelt ("CustomerID", "customer_id", "Kundennummer"). A meaning is
the name of a role's column, an identifier type, a trait, or "time", "price", "event kind".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from lake.engine import quote

NUMBERED = r"(?:_?(?:id|no|nr|num|number|nummer|code|key|ref))"
_PEOPLE = "customer|client|user|member|account|person|household|subscriber|buyer|shopper|guest|contact|kunden?|konto"
_ORDERS = "order|invoice|basket|receipt|transaction|trans|ticket|purchase|sale|bon|beleg|rechnungs?|auftrags?|bestell"
_PRODUCTS = "product|sku|item|stock|article|artikel|produkt|ean|upc|gtin|asin|isbn|plu"

# meaning -> what a name says; the first that name and values agree on is taken
NAMES: dict[str, str] = {
    "email": r"(^|_)(e_?mail|mail)(_?(address|adresse))?$",
    "phone": r"(^|_)(tele)?(phone|fon)|(^|_)(tel|mobile|cell|handy|msisdn)(_|$)",
    "loyalty_card": r"(^|_)(card|karten?|loyalty)(_|$)|kartennummer",
    "device": r"(^|_)(device|cookie|visitor|anonymous|browser|idfa|gaid|fingerprint)(_|$)",
    "birth_date": r"(^|_)(birth|dob|born|geburts)|birthday|birthdate",
    "first_name": r"(^|_)(first|given|fore)_?name$|^vorname$",
    "last_name": r"(^|_)(last|family|sur)_?name$|^nachname$",
    "full_name": r"^(full_?|customer_|contact_)?name$",
    "street": r"(^|_)(street|address|addr|strasse|straße)(_name|_line)?(_?1)?$",
    "city": r"(^|_)(city|town|suburb|ort|stadt)$",
    "postcode": r"(^|_)(post_?code|postal_?code|zip|zip_?code|plz)$",
    "country": r"(^|_)(country|land)(_code)?$",
    "gender": r"(^|_)(gender|sex|geschlecht)$",
    "language": r"(^|_)(language|lang|locale|sprache)$",
    "opt_in": r"(^|_)(opt_?in|consent|subscribed|einwilligung)$",
    "discount": r"(^|_)(discount|disc|rabatt|rebate|nachlass|markdown)(_|$)",
    "coupon_id": rf"(^|_)(coupon|voucher|gutschein)(_(id|code|no|upc))?{NUMBERED}?$",
    "campaign_id": rf"(^|_)(campaign|kampagne){NUMBERED}?$",
    "customer": rf"(^|_)({_PEOPLE}){NUMBERED}?$",
    "order_id": rf"(^|_)({_ORDERS}){NUMBERED}?$",
    "product_id": rf"(^|_)({_PRODUCTS}){NUMBERED}?$",
    "category": r"(^|_)(category|department|product_group|warengruppe|kategorie|abteilung)$",
    "brand": r"(^|_)(brand|marke|manufacturer|hersteller)$",
    "quantity": r"(^|_)(quantity|qty|units?|menge|anzahl|pieces|pcs)$",
    "amount": r"(^|_)(amount|total|revenue|sales|value|betrag|umsatz|summe|spend|paid|turnover)(_|$)",
    "price": r"(^|_)(price|unitprice|preis|einzelpreis|stückpreis)$",
    "cancelled": r"(^|_)(cancel|return|refund|storno|void)",
    "channel": r"(^|_)(channel|medium|kanal)$",
    "kind": r"(^|_)(type|kind|event|action|status)$",
}
IDENTIFIERS = ("customer", "loyalty_card", "email", "phone", "device")  # the strongest first
TRAITS = ("first_name", "last_name", "full_name", "street", "city", "postcode", "country", "birth_date", "gender",
          "language", "opt_in")  # fmt: skip

_TIME_NAME = r"(^|_)(at|on|time|timestamp|date|datetime|datum|zeit|ts|when|day|tag)(_|$)|date$|time$|datum$"
_HAPPENED = (
    r"order|sold|sale|invoice|bought|purchase|created|sent|event|registered|subscribed|signup|joined|rechnung|bestell"
)
_LATER = r"updated|modified|loaded|exported|shipped|delivered|expire|due|paid"


@dataclass
class Column:
    """A column of a file: how a contract writes it, some of its values as text, and what it seems to mean."""

    name: str
    sql: str
    values: list[str]
    rows: int
    typed_time: bool = False
    meaning: str = ""
    why: str = ""
    time: str = ""  # SQL for the instant, if it is one
    doubts: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The name in one spelling: "CustomerID" and "customer-id" are customer_id."""
        return "_".join(re.findall(r"[A-ZÄÖÜ]?[a-zäöüß]+|[A-ZÄÖÜ]+(?![a-zäöüß])|\d+", self.name)).lower()

    def share(self, test: Callable[[str], object]) -> float:
        """How many of the filled values pass."""
        return sum(1 for v in self.values if test(v)) / len(self.values) if self.values else 0.0

    @property
    def distinct(self) -> int:
        return len(set(self.values))


def _matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


is_email = _matches(r"\s*[^@\s]+@[^@\s]+\.[^@\s.]+\s*")
is_number = _matches(r"\s*-?\d+(\.\d+)?([eE][-+]?\d+)?\s*")
is_whole = _matches(r"\s*-?\d+(\.0+)?\s*")
# 1.234,50 and £9.90 are numbers too, but have to be told so
is_money = _matches(r"\s*[^\w\s-]{0,2}\s*-?\s*[^\w\s-]{0,2}\s*\d[\d.,' ]*\s*([^\w\s]|[A-Z]{3})?\s*")
_comma = _matches(r"[^\d]*\d{1,3}([.' ]?\d{3})*,\d{1,2}[^\d]*|[^\d,]*\d+,\d+[^\d,]*")
_GROUPED = r"^\s*[+(]|\d[ ./-]\d+[ ./-]\d"  # phone numbers are, and other long numbers seldom
_PHONE = _matches(r"\s*[+(\d][\d\s().+/-]{5,}(\s*(x|ext)\.?\s*\d+)?\s*")
_DEVICE = _matches(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}|[0-9a-f]{16,}")


def is_phone(text: str) -> bool:
    return bool(_PHONE(text)) and 7 <= sum(c.isdigit() for c in text) <= 15


def _is_code(column: Column) -> bool:
    """Values that tell things apart: short, without blanks within, and more than a few unless named a number."""
    short = column.share(lambda v: len(v) <= 64 and " " not in v.strip()) >= 0.9
    return short and column.distinct > (
        1 if re.search(f"{NUMBERED}$", column.said) else min(9, len(column.values) // 2)
    )


def _is_amount(column: Column) -> bool:
    return column.share(is_number) >= 0.9 or column.share(is_money) >= 0.9


FITS: dict[str, Callable[[Column], bool]] = {
    "email": lambda c: c.share(is_email) >= 0.6,
    "phone": lambda c: c.share(is_phone) >= 0.6,
    "loyalty_card": lambda c: c.share(lambda v: sum(x.isdigit() for x in v) >= 4) >= 0.8,
    "device": _is_code,
    "customer": lambda c: _is_code(c) and c.share(is_email) < 0.1,
    "order_id": lambda c: _is_code(c) and c.share(lambda v: is_number(v) and not is_whole(v)) < 0.05,
    "product_id": lambda c: c.distinct > 1 and c.share(lambda v: len(v) <= 64) >= 0.9,
    "coupon_id": _is_code,
    "campaign_id": lambda c: c.share(lambda v: len(v) <= 64) >= 0.9,
    "cancelled": lambda c: {v.strip().lower() for v in c.values} <= {*_TRUE, *_FALSE} and c.distinct > 0,
    "opt_in": lambda c: c.distinct <= 5,
    "kind": lambda c: 0 < c.distinct <= 50,
    "channel": lambda c: 0 < c.distinct <= 50,
    "birth_date": lambda c: c.share(lambda v: any(x.isdigit() for x in v)) >= 0.9,
    **dict.fromkeys(("quantity", "amount", "price", "discount"), _is_amount),
}
_TRUE, _FALSE = ("true", "t", "1", "yes", "y", "ja", "j"), ("false", "f", "0", "no", "n", "nein")


def understand(column: Column, con: duckdb.DuckDBPyConnection) -> None:
    """Fill in what a column means and why it is thought so; nothing if neither name nor values tell."""
    if not column.values:
        return
    named = [meaning for meaning, pattern in NAMES.items() if re.search(pattern, column.said)]
    if "birth_date" not in named and (found := _time_of(column, con)):
        column.meaning, (column.time, column.why) = "time", found
        return
    for meaning in named:
        if FITS.get(meaning, lambda _: True)(column):
            column.meaning, column.why = meaning, "its name" if meaning not in FITS else "its name and its values"
            return
    if column.share(is_email) >= 0.8:
        column.meaning, column.why = "email", "its values are e-mail addresses"
    elif column.share(lambda v: is_phone(v) and sum(map(str.isdigit, v)) >= 10 and re.search(_GROUPED, v)) >= 0.8:
        column.meaning, column.why = "phone", "its values look like phone numbers"
    elif column.share(_DEVICE) >= 0.9 and not re.search(rf"{_ORDERS}|event|session|message|row|line", column.said):
        column.meaning, column.why = "device", "its values are long random codes"
    if column.meaning:
        column.doubts.append(f"{column.why}; its name does not say so")


def time_rank(column: Column) -> tuple[int, int]:
    """How likely a time is the one at which the fact happened; higher is likelier."""
    said = column.said
    hints = 2 * bool(re.search(_HAPPENED, said)) + bool(re.search(_TIME_NAME, said)) - 4 * bool(re.search(_LATER, said))
    return hints, sum(len(v) > 10 for v in column.values[:50])  # a time of day beats a day


# Orders of day, month and year that are not ISO's, with what stands between them.
_DATES = [
    *(f"%{a}{s}%{b}{s}%{y}" for s in "/.-" for a, b in ("dm", "md") for y in "Yy"),
    *("%Y%m%d", "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y"),
]  # fmt: skip
_CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", "T%H:%M:%S"]


def _time_of(column: Column, con: duckdb.DuckDBPyConnection) -> tuple[str, str] | None:
    """(SQL for the instant, why) if nine in ten of the values are times, else None."""
    if column.typed_time:
        return column.sql, "its type is a time"
    said_so = bool(re.search(_TIME_NAME, column.said))
    values = sorted(v.strip() for v in column.values)
    if column.share(is_number) >= 0.9:
        return _time_in_numbers(column, con, values) if said_so else None
    con.execute("CREATE OR REPLACE TEMP TABLE times AS SELECT unnest(?::VARCHAR[]) AS v", [values])
    iso = _count(con, "regexp_matches(v, '^[0-9]{4}') AND try_cast(v AS TIMESTAMPTZ) IS NOT NULL")
    if iso >= 0.9 * len(values):
        return column.sql, "its values are times"
    if column.share(lambda v: any(c.isdigit() for c in v) and len(v) <= 32) < 0.9:
        return None
    best: dict[str, float] = {form: _reads(con, form) for form in (d + c for d in _DATES for c in _CLOCKS)}
    most = max(best.values())
    if most < 0.9 * len(values):
        return None
    forms = [form for form in best if best[form] == most]
    form = min(forms, key=lambda f: (_span(con, f), forms.index(f)))
    example = next(v for v in values if _parse(con, form, v))
    why = f'its values are times, "{example}" is {_parse(con, form, example):%-d %B %Y}'
    swapped = [f for f in forms if f != form and {"%d", "%m"} <= {f[:2], form[:2]}]
    if swapped:
        other = _parse(con, swapped[0], example)
        column.doubts.append(
            f'"{example}" is read as {_parse(con, form, example):%-d %B %Y}, and might be {other:%-d %B %Y}: no value '
            "tells days from months"
        )
    return f"try_strptime({column.sql}, '{form}')", why


def _time_in_numbers(column: Column, con: duckdb.DuckDBPyConnection, values: list[str]) -> tuple[str, str] | None:
    numbers = [float(v) for v in values if is_number(v)]
    this_century = (946684800, 4102444800)
    for unit, factor in (("seconds", 1), ("milliseconds", 1000)):
        if all(this_century[0] <= n / factor <= this_century[1] for n in numbers):
            divided = f"TRY_CAST({column.sql} AS DOUBLE)" + (f" / {factor}" if factor > 1 else "")
            return f"to_timestamp({divided})", f"its values are {unit} since 1970"
    con.execute("CREATE OR REPLACE TEMP TABLE times AS SELECT unnest(?::VARCHAR[]) AS v", [values])
    if all(len(v) == 8 for v in values) and _reads(con, "%Y%m%d") == len(values):
        return f"try_strptime({column.sql}::VARCHAR, '%Y%m%d')", "its values are days, as year, month, day"
    return None


def _count(con: duckdb.DuckDBPyConnection, condition: str) -> int:
    return int(con.execute(f"SELECT count(*) FILTER ({condition}) FROM times").fetchall()[0][0])


def _reads(con: duckdb.DuckDBPyConnection, form: str) -> int:
    # two digits of a year would be read as the year 24
    return _count(con, f"year(try_strptime(v, '{quote(form)}')) > 1900")


def _span(con: duckdb.DuckDBPyConnection, form: str) -> float:
    """Days between the first and the last; 12/1 to 12/9 are rather nine days of December than of nine months."""
    query = f"SELECT epoch(max(t)) - epoch(min(t)) FROM (SELECT try_strptime(v, '{quote(form)}') AS t FROM times)"
    return float(con.execute(query).fetchall()[0][0])


def _parse(con: duckdb.DuckDBPyConnection, form: str, text: str) -> datetime:
    return con.execute(f"SELECT try_strptime(?, '{quote(form)}')", [text]).fetchall()[0][0]


def number(column: Column) -> str:
    """SQL for a column's number where its text needs help: a decimal comma, a currency sign; else the column."""
    if column.share(is_number) >= 0.9:
        return column.sql
    bare = (
        f"regexp_replace({column.sql}, '[^0-9,.-]', '', 'g')"
        if column.share(_matches(r"[\d.,\s-]+")) < 1
        else column.sql
    )
    if column.share(_comma) >= 0.5:
        bare = f"replace(replace({bare}, '.', ''), ',', '.')"
    else:
        bare = f"replace({bare}, ',', '')"
    return f"TRY_CAST({bare} AS DOUBLE)"
