"""Verbs of the lake: lake copy."""

from __future__ import annotations

import click


@click.group()
def lake() -> None:
    """Where facts and scores are kept: in the home, or in a bucket."""


@lake.command(name="copy")
@click.argument("url")
@click.pass_obj
def copy_(project: str | None, url: str) -> None:
    """Copy every table of the lake to the bucket at URL, and count its rows there. Nothing is switched.

    Run again, it sends only what is not there yet; a copy that was cut short goes on. Credentials and endpoint come
    from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL (docs/grow.md).

    \b
    Examples:
      foretell lake copy s3://shop-lake/production
      AWS_ENDPOINT_URL=http://minio:9000 AWS_ALLOW_HTTP=true foretell lake copy s3://lake/shop
    """
    from foretell.console import progress, table
    from foretell.project import Project
    from lake.bucket import parse
    from lake.copying import copy

    home, to = Project.find(project), parse(url)
    with home.writing("lake copy"), progress("copying") as say:
        found = list(copy(home, to, say))
    table(
        ["table", "rows", "files", "sent", "megabytes"],
        [(one.table, f"{one.rows:,}", f"{one.files:,}", f"{one.sent:,}", f"{one.bytes / 1e6:,.1f}") for one in found],
    )
    click.echo(f'To read it from there: lake = "{to.url}" in foretell.toml. Then remove {home.home / "lake"}.')


COMMANDS = [lake]
