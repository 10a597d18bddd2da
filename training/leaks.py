"""Does a training set know the future? The gate before training: it names columns that do, and says why.

A column leaks when it holds what was not known at the cutoff: a model that learns from it is judged too well, and fails
when asked. Five checks look for that. Two need no label: what is known of the past and not of the present, and what
changes when rebuilt. The others (`leak_checks`) look for columns that say more of the label than others of the same
past do. A finding is a suspicion with its figures, not a proof; someone who knows that a column is known in time allows
it. Kaufman et al., Leakage in Data Mining (ACM TKDD 2012), name the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from foretell.errors import DataError
from models.encoding import Categories
from training.leak_checks import BEYOND, Checks, Found
from training.leak_evidence import Evidence
from training.metrics import Floats, Kind

NOISE = 1e-9  # relative difference of two floats that were added up in another order
DUE = 20.0  # values that the present should have at least, going by the past


@dataclass(frozen=True)
class Leak:
    """A column that seems to know the future, the check that tells, and why in words with the figures.

    allowed: someone has said that it is known in time; it is told and recorded, and does not refuse the training.
    """

    column: str
    check: str
    reason: str
    allowed: bool = False


def inspect(
    rows: pd.DataFrame,
    columns: Sequence[str],
    kind: Kind,
    categories: Categories,
    *,
    now: pd.DataFrame | None = None,
    earlier: pd.DataFrame | None = None,
    again: pd.DataFrame | None = None,
    allowed: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> list[Leak]:
    """Every suspicious column of a training set, once per check it does not pass, sorted by column.

    rows: label, weight, person, cutoff (and profile_id, with `earlier`), and the columns as `encoding.encode` makes
    them: floats, NaN unknown, text as codes if `categories` has the column. now: the columns of those that will be
    asked about. earlier: profile_id, cutoff and columns of some rows, as recorded at another time; again: the same, as
    built today and encoded alike; None: they are among `rows`.
    Sets too small to tell, and labels all the same, are looked at without the checks that learn. The answer depends on
    neither the order of the rows nor that of the columns, and is the same each time. Raises DataError if a column is
    missing in one of the tables.
    """
    needed = ["label", "weight", "person", "cutoff"]
    _has(rows, [*needed, *columns], "the training rows")
    found: list[Found] = []
    if now is not None and len(now):
        _has(now, columns, "the rows that will be asked about")
    if earlier is not None and len(earlier):
        _has(earlier, ["profile_id", "cutoff", *columns], "the rows recorded earlier")
        progress("leak gate: rebuilt values")
        found += changed_when_rebuilt(rows if again is None else again, earlier, columns)
    found += gone_by_now(rows, now, columns, UNKNOWN)
    # what is found already has no say in what the others know
    left = _others(columns, found)
    progress(f"leak gate: {len(left)} columns against {len(rows):,} labels")
    checks = Checks(Evidence.of(rows, left, kind, categories), progress)
    found += checks.run()
    left = _others(columns, found)
    # the calendar, too, makes a column the same for everyone: one that says nothing of its own has not leaked
    found += [f for f in gone_by_now(rows, now, left, CONSTANT) if checks.adds(left, f.column) >= BEYOND]
    return [Leak(f.column, f.check, f.reason, f.column in allowed) for f in sorted(found, key=_order)]


def refuse(task_name: str, leaks: Sequence[Leak]) -> None:
    """Raise a DataError that names every column found, unless all of them are allowed."""
    refused = [leak for leak in leaks if not leak.allowed]
    if not refused:
        return
    names = list(dict.fromkeys(leak.column for leak in refused))
    reasons = [f"{leak.column}: {leak.check} ({leak.reason})" for leak in refused]
    options = " ".join(f"--allow {name}" for name in names)
    raise DataError(
        task_name,
        f"expected features that were known at the cutoff, got {len(names)} that seem to know the future:\n  "
        + "\n  ".join(reasons)
        + "\n",
        "leave the column out of its view, or give its source known_since= or a delay, so that it is read as it was "
        f"known then; if you know that it is known in time: {options}",
    )


def changed_when_rebuilt(rows: pd.DataFrame, earlier: pd.DataFrame, columns: Sequence[str]) -> list[Found]:
    """Columns whose values at one and the same cutoff are others when they are built at another time."""
    key = ["profile_id", "cutoff"]
    both = rows[[*key, *columns]].merge(earlier[[*key, *columns]], on=key, suffixes=("", "\0earlier"))
    found = []
    for column in columns:
        is_, was = both[column].to_numpy(dtype=float), both[f"{column}\0earlier"].to_numpy(dtype=float)
        changed = ~np.isclose(is_, was, rtol=NOISE, atol=NOISE * 1e-3, equal_nan=True)
        if n := int(changed.sum()):
            at = pd.Timestamp(both["cutoff"][changed].min())
            reason = (
                f"{n:,} of {len(both):,} values at the same cutoffs (the oldest {at:%Y-%m-%d}) are others when they are"
                " rebuilt: it is read as of now, not as of the cutoff"
            )
            found.append(Found(column, "changes when rebuilt", reason))
    return found


def gone_by_now(rows: pd.DataFrame, now: pd.DataFrame | None, columns: Sequence[str], how: _Gone) -> list[Found]:
    """Columns known of the past, and unknown, or all the same, for those who will be asked about.

    Without such rows, the latest cutoff stands for the present. The older half of the cutoffs says what is usual: the
    newer ones may lack what is filled in late. A share that rises in the newer half, and then is gone, is a season.
    """
    past = [of_cutoff for _, of_cutoff in rows.groupby("cutoff", sort=True)]
    asked = "of those that will be asked about"
    if now is None or not len(now):
        *past, now = past if past else [rows]
        asked = "at the latest cutoff"
    if not past:
        return []
    older = (len(past) + 1) // 2
    found = []
    for column in columns:
        each, present = [p[column].to_numpy(dtype=float) for p in past], now[column].to_numpy(dtype=float)
        shares, fresh = [how.share(x) for x in each], how.share(present)
        usual = min(shares[:older])
        if usual * len(present) < DUE or fresh > how.left * usual or max(shares) > 1.25 * max(shares[:older]):
            continue
        if binom.cdf(round(fresh * len(present)), len(present), usual) > 1e-6:
            continue
        reason = (
            f"{how.what} in {usual:.1%} of the rows or more at the {older} older cutoffs, and in {fresh:.1%} of the "
            f"{len(present):,} {asked}: it seems to be filled in after the cutoff"
        )
        found.append(Found(column, "gone by now", reason))
    return found


def _known(x: Floats) -> float:
    return float((~np.isnan(x)).mean())


def _unusual(x: Floats) -> float:
    """The share of known values unlike the most frequent one."""
    counts = np.unique(x[~np.isnan(x)], return_counts=True)[1]
    return 1 - float(counts.max() / counts.sum()) if len(counts) else 0.0


@dataclass(frozen=True)
class _Gone:
    """share: of a cutoff's values, those that count; left: how much of the past's share may be left; what: in words."""

    share: Callable[[Floats], float]
    left: float
    what: str


UNKNOWN = _Gone(_known, 0.1, "known")
CONSTANT = _Gone(_unusual, 0.01, "not the usual value")  # a season leaves more


def _others(columns: Sequence[str], found: Sequence[Found]) -> list[str]:
    return [c for c in columns if c not in {f.column for f in found}]


def _has(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    if lacking := [c for c in columns if c not in table.columns]:
        raise DataError(
            "leak gate", f"expected every column in {what}, got none named {', '.join(lacking)}",
            "build them with the same views",
        )  # fmt: skip


def _order(found: Found) -> tuple[str, str]:
    return found.column, found.check
