"""Verbs of segments: segment list, show, size, overlap, export, refresh, history, trend, why, earned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from segments.audience import Audience
    from segments.control import Handed


_purpose = click.option(
    "--purpose", default=None, help="What for: who did not agree to it is left out (default: as the segment says)."
)
_plot = click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file (x.png).")

_SCOPES = ("personal", "read", "score")  # an attribute may be a trait or a score


@click.group()
def segment() -> None:
    """Rules over traits, behaviour and scores, and who satisfies them now.

    A rule is one true/false expression: `churn > 0.6 and top(clv, 0.2) and city = 'Oslo'`. Where it meets a missing
    value it does not select. Declare one in the project's segments/ folder as YAML, or give it instead of a name.
    """


@segment.command(name="list")
@click.pass_obj
def list_(project: str | None) -> None:
    """List the declared segments with their size now."""
    from foretell.console import table
    from foretell.project import Project
    from segments.audience import sizes

    rows = sizes(Project.find(project))
    table(
        ["segment", "size", "share", "rule", "description"],
        [
            (s.name, f"{n:,}", f"{n / max(total, 1):.1%}", s.rule.text, s.description)
            if isinstance(n, int)
            else (s.name, "?", "", s.rule.text, s.description)
            for s, n, total in rows
        ],
    )
    for segment, problem, _ in rows:
        if not isinstance(problem, int):
            click.echo(f"- {segment.name} cannot be sized: {problem}")


@segment.command()
@click.argument("name")
@click.option("--limit", default=10, show_default=True, help="How many members to show.")
@click.option(
    "--with", "columns", multiple=True, help="Attribute to show; may be repeated (default: those of the rule)."
)
@_purpose
@click.pass_obj
def show(project: str | None, name: str, limit: int, columns: tuple[str, ...], purpose: str | None) -> None:
    """Show the size and some members of a segment, or of a rule: `foretell segment show "churn > 0.5"`."""
    from foretell.console import table
    from foretell.project import Project
    from lake.audit import note
    from segments.audience import audience

    home = Project.find(project)
    found = audience(home, name, list(columns) or None, purpose)
    shown = found.members.head(limit)
    note(home, "foretell segment show", shown["profile_id"], _SCOPES)
    click.echo(f"{len(found.members):,} of {found.total:,} profiles{_refused(found)}")
    table(
        list(shown.columns),
        [[f"{c:.4g}" if isinstance(c, float) else c for c in row] for row in shown.itertuples(index=False)],
    )


@segment.command()
@click.argument("name")
@click.option("--to", "file", type=click.Path(path_type=Path), required=True, help="CSV file to write.")
@click.option("--with", "columns", multiple=True, help="Attribute to export, such as email; may be repeated.")
@_purpose
@click.pass_obj
def export(project: str | None, name: str, file: Path, columns: tuple[str, ...], purpose: str | None) -> None:
    """Export the members of a segment, or of a rule, to a CSV file: profile_id and attributes.

    If the segment's file says `control: 0.1`, a tenth is held out: drawn once for each person, the same at every
    export, and kept, so that `foretell segment earned` can say what the others did more.

    \b
    Examples:
      foretell segment export worth_keeping --to audience.csv --with email
      foretell segment export "churn > 0.5" --to leaving.csv --purpose email
    """
    from foretell.project import Project
    from lake.audit import note
    from segments.control import hand_out

    home = Project.find(project)
    with home.writing("segment export"):
        found = hand_out(home, name, file, list(columns) or None, purpose)
    note(home, "foretell segment export", found.profiles, _SCOPES)
    click.echo(f"wrote {found.members:,} members to {file}{_refused(found)}")
    if found.share:
        click.echo(
            f"{found.held_out:,} are held out as control ({found.share:.0%}): do not reach them otherwise either"
        )


@segment.command()
@click.argument("name")
@_purpose
@click.pass_obj
def size(project: str | None, name: str, purpose: str | None) -> None:
    """How many would it be? For a segment or a rule, before it is saved: what each of its conditions leaves.

    \b
    Examples:
      foretell segment size worth_keeping
      foretell segment size "churn > 0.6 and top(clv, 0.2) and city = 'Oslo'" --purpose email
    """
    from foretell.project import Project
    from segments import show
    from segments.sizing import size as count

    show.size(count(Project.find(project), name, purpose))


@segment.command()
@click.argument("names", nargs=-1)
@click.pass_obj
def overlap(project: str | None, names: tuple[str, ...]) -> None:
    """How many people do segments share? A matrix of counts and one of shares (default: of all declared segments).

    \b
    Examples:
      foretell segment overlap                     any two of all
      foretell segment overlap big_spenders leaving
    """
    from foretell.project import Project
    from segments import show
    from segments.sizing import overlap as count

    show.overlap(count(Project.find(project), names))


@segment.command()
@click.pass_obj
def refresh(project: str | None) -> None:
    """Write down who entered and left each declared segment since the last time. Asked twice it adds nothing.

    \b
    Examples:
      foretell segment refresh     after scoring, or from cron; `segment history` and `segment trend` read it
    """
    from foretell.console import progress
    from foretell.project import Project
    from segments import show
    from segments.history import record

    home = Project.find(project)
    with home.writing("segment refresh"), progress("segments") as step:
        found = record(home, step)
    show.refreshed(found)


@segment.command()
@click.argument("name")
@_plot
@click.pass_obj
def history(project: str | None, name: str, plot: Path | None) -> None:
    """Show how big a segment was at each refresh, how many entered and left, and by which rule (its digest).

    \b
    Examples:
      foretell segment history worth_keeping --plot worth_keeping.png
    """
    from foretell.project import Project
    from segments import show
    from segments.history import history as refreshes

    found = refreshes(Project.find(project), [name])
    show.history(found)
    if plot:
        from segments.plots import history as draw

        draw(found).savefig(plot)
        click.echo(f"Picture: {plot}")


@segment.command()
@click.argument("names", nargs=-1)
@_plot
@click.pass_obj
def trend(project: str | None, names: tuple[str, ...], plot: Path | None) -> None:
    """Show the sizes of several segments over their refreshes (default: of all that have any).

    \b
    Examples:
      foretell segment trend big_spenders leaving --plot trend.png
    """
    from foretell.project import Project
    from segments import show
    from segments.history import history as refreshes

    found = refreshes(Project.find(project), names or None)
    show.trend(found)
    if plot:
        from segments.plots import trend as draw

        draw(found).savefig(plot)
        click.echo(f"Picture: {plot}")


@segment.command()
@click.argument("name")
@click.argument("who")
@click.option("--events", default=5, show_default=True, help="How many events to list behind each feature.")
@click.option("--json", "machine", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def why(project: str | None, name: str, who: str, events: int, machine: bool) -> None:
    """Why is WHO (an id, old or new, or an identifier such as an e-mail) in a segment, or why not?

    Each condition with the profile's own value, and where that comes from: a trait's source, the events behind a
    feature, a score's contract and reasons.

    \b
    Examples:
      foretell segment why worth_keeping jo@acme.com
      foretell segment why "churn > 0.2 and top(clv, 0.5)" C002091 --json
    """
    from foretell.project import Project
    from lake.audit import note
    from segments import show
    from segments.why import why as ask

    home = Project.find(project)
    found = ask(home, name, who, events)
    note(home, "foretell segment why", [found["profile_id"]], _SCOPES)
    if machine:
        import json

        click.echo(json.dumps(found, indent=2, ensure_ascii=False, default=_plain))
    else:
        show.why(found)


@segment.command()
@click.argument("name")
@click.option("--days", default=30, show_default=True, help="How many days after a person's first export count.")
@click.pass_obj
def earned(project: str | None, name: str, days: int) -> None:
    """What did a segment with a control group earn? Orders and spend of those exported, against those held out.

    \b
    Examples:
      foretell segment earned worth_keeping              the 30 days after each person's first export
      foretell segment earned worth_keeping --days 14
    """
    from foretell.project import Project
    from segments import show
    from segments.earned import earned as compare

    show.earned(compare(Project.find(project), name, days))


def _plain(value: object) -> object:
    """As JSON has it: instants in ISO form, numbers as numbers."""
    from datetime import date
    from decimal import Decimal

    if isinstance(value, date):  # an instant is one too
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else str(value)


def _refused(found: Audience | Handed) -> str:
    return f"; {found.without_consent:,} more did not agree to {found.purpose}" if found.without_consent else ""


COMMANDS = [segment]
