"""How does a project keep itself up to date? Load what is new, unify, score, grade; one writer at a time.

Each step is safe to be killed, so a run needs no repair of its own: the next one goes on. A source that fails does not
stop the others, and is tried less often while it goes on failing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from foretell.errors import Busy, ForetellError
from foretell.project import Project
from ingestion import journal
from ingestion.load import Loaded, load
from lake.engine import last_batch, session, table
from serving.access.trail import take_in

STEPS = ("load", "unify", "score", "grade")
LONGEST_WAIT = timedelta(hours=6)  # between two tries of what goes on failing
STALE = timedelta(days=1)  # scores older than this are made again even if no fact came


class Stopped(Exception):
    """Somebody asked the process to end."""


@dataclass
class Report:
    """What one run did. added: new facts. skipped: why a step or source was left out."""

    added: int = 0
    errors: list[ForetellError] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    stopped: bool = False
    broken: bool = False  # a step failed, not only a source


@dataclass
class Stop:
    """SIGTERM sets it; what is under way ends at its next word."""

    event: threading.Event = field(default_factory=threading.Event)

    def check(self, text: str = "") -> None:
        if self.event.is_set():
            raise Stopped

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        before = signal.signal(signal.SIGTERM, lambda *_: self.event.set())
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)


def keep_running(
    folder: str | None, steps: tuple[str, ...], every: timedelta, stop: Stop, *, say: Callable[[str], None],
    step: Callable[[str], None] = lambda text: None,
) -> None:  # fmt: skip
    """Run at every interval until stopped. The contracts are read anew each time."""
    failures = 0
    while not stop.event.is_set():
        begun, project, run = datetime.now(UTC), None, None
        try:
            project = Project.find(folder)
            run, report = once(project, steps, stop, every=every, say=say, step=step)
            broken = report.broken
        except ForetellError as error:  # not even the settings can be read
            say(f"Error: {error}")
            broken = True
        failures = failures + 1 if broken else 0
        at = max(begun + patience(every, failures), datetime.now(UTC))
        if stop.event.is_set():
            break
        if project and run:
            journal.plan_next(project, run, at)
        step(f"next run at {at:%H:%M:%S} UTC")
        stop.event.wait((at - datetime.now(UTC)).total_seconds())
        if project and run:
            journal.plan_next(project, run, None)


def patience(every: timedelta, failures: int) -> timedelta:
    """How long to wait for the next try: doubled with each failure in a row, up to a limit.

    >>> [patience(timedelta(minutes=10), n) / timedelta(minutes=10) for n in (0, 1, 2, 3, 30)]
    [1.0, 2.0, 4.0, 8.0, 36.0]
    """
    return every if not failures else min(every * 2 ** min(failures, 20), max(every, LONGEST_WAIT))


def once(
    project: Project, steps: tuple[str, ...], stop: Stop, *, every: timedelta | None = None,
    say: Callable[[str], None], step: Callable[[str], None] = lambda text: None,
) -> tuple[int, Report]:  # fmt: skip
    """Run the steps once. Returns the run's number in the journal and what it did."""
    report, run = Report(), journal.begin(project, steps)

    def tell(text: str) -> None:
        stop.check()
        step(text)

    try:
        with project.writing("run"):
            for name in steps:
                stop.check()
                _STEPS[name](project, report, every, say, tell)
            take_in(project)  # what a service has written down of its readers
    except Stopped:
        report.stopped = True
    except Busy as error:
        report.skipped.append(f"{error.problem}; this run is left out")
    except ForetellError as error:
        report.errors.append(error)
        report.broken = True
        say(f"Error: {error}")
    except Exception as error:  # a mistake of ours; whoever runs on a schedule is not left without the next run
        said = f"{type(error).__name__}: {error}"
        if every is None:
            journal.end(project, run, report.added, said)
            raise
        report.broken = True
        report.errors.append(ForetellError("run", said, "please report it"))
        say(f"Error: {report.errors[-1]}")
    for line in report.skipped:
        say(line)
    problems = [*map(str, report.errors), *(["stopped"] if report.stopped else []), *report.skipped]
    journal.end(project, run, report.added, "; ".join(problems) or None)
    return run, report


def _load(
    project: Project, report: Report, every: timedelta | None, say: Callable[[str], None], step: Callable[[str], None]
) -> None:
    fared, due = journal.sources(project), []
    for name in project.definitions.sources:
        last = fared.get(name)
        if every and last and last.failures:
            again = last.tried_at + patience(every, last.failures - 1) - every / 2
            if datetime.now(UTC) < again:
                report.skipped.append(f"{name}: failed {last.failures} times, tried again from {again:%H:%M} UTC on")
                continue
        due.append(name)
    for result in load(project, due, say=step, keep=partial(journal.kept, project)):
        if isinstance(result, Loaded):
            report.added += result.added
            if not result.skipped and (result.added or result.changes or result.quarantined):
                told = [f"{result.added:,} facts", *result.changes]
                told += [f"{result.quarantined:,} in quarantine"] if result.quarantined else []
                say(f"{result.source}: {result.file}: {', '.join(told)}")
        else:
            report.errors.append(result)
            say(f"Error: {result}")


def _unify(
    project: Project, report: Report, every: timedelta | None, say: Callable[[str], None], step: Callable[[str], None]
) -> None:
    from unification.identity import ensure

    if last_batch(project):
        step("unifying")
        ensure(project)


def _score(
    project: Project, report: Report, every: timedelta | None, say: Callable[[str], None], step: Callable[[str], None]
) -> None:
    from models.registry import quietly, trained_at

    names = [t for t in project.definitions.tasks if quietly(lambda t=t: trained_at(project, t))]
    if not names or not last_batch(project):
        return
    if not (due := _due(project, names)):
        return
    from serving.score import score

    for found in score(project, due, progress=step):
        say(f"{found.task}: {found.added:,} new scores")


def _due(project: Project, names: list[str]) -> list[str]:
    """The tasks whose champion has not scored the facts of today, or not for a day."""
    if not table(project, "scores").exists:
        return names
    with session(project) as con:
        rows = con.execute("SELECT task, max(batch), max(cutoff) FROM scores GROUP BY task").fetchall()
    fresh = {task for task, batch, at in rows if batch == last_batch(project) and project.now - at < STALE}
    return [name for name in names if name not in fresh]


def _grade(
    project: Project, report: Report, every: timedelta | None, say: Callable[[str], None], step: Callable[[str], None]
) -> None:
    if not table(project, "scores").exists:
        return
    from serving.grade import grade

    for found in grade(project, progress=step):
        if found.graded:
            say(f"{found.task}: {found.graded:,} scores of {found.cutoff:%Y-%m-%d} graded")


_STEPS = {"load": _load, "unify": _unify, "score": _score, "grade": _grade}
