"""Verbs of unification: unify, identity explain, veto, unlink, undo, decisions; quarantine replay, which changes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ingestion.commands import choosing, chosen_rows, quarantine
from unification.matching import commands as matching


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what other rules would do to the profiles.")
@click.option("--yes", is_flag=True, help="Apply other rules without asking.")
@click.pass_obj
def unify(project: str | None, dry_run: bool, yes: bool) -> None:
    """Decide which identifiers belong to the same person, and make one golden profile of each.

    Identifiers met in one fact belong together. Profile ids persist: after a merge the older one stays, and the younger
    one still finds the person. Later steps do this by themselves when facts were loaded since. If the rules are others
    than last time (limits, shared or blocked identifiers, identifiers of a source), it first shows which profiles would
    merge or split, and asks.

    \b
    Examples:
      FORETELL_IDENTITY_SHARED=device=1 foretell unify --dry-run    what if a device of two people linked nobody?
    """
    from foretell.console import progress
    from foretell.project import Project
    from unification.identity import preview
    from unification.identity import unify as run

    home = Project.find(project)
    with home.writing("unify"):
        with progress("comparing"):
            other = preview(home)
        if other:
            _show_preview(*other)
        elif dry_run:
            click.echo("The rules are those by which the profiles were made.")
        if dry_run:
            return
        if other and not yes:
            click.confirm("Apply them?", abort=True)
        with progress("unifying"):
            found = run(home)
    click.echo(
        f"{found['identifiers']:,} identifiers, {found['links']:,} links, {found['merges']:,} merges "
        f"-> {found['profiles']:,} profiles"
    )
    if found["refused"]:
        click.echo(f"{found['refused']:,} links refused, by the size guard or a decision: see the table refused_edges")
    if found["undated"]:
        click.echo(
            f"{found['undated']:,} links have no time of their own: kept out of every cutoff before they were loaded"
        )


def _show_preview(rules: str, found: list[tuple[list[str], list[str]]], same: int, most: int = 20) -> None:
    merged, split = sum(len(new) < len(old) for old, new in found), sum(len(new) > len(old) for old, new in found)
    click.echo(f"Other rules: {rules}")
    other = len(found) - merged - split
    click.echo(
        f"{merged:,} merges, {split:,} splits" + (f", {other:,} regrouped" if other else "") + f", {same:,} untouched:"
    )
    for old, new in found[:most]:
        click.echo(f"  {' and '.join(old)} -> {' and '.join(new)}")
    if len(found) > most:
        click.echo(f"  and {len(found) - most:,} more")


@click.group()
def identity() -> None:
    """Who is who: why two identifiers are one person, and what to do where that is wrong.

    Identifiers are written as they come (jo@example.org), with their type where that is not clear (email:jo@…), or as a
    profile's id. A decision counts from now on: features, segments and new scores follow, training sets keep the past
    as it was known then. `undo` takes it back: from then on the graph is as if it had not been made.
    """


@identity.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the weights of their comparisons (see weights).",
)
@click.pass_obj
def explain(project: str | None, a: str, b: str, plot: Path | None) -> None:
    """Show the chain of links by which A and B are one person, or what keeps them apart.

    Of a link that matching has made, its weight in bits, its probability and the version of the model.
    """
    from foretell.console import table
    from foretell.project import Project
    from unification.explain import explain as run
    from unification.identity import ensure

    home = Project.find(project)
    ensure(home)
    if plot:
        from unification.matching.weights import picture, weigh

        picture(weigh(home, a, b)).savefig(plot)
        click.echo(f"wrote {plot}")
    found = run(home, a, b)
    if found.profile_a != found.profile_b:
        click.echo(f"{found.a} is {found.profile_a}, {found.b} is {found.profile_b}: not one person.")
        for link in found.refused:
            click.echo(f"- {link.a} with {link.b}, {link.known_at:%Y-%m-%d}: refused, {link.reason}")
        return
    click.echo(f"{found.a} and {found.b} are {found.profile_a}, by {len(found.path)} links:")
    table(
        ["identifier", "and", "known since", "source", "facts", "first fact"],
        [(x.a, x.b, f"{x.known_at:%Y-%m-%d %H:%M}", x.source, f"{x.evidence:,}", x.fact_id) for x in found.path],
    )
    if any(link.source == "match" for link in found.path):
        from unification.matching.kept import pairs

        weighed = {pair.match_id: pair for pair in pairs(home)}
        for link in found.path:
            if link.source == "match" and (pair := weighed.get(link.fact_id)):
                click.echo(
                    f"{pair.match_id}: weight {pair.weight:+.1f}, probability {pair.probability:.4f}, "
                    f"model {pair.model_version}"
                )


_because = click.option("--because", default="", help="Why; kept with the decision.")


@identity.command()
@click.argument("a")
@click.argument("b")
@_because
@click.pass_obj
def veto(project: str | None, a: str, b: str, because: str) -> None:
    """A and B are two people: part them now, and refuse whatever would make them one again.

    Of the links between them the one that came last is left out.
    """
    _decide(project, "veto", a, b, because)


@identity.command()
@click.argument("a")
@click.argument("b")
@_because
@click.pass_obj
def unlink(project: str | None, a: str, b: str, because: str) -> None:
    """The link between identifiers A and B is wrong: leave it out, now and whenever it is seen again.

    `foretell identity explain` shows which links there are. If others link the two, they stay one person.
    """
    _decide(project, "unlink", a, b, because)


@identity.command()
@click.argument("decision")
@_because
@click.pass_obj
def undo(project: str | None, decision: str, because: str) -> None:
    """Take a decision back, by its id."""
    from foretell.project import Project
    from unification.decisions import take_back
    from unification.identity import ensure

    home = Project.find(project)
    with home.writing("identity undo"):
        ensure(home)
        _apply(home, lambda: take_back(home, decision, because))


@identity.command()
@click.pass_obj
def decisions(project: str | None) -> None:
    """List the decisions made, those taken back too."""
    import pandas as pd

    from foretell.console import table
    from foretell.project import Project
    from unification.decisions import decisions as all_of

    rows = all_of(Project.find(project)).itertuples()
    table(
        ["decision", "made", "", "identifier", "and", "because", "taken back"],
        [
            (
                d.decision_id,
                f"{d.made_at:%Y-%m-%d %H:%M}",
                d.kind,
                d.a,
                d.b,
                d.reason,
                "yes" if pd.notna(d.known_to) else "",
            )
            for d in rows
        ],
    )


def _decide(project: str | None, kind: str, a: str, b: str, because: str) -> None:
    from foretell.errors import DataError, UnknownName
    from foretell.project import Project
    from lake.engine import session
    from unification.decisions import decide
    from unification.identity import ensure, node_of

    home = Project.find(project)
    with home.writing(f"identity {kind}"):
        ensure(home)
        with session(home) as con:
            one, other = node_of(con, home, a), node_of(con, home, b)
            if one == other:
                raise DataError(a, f"expected two identifiers, got {one} twice", "name the other one")
            if (
                kind == "unlink"
                and not con.execute(
                    "SELECT 1 FROM edges WHERE [a, b] IN ([?, ?], [?, ?])", [one, other, other, one]
                ).fetchall()
            ):
                raise UnknownName(
                    f"{one} and {other}", "nothing links these two directly",
                    f"`foretell identity explain {one} {other}` shows the links between; or use `identity veto`",
                )  # fmt: skip
        made: list[str] = []
        _apply(home, lambda: made.append(decide(home, kind, one, other, because)))
    click.echo(f"Decision {made[0]}; `foretell identity undo {made[0]}` takes it back.")


def _apply(home: Any, change: Callable[[], object]) -> None:
    """Make a decision and say which profiles are others by it."""
    from unification.identity import differences, owners, unify

    before = owners(home)
    change()
    unify(home)
    for old, new in differences(before, owners(home)):
        click.echo(f"{' and '.join(old)} -> {' and '.join(new)}")


@quarantine.command()
@click.argument("source", required=False)
@choosing
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this row (repeatable), by its id's beginning.")
@click.option(
    "--from", "mended", metavar="FILE", type=click.Path(path_type=Path),
    help="The rows of this file, mended, as `foretell quarantine list --to` writes it.",
)  # fmt: skip
@click.pass_obj
def replay(project: str | None, source: str | None, mended: Path | None, ids: tuple[str, ...], **said: Any) -> None:
    """Read rows in quarantine again by today's contracts, and say which profiles changed by it.

    Rows that are good by now become facts, with the ids that they would have had; the others stay, with their new
    reason. Nothing is lost or doubled if it is stopped: run it again.

    \b
    Examples:
      foretell quarantine replay                      all rows
      foretell quarantine replay crm --reason "expected a time"
      foretell quarantine replay --from rows.jsonl    rows that were mended by hand
    """
    from foretell.console import progress
    from foretell.errors import ForetellError
    from foretell.project import Project
    from ingestion.replay import replay as run
    from lake.engine import last_batch
    from unification.changes import watching
    from unification.identity import ensure

    home = Project.find(project)
    chosen = chosen_rows(home, source, ids=ids, **said)
    failed, read = False, 0
    with home.writing("quarantine replay"), progress("replaying") as step:
        if last_batch(home):
            ensure(home)
        with watching(home) as changed:
            for result in run(home, chosen, mended):
                if isinstance(result, ForetellError):
                    failed = True
                    click.secho(f"Error: {result}", fg="red", err=True)
                    continue
                step(f"replayed {result.file}")
                read += result.left + result.still
                text = f"{result.source:<18}{result.file}: {result.added:,} facts"
                text += f", {result.known:,} known already" if result.known else ""
                text += f", {result.left_out:,} left out by `only`" if result.left_out else ""
                text += f", {result.still:,} stay in quarantine" if result.still else ""
                click.echo(text)
                for reason in result.reasons:
                    click.echo(f"{'':<18}  {reason}")
            if not read and not failed:
                click.echo("No such row is in quarantine.")
            elif read:
                step("unifying")
                ensure(home)
                for line in changed().lines():
                    click.echo(line)
    if failed:
        sys.exit(2)


@click.group()
def account() -> None:
    """Companies and their people: by e-mail domain, and by the account ids that sources declare.

    Free, disposable and reserved e-mail domains are no company; the setting personal_domains names others.
    """


@account.command(name="list")
@click.option("--limit", default=20, show_default=True, help="How many to show, those of most people first.")
@click.pass_obj
def list_accounts(project: str | None, limit: int) -> None:
    """List the accounts with the number of their people now."""
    from foretell.console import table
    from foretell.project import Project
    from lake.engine import session
    from unification.accounts import ensure

    home = Project.find(project)
    ensure(home)
    with session(home) as con:
        rows = con.execute(
            "SELECT account_id, name, domain, people, known_since FROM accounts ORDER BY people DESC, name, account_id"
        ).fetchall()
    if not rows:
        click.echo("No accounts: no e-mail address is a company's, and no source names one by account=…")
        return
    click.echo(f"{len(rows):,} accounts, {sum(bool(row[3]) for row in rows):,} of them with people")
    table(
        ["account_id", "name", "domain", "people", "known since"],
        [(i, name, domain, f"{n:,}", f"{at:%Y-%m-%d}" if at else "") for i, name, domain, n, at in rows[:limit]],
    )


@account.command(name="show")
@click.argument("name")
@click.option("--at", type=click.DateTime(), default=None, help="Its people as known at T, UTC (default: now).")
@click.option("--limit", default=20, show_default=True, help="How many people to show.")
@click.pass_obj
def show_account(project: str | None, name: str, at: datetime | None, limit: int) -> None:
    """Show an account and its people. NAME is its id, its domain, an id that a source declares, or its name."""
    from foretell.console import table
    from foretell.project import Project
    from lake.engine import instant, session
    from unification.accounts import account_named, ensure

    home = Project.find(project)
    ensure(home)
    moment = instant(at.replace(tzinfo=UTC) if at else home.now)
    with session(home) as con:
        account_id = account_named(con, name)
        found = con.execute("SELECT * FROM accounts WHERE account_id = ?", [account_id])
        about = dict(zip([d[0] for d in found.description or []], found.fetchall()[0], strict=True))
        people = con.execute(
            f"""SELECT profile_id, string_agg(via, ', ' ORDER BY via), min(known_from) FROM account_members
                WHERE account_id = ? AND known_from < {moment} AND (known_to IS NULL OR known_to >= {moment})
                GROUP BY 1 ORDER BY 3, 1""",
            [account_id],
        ).fetchall()
    click.secho(f"{about.pop('name')} ({about.pop('account_id')})", bold=True)
    for drop in ("domain", "people", "known_since"):
        about.pop(drop)
    for what, value in about.items():
        click.echo(f"{what}: {', '.join(value) if isinstance(value, list) else value if value is not None else ''}")
    click.echo(f"\n{len(people):,} people{f' at {at:%Y-%m-%d %H:%M}' if at else ''}")
    table(["profile_id", "by", "known since"], [(p, via, f"{since:%Y-%m-%d}") for p, via, since in people[:limit]])


for _command in matching.COMMANDS:
    identity.add_command(_command)

COMMANDS = [unify, identity, account]
