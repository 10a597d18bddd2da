"""When do two spellings mean the same identifier? SQL that turns a raw value into its normal form, or NULL.

NULL means "no identifier": blank, a placeholder, or not of the type's shape. The raw value stays in the payload.
"""

from __future__ import annotations

import ast
import re

# A change here changes who is who: it is part of every feature's fingerprint.
RULE_VERSION = "1"

_PLACEHOLDERS = (
    "('null', 'none', 'nan', 'n/a', 'na', '-', '--', '-1', 'unknown', 'anonymous', 'undefined', 'test', '?')"
)
_PLACEHOLDER_LOCAL_PARTS = (
    "^(unknown|anonymous|none|null|na|n/a|test|no[-_.]?(reply|e?mail)|nobody|email|not[-_.]?given)@"
)


def identifier(kind: str, expression: str) -> str:
    """SQL for the normal form of an identifier of this type.

    email: trimmed, lower case, one @ and a dotted domain. phone: digits; a leading 1 or 001 of North American numbers
    is dropped; 7 to 15 digits. *card: letters and digits only. Everything else: trimmed.
    """
    text = f"trim(({expression})::VARCHAR)"
    if kind == "email":
        value, valid = f"lower({text})", f"regexp_full_match(lower({text}), '[^@\\s]+@[^@\\s]+\\.[^@\\s.]+')"
        valid += f" AND NOT regexp_matches(lower({text}), '{_PLACEHOLDER_LOCAL_PARTS}')"
    elif kind == "phone":
        digits = f"regexp_replace({text}, '[^0-9]', '', 'g')"
        value = f"regexp_replace({digits}, '^(001|1)([2-9][0-9]{{9}})$', '\\2')"
        valid = f"length({digits}) BETWEEN 7 AND 15"
    elif kind.endswith("card"):
        value = f"upper(regexp_replace({text}, '[^0-9A-Za-z]', '', 'g'))"
        valid = f"{value} <> ''"
    else:
        value, valid = text, f"{text} <> ''"
    blocked = f"(lower({text}) IN {_PLACEHOLDERS} OR regexp_full_match({value}, '0*'))"
    return f"CASE WHEN {valid} AND NOT {blocked} THEN {value} END"


def plain(kind: str, value: str) -> str | None:
    """The normal form that `identifier` gives printable ASCII, in microseconds: for one value, not for a table.

    >>> plain("email", " Jo@Home.org "), plain("phone", "+1 212 555 0103"), plain("loyalty_card", "-1")
    ('jo@home.org', '2125550103', None)
    """
    text = value.strip(" ")
    if kind == "email":
        normal = text.lower()
        valid = bool(_EMAIL.fullmatch(normal)) and not _PLACEHOLDER_EMAIL.match(normal)
    elif kind == "phone":
        digits = re.sub("[^0-9]", "", text)
        normal, valid = _NORTH_AMERICAN.sub(r"\2", digits), 7 <= len(digits) <= 15
    elif kind.endswith("card"):
        normal = re.sub("[^0-9A-Za-z]", "", text).upper()
        valid = bool(normal)
    else:
        normal, valid = text, bool(text)
    return normal if valid and text.lower() not in _BLOCKED and normal.strip("0") else None


_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+", re.ASCII)
_PLACEHOLDER_EMAIL = re.compile(_PLACEHOLDER_LOCAL_PARTS)
_NORTH_AMERICAN = re.compile(r"^(001|1)([2-9][0-9]{9})$")
_BLOCKED = frozenset(ast.literal_eval(_PLACEHOLDERS))
