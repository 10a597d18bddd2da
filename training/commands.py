"""Verbs of training: train, backtest, reproduce, lookalike, cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foretell.console import engine

if TYPE_CHECKING:
    from foretell.project import Project


@click.command()
@click.argument("tasks", nargs=-1)
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    default=None,
    help="How many sets of parameters the learned model may try for a task, in all; 0: none. Default: the setting.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="COLUMN",
    help="A feature that looks as if it knew the future, and does not: you know it. Kept with the model.",
)
@click.option("--full", is_flag=True, help="Show every candidate of every task, not one line a task.")
@engine
@click.pass_obj
def train(
    project: str | None, tasks: tuple[str, ...], trials: int | None, allow: tuple[str, ...], full: bool,
    engine: str | None,
) -> None:  # fmt: skip
    """Train TASKS (default: all): candidates compete at past cutoffs, each after all they learned from; the winner is
    champion.

    A task with targets stands for its whole family. Without TASKS, a standard task that the data do not allow yet
    (too short a history for a year ahead, nobody of its population) is left for later, and said to be. Baselines
    compete as equals. The learned model is used only where it beats every one of them beyond chance, and the
    champion in use stays where it foretold what came after it better. A feature that looks as if it knew the future
    is refused, and named. The learned model may try other parameters on older cutoffs; these trials are kept, so a
    stopped command goes on, and more trials add to those done. Every run is in MLflow, with metrics and intervals,
    plots, a report for people (report.html), trials and the list of features.

    \b
    Examples:
      foretell train churn
      foretell train churn clv --trials 30
      foretell train --engine spark      features, populations and labels come from Spark; models learn here
    """
    from foretell.console import progress
    from foretell.errors import DataError, ForetellError
    from foretell.project import Project
    from models.registry import look_closer
    from training.champion import train as run
    from training.report import show, summary

    home = Project.find(project).told(engine=engine)
    names = home.definitions.family(tasks) if tasks else list(home.definitions.tasks)
    done, later, failed = [], {}, False
    for name in names:
        try:
            with home.writing(f"train {name}"), progress(name) as step:
                found = run(home, name, step, trials, _of(home, name, allow))
            done.append(found)
            if full or len(names) == 1:
                show(found)
        except ForetellError as error:
            if len(names) == 1:
                raise
            if not tasks and isinstance(error, DataError) and home.definitions.tasks[name].standard:
                later[name] = error
                continue
            click.secho(f"Error: {error}", fg="red", err=True)  # one task that cannot be trained stops no other
            failed = True
    if done and len(names) > 1:
        click.echo()
        summary(done)
    for error in later.values():
        click.echo(f"Not yet: {error}")
    click.echo(f"Look closer: {look_closer(home)}")
    if failed:
        sys.exit(2)


@click.command()
@click.argument("task")
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    default=None,
    help="How many sets of parameters the learned model may try; 0: none. Default: the setting.",
)
@click.option(
    "--to", "file", type=click.Path(path_type=Path), default=None,
    help="HTML file for the report. Default: reports/TASK.html in the project's home.",
)  # fmt: skip
@click.option(
    "--allow",
    multiple=True,
    metavar="COLUMN",
    help="A feature that looks as if it knew the future, and does not: you know it. Kept with the model.",
)
@click.pass_obj
def backtest(
    project: str | None, task: str, trials: int | None, file: Path | None, allow: tuple[str, ...]
) -> None:  # fmt: skip
    """Judge TASK's candidates at past cutoffs as `train` does, register nothing, and write a report for people.

    At each of the setting `folds` cutoffs every candidate learns from what was known by then and foretells what came
    after. The report (one HTML file, pictures inside) has every metric with its interval, calibration, gain, stability
    over time, and the groups that the task declares.

    \b
    Examples:
      foretell backtest churn
      foretell backtest clv --trials 0 --to clv.html
    """
    from foretell.console import progress
    from foretell.project import Project
    from training.champion import contest
    from training.report import show_contest

    home = Project.find(project)
    name = home.definitions.task(task).name
    with home.writing(f"backtest {name}"), progress(name) as step:
        found = contest(home, name, step, trials, allow)
        step(f"{name}: drawing")
        made = found.report(file or home.home / "reports" / f"{name}.html")
    show_contest(found)
    click.echo(f"Best: {found.winner}. {found.reason}.")
    if found.against:
        click.echo(f"- {found.against}")
    click.echo(f"Report: {made}")


@click.command()
@click.argument("task")
@click.option("--version", metavar="N", default=None, help="Which registered version. Default: the champion in use.")
@click.pass_obj
def reproduce(project: str | None, task: str, version: str | None) -> None:
    """Train a registered model of TASK anew from what its contract pins, and compare the two.

    The contract names the ingest batch, the project's now, the cutoffs, the estimator and its parameters; the views are
    kept with the model. All is made again in a scratch folder, from the identity graph on, so that data which came in
    later change nothing. Both models answer the same rows: trees are to agree to the last bit under the packages that
    requirements.lock pins, everything else to 1e-9. Rows of people who were erased or withdrew their consent since are
    not learned from again; they are counted.

    Nothing is registered, and the model stays as it is. Ends with 0 if the model is reproduced, with 1 if not, and
    says what differs; 2 is an error.

    \b
    Examples:
      foretell reproduce churn
      foretell reproduce churn --version 2
    """
    from foretell.console import progress
    from foretell.project import Project
    from training.reproduce import reproduce as run

    home = Project.find(project)
    name = home.definitions.task(task).name
    with home.writing(f"reproduce {name}"), progress(name) as step:  # nobody is erased while their rows are read
        found = run(home, name, version, step)
    click.echo(
        f"rows: {found.rows_then:,} then, {found.rows_now:,} now, {found.erased:,} erased, "
        f"{found.withdrawn:,} withdrawn; largest difference: {found.difference:.3g}"
    )
    for package, (then, now) in found.environment.items():
        click.echo(f"{package}: {then} then, {now} now")
    if not found.reproduced:
        click.secho(found.verdict, fg="red", err=True)
        sys.exit(1)
    click.echo(found.verdict)


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


@click.command()
@click.option(
    "--among", default=None,
    help='A segment or rule that all satisfy. Default: "days_since_order <= 365" where that is known, else everyone.',
)  # fmt: skip
@click.option(
    "--by", multiple=True, metavar="NAME",
    help="A feature to tell them by, or a view for all its numbers; may be repeated. Default: days_since_first_order, "
    "orders_365d, spend_365d and days_since_order.",
)  # fmt: skip
@click.option(
    "--groups", type=click.IntRange(min=2, max=12), default=None,
    help="How many, whether they hold or not. Default: 3 to 8, the most that hold and each tell more.",
)  # fmt: skip
@click.option("--purpose", default="marketing", show_default=True, help="What for: who did not agree is left out.")
@click.option("--write", is_flag=True, help="Write each group as a segment, segments/NAME.yaml.")
@click.option("--plot", "file", type=click.Path(path_type=Path), default=None, help="PNG, SVG or PDF for the picture.")
@click.pass_obj
def cluster(
    project: str | None, among: str | None, by: tuple[str, ...], groups: int | None, purpose: str, write: bool,
    file: Path | None,
) -> None:  # fmt: skip
    """Find what kinds of customers there are: a few groups, each one a rule over features, with a name to read.

    Every profile is in exactly one. A group counts if it is found again in other samples of the same people, and all
    of them together must tell more than each feature by itself; where no number of groups does, none is made up.
    Written as segments (--write) they are rules like any other: read them, edit them, rename them. Their audiences are
    made anew with each `foretell score`. Every run is in MLflow, in the experiment `clusters`.

    \b
    Examples:
      foretell cluster
      foretell cluster --write
      foretell cluster --by orders_90d --by discount_share_90d --among "orders_90d > 0" --plot groups.png
    """
    from foretell.console import progress
    from foretell.project import Project
    from training import clustering
    from training.report import show_clusters

    home = Project.find(project)
    if file and file.suffix.lower() not in {".png", ".svg", ".pdf"}:  # before the work, not after it
        raise click.UsageError(f"--plot draws a PNG, SVG or PDF: name it {file.with_suffix('.png').name}")
    with home.writing("cluster"), progress("groups") as step:
        found = clustering.cluster(home, among, by, groups, purpose, step)
        step("keeping the run")
        clustering.track(home, found)
    show_clusters(found)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        found.drawn.savefig(file)
        click.echo(f"wrote {file}")
    if write:
        written = clustering.write(home, found)
        click.echo(f"wrote {len(written)} files into segments/; next: foretell score, then foretell segment list")
    else:
        click.echo("Keep them as segments: foretell cluster --write, with the options given here")


def _of(project: Project, task: str, allow: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the allowed that the task has; of several tasks, each may lack some."""
    from foretell.errors import unknown
    from training.dataset import feature_columns

    known = project.definitions
    every = {c for name in known.tasks for c in feature_columns(project, known.task(name))}
    if strange := [column for column in allow if column not in every]:
        raise unknown("feature", strange[0], every, where="--allow")
    return tuple(c for c in allow if c in feature_columns(project, known.task(task)))


COMMANDS = [train, backtest, reproduce, lookalike, cluster]
