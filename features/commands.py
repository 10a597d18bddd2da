"""Verbs of the feature store: features."""

from __future__ import annotations

from datetime import datetime

import click


@click.group()
def features() -> None:
    """What was known about profiles at any instant."""


@features.command(name="list")
@click.pass_obj
def list_(project: str | None) -> None:
    """List every feature view with its version and features."""
    from features.build import versioned
    from foretell.console import table
    from foretell.project import Project

    known = Project.find(project).definitions
    table(
        ["view", "version", "source", "features"],
        [(v.name, versioned(v, dict(known.sources)), v.source, ", ".join(v.features)) for v in known.views.values()],
    )
    for name, reason in known.idle.items():
        click.echo(f"- {name} is left out: {reason}")


@features.command()
@click.option(
    "--at", "cutoffs", type=click.DateTime(), multiple=True, help="Cutoff, UTC; may be repeated (default: now)."
)
@click.pass_obj
def build(project: str | None, cutoffs: tuple[datetime, ...]) -> None:
    """Build every view as of one or more cutoffs. Training and scoring do this by themselves."""
    from datetime import UTC

    from features.build import build as run
    from foretell.console import progress
    from foretell.project import Project

    home = Project.find(project)
    wanted = [c.replace(tzinfo=UTC) for c in cutoffs] or [home.now]
    with home.writing("features build"), progress("building") as step:
        made = run(home, home.definitions.views.values(), wanted, step)
    click.echo(f"{made} of {len(wanted) * len(home.definitions.views)} built, the rest was up to date")


COMMANDS = [features]
