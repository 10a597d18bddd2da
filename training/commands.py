"""Verbs of training: train."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("tasks", nargs=-1)
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    default=None,
    help="How many sets of parameters the learned model may try for a task, in all; 0: none. Default: the setting.",
)
@click.option("--full", is_flag=True, help="Show every candidate of every task, not one line a task.")
@click.pass_obj
def train(project: str | None, tasks: tuple[str, ...], trials: int | None, full: bool) -> None:
    """Train TASKS (default: all): candidates compete on a cutoff after all they learned from; the winner is champion.

    A task with targets stands for its whole family. Baselines compete as equals. The learned model is used only where
    it beats the best of them beyond chance. Before that it may try other parameters on older cutoffs; these trials are
    kept, so a stopped command goes on, and more trials add to those done. Every run is in MLflow, with metrics and
    intervals, plots, trials and the list of features.

    \b
    Examples:
      foretell train churn
      foretell train churn clv --trials 30
    """
    from foretell.console import progress
    from foretell.errors import ForetellError
    from foretell.project import Project
    from training.champion import train as run
    from training.report import show, summary

    home = Project.find(project)
    names = home.definitions.family(tasks) if tasks else list(home.definitions.tasks)
    done, failed = [], False
    for name in names:
        try:
            with home.writing(f"train {name}"), progress(name) as step:
                found = run(home, name, step, trials)
            done.append(found)
            if full or len(names) == 1:
                show(found)
        except ForetellError as error:
            if len(names) == 1:
                raise
            click.secho(f"Error: {error}", fg="red", err=True)  # one task that cannot be trained stops no other
            failed = True
    if done and len(names) > 1:
        click.echo()
        summary(done)
    click.echo(f"Look closer: mlflow ui --backend-store-uri sqlite:///{home.home / 'mlflow' / 'mlflow.db'}")
    if failed:
        sys.exit(2)


@click.command()
@click.argument("seed")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many of the likest to list or export.",
)
@click.option("--among", default=None, help='A rule that candidates satisfy, such as "orders_365d > 0".')
@click.option(
    "--to", "file", type=click.Path(path_type=Path), default=None, help="CSV file for profile_id and likeness."
)
@click.option("--as-task", is_flag=True, help="Write a task for it instead: who will come to satisfy the seed's rule?")
@click.pass_obj
def lookalike(project: str | None, seed: str, top: int, among: str | None, file: Path | None, as_task: bool) -> None:
    """Find the profiles most like SEED: a segment, a rule, or a .csv/.txt file with an identifier a line.

    Several ways of measuring likeness compete on seeds that were held out; the features that the seed's own rule reads
    are kept from them. A seed that is a rule over features can also be made a task (--as-task), which learns from the
    past who became one, is judged on the future, and is scored and served like any other.

    \b
    Examples:
      foretell lookalike big_spenders --top 500 --to likely_big.csv
      foretell lookalike "top(spend_90d, 0.1)" --as-task
      foretell lookalike vip_emails.csv --among "orders_365d > 0"
    """
    from foretell.console import progress
    from foretell.project import Project
    from training import lookalike as room
    from training.report import show_lookalikes

    home = Project.find(project)
    if as_task:
        if among or file:
            raise click.UsageError("--as-task writes a task and lists nobody: leave --among and --to out")
        made = room.as_task(home, seed)
        click.echo(
            f"wrote {made.relative_to(home.folder)}; next: foretell train {made.stem}, foretell score {made.stem}"
        )
        return
    if file:
        room.check_file(file)  # before the work, not after it
    with home.writing(f"lookalike {seed}"), progress(seed) as step:
        found = room.expand(home, seed, among, step)
    show_lookalikes(found, min(top, 10) if file else top)
    if file:
        click.echo(f"wrote {room.export(found, top, file):,} profiles to {file}")


COMMANDS = [train, lookalike]
