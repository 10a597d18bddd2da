"""How does a command talk? A progress line for long work, tables for results; quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from foretell.settings import ENGINES

engine = click.option(
    "--engine", type=click.Choice(ENGINES), default=None,
    help="What aggregates facts and scores everyone, on this machine or on a Spark cluster. Default: the setting.",
)  # fmt: skip


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner with the step at hand and the time taken, on standard error; nothing when that is no terminal."""
    import logging
    import warnings

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger().setLevel(logging.ERROR)
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True,
        disable=not (console.is_terminal and console.is_interactive),
    )  # fmt: skip
    with bar:
        step = bar.add_task(what)
        yield lambda text: bar.update(step, description=text)


def worth(kind: str, value: float) -> str:
    """A prediction or an outcome: "22.6%" of a probability, "301.92" of an amount, "34.0 days" of a duration."""
    if kind == "probability":
        return f"{value:.1%}"
    return f"{value:,.1f} days" if kind == "duration" else f"{value:,.2f}"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print aligned columns; numbers to the right."""
    head = [str(h) for h in header]
    body = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    right = [bool(body) and all(_numeric(line[i]) for line in body) for i in range(len(head))]
    click.secho(
        "  ".join(h.rjust(w) if r else h.ljust(w) for h, w, r in zip(head, widths, right, strict=True)).rstrip(),
        bold=True,
    )
    for line in body:
        click.echo(
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        )


def _numeric(text: str) -> bool:
    return not text or text.lstrip("+-").replace(",", "").replace(".", "").replace("%", "").isdigit()
