"""Verbs of access: keys of those who ask the service, and the log of who has read whose data."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from serving.access.caller import SCOPES


@click.group()
def access() -> None:
    """Who may ask the service for what, and who has read whose data.

    A key has a name and scopes; none of them includes another. From the first key on, `foretell serve` asks for one.

    \b
    score      scores, with their reasons
    read       profiles, segments and tasks; of a profile no scores, and what is personal is masked
    personal   identifiers and traits as they are, where `read` or `score` has opened the route
    admin      how the service is doing: /metrics
    """


@access.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(list(SCOPES)), help="May be repeated."
)
@click.option("--expires", default=None, metavar="TIME", help="Opens nothing after this time: 12h, 90d, 52w.")
@click.pass_obj
def create(project: str | None, name: str, scopes: tuple[str, ...], expires: str | None) -> None:
    """Make a key called NAME, and print it: it is shown this once, only a digest is kept.

    It is sent as `Authorization: Bearer KEY`. A name is given once. To change a key without a gap, make another, then
    revoke the old one.

    \b
    Examples:
      foretell access create shop_backend --scope score
      foretell access create analyst --scope read --scope score --expires 90d
      foretell access create support --scope read --scope personal
    """
    lasts = _lasts(expires) if expires else None
    text, made = _keys(project).create(name, scopes, lasts)
    click.echo(text)
    until = f" until {made.expires:%Y-%m-%d %H:%M} UTC" if made.expires else ""
    click.echo(f"Key {name} with {', '.join(made.scopes)}{until}: keep it, it is not shown again.", err=True)


@access.command("list")
@click.pass_obj
def list_(project: str | None) -> None:
    """List the keys: names, scopes and times, not the keys themselves."""
    from foretell.console import table

    found = _keys(project)
    if not found.keys:
        click.echo("No key yet: `foretell access create NAME --scope score` makes one.")
        return
    now = datetime.now(UTC)
    table(
        ["name", "scopes", "created", "expires", "last used", "state"],
        [
            (
                key.name, " ".join(key.scopes), f"{key.created:%Y-%m-%d}",
                f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "",
                f"{used:%Y-%m-%d %H:%M}" if (used := found.last_used(key)) else "never",
                "revoked" if key.revoked else "expired" if key.refused(now) else "in use",
            )
            for key in found.keys
        ],
    )  # fmt: skip


@access.command()
@click.argument("name")
@click.pass_obj
def revoke(project: str | None, name: str) -> None:
    """Let nobody in with the key NAME any more; a running service heeds it within a second.

    \b
    Example:
      foretell access revoke shop_backend
    """
    click.echo(f"Revoked {_keys(project).revoke(name).name}.")


@access.command()
@click.option("--profile", default=None, help="Who has read this profile: by its id (an old one too) or an identifier.")
@click.option("--who", default=None, help="What this reader has read: the name of a key, a subject, a user.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="How many rows, the latest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row, with every profile it is about.")
@click.pass_obj
def log(project: str | None, profile: str | None, who: str | None, limit: int, as_json: bool) -> None:
    """Show who has read whose data, over HTTP and by commands, the latest first.

    Every answer about people is in it, and every refusal (403) to somebody who asked for one. Of a person who was
    erased it keeps a keyed digest: it is found by the profile id that the receipt names.

    \b
    Examples:
      foretell access log --profile jo@home.org
      foretell access log --who shop_backend --json
    """
    from foretell.console import table
    from foretell.project import Project
    from lake import audit
    from serving.access.trail import take_in

    home = Project.find(project)
    take_in(home)
    ids = None if profile is None else _ids(home, profile)
    rows = audit.rows(home, profiles=ids, who=who, most=limit)
    if as_json:
        for row in rows:
            click.echo(json.dumps({**row, "read_at": row["read_at"].astimezone(UTC).isoformat()}))
        return
    if not rows:
        click.echo("Nobody has read anything of it." if profile or who else "Nobody has read anything yet.")
        return
    table(
        ["read at", "who", "route", "profiles", "scopes", "status"],
        [
            (f"{row['read_at']:%Y-%m-%d %H:%M:%S}", row["who"], row["route"], _named(row), " ".join(row["scopes"]),
             row["status"])
            for row in rows
        ],
    )  # fmt: skip


def _named(row: dict) -> str:
    first = row["profiles"][0][:28] if row["profiles"] else ""
    return first if row["count"] < 2 else f"{first} and {row['count'] - 1:,} more"


def _ids(home: Any, who: str) -> list[str]:
    """Every id that a profile has had; of somebody who is not known (any more), what was asked for."""
    from foretell.errors import UnknownName
    from unification.forget import known

    try:
        return sorted({*known(home, who).profile_ids, who})
    except UnknownName:
        if re.fullmatch(r"p[0-9a-f]{20}", who):
            return [who]
        raise


def _lasts(text: str) -> timedelta:
    """How long a key opens something.

    >>> _lasts("90d"), _lasts("52w")
    (datetime.timedelta(days=90), datetime.timedelta(days=364))
    """
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not (number.isascii() and number.isdigit()) or not 0 < int(number) < 100_000:
        raise click.UsageError(f"--expires: expected a number with m, h, d or w, such as 90d, got {text!r}")
    return timedelta(**{units[unit]: int(number)})


def _keys(project: str | None):
    from foretell.project import Project
    from serving.access.keys import Keys

    return Keys(Project.find(project))


COMMANDS = [access]
