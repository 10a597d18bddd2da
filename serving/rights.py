"""Verbs of a person's rights: consent, erase, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("who", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--to", "file", type=click.Path(path_type=Path), default=None, help="Write the receipt to this JSON file."
)
@click.option(
    "--verify", is_flag=True, help="Erase nothing: search every file below the home for WHO, a text as it is."
)
@click.pass_obj
def erase(project: str | None, who: str | None, yes: bool, file: Path | None, verify: bool) -> None:
    """Erase one person everywhere below the home, and keep a receipt.

    WHO is a profile id (an old one too) or any identifier. What will go is shown first. Facts of the person dated
    before now stay out when they are loaded again: of each identifier a keyed digest is kept, nothing else. Somebody
    who comes back later is a new profile. Without WHO: finish what was cut short, and list the receipts.

    \b
    Examples:
      foretell erase jo@home.org --to receipt.json
      foretell erase --verify jo@home.org            is it left in any file?
    """
    from foretell.console import progress
    from foretell.errors import DataError
    from foretell.project import Project
    from lake.erasure import receipts, unfinished
    from serving import erase as room

    home = Project.find(project)
    if verify:
        if not who:
            raise click.UsageError("--verify searches for WHO: say whom")
        _say_found(room.verify(home, [who]), home.folder)
        return
    if file and file.exists():
        raise DataError(str(file), "is there already", "name another file for the receipt")
    with home.writing("erase"):
        pending = unfinished(home)
        with progress("finishing what was cut short") as step:
            made = room.resume(home, step)
        theirs = bool(who and any(_means(home, person, who) for person in pending))
        for receipt in made:
            click.echo(f"An erasure that had been cut short is finished: {receipt['profile_id']}.")
        if who and not theirs:
            with progress("looking") as step:
                found = room.plan(home, who)
            _show_plan(found)
            if not yes:
                click.confirm("Erase this for good?", abort=True)
            with progress("erasing") as step:
                made.append(room.erase(home, found, step))
    if not made:
        _list(receipts(home))
        return
    for receipt in made:
        _show(receipt)
    if file:
        file.write_text(json.dumps(made[-1], indent=2) + "\n")
        click.echo(f"wrote {file}")
    for receipt in made:
        if problem := room.still_held(receipt):
            raise problem


def _means(home: Any, person: Any, who: str) -> bool:
    """Whether a text means somebody whose erasure had been cut short, of whom only digests are known."""
    from ingestion.erased import Mentions, kinds_of

    return who in person.profile_ids or bool(Mentions(person.key, kinds_of(home), person.digests).find(who))


def _show_plan(found: Any) -> None:
    from foretell.console import table

    known = found.known
    click.echo(f"Profile {known.profile}, {len(known.nodes)} identifiers: {', '.join(known.nodes)}")
    if known.shared:
        click.echo(f"These stand in rows of many others too, and stay: {', '.join(known.shared)}")
    table(["held in", "rows"], [(name, f"{rows:,}") for name, rows in found.counts.items()])
    click.echo("Features, graph, profiles and what is served are made again without them.")


def _show(receipt: dict[str, Any]) -> None:
    from foretell.console import table

    click.echo()
    table(["erased from", "rows"], [(name, f"{rows:,}") for name, rows in receipt["erased"].items()])
    for model in receipt["models"]:
        click.echo(
            f"- {model['task']} v{model['version']} learned from {model['final']:,} of {model['of_final']:,} rows that "
            "were theirs; it holds none of them"
        )
    if unknown := receipt["models_of_unknown_rows"]:
        click.echo(f"- whom {', '.join(unknown)} learned from was not written down; train anew to be sure")
    for kind, count in receipt["kept_as_shared"].items():
        click.echo(f"- {count} {kind} stays: it stands in rows of many others")
    for name in receipt["outside_our_control"]["files"]:
        click.echo(f"- {name} still names the person; it is not Foretell's")
    said = receipt["verified"]
    click.echo(
        f"Searched {said['files']:,} files, every value of each, by {said['by']}: "
        f"{len(said['found']) or 'nothing'} found."
    )
    click.echo(f"Receipt {receipt['erasure_id']}: {receipt['profile_id']} is erased.")


def _list(found: list[dict[str, Any]]) -> None:
    from foretell.console import table

    if not found:
        click.echo("Nobody has been erased.")
        return
    table(
        ["receipt", "finished", "profile", "rows"],
        [(r["erasure_id"], r["finished_at"][:16], r["profile_id"], f"{sum(r['erased'].values()):,}") for r in found],
    )


def _say_found(searched: Any, folder: Path) -> None:
    from foretell.errors import DataError

    if searched.short:
        from lake.scan import SHORTEST

        problem = f"expected a text of at least {SHORTEST} characters"
        raise DataError(searched.short[0], problem, "shorter ones stand in any file by chance")
    for file, place, _ in searched.hits:
        click.echo(f"{file.relative_to(folder) if file.is_relative_to(folder) else file}: {place}")
    formats = ", ".join(f"{count:,} {kind}" for kind, count in sorted(searched.formats.items()))
    click.echo(f"Searched {searched.files:,} files ({formats}): {len(searched.hits) or 'nothing'} found.")


@click.command()
@click.argument("who")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.pass_obj
def export(project: str | None, who: str, target: Path) -> None:
    """Write everything that is held about one person to a JSON file, for that person.

    Identifiers and the links between them, every fact as it came, traits with their origin, consents, scores with the
    rows that were scored, segments, decisions, and which models learned from how many of their rows.

    \b
    Example:
      foretell export jo@home.org --to jo.json
    """
    from foretell.console import progress
    from foretell.project import Project
    from lake.audit import note
    from serving.export import collect, write

    home = Project.find(project)
    with progress(who):
        found = collect(home, who)
        note(home, "foretell export", [found["profile"]["profile_id"]], ["personal", "read", "score"])
        write(found, target)
    rows = {name: len(part) for name, part in found["facts"].items()}
    click.echo(f"wrote {target}: {sum(rows.values()):,} facts of {len(rows)} sources, {len(found['scores']):,} scores")


@click.group()
def consent() -> None:
    """What people agreed to, purpose by purpose, and since when.

    Sources bring it (`consents` in a contract), and so does this command. A purpose is opt-in or opt-out, as the
    setting `purposes` says. Who did not agree is not trained on, scored or in an audience; who withdraws is left out of
    every training set made from then on, at past cutoffs too.
    """


_because = click.option("--because", default="", help="How or why; kept with it.")


@consent.command()
@click.argument("who")
@click.argument("purpose")
@_because
@click.pass_obj
def grant(project: str | None, who: str, purpose: str, because: str) -> None:
    """WHO agreed to PURPOSE, now."""
    _say(project, who, purpose, True, because)


@consent.command()
@click.argument("who")
@click.argument("purpose")
@_because
@click.pass_obj
def withdraw(project: str | None, who: str, purpose: str, because: str) -> None:
    """WHO does not agree to PURPOSE any more."""
    _say(project, who, purpose, False, because)


@consent.command()
@click.argument("who")
@click.pass_obj
def show(project: str | None, who: str) -> None:
    """Show what WHO may be used for now, and everything they said."""
    from foretell.console import table
    from foretell.project import Project
    from lake.audit import note
    from lake.consent import purposes
    from lake.engine import session
    from unification.consent import history, without
    from unification.identity import ensure, resolve

    home = Project.find(project)
    ensure(home)
    with session(home) as con:
        profile, rules = resolve(con, home, who), purposes(home, con)
        allowed = {purpose: not without(con, home, purpose, home.now, [profile]) for purpose in sorted(rules)}
        said = history(con, home, profile)
    note(home, "foretell consent show", [profile], ["personal"])
    click.secho(f"Profile {profile}", bold=True)
    if not rules:
        click.echo("No consent is asked for anything here: everybody may be used.")
        return
    table(["purpose", "rule", "now"], [(p, rules[p], "yes" if yes else "no") for p, yes in allowed.items()])
    if said:
        click.echo()
        table(
            ["said", "purpose", "", "by", "known since"],
            [
                (f"{s['event_at']:%Y-%m-%d %H:%M}", s["purpose"], "yes" if s["granted"] else "no", s["source"],
                 f"{s['known_at']:%Y-%m-%d %H:%M}")
                for s in said
            ],
        )  # fmt: skip


def _say(project: str | None, who: str, purpose: str, granted: bool, because: str) -> None:
    from foretell.console import progress
    from foretell.project import Project
    from serving.consent import say

    home = Project.find(project)
    with home.writing("consent"), progress("publishing") as step:
        found = say(home, who, purpose, granted, because, step)
    if found.new:
        click.echo(
            f"Nobody was asked about {purpose} before. It is opt-out now: everybody may be used who says nothing."
        )
    now = "may be used" if found.allowed else "is left out"
    click.echo(f"Profile {found.profile} {now} for {purpose} from now on.")


COMMANDS = [consent, erase, export]
