"""Which words and durations may a declaration say? What every declaration checks when it is made."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from ibis.common.deferred import Deferred

from foretell.errors import DefinitionError, did_you_mean

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_DECLARING = {f"foretell.{module}" for module in ("checks", "declarations", "views")} | {"dataclasses"}


def caller() -> str:
    """The file whose code made the declaration, for error messages: the first frame outside the declarations."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _DECLARING:
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else ""


def short(path: str) -> str:
    return "/".join(Path(path).parts[-2:]) if path else ""


def check_name(kind: str, name: str, where: str) -> None:
    if not isinstance(name, str) or not _NAME.match(name):
        article = "an" if kind[0] in "aeiou" else "a"
        raise DefinitionError(
            repr(name),
            f"the name of {article} {kind} is lower-case letters, digits and _, starting with a letter",
            "rename it",
            where=short(where),
        )


def check_duration(name: str, what: str, value: Any, where: str, fix: str, *, zero: bool = False) -> None:
    if not isinstance(value, timedelta) or value < timedelta(0) or (value == timedelta(0) and not zero):
        expected = "a duration that is not negative" if zero else "a positive duration"
        raise DefinitionError(name, f"{what} must be {expected}, got {value}", fix, where=short(where))


def check_aggregate(subject: str, value: Any, where: str) -> None:
    if not isinstance(value, Deferred) and not callable(value):
        raise DefinitionError(
            subject, f"expected an aggregate of the facts, got {value!r}", "write for example _.amount.sum()",
            where=short(where),
        )  # fmt: skip


def check_condition(subject: str, condition: Any, where: str) -> None:
    if not isinstance(condition, Deferred):
        raise DefinitionError(
            subject, f"expected a condition on the facts, got {condition!r}", 'write for example _.category == "DELI"',
            where=short(where),
        )  # fmt: skip


def check_country(subject: str, country: Any, where: str) -> None:
    import phonenumbers

    if country not in phonenumbers.SUPPORTED_REGIONS:
        near = (
            f'did you mean "{str(country).upper()}"?' if str(country).upper() in phonenumbers.SUPPORTED_REGIONS else ""
        )
        problem = f"country is an ISO code of two letters, got {country!r}"
        raise DefinitionError(subject, problem, near or 'say for example "US"', where=short(where))


def check_rule(subject: str, condition: Any, where: str) -> None:
    import sqlglot
    from sqlglot.errors import SqlglotError

    fix = 'write for example {"amount is not negative": "amount >= 0"}'
    if not isinstance(condition, str) or not condition.strip():
        raise DefinitionError(subject, f"expected a SQL condition, got {condition!r}", fix, where=short(where))
    try:
        sqlglot.parse_one(condition, dialect="duckdb")
    except SqlglotError as error:
        problem = f"{condition!r} is not a SQL condition: {str(error).strip().splitlines()[0]}"
        raise DefinitionError(subject, problem, fix, where=short(where)) from None


def check_choice(subject: str, what: str, value: Any, known: tuple[str, ...], where: str) -> None:
    if value not in known:
        listed = ", ".join(f'"{name}"' for name in known)
        raise DefinitionError(
            subject, f"{what} is one of {listed}, got {value!r}", did_you_mean(value, known), where=where
        )
