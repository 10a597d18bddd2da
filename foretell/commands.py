"""Verbs of the kernel: init."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a new project folder: settings, folders for definitions, one contract to start from.

    Then put an export below FOLDER/exports, adapt FOLDER/sources/orders.py, and run `foretell load` inside FOLDER.
    """
    from foretell.scaffold import write

    for name in write(folder):
        click.echo(f"wrote {folder / name}")
    click.echo(
        f"Next: put exports below {folder / 'exports'}, adapt {folder / 'sources/orders.py'}, run `foretell load`."
    )


COMMANDS = [init]
