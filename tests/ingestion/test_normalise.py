"""Normal forms of identifiers: the SQL against a plain reading of the same rules, and against the libraries."""

from __future__ import annotations

import re
import unicodedata

import duckdb
import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from one_source import ask, loaded, project, write

import ingestion.forms as forms
from foretell import Source
from foretell.discovery import discover
from foretell.errors import DefinitionError
from ingestion.normalise import ask as library
from ingestion.normalise import identifier, other_forms, plain, unsettled
from lake.engine import table
from unification.identity import resolve, unify

PLACEHOLDERS = {"null", "none", "nan", "n/a", "na", "-", "--", "-1", "unknown", "anonymous", "undefined", "test", "?",
                "#n/a", "n.a.", "nil", "(null)", "(none)", "(not set)", "[]", "{}"}  # fmt: skip
NOBODY = re.compile(r"(unknown|anonymous|none|null|na|n/a|test|no[-_.]?(reply|e?mail)|nobody|email|not[-_.]?given)@")
SPACE = " \t\n\r\f\v"
BLANKS = SPACE + "".join(c for c in map(chr, range(0x3001)) if unicodedata.category(c) == "Zs")
CONTROLS = {*map(chr, range(32)), "\x7f"}

CON = duckdb.connect()
KINDS = ["email", "phone", "loyalty_card", "customer_no"]


def by_sql(kind: str, values: list[str | None], country: str | None = None) -> list[str | None]:
    query = f"SELECT {identifier(kind, 'v', country)} FROM (SELECT unnest(?::VARCHAR[]) AS v)"
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
        if not 7 <= len(digits) <= 15 or len(set(digits)) == 1 or digits in "1234567890" or digits == "0123456789":
            return None
        value = re.sub(r"\A(001|1)([2-9][0-9]{9})\Z", r"\2", digits)
    elif kind.endswith("card"):
        value = "".join(c for c in text if c.isascii() and c.isalnum()).upper()
    if text.lower() in PLACEHOLDERS or set(value) <= set("0-") or CONTROLS & set(text):
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
    @settings(max_examples=30, deadline=None)
    @given(st.lists(VALUES[kind] | st.none(), max_size=40))
    @example(["", " ", "0", "000", "-", "-1", "N/A", "unknown", "a@b.c", "no-reply@b.c", "+1 (212) 555-0100"])
    @example(["\tx\r\n", "a\x01b", "\u3000y", "0-0-0", "1234567890", "999 9999 999"])
    def same(values: list[str | None]) -> None:
        values = [v if v is None else v.replace("\0", "") for v in values]
        assert by_sql(kind, values) == [by_hand(kind, v) for v in values]
        ours = [v for v in values if v is not None and v.isascii() and v.isprintable()]
        assert [plain(kind, v) for v in ours] == by_sql(kind, list(ours))

    same()


@pytest.mark.parametrize(
    ("kind", "spellings", "form"),
    [
        ("email", ["Ann@Example.ORG", " ann@example.org  ", "ann@example.org\r\n"], "ann@example.org"),
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
    values = [None, "", "   ", "0", "0000000", "00000000-0000-0000-0000-000000000000", "a\0", "\x1f"]
    values += [*PLACEHOLDERS, *(p.upper() for p in PLACEHOLDERS)]
    assert by_sql(kind, values) == [None] * len(values)


def test_addresses_of_nobody():
    values = ["unknown@shop.com", "No-Reply@shop.com", "noemail@x.org", "test@test.com", "a@b", "a b@c.de", "a@b@c.de"]
    assert by_sql("email", values) == [None] * len(values)
    assert by_sql("email", ["contest@x.org", "nadia@x.org"]) == ["contest@x.org", "nadia@x.org"]


SPELT = {
    "US": ["+1 212 555 0103", "(212) 555-0103", "212.555.0103", "1-212-555-0103", "001 212 555 0103",
           "+1 (212) 5550103",
           "212 555 0103 x12", "+12125550103 ext. 7", "tel:+1-212-555-0103"],
    "GB": ["+44 20 7946 0018", "020 7946 0018", "(020) 7946 0018", "+44 (0)20 7946 0018", "0044 20 7946 0018",
           "20 7946 0018", "+44 020 7946 0018"],
    "DE": ["+49 30 123456", "030/123456", "030 12 34 56", "0049 30 123456", "+49 (0) 30 123456"],
    "IT": ["+39 06 6982 1234", "06 6982 1234", "0039 06 69821234"],
    "NO": ["+47 22 33 44 55", "22334455", "22 33 44 55", "0047 22334455"],
    "BR": ["+55 11 96123-4567", "(11) 96123-4567", "011 96123 4567"],
}  # fmt: skip


def whole(values: list[str], country: str) -> list[str | None]:
    """As a load makes it: SQL, and where that cannot settle a value, the library."""
    value, condition = unsettled("phone", "v", country) or ("", "")
    given = "(SELECT unnest(?::VARCHAR[]) AS v)"
    asked = [v for (v,) in CON.execute(f"SELECT DISTINCT {value} FROM {given} WHERE {condition}", [values]).fetchall()]
    CON.execute("CREATE OR REPLACE TABLE forms (kind VARCHAR, value VARCHAR, form VARCHAR)")
    rows = [(f"phone:{country}", v, library("phone", v, country)) for v in asked]
    if rows:
        CON.executemany("INSERT INTO forms VALUES (?, ?, ?)", rows)
    query = f"SELECT {identifier('phone', 'v', country, lookup=True)} FROM {given}"
    return [form for (form,) in CON.execute(query, [values]).fetchall()]


@pytest.mark.parametrize("country", SPELT)
def test_spellings_of_one_number(country):
    """Whether they come from a source of that country or from one that says the country's code itself."""
    forms_ = {country: whole(SPELT[country], country)}
    assert len(set(forms_[country])) == 1, dict(zip(SPELT[country], forms_[country], strict=True))
    (form,) = set(forms_[country])
    other = "US" if country != "US" else "DE"
    assert whole([SPELT[country][0]], other) == [form]
    assert [plain("phone", v, country) for v in SPELT[country]] == forms_[country]
    assert other_forms("phone", SPELT[country][1], ["US", country]).count(form) == 1


REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_sql_settles_is_what_the_library_says(data):
    """For every country, its example numbers and numbers near them, however they are written."""
    country = data.draw(st.sampled_from(REGIONS))
    kinds = [phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE]
    values = []
    for _ in range(20):
        other = data.draw(st.sampled_from([country, country, "US", "DE", "IT"]))
        number = phonenumbers.example_number_for_type(other, data.draw(st.sampled_from(kinds)))
        if number is None:
            continue
        if data.draw(st.booleans()):  # another number of that shape
            number.national_number = (number.national_number or 0) + data.draw(st.integers(0, 9_999))
        styles = [phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164]
        if other == country:
            styles.append(phonenumbers.PhoneNumberFormat.NATIONAL)
        values.append(phonenumbers.format_number(number, data.draw(st.sampled_from(styles))))
    values += data.draw(st.lists(st.from_regex(r"\+?[0-9 ()-]{7,16}", fullmatch=True), max_size=10))
    for value, form in by_sql_settled(values, country):
        said = library("phone", value, country)
        if said is not None and phonenumbers.is_valid_number(phonenumbers.parse(said)):
            assert form == said, (value, country)
    assert differing(values, country) == []


def by_sql_settled(values: list[str], country: str) -> list[tuple[str, str]]:
    found = zip(values, by_sql("phone", list(values), country), strict=True)
    return [(value, form) for value, form in found if form and form.startswith("+")]


def differing(values: list[str], country: str) -> list[tuple]:
    """Values of which SQL and the library make two things, though the library knows the number."""
    pairs = zip(values, whole(values, country), [plain("phone", v, country) for v in values], strict=True)
    return [
        (v, a, b)
        for v, a, b in pairs
        if a != b and b and b.startswith("+") and phonenumbers.is_valid_number(phonenumbers.parse(b))
    ]


def people(name: str, **more) -> Source:
    return Source(
        name=name, files=f"{name}.csv", kind="records", identifiers={"email": "email", "phone": "phone"}, **more
    )


def test_a_number_is_asked_about_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(forms, "ask", lambda *a: (asked.append(a[1]), library(*a))[1])
    made = project(tmp_path, people("crm", country="GB"))
    numbers = [
        "020 7946 0018",
        "+44 (0)20 7946 0018 ext 5",
        "0044 20 7946 0018",
        "+44 020 79460018",
        "7946 0018",
        "n/a",
    ]
    mails = ["a@b.org"] * 4 + ["ann@müller.de", "ann@MÜLLER.de"]
    rows = "".join(f"{m},{n}\n" for m, n in zip(mails, numbers, strict=True))
    write(made, "crm.csv", "email,phone\n" + rows)
    loaded(made)
    assert sorted(asked) == sorted(["ann@müller.de", *numbers[1:5]])
    assert ask(made, "SELECT id_phone FROM crm ORDER BY 1 NULLS LAST") == [
        ("+442079460018",), ("+442079460018",), ("+442079460018",), ("+442079460018",), ("79460018",), (None,)
    ]  # fmt: skip
    assert ask(made, "SELECT DISTINCT id_email FROM crm ORDER BY 1") == [("a@b.org",), ("ann@xn--mller-kva.de",)]
    asked.clear()
    write(made, "crm.csv", "email,phone\n" + rows + "b@b.org,0044 20 7946 0019\n")
    loaded(made)
    assert asked == ["0044 20 7946 0019"]
    stored = table(made, "normal_forms")
    kept = duckdb.execute(f"SELECT kind, key, form, library FROM {stored.scan()}").fetchall()
    assert len(kept) == 6
    assert {k for k, *_ in kept} == {"phone:GB", "email"}
    assert {lib for *_, lib in kept} == {forms.library("phone"), forms.library("email")}
    assert not any(number in str(kept) for number in numbers), "the value as it came is not kept a second time"
    unify(made)
    from lake.engine import session

    with session(made) as con:
        assert len({resolve(con, made, text) for text in (numbers[0], numbers[1], "phone:+442079460018", "ann@müller.de"
                                                          , "ann@xn--mller-kva.de")}) == 2  # fmt: skip


CONTRACT = """
from foretell import Source
{name} = Source(name="{name}", files="{name}.csv", kind="records", identifiers={{"phone": "phone"}}{more})
"""


def declared(folder, **countries: str | None):
    (folder / "sources").mkdir()
    for name, country in countries.items():
        more = f', country="{country}"' if country is not None else ""
        (folder / "sources" / f"{name}.py").write_text(CONTRACT.format(name=name, more=more))
    return {name: source.country for name, source in discover(folder).sources.items()}


def test_sources_that_say_no_country_have_that_of_the_others(tmp_path):
    for n, (said, meant) in enumerate([
        ({"a": "US", "b": None}, {"a": "US", "b": "US"}), ({"a": None, "b": None}, {"a": None, "b": None}),
        ({"a": "US", "b": ""}, {"a": "US", "b": ""}), ({"a": "US", "b": "DE"}, {"a": "US", "b": "DE"}),
    ]):  # fmt: skip
        (tmp_path / str(n)).mkdir()
        assert declared(tmp_path / str(n), **said) == meant
    (tmp_path / "x").mkdir()
    with pytest.raises(
        DefinitionError, match="c: has phone numbers and says no country, while others say DE and US; say"
    ):
        declared(tmp_path / "x", a="US", b="DE", c=None)


@pytest.mark.parametrize(
    ("country", "fix"), [("us", 'did you mean "US"'), ("Norway", "say for example"), ("UK", "say")]
)
def test_a_country_is_an_iso_code(country, fix):
    with pytest.raises(DefinitionError, match=f"country is an ISO code of two letters, got '{country}'; {fix}"):
        people("crm", country=country)
