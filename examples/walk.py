"""How does an example walk through the commands? Each is shown as one would type it, and run in this process."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

import click

from foretell.__main__ import cli
from foretell.errors import ForetellError


def say(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def run(project: Path, command: str) -> None:
    """Show a command and run it here: starting anew each time would import Feast and MLflow each time."""
    click.secho(f"\n$ foretell {command}", fg="cyan", bold=True)
    start = time.time()
    try:
        cli(["--project", str(project), *shlex.split(command)], standalone_mode=False)
    except ForetellError as error:
        stop(str(error))
    click.secho(f"({time.time() - start:.1f} s)", dim=True)


def stop(problem: str) -> NoReturn:
    click.secho(f"Error: {problem}", fg="red", err=True)
    sys.exit(2)


def shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
