"""What is the state of a project? Counts from the ledger, the registry and the scores, and the step that comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foretell.project import Project
from ingestion import journal
from lake.consent import purposes
from lake.engine import session, table
from lake.erasure import unfinished
from models.registry import quietly, trained_at
from serving.places import shown


@dataclass(frozen=True)
class Status:
    """Rows ready to print: sources, tasks, notes, and the next command."""

    sources: list[tuple]
    tasks: list[tuple]
    notes: list[str]
    next: str


def collect(project: Project) -> Status:
    """Look, without changing anything but MLflow's own tables."""
    known = project.definitions
    loaded: dict[str, tuple] = {}
    scored: dict[str, int] = {}
    with session(project) as con:
        rules = purposes(project, con)
        if table(project, "batches").exists:
            # a replay of rows in quarantine is a batch without a file of its own
            files = "count(*) FILTER (sha256 <> '')"
            query = f"SELECT source, {files}, sum(added), max(finished_at) FROM batches GROUP BY 1"
            bad = {}
            if table(project, "quarantine").exists:
                bad = dict(con.execute("SELECT source, count(*) FROM quarantine GROUP BY 1").fetchall())
            loaded = {s: (n, int(a), bad.get(s, 0), at) for s, n, a, at in con.execute(query).fetchall()}
        if table(project, "scores").exists:
            scored = dict(con.execute("SELECT task, count(*) FROM scores GROUP BY 1").fetchall())
    sources = []
    for name in known.sources:
        files, facts, bad, at = loaded.get(name, (0, 0, 0, None))
        sources.append((name, f"{files:,}", f"{facts:,}", f"{bad:,}", f"{at:%Y-%m-%d %H:%M}" if at else "never"))
    tasks, champions = [], 0
    for task in known.tasks.values():
        trained = quietly(lambda t=task: trained_at(project, t.name))
        champions += trained is not None
        champion = f"v{trained[0]}, {trained[1]:%Y-%m-%d %H:%M}" if trained else "none"
        tasks.append((task.name, task.population, f"{task.horizon.days}d", champion, f"{scored.get(task.name, 0):,}"))
    notes = [f"{name} is left out: {reason}" for name, reason in known.idle.items()]
    notes += _history(project)
    notes += _consent(rules, {task.purpose for task in known.tasks.values()})
    if unfinished(project):
        step = "foretell erase (an erasure was cut short)"
    elif not known.sources:
        step = "declare a source in sources/ (see the README), then `foretell load`"
    elif not loaded:
        step = "foretell load"
    elif not champions:
        step = "foretell train"
    elif not scored:
        step = "foretell score"
    else:
        step = "foretell segment list"
    return Status(sources, tasks, notes, step)


def settings_of(project: Project) -> list[tuple]:
    """(name, value, origin) of every setting; addresses without what may be secret in them."""
    return [
        (name, "" if v.value is None else shown(project, name), v.origin)
        for name, v in project.settings.items()
        if name != "purposes"
    ]


def _history(project: Project) -> list[str]:
    """What runs and loads left to say: the last run, the next one, errors of sources, changes of their columns."""
    notes = []
    for run in journal.runs(project, most=1):
        state = f"ended {run.ended_at:%Y-%m-%d %H:%M}" if run.ended_at else "under way" if run.alive else "was killed"
        text = f"last run ({run.steps}): began {run.started_at:%Y-%m-%d %H:%M}, {state}, {run.added:,} new facts"
        notes.append(text + (f": {run.error}" if run.error else ""))
        if run.next_at and run.alive:
            notes.append(f"next run: {run.next_at:%Y-%m-%d %H:%M} UTC")
    for name, fared in journal.sources(project).items():
        if name not in project.definitions.sources:
            continue
        if fared.error:
            times = f" ({fared.failures} times in a row)" if fared.failures > 1 else ""
            notes.append(f"{name} failed {fared.tried_at:%Y-%m-%d %H:%M}{times}: {fared.error}")
        if fared.changes and fared.changed_at:
            notes.append(f"{name} changed {fared.changed_at:%Y-%m-%d %H:%M}: {fared.changes}")
    return notes


def _consent(rules: Mapping[str, str], asked: set[str]) -> list[str]:
    """What consent is asked for, and what not."""
    said = [f"{purpose} is {rule}" for purpose, rule in rules.items()]
    notes = [f"consent: {', '.join(said)}"] if said else []
    if free := sorted(asked - rules.keys()):
        notes.append(f"no consent is asked for {', '.join(free)}: everybody may be used")
    return notes
