"""Verbs of segments: segment list, show, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from segments.audience import Audience


_purpose = click.option(
    "--purpose", default=None, help="What for: who did not agree to it is left out (default: as the segment says)."
)

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
    """Export the members of a segment, or of a rule, to a CSV file: profile_id and attributes."""
    from foretell.project import Project
    from lake.audit import note
    from segments.audience import audience
    from segments.audience import export as write

    home = Project.find(project)
    found = audience(home, name, list(columns) or None, purpose)
    note(home, "foretell segment export", found.members["profile_id"], _SCOPES)
    click.echo(f"wrote {write(found, file):,} members to {file}{_refused(found)}")


def _refused(found: Audience) -> str:
    return f"; {found.without_consent:,} more did not agree to {found.purpose}" if found.without_consent else ""


COMMANDS = [segment]
