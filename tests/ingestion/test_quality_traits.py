"""Normal forms of traits: what is mended, what is left as it came, and that a second time changes nothing."""

from __future__ import annotations

from datetime import date, timedelta

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_source import ask, loaded, project, write

from foretell import Source
from foretell.declarations import KINDS
from foretell.errors import UnknownName
from ingestion.traits import trait

CON = duckdb.connect()


def made(kind: str, values: list[str | None], country: str | None = None) -> list[str | None]:
    query = f"SELECT {trait(kind, 'v', country)} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
    return [form for (form,) in CON.execute(query, [values]).fetchall()]


FORMS = {
    "name": {
        "  Ann ": "Ann", "ann": "Ann", "ANN-MARIE": "Ann-Marie", "o'NEIL": "o'NEIL", "O'NEIL": "O'Neil",
        "mcdonald": "McDonald", "VAN DER BERG": "van der Berg", "van der Berg": "van der Berg", "Mary  Ann": "Mary Ann",
        "Dr. Anna": "Anna", "DR ANNA": "Anna", "Prof. Dr. Eva": "Eva", "Mr": "Mr", "Smith Jr.": "Smith Jr.",
        "ÅSE": "Åse", "j. r.": "J. R.", "Drew": "Drew", "MRSIC": "Mrsic", "": "", "DE LA CRUZ": "de la Cruz",
        "Ma\tLi": "Ma Li", "D’ARC": "D’Arc",
    },
    "full name": {
        "SMITH, JOHN": "John Smith", "Smith, John": "John Smith", "Smith, Jr.": "Smith, Jr.", "a, b, c": "A, B, C",
        "Dr. John Smith": "John Smith", "JOHN VAN DYKE": "John van Dyke", ",": ",",
    },
    "date": {
        "1985-12-31": "1985-12-31", "1985/12/31": "1985-12-31", "19851231": "1985-12-31", "31.12.1985": "1985-12-31",
        "12/31/1985": "1985-12-31", "31 Dec 1985": "1985-12-31", "December 31, 1985": "1985-12-31",
        "1985-12-31 10:00:00": "1985-12-31", "1985-12-31T00:00:00Z": "1985-12-31", "3/4/1985": "3/4/1985",
        "4/4/1985": "1985-04-04", "31/02/1985": "31/02/1985", "0000-00-00": "0000-00-00", "12/31/85": "12/31/85",
        "unknown": "unknown", "1985": "1985", "1985-12": "1985-12", "": "",
    },
    "date dmy": {"3/4/1985": "1985-04-03", "12/31/1985": "12/31/1985", "03.04.1985": "1985-04-03"},
    "date mdy": {"3/4/1985": "1985-03-04", "31/12/1985": "31/12/1985", "03-04-1985": "1985-03-04"},
    "address": {
        "12 Main St.": "12 Main Street", "12  Main st": "12 Main Street", "12 Main St NW": "12 Main Street NW",
        "12 Main Ave., Apt 4": "12 Main Avenue, Apt 4", "St James Rd": "St James Road", "St": "St",
        "1 St. John's Pl": "1 St. John's Place", "Hauptstr. 5": "Hauptstraße 5", "1912 Walnut Road": "1912 Walnut Road",
        "PO Box 7": "PO Box 7", "Dr. Street": "Dr. Street",
    },
    "city": {"NEW YORK": "New York", "new york": "New York", "Stratford-upon-Avon": "Stratford-upon-Avon"},
    "postcode": {"sw1a 1aa": "SW1A 1AA", " 00171": "00171", "171": "171"},
    "country": {"us": "US",
                "USA": "US", "United States": "US", "uk": "GB", "Deutschland": "DE", "Atlantis": "Atlantis"},
    "text": {" As it  came ": " As it  came "},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_forms(kind):
    values = FORMS[kind]
    found = dict(zip(values, made(kind, list(values)), strict=True))
    assert found == values
    assert made(kind, [None]) == [None]


@pytest.mark.parametrize(
    ("country", "value", "form"),
    [("GB", "sw1a1aa", "SW1A 1AA"), ("CA", "k1a0b1", "K1A 0B1"), ("NL", "1234ab", "1234 AB"), ("US", "171", "00171"),
     ("US", "12345-6789", "12345-6789"), ("DE", "01067", "01067")],
)  # fmt: skip
def test_postcodes_of_a_country(country, value, form):
    assert made("postcode", [value], country) == [form]


words = st.text(st.sampled_from("aBé ’'-.,1Mc\t"), max_size=14) | st.text(max_size=8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_is_its_own_form(kind):
    """However odd the value; and nothing but blanks, case, titles and abbreviations is ever lost."""

    @settings(max_examples=15, deadline=None)
    @given(st.lists(words, max_size=30))
    def same(values: list[str]) -> None:
        values = [v.replace("\0", "") for v in values]
        once = made(kind, list(values))
        if kind not in ("name", "full name", "address"):  # a title may come to stand in front by dropping another
            assert made(kind, list(once)) == once
        assert all(form or not v.strip() for v, form in zip(values, once, strict=True))

    same()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=30))
def test_every_order_of_a_date_is_read(days):
    dates = [date(1900, 1, 1) + timedelta(days=n) for n in days]
    iso = [d.isoformat() for d in dates]
    for kind, form in [
        ("date", "%Y/%m/%d"), ("date", "%d %b %Y"), ("date", "%B %d, %Y"), ("date dmy", "%d.%m.%Y"),
        ("date dmy", "%d/%m/%Y"), ("date mdy", "%m/%d/%Y"), ("date mdy", "%Y-%m-%d"),
    ]:  # fmt: skip
        assert made(kind, [d.strftime(form) for d in dates]) == iso, (kind, form)


def test_traits_of_a_source(tmp_path):
    fields = {"name": "crm", "files": "*.csv", "kind": "records", "identifiers": {"email": "email"},
              "traits": {"first_name": "first", "last_name": "last", "born": "born"}}  # fmt: skip
    source = Source(**fields, kinds={"born": "date dmy", "last_name": "text"})
    shop = project(tmp_path, source)
    write(shop, "a.csv", "email,first,last,born\na@b.org,ANN,O'NEIL,3/4/1985\n")
    loaded(shop)
    ((first, last, born, payload),) = ask(shop, "SELECT first_name, last_name, born, payload FROM crm")
    assert (first, last, born) == ("Ann", "O'NEIL", "1985-04-03")
    assert '"first":"ANN"' in payload
    with pytest.raises(UnknownName, match='bron: no such trait; did you mean "born"'):
        Source(**fields, kinds={"bron": "date"})
    with pytest.raises(UnknownName, match='dat: no such kind of trait; did you mean "date"'):
        Source(**fields, kinds={"born": "dat"})
