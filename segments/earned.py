"""What did an audience earn? What those who were in it bought in the days after, against those who were held out.

Everybody's days begin with the first export that they were drawn for, on either side alike, so the difference between
the sides is what being in the audience did, and chance. Only who could be watched to the end counts: the days, and one
more in which late facts come in, lie before the project's now; facts known later than that are not looked at.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from scipy import stats

from features.labels import labels_at
from foretell.declarations import Label, PredictionTask
from foretell.errors import DataError, NotReady, unknown
from foretell.project import Project
from foretell.windows import _
from lake.engine import session, table
from segments.audience import declared
from segments.control import CONTROL, TABLE, TREATED, exposures
from unification.consent import barred

SETTLE = timedelta(days=1)
FEWEST = 30  # people a side: below, an interval by the normal approximation promises more than it can keep
OUTCOMES = {
    "orders": _.order_id.nunique(where=~_.cancelled.fill_null(False)),
    "spend": _.amount.sum().fill_null(0),
}


@dataclass(frozen=True)
class Effect:
    """treated, control: means per person. difference: treated less control, with its 95% interval (None: there is no
    answer, as `why` says)."""

    outcome: str
    treated: float
    control: float
    difference: float
    low: float | None
    high: float | None
    why: str = ""

    @property
    def beyond_chance(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Earned:
    """treated, control: people who were watched to the end. too_early: people whose days have not passed; ready_at:
    when the last of them will have. both: people left out as they were on both sides before they turned out to be one.
    withdrawn: (treated, control) left out as they withdrew their consent since. effects: empty while it is too early.
    """

    segment: str
    days: int
    exports: list[datetime]
    treated: int
    control: int
    too_early: int
    ready_at: datetime | None
    both: int
    withdrawn: tuple[int, int]
    effects: list[Effect]


def earned(project: Project, name: str, days: int = 30) -> Earned:
    """Orders and spend per person in the days after the first export, treated against held out.

    Raises UnknownName for a segment that nobody declared, NotReady for one that was never exported with a control.
    """
    if days < 1:
        raise DataError("earned", f"expected at least one day, got {days}", "say for example --days 30")
    if name not in (known := declared(project)):
        raise unknown("segment", name, known)
    with session(project) as con:
        people: Any = _people(con, project, name)
        watched = timedelta(days=days) + SETTLE
        late = people["began"] + watched > pd.Timestamp(project.now)
        ready = people[~late & ~people["both"] & ~people["withdrawn"]]
        outcomes: Any = _outcomes(con, project, name, ready, timedelta(days=days))
    sides = [outcomes[outcomes["side"] == side] for side in (TREATED, CONTROL)]
    gone = people[people["withdrawn"]]["side"].value_counts()
    return Earned(
        segment=name, days=days, exports=[t.to_pydatetime() for t in sorted(people["began"].unique())],
        treated=len(sides[0]), control=len(sides[1]), too_early=int(late.sum()),
        ready_at=(people.loc[late, "began"].max() + watched).to_pydatetime() if late.any() else None,
        both=int(people["both"].sum()), withdrawn=(int(gone.get(TREATED, 0)), int(gone.get(CONTROL, 0))),
        effects=[effect(outcome, *(side[outcome].to_numpy() for side in sides)) for outcome in OUTCOMES]
        if len(outcomes) else [],
    )  # fmt: skip


def _people(con: duckdb.DuckDBPyConnection, project: Project, name: str) -> pd.DataFrame:
    """One row per person of today: person, side, began, recorded (the ids first exported), both, withdrawn."""
    if table(project, TABLE).exists:
        found = con.execute(
            f"""SELECT profile_id AS person, min_by(side, (exported_at, recorded)) AS side, min(exported_at) AS began,
                list(recorded ORDER BY exported_at, recorded) AS recorded, count(DISTINCT side) > 1 AS "both",
                max_by(purpose, exported_at) AS purpose FROM ({exposures(project, name)}) GROUP BY 1 ORDER BY 1"""
        ).df()
        if len(found):
            found["began"] = found["began"].dt.tz_convert("UTC")
            found["withdrawn"] = False
            for purpose in found["purpose"].unique():
                if purpose and (query := barred(con, project, purpose, project.now)):
                    refused = {profile for (profile,) in con.execute(query).fetchall()}
                    found["withdrawn"] |= (found["purpose"] == purpose) & found["person"].isin(refused)
            return found
    fix = f"add control: 0.1 to its file, then `foretell segment export {name} --to FILE.csv`"
    if declared(project)[name].control:
        fix = f"run `foretell segment export {name} --to FILE.csv`, and ask again when the days have passed"
    raise NotReady(name, "nobody was exported and nobody held out, so there is nothing to compare", fix)


def _outcomes(
    con: duckdb.DuckDBPyConnection, project: Project, name: str, people: pd.DataFrame, horizon: timedelta
) -> pd.DataFrame:  # fmt: skip
    """person, side and the outcomes of those who were watched to the end; each person's own facts once."""
    made: list[pd.DataFrame] = []
    for began, group in people.groupby("began"):
        at = pd.Timestamp(str(began)).to_pydatetime().astimezone(UTC)
        ids = group[["person", "side", "recorded"]].explode("recorded").drop_duplicates()
        con.register("drawn", ids.astype(object))
        values: dict[str, Any] = {}
        for outcome, value in OUTCOMES.items():
            query = labels_at(con, project, _question(name, outcome, value, horizon), at)
            # two ids that had merged by the end have one person's facts: counted once
            values[outcome] = con.execute(
                f"""SELECT person, sum(label) AS "{outcome}" FROM (SELECT DISTINCT d.person, l.person AS then, label
                    FROM drawn d JOIN ({query}) l ON l.profile_id = d.recorded) GROUP BY 1"""
            ).df()
        con.unregister("drawn")
        rows = group[["person", "side"]]
        for found in values.values():
            rows = rows.merge(found, on="person")
        made.append(rows)
    empty = pd.DataFrame({"person": [], "side": [], **{outcome: [] for outcome in OUTCOMES}})
    return pd.concat(made, ignore_index=True) if made else empty


def _question(name: str, outcome: str, value: Any, horizon: timedelta) -> PredictionTask:
    return PredictionTask(
        name=f"{outcome}_after", population="identifiers > 0", horizon=horizon, settle=SETTLE, metric="mae",
        label=Label(source="order_line", value=value), views=("orders",), purpose=f"measuring {name}",
    )  # fmt: skip


def effect(outcome: str, treated: Sequence[float] | np.ndarray, control: Sequence[float] | np.ndarray) -> Effect:
    """The difference of two means with Welch's 95% interval.

    >>> found = effect("orders", [1.0, 2.0, 3.0] * 20, [0.0, 1.0, 2.0] * 20)
    >>> round(found.difference, 3), found.beyond_chance
    (1.0, True)
    >>> effect("orders", [1.0], [0.0]).why
    'fewer than 30 people on one side'
    """
    a, b = np.asarray(treated, float), np.asarray(control, float)
    if not len(a) or not len(b):
        one, other = (float(side.mean()) if len(side) else math.nan for side in (a, b))
        return Effect(outcome, one, other, math.nan, None, None, "nobody on one side")
    means = float(a.mean()), float(b.mean())
    difference = means[0] - means[1]
    if min(len(a), len(b)) < FEWEST:
        return Effect(outcome, *means, difference, None, None, f"fewer than {FEWEST} people on one side")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Effect(outcome, *means, difference, None, None, "everybody on one side did the same")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Effect(outcome, *means, difference, float(low), float(high))
