"""What happens when somebody says yes or no? It is written down, and the service knows at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from foretell.errors import DataError
from foretell.project import Project
from lake import consent
from lake.engine import session
from serving.http.index import file_of
from serving.publish import publish
from unification.consent import without
from unification.identity import ensure, node_of, resolve


@dataclass(frozen=True)
class Said:
    """profile: who said it. allowed: may they be used for the purpose now. new: nobody was asked about it before."""

    profile: str
    allowed: bool
    new: bool


def say(
    project: Project, who: str, purpose: str, granted: bool, because: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Said:  # fmt: skip
    """Write down that a person gave or withdrew consent to a purpose, from now on. Raises UnknownName for nobody.

    who: a profile id or any identifier. It holds for the whole profile that the identifier is of.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", purpose):
        raise DataError(purpose, "a purpose is lower-case letters, digits and _, starting with a letter", "rename it")
    ensure(project)
    with session(project) as con:
        profile, node = resolve(con, project, who), node_of(con, project, who)
        known = consent.purposes(project, con)
    consent.say(project, node, purpose, granted, reason=because)
    with session(project) as con:
        allowed = not without(con, project, purpose, project.now, [profile])
    if file_of(project).exists():
        publish(project, progress)
    return Said(profile, allowed, purpose not in known)
