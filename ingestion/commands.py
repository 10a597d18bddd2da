"""Verbs of ingestion: load, quarantine list and show, source new. (quarantine replay is told of in unification.)"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingestion.collector.commands import collect

if TYPE_CHECKING:
    from foretell.project import Project
    from ingestion.quarantine import Chosen


@click.command()
@click.argument("sources", nargs=-1)
@click.option(
    "--from", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="Load this file (repeatable) as the one source named, instead of those its contract finds.",
)  # fmt: skip
@click.option("--full", is_flag=True, help="Of databases and APIs, read everything, not only what is new.")
@click.pass_obj
def load(project: str | None, sources: tuple[str, ...], files: tuple[Path, ...], full: bool) -> None:
    """Load the files of SOURCES (default: all) as facts; pull what is new from databases and APIs.

    A file loaded before is skipped, a line or row loaded before is not doubled, and a row that cannot be understood
    goes to quarantine with its file, line and reason while the rest loads. Safe to stop and run again at any point.

    \b
    Examples:
      foretell load                              every source
      foretell load till crm                     two of them
      foretell load till --from ~/2024-05.xlsx   a file that lies elsewhere
      foretell load shop_db --full               a whole table again, such as after rows were changed by hand
    """
    from functools import partial

    from foretell.console import progress
    from foretell.errors import DataError, ForetellError, NotReady
    from foretell.project import Project
    from ingestion.journal import kept
    from ingestion.load import load as run

    home = Project.find(project)
    names = list(sources or home.definitions.sources)
    if not names:
        raise NotReady(
            "load", f"no source is declared in {home.folder / 'sources'}", "`foretell source new FILE` proposes one"
        )
    if files and len(names) != 1:
        problem = f"expected one source to load the files as, got {', '.join(names)}"
        raise DataError("--from", problem, f"name it: `foretell load {names[0]} --from {files[0]}`")
    failed = []
    with home.writing("load"), progress("loading") as step:
        for result in run(home, names, files, full=full, say=step, keep=partial(kept, home)):
            if isinstance(result, ForetellError):
                failed.append(result)
                click.secho(f"Error: {result}", fg="red", err=True)
                continue
            if result.skipped:
                pulled = home.definitions.source(result.source).connector and not files
                click.echo(f"{result.source:<18}{result.file}: {'nothing new' if pulled else 'loaded before'}")
                continue
            text = f"{result.source:<18}{result.file}: {result.added:,} facts"
            text += f", {result.known:,} known already" if result.known else ""
            text += f", {result.left_out:,} left out by `only`" if result.left_out else ""
            text += f", {result.erased:,} of erased people kept out" if result.erased else ""
            text += f", {result.quarantined:,} in quarantine" if result.quarantined else ""
            text += f", {result.anonymous:,} of them without an identifier" if result.anonymous else ""
            click.echo(text)
            for line in [*result.changes, *result.reasons]:
                click.echo(f"{'':<18}  {line}")
            if result.undated_links:
                click.echo(
                    f"{'':<18}  {result.undated_links:,} records have no time: their links count as known from now on"
                    " and stay out of every earlier cutoff; say known_since in the contract if you know better"
                )
    if failed:
        sys.exit(2)


class _ListUnlessSaid(click.Group):
    """`foretell quarantine --source till` lists, as `foretell quarantine list --source till` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListUnlessSaid)
def quarantine() -> None:
    """Rows that could not be understood: list them, show one, read them again.

    They wait as they came. Mend the contract, then `foretell quarantine replay` reads them by it; or mend the rows in a
    file that `list --to` writes, and `replay --from` it. Without a verb they are listed.
    """


def choosing(command: Callable) -> Callable:
    """The options that choose rows in quarantine."""
    for option in (
        click.option("--since", type=click.DateTime(), help="Only rows received at that time (UTC) or later."),
        click.option("--file", default="", metavar="GLOB", help='Only rows of files named so, such as "till/2017-*".'),
        click.option("--reason", default="", metavar="TEXT", help="Only rows whose reason contains this."),
    ):
        command = option(command)
    return command


def chosen_rows(project: Project, source: str | None, **said: Any) -> Chosen:
    """What these options choose; a source that has no contract may have rows in quarantine still."""
    from datetime import UTC

    from foretell.errors import unknown
    from ingestion.quarantine import Chosen, groups

    if source and source not in project.definitions.sources:
        names = {*project.definitions.sources, *(g[0] for g in groups(project, Chosen()))}
        if source not in names:
            raise unknown("source", source, names)
    if since := said.pop("since", None):
        said["since"] = since.replace(tzinfo=UTC)
    return Chosen(source=source or "", **said)


@quarantine.command("list")
@click.argument("source", required=False)
@choosing
@click.option("--limit", default=20, show_default=True, help="How many rows to show.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the rows to this file instead (.jsonl).")
@click.pass_obj
def list_(project: str | None, source: str | None, limit: int, target: Path | None, **said: Any) -> None:
    """List the rows in quarantine, of SOURCE or all: how many for which reason, and some of them.

    \b
    Examples:
      foretell quarantine                                    all of them
      foretell quarantine list crm --reason "expected a time"
      foretell quarantine list crm --to rows.jsonl           to be mended by hand, then: replay --from rows.jsonl
    """
    from foretell.console import table
    from foretell.project import Project
    from ingestion import quarantine as kept

    home = Project.find(project)
    chosen = chosen_rows(home, source, **said)
    found = kept.groups(home, chosen)
    if not found:
        click.echo("Nothing is in quarantine." if chosen == kept.Chosen() else "No such row is in quarantine.")
        return
    if target:
        click.echo(f"wrote {kept.export(home, chosen, target):,} rows to {target}")
        click.echo(f"Next: mend `row` on each line, then `foretell quarantine replay --from {target}`")
        return
    table(
        ["source", "rows", "reason", "first"],
        [(name, f"{n:,}", _short(why, 90), first) for name, why, n, first, _ in found[:limit]],
    )
    if len(found) > limit:
        click.echo(f"and {len(found) - limit:,} more reasons")
    click.echo()
    rows = kept.rows(home, chosen, limit)
    table(
        ["id", "where", "reason", "row"],
        [
            (r["quarantine_id"][:8], f"{r['file']}:{r['line']}", _short(r["reason"], 70), _short(r["raw"], 60))
            for r in rows
        ],
    )
    click.echo(
        f"{len(rows)} of {sum(n for _, _, n, *_ in found):,} rows; `foretell quarantine show ID` shows one whole"
    )


@quarantine.command()
@click.argument("row")
@click.option("--raw", is_flag=True, help="Print the row alone, as it came.")
@click.pass_obj
def show(project: str | None, row: str, raw: bool) -> None:
    """Show a row in quarantine whole, by its id or the beginning of it, and how today's contract reads it."""
    from foretell.console import table
    from foretell.errors import ForetellError
    from foretell.project import Project
    from ingestion.quarantine import one
    from ingestion.replay import reading

    home = Project.find(project)
    found = one(home, row)
    if raw:
        click.echo(found["raw"])
        return
    click.secho(f"{found['quarantine_id']}", bold=True)
    click.echo(f"{found['source']}, {found['file']}:{found['line']}, received {found['received_at']:%Y-%m-%d %H:%M}")
    click.echo(f"went into quarantine for: {found['reason']}\n")
    click.echo(found["raw"])
    click.echo()
    try:
        read = reading(home, found)
    except ForetellError as error:
        click.echo(f"Today's contract cannot read it: {error}")
        return
    if not read:
        click.echo("It is no row of this source: mend it by hand, with `foretell quarantine list --to FILE`.")
        return
    table(["column", "from", "read as"], [(name, text, _short(value or "", 60)) for name, text, value in read[:-1]])
    reason = read[-1][-1]
    click.echo(f"\nBy today's contract: {reason}" if reason else "\nBy today's contract it is good: replay it.")


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


@click.group()
def source() -> None:
    """Source contracts: where a system's files lie, and what their columns mean."""


@source.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--stream", metavar="NAME", help="Write the contracts for a stream of collected events, instead.")
@click.option("--name", default=None, help="Name of the source (default: from the file's or table's).")
@click.option(
    "--kind", type=click.Choice(["events", "records"]), default=None, help="What a row is (default: a guess)."
)
@click.option("--table", "of_table", default=None, help="Instead of FILE, a table of the database at --url.")
@click.option("--url", default=None, help="The database: env:NAME of a variable with its url, or sqlite:///file.db.")
@click.option("--force", is_flag=True, help="Write over a contract of that name.")
@click.pass_obj
def new(
    project: str | None, file: Path | None, stream: str | None, name: str | None, kind: str | None,
    of_table: str | None, url: str | None, force: bool,
) -> None:  # fmt: skip
    """Propose a contract for FILE (.csv, .jsonl, .parquet or .xlsx), try it on its rows, and write it.

    What each column seems to mean is shown with the reason. In the written file `# check:` marks what is a guess: read
    it, mend it, then load. Outside a project the contract is only shown.

    \b
    Examples:
      foretell source new exports/till/2024-05.csv
      foretell source new --table order_lines --url env:SHOP_DB
      foretell source new --stream web               what `foretell collect` has collected there
    """
    if stream:
        _contracts_of_stream(project, stream, force)
        return
    import shlex

    import duckdb

    from foretell.console import table
    from foretell.errors import DataError, NotReady
    from foretell.project import Project
    from ingestion import propose

    try:
        home = Project.find(project)
    except NotReady:
        if project:
            raise
        home = None
    if (file is None) == (of_table is None) or (of_table is None) != (url is None):
        raise click.UsageError("expected a FILE, or --stream NAME, or --table with the --url of its database")
    file = file or Path(str(of_table).rpartition(".")[2])
    called = name or propose.name_of(file)
    target = home.folder / "sources" / f"{called}.py" if home else None
    if target and target.exists() and not force:
        raise DataError(str(target), "is there already", "pass --name for another source, or --force to write over it")
    sources = home.definitions.sources.values() if home else []
    known, taken = [s for s in sources if s.name != called], home.definitions.tasks if home else ()
    glob = propose.files_of(file, home.exports if home and not of_table else None, called)
    with duckdb.connect() as con:
        if of_table and url:
            if not home:
                raise NotReady(of_table, "a table is read from within a project", "run `foretell init FOLDER` first")
            from ingestion.propose_table import propose_table

            made = propose_table(con, home, url, of_table, name=called, kind=kind, known=known, taken=taken)
        else:
            made = propose.propose(con, file, name=called, files=glob, kind=kind, known=known, taken=taken)
    table(["column", "values", "understood as", "why"], made.understood)
    for note in made.notes:
        click.echo(note)
    click.echo(
        f"Tried on {made.rows:,} rows: {made.good:,} good"
        + (f" ({made.anonymous:,} of them without an identifier)" if made.anonymous else "")
        + f", {made.bad:,} would go to quarantine ({made.bad / max(made.good + made.bad, 1):.1%})"
    )
    for reason, times in made.reasons:
        click.echo(f"  {times:,} × {reason}")
    text = propose.text_of(made, made.source.connector.shown if made.source.connector else file.name)
    click.echo()
    if not home or not target:
        click.echo(text)
        click.echo(
            "Next: `foretell init FOLDER` makes a project; run this again inside it, and the contract is written."
        )
        return
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    click.echo(f"wrote {target}" + ("; look at what `# check:` marks" if made.doubts else ""))
    if of_table:
        click.echo(f"Next: foretell load {called}")
        return
    below = file.resolve().is_relative_to(home.exports.resolve())
    click.echo(f"Next: foretell load {called}" + ("" if below else f" --from {shlex.quote(str(file))}"))
    if not below:
        click.echo(
            f"  or, for files that come again: put them into {home.exports / Path(glob).parent}, `foretell load`"
        )


def _contracts_of_stream(project: str | None, stream: str, force: bool) -> None:
    import duckdb

    from foretell.errors import DataError
    from foretell.project import Project
    from ingestion.collector.contracts import propose
    from ingestion.propose import text_of

    home = Project.find(project)
    definitions = home.definitions
    others = [s for s in definitions.sources.values() if s.stream != stream]
    taken = {*definitions.tasks, *(name for view in definitions.of_profiles.values() for name in view.features)}
    with duckdb.connect() as con:
        found = propose(con, home, stream, known=others, taken=taken)
    targets = [home.folder / "sources" / f"{made.source.name}.py" for made in found]
    if there := [str(target) for target in targets if target.exists() and not force]:
        raise DataError(", ".join(there), "is there already", "pass --force to write over it, or remove it")
    for made, target in zip(found, targets, strict=True):
        target.parent.mkdir(exist_ok=True)
        target.write_text(text_of(made, f"the stream {stream}"), encoding="utf-8")
        bad = f", {made.bad:,} would go to quarantine" if made.bad else ""
        click.echo(
            f"wrote {target.relative_to(home.folder)}: {made.good:,} of the messages collected are its facts{bad}"
        )
        for reason, times in made.reasons:
            click.echo(f"  {times:,} × {reason}")
    click.echo(f"Next: foretell load {' '.join(made.source.name for made in found)}")


COMMANDS = [load, quarantine, source, collect]
