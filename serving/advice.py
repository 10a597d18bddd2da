"""What is to be done about a figure that left its interval, or a column that drifted? Alerts in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foretell.console import worth
from serving.alerts import Verdict
from serving.watched import Alert, Batch, Graded, Watched
from training.drift import ALERT, SCORE, Drift
from training.expected import LEVEL, metric_of


def alerts(watched: Sequence[Watched]) -> Iterator[Alert]:
    """Those of the last graded cutoff of each task, and of its last batch of scores."""
    for task in dict.fromkeys(each.task for each in watched):
        mine = [each for each in watched if each.task == task]
        if of := max(((w, g) for w in mine for g in w.graded), key=lambda pair: pair[1].cutoff, default=None):
            yield from _of_figures(*of)
        if of := max(((w, b) for w in mine for b in w.batches), key=lambda pair: pair[1].cutoff, default=None):
            yield from _of_drift(*of)


def _of_figures(of: Watched, graded: Graded) -> Iterator[Alert]:
    for verdict in graded.verdicts.values():
        if verdict.state != "alert":
            continue
        yield Alert(of.task, of.version, verdict.metric, _said(of, graded, verdict), _fix(of, verdict))


def _said(of: Watched, graded: Graded, verdict: Verdict) -> str:
    low, high = verdict.limits
    ends = [f"below {low:,.4g}" if low > -float("inf") else "", f"above {high:,.4g}" if high < float("inf") else ""]
    limit = " or ".join(filter(None, ends))
    beyond = f"its exams had {verdict.mean:,.4g} on average, and {limit} is more than chance and season explain"
    metric = metric_of(of.kind, verdict.metric)
    if verdict.metric == LEVEL[of.kind]:
        came, foretold = worth(of.kind, graded.came), worth(of.kind, graded.foretold)
        return (
            f"it foretold {foretold} on average at {graded.cutoff:%Y-%m-%d}, and {came} came "
            f"({metric.title.lower()} {verdict.live.value:+,.4g}; {beyond})"
        )
    return f"{metric.title} at {graded.cutoff:%Y-%m-%d} is {verdict.live.value:,.4g}; {beyond}"


def _fix(of: Watched, verdict: Verdict) -> str:
    if of.used and not of.in_use:
        return f"v{of.used} is in use since: look whether its own outcomes are better, once they are there"
    first = "See below which features drifted, and whether their sources still deliver what they did"
    train = f"then `foretell train {of.task}`, which learns from the months since"
    if verdict.metric == LEVEL[of.kind]:
        return f"{first}; {train}. Until then use its order (percentiles), not its numbers"
    return f"{first}; {train}, and keeps a baseline where learning does not pay any more"


def _of_drift(of: Watched, batch: Batch) -> Iterator[Alert]:
    drifted = sorted((d for d in batch.drifts if d.level == "alert"), key=lambda d: -d.psi)
    score = [d for d in drifted if d.column == SCORE]
    columns = [d for d in drifted if d.column != SCORE]
    for d in score:
        yield Alert(
            of.task, of.version, SCORE,
            f"its scores of {batch.cutoff:%Y-%m-%d} are distributed otherwise than those of its exams ({_index(d)})",
            "Look at the features that drifted; if none did, it is the time of the year or the mix of people",
        )  # fmt: skip
    if columns:
        named = ", ".join(f"{d.column} ({_index(d)})" for d in columns[:5])
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        yield Alert(
            of.task, of.version, columns[0].column,
            f"those scored at {batch.cutoff:%Y-%m-%d} are others than those it learned from, by {named}{more}",
            "`foretell features list` says what a feature is made of, `foretell features describe` shows its run: if a "
            f"source changed, mend it; if people did, `foretell train {of.task}`",
        )  # fmt: skip


def _index(d: Drift) -> str:
    return f"PSI {d.psi:.2f}, more than {max(ALERT, d.chance, d.trend):.2f}"
