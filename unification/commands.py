"""Verbs of unification: unify, identity explain, veto, unlink, undo, decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


@click.command()
@click.pass_obj
def unify(project: str | None) -> None:
    """Decide which identifiers belong to the same person, and make one golden profile of each.

    Identifiers met in one fact belong together. Profile ids persist: after a merge the older one stays, and the younger
    one still finds the person. Later steps do this by themselves when facts were loaded since.
    """
    from foretell.console import progress
    from foretell.project import Project
    from unification.identity import unify as run

    home = Project.find(project)
    with home.writing("unify"), progress("unifying"):
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
@click.pass_obj
def explain(project: str | None, a: str, b: str) -> None:
    """Show the chain of links by which A and B are one person, or what keeps them apart."""
    from foretell.console import table
    from foretell.project import Project
    from unification.explain import explain as run
    from unification.identity import ensure

    home = Project.find(project)
    ensure(home)
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


COMMANDS = [unify, identity]
