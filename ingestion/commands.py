"""Verbs of ingestion: load, quarantine, source new."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("sources", nargs=-1)
@click.option(
    "--from", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="Load this file (repeatable) as the one source named, instead of those its contract finds.",
)  # fmt: skip
@click.pass_obj
def load(project: str | None, sources: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Load the files of SOURCES (default: all) as facts.

    A file loaded before is skipped, a line loaded before is not doubled, and a row that cannot be understood goes to
    quarantine with its file, line and reason while the rest loads. Safe to stop and run again at any point.

    \b
    Examples:
      foretell load                              every source
      foretell load till crm                     two of them
      foretell load till --from ~/2024-05.xlsx   a file that lies elsewhere
    """
    from foretell.console import progress
    from foretell.errors import DataError, ForetellError, NotReady
    from foretell.project import Project
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
        for result in run(home, names, files):
            if isinstance(result, ForetellError):
                failed.append(result)
                click.secho(f"Error: {result}", fg="red", err=True)
                continue
            step(f"loaded {result.file}")
            if result.skipped:
                click.echo(f"{result.source:<18}{result.file}: loaded before")
                continue
            text = f"{result.source:<18}{result.file}: {result.added:,} facts"
            text += f", {result.known:,} known already" if result.known else ""
            text += f", {result.left_out:,} left out by `only`" if result.left_out else ""
            text += f", {result.erased:,} of erased people kept out" if result.erased else ""
            text += f", {result.quarantined:,} in quarantine" if result.quarantined else ""
            text += f", {result.anonymous:,} of them without an identifier" if result.anonymous else ""
            click.echo(text)
            for reason in result.reasons:
                click.echo(f"{'':<18}  {reason}")
            if result.undated_links:
                click.echo(
                    f"{'':<18}  {result.undated_links:,} records have no time: their links count as known from now on"
                    " and stay out of every earlier cutoff; say known_since in the contract if you know better"
                )
    if failed:
        sys.exit(2)


@click.command()
@click.option("--limit", default=20, show_default=True, help="How many rows to show.")
@click.pass_obj
def quarantine(project: str | None, limit: int) -> None:
    """List rows that could not be understood: source, file, line, reason, the row as it came."""
    from foretell.console import table
    from foretell.project import Project
    from lake.engine import session
    from lake.engine import table as stored

    home = Project.find(project)
    if not stored(home, "quarantine").exists:
        click.echo("Nothing is in quarantine.")
        return
    with session(home) as con:
        rows = con.execute(
            """SELECT source, file || ':' || line, reason, replace(left(raw, 60), chr(10), ' ') FROM quarantine
               ORDER BY source, file, line LIMIT ?""",
            [limit],
        ).fetchall()
        total = con.execute("SELECT count(*) FROM quarantine").fetchall()[0][0]
    table(["source", "where", "reason", "row"], rows)
    click.echo(f"{len(rows)} of {total:,} rows")


@click.group()
def source() -> None:
    """Source contracts: where a system's files lie, and what their columns mean."""


@source.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name of the source (default: from the file's).")
@click.option(
    "--kind", type=click.Choice(["events", "records"]), default=None, help="What a row is (default: a guess)."
)
@click.option("--force", is_flag=True, help="Write over a contract of that name.")
@click.pass_obj
def new(project: str | None, file: Path, name: str | None, kind: str | None, force: bool) -> None:
    """Propose a contract for FILE (.csv, .jsonl, .parquet or .xlsx), try it on its rows, and write it.

    What each column seems to mean is shown with the reason. In the written file `# check:` marks what is a guess: read
    it, mend it, then load. Outside a project the contract is only shown.

    \b
    Example:
      foretell source new exports/till/2024-05.csv
    """
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
    called = name or propose.name_of(file)
    target = home.folder / "sources" / f"{called}.py" if home else None
    if target and target.exists() and not force:
        raise DataError(str(target), "is there already", "pass --name for another source, or --force to write over it")
    sources = home.definitions.sources.values() if home else []
    known, taken = [s for s in sources if s.name != called], home.definitions.tasks if home else ()
    glob = propose.files_of(file, home.exports if home else None, called)
    with duckdb.connect() as con:
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
    text = propose.text_of(made, file)
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
    below = file.resolve().is_relative_to(home.exports.resolve())
    click.echo(f"Next: foretell load {called}" + ("" if below else f" --from {shlex.quote(str(file))}"))
    if not below:
        click.echo(
            f"  or, for files that come again: put them into {home.exports / Path(glob).parent}, `foretell load`"
        )


COMMANDS = [load, quarantine, source]
