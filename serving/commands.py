"""Verbs of serving: score, serve, profile, status."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import click

from serving import rights


@click.command()
@click.argument("tasks", nargs=-1)
@click.option("--at", type=click.DateTime(), default=None, help="Cutoff T, UTC (default: the project's now).")
@click.option("--profile", default=None, help="One profile, by id or any identifier: its score from the online store.")
@click.option("--segment", default=None, help="Only the members of a segment, or of a rule such as \"city = 'Oslo'\".")
@click.pass_obj
def score(
    project: str | None, tasks: tuple[str, ...], at: datetime | None, profile: str | None, segment: str | None
) -> None:
    """Score everyone eligible with the champions of TASKS (default: all trained), and write the scores.

    A task with targets stands for them too. The scores of a --segment say its members' percentile among everyone
    eligible: a percentile means the same whoever is asked about.

    Each score is kept with its contract: value, percentile, base rate, reasons, versions, cutoff, expiry, features. It
    is an attribute of its profile at once. Safe to stop and run again at any point: no score is lost or doubled.

    \b
    Examples:
      foretell score                               everyone, every task
      foretell score churn --profile jo@home.org   one person, with reasons, as JSON
      foretell score clv --segment big_spenders    the members of a segment
    """
    from foretell.console import progress, table
    from foretell.errors import NotReady
    from foretell.project import Project
    from models.registry import quietly, trained_at

    if profile and at:
        raise click.UsageError("--at does not go with --profile: one profile is scored as of the last batch")
    if segment is not None and (profile or at):
        raise click.UsageError("--segment goes neither with --profile nor with --at: its members are those of now")
    home = Project.find(project)
    names = list(tasks) or [t for t in home.definitions.tasks if quietly(lambda t=t: trained_at(home, t))]
    if not names:
        raise NotReady("score", "nothing is trained yet", "run `foretell train` first")
    if profile:
        from serving.score import score_one

        with progress(f"scoring {profile}"):
            answers = [score_one(home, name, profile) for name in names]
        for answer in answers:
            features = {name: value if math.isfinite(value) else None for name, value in answer["features"]}
            click.echo(json.dumps({**answer, "features": features}, indent=2, default=_text, allow_nan=False))
        return
    from serving.score import score as run

    with home.writing("score"), progress("scoring") as step:
        found = run(home, names, at.replace(tzinfo=UTC) if at else None, step, segment)
    table(
        ["task", "eligible", "new scores", "mean", "champion", "cutoff"],
        [
            (
                s.task,
                f"{s.eligible:,}",
                f"{s.added:,}",
                f"{s.mean:.4g}",
                f"{s.estimator} v{s.version}",
                f"{s.cutoff:%Y-%m-%d}",
            )
            for s in found
        ],
    )
    for s in found:
        if s.without_consent:
            purpose = home.definitions.task(s.task).purpose
            click.echo(f"- {s.without_consent:,} more are not scored for {s.task}: no consent to {purpose}")
        if s.members is not None and s.members > s.eligible:
            population = home.definitions.task(s.task).population
            click.echo(
                f"- {s.members - s.eligible:,} of {s.members:,} members are not eligible for {s.task} ({population})"
            )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that answer.")
@click.pass_obj
def serve(project: str | None, host: str, port: int, workers: int) -> None:
    """Answer over HTTP: scores computed from the features online, profiles, tasks and segments.

    What is scored later is served at once, without a restart; so is a new champion, from its first `foretell score` on.
    Its log has no personal data, and it asks nobody for a password: let it be reached only by those who may ask.

    \b
    Example:
      foretell serve --port 8080
    """
    from foretell.console import progress
    from foretell.project import Project
    from serving.serve import check_port, prepare, run

    home = Project.find(project)
    host = "127.0.0.1" if host == "localhost" else host
    check_port(host, port)
    with progress("publishing") as step:
        example = prepare(home, step)
    click.echo(f"Starting the service of {home.folder} on {host}:{port} …")
    run(home, host, port, workers, example)


@click.command()
@click.argument("who")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_obj
def profile(project: str | None, who: str, as_json: bool) -> None:
    """Show one person: traits and where they come from, identifiers, scores with reasons, segments.

    WHO is a profile id (an old one too) or any identifier: an e-mail, a card number, `phone:6145550123`.
    """
    from foretell.console import progress
    from foretell.project import Project
    from serving.profile import page, show

    with progress(who):
        found = page(Project.find(project), who)
    click.echo(json.dumps(found, indent=2, default=_text)) if as_json else show(found)


@click.command()
@click.pass_obj
def status(project: str | None) -> None:
    """Show settings with their origin, what is declared, loaded, trained and scored, and what comes next."""
    from foretell.console import table
    from foretell.project import Project
    from serving.status import collect

    found = collect(Project.find(project))
    click.echo(f"Project {found.folder}, now {found.now:%Y-%m-%d %H:%M} UTC\n")
    table(["setting", "value", "from"], found.settings)
    click.echo()
    table(["source", "files", "facts", "quarantined", "last load"], found.sources)
    click.echo()
    table(["task", "population", "horizon", "champion", "scores"], found.tasks)
    for line in found.notes:
        click.echo(f"- {line}")
    click.secho(f"\nNext: {found.next}", bold=True)


def _text(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


COMMANDS = [score, serve, profile, status, *rights.COMMANDS]
