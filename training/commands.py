"""Verbs of training: train."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("tasks", nargs=-1)
@click.pass_obj
def train(project: str | None, tasks: tuple[str, ...]) -> None:
    """Train TASKS (default: all): candidates compete on a cutoff after all they learned from; the winner is champion.

    Baselines compete as equals. The learned model is used only where it beats the best of them beyond chance. Every run
    is in MLflow, with metrics and intervals, plots and the list of features.

    \b
    Example:
      foretell train churn
    """
    from foretell.console import progress
    from foretell.errors import ForetellError
    from foretell.project import Project
    from training.report import show
    from training.train import train as run

    home = Project.find(project)
    failed = False
    for name in tasks or home.definitions.tasks:
        try:
            with home.writing(f"train {name}"), progress(name) as step:
                found = run(home, name, step)
            show(found)
        except ForetellError as error:
            if len(tasks) == 1:
                raise
            click.secho(f"Error: {error}", fg="red", err=True)  # one task that cannot be trained stops no other
            failed = True
    click.echo(f"Look closer: mlflow ui --backend-store-uri sqlite:///{home.home / 'mlflow' / 'mlflow.db'}")
    if failed:
        sys.exit(2)


COMMANDS = [train]
