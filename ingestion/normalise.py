"""When do two spellings mean the same identifier? SQL that turns a raw value into its normal form, or NULL.

NULL means "no identifier": blank, a placeholder, or not of the type's shape. The raw value stays in the payload. What
SQL cannot settle, a trained library is asked about, once for each value: see ingestion/forms.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import lru_cache

from lake.engine import quote

# A change here changes who is who: it is part of every feature's fingerprint.
RULE_VERSION = "2"

_PLACEHOLDERS = (
    "('null', 'none', 'nan', 'n/a', 'na', '-', '--', '-1', 'unknown', 'anonymous', 'undefined', 'test', '?', "
    "'#n/a', 'n.a.', 'nil', '(null)', '(none)', '(not set)', '[]', '{}')"
)
_PLACEHOLDER_LOCAL_PARTS = (
    "^(unknown|anonymous|none|null|na|n/a|test|no[-_.]?(reply|e?mail)|nobody|email|not[-_.]?given)@"
)
# taken off both ends: blanks of every script, and the line ends that a damaged export leaves
_BLANKS = " \t\n\r\f\v\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FILLERS = "('1234567', '12345678', '123456789', '1234567890', '0123456789')"
_CONTROL = "[\\x00-\\x1f\\x7f]"
# after the code of any country but one's own, a 0 is mostly the "0" of dialling within it, wrongly kept
_TRUNK = (
    "^(1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    "|(2[1-689]|3[578]|42|5[09]|6[7-9]|8[0578]|9[679])[0-9])0"
)


def identifier(kind: str, expression: str, country: str | None = None, *, lookup: bool = False) -> str:
    """SQL for the normal form of an identifier of this type.

    email: trimmed, lower case, one @ and a dotted domain. phone: as `+12125550103` (E.164) where the country of the
    source is known; else digits, of which a leading 1 or 001 of North American numbers is dropped; 7 to 15 digits.
    *card: letters and digits only. Everything else: trimmed.

    lookup: take what SQL cannot settle from the table `forms(kind, value, form)`.
    """
    normal = "t"
    if kind == "email":
        valid = "regexp_full_match(v, '[^@\\s]+@[^@\\s]+\\.[^@\\s.]+')"
        valid += f" AND NOT regexp_matches(v, '{_PLACEHOLDER_LOCAL_PARTS}')"
        normal, form = "lower(t)", "v"
    elif kind == "phone":
        normal, valid = "regexp_replace(t, '[^0-9]', '', 'g')", "length(v) BETWEEN 7 AND 15"
        valid += f" AND replace(v, left(v, 1), '') <> '' AND v NOT IN {_FILLERS}"
        form = "regexp_replace(v, '^(001|1)([2-9][0-9]{9})$', '\\2')"
        if country:
            form = f"coalesce({_e164(country)}, {form})"
    elif kind.endswith("card"):
        normal, valid, form = "upper(regexp_replace(t, '[^0-9A-Za-z]', '', 'g'))", "v <> ''", "v"
    else:
        valid, form = "v <> ''", "v"
    blocked = f"lower(t) IN {_PLACEHOLDERS} OR regexp_full_match(v, '[0-]*') OR regexp_matches(t, '{_CONTROL}')"
    made = f"CASE WHEN {valid} AND NOT ({blocked}) THEN {form} END"
    made = _let("t", _trimmed(expression), _let("v", normal, made))
    if not lookup:
        return made
    asked = _asked_about(kind, expression)
    name = quote(form_kind(kind, country))
    return f"coalesce((SELECT f.form FROM forms f WHERE f.kind = '{name}' AND f.value = {asked}), {made})"


def unsettled(kind: str, expression: str, country: str | None = None) -> tuple[str, str] | None:
    """(SQL for a value to ask a library about, SQL for whether it must be asked); None if SQL settles the type."""
    made, asked = identifier(kind, expression, country), _asked_about(kind, expression)
    if kind == "email":
        return asked, f"strlen(({expression})::VARCHAR) <> length(({expression})::VARCHAR) AND {made} IS NOT NULL"
    if kind == "phone" and country:
        return asked, f"NOT starts_with({made}, '+')"
    return None


def form_kind(kind: str, country: str | None) -> str:
    return f"{kind}:{country}" if kind == "phone" else kind


def _asked_about(kind: str, expression: str) -> str:
    return f"lower({_trimmed(expression)})" if kind == "email" else _trimmed(expression)


def _let(name: str, value: str, body: str) -> str:
    """SQL for a body in which a value has a name: it is reckoned once, however often it is used."""
    return f"list_transform([{value}], lambda {name}: {body})[1]"


def _trimmed(expression: str) -> str:
    # trim() alone takes off blanks of every script, six times as fast as with a list of what to take off
    text = f"trim(({expression})::VARCHAR)"
    return _let("u", text, f"CASE WHEN regexp_matches(u, '{_CONTROL}') THEN trim(u, '{_BLANKS}') ELSE u END")


def ask(kind: str, value: str, country: str | None = None) -> str | None:
    """What a library makes of a value: the number as E.164, the address with its domain in ASCII; None: nothing."""
    if kind == "email":
        import idna

        local, _, domain = value.rpartition("@")
        try:
            return f"{local}@{idna.encode(domain, uts46=True).decode()}"
        except (idna.IDNAError, UnicodeError):
            return None
    import phonenumbers

    tries = [value, "+" + value[2:]] if value.startswith("00") else [value]  # 00 is not what every country dials
    for text in tries:
        try:
            number = phonenumbers.parse(text, country)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE:
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None


def library(kind: str) -> str:
    """Which library `ask` asks about a type, and its version: another one may answer otherwise."""
    if kind == "email":
        import idna

        return f"idna {idna.__version__}"
    import phonenumbers

    return f"phonenumbers {phonenumbers.__version__}"


def _e164(country: str) -> str:
    """SQL for a number written plainly, of its own country or after a +, as E.164; NULL for one that is not plain.

    t: the number as it came, v: its digits. By the very rules of the library, for each country: its code, the prefix
    for dialling within it, the shape of its numbers.
    """
    code, prefix, shape = _rules(country)
    own = f"regexp_full_match(v, '{code}({shape})')"
    others = (
        f"NOT starts_with(v, '{code}') AND length(v) BETWEEN 8 AND 15 AND NOT regexp_matches(v, '{_TRUNK}') "
        "AND v[1] <> '0' AND (v[1] <> '1' OR length(v) = 11)"
    )
    cases = f"WHEN t[1] = '+' THEN CASE WHEN {own} OR ({others}) THEN '+' || v END"
    if shape and prefix is not None:
        if prefix:
            cases += f" WHEN regexp_full_match(v, '{prefix}({shape})') THEN '+{code}' || v[{len(prefix) + 1}:]"
        cases += f" WHEN regexp_full_match(v, '{shape}') THEN '+{code}' || v"
    return f"CASE WHEN NOT regexp_full_match(t, '[+]?[0-9 ()./-]+') OR contains(t, '(0)') THEN NULL {cases} END"


@lru_cache
def _rules(country: str) -> tuple[str, str | None, str]:
    """A country's code, trunk prefix ("" without one, None if it is not that simple) and the shape of its numbers."""
    import phonenumbers

    about = phonenumbers.PhoneMetadata.metadata_for_region(country)
    assert about is not None  # as declarations have checked
    assert about.general_desc is not None
    parsed = about.national_prefix_for_parsing or ""
    simple = parsed.split("|")[0] == (about.national_prefix or "") and "(" not in parsed
    prefix = (about.national_prefix or "") if simple and not about.national_prefix_transform_rule else None
    return str(about.country_code), prefix, about.general_desc.national_number_pattern or ""


def plain(kind: str, value: str, country: str | None = None) -> str | None:
    """The normal form that `identifier` gives printable ASCII, in microseconds: for one value, not for a table.

    >>> plain("email", " Jo@Home.org "), plain("phone", "+1 212 555 0103"), plain("loyalty_card", "-1")
    ('jo@home.org', '2125550103', None)
    >>> plain("phone", "(212) 555-0103", "US")
    '+12125550103'
    """
    text = value.strip(" ")
    if kind == "email":
        normal = text.lower()
        valid = bool(_EMAIL.fullmatch(normal)) and not _PLACEHOLDER_EMAIL.match(normal)
    elif kind == "phone":
        digits = re.sub("[^0-9]", "", text)
        normal = _NORTH_AMERICAN.sub(r"\2", digits)
        valid = 7 <= len(digits) <= 15 and len(set(digits)) > 1 and digits not in _FILLED
        if valid and country and normal.strip("0"):
            normal = ask("phone", text, country) or normal
    elif kind.endswith("card"):
        normal = re.sub("[^0-9A-Za-z]", "", text).upper()
        valid = bool(normal)
    else:
        normal, valid = text, bool(text)
    return normal if valid and text.lower() not in _BLOCKED and normal.strip("0-") else None


def other_forms(kind: str, value: str, countries: Iterable[str]) -> list[str]:
    """The normal forms that a value, asked for by itself, has beside that of `identifier` without a country.

    A number that is typed in to look somebody up belongs to one of the countries that sources declare.
    """
    text = value.strip(_BLANKS)
    if kind == "phone":
        found = {form for c in countries if (form := plain(kind, text, c)) and form.startswith("+")}
        return sorted(found)
    if kind == "email" and "@" in text and not text.isascii() and (form := ask(kind, text.lower())):
        return [form]
    return []


_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+", re.ASCII)
_PLACEHOLDER_EMAIL = re.compile(_PLACEHOLDER_LOCAL_PARTS)
_NORTH_AMERICAN = re.compile(r"^(001|1)([2-9][0-9]{9})$")
_BLOCKED = frozenset(ast.literal_eval(_PLACEHOLDERS))
_FILLED = frozenset(ast.literal_eval(_FILLERS))
