"""What do we know about one person? Traits with provenance, identifiers, scores with reasons, segments."""

from __future__ import annotations

from typing import Any

import click

from foretell.console import table
from foretell.project import Project
from lake.engine import instant, session
from segments import attributes
from segments.audience import declared
from unification.identity import members_at, resolve


def page(project: Project, who: str) -> dict[str, Any]:
    """Everything about a profile: profile_id, traits, identifiers, scores, segments, former_ids.

    who: a profile id, an old one, or any identifier ("jo@example.org", "loyalty_card:40001234").
    """
    with session(project) as con:
        profile = resolve(con, project, who)
        golden = con.execute(
            """SELECT attribute, value, source, known_at, distinct_values FROM golden
               WHERE profile_id = ? AND source <> 'identity graph' ORDER BY attribute""", [profile],
        ).fetchall()  # fmt: skip
        today, now = members_at(project.now), instant(project.now)
        identifiers = con.execute(
            f"""SELECT t.node, min(first.known_from), min_by(e.source, (e.known_at, e.source)) FROM ({today}) t
                JOIN member first USING (node)
                LEFT JOIN edges e ON (e.b = t.node OR e.a = t.node) AND e.known_at < {now}
                WHERE t.profile_id = ? GROUP BY 1 ORDER BY 2, 1""",
            [profile],
        ).fetchall()
        former = con.execute(
            f"""SELECT DISTINCT loser FROM alias WHERE known_at < {now}
                AND loser IN (SELECT birth_id FROM ({today}) WHERE profile_id = ?)""",
            [profile],
        ).fetchall()
        schema = attributes.create(con, project)
        inside = []
        for segment in declared(project).values():
            if (
                segment.rule.columns <= schema.keys()
                and con.execute(
                    f"SELECT 1 FROM ({segment.rule.bind(schema).sql()}) WHERE profile_id = ?", [profile]
                ).fetchall()
            ):
                inside.append(segment.name)
        scores = attributes.scores_of(con, project, profile)
    return {
        "profile_id": profile,
        "traits": [
            dict(zip(("attribute", "value", "source", "known_at", "distinct_values"), g, strict=True)) for g in golden
        ],
        "identifiers": [dict(zip(("identifier", "known_since", "source"), i, strict=True)) for i in identifiers],
        "former_ids": sorted(f for (f,) in former),
        "scores": scores,
        "segments": inside,
    }


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
        value = f"{score['value']:.1%}" if score["kind"] == "probability" else f"{score['value']:,.2f}"
        rate = f"{score['base_rate']:.1%}" if score["kind"] == "probability" else f"{score['base_rate']:,.2f}"
        click.secho(f"\n{score['task']} {value}", bold=True, nl=False)
        click.echo(
            f"  percentile {score['percentile']:.0f} of those scored; base rate {rate}; {score['estimator']} "
            f"v{score['model_version']}, as of {score['cutoff']:%Y-%m-%d}, expires {score['expires_at']:%Y-%m-%d}"
        )
        for reason in score["reasons"]:
            click.echo(f"  - {reason['text']}")
        click.echo(f"  score id {score['score_id']}")
    click.echo(f"\nSegments: {', '.join(found['segments']) or 'none'}")


def _origin(trait: dict[str, Any]) -> str:
    others = trait["distinct_values"] - 1
    return trait["source"] + (f" ({others} other value{'s' if others > 1 else ''})" if others else "")
