"""What became of those who were scored? Each score is graded once, when its horizon and settle time have passed.

The label is the task's own at the score's cutoff, by the kernel that training asks, as the task was when the model was
trained (training/question.py). A score's row in `outcomes` is written once and stays: facts that are known later than
T + horizon + settle cannot change it, and grading that was killed half way goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from features import build
from foretell.declarations import Enters
from foretell.errors import DataError, ForetellError
from foretell.project import Project
from lake.engine import last_batch, session, table
from lake.erasure import mine
from models.registry import CONTRACT, kept, quietly
from training import dataset, entering
from training.question import Question, asked
from unification.consent import without
from unification.identity import ensure, facts_of, members_at

TABLE = "outcomes"
_STAMP = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema([
    ("score_id", pa.string()), ("task", pa.string()), ("model_version", pa.string()), ("profile_id", pa.string()),
    ("cutoff", _STAMP), ("label", pa.float64()), ("weight", pa.float64()), ("person", pa.string()),
    ("split", pa.bool_()), ("reason", pa.string()), ("asked", pa.string()), ("question", pa.string()),
    ("known_by", _STAMP), ("graded_at", _STAMP), ("batch", pa.int64()),
])  # fmt: skip
"""label: NULL where none can be said, and why in `reason`. weight: 1/k of k profiles of T that were one person by L.
person: the profile at L; split: the profile of T fell apart by then. asked: "then" or "today", see
training.question.Question; question: its digest. known_by: L, before which the facts were known. graded_at: by the
clock. batch: the last ingest batch that was there."""

NOBODY = "its profile is nobody's any more at that cutoff"
LEFT = "its profile is not of the population any more at that cutoff"


@dataclass(frozen=True)
class Pending:
    """Scores of one model version and cutoff without a grade. expires_at: the end of the horizon."""

    task: str
    version: str
    cutoff: datetime
    expires_at: datetime
    scores: int


@dataclass(frozen=True)
class Graded:
    """What became of one model version's scores of one cutoff.

    graded: how many got a label now, mean their mean label, said the mean of what was foretold; unknown: how many can
    get none. without_consent: how many are left until their people agree again. waits: why nothing was graded, "" if
    it was; until: from when on it can be, where that is known.
    """

    task: str
    version: str
    cutoff: datetime
    scores: int
    graded: int = 0
    mean: float = float("nan")
    said: float = float("nan")
    unknown: int = 0
    without_consent: int = 0
    asked: str = ""
    waits: str = ""
    until: datetime | None = None


def grade(
    project: Project, names: Iterable[str] = (), progress: Callable[[str], None] = lambda _: None
) -> list[Graded]:  # fmt: skip
    """Grade every score that can be, of these tasks and their targets (none: of all); one Graded a version and cutoff.

    Raises UnknownName for a task that nobody declared.
    """
    waiting = pending(project, names)
    if not waiting:
        return []
    ensure(project)
    questions: dict[tuple[str, str], Question | str] = {}
    found = []
    for part in waiting:
        if (key := (part.task, part.version)) not in questions:
            questions[key] = question_of(project, *key)
        question = questions[key]
        if isinstance(question, str):
            found.append(Graded(part.task, part.version, part.cutoff, part.scores, waits=question))
            continue
        due = part.cutoff + question.reach
        if due > project.now:
            found.append(
                Graded(part.task, part.version, part.cutoff, part.scores, asked=question.asked,
                       waits="its time has not come", until=due)
            )  # fmt: skip
            continue
        progress(f"{part.task} v{part.version}: what became of {part.scores:,} scores of {part.cutoff:%Y-%m-%d}")
        found.append(_grade(project, question, part))
    return found


def pending(project: Project, names: Iterable[str] = ()) -> list[Pending]:
    """Scores without a grade, per task, version and cutoff, oldest cutoff first within a task."""
    wanted, scores, outcomes = project.definitions.family(names), table(project, "scores"), table(project, TABLE)
    if not (files := scores.files()):
        return []
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone='UTC'")
        graded = outcomes.files()
        known = f"WHERE score_id NOT IN (SELECT score_id FROM {outcomes.scan(graded)})" if graded else ""
        rows = con.execute(
            f"""SELECT task, model_version, cutoff, max(expires_at), count(*) FROM {scores.scan(files)} {known}
                GROUP BY task, model_version, cutoff ORDER BY task, cutoff, model_version::INTEGER"""
        ).fetchall()
    finally:
        con.close()
    found = [Pending(t, v, at.astimezone(UTC), end.astimezone(UTC), int(n)) for t, v, at, end, n in rows]
    return [part for part in found if part.task in wanted] if wanted else found


def question_of(project: Project, task: str, version: str) -> Question | str:
    """What a model version was asked; why that cannot be had, in words."""
    contract = quietly(lambda: kept(project, task, version, CONTRACT))
    if contract is None:
        return f"v{version} is not in the registry any more: nobody knows what it was asked"
    try:
        return asked(project, task, json.loads(contract))
    except ForetellError as error:
        return str(error)


def _grade(project: Project, question: Question, part: Pending) -> Graded:
    """Write what became of the scores of one version and cutoff."""
    task, known_by = question.task, part.cutoff + question.reach
    made = Graded(part.task, part.version, part.cutoff, part.scores, asked=question.asked)
    stored = table(project, TABLE)
    with session(question.project) as con:
        if waits := _not_arrived(con, question, part.cutoff + task.horizon):
            return replace(made, waits=waits)
        scores = _ungraded(con, project, part)
        barred = without(con, project, task.purpose, part.cutoff, scores["profile_id"].tolist())
        scores = scores[~scores["profile_id"].isin(barred)]
        if scores.empty:
            return replace(made, without_consent=part.scores)
        try:
            labels = _labels(con, question, part.cutoff)
        except DataError as error:
            return replace(made, waits=str(error))
        rows = _joined(con, question, scores, labels, part.cutoff)
    rows = rows.assign(
        task=part.task, model_version=part.version, cutoff=pd.Timestamp(part.cutoff), asked=question.asked,
        question=question.digest, known_by=pd.Timestamp(known_by), graded_at=pd.Timestamp(datetime.now(UTC)),
        batch=last_batch(project),
    )  # fmt: skip
    stored.append(
        pa.Table.from_pandas(rows[SCHEMA.names], SCHEMA, preserve_index=False), why=f"grade {part.task} v{part.version}"
    )
    has = rows["label"].notna()
    if not has.any():
        return replace(made, unknown=len(rows), without_consent=part.scores - len(rows))
    weight = rows.loc[has, "weight"]
    return replace(
        made, graded=int(has.sum()), mean=float(np.average(rows.loc[has, "label"], weights=weight)),
        said=float(np.average(rows.loc[has, "value"], weights=weight)), unknown=int((~has).sum()),
        without_consent=part.scores - len(rows),
    )  # fmt: skip


def _not_arrived(con: duckdb.DuckDBPyConnection, question: Question, end: datetime) -> str:
    """Why the facts that decide are not there yet: none of them is of a time at which the horizon was over.

    Over facts that have not been loaded everybody would have left, and a grade is given once.
    """
    latest = None
    for role in question.roles:
        for source in facts_of(con, question.project, role):
            at = con.execute(f'SELECT max(known_at) FROM "{source.name}"').fetchall()[0][0]
            latest = max(filter(None, (latest, at)), default=None)
    if latest is not None and latest >= end:
        return ""
    what = " or ".join(question.roles)
    seen = f"the last one loaded is of {latest.astimezone(UTC):%Y-%m-%d}" if latest else "none is loaded"
    return f"no {what} facts of {end:%Y-%m-%d} or later: {seen}; run `foretell load`"


def _ungraded(con: duckdb.DuckDBPyConnection, project: Project, part: Pending) -> pd.DataFrame:
    """score_id, profile_id and value of scores without a grade."""
    known = "AND score_id NOT IN (SELECT score_id FROM outcomes)" if table(project, TABLE).exists else ""
    query = f"""SELECT score_id, profile_id, value FROM scores
        WHERE task = ? AND model_version = ? AND cutoff = ? {known} ORDER BY score_id"""
    return con.execute(query, [part.task, part.version, part.cutoff]).df().drop_duplicates("score_id")


def _labels(con: duckdb.DuckDBPyConnection, question: Question, cutoff: datetime) -> pd.DataFrame:
    """As `dataset.labels_at`, once what the rule of a task that Enters reads is built at the cutoff."""
    project, task = question.project, question.task
    if isinstance(task.label, Enters):
        where = f"label of {task.name}"
        rule = entering.views_of(project, entering.rule_of(project, task), where)
        build.build(project, dataset.once(project, [*dataset.population_views(project, task), *rule]), [cutoff])
    return dataset.labels_at(con, project, task, cutoff)


def _joined(
    con: duckdb.DuckDBPyConnection, question: Question, scores: pd.DataFrame, labels: pd.DataFrame, cutoff: datetime
) -> pd.DataFrame:
    """The scores with label, weight, person, split and reason.

    A profile that is, by what came in since of the time before T, a part of another one at T, is that one.
    """
    mine(con, "scored", scores["profile_id"].unique())
    owner = dict(con.execute(
        f"SELECT birth_id, profile_id FROM ({members_at(cutoff)}) JOIN scored ON birth_id = value"
    ).fetchall())  # fmt: skip
    at = scores["profile_id"].map(owner)
    rows = scores.assign(at=at).merge(
        labels[["profile_id", "label", "weight", "person", "split"]].rename(columns={"profile_id": "at"}),
        on="at", how="left",
    )  # fmt: skip
    reason = pd.Series(LEFT, index=rows.index, dtype=object)
    reason[rows["at"].isna()] = NOBODY
    reason[rows["label"].notna()] = None
    return rows.assign(reason=reason, split=rows["split"].astype("boolean"))
