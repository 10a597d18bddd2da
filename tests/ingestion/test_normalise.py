"""Normal forms of identifiers: the SQL against a plain reading of the same rules in Python."""

from __future__ import annotations

import re
import unicodedata

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestion.normalise import identifier

PLACEHOLDERS = {"null", "none", "nan", "n/a", "na", "-", "--", "-1", "unknown", "anonymous", "undefined", "test", "?"}
NOBODY = re.compile(r"(unknown|anonymous|none|null|na|n/a|test|no[-_.]?(reply|e?mail)|nobody|email|not[-_.]?given)@")
SPACE = " \t\n\r\f\v"
BLANKS = "".join(
    c for c in map(chr, range(0x3001)) if unicodedata.category(c) == "Zs"
)  # what DuckDB's trim() takes off

CON = duckdb.connect()
KINDS = ["email", "phone", "loyalty_card", "customer_no"]


def by_sql(kind: str, values: list[str | None]) -> list[str | None]:
    query = f"SELECT {identifier(kind, 'v')} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
    return [value for (value,) in CON.execute(query, [values]).fetchall()]


def by_hand(kind: str, raw: str | None) -> str | None:
    if raw is None:
        return None
    text = raw.strip(BLANKS)
    value = text
    if kind == "email":
        value = text.lower()
        local, _, domain = value.partition("@")
        before, _, last = domain.rpartition(".")
        if not (local and before and last) or "@" in domain or any(c in SPACE for c in value) or NOBODY.match(value):
            return None
    elif kind == "phone":
        digits = "".join(c for c in text if c in "0123456789")
        if not 7 <= len(digits) <= 15:
            return None
        value = re.sub(r"\A(001|1)([2-9][0-9]{9})\Z", r"\2", digits)
    elif kind.endswith("card"):
        value = "".join(c for c in text if c.isascii() and c.isalnum()).upper()
    if text.lower() in PLACEHOLDERS or set(value) <= {"0"}:
        return None
    return value


def text(alphabet: str, longest: int = 18) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from(alphabet), max_size=longest)


VALUES = {
    "email": text("aB.@ -_1é", 12) | st.builds("{}@{}.{}".format, text("aN/-_.o", 5), text("bC-.", 4), text("dE.", 3)),
    "phone": text("0123456789+-() x", 20) | st.from_regex(r"(\+|00)?1?[2-9][0-9]{9}", fullmatch=True),
    "loyalty_card": text("0aZ9- ./_é"),
    "customer_no": text("0aZ9- .") | st.sampled_from(sorted(PLACEHOLDERS)) | st.text(max_size=8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sql_against_a_plain_reading(kind):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(VALUES[kind] | st.none(), max_size=40))
    @example(["", " ", "0", "000", "-", "-1", "N/A", "unknown", "a@b.c", "no-reply@b.c", "+1 (212) 555-0100"])
    def same(values: list[str | None]) -> None:
        values = [v if v is None else v.replace("\0", "") for v in values]
        assert by_sql(kind, values) == [by_hand(kind, v) for v in values]

    same()


@pytest.mark.parametrize(
    ("kind", "spellings", "form"),
    [
        ("email", ["Ann@Example.ORG", " ann@example.org  "], "ann@example.org"),
        ("phone", ["+1 212 555 0100", "(212) 555-0100", "001-212-555-0100", "12125550100"], "2125550100"),
        ("phone", ["+47 22 33 44 55", "4722334455"], "4722334455"),
        ("loyalty_card", ["ab-12 34", "AB1234", "ab.1234"], "AB1234"),
        ("customer_no", ["  C-17", "C-17"], "C-17"),
    ],
)
def test_spellings_of_one_identifier(kind, spellings, form):
    assert by_sql(kind, spellings) == [form] * len(spellings)


@pytest.mark.parametrize("kind", KINDS)
def test_placeholders_are_no_identifiers(kind):
    values = [None, "", "   ", "0", "0000000", *PLACEHOLDERS, *(p.upper() for p in PLACEHOLDERS)]
    assert by_sql(kind, values) == [None] * len(values)


def test_addresses_of_nobody():
    values = ["unknown@shop.com", "No-Reply@shop.com", "noemail@x.org", "test@test.com", "a@b", "a b@c.de", "a@b@c.de"]
    assert by_sql("email", values) == [None] * len(values)
    assert by_sql("email", ["contest@x.org", "nadia@x.org"]) == ["contest@x.org", "nadia@x.org"]
