"""Why this score? Any score that was ever written, by its id: what it said, whether it comes out again, and whence.

Four parts. The contract, as it was stored. The answer of the very model version to the very row, which is the same to
the last bit, with its reasons. The row itself, made again from the facts of the score's cutoff and batch, with what is
another today named feature by feature. And the facts behind the features of the largest reasons.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from features.explain import Behind, behind_of
from foretell.console import table, worth
from foretell.errors import ForetellError
from foretell.project import Project
from lake.engine import session
from serving.rebuild import as_json, as_trained, rebuilt
from serving.stored import Score, find, model_of, rescored
from unification.identity import ensure

FACTS = 20  # of a feature, that are shown


def explain(project: Project, score_id: str) -> dict[str, Any]:
    """Everything about one score. Raises UnknownName for an id that no score has.

    score: its contract as stored. rescored: value, identical, difference; reasons: as worked out now; same_reasons:
    whether these are the stored ones, None if none were stored. rebuilt: agrees; then and today: features that are
    others, as was, now and why; problem. behind: for each reason feature, value, seen, facts (the latest first: source,
    event_at, what the feature reads, alone, without), or problem.
    """
    scores = find(project, [score_id])
    score = scores[score_id]
    again = rescored(project, scores)[score_id]
    made = rebuilt(project, scores)[score_id]
    stored = score["reasons"]
    return {
        "score": score,
        "rescored": {
            "value": again.value, "identical": again.identical, "difference": again.value - score["value"],
        },
        "reasons": again.reasons,
        "same_reasons": None if stored is None else stored == again.reasons,
        "rebuilt": as_json(made),
        "behind": [] if made.problem else _behind(project, score, [reason["feature"] for reason in again.reasons]),
    }  # fmt: skip


def _behind(project: Project, score: Score, features: list[str]) -> list[dict[str, Any]]:
    """The facts behind some features, of those that the score knew."""
    ensure(project)
    model = model_of(project, score["task"], score["model_version"])
    task = as_trained(project, project.definitions.task(score["task"]), model)
    homes = {feature: view for view in project.definitions.views_of(task) for feature in view.features}
    found = []
    with session(project, score["batch"]) as con:
        for feature in features:
            try:
                said = behind_of(con, project, homes[feature], score["profile_id"], feature, score["cutoff"])
                found.append(_facts(feature, said))
            except ForetellError as error:
                found.append({"feature": feature, "value": None, "seen": 0, "facts": [], "problem": str(error)})
    return found


def _facts(feature: str, said: Behind) -> dict[str, Any]:
    return {
        "feature": feature, "value": said.value, "seen": said.seen, "behind": len(said.facts),
        "facts": said.facts[:FACTS], "problem": None,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """Print what `explain` found."""
    score = found["score"]
    value, rate = (worth(score["kind"], score[what]) for what in ("value", "base_rate"))
    if score["value_low"] is not None and score["value_high"] is not None:
        low, high = (worth(score["kind"], score[end]) for end in ("value_low", "value_high"))
        value += f" [{low.removesuffix(' days')}, {high.removesuffix(' days')}]"
    click.secho(f"{score['task']} {value}", bold=True, nl=False)
    click.echo(
        f"  of {score['profile_id']}; percentile {score['percentile']:.0f}; base rate {rate}; {score['estimator']} "
        f"v{score['model_version']}, as of {score['cutoff']:%Y-%m-%d}, batch {score['batch']}"
    )
    for reason in found["reasons"]:
        click.echo(f"  - {reason['text']}")
    again = found["rescored"]
    if again["identical"]:
        click.echo("\nThe model says the same of the stored row, to the last bit.")
    else:
        click.secho(f"\nThe model says {again['value']!r} of the stored row now, not {score['value']!r}.", fg="red")
    if found["same_reasons"] is False:
        click.secho("Its reasons are others now than those that were stored.", fg="red")
    _show_rebuilt(found["rebuilt"])
    for one in found["behind"]:
        _show_facts(one)


def _show_rebuilt(made: dict[str, Any]) -> None:
    if made["problem"]:
        click.echo(f"The row cannot be made again from the facts: {made['problem']}.")
        return
    if made["agrees"]:
        click.echo("The row comes out of the facts of its batch again.")
    for name, text in (("then", "Made again of the facts of its batch"), ("today", "Of all that is known by now")):
        if changes := made[name]:
            if name == "today" and changes == made["then"]:
                continue
            click.echo(f"{text}, {len(changes)} features are others:")
            rows = [(c["feature"], c["was"], c["now"], "; ".join(c["why"]) or "no cause is known") for c in changes]
            table(["feature", "was", "is", "because"], rows)


def _show_facts(one: dict[str, Any]) -> None:
    click.echo()
    if one["problem"]:
        click.echo(f"{one['feature']}: {one['problem']}")
        return
    click.secho(f"{one['feature']} is {one['value']}: {one['behind']} of {one['seen']} facts are behind it", bold=True)
    if one["facts"]:
        names = list(one["facts"][0])
        table(names, [[_text(fact[name]) for name in names] for fact in one["facts"]])
        if (more := one["behind"] - len(one["facts"])) > 0:
            click.echo(f"and {more:,} more")


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return f"{value:.6g}" if isinstance(value, float) else value
