"""Verbs of watching: grade, monitor."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click


@click.command()
@click.argument("tasks", nargs=-1)
@click.pass_obj
def grade(project: str | None, tasks: tuple[str, ...]) -> None:
    """Grade the scores of TASKS (default: all) whose horizon and settle time have passed: what became of them?

    Each score is graded once, by its task's own label as it was when the model was trained, over facts known by then.
    What is known later changes no grade. `foretell run` grades too. Safe to stop and run again at any point. Who has
    withdrawn consent to the task's purpose is not graded.

    \b
    Examples:
      foretell grade            everything whose time has come
      foretell grade churn
    """
    from foretell.console import progress, table, worth
    from foretell.project import Project
    from serving.grade import grade as run

    home = Project.find(project)
    with home.writing("grade"), progress("grading") as step:
        found = run(home, tasks, step)
    if done := [g for g in found if g.graded or g.unknown]:
        kinds = _kinds(home)
        table(
            ["task", "cutoff", "graded", "foretold", "came"],
            [
                (f"{g.task} v{g.version}", f"{g.cutoff:%Y-%m-%d}", f"{g.graded:,}",
                 worth(kinds[g.task], g.said), worth(kinds[g.task], g.mean))
                for g in done
            ],
        )  # fmt: skip
    for g in found:
        if g.unknown:
            click.echo(f"- {g.task} v{g.version}, {g.cutoff:%Y-%m-%d}: {g.unknown:,} are nobody's score any more")
        if g.without_consent:
            click.echo(
                f"- {g.task} v{g.version}, {g.cutoff:%Y-%m-%d}: {g.without_consent:,} are not graded: consent withdrawn"
            )
        if g.graded and g.asked == "today":
            click.echo(
                f"- {g.task} v{g.version} did not keep its question when it was trained: graded by the task of today"
            )
    for why, n in _reasons(found).items():
        click.echo(f"- {n:,} scores cannot be graded: {why}")
    later = [g for g in found if g.until]
    if later:
        first = min(g.until for g in later if g.until)
        click.echo(f"{sum(g.scores for g in later):,} scores wait for their outcome, the first until {first:%Y-%m-%d}.")
    if not found:
        click.echo("No score waits for its outcome.")


def _reasons(found) -> dict[str, int]:
    """Why scores whose time has come have no grade -> how many."""
    counts: dict[str, int] = defaultdict(int)
    for g in found:
        if g.waits and g.until is None:
            counts[f"{g.task} v{g.version}: {g.waits}"] += g.scores
    return counts


def _kinds(home) -> dict[str, str]:
    from foretell.binding import kind_of

    return {t.name: kind_of(t, dict(home.definitions.sources)) for t in home.definitions.tasks.values()}


@click.command()
@click.argument("tasks", nargs=-1)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write a page for people to this file.",
)
@click.option("--fail", is_flag=True, help="Exit with status 1 if there is an alert, such as for cron.")
@click.pass_obj
def monitor(project: str | None, tasks: tuple[str, ...], html: Path | None, fail: bool) -> None:
    """Show whether the models of TASKS (default: all) keep what their backtest promised, and who is scored now.

    Live figures are those of graded scores (`foretell grade`), cutoff by cutoff, beside the exams of the same version:
    95% of chance, and the band in which one more exam would lie. An alert is a watched figure (*) so far off that
    chance and season explain it once in twenty years of looking, or a column that is distributed otherwise than what
    was learned from (PSI above 0.25, beyond chance and beyond its pace while the model learned) and moves predictions.
    Alerts are about the last graded cutoff and the last batch of each task, and say what to do.

    \b
    Examples:
      foretell monitor
      foretell monitor churn clv --html monitor.html
      foretell run --only load,unify,score,grade && foretell monitor --fail
    """
    import sys

    from foretell.console import progress
    from foretell.project import Project
    from serving.monitor import monitor as look
    from serving.monitor_page import page, show

    home = Project.find(project)
    with progress("looking") as step:
        found = look(home, tasks, step)
        text = page(found, home.now) if html else ""
    show(found)
    if html:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(text, encoding="utf-8")
        click.echo(f"wrote {html}")
    if fail and found.alerts:
        sys.exit(1)


COMMANDS = [grade, monitor]
