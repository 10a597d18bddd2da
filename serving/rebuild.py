"""Does the row that was scored come out of the facts again? As of its cutoff and ingest batch, and as of today.

A row hangs on the facts of its batch that were known before the cutoff, and on who was who then. It may be another by
now: facts of before the cutoff came in late, and links among them; somebody decided who is who; people were erased,
and the feature is made of everybody's facts. Whatever differs is named with its cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from features import build
from features.compiling import contracts, thawed
from features.store import repository
from foretell.declarations import PredictionTask
from foretell.errors import DefinitionError, ForetellError
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import instant, last_batch, session
from lake.erasure import mine, receipts
from models.registry import Champion, quietly, views_of
from serving.stored import Score, by_model, model_of
from unification.decisions import decisions
from unification.identity import ensure, facts_of, members_at

TOLERANCE = 1e-9
"""What two values of a feature may differ by, relative to the larger: floats are added up in any order."""


@dataclass(frozen=True)
class Change:
    """A feature that is another than in the row that was scored. was, now: as the model reads it, None: unknown.
    why: what is known to have changed it; () if nothing is."""

    feature: str
    was: float | None
    now: float | None
    why: tuple[str, ...]


@dataclass(frozen=True)
class Rebuilt:
    """A score's row, made again. batch: of today. then: what differs when it is made of the facts of its own batch;
    today: when it is made of all that is known by now of before its cutoff. problem: why it cannot be made at all."""

    batch: int
    then: tuple[Change, ...] = ()
    today: tuple[Change, ...] = ()
    problem: str = ""

    @property
    def agrees(self) -> bool:
        return not self.problem and not self.then


@dataclass
class _Causes:
    """What has changed since some scores: of the sources by profile, of the profile itself, and of everybody."""

    late: dict[str, dict[str, int]] = field(default_factory=dict)
    identity: dict[str, list[str]] = field(default_factory=dict)
    erased: int = 0

    def of(self, profile: str, view: FeatureView, sources: Sequence[str]) -> tuple[str, ...]:
        late = self.late.get(profile, {})
        said = [f"{n:,} facts of {s} from before the cutoff came in later" for s, n in late.items() if s in sources]
        said += self.identity.get(profile, [])
        if view.facts_of != "profile" and self.erased:
            said.append(f"{self.erased:,} people were erased since, and others' facts are behind it")
        if not said and late:  # what links people is of other sources than what they do
            said = [f"{n:,} facts of {s} from before the cutoff came in later" for s, n in late.items()]
        return tuple(said)


def as_trained(project: Project, task: PredictionTask, model: Champion) -> PredictionTask:
    """The task as it was when a model of it was trained: views edited since are what they were.

    Raises DefinitionError where a source has changed, so that they cannot be built.
    """
    if model.contract["service"] == (today := repository.service_name(project, task)):
        return task
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
    return former


def rebuilt(project: Project, scores: Mapping[str, Score]) -> dict[str, Rebuilt]:
    """score_id -> its row made again, and what is another."""
    ensure(project)
    found: dict[str, Rebuilt] = {}
    now = last_batch(project)
    for (name, version), some in by_model(scores).items():
        model = model_of(project, name, version)
        try:
            task = as_trained(project, project.definitions.task(name), model)
        except ForetellError as error:
            found |= {score["score_id"]: Rebuilt(now, problem=str(error)) for score in some}
            continue
        views = project.definitions.views_of(task)
        states = {(score["cutoff"], score["batch"]) for score in some}
        for cutoff, batch in sorted(states):
            asked = [score for score in some if (score["cutoff"], score["batch"]) == (cutoff, batch)]
            found |= _at(project, model, views, cutoff, batch, now, asked)
    return found


def _at(
    project: Project, model: Champion, views: Sequence[FeatureView], cutoff: datetime, batch: int, now: int,
    scores: Sequence[Score],
) -> dict[str, Rebuilt]:  # fmt: skip
    profiles = sorted({score["profile_id"] for score in scores})
    with session(project, batch) as con:
        then = _rows(con, project, model, views, cutoff, profiles)
    today = then
    with session(project) as con:
        mine(con, "rebuilt", profiles)
        if now != batch:
            today = _rows(con, project, model, views, cutoff, profiles)
        since = min(score["scored_at"] for score in scores)
        causes = _causes(con, project, views, cutoff, batch, since, set(profiles) - set(then.index) & set(today.index))
        homes = {
            feature: (view, [s.name for role in view.roles for s in facts_of(con, project, role)])
            for view in views for feature in view.features
        }  # fmt: skip
    made = {}
    for score in scores:
        profile = score["profile_id"]
        parts = [_changes(score, rows, homes, causes) for rows in (then, today)]
        gone = profile not in then.index
        problem = "; ".join(causes.identity.get(profile, [])) or "no such profile is known at the cutoff any more"
        made[score["score_id"]] = Rebuilt(now, *parts, problem=problem if gone else "")
    return made


def _rows(
    con: duckdb.DuckDBPyConnection, project: Project, model: Champion, views: Sequence[FeatureView], cutoff: datetime,
    profiles: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """The encoded rows of these profiles as the session's facts have them, by profile_id; without who is not known."""
    parts = []
    mine(con, "rebuilt", profiles)
    for alone in (True, False):  # what is made of others' facts must see them
        some = [view for view in views if (view.facts_of == "profile") == alone]
        only = "SELECT value FROM rebuilt" if alone else None
        for _, query in build.rows_of(con, project, some, cutoff, only=only):
            rows = con.execute(f"SELECT * FROM ({query}) WHERE profile_id IN (SELECT value FROM rebuilt)").df()
            parts.append(rows.set_index("profile_id").drop(columns=["event_timestamp", "created"]))
    together = pd.concat(parts, axis=1, join="inner") if parts else pd.DataFrame(index=pd.Index([]))
    return model.encode(together)


def _changes(
    score: Score, rows: pd.DataFrame, homes: Mapping[str, tuple[FeatureView, list[str]]], causes: _Causes
) -> tuple[Change, ...]:
    profile = score["profile_id"]
    if profile not in rows.index:
        return ()
    names = list(score["features"])
    was, now = np.array(list(score["features"].values())), rows.loc[profile, names].to_numpy(dtype=float)
    same = np.isclose(was, now, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return tuple(
        Change(name, _plain(was[i]), _plain(now[i]), causes.of(profile, *homes[name]))
        for i, name in enumerate(names) if not same[i]
    )  # fmt: skip


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _causes(
    con: duckdb.DuckDBPyConnection, project: Project, views: Sequence[FeatureView], cutoff: datetime, batch: int,
    since: datetime, gone: set[str],
) -> _Causes:  # fmt: skip
    """What may have changed the rows of the profiles in the table `rebuilt`, by what is known today."""
    found = _Causes(erased=sum(r["finished_at"] >= since.astimezone(UTC).isoformat() for r in receipts(project)))
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE theirs AS SELECT node, birth_id, profile_id FROM ({members_at(cutoff)})
            WHERE profile_id IN (SELECT value FROM rebuilt) OR birth_id IN (SELECT value FROM rebuilt)"""
    )
    for name in project.definitions.sources:
        if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [name]).fetchall():
            continue
        late = con.execute(
            f"""SELECT profile_id, count(*) FROM "{name}" JOIN theirs USING (node)
                WHERE batch > {int(batch)} AND known_at < {instant(cutoff)} GROUP BY 1"""
        ).fetchall()
        for profile, count in late:
            found.late.setdefault(profile, {})[name] = count
    moved = con.execute(
        "SELECT DISTINCT birth_id, profile_id FROM theirs WHERE birth_id IN (SELECT value FROM rebuilt) "
        "AND profile_id <> birth_id"
    ).fetchall()
    for birth, profile in moved:
        found.identity.setdefault(birth, []).append(f"it is part of {profile} at the cutoff, by links known since")
    made = decisions(project)
    made = made[(made["made_at"] >= since) & (made["known_at"] < cutoff)]
    nodes = dict(con.execute("SELECT node, profile_id FROM theirs").fetchall())
    for decision in made.to_dict("records"):
        for profile in {nodes[node] for node in (decision["a"], decision["b"]) if node in nodes}:
            text = f"the decision {decision['decision_id']} ({decision['kind']}) was made about its identifiers since"
            found.identity.setdefault(profile, []).append(text)
    for profile in gone - found.identity.keys():
        found.identity[profile] = ["its identifiers belong to other profiles at the cutoff, by what is known since"]
    return found


def as_json(found: Rebuilt) -> dict[str, Any]:
    """For `explain`: agrees, problem, then, today, batch."""
    changes = {
        name: [{"feature": c.feature, "was": c.was, "now": c.now, "why": list(c.why)} for c in getattr(found, name)]
        for name in ("then", "today")
    }
    return {"agrees": found.agrees, "problem": found.problem or None, **changes, "batch": found.batch}
