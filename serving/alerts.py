"""When does a live figure say that a model is worse than its backtest promised? By a rule that knows its own doubt.

A figure of one cutoff differs from the mean of the exams by the luck of its profiles, by the luck of theirs, and
because no two months are alike: only the exams tell by how much. So the rule is a prediction interval for all figures
of a year:

  z = (live − mean of k exams) / √V,   V = max(S², σ²) + max(0, s² − σ²) + max(S² / k, σ²)

S: standard deviation of the figure between the exams; σ, s: that of its bootstrap at an exam, and live. The last term
is what the mean of the exams is worth, which were of much the same people. z is compared with the value that the
largest of a year's z stays below (Hahn, Additional Factors for Calculating Prediction Intervals, JASA 65, 1970: the
mean and V are the same for all of them), with the degrees of freedom that V has (Satterthwaite, Biometrics Bulletin 2,
1946: S has k − 1, the bootstrap counts as known). So a model that is as good as ever gives a false alarm in one year of
twenty, over both figures that are `watched`; simulated, each figure by itself stays below one in twenty also where the
exams are of the very same people, whose luck S does not show. Of fewer exams than LEAST nothing is said, and a figure
that may be off both ways is an alert only where it is farther off than at the exams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

from training.expected import LEVEL, Figure, metric_of
from training.metrics import Kind

LEAST = 3  # exams
FALSE_ALARMS = 0.05  # a year, of one model
LOOKS = 12  # a year, at least
BAND = 0.95  # of what is shown beside a figure

POSSIBLE = {
    **dict.fromkeys(("auc", "average_precision", "ece", "brier", "concordance", "coverage"), (0.0, 1.0)),
    **dict.fromkeys(("log_loss", "mae", "rmse", "lift10", "decile_mape"), (0.0, np.inf)),
    **dict.fromkeys(("norm_gini", "spearman"), (-1.0, 1.0)),
}  # fmt: skip
"""What a figure can be: a band beyond it would look odd."""

State = Literal["within", "outside", "alert", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """A live figure beside its exams. band: where 95% of single cutoffs should lie; limits: beyond which it is an
    alert, on the side that is worse (both, of a figure that may be off both ways; ±inf on the other). NaN: not known.

    state: "within" the band, "outside" of it, which chance does one time in twenty, "alert", or "unknown".
    """

    metric: str
    live: Figure
    mean: float
    band: tuple[float, float]
    limits: tuple[float, float]
    state: State


def watched(kind: Kind, metric: str) -> tuple[str, ...]:
    """The figures that may raise an alert: the task's own metric, and whether the level is right."""
    return tuple(dict.fromkeys((metric, LEVEL[kind])))


def looks_a_year(cutoffs: Sequence[datetime]) -> float:
    """How often a year a model's figures are looked at: as often as it scored, LOOKS times at least."""
    apart = [(later - earlier) / timedelta(days=365) for earlier, later in pairwise(cutoffs)]
    return max(LOOKS, round(1 / median(apart))) if apart and median(apart) > 0 else LOOKS


def judge(kind: Kind, name: str, live: Figure, exams: Sequence[Figure], metric: str, looks: float = LOOKS) -> Verdict:
    """What a live figure says, beside the same figure of the exams. metric: the task's own."""
    chosen, watch = metric_of(kind, name), watched(kind, metric)
    values = np.array([exam.value for exam in exams], dtype=float)
    mean = float(np.mean(values)) if len(values) else float("nan")
    nothing = float("nan"), float("nan")
    if len(values) < LEAST or not np.isfinite([live.value, live.spread, mean]).all():
        return Verdict(name, live, mean, nothing, nothing, "unknown")
    spread, freedom, common = _spread(live, exams, values)
    wide = spread * float(student.ppf((1 + BAND) / 2, freedom))
    least, most = POSSIBLE.get(name, (-np.inf, np.inf))
    band = float(np.clip(mean - wide, least, most)), float(np.clip(mean + wide, least, most))
    state: State = "within" if band[0] <= live.value <= band[1] else "outside"
    if name not in watch:
        return Verdict(name, live, mean, band, nothing, state)
    both = chosen.target is not None
    far = spread * _largest(round(freedom, 1), round(common, 1), looks, FALSE_ALARMS / len(watch), both)
    low = mean - far if chosen.greater or both else -np.inf
    high = mean + far if not chosen.greater or both else np.inf
    if not low <= live.value <= high and chosen.loss(live.value) > chosen.loss(mean):
        state = "alert"
    return Verdict(name, live, mean, band, (float(low), float(high)), state)


def _spread(live: Figure, exams: Sequence[Figure], values: np.ndarray) -> tuple[float, float, float]:
    """√V, its degrees of freedom, and the part of V that is the mean's, which all live figures share."""
    k, between = len(values), float(np.var(values, ddof=1))
    known = [exam.spread**2 for exam in exams if np.isfinite(exam.spread)]
    chance = float(np.mean(known)) if known else 0.0
    one, of_mean = max(between, chance), max(between / k, chance)
    V = one + max(0.0, live.spread**2 - chance) + of_mean
    if not V:  # the same at every exam, to the last digit
        return 0.0, k - 1.0, 0.0
    return float(np.sqrt(V)), (k - 1) * (V / (one * (1 + 1 / k))) ** 2, of_mean / V


@lru_cache(maxsize=4096)
def _largest(freedom: float, common: float, looks: float, level: float, both: bool) -> float:
    """What the largest of so many z (of their absolute values) exceeds with a probability of `level`.

    P(largest ≤ q) = E over s and u of Φ((q s − √c u) / √(1 − c)) ** looks, where s² is chi-squared / freedom, u normal
    and c the common part; both by the means of many strips of equal probability.
    """
    s = np.sqrt(chi2.ppf((np.arange(400) + 0.5) / 400, freedom) / freedom)[:, None]
    u = norm.ppf((np.arange(50) + 0.5) / 50)[None, :] * np.sqrt(common)
    rest = np.sqrt(1 - common)

    def beyond(q: float) -> float:
        inside = norm.cdf((q * s - u) / rest) - (norm.cdf((-q * s - u) / rest) if both else 0.0)
        return float(np.mean(inside**looks)) - (1 - level)

    return float(brentq(beyond, 0.0, 200.0, xtol=1e-3))  # pyright: ignore[reportArgumentType]
