"""Which column of a table of people says what? Judged by its name, where that is silent by its values.

A kind is what can be compared: a first name, a birth date, a street. Columns about somebody else (a spouse, an
employer) and those of which nothing is understood are left out, and it is said why. Several columns of one kind
become one if they fill each other's gaps, as after a union of tables; else the fullest is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from foretell.errors import DataError, unknown
from ingestion.understand import NAMES, Column

FIRST, MIDDLE, LAST, FULL, BIRTH, AGE = "first_name", "middle_name", "last_name", "full_name", "birth_date", "age"
NUMBER, STREET, PLACE, UNIT, CITY, POSTCODE, STATE = (
    "street_number", "street", "street_2", "unit", "city", "postcode", "state",
)  # fmt: skip
ID, EMAIL, PHONE, SEX, GROUP = "national_id", "email", "phone", "sex", "group"

# Kind -> what a column's name says, in snake case and without the words before it that say nothing.
_NAMED: dict[str, str] = {
    EMAIL: NAMES["email"],
    ID: r"(^|_)(ssn|soc_?sec(_?id)?|social_security(_(number|no|id))?|sin|nino|nhs(_?(number|no|id))?"
    r"|(national|tax|passport|personal|government|insurance|medicare|medicaid|driving_licen[cs]e|steuer)_?"
    r"(id|nr|no|num|number|code|nummer)|personnummer|passport|tin|cpf|bsn)$",
    GROUP: r"(^|_)(birth_?place|place_of_birth|birth_(city|town|country)|race|ethnicity|race_ethnicity|nationality"
    r"|occupation|country_of_birth)$",
    BIRTH: rf"{NAMES['birth_date']}|^(bday|b_day|d_o_b)$",
    AGE: r"^age$",
    PHONE: NAMES["phone"],
    MIDDLE: r"(^|_)(middle|second)_?(name|initial|init)s?$|^(mi|initials?)$",
    FIRST: rf"{NAMES['first_name']}|^(given|first|forenames?|fname|f_name|givenname|christian_name|first_names)$",
    LAST: rf"{NAMES['last_name']}|^(last|surname|sname|lname|l_name|family|s_name|surnames)$",
    FULL: rf"{NAMES['full_name']}|^(person|legal|patient|voter|name)_?(name)?$",
    NUMBER: r"(^|_)(street|house|building|st|home)_?(number|no|nr|num)$|^(hausnummer|number|house)$",
    UNIT: r"(^|_)(unit|apartment|apt|flat|suite)(_?(number|no|nr))?$",
    PLACE: r"(^|_)(address|addr|street)(_line)?_?2$|^(property|building)(_name)?$",
    POSTCODE: rf"{NAMES['postcode']}|^(pcode|post|postal|zip_?5|plz)$|^postcode_",
    CITY: rf"{NAMES['city']}|^(locality|municipality|place|location|city_name)$",
    STATE: r"(^|_)(state|province|region|county|bundesland)(_(code|name))?$",
    SEX: NAMES["gender"],
    STREET: rf"{NAMES['street']}|^(road|street|address)(_?(name|1))?$",
}
KINDS = (*_NAMED,)
_SOMEBODY = (
    r"^(employer|spouse|partner|dependent|dependant|child|mother|father|parent|guardian|emergency|company|business|work"
    r"|reference|referr?er|doctor|physician|agent|seller|store|shop|bank|beneficiary|recipient|previous|former|old|prev"
    r"|maiden|household|ship|bill)s?_?(\d+_)?"
)
_BEFORE = (
    r"^(mailing_address|mailing|home|residential|residence|postal|customer|client|person|contact|member|user|patient"
    r"|voter|primary|current|personal|raw|std|clean|main)_(?=.)"
)
_HOUSEHOLD = r"(^|_)(household|family|hh)_?(id|no|nr|number|key)$"

_SSN = re.compile(r"\s*\d{3}-\d{2}-\d{4}\s*").fullmatch
_MAIL = re.compile(r"\s*[^@\s]+@[^@\s]+\s*").fullmatch
_OVERLAP = 0.05  # of the filled rows: columns that are both filled in fewer fill each other's gaps
_SAMPLE = 2_000


@dataclass(frozen=True)
class Understood:
    """kinds: kind -> the columns that say it, the first that is filled being taken. left_out: column -> why.
    household: a column that says who lives together, which matching never reads."""

    kinds: dict[str, list[str]]
    left_out: dict[str, str] = field(default_factory=dict)
    household: str = ""

    def lines(self) -> list[str]:
        """What is said of it to people."""
        taken = [f"{kind}: {', '.join(columns)}" for kind, columns in self.kinds.items()]
        return taken + [f"left out {column}: {why}" for column, why in self.left_out.items()]


def kind_of(name: str) -> str:
    """The kind that a column's name says, or ""; of somebody else "-"."""
    said = Column(name, "", [], 0).said or name.lower()
    if re.search(_HOUSEHOLD, said):
        return "-"
    if re.search(_SOMEBODY, said):
        return "-"
    while (shorter := re.sub(_BEFORE, "", said)) != said:
        said = shorter
    return next((kind for kind, pattern in _NAMED.items() if re.search(pattern, said)), "")


def understand(
    con: duckdb.DuckDBPyConnection, table: str, *, named: Mapping[str, str] | None = None, never: Sequence[str] = ()
) -> Understood:
    """Say of each column of a table which kind it is.

    named: column -> kind, or kind -> column, which settles it; a kind may be written as any name that is understood
    ("surname" for last_name). never: columns that are not to be read. Raises DataError where nothing can be compared.
    """
    columns = [name for name, *_ in con.execute(f'DESCRIBE FROM "{table}"').fetchall()]
    given = _named(named or {}, columns)
    rest = [name for name in columns if name not in never]
    filled = _filled(con, table, rest)
    rows = int(con.execute(f'SELECT count(*) FROM "{table}"').fetchall()[0][0])
    found: dict[str, list[str]] = {}
    out: dict[str, str] = {}
    household = next((c for c in rest if re.search(_HOUSEHOLD, Column(c, "", [], 0).said)), "")
    for name in rest:
        count, distinct = filled[name]
        kind = given.get(name) or kind_of(name) or _by_values(con, table, name)
        if kind == "-":
            out[name] = "who lives together, not who one is" if name == household else "about somebody else"
        elif not kind:
            out[name] = "not understood; --map says what it is"
        elif distinct < 2 or count < max(2, 0.002 * rows):
            out[name] = f"{count:,} of {rows:,} rows filled, {distinct:,} values: tells nobody apart"
        else:
            found.setdefault(kind, []).append(name)
    for kind, names in found.items():
        found[kind] = _together(con, table, kind, names, filled, given, out)
    if FULL in found and FIRST in found and LAST in found:
        out |= dict.fromkeys(found.pop(FULL), "first and last names are there")
    if AGE in found and BIRTH in found:
        out |= dict.fromkeys(found.pop(AGE), "the birth date is there")
    if not found.keys() - {SEX, GROUP, STATE, AGE, UNIT}:
        raise DataError(
            "matching", f"expected columns that tell people apart (names, birth date, e-mail, phone, address, an id), "
            f"got {', '.join(columns) or 'no column'}",
            "name them by --map COLUMN=KIND; kinds: " + ", ".join(KINDS),
        )  # fmt: skip
    return Understood(dict(sorted(found.items(), key=lambda pair: KINDS.index(pair[0]))), out, household)


def _named(named: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Column -> kind, of pairs in either order."""
    made = {}
    for one, other in named.items():
        column, kind = (one, other) if one in columns else (other, one)
        if column not in columns:
            raise unknown("column", one, columns)
        meant = kind if kind in KINDS else kind_of(kind)
        if kind not in ("-", "") and meant not in KINDS:
            raise unknown("kind of column", kind, KINDS)
        made[column] = meant or "-"
    return made


def _filled(con: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Column -> (rows that are filled, about how many values)."""
    if not names:
        return {}
    texts = [f"nullif(trim({_q(name)}::VARCHAR), '')" for name in names]
    asked = ", ".join(f"count({text}), approx_count_distinct({text}), min({text}) = max({text})" for text in texts)
    flat = con.execute(f'SELECT {asked} FROM "{table}"').fetchall()[0]
    made = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return {
        name: (count, 1 if same else max(2, distinct) if count else 0)
        for name, (count, distinct, same) in zip(names, made, strict=True)
    }


def _by_values(con: duckdb.DuckDBPyConnection, table: str, name: str) -> str:
    """The kind that values alone give away: e-mail addresses and social security numbers."""
    query = f"""SELECT {_q(name)}::VARCHAR FROM "{table}" WHERE {_q(name)} IS NOT NULL LIMIT {_SAMPLE}"""
    values = [value for (value,) in con.execute(query).fetchall()]
    for kind, fits in ((EMAIL, _MAIL), (ID, _SSN)):
        if values and sum(bool(fits(v)) for v in values) >= 0.6 * len(values):
            return kind
    return ""


def _together(
    con: duckdb.DuckDBPyConnection, table: str, kind: str, names: list[str], filled: Mapping[str, tuple[int, int]],
    given: Mapping[str, str], out: dict[str, str],
) -> list[str]:  # fmt: skip
    """Of several columns of one kind those that are read, the fullest first. The others are left out."""
    order = sorted(names, key=lambda name: (name not in given, -filled[name][0], names.index(name)))
    taken = order[:1]
    for name in order[1:]:
        have = f"coalesce({', '.join(f'{_q(t)}::VARCHAR' for t in taken)}) IS NOT NULL"
        query = f'SELECT count(*) FROM "{table}" WHERE {have} AND {_q(name)} IS NOT NULL'
        both = int(con.execute(query).fetchall()[0][0])
        if both <= _OVERLAP * filled[name][0]:
            taken.append(name)
        else:
            out[name] = f"{kind} is said by {taken[0]}"
    return taken


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
