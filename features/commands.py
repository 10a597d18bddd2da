"""Verbs of the feature store: features."""

from __future__ import annotations

from datetime import datetime

import click

from foretell.console import engine


@click.group()
def features() -> None:
    """What was known about profiles at any instant."""


@features.command(name="list")
@click.argument("view", required=False)
@click.pass_obj
def list_(project: str | None, view: str | None) -> None:
    """List every feature view with its version and features; of one VIEW, what each feature means.

    A window of "30 and 60 days" compares the last 30 days with the time before. Null says what a missing value means.
    """
    from features.build import types, versioned
    from foretell.console import table
    from foretell.project import Project

    known = Project.find(project).definitions
    if view:
        found = known.view(view)
        kinds = types(found, dict(known.sources))
        click.echo(f"{versioned(found, dict(known.sources))}: {found.description}")
        rows = [(name, found.docs.get(name), found.window(name)) for name in found.features]
        table(
            ["feature", "what", "unit", "window", "null", "type"],
            [(n, d.what if d else "", d.unit if d else "", window, d.null or "never" if d else "", kinds[n])
             for n, d, window in rows],
        )  # fmt: skip
        return
    table(
        ["view", "version", "of", "source", "features"],
        [(v.name, versioned(v, dict(known.sources)), v.entity, ", ".join(v.roles), ", ".join(v.features))
         for v in known.views.values()],
    )  # fmt: skip
    for name, reason in known.idle.items():
        click.echo(f"- {name} is left out: {reason}")


@features.command()
@click.pass_obj
def apply(project: str | None) -> None:
    """Register today's views and the tasks' feature services in Feast. Training and scoring do this by themselves.

    The folder that is printed is a Feast repository: `feast -c FOLDER feature-views list` and the rest of Feast's own
    command line work there. Older versions stay, so that models trained on them go on.
    """
    from features.store.repository import apply as register
    from features.store.repository import versions
    from foretell.console import progress
    from foretell.project import Project

    home = Project.find(project)
    with home.writing("features apply"), progress("registering in Feast"):
        before = versions(home)
        register(home, home.definitions.tasks.values(), home.definitions.views.values())
        now = versions(home)
    for name in sorted(now - before):
        click.echo(f"+ {name}")
    click.echo(
        f"{len(now - before)} registered, {len(now & before)} were there; Feast repository: {home.home / 'feast'}"
    )


@features.command()
@click.option(
    "--at", "cutoffs", type=click.DateTime(), multiple=True, help="Cutoff, UTC; may be repeated (default: now)."
)
@engine
@click.pass_obj
def build(project: str | None, cutoffs: tuple[datetime, ...], engine: str | None) -> None:
    """Build every view as of one or more cutoffs. Training and scoring do this by themselves.

    The files are the same whatever engine makes them, and read alike; those that are up to date are not made again.

    \b
    Examples:
      foretell features build --at 2024-01-01 --at 2024-04-01
      foretell features build --engine spark     on the Spark of the setting spark_master
    """
    from datetime import UTC

    from features.build import build as run
    from foretell.console import progress
    from foretell.project import Project

    home = Project.find(project).told(engine=engine)
    wanted = [c.replace(tzinfo=UTC) for c in cutoffs] or [home.now]
    with home.writing("features build"), progress("building") as step:
        made = run(home, home.definitions.views.values(), wanted, step)
    click.echo(f"{made} of {len(wanted) * len(home.definitions.views)} built, the rest was up to date")


@features.command()
@click.argument("view")
@click.option("--at", type=click.DateTime(), help="Cutoff, UTC (default: now).")
@click.option("--against", type=click.DateTime(), help="Earlier cutoff, UTC (default: 90 days before).")
@click.option("--picture", type=click.Path(dir_okay=False), help="Draw the distributions into this file (orders.png).")
@click.pass_obj
def describe(
    project: str | None, view: str, at: datetime | None, against: datetime | None, picture: str | None
) -> None:
    """Show how the features of VIEW are distributed, how many are missing, and whether they drift.

    drift is the population stability index against the earlier cutoff: below 0.1 nothing happened, above 0.25 much did.
    """
    from datetime import UTC, timedelta

    from features.describe import describe as run
    from features.describe import picture as draw
    from features.describe import rows_of
    from foretell.console import progress, table
    from foretell.project import Project

    home = Project.find(project)
    found = home.definitions.view(view)
    now = at.replace(tzinfo=UTC) if at else home.now
    then = against.replace(tzinfo=UTC) if against else now - timedelta(days=90)
    with home.writing("features describe"), progress("building") as step:
        rows, before = rows_of(home, found, now, step), rows_of(home, found, then, step)
    said = f"{len(rows):,} profiles at {now:%Y-%m-%d}, {len(before):,} at {then:%Y-%m-%d}"
    click.echo(f"{found.name}: {found.description}\n{said}")

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")

    table(
        ["feature", "missing", "zero", "5%", "median", "95%", "most often", "drift", ""],
        [(d.feature, f"{d.missing:.1%}", f"{d.zero:.1%}" if d.kind == "number" else "", number(d.low), number(d.middle),
          number(d.high), d.top or "", "" if d.psi is None else f"{d.psi:.2f}", d.drift)
         for d in run(found, rows, before)],
    )  # fmt: skip
    if picture:
        drawn = draw(
            found, rows, before, f"{found.name}: {said}", "% of the profiles; blue: at the cutoff, grey: earlier"
        )
        drawn.savefig(picture)
        click.echo(f"Picture: {picture}")


@features.command()
@click.argument("profile")
@click.argument("feature")
@click.option("--at", type=click.DateTime(), help="Cutoff, UTC (default: now).")
@click.option("--all", "everything", is_flag=True, help="Every fact, not only the latest 20.")
@click.pass_obj
def explain(project: str | None, profile: str, feature: str, at: datetime | None, everything: bool) -> None:
    """List the events behind FEATURE of PROFILE (an id, old or new, or an identifier such as an e-mail).

    alone is the value if the event were the only one, without what is left when it is taken away.
    """
    from datetime import UTC

    from features.explain import behind
    from foretell.console import table
    from foretell.project import Project

    home = Project.find(project)
    cutoff = at.replace(tzinfo=UTC) if at else home.now
    found = behind(home, profile, feature, cutoff)

    def shown(value: object) -> str:
        return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)

    click.echo(
        f"{feature} of {found.profile} at {cutoff:%Y-%m-%d %H:%M}: {shown(found.value)} ({found.view}); "
        f"without any fact it would be {shown(found.empty)}"
    )
    click.echo(f"{len(found.facts):,} of the {found.seen:,} facts that the view sees are behind it")
    some = found.facts if everything else found.facts[:20]
    if some:
        table(
            ["event", "source", *found.columns, "alone", "without"],
            [(f"{f['event_at']:%Y-%m-%d %H:%M}", f["source"], *(shown(f[c]) for c in found.columns), shown(f["alone"]),
              shown(f["without"])) for f in some],
        )  # fmt: skip
    if len(some) < len(found.facts):
        click.echo(f"… and {len(found.facts) - len(some):,} more (--all)")


COMMANDS = [features]
