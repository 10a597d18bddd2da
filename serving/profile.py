"""What do we know about one person? Traits with provenance, identifiers, scores with reasons, segments."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from foretell.console import table, worth
from foretell.project import Project
from lake.consent import purposes
from lake.engine import instant, session
from segments import attributes
from segments.audience import selections
from unification.consent import without
from unification.history import history
from unification.identity import members_at, resolve

# Of every profile at once; one profile's page is a filter on these, the service's index a copy.
TRAITS = """SELECT profile_id, attribute, value, source, known_at, distinct_values FROM golden
    WHERE source <> 'identity graph'"""


def identifiers(project: Project) -> str:
    """SQL: profile_id, identifier, known_since, and the source of the first link that names it."""
    return f"""SELECT t.profile_id, t.node AS identifier, f.known_since, e.source FROM ({members_at(project.now)}) t
        JOIN (SELECT node, min(known_from) AS known_since FROM member GROUP BY 1) f USING (node)
        LEFT JOIN (SELECT node, min_by(source, (known_at, source)) AS source FROM (
            SELECT a AS node, source, known_at FROM edges WHERE known_at < {instant(project.now)}
            UNION ALL SELECT b, source, known_at FROM edges WHERE known_at < {instant(project.now)}) GROUP BY 1
        ) e USING (node)"""


def former_ids(project: Project) -> str:
    """SQL: profile_id and each id that it had before a merge."""
    return f"""SELECT DISTINCT t.profile_id, a.loser AS former_id FROM ({members_at(project.now)}) t
        JOIN alias a ON a.loser = t.birth_id WHERE a.known_at < {instant(project.now)}
        AND (a.known_to IS NULL OR a.known_to >= {instant(project.now)})"""


def page(project: Project, who: str) -> dict[str, Any]:
    """Everything about a profile: profile_id, traits, identifiers, scores, segments, former_ids, consents.

    consents: purpose -> may it be used for that now, of every purpose that somebody was asked about.

    who: a profile id, an old one, or any identifier ("jo@example.org", "loyalty_card:40001234").
    """
    with session(project) as con:
        profile = resolve(con, project, who)

        def rows(query: str, order: str) -> list[dict[str, Any]]:
            own = f"SELECT * EXCLUDE (profile_id) FROM ({query}) WHERE profile_id = ? ORDER BY {order}"
            found = con.execute(own, [profile])
            names = [d[0] for d in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        schema = attributes.create(con, project)
        inside = [
            segment.name
            for segment, query in selections(con, project, schema)
            if isinstance(query, str)
            and con.execute(f"SELECT 1 FROM ({query}) WHERE profile_id = ?", [profile]).fetchall()
        ]
        return {
            "profile_id": profile,
            "traits": rows(TRAITS, "attribute"),
            "identifiers": rows(identifiers(project), "known_since, identifier"),
            "former_ids": [row["former_id"] for row in rows(former_ids(project), "former_id")],
            "scores": attributes.scores_of(con, project, profile),
            "segments": inside,
            "consents": {
                purpose: not without(con, project, purpose, project.now, [profile])
                for purpose in sorted(purposes(project, con))
            },
        }


def past(project: Project, who: str, attribute: str | None = None) -> dict[str, Any]:
    """Every value that a profile's traits (or one) had: profile_id, history (see unification.history.Value)."""
    with session(project) as con:
        profile = resolve(con, project, who)
    return {"profile_id": profile, "history": [asdict(value) for value in history(project, profile, attribute)]}


def show_past(found: dict[str, Any]) -> None:
    """Print the history of a profile's traits; * marks the values that survive now."""
    click.secho(f"Profile {found['profile_id']}", bold=True)
    click.echo()
    table(
        ["", "trait", "value", "from", "facts", "first said", "last said", "survived"],
        [
            (
                "*" if v["survived"] and v["survived"][-1][1] is None else "",
                v["attribute"], v["value"], v["source"], v["facts"], f"{v['first_seen']:%Y-%m-%d}",
                f"{v['last_seen']:%Y-%m-%d}", ", ".join(_span(*span) for span in v["survived"]) or "never",
            )
            for v in found["history"]
        ],
    )  # fmt: skip


def _span(begin: datetime, end: datetime | None) -> str:
    return f"{begin:%Y-%m-%d} … {f'{end:%Y-%m-%d}' if end else 'now'}"


def show(found: dict[str, Any]) -> None:
    """Print a profile's page."""
    click.secho(f"Profile {found['profile_id']}", bold=True)
    if found["former_ids"]:
        click.echo(f"formerly {', '.join(found['former_ids'])}")
    click.echo()
    table(
        ["trait", "value", "from", "known since"],
        [(t["attribute"], t["value"], _origin(t), f"{t['known_at']:%Y-%m-%d}") for t in found["traits"]],
    )
    click.echo()
    table(
        ["identifier", "known since", "linked by"],
        [(i["identifier"], f"{i['known_since']:%Y-%m-%d}", i["source"] or "") for i in found["identifiers"]],
    )
    for score in found["scores"]:
        value, rate = (worth(score["kind"], score[what]) for what in ("value", "base_rate"))
        if score.get("value_low") is not None and score.get("value_high") is not None:
            low, high = (worth(score["kind"], score[end]) for end in ("value_low", "value_high"))
            value += f" [{low.removesuffix(' days')}, {high.removesuffix(' days')}]"
        click.secho(f"\n{score['task']} {value}", bold=True, nl=False)
        click.echo(
            f"  percentile {score['percentile']:.0f} of those scored; base rate {rate}; {score['estimator']} "
            f"v{score['model_version']}, as of {score['cutoff']:%Y-%m-%d}, expires {score['expires_at']:%Y-%m-%d}"
        )
        for reason in score["reasons"] or []:
            click.echo(f"  - {reason['text']}")
        unsaid = "" if score["reasons"] is not None else "; `foretell score explain` with it says why"
        click.echo(f"  score id {score['score_id']}{unsaid}")
    if found["consents"]:
        said = ", ".join(f"{purpose} {'yes' if yes else 'no'}" for purpose, yes in found["consents"].items())
        click.echo(f"\nConsent: {said}")
    click.echo(f"\nSegments: {', '.join(found['segments']) or 'none'}")


def _origin(trait: dict[str, Any]) -> str:
    others = trait["distinct_values"] - 1
    return trait["source"] + (f" ({others} other value{'s' if others > 1 else ''})" if others else "")
