"""Verbs of unification: unify."""

from __future__ import annotations

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
        click.echo(f"{found['refused']:,} links refused by the size guard, see the table refused_edges")
    if found["undated"]:
        click.echo(
            f"{found['undated']:,} links have no time of their own: kept out of every cutoff before they were loaded"
        )


COMMANDS = [unify]
