"""Verbs of serving: score, score explain, run, serve, profile, status. (Watching, rights, access: in own files.)"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from foretell.console import engine
from serving import rights, watch
from serving.access import commands as access
from serving.fresh import commands as fresh

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class _Score(click.Command):
    """`score TASKS`, but `score explain ID` where the first word is no task."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        if args and args[0] == "explain":
            return explain.make_context(f"{info_name} explain", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Score)
@click.argument("tasks", nargs=-1)
@click.option("--at", type=click.DateTime(), default=None, help="Cutoff T, UTC (default: the project's now).")
@click.option("--profile", default=None, help="One profile, by id or any identifier: its score from the online store.")
@click.option("--segment", default=None, help="Only the members of a segment, or of a rule such as \"city = 'Oslo'\".")
@click.option("--reasons", default=None, metavar="WHOSE",
              help="Whose scores say why: all, none, top:0.05 (of each task), or a segment's. Default: all, or the top "
              "twentieth of many.")  # fmt: skip
@engine
@click.pass_obj
def score(
    project: str | None, tasks: tuple[str, ...], at: datetime | None, profile: str | None, segment: str | None,
    reasons: str | None, engine: str | None,
) -> None:  # fmt: skip
    """Score everyone eligible with the champions of TASKS (default: all trained), and write the scores.

    A task with targets stands for them too. The scores of a --segment say its members' percentile among everyone
    eligible: a percentile means the same whoever is asked about.

    Each score is kept with its contract: value, percentile, base rate, reasons, versions, cutoff, expiry, features. It
    is an attribute of its profile at once. Safe to stop and run again at any point: it goes on where it was, and no
    score is lost or doubled. Who is eligible, but of whom nothing is known, gets no number: insufficient evidence.

    `foretell score explain ID` says of any score, old or new, where it comes from.

    \b
    Examples:
      foretell score                               everyone, every task
      foretell score churn --profile jo@home.org   one person, with reasons, as JSON
      foretell score clv --segment big_spenders    the members of a segment
      foretell score --reasons top:0.02            reasons for the top 2% of each task only
      foretell score --engine spark                everyone is read and answered by Spark's workers
    """
    from foretell.console import progress, table
    from foretell.errors import NotReady
    from foretell.project import Project
    from models.registry import quietly, trained_at

    if profile and at:
        raise click.UsageError("--at does not go with --profile: one profile is scored as of the last batch")
    if profile and reasons:
        raise click.UsageError("--reasons does not go with --profile: one profile's scores always say why")
    if segment is not None and (profile or at):
        raise click.UsageError("--segment goes neither with --profile nor with --at: its members are those of now")
    home = Project.find(project).told(engine=engine)
    names = list(tasks) or [t for t in home.definitions.tasks if quietly(lambda t=t: trained_at(home, t))]
    if not names:
        raise NotReady("score", "nothing is trained yet", "run `foretell train` first")
    if profile:
        from lake.audit import note
        from serving.score import score_one

        with progress(f"scoring {profile}"):
            answers = [score_one(home, name, profile) for name in names]
        note(home, "foretell score --profile", [answer["profile_id"] for answer in answers], ["score"])
        for answer in answers:
            features = {name: value if math.isfinite(value) else None for name, value in answer["features"]}
            click.echo(json.dumps({**answer, "features": features}, indent=2, default=_text, allow_nan=False))
        return
    from serving.reasons import FEW
    from serving.score import score as run

    with home.writing("score"), progress("scoring") as step:
        found = run(home, names, at.replace(tzinfo=UTC) if at else None, step, segment, reasons)
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
    if (added := sum(s.added for s in found)) and (found[0].said != "all" or added > FEW):
        cost = f"{sum(s.reasons for s in found):,} of {added:,}: {sum(s.seconds for s in found):.1f} s"
        click.echo(f"- reasons for {cost} (--reasons {found[0].said}); `foretell score explain ID` says any other's")
    for s in found:
        if s.insufficient:
            click.echo(
                f"- {s.insufficient:,} have no score of {s.task}, insufficient evidence: no fact of theirs is known to "
                f"{', '.join(s.lacking)}"
            )
        if s.edited:
            click.echo(
                f"- {s.task} v{s.version} sees {', '.join(s.edited)} as when it was trained; "
                f"`foretell train {s.task}` takes up the change"
            )
        if s.without_consent:
            purpose = home.definitions.task(s.task).purpose
            click.echo(f"- {s.without_consent:,} more are not scored for {s.task}: no consent to {purpose}")
        if s.members is not None and s.members > s.eligible:
            population = home.definitions.task(s.task).population
            click.echo(
                f"- {s.members - s.eligible:,} of {s.members:,} members are not eligible for {s.task} ({population})"
            )


@click.command()
@click.argument("score_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_obj
def explain(project: str | None, score_id: str, as_json: bool) -> None:
    """Explain the score of an ID: what it said, whether it comes out again, and the facts behind its reasons.

    The model that gave it is asked again about the row that it was given; the row is made again from the facts, and
    what is another by now is named: late facts, merges, erasures. Trainings and merges since do not matter.

    \b
    Examples:
      foretell profile jo@home.org                              shows the ids of a person's scores
      foretell score explain bbcad0fa6f74fad8e532e82dfc46b69a
    """
    from foretell.console import progress
    from foretell.project import Project
    from serving.explain import explain as run
    from serving.explain import show

    home = Project.find(project)
    with progress("explaining"):
        found = run(home, score_id)
    click.echo(json.dumps(_plain(found), indent=2, default=_text, allow_nan=False)) if as_json else show(found)


def _plain(value: Any) -> Any:
    """What is not a number is null in JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@click.command()
@click.option("--every", default=None, metavar="TIME", help="Run again at this interval: 30s, 10m, 2h, 1d.")
@click.option(
    "--only", default=None, metavar="STEPS", help="Of load, unify, score, grade only these: --only load,unify"
)
@click.pass_obj
def run(project: str | None, every: str | None, only: str | None) -> None:
    """Keep the project up to date: load what is new of every source, unify, score with the
    champions, and grade the scores whose time has come.

    Without --every it runs once. One command writes at a time: while another does, a run is left out. A source that
    fails does not stop the others, and is tried less and less often while it goes on failing. `foretell status` shows
    the last run, the last error of each source and the next run. SIGTERM ends it between two steps.

    \b
    Examples:
      foretell run                              once, such as from cron
      foretell run --every 10m                  until it is stopped
      foretell run --every 1h --only load,unify
    """
    import sys

    from foretell.console import progress
    from foretell.project import Project
    from serving.run import STEPS, Stop, keep_running, once

    steps = tuple(part.strip() for part in only.split(",")) if only else STEPS
    if wrong := [part for part in steps if part not in STEPS]:
        raise click.UsageError(f"--only: no such step {wrong[0]!r}; steps are {', '.join(STEPS)}")
    steps = tuple(part for part in STEPS if part in steps)
    interval = _interval(every) if every else None
    home = Project.find(project)
    with Stop().listening() as stop, progress("running") as step:
        if interval:
            click.echo(f"Running {', '.join(steps)} every {every}; stop it with Ctrl-C or SIGTERM.")
            keep_running(str(home.folder), steps, interval, stop, say=_tell, step=step)
            return
        _, report = once(home, steps, stop, say=_tell, step=step)
    if report.errors:
        sys.exit(2)
    if not report.stopped and not report.skipped:
        click.echo(f"{report.added:,} new facts.")


def _tell(text: str) -> None:
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  "
    if text.startswith("Error"):
        click.secho(stamp + text, fg="red", err=True)
    else:
        click.echo(stamp + text)


def _interval(text: str) -> timedelta:
    """An interval as it is said on the command line.

    >>> _interval("10m")
    datetime.timedelta(seconds=600)
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit() or not int(number):
        raise click.UsageError(f"--every: expected a number with s, m, h or d, such as 10m, got {text!r}")
    return timedelta(**{units[unit]: int(number)})


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that answer.")
@click.option("--collect", is_flag=True, help="Collect events too, as `foretell collect` does by itself.")
@click.option("--open", "anyone", is_flag=True, help="Ask nobody for a key, wherever it listens: everybody sees all.")
@click.option("--tls-cert", type=_FILE, default=None, help="Certificate to answer by TLS with, in PEM form.")
@click.option("--tls-key", type=_FILE, default=None, help="Its private key, in PEM form.")
@click.pass_obj
def serve(
    project: str | None, host: str, port: int, workers: int, collect: bool, anyone: bool, tls_cert: Path | None,
    tls_key: Path | None,
) -> None:  # fmt: skip
    """Answer over HTTP: scores computed from the features online, profiles, tasks and segments.

    What is scored later is served at once, without a restart; so is a new champion, from its first `foretell score` on.
    Its log has no personal data. Until there is a key (`foretell access create`) or a provider of tokens (the setting
    `oidc`), it listens on this machine only and asks nobody; from then on it asks everybody.

    \b
    Examples:
      foretell serve --port 8080
      foretell access create shop --scope score && foretell serve --host 0.0.0.0 --tls-cert c.pem --tls-key k.pem
    """
    from foretell.console import progress
    from foretell.project import Project
    from serving.serve import Tls, check_open, check_port, prepare, run

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    home = Project.find(project)
    host = "127.0.0.1" if host == "localhost" else host
    tls = Tls(tls_cert, tls_key) if tls_cert and tls_key else None
    if tls:
        tls.check()
    check_open(home, host, open=anyone)
    check_port(host, port)
    with progress("publishing") as step:
        example = prepare(home, step)
    click.echo(f"Starting the service of {home.folder} on {host}:{port} …")
    run(home, host, port, workers, example, collect=collect, open=anyone, tls=tls)


@click.command()
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Folder to write; it must not exist.")
@click.pass_obj
def bento(project: str | None, to: Path) -> None:
    """Pack the service with what is published now, for a machine that has neither the project nor Foretell.

    The folder is a bento: BentoML serves it, and makes an image of it. It answers by this publication for ever; what is
    scored later takes another. Who may ask goes with it. It holds personal data: guard it as you guard the project.

    \b
    Examples:
      foretell bento --to bentos/2024-07-01
      bentoml serve bentos/2024-07-01 --port 3000
      bentoml containerize …                          after `bentoml import`, see BentoML
    """
    from foretell.console import progress
    from foretell.project import Project
    from serving.bento import build

    with progress("packing"):
        tag, folder = build(Project.find(project), to)
    click.echo(f"{tag} in {folder}; serve it with: bentoml serve {folder} --port 3000")


@click.command()
@click.argument("who")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--history", "past_of", is_flag=False, flag_value="", metavar="[TRAIT]",
              help="Every value its traits (or one) had: who said it, and when it survived.")  # fmt: skip
@click.pass_obj
def profile(project: str | None, who: str, as_json: bool, past_of: str | None) -> None:
    """Show one person: traits and where they come from, identifiers, scores with reasons, segments.

    WHO is a profile id (an old one too) or any identifier: an e-mail, a card number, `phone:6145550123`.

    \b
    Examples:
      foretell profile jo@home.org                  the person as known now
      foretell profile jo@home.org --history        every value of every trait, and when it was held to be true
      foretell profile jo@home.org --history city   of one
    """
    from foretell.console import progress
    from foretell.project import Project
    from lake.audit import note
    from serving.profile import page, past, show, show_past

    with progress(who):
        home = Project.find(project)
        found = page(home, who) if past_of is None else past(home, who, past_of or None)
        note(home, "foretell profile", [found["profile_id"]], ["personal", "read", "score"])
    if past_of is not None and not as_json:
        show_past(found)
        return
    click.echo(json.dumps(found, indent=2, default=_text)) if as_json else show(found)


@click.command()
@click.pass_obj
def status(project: str | None) -> None:
    """Show settings with their origin, where each part lives and whether it can be reached, what is declared, loaded,
    trained and scored, and what comes next.

    Addresses are shown without user, password and query. A part that cannot be reached is an error that says what to
    mend; what is known without it is shown before.
    """
    from foretell.console import table
    from foretell.project import Project
    from serving.places import places
    from serving.status import collect, settings_of

    home = Project.find(project)
    click.echo(f"Project {home.folder}, now {home.now:%Y-%m-%d %H:%M} UTC\n")
    table(["setting", "value", "from"], settings_of(home))
    click.echo()
    parts = places(home)
    table(["part", "where", "from", "state"], [(one.part, one.where, one.origin, one.state) for one in parts])
    click.echo()
    if failed := [one.error for one in parts if one.error]:
        for error in failed[:-1]:
            click.secho(f"Error: {error}", fg="red", err=True)
        raise failed[-1]
    found = collect(home)
    table(["source", "files", "facts", "quarantined", "last load"], found.sources)
    click.echo()
    table(["task", "population", "horizon", "champion", "scores"], found.tasks)
    for line in found.notes:
        click.echo(f"- {line}")
    click.secho(f"\nNext: {found.next}", bold=True)


def _text(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


COMMANDS = [
    score,
    *watch.COMMANDS,
    run,
    serve,
    *fresh.COMMANDS,
    bento,
    profile,
    status,
    *rights.COMMANDS,
    *access.COMMANDS,
]
