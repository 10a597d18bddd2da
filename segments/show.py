"""How are answers about segments printed?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import click
import numpy as np

from foretell.console import table
from foretell.errors import ForetellError
from segments.earned import Earned, Effect
from segments.history import Refresh
from segments.sizing import Overlap, Size
from segments.why import lines

_HOLDS = {True: "yes", False: "no", None: "unknown"}


def refreshed(found: Sequence[Refresh | ForetellError]) -> None:
    rows = [r for r in found if isinstance(r, Refresh)]
    table(
        ["segment", "size", "entered", "left"],
        [(r.segment, f"{r.size:,}", f"{r.entered:,}", f"{r.left:,}") for r in rows],
    )
    for problem in found:
        if not isinstance(problem, Refresh):
            click.echo(f"- left as it was: {problem}")


def history(found: Sequence[Refresh]) -> None:
    table(
        ["refreshed at", "batch", "size", "share", "entered", "left", "rule"],
        [(f"{r.at:%Y-%m-%d %H:%M}", r.batch, f"{r.size:,}", f"{r.size / max(r.total, 1):.1%}", f"{r.entered:,}",
          f"{r.left:,}", r.rule) for r in found],
    )  # fmt: skip


def trend(found: Sequence[Refresh]) -> None:
    names = list(dict.fromkeys(r.segment for r in found))
    sizes = {(r.at, r.segment): r.size for r in found}  # the last of one moment
    table(
        ["refreshed at", *names],
        [
            (f"{at:%Y-%m-%d %H:%M}", *(f"{sizes[at, n]:,}" if (at, n) in sizes else "" for n in names))
            for at in sorted({r.at for r in found})
        ],
    )


def size(found: Size) -> None:
    share = f"{found.members / max(found.total, 1):.1%}"
    click.echo(f"{found.members:,} of {found.total:,} profiles ({share}) satisfy {found.rule}")
    if found.purpose:
        click.echo(
            f"{found.without_consent:,} more do, but did not agree to {found.purpose}, "
            f"as {found.agreed:,} of all profiles did"
        )
    table(
        ["condition", "alone", "in turn", "left of those before", "unknown"],
        [
            (step.text, f"{step.alone:,}", f"{step.in_turn:,}", f"{step.in_turn / max(before, 1):.1%}",
             f"{step.unknown:,}")
            for step, before in zip(found.steps, [found.agreed, *(s.in_turn for s in found.steps)], strict=False)
        ],
    )  # fmt: skip


def overlap(found: Overlap) -> None:
    both = (("people in both", found.counts), ("of those in the row, also in the column", found.shares))
    if not found.names:
        click.echo("no segment can be counted")
    for what, cells in both if found.names else ():
        click.secho(f"\n{what}", bold=True)
        table(
            ["segment", *found.names],
            [(name, *map(_cell, row)) for name, row in zip(found.names, cells, strict=True)],
        )
    for name, problem in found.problems.items():
        click.echo(f"- {name} is left out: {problem}")


def _cell(value: Any) -> str:
    if isinstance(value, np.integer):
        return f"{int(value):,}"
    return "" if np.isnan(value) else f"{value:.1%}"


def why(found: dict[str, Any]) -> None:
    what = found["segment"] or found["rule"]
    if found["refused"]:
        click.secho(f"{found['profile_id']} is not in {what}: refused", bold=True)
        click.echo(f"It did not agree to {found['purpose']}; nothing else of it is used for that, or told.")
        _consents(found["consents"])
        return
    click.secho(f"{found['profile_id']} is {'in' if found['member'] else 'not in'} {what}", bold=True)
    if found["purpose"]:
        click.echo(f"agreed to {found['purpose']}")
    for change in found.get("changes", ()):
        click.echo(f"{change['change']} at the refresh of {change['at']:%Y-%m-%d %H:%M} (rule {change['rule']})")
    if side := found.get("side"):
        click.echo(f"{side['side']} since the export of {side['exported_at']:%Y-%m-%d %H:%M}")
    click.echo()
    table(
        ["condition", "holds", "the profile"],
        [("  " * depth + text, _HOLDS[holds], said) for depth, text, holds, said in lines(found["conditions"])],
    )
    for name, said in found["attributes"].items():
        click.echo()
        _attribute(name, said)


def _attribute(name: str, said: dict[str, Any]) -> None:
    value = "missing" if said["value"] is None else plain(said["value"])
    click.secho(f"{name}: {value}", bold=True, nl=False)
    if said["kind"] in ("trait", "identifier"):
        known = f", known since {said['known_at']:%Y-%m-%d}" if said.get("known_at") else ""
        click.echo(f"  {said['kind']} from {said['source'] or 'no source'}{known}")
    elif said["kind"] == "feature":
        click.echo(f"  feature of {said['view']} as of {said['cutoff']:%Y-%m-%d %H:%M}; {_behind(said)}")
        for event in said["events"]:
            rest = ", ".join(f"{k} {plain(v)}" for k, v in event.items() if k not in ("source", "event_at"))
            click.echo(f"  - {event['event_at']:%Y-%m-%d %H:%M} {event['source']}: {rest}")
    elif said["kind"] == "consent":
        click.echo(f"  consent to {said['purpose']}")
        _consents(said["said"])
    elif "missing" in said:
        click.echo(f"  score of {said['task']}: {said['missing']}")
    else:
        c = said["contract"]
        click.echo(
            f"  score of {said['task']} by {c['estimator']} v{c['model_version']}, as of {c['cutoff']:%Y-%m-%d}, "
            f"expires {c['expires_at']:%Y-%m-%d}, id {c['score_id']}"
        )
        for reason in c["reasons"] or ():
            click.echo(f"  - {reason['text']}")


def _behind(said: dict[str, Any]) -> str:
    if "note" in said:
        return said["note"]
    shown = f", the latest {len(said['events'])}" if len(said["events"]) < said["behind"] else ""
    return f"{said['behind']:,} events behind it{shown}"


def _consents(said: list[dict[str, Any]]) -> None:
    for fact in said:
        click.echo(f"  - {fact['event_at']:%Y-%m-%d} {'granted' if fact['granted'] else 'withdrawn'}, {fact['source']}")
    if not said:
        click.echo("  - never said anything about it")


def earned(found: Earned) -> None:
    began = ", ".join(f"{at:%Y-%m-%d}" for at in found.exports)
    click.echo(f"{found.segment}: the {found.days} days after each person's first export ({began})")
    click.echo(f"{found.treated:,} treated, {found.control:,} held out")
    if found.too_early:
        click.echo(f"- too early for {found.too_early:,} people: ask again from {found.ready_at:%Y-%m-%d %H:%M} on")
    if found.both:
        click.echo(f"- {found.both:,} left out: they were on both sides before they turned out to be one person")
    if any(found.withdrawn):
        treated, control = found.withdrawn
        click.echo(f"- {treated:,} treated and {control:,} held out are left out: they withdrew their consent since")
    if found.effects:
        click.echo()
        table(
            ["per person", "treated", "control", "difference", "95% interval", ""],
            [(e.outcome, f"{e.treated:,.3f}", f"{e.control:,.3f}", f"{e.difference:+,.3f}", *_verdict(e))
             for e in found.effects],
        )  # fmt: skip
        for e in found.effects:
            if e.beyond_chance and e.low is not None and e.high is not None:
                n = found.treated
                click.echo(
                    f"In all {n * e.difference:+,.1f} {e.outcome} [{n * e.low:+,.1f}, {n * e.high:+,.1f}] by the "
                    f"{n:,} treated."
                )


def _verdict(found: Effect) -> tuple[str, str]:
    if found.low is None or found.high is None:
        return "no answer", found.why
    return f"[{found.low:+,.3f}, {found.high:+,.3f}]", "beyond chance" if found.beyond_chance else "may be chance"


def plain(value: Any) -> Any:
    """A value as text: of a number four digits, of an instant the minute."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return value.isoformat()
    return "-" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
