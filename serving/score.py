"""How is an audience scored? The champion's answer for everyone eligible at T, each with its contract, as facts.

A score's id is a digest of task, model version, profile, cutoff and feature row: scoring that was killed half way is
repaired by scoring again, and asking the same question twice adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from features.compiling import versioned
from features.store import repository
from features.store.online import Online
from foretell.declarations import PredictionTask
from foretell.errors import DataError, NotReady
from foretell.project import Project
from foretell.views import FrozenView
from lake.engine import session
from models.encoding import encode_rows
from models.registry import Champion, champion, quietly, trained_at
from segments import history
from segments.audience import audience
from serving import batch, stream, writing
from serving.batch import online_cutoff
from serving.contract import SCHEMA, Terms, contract_rows
from serving.evidence import Evidence
from serving.publish import publish
from serving.reasons import choose
from serving.rebuild import as_trained
from serving.stream import Asked
from training import dataset
from unification.consent import without
from unification.identity import resolve


@dataclass(frozen=True)
class Scored:
    """One task's batch: how many profiles were eligible, how many scores are new, their mean, the model and cutoff.

    members: of a segment that was scored, how many profiles it has; eligible then counts those among them.
    without_consent: how many more would be eligible, but did not agree to the task's purpose: they are not scored.
    edited: views that are others now than when the model was trained, which was told what they were.
    insufficient: how many of those eligible have no score, as there is too little evidence (see serving.evidence).
    reasons: how many new scores have theirs, chosen as `said`, and the seconds that took.
    """

    task: str
    eligible: int
    added: int
    mean: float
    version: str
    estimator: str
    cutoff: datetime
    members: int | None = None
    without_consent: int = 0
    edited: tuple[str, ...] = ()
    insufficient: int = 0
    lacking: tuple[str, ...] = ()
    reasons: int = 0
    said: str = "all"
    seconds: float = 0.0


def score(
    project: Project, names: list[str], cutoff: datetime | None = None,
    progress: Callable[[str], None] = lambda _: None, segment: str | None = None, reasons: str | None = None,
) -> list[Scored]:  # fmt: skip
    """Score everyone eligible at the cutoff (default: the project's now) for each task, and write the scores.

    A task with targets stands for them too. Features are brought to the online store as well; then the service is
    told. segment: write the scores of these members only (a declared segment or a rule, as of now). Their percentile is
    among everyone eligible all the same: it means the same whoever is asked about. reasons: whose are worked out: all,
    none, top:0.05 of each task, or a segment's; None: of all, or of the top if they are many.
    Raises NotReady for a task never trained.
    """
    of_now = segment or (reasons if reasons and reasons.partition(":")[0] not in ("all", "none", "top") else None)
    if of_now is not None and cutoff is not None:
        raise DataError(of_now, "a segment's members are those of now, not those of another cutoff", "leave --at out")
    cutoff = cutoff or project.now
    if cutoff > project.now:
        raise DataError(
            "score", f"expected a cutoff up to now ({project.now:%Y-%m-%d %H:%M}), got {cutoff:%Y-%m-%d %H:%M}",
            "what will be known then is not known yet; leave --at out",
        )  # fmt: skip
    matched = [_matching_champion(project, project.definitions.task(name)) for name in _trained(project, names)]
    tasks = [task for task, _ in matched]
    members = None
    if segment is not None:
        members = pa.array(audience(project, segment, ["profile_id"]).members["profile_id"].tolist(), pa.string())
    dataset.build_for(project, tasks, [cutoff], progress)
    found = write_scores(project, [Asked(*pair) for pair in matched], cutoff, members, reasons, progress)
    _bring_online(project, tasks, cutoff, progress)
    publish(project, progress)
    with suppress(DataError):  # of a project that was set back in time: memberships are written forwards only
        history.record(project, progress)
    return found


def write_scores(
    project: Project, asked: list[Asked], cutoff: datetime, members: pa.Array | None = None,
    reasons: str | None = None, progress: Callable[[str], None] = lambda _: None,
) -> list[Scored]:  # fmt: skip
    """Answer each task for everyone eligible at a cutoff that is built, and write the scores. See `score`."""
    made = stream.answer(project, asked, cutoff, members, progress)
    chosen = choose(project, reasons, max(len(found.at) for found in made.found.values()))
    writing.write(made, asked, chosen, progress)
    scored = []
    for one in asked:
        found = made.found[one.name]
        mine, gone = made.wanted[found.at], int(made.wanted[found.lacking].sum())
        mean = float(np.mean(found.values[mine])) if mine.any() else float("nan")
        scored.append(Scored(
            one.name, int(mine.sum()) + gone, found.added, mean, one.model.version, one.model.contract["estimator"],
            cutoff, None if members is None else len(members), found.refused, _edited(project, one.task), gone,
            tuple(found.empty), found.reasons, chosen.text, found.seconds,
        ))  # fmt: skip
    made.staging.clear()
    return scored


def _trained(project: Project, names: list[str]) -> list[str]:
    """These tasks and their targets: of a family those that are trained, or all of it if none is (which is refused)."""
    wanted: list[str] = []
    for name in names:
        family = project.definitions.family([name])
        wanted += [t for t in family if quietly(lambda t=t: trained_at(project, t))] or family[:1]
    return list(dict.fromkeys(wanted))


def score_one(project: Project, name: str, who: str) -> dict[str, Any]:
    """One profile's score now, from the online store: the contract as a dict. Nothing is written.

    who: a profile id, an old one, or any identifier. Its percentile is among the last batch of the same model.
    """
    task, model = _matching_champion(project, project.definitions.task(name))
    last = batch.last(project, name)
    if last is None or last.version != model.version:
        problem = "nothing has been scored yet" if last is None else f"v{model.version} has not scored anyone yet"
        raise NotReady(name, problem, f"run `foretell score {name}` first")
    with session(project) as con:
        profile = resolve(con, project, who)
        if without(con, project, task.purpose, project.now, [profile]):
            raise refused_for(who, task.purpose)
    if not (known := last.value_of(profile)):
        raise NotReady(
            who, f"is not in the population of {name} ({task.population})", "score someone who is",
            where=f"at {last.cutoff:%Y-%m-%d}",
        )  # fmt: skip
    service = model.contract["service"]
    rows = quietly(lambda: Online(project, [service]).read([service], [profile])[service])
    times = [at for at in rows.times(0) if at is not None]
    # of whom something has come in since, some are as of then
    if len(times) < len(rows.times(0)) or min(times) < last.cutoff:
        raise NotReady(
            who, f"its features online are not those of {last.cutoff:%Y-%m-%d %H:%M}", "run `foretell score`"
        )  # fmt: skip
    cutoff = max(times)
    terms = Terms(cutoff, cutoff + task.horizon, last.batch, task.purpose)
    X = encode_rows(rows.values([0]), model.contract["columns"], model.categories)
    absent = list(last.empty) if known == [None] else []  # a view had no row of them
    evidence = Evidence(name, model.contract["columns"], last.empty)
    if problem := evidence.problem(X.to_numpy()[0]) or evidence.problem(X.to_numpy()[0], absent):
        raise problem
    return contract_rows(model, [profile], X, last.crowd(), terms)[0]


def refused_for(who: str, purpose: str) -> NotReady:
    """The error of asking for a score that its person did not agree to."""
    fix = f"`foretell consent show {who}` says what they said, and when"
    return NotReady(who, f"must not be scored: no consent to {purpose}", fix)


def _matching_champion(project: Project, task: PredictionTask) -> tuple[PredictionTask, Champion]:
    """The champion, and the task as it was when the champion was trained."""
    model = quietly(lambda: champion(project, task.name))
    return as_trained(project, task, model), model


def _edited(project: Project, task: PredictionTask) -> tuple[str, ...]:
    """The views of a task as it was trained that are others today."""
    sources, known = dict(project.definitions.sources), project.definitions.views
    former = [view for view in task.views if isinstance(view, FrozenView)]
    return tuple(v.name for v in former if v.name not in known or versioned(known[v.name], sources) != v.version)


def _bring_online(
    project: Project, tasks: list[PredictionTask], cutoff: datetime, progress: Callable[[str], None]
) -> None:
    """Bring the features at the cutoff to the online store, unless later ones are there already."""
    online = online_cutoff(project)
    if online is not None and online > cutoff:
        return
    progress("features to the online store")
    store = repository.apply(project, tasks)
    views = dataset.once(project, [v for t in tasks for v in project.definitions.views_of(t)])
    batch.mark_online(project, None)  # between two cutoffs nobody is told that old features are new, or new ones old
    quietly(lambda: repository.materialise(project, store, views, cutoff))
    batch.mark_online(project, cutoff)


__all__ = ["SCHEMA", "Scored", "online_cutoff", "score", "score_one"]
