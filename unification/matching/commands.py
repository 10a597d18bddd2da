"""Verbs of matching, below `foretell identity`: match, review, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--train", is_flag=True, help="Learn anew; the model before stays in MLflow, under its version.")
@click.option("--model", metavar="VERSION", help="Use this version of the model in place of the last one.")
@click.pass_obj
def match(project: str | None, train: bool, model: str | None) -> None:
    """Find profiles without a common identifier that are probably one person.

    Compares names, birth dates, addresses and other traits, learns from the table itself what agreement in each is
    worth (nobody has to label anything), and links pairs from the setting match_at on, unless that would bring two
    birth dates or national ids together. What lies between review_at and match_at waits in `foretell identity review`.
    A link counts from now on: it never changes who was who before. Run it again after loading: it adds what is new.

    \b
    Examples:
      foretell identity match
      FORETELL_MATCH_AT=0.99 foretell identity match        link surer pairs only
      foretell identity match --model 1                     weigh by the model of the first run
    """
    from foretell.console import progress
    from foretell.errors import DataError
    from foretell.project import Project
    from unification.identity import ensure, unify
    from unification.matching.run import match as run

    if train and model:
        raise DataError("--train", "expected it without --model, got both", "a version that exists is not learnt anew")
    home = Project.find(project)
    with home.writing("identity match"):
        ensure(home)
        with progress("matching") as step:
            found = run(home, train=train, version=model, step=step)
            step("unifying")
            after = unify(home)
    for line in found.said:
        click.echo(f"  {line}")
    click.echo(
        f"{found.profiles:,} profiles, model {found.version}{' (new)' if found.trained else ''}: "
        f"{found.linked:,} new links, "
        f"{found.review + found.refused:,} new pairs to review -> {after['profiles']:,} profiles"
    )
    if found.refused:
        click.echo(f"{found.refused:,} of them would bring contradicting facts together")


@click.command()
@click.option("--same", multiple=True, metavar="PAIR", help="The two of this pair are one person (repeatable).")
@click.option("--different", multiple=True, metavar="PAIR", help="They are two (repeatable).")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Write the pairs that wait to a CSV file.")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Take the answers of such a file."
)
@click.option("--limit", default=10, show_default=True, help="How many to show.")
@click.option("--ask", is_flag=True, help="Ask about one after the other: y, n, s(kip), q(uit).")
@click.option("--because", default="", help="Why; kept with the answers.")
@click.pass_obj
def review(project: str | None, same: tuple[str, ...], different: tuple[str, ...], to: Path | None, source: Path | None,
           limit: int, ask: bool, because: str) -> None:  # fmt: skip
    """Answer about pairs that may be one person, the surest first.

    "same" links the two from now on, "different" keeps them apart whatever is found later. `foretell identity
    decisions` lists the answers, `undo` takes one back. A pair that was answered is not asked again.

    \b
    Examples:
      foretell identity review                          shows what waits
      foretell identity review --ask
      foretell identity review --same m12ab34cd56ef
      foretell identity review --to pairs.csv           fill in the column `answer`: same or different
      foretell identity review --from pairs.csv
    """
    from foretell.errors import DataError
    from foretell.project import Project
    from unification.identity import ensure
    from unification.matching import review as reviewing

    home = Project.find(project)
    if both := sorted(set(same) & set(different)):
        raise DataError(both[0], "expected one answer, got same and different", "give one of them")
    said = dict.fromkeys(same, "same") | dict.fromkeys(different, "different")
    if source:
        said |= reviewing.read(source)
    with home.writing("identity review"):
        ensure(home)
        if said:
            _answer(home, said, because)
            return
        pairs = reviewing.waiting(home)
        if to:
            click.echo(f"{reviewing.write(pairs, to):,} pairs written to {to}; fill in `answer`, then --from {to}")
            return
        if not pairs:
            click.echo("No pair waits for an answer.")
            return
        click.echo(
            f"{len(pairs):,} pairs wait for an answer" + (f"; the first {limit}:" if len(pairs) > limit else ":")
        )
        for pair in pairs[:limit]:
            _show(pair)
            if ask:
                key = click.prompt("One person?", type=click.Choice(["y", "n", "s", "q"]), default="s")
                if key == "q":
                    break
                if key in "yn":
                    said[pair.pair.match_id] = "same" if key == "y" else "different"
        if said:
            _answer(home, said, because)


def _answer(home: Any, said: dict[str, str], because: str) -> None:
    from unification.identity import differences, owners, unify
    from unification.matching.review import answer

    before = owners(home)
    made = answer(home, said, because)
    unify(home)
    click.echo(f"{len(made):,} answers: {', '.join(made)}; `foretell identity undo ID` takes one back.")
    for old, new in differences(before, owners(home)):
        click.echo(f"{' and '.join(old)} -> {' and '.join(new)}")


def _show(one: Any) -> None:
    from foretell.console import table

    pair = one.pair
    click.echo("")
    click.secho(
        f"{pair.match_id}: {pair.probability:.1%}, weight {pair.weight:+.1f}, model {pair.model_version}", bold=True
    )
    if pair.reason:
        click.echo(f"not linked: {pair.reason}")
    table(["", one.profile_a, one.profile_b], [(name, *values) for name, values in one.values.items()])
    parts = [f"{name} {level} {bits:+.1f}" for name, (level, bits) in pair.parts.items() if level != "not said"]
    click.echo("weights: " + ", ".join(parts))


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw them, as PNG, SVG or PDF.")
@click.option("--model", metavar="VERSION", help="By this version of the model.")
@click.pass_obj
def weights(project: str | None, a: str, b: str, plot: Path | None, model: str | None) -> None:
    """Show what speaks for A and B being one person, comparison by comparison, in bits.

    \b
    Examples:
      foretell identity weights jo@home.example jo.smith@work.example --plot pair.png
    """
    from foretell.console import table
    from foretell.project import Project
    from unification.identity import ensure
    from unification.matching.weights import picture, weigh

    home = Project.find(project)
    ensure(home)
    found = weigh(home, a, b, model)
    table(
        ["comparison", "level", "bits", found.a, found.b],
        [(bar.name, bar.level, f"{bar.bits:+.2f}", *bar.values) for bar in found.bars],
    )
    click.echo(f"sum {found.weight:+.2f}, probability {found.probability:.4f}, model {found.version}")
    if plot:
        picture(found).savefig(plot)
        click.echo(f"wrote {plot}")


COMMANDS = [match, review, weights]
