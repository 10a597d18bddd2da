"""How is a name, a date, an address written? SQL for a trait's normal form; what it does not know stays as it came.

A trait is of a kind by its name (`last_name` is a name, `postcode` a postcode) or as the contract's `kinds` says. The
value as it came stays in the payload.
"""

from __future__ import annotations

from collections.abc import Callable

from foretell.declarations import KINDS
from lake.engine import quote


def trait(kind: str, expression: str, country: str | None = None) -> str:
    """SQL for the normal form of a trait of this kind.

    name: blanks single; case mended where it is all upper or all lower ("O'NEIL" is "O'Neil", "VAN DER BERG" is
        "van der Berg"); titles dropped. full name: that, and "SMITH, JOHN" turned.
    date: ISO ("1985-12-31"), from ISO, "31 Dec 1985", "Dec 31, 1985", "31.12.1985" and others of which only one reading
        is a date. "date dmy", "date mdy": what 3/4/1985 is.
    address: blanks single; "12 Main St." is "12 Main Street", "Hauptstr. 5" is "Hauptstraße 5".
    city: blanks and case. postcode: upper case, with the blank of British, Canadian and Dutch ones; a US one of fewer
        than five digits has lost its zeros. country: the ISO code of the names that are met most.
    text: as it came.
    """
    if kind == "text":
        return f"({expression})::VARCHAR"
    # blanks of every kind, only where there are some to mend
    text = f"trim(({expression})::VARCHAR)"
    blanks = (
        "CASE WHEN regexp_matches(u, '\\s\\s|[\\t\\r\\n]') THEN trim(regexp_replace(u, '\\s+', ' ', 'g')) ELSE u END"
    )
    return _let("t", _let("u", text, blanks), _FORMS[kind](country))


def _let(name: str, value: str, body: str) -> str:
    return f"list_transform([{value}], lambda {name}: {body})[1]"


_PARTICLES = (
    "('van', 'von', 'der', 'den', 'de', 'del', 'della', 'di', 'da', 'dos', 'du', 'la', 'le', 'ten', 'ter', 'zu')"
)
_TITLES = r"^((mr|mrs|ms|miss|mx|dr|prof|sir|herr|frau|hr|fr|mme|mlle|sra?|señora?)\.? )+"
_SUFFIXES = r"^(jr|sr|ii|iii|iv|phd|md)\.?$"


def _cased(text: str = "t") -> str:
    """A value in all upper or all lower case, each of its words with a capital; another as it is."""
    # words end at blanks, hyphens and apostrophes, which stay with the word before them
    words = f"regexp_extract_all(lower({text}), '[^ ''’-]*[ ''’-]?')"
    word = f"""CASE WHEN trim(w) IN {_PARTICLES} THEN w
        WHEN starts_with(w, 'mc') AND length(w) > 3 THEN 'Mc' || upper(w[3]) || w[4:] ELSE upper(w[1]) || w[2:] END"""
    made = f"array_to_string(list_transform({words}, lambda w: {word}), '')"
    return f"CASE WHEN upper({text}) = {text} OR lower({text}) = {text} THEN {made} ELSE {text} END"


def _name(_: str | None) -> str:
    bare = f"CASE WHEN regexp_matches(t, '(?i){_TITLES}') THEN regexp_replace(t, '(?i){_TITLES}', '') ELSE t END"
    return _let("n", bare, _cased("n"))


def _full_name(country: str | None) -> str:
    first, rest = "trim(split_part(t, ',', 1))", "trim(split_part(t, ',', 2))"
    turns = f"""contains(t, ',') AND len(string_split(t, ',')) = 2 AND {first} <> '' AND {rest} <> ''
        AND NOT regexp_matches({rest}, '(?i){_SUFFIXES}')"""
    return _let("t", f"CASE WHEN {turns} THEN {rest} || ' ' || {first} ELSE t END", _name(country))


_SAID = ["%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d. %B %Y"]


def _date(order: str) -> Callable[[str | None], str]:
    def read(year: int, month: int, day: int) -> str:
        parts = " || '-' || ".join(f"split_part(p, '-', {n})" for n in (year, month, day))
        return f"TRY_CAST({parts} AS DATE)"

    dmy, mdy = read(3, 2, 1), read(3, 1, 2)
    # without an order a date with one reading only, or of which both are the same
    either = f"CASE WHEN {dmy} IS NULL OR {mdy} IS NULL OR {dmy} = {mdy} THEN coalesce({dmy}, {mdy}) END"
    said = ", ".join(f"'{form}'" for form in _SAID)
    found = f"""CASE WHEN regexp_full_match(t, '[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{4}}')
            THEN {_let("p", "translate(t, './', '--')", {"dmy": dmy, "mdy": mdy}.get(order, either))}
        WHEN regexp_full_match(t, '[0-9]{{4}}[./-][0-9]{{1,2}}[./-][0-9]{{1,2}}')
            THEN TRY_CAST(translate(t, './', '--') AS DATE)
        WHEN regexp_full_match(t, '[0-9]{{8}}') THEN TRY_CAST(t[:4] || '-' || t[5:6] || '-' || t[7:] AS DATE)
        WHEN regexp_matches(t, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T][0-9]{{2}}:') THEN TRY_CAST(t[:10] AS DATE)
        WHEN regexp_matches(t, '[A-Za-z]{{3}}') THEN try_strptime(t, [{said}])::DATE END"""
    made = "CASE WHEN year(d) BETWEEN 1000 AND 9999 THEN strftime(d, '%Y-%m-%d') ELSE t END"
    iso = "regexp_full_match(t, '[0-9]{4}-[0-9]{2}-[0-9]{2}')"
    return lambda _: f"CASE WHEN {iso} THEN t ELSE {_let('d', found, made)} END"


# at the end of a street, or before a direction or a unit
_WORDS = {
    "st": "Street", "str": "Street", "ave": "Avenue", "av": "Avenue", "rd": "Road", "blvd": "Boulevard", "dr": "Drive",
    "ln": "Lane", "ct": "Court", "pl": "Place", "sq": "Square", "ter": "Terrace", "hwy": "Highway", "pkwy": "Parkway",
    "cir": "Circle", "cl": "Close", "cres": "Crescent", "gdns": "Gardens", "gr": "Grove", "wy": "Way",
}  # fmt: skip


_SHORT = "|".join(_WORDS)
_ENDING = (
    rf"(?i)^(.*\S) ({_SHORT})\.?"
    r"((?:,? (?:n|s|e|w|ne|nw|se|sw|north|south|east|west)\.?)?(?:,? (?:apt|unit|suite|ste|#).*)?)$"
)


def _address(_: str | None) -> str:
    long = "MAP {" + ", ".join(f"'{short}': '{whole}'" for short, whole in _WORDS.items()) + "}"
    parts = f"regexp_extract(t, '{_ENDING}', ['before', 'word', 'after'])"
    made = f"CASE WHEN b.word <> '' THEN b.before || ' ' || {long}[lower(b.word)] || b.after ELSE t END"
    german = r"regexp_replace(t, '(\S)str\.( |$)', '\1straße\2')"
    return f"""CASE WHEN regexp_matches(t, '(?i) ({_SHORT})([., ]|$)') THEN {_let("b", parts, made)}
        WHEN contains(t, 'str.') THEN {german} ELSE t END"""


def _postcode(country: str | None) -> str:
    shapes = {
        "GB": ("[A-Z]{1,2}[0-9][A-Z0-9]?[0-9][A-Z]{2}", "p[:-4] || ' ' || p[-3:]"),
        "CA": ("[A-Z][0-9][A-Z][0-9][A-Z][0-9]", "p[:3] || ' ' || p[4:]"),
        "NL": ("[0-9]{4}[A-Z]{2}", "p[:4] || ' ' || p[5:]"),
        "US": ("[0-9]{3,4}", "lpad(p, 5, '0')"),
    }
    if country not in shapes:
        return "upper(t)"
    shape, made = shapes[country]
    return _let(
        "p", "replace(upper(t), ' ', '')", f"CASE WHEN regexp_full_match(p, '{shape}') THEN {made} ELSE upper(t) END"
    )


_COUNTRIES = {
    "US": "usa, u.s., u.s.a., united states, united states of america, america", "GB": "uk, u.k., united kingdom, "
    "great britain, england, scotland, wales, northern ireland", "DE": "germany, deutschland", "FR": "france",
    "NO": "norway, norge", "SE": "sweden, sverige", "DK": "denmark, danmark", "FI": "finland, suomi", "CA": "canada",
    "ES": "spain, españa", "IT": "italy, italia", "NL": "netherlands, the netherlands, holland, nederland",
    "BE": "belgium, belgique, belgië", "CH": "switzerland, schweiz, suisse", "AT": "austria, österreich",
    "IE": "ireland, eire", "PT": "portugal", "PL": "poland, polska", "AU": "australia", "NZ": "new zealand",
    "JP": "japan", "CN": "china", "IN": "india", "BR": "brazil, brasil", "MX": "mexico, méxico",
}  # fmt: skip
_CODES = ", ".join(
    f"'{quote(name.strip())}': '{code}'" for code, names in _COUNTRIES.items() for name in names.split(",")
)


def _country(_: str | None) -> str:
    code = f"MAP {{{_CODES}}}[lower(t)]"
    is_code = "regexp_full_match(t, '[A-Za-z]{2}') AND lower(t) <> 'uk'"
    return f"CASE WHEN {is_code} THEN upper(t) ELSE coalesce({code}, t) END"


_FORMS: dict[str, Callable[[str | None], str]] = {
    "name": _name, "full name": _full_name, "city": lambda _: _cased(), "address": _address, "postcode": _postcode,
    "country": _country, "date": _date(""), "date dmy": _date("dmy"), "date mdy": _date("mdy"),
}  # fmt: skip
assert {*_FORMS, "text"} == {*KINDS}
