"""Who may be used for a purpose at T? The one answer that training sets, scores and audiences ask for.

The state of a profile at T is what was said last (by `event_at`; of two at once what came last) among what was known
before T, by any of its identifiers as known at T. A purpose is opt-in, which needs a grant, or opt-out, which a
withdrawal ends. Whatever is known later cannot add anybody to a past T: a grant counts from when it was known. But **a
withdrawal reaches back**: who has withdrawn by now is left out at every T, under whatever profile they were known then.
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from foretell.project import Project
from lake import consent
from lake.engine import instant
from unification.identity import members_at


def barred(con: duckdb.DuckDBPyConnection, project: Project, purpose: str, at: datetime) -> str | None:
    """SQL for `profile_id` of the profiles as known at T that must not be used for a purpose; None: it is open to all.

    con: a lake session.
    """
    rule = consent.purposes(project, con).get(purpose)
    if rule is None:
        return None
    now = project.now
    then = f"SELECT profile_id FROM ({_said(purpose, at)}) WHERE NOT granted"
    if rule == "opt-in":
        granted = f"SELECT profile_id FROM ({_said(purpose, at)}) WHERE granted"
        then = f"SELECT DISTINCT profile_id FROM ({members_at(at)}) WHERE profile_id NOT IN ({granted})"
    if at >= now:
        return then
    return f"""{then} UNION SELECT t.profile_id FROM ({members_at(at)}) t JOIN ({members_at(now)}) n USING (node)
        JOIN ({_said(purpose, now)}) s ON s.profile_id = n.profile_id WHERE NOT s.granted"""


def _said(purpose: str, at: datetime) -> str:
    """SQL: profile_id and granted, of the profiles at T that have said something known before T."""
    return f"""SELECT m.profile_id, max_by(c.granted, (c.event_at, c.known_at, c.received_at, NOT c.granted)) AS granted
        FROM consents c JOIN ({members_at(at)}) m USING (node)
        WHERE c.purpose = '{purpose.replace("'", "''")}' AND c.known_at < {instant(at)} AND c.event_at < {instant(at)}
        GROUP BY 1"""


def without(
    con: duckdb.DuckDBPyConnection, project: Project, purpose: str, at: datetime, profiles: list[str]
) -> set[str]:  # fmt: skip
    """Those of these profiles, as known at T, that must not be used for the purpose."""
    if not profiles or (query := barred(con, project, purpose, at)) is None:
        return set()
    return {profile for (profile,) in con.execute(query).fetchall()}.intersection(profiles)


def history(con: duckdb.DuckDBPyConnection, project: Project, profile: str) -> list[dict]:
    """All that a profile of today has said, the latest first: purpose, granted, event_at, known_at, source, fact_id."""
    found = con.execute(
        f"""SELECT purpose, granted, event_at, known_at, source, fact_id FROM consents
            WHERE node IN (SELECT node FROM ({members_at(project.now)}) WHERE profile_id = ?)
            ORDER BY event_at DESC, known_at DESC, received_at DESC, granted, fact_id""",
        [profile],
    )
    names = [d[0] for d in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
