"""How are the values of people written so that they can be compared? One table, in plain forms, null where nothing is
said.

Letters without accents, blanks and punctuation; dates as eight digits, from any of the usual forms and with letters
that are read for digits mended; telephones as their last nine digits. Spelling is left to the comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import duckdb

from ingestion.traits import trait
from unification.matching import kinds as k
from unification.matching.nicknames import canonical

_NOTHING = "('nan', 'none', 'null', 'n/a', 'na', 'unknown', 'unbekannt', '-', '--', '?', '.', 'nil', 'missing')"
_STREETS = {
    "street": "st", "str": "st", "strasse": "st", "avenue": "ave", "av": "ave", "avnu": "ave", "road": "rd",
    "drive": "dr", "lane": "ln", "court": "ct", "place": "pl", "boulevard": "blvd", "circle": "cir", "terrace": "ter",
    "square": "sq", "highway": "hwy", "parkway": "pkwy", "crescent": "cres", "close": "cl", "north": "n", "south": "s",
    "east": "e", "west": "w", "northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw",
    "apartment": "apt", "unit": "apt", "number": "no",
}  # fmt: skip
_SEXES = {
    "male": "m", "man": "m", "boy": "m", "herr": "m", "maennlich": "m", "mr": "m", "female": "f", "woman": "f",
    "girl": "f", "w": "f", "frau": "f", "weiblich": "f", "mrs": "f", "ms": "f",
}  # fmt: skip

# Column of the table made -> the kind that it is made of.
COLUMNS = {
    "first": k.FIRST, "middle": k.MIDDLE, "last": k.LAST, "birth": k.BIRTH, "age": k.AGE, "nid": k.ID,
    "email": k.EMAIL, "phone": k.PHONE, "house": k.NUMBER, "street": k.STREET, "place": k.PLACE, "unit": k.UNIT,
    "city": k.CITY, "postcode": k.POSTCODE, "state": k.STATE, "sex": k.SEX, "grp": k.GROUP,
}  # fmt: skip


def prepare(con: duckdb.DuckDBPyConnection, table: str, kinds: dict[str, list[str]], into: str = "people") -> list[str]:
    """Make the table of what is compared, a row a row of `table`: unique_id (its place, from 0) and `COLUMNS`.

    Returns the columns that it has, beside unique_id, first_name's canon, e-mail user and sounds among them.
    """
    texts = {kind: _filled(columns) for kind, columns in kinds.items()}
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE _raw AS SELECT row_number() OVER () - 1 AS unique_id,
            {", ".join(f'{text} AS "{kind}"' for kind, text in texts.items())} FROM "{table}" """
    )
    forms = {COLUMN: FORMS[COLUMN](con, f'"{kind}"') for COLUMN, kind in COLUMNS.items() if kind in kinds}
    if k.FULL in kinds:
        forms |= _parts(forms)
    if k.STREET in kinds and k.NUMBER not in kinds:
        forms["house"] = f"nullif(regexp_extract(\"{k.STREET}\", '^\\s*(\\d+[a-z]?)\\b', 1), '')"
        forms["street"] = _street(f"regexp_replace(\"{k.STREET}\", '^\\s*\\d+[a-z]?\\b', '')")
    made = ", ".join(f"{form} AS {column}" for column, form in forms.items())
    extra = _derived(con, [*forms])
    con.execute(
        f"""CREATE OR REPLACE TABLE {into} AS SELECT *{"".join(f", {e} AS {n}" for n, e in extra.items())}
            FROM (SELECT unique_id, {made} FROM _raw)"""
    )
    con.execute("DROP TABLE _raw")
    return [*forms, *extra]


def _filled(columns: list[str]) -> str:
    """The first of these columns that says something, as text in lower case."""
    # a date that is typed comes with a time of day, and a number that had gaps with a decimal
    each = [f'regexp_replace(lower(strip_accents(trim("{c.replace(chr(34), chr(34) * 2)}"::VARCHAR))), '
            f"'(( 00:00:00(\\.0+)?)|(\\.0))$', '')" for c in columns]  # fmt: skip
    said = [f"CASE WHEN t NOT IN {_NOTHING} AND t <> '' THEN t END" for _ in each]
    return "coalesce(" + ", ".join(_let("t", e, s) for e, s in zip(each, said, strict=True)) + ")"


def _let(name: str, value: str, body: str) -> str:
    return f"list_transform([{value}], lambda {name}: {body})[1]"


def _letters(text: str) -> str:
    # punctuation, blanks and digits tell no names apart
    return f"nullif(regexp_replace({text}, '[^\\p{{L}}]+', '', 'g'), '')"


def _plain(text: str) -> str:
    return f"nullif(regexp_replace({text}, '[^\\p{{L}}0-9]+', '', 'g'), '')"


def _digits(text: str) -> str:
    """Digits alone; letters that a machine reads for them are mended."""
    return f"nullif(regexp_replace(translate({text}, 'oilzsbg', '0112589'), '[^0-9]+', '', 'g'), '')"


def _id(con: duckdb.DuckDBPyConnection, text: str) -> str:
    query = f"SELECT avg(regexp_full_match({text}, '[0-9 ./-]+')::INT) FROM _raw WHERE {text} IS NOT NULL"
    digits = _digits(text) if (con.execute(query).fetchall()[0][0] or 0) > 0.8 else _plain(text)
    return f"CASE WHEN NOT regexp_full_match({digits}, '0+|9+|1+') AND length({digits}) > 3 THEN {digits} END"


def _street(text: str) -> str:
    words = "MAP {" + ", ".join(f"'{long}': '{short}'" for long, short in _STREETS.items()) + "}"
    tokens = f"regexp_split_to_array(trim(regexp_replace({text}, '[^\\p{{L}}0-9]+', ' ', 'g')), ' ')"
    return f"nullif(array_to_string(list_transform({tokens}, lambda w: coalesce({words}[w], w)), ''), '')"


def _phone(text: str) -> str:
    digits = f"regexp_replace({text}, '[^0-9]+', '', 'g')"
    return f"CASE WHEN length({digits}) >= 6 THEN right({digits}, 9) END"


def _postcode(text: str) -> str:
    plain = _plain(text)
    return f"CASE WHEN regexp_full_match({plain}, '[0-9]{{9}}') THEN left({plain}, 5) ELSE {plain} END"


def _sex(text: str) -> str:
    words = "MAP {" + ", ".join(f"'{long}': '{short}'" for long, short in _SEXES.items()) + "}"
    return f"coalesce({words}[{_letters(text)}], {_plain(text)})"


def _email(text: str) -> str:
    bare = f"regexp_replace({text}, '\\s+', '', 'g')"
    return f"CASE WHEN length({bare}) > 3 THEN {bare} END"


def _date(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """SQL for a date as eight digits, YYYYMMDD; of what is no date the digits. Day or month first: as the column
    says."""
    ab = f"regexp_extract({text}, '^(\\d{{1,2}})\\D+(\\d{{1,2}})\\D+(\\d{{4}})', ['a', 'b', 'y'])"
    eight = (
        f"CASE WHEN regexp_full_match({text}, '\\d{{8}}') AND left({text}, 2) NOT IN ('18', '19', '20') THEN {text} END"
    )
    query = f"""SELECT count(*) FILTER (a > 12 AND b <= 12) > count(*) FILTER (b > 12 AND a <= 12) FROM (
        SELECT TRY_CAST(coalesce(nullif(({ab}).a, ''), left(e, 2)) AS INTEGER) AS a,
            TRY_CAST(coalesce(nullif(({ab}).b, ''), e[3:4]) AS INTEGER) AS b
        FROM (SELECT {text}, {eight} AS e FROM _raw))"""
    day_first = bool(con.execute(query).fetchall()[0][0])
    d, m = ("a", "b") if day_first else ("b", "a")
    mended = f"translate({text}, 'oilzsbg', '0112589')"
    years = "('17', '18', '19', '20')"
    lone = "lpad({}, 2, '0')"
    short = "CASE WHEN p.y > '35' THEN '19' ELSE '20' END || p.y"

    def parts(shape: str, names: str) -> str:
        return f"regexp_extract(t, '{shape}', [{names}])"

    ymd = _let("p", parts(r"^(\d{4})\D+(\d{1,2})\D+(\d{1,2})", "'y', 'm', 'd'"),
               f"p.y || {lone.format('p.m')} || {lone.format('p.d')}")  # fmt: skip
    dmy = _let("p", parts(r"^(\d{1,2})\D+(\d{1,2})\D+(\d{4})", "'a', 'b', 'y'"),
               f"p.y || {lone.format(f'p.{m}')} || {lone.format(f'p.{d}')}")  # fmt: skip
    dmyy = _let("p", parts(r"^(\d{1,2})\D+(\d{1,2})\D+(\d{2})", "'a', 'b', 'y'"),
                f"{short} || {lone.format(f'p.{m}')} || {lone.format(f'p.{d}')}")  # fmt: skip
    turned = f"t[5:8] || {'t[3:4] || t[1:2]' if day_first else 't[1:4]'}"
    packed = f"CASE WHEN left(t, 2) IN {years} AND (t[5:6] <= '12' OR t[5:6] NOT IN {years}) THEN t ELSE {turned} END"
    worded = f"regexp_replace({trait('date', text)}, '[^0-9]', '', 'g')"
    found = _let(
        "t", mended,
        f"""CASE WHEN regexp_matches(t, '^\\d{{4}}\\D+\\d{{1,2}}\\D+\\d{{1,2}}(\\D|$)') THEN {ymd}
            WHEN regexp_matches(t, '^\\d{{1,2}}\\D+\\d{{1,2}}\\D+\\d{{4}}(\\D|$)') THEN {dmy}
            WHEN regexp_full_match(t, '\\d{{1,2}}\\D+\\d{{1,2}}\\D+\\d{{2}}') THEN {dmyy}
            WHEN regexp_full_match(t, '\\d{{8}}') THEN {packed} ELSE regexp_replace(t, '[^0-9]+', '', 'g') END""",
    )  # fmt: skip
    read = f"CASE WHEN regexp_matches({text}, '[a-z]{{3}}') THEN {worded} ELSE {found} END"
    placeholders = "('00000000', '19000101', '18000101', '99991231', '99999999', '11111111', '')"
    return _let("d", read, f"CASE WHEN d NOT IN {placeholders} THEN d END")


def _simple(form: Callable[[str], str]) -> Callable[[duckdb.DuckDBPyConnection, str], str]:
    return lambda con, text: form(text)


FORMS: dict[str, Callable[[duckdb.DuckDBPyConnection, str], str]] = {
    **dict.fromkeys(("first", "middle", "last"), _simple(_letters)), "birth": _date, "nid": _id,
    "age": _simple(lambda text: f"TRY_CAST({text} AS DOUBLE)::INTEGER"), "email": _simple(_email),
    "phone": _simple(_phone), **dict.fromkeys(("house", "unit", "city", "state", "grp"), _simple(_plain)),
    **dict.fromkeys(("street", "place"), _simple(_street)), "postcode": _simple(_postcode), "sex": _simple(_sex),
}  # fmt: skip


def _parts(forms: dict[str, str]) -> dict[str, str]:
    """First, middle and last name out of a full one ("smith, john" too), where no column of their own says them."""
    text = f'"{k.FULL}"'
    turned = f"""CASE WHEN contains({text}, ',') THEN split_part({text}, ',', 2) || ' ' || split_part({text}, ',', 1)
        ELSE {text} END"""
    bare = re.sub(
        r"\s+",
        " ",
        f"""regexp_replace(regexp_replace({turned},
        '\\b(mr|mrs|ms|miss|dr|prof|sir|jr|sr|ii|iii|phd|md)\\b\\.?', '', 'g'), '[^\\p{{L}} -]+', '', 'g')""",
    )
    words = f"list_filter(regexp_split_to_array(trim({bare}), '[ -]+'), lambda w: w <> '')"
    middle = f"array_to_string({words}[2:-2], '')"
    made = {"first": f"CASE WHEN len({words}) > 1 THEN {words}[1] END", "middle": f"nullif({middle}, '')",
            "last": f"{words}[-1]"}  # fmt: skip
    return {column: form for column, form in made.items() if column not in forms}


def _derived(con: duckdb.DuckDBPyConnection, columns: list[str]) -> dict[str, str]:
    """What follows from these columns: the name a nickname stands for, how a name sounds, the user of an e-mail."""
    made = {}
    if "first" in columns:
        names = "MAP {" + ", ".join(f"'{short}': '{name}'" for short, name in canonical().items()) + "}"
        made["first_canon"] = f"coalesce({names}[first], first)"
    made |= {f"{column}_sound": _sound(column) for column in ("first", "last") if column in columns}
    if "email" in columns:
        made |= {
            f"email_{part}": f"nullif(split_part(email, '@', {n}), '')" for n, part in ((1, "user"), (2, "domain"))
        }
        made["email_digits"] = "regexp_replace(email, '[^0-9]', '', 'g')"
    return made


def _sound(column: str) -> str:
    """A name's first letter and the consonants after it, those that are confused made one, none twice in a row."""
    rest = f"translate({column}[2:], 'aeiouyhwckqszgjdtmnbpvf', '        222222233445555')"
    once = f"regexp_replace(replace({rest}, ' ', ''), '(2)+', '2', 'g')"
    for digit in "345lr":
        once = f"regexp_replace({once}, '{digit}+', '{digit}', 'g')"
    return f"nullif(left({column}[1] || {once}, 5), '')"
