"""Which algorithms compete? scikit-learn compatible estimators, from a rule of thumb to gradient boosting.

Every estimator learns from one table: a row is one profile at one past cutoff, a column one feature (float, NaN when
unknown), `y` what the profile did in the `horizon_days` after the cutoff. None is chosen here: `candidates` lists
those that a table can feed, and the evaluation decides whether the complex ones earn their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from foretell.errors import unknown

if TYPE_CHECKING:
    from models.estimators.base import Candidate
    from models.estimators.boosting import LightGBMAmount, LightGBMProbability
    from models.estimators.duration import LightGBMDuration

KINDS = ("probability", "amount", "duration")
LEARNED = "blend"
"""The candidate that reads every feature. All others are baselines, and are served where it does not beat them."""


def candidates(
    kind: str, columns: Iterable[str], horizon_days: float, *, num_threads: int = 2, categorical: Iterable[str] = (),
    target: str = "", tuned: Mapping[str, Any] | None = None, stretched: bool = False,
) -> dict[str, Candidate]:  # fmt: skip
    """The unfitted estimators of a kind whose `requires` are all among the columns, simplest first.

    kind: "probability" (y is true or false), "amount" (y is money or a count, >= 0 but for returns) or "duration" (y is
    days, the horizon for whom it takes longer).
    columns: the features at hand; horizon_days: how many days after the cutoff y looks.
    num_threads: for the estimators that can use several. categorical: columns whose numbers are codes of text.
    target: of a task about one target among several, its name.
    tuned: parameters of the learned estimator's trees that differ from their defaults.
    stretched: only those that can foretell a longer time than their labels are of; Pareto/NBD first, which lets people
    leave at any moment, where the others are made to be worked out more easily.
    Returns name -> estimator; LEARNED is always there, as it takes whatever columns come, but for `stretched`.
    Raises UnknownName for another kind.

    >>> list(candidates("amount", ["spend_365d", "age"], horizon_days=90))
    ['mean', 'past_spend', 'blend']
    """
    _check(kind)
    present = set(columns)
    if stretched:
        return {one.name: one for one in _stretching(kind, horizon_days) if present.issuperset(one.requires)}

    # Here rather than above: scipy, scikit-learn and LightGBM take seconds to load.
    from models.estimators import baselines
    from models.estimators.blend import BlendAmount, BlendProbability
    from models.estimators.btyd import BGNBDGammaGamma, BGNBDProbability

    known: list[Candidate]
    learned = {"num_threads": num_threads, "categorical": tuple(categorical), "tuned": dict(tuned or {})}
    if kind == "probability":
        known = [
            baselines.BaseRate(horizon_days),
            baselines.Recency(horizon_days),
            baselines.SpendLogistic(horizon_days),
            baselines.RFMLogistic(horizon_days),
            BGNBDProbability(horizon_days),
            BlendProbability(horizon_days, **learned),
        ]
        if target:
            known.insert(1, baselines.TargetLogistic(horizon_days, target))
    elif kind == "duration":
        from models.estimators import duration

        known = [
            duration.Everyone(horizon_days),
            duration.RecencyCox(horizon_days),
            duration.UsualGap(horizon_days),
            duration.RFMCox(horizon_days),
            duration.BGNBDDuration(horizon_days),
            duration.BlendDuration(horizon_days, **learned),
        ]
    else:
        known = [
            baselines.MeanAmount(horizon_days),
            baselines.PastSpend(horizon_days),
            baselines.RFMTweedie(horizon_days),
            BGNBDGammaGamma(horizon_days),
            BlendAmount(horizon_days, **learned),
        ]
    return {estimator.name: estimator for estimator in known if present.issuperset(estimator.requires)}


def _stretching(kind: str, horizon_days: float) -> list[Candidate]:
    from models.estimators import baselines, btyd, duration

    chosen: dict[str, list[Any]] = {
        "probability": [
            btyd.ParetoNBDLogistic, btyd.ParetoNBDProbability, btyd.BGNBDProbability, btyd.MBGNBDProbability,
        ],
        "amount": [
            btyd.ParetoNBDGammaGamma, btyd.BGNBDGammaGamma, btyd.MBGNBDGammaGamma, btyd.ParetoNBDPurchases,
            btyd.BGNBDPurchases, btyd.MBGNBDPurchases, baselines.PastSpend,
        ],
        "duration": [duration.BGNBDDuration],
    }  # fmt: skip
    return [each(horizon_days) for each in chosen[kind]]


def trees(
    kind: str, horizon_days: float, *, num_threads: int = 2, categorical: Iterable[str] = ()
) -> LightGBMProbability | LightGBMAmount | LightGBMDuration:
    """The unfitted trees of a kind, by themselves: what tuning tunes, and what takes whatever columns come."""
    _check(kind)
    from models.estimators.boosting import LightGBMAmount, LightGBMProbability
    from models.estimators.duration import LightGBMDuration

    chosen = {"probability": LightGBMProbability, "amount": LightGBMAmount, "duration": LightGBMDuration}[kind]
    return chosen(horizon_days, num_threads=num_threads, categorical=tuple(categorical))


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise unknown("kind of prediction", kind, KINDS)
