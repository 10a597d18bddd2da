"""Where is the likelihood the largest? The search that all models of customer lifetime share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from foretell.errors import DataError

RESTARTS = 5
LOG_BOUND = 12.0  # A likelihood can be flat towards 0 or infinity (nobody ever leaves, all alike): stop at e^±12.

LogLikelihood = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(logs of k parameters, x, t_x, T) -> (n,) the log-likelihood of each history, (k, n) its gradient by these logs."""


def check_histories(subject: str, x: np.ndarray, T: np.ndarray, weight: np.ndarray) -> None:
    """Raise DataError, in the name of the subject, when fewer than two came back: nothing then tells how often."""
    came_back = int(((x > 0) & (weight > 0)).sum())
    if came_back < 2 or not T[weight > 0].any():
        raise DataError(
            subject,
            f"expected profiles that ordered on several days, got {came_back} of {len(x)}",
            "take later cutoffs, or leave this estimator out",
        )


def fit_histories(
    subject: str, log_likelihood: LogLikelihood, x: np.ndarray, t_x: np.ndarray, T: np.ndarray, weight: np.ndarray,
    penalizer: float,
) -> tuple[tuple[float, ...], float]:  # fmt: skip
    """The four parameters of the largest weighted mean log-likelihood, and the unit of time they are in: the mean T.

    In that unit times are near 1, and the four logs alike in size. penalizer: times the sum of the squared logs, so
    measured, is added to the mean negative log-likelihood. Raises DataError as check_histories and minimise do.
    """
    check_histories(subject, x, T, weight)
    scale = float(np.average(T, weights=weight))
    # Most customers buy once, and many on the same day: whose histories are equal are one row, with their weights' sum.
    rows, place = np.unique(np.column_stack([x, t_x, T]), axis=0, return_inverse=True)
    share = np.bincount(place.ravel(), weight) / weight.sum()
    x, t_x, T = np.ascontiguousarray(rows.T / [[1], [scale], [scale]])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = log_likelihood(theta, x, t_x, T)
        return -float(share @ value), -(gradient @ share)

    return minimise(subject, loss, [-LOG_BOUND] * 4, penalizer), scale


def per_count(function: Callable[[np.ndarray], np.ndarray], counts: np.ndarray) -> np.ndarray:
    """(k, n): the function, whose answer is (k, any number), of counts (n,), worked out once per distinct count.

    People buy once, twice, hardly ever a hundred times, and special functions are what takes time in a likelihood.
    """
    distinct, place = np.unique(counts, return_inverse=True)
    return function(distinct)[:, place]


def minimise(
    subject: str, loss: Callable[[np.ndarray], tuple[float, np.ndarray]], lower: list[float], penalizer: float
) -> tuple[float, ...]:
    """exp of the logs that make loss (value, gradient) + penalizer * sum of squares the smallest, from 1 upwards.

    lower: the least each log may be; none may be above LOG_BOUND. Raises DataError, in the name of the subject, when
    the search does not converge.
    """

    def penalised(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(theta)
        return value + penalizer * float(theta @ theta), gradient + 2 * penalizer * theta

    def search(start: np.ndarray) -> tuple[Any, float]:
        with _threads().limit(limits=1, user_api="blas"):
            found = minimize(
                penalised,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=[(low, LOG_BOUND) for low in lower],
                options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-8},
            )
        # At this tolerance the last line search may fail by rounding although the place is right: judge by the slope.
        inside = (found.x > np.array(lower)) & (found.x < LOG_BOUND)
        return found, float(np.abs(np.where(inside, found.jac, 0.0)).max())

    found, slope = search(np.maximum(0.1, lower))
    for _ in range(RESTARTS):  # where two parameters run off together, rounding may end a search half way up
        if np.isfinite(found.fun) and not slope < 1e-4:
            found, slope = search(found.x)
    if not np.isfinite(found.fun) or not slope < 1e-4:
        raise DataError(
            subject,
            f"expected a likelihood with a maximum, got none within {found.nit} steps ({found.message})",
            "set penalizer=0.01, or leave this estimator out",
        )
    return tuple(np.exp(found.x).tolist())


@cache
def _threads() -> ThreadpoolController:
    """Of linear algebra. For matrices of four rows they bring nothing, and on a busy machine wait for each other."""
    return ThreadpoolController()
