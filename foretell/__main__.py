"""The command line: every room's verbs in one program. Rooms say theirs in a `commands.py`, which stays light."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from foretell.errors import ForetellError

# In the order data flow, which is the order in which the help lists them.
ROOMS = ("foretell", "lake", "ingestion", "unification", "features", "training", "serving", "segments")


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="First: load, unify, train, score, segment list, profile, serve. `foretell VERB --help` explains each.",
)
@click.option("--project", type=click.Path(), default=None, help="Project folder (default: here or above).")
@click.version_option(package_name="foretell")
@click.pass_context
def cli(ctx: click.Context, project: str | None) -> None:
    """Foretell: a customer data platform whose predictions can be trusted and checked.

    Raw exports become profiles, profiles become features as known at any past instant, models are judged against honest
    baselines, and scores come back as attributes that segments can use.
    """
    ctx.obj = project


for _room in ROOMS:
    for _command in import_module(f"{_room}.commands").COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Run the command line; a ForetellError is printed without a traceback and ends with status 2."""
    try:
        cli(prog_name="foretell", standalone_mode=False)
    except ForetellError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped. What was committed stays; run the same command again to go on.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
