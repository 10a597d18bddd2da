"""Do models keep what their backtest promised? Live figures beside the exams, drift, and what to do about either.

Nothing is kept: scores and outcomes are facts, the figures are worked out of them. An alert is about the latest: the
last cutoff of a task that is graded, and its last batch of scores; what was before is history.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import duckdb
import numpy as np
import pandas as pd

from foretell.errors import NotReady
from foretell.project import Project
from lake.engine import session, table
from models.interval import inside
from models.registry import CONTRACT, kept, quietly, trained_at
from serving.advice import alerts
from serving.alerts import judge, looks_a_year
from serving.grade import TABLE, pending, question_of
from serving.watched import Batch, Graded, Monitored, Waiting, Watched
from training import drift
from training.drift import SCORE
from training.expected import EXPECTED, Figure, figures
from training.metrics import Kind
from unification.consent import without

SAMPLE = 20_000  # scores of a batch that its drift is worked out of
BATCHES = 12  # of a task whose drift is shown
CUTOFFS = 36  # of a task whose figures are shown
FAIR = 2.0  # points: how far percentiles may be from those among the batch itself, if it is of everyone eligible


def monitor(
    project: Project, names: Iterable[str] = (), progress: Callable[[str], None] = lambda _: None
) -> Monitored:  # fmt: skip
    """Look at the scores of these tasks and their targets (none: of all). Raises NotReady before the first score."""
    wanted = project.definitions.family(names)
    if not table(project, "scores").exists:
        raise NotReady("monitor", "nothing has been scored yet", "run `foretell score` first")
    with session(project) as con:
        found = con.execute(
            "SELECT DISTINCT task, model_version FROM scores ORDER BY task, model_version::INTEGER"
        ).fetchall()
        versions = [(t, v) for t, v in found if (t in wanted if wanted else t in project.definitions.tasks)]
        if not versions:
            raise NotReady("monitor", f"nothing has been scored yet for {', '.join(wanted)}", "run `foretell score`")
        watched = []
        for task, version in versions:
            progress(f"{task} v{version}")
            watched.append(_watch(con, project, task, version))
    return Monitored(tuple(watched), tuple(alerts(watched)))


def _watch(con: duckdb.DuckDBPyConnection, project: Project, task: str, version: str) -> Watched:
    expected, contract, notes = _promised(project, task, version)
    kind = cast(Kind, con.execute(
        "SELECT any_value(kind) FROM scores WHERE task = ? AND model_version = ?", [task, version]
    ).fetchall()[0][0])  # fmt: skip
    metric = expected.get("metric") or project.definitions.task(task).metric
    exams: dict[str, list[Figure]] = {}
    if expected and expected["judged_days"] != expected["horizon_days"]:
        notes.append(
            f"it was examined on {expected['judged_days']:g} days and foretells {expected['horizon_days']:g}: nobody "
            "has promised how well, so its figures are compared with nothing"
        )
    else:
        exams = _exams(expected)
    everyone, partial = _cutoffs(con, task, version)
    if partial:
        notes.append(
            f"{_days(partial)} scored the members of a segment only, who are not compared with everyone eligible"
        )
    used = quietly(lambda: trained_at(project, task))
    graded = _graded(con, project, task, version, kind, metric, exams, everyone)
    return Watched(
        task, version, kind, metric, used[0] if used else "", expected, exams, tuple(graded),
        tuple(_batches(con, task, version, expected, contract, everyone, notes)),
        tuple(_waiting(project, task, version)), tuple(notes),
    )  # fmt: skip


def _promised(project: Project, task: str, version: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(what was kept of the exams, the contract, notes on what is lacking)."""
    contract = json.loads(quietly(lambda: kept(project, task, version, CONTRACT)) or "{}")
    if text := quietly(lambda: kept(project, task, version, EXPECTED)):
        return json.loads(text), contract, []
    if not contract:
        return {}, {}, ["it is not in the registry any more: its figures are compared with nothing"]
    tables = [quietly(lambda n=n: kept(project, task, version, n)) for n in ("evaluation.csv", "by_cutoff.csv")]
    if None in tables:
        return {}, contract, ["its exams are not kept: its figures are compared with nothing"]
    means, each = (pd.read_csv(io.StringIO(str(text))) for text in tables)
    return _of_older(contract, means, each), contract, [
        "it was trained before the spread of its exams was kept: levels and intervals are compared with nothing"
    ]  # fmt: skip


def _of_older(contract: Mapping[str, Any], means: pd.DataFrame, each: pd.DataFrame) -> dict[str, Any]:
    """What an older run's tables say: the spread of an exam is that of the mean times √k, as if they were apart."""
    mine = means[means["model"] == contract["estimator"]]
    whole = {r.metric: [r.value, r.low, r.high] for r in mine.itertuples(index=False)}
    rows = each[each["model"] == contract["estimator"]]
    exams = []
    for cutoff, part in rows.groupby("cutoff", sort=True):
        said = {}
        for row in part.itertuples(index=False):
            _, low, high = whole[row.metric]
            spread = (high - low) / 3.92 * np.sqrt(rows["cutoff"].nunique())
            if row.metric != "bias_pct":  # its mean is that of the distances to 0
                said[row.metric] = [row.value, None, None, spread]
        exams.append({"cutoff": str(cutoff), "figures": said})
    days = contract["horizon_days"]
    return {
        "metric": contract["metric"], "exams": exams, "figures": whole, "horizon_days": days,
        "judged_days": contract.get("judged_days", days),
    }  # fmt: skip


def _exams(expected: Mapping[str, Any]) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {}
    for exam in expected.get("exams", ()):
        for name, numbers in exam["figures"].items():
            figure = Figure(*(np.nan if number is None else float(number) for number in numbers))
            if np.isfinite(figure.value):
                found.setdefault(name, []).append(figure)
    return found


def _cutoffs(con: duckdb.DuckDBPyConnection, task: str, version: str) -> tuple[list[datetime], list[datetime]]:
    """The cutoffs at which everyone eligible was scored, and those at which only some were.

    A percentile is counted among everyone eligible: where it is not what it would be among the scores themselves, these
    are no fair part of them.
    """
    rows = con.execute(
        """SELECT cutoff, avg(abs(percentile - own)) FROM (
                SELECT cutoff, percentile, 100 * cume_dist() OVER (PARTITION BY cutoff ORDER BY value) AS own
                FROM scores WHERE task = ? AND model_version = ?)
            GROUP BY 1 ORDER BY 1""",
        [task, version],
    ).fetchall()
    found = [(at.astimezone(UTC), off) for at, off in rows]
    return [at for at, off in found if off <= FAIR], [at for at, off in found if off > FAIR]


def _graded(
    con: duckdb.DuckDBPyConnection, project: Project, task: str, version: str, kind: Kind, metric: str,
    exams: Mapping[str, list[Figure]], cutoffs: list[datetime],
) -> list[Graded]:  # fmt: skip
    """The figures of each graded cutoff. Of a profile that was scored twice, the latest score counts."""
    if not table(project, TABLE).exists:
        return []
    purpose, looks, made = project.definitions.task(task).purpose, looks_a_year(cutoffs), []
    known = con.execute("SELECT DISTINCT cutoff FROM outcomes WHERE task = ? AND model_version = ?", [task, version])
    done = {at.astimezone(UTC) for (at,) in known.fetchall()}
    for cutoff in [at for at in cutoffs if at in done][-CUTOFFS:]:
        rows = con.execute(
            """SELECT s.profile_id, s.value, s.value_low, s.value_high, o.label, o.weight
                FROM scores s JOIN outcomes o USING (score_id)
                WHERE s.task = ? AND s.model_version = ? AND s.cutoff = ? AND o.label IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY s.profile_id ORDER BY s.scored_at DESC, score_id) = 1
                ORDER BY s.profile_id""",
            [task, version, cutoff],
        ).df()
        barred = without(con, project, purpose, cutoff, rows["profile_id"].tolist())
        used = rows[~rows["profile_id"].isin(barred)]
        if used.empty:
            continue
        y, said, weight = (used[name].to_numpy(dtype=float) for name in ("label", "value", "weight"))
        low, high = (used[name].to_numpy(dtype=float) for name in ("value_low", "value_high"))
        held = inside(low, high, y) if np.isfinite(low).all() and np.isfinite(high).all() else None
        found = figures(y, said, kind, metric, weight, held)
        verdicts = {name: judge(kind, name, live, exams.get(name, []), metric, looks) for name, live in found.items()}
        made.append(Graded(cutoff, y, said, weight, verdicts, len(rows) - len(used)))
    return made


def _batches(
    con: duckdb.DuckDBPyConnection, task: str, version: str, expected: Mapping[str, Any],
    contract: Mapping[str, Any], cutoffs: list[datetime], notes: list[str],
) -> list[Batch]:  # fmt: skip
    """The drift of the last batches; without a reference of training, against the first one."""
    reference, weights, shown = expected.get("reference"), expected.get("weights"), cutoffs[-BATCHES:]
    if not cutoffs:
        return []
    if reference is None:
        X, profiles, _ = _scored(con, task, version, cutoffs[0])
        rows = pd.DataFrame({"profile_id": profiles, "cutoff": pd.Timestamp(cutoffs[0])})
        reference = drift.reference(X, rows, contract.get("categories", {}))
        notes.append(
            f"whom it learned from was not kept when it was trained: drift is told from its first batch, of "
            f"{cutoffs[0]:%Y-%m-%d}"
        )
        shown = [at for at in shown if at != cutoffs[0]]
    made = []
    for cutoff in shown:
        X, profiles, size = _scored(con, task, version, cutoff)
        made.append(Batch(cutoff, size, tuple(drift.drifts(reference, X, profiles.nunique(), cutoff, weights))))
    return made


def _scored(
    con: duckdb.DuckDBPyConnection, task: str, version: str, cutoff: datetime
) -> tuple[pd.DataFrame, pd.Series, int]:
    """(features and the score, whose they are, how many scores) of a batch, or of a fair sample of SAMPLE of it."""
    where, of = "task = ? AND model_version = ? AND cutoff = ?", [task, version, cutoff]
    size = con.execute(f"SELECT count(*) FROM scores WHERE {where}", of).fetchall()[0][0]
    names = con.execute(f"SELECT map_keys(features) FROM scores WHERE {where} LIMIT 1", of).fetchall()[0][0]
    columns = ", ".join(f"""features['{name.replace("'", "''")}'] AS "{name}" """ for name in names)
    rows = con.execute(
        f"SELECT profile_id, value, {columns} FROM scores WHERE {where} ORDER BY score_id LIMIT {SAMPLE}", of
    ).df()
    X = rows[names].astype(float).assign(**{SCORE: rows["value"]})
    return X, rows["profile_id"], int(size)


def _waiting(project: Project, task: str, version: str) -> list[Waiting]:
    """Scores without a grade, and until when they wait."""
    parts = [part for part in pending(project, [task]) if part.version == version and part.task == task]
    if not parts:
        return []
    question = question_of(project, task, version)
    made = []
    for part in parts:
        until, why = (None, question) if isinstance(question, str) else (part.cutoff + question.reach, "")
        made.append(Waiting(part.cutoff, part.scores, until, why))
    return made


def _days(cutoffs: Iterable[datetime]) -> str:
    return ", ".join(f"{at:%Y-%m-%d}" for at in cutoffs)
