"""How is an audience scored? The champion's answer for everyone eligible at T, each with its contract, as facts.

A score's id is a digest of task, model version, profile, cutoff and feature row: scoring that was killed half way is
repaired by scoring again, and asking the same question twice adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from features.compiling import contracts, thawed, versioned
from features.store import repository
from features.store.online import Online
from foretell.declarations import PredictionTask
from foretell.errors import DataError, DefinitionError, NotReady
from foretell.project import Project
from foretell.views import FrozenView
from lake.engine import last_batch, session, table
from models.encoding import encode_rows
from models.registry import Champion, champion, quietly, trained_at, views_of
from segments.audience import audience
from serving import batch
from serving.batch import online_cutoff
from serving.contract import SCHEMA, Terms, contract_rows
from serving.publish import publish
from training import dataset
from unification.consent import without
from unification.identity import resolve


@dataclass(frozen=True)
class Scored:
    """One task's batch: how many profiles were eligible, how many scores are new, their mean, the model and cutoff.

    members: of a segment that was scored, how many profiles it has; eligible then counts those among them.
    without_consent: how many more would be eligible, but did not agree to the task's purpose: they are not scored.
    edited: views that are others now than when the model was trained, which was told what they were.
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


def score(
    project: Project, names: list[str], cutoff: datetime | None = None,
    progress: Callable[[str], None] = lambda _: None, segment: str | None = None,
) -> list[Scored]:  # fmt: skip
    """Score everyone eligible at the cutoff (default: the project's now) for each task, and write the scores.

    A task with targets stands for them too. Features come from Feast, and are brought to the online store; then the
    service is told. segment: write the scores of these members only (a declared segment or a rule, as of now). Their
    percentile is among everyone eligible all the same: it means the same whoever is asked about.
    Raises NotReady for a task never trained.
    """
    if segment is not None and cutoff is not None:
        raise DataError(segment, "a segment's members are those of now, not those of another cutoff", "leave --at out")
    cutoff = cutoff or project.now
    if cutoff > project.now:
        raise DataError(
            "score", f"expected a cutoff up to now ({project.now:%Y-%m-%d %H:%M}), got {cutoff:%Y-%m-%d %H:%M}",
            "what will be known then is not known yet; leave --at out",
        )  # fmt: skip
    matched = [_matching_champion(project, project.definitions.task(name)) for name in _trained(project, names)]
    tasks, champions = [task for task, _ in matched], {task.name: model for task, model in matched}
    members = None if segment is None else set(audience(project, segment).members["profile_id"])
    dataset.build_for(project, tasks, [cutoff], progress)
    found = [
        replace(
            _score_task(project, task, champions[task.name], cutoff, progress, members), edited=_edited(project, task)
        )
        for task in tasks
    ]
    _bring_online(project, tasks, cutoff, progress)
    publish(project, progress)
    return found


def _trained(project: Project, names: list[str]) -> list[str]:
    """These tasks and their targets: of a family those that are trained, or all of it if none is (which is refused)."""
    wanted: list[str] = []
    for name in names:
        family = project.definitions.family([name])
        wanted += [t for t in family if quietly(lambda t=t: trained_at(project, t))] or family[:1]
    return list(dict.fromkeys(wanted))


def _score_task(
    project: Project, task: PredictionTask, model: Champion, cutoff: datetime, progress: Callable[[str], None],
    members: set[str] | None,
) -> Scored:  # fmt: skip
    with session(project) as con:
        eligible = dataset.population(con, project, task, cutoff)
        refused = dataset.left_out(con, project, task, cutoff)
    size = None if members is None else len(members)
    if not eligible:
        batch.keep(project, model, cutoff, [], np.empty(0))
        made = model.version, model.contract["estimator"], cutoff, size, refused
        return Scored(task.name, 0, 0, float("nan"), *made)
    progress(f"{task.name}: scoring {len(eligible):,} profiles")
    rows = pd.DataFrame({"profile_id": pd.Series(eligible, dtype=object), "event_timestamp": pd.Timestamp(cutoff)})
    rows = dataset.with_features(project, task, rows).sort_values("profile_id", ignore_index=True)
    X = model.encode(rows)
    values = model.predict(X, cutoff).to_numpy()
    wanted = np.ones(len(rows), dtype=bool) if members is None else rows["profile_id"].isin(members).to_numpy()
    profiles = rows.loc[wanted, "profile_id"].tolist()
    terms = Terms(cutoff, cutoff + task.horizon, last_batch(project), task.purpose)
    found = contract_rows(
        model, profiles, X[wanted].reset_index(drop=True), np.sort(values), terms, values=values[wanted]
    )  # fmt: skip
    stored = table(project, "scores")
    known: set[str] = set()
    if files := stored.files():
        with session(project) as con:
            query = f"SELECT score_id FROM {stored.scan(files)} WHERE task = ? AND cutoff = ?"
            known = {i for (i,) in con.execute(query, [task.name, cutoff]).fetchall()}
    new = [row for row in found if row["score_id"] not in known]
    if new:
        stored.append(pa.Table.from_pylist(new, schema=SCHEMA), why=f"score {task.name} v{model.version}")
    batch.keep(project, model, cutoff, rows["profile_id"].tolist(), values)
    mean = float(np.mean(values[wanted])) if len(found) else float("nan")
    return Scored(
        task.name, len(found), len(new), mean, model.version, model.contract["estimator"], cutoff, size, refused
    )  # fmt: skip


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
    scored = last.values()
    if profile not in set(scored["profile_id"]):
        raise NotReady(
            who, f"is not in the population of {name} ({task.population})", "score someone who is",
            where=f"at {last.cutoff:%Y-%m-%d}",
        )  # fmt: skip
    service = model.contract["service"]
    rows = quietly(lambda: Online(project, [service]).read([service], [profile])[service])
    if rows.times(0) != {last.cutoff}:
        raise NotReady(who, f"its features online are not those of {last.cutoff:%Y-%m-%d}", "run `foretell score`")
    terms = Terms(last.cutoff, last.cutoff + task.horizon, last.batch, task.purpose)
    X = encode_rows(rows.values([0]), model.contract["columns"], model.categories)
    return contract_rows(model, [profile], X, last.crowd(), terms)[0]


def refused_for(who: str, purpose: str) -> NotReady:
    """The error of asking for a score that its person did not agree to."""
    fix = f"`foretell consent show {who}` says what they said, and when"
    return NotReady(who, f"must not be scored: no consent to {purpose}", fix)


def _matching_champion(project: Project, task: PredictionTask) -> tuple[PredictionTask, Champion]:
    """The champion, and the task as it was when the champion was trained: views edited since are what they were."""
    model = quietly(lambda: champion(project, task.name))
    if model.contract["service"] == (today := repository.service_name(project, task)):
        return task, model
    sources = dict(project.definitions.sources)
    views = [thawed(said) for said in quietly(lambda: views_of(project, model))]
    former = replace(task, views=tuple(views)) if views else task
    broken = [view.name for view in views if contracts(view, sources) != view.contracts]
    if broken or repository.service_name(project, former) != model.contract["service"]:
        why = f", and a source of {', '.join(broken)} has changed" if broken else ""
        raise DefinitionError(
            task.name, f"its features were {model.contract['service']} when the champion was trained, now {today}{why}",
            f"run `foretell train {task.name}` again, or take back the change to its sources",
        )  # fmt: skip
    return former, model


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
