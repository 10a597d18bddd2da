"""What can go wrong, said in one way: what was expected, what came, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetellError(Exception):
    """Root of every error Foretell raises on purpose. The CLI prints it without a traceback and exits with 2.

    subject: what the error is about ("churn", "sources/till.py"); problem: what was expected and what came;
    fix: what the reader can do about it.
    """

    def __init__(self, subject: str, problem: str, fix: str = "", *, where: str = ""):
        self.subject, self.problem, self.fix, self.where = subject, problem, fix, where
        text = f"{subject}: {problem}"
        if fix:
            text += f"; {fix}"
        if where:
            text += f". ({where})"
        super().__init__(text)


class DefinitionError(ForetellError):
    """A declaration (source, view, label, task, segment) is wrong in itself or does not fit its source."""


class DataError(ForetellError, ValueError):
    """Data that came in, or that a computation met, cannot be used as they are.

    A ValueError too: that is what whoever uses an estimator by scikit-learn's rules expects of it.
    """


class UnknownName(ForetellError):
    """A name nobody declared. Build it with `unknown`, which suggests the nearest known one."""


class NotReady(ForetellError):
    """An earlier step has not been done yet: nothing loaded, nothing trained."""


class Busy(ForetellError):
    """Another process is writing to this home."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` with the nearest known name, else the list of known names."""
    names = sorted(set(known))
    if near := difflib.get_close_matches(str(name), names, n=1):
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(names)}" if names else "none is known yet"


def unknown(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UnknownName:
    """An UnknownName for a `kind` ("task", "column", …) with a suggestion.

    >>> raise unknown("task", "chrun", ["churn", "clv"])
    Traceback (most recent call last):
    ...
    foretell.errors.UnknownName: chrun: no such task; did you mean "churn"?
    """
    return UnknownName(name, f"no such {kind}", did_you_mean(name, known), where=where)
