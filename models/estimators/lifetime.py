"""How do people buy until they leave, and how much at a time? Two models of customer lifetime, as arithmetic.

BG/NBD: Fader, Hardie & Lee, "Counting Your Customers" the Easy Way (Marketing Science 24, 2005), [FHL].
Gamma-Gamma: Fader & Hardie, The Gamma-Gamma Model of Monetary Value (note, 2013), [FH].
Both are fitted by maximum likelihood over the logs of their parameters, with analytic gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, gammaln

from foretell.errors import DataError

RESTARTS = 5
LOG_BOUND = 12.0  # A likelihood can be flat towards 0 or infinity (nobody ever leaves, all alike): stop at e^±12.


@dataclass(frozen=True)
class BGNBD:
    """Purchases at a gamma(r, alpha) rate; after each one the customer leaves for good with a beta(a, b) probability.

    alpha has the unit of time of the data the model was fitted on. In all methods, per customer: x repeat purchases,
    the last of them t_x after the first purchase, observed until T after it (0 <= t_x <= T).
    """

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, x: np.ndarray, t_x: np.ndarray, T: np.ndarray, weight: np.ndarray, penalizer: float = 0.0) -> Self:
        """The parameters of the largest likelihood [FHL eq. 6], weighted; arrays (n,), times in one unit.

        penalizer: times the sum of squared log-parameters (alpha in units of the mean T) is added to the mean negative
        log-likelihood. Raises DataError when nobody came back, or when the search does not converge.
        """
        came_back = int(((x > 0) & (weight > 0)).sum())
        if came_back < 2 or not (T > 0).any():
            raise DataError(
                "bg_nbd",
                f"expected profiles that ordered on several days, got {came_back} of {len(x)}",
                "take later cutoffs, or leave this estimator out",
            )
        scale = float(np.average(T, weights=weight))  # Times near 1 make the four logs alike in size.
        t_x, T, share = t_x / scale, T / scale, weight / weight.sum()
        repeat = x > 0

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            r, alpha, a, b = np.exp(theta)
            b_x = np.where(repeat, b + x - 1, 1.0)
            ln_a1 = gammaln(r + x) - gammaln(r) + r * theta[1]
            ln_a2 = gammaln(a + b) - gammaln(a + b + x) + gammaln(b + x) - gammaln(b)
            ln_a3 = -(r + x) * np.log(alpha + T)
            ln_a4 = np.where(repeat, theta[2] - np.log(b_x) - (r + x) * np.log(alpha + t_x), -np.inf)
            value = ln_a1 + ln_a2 + np.logaddexp(ln_a3, ln_a4)
            gone = expit(ln_a4 - ln_a3)  # the posterior probability of having left
            here = 1 - gone
            by_ab = digamma(a + b) - digamma(a + b + x)
            gradient = (
                r * (digamma(r + x) - digamma(r) + theta[1] - here * np.log(alpha + T) - gone * np.log(alpha + t_x)),
                r - alpha * (r + x) * (here / (alpha + T) + gone / (alpha + t_x)),
                a * by_ab + gone,
                b * (by_ab + digamma(b + x) - digamma(b) - gone / b_x),
            )
            return -float(share @ value), -np.array([share @ each for each in gradient])

        r, alpha, a, b = _minimise("bg_nbd", loss, [-LOG_BOUND] * 4, penalizer)
        return cls(r, alpha * scale, a, b)

    def probability_alive(self, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): P(has not left at T). It is 1 for x = 0, as one only leaves after a repeat purchase."""
        with np.errstate(divide="ignore"):
            log_odds_gone = (
                np.log(self.a)
                - np.log(np.maximum(self.b + x - 1, 1e-300))
                + (self.r + x) * np.log((self.alpha + T) / (self.alpha + t_x))
            )
        return np.where(x > 0, expit(-log_odds_gone), 1.0)

    def probability_of_purchase(self, t: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): P(at least one purchase in (T, T + t]).

        Whoever is alive at T stays so until the next purchase, and their rate is gamma(r + x, alpha + T), so that
        P(none | alive) = E[exp(-rate t)] = ((alpha + T) / (alpha + T + t)) ** (r + x); whoever has left buys nothing.
        """
        none = np.exp(-(self.r + x) * np.log1p(t / (self.alpha + T)))
        return self.probability_alive(x, t_x, T) * (1 - none)

    def expected_purchases(self, t: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): E[number of purchases in (T, T + t]], which [FHL eq. 10] writes with 2F1.

        For a customer alive at T with rate l and dropout p it is (1 - exp(-l p t)) / p [FHL, appendix]. The mean over
        l is gamma's, as above; that over p, which is beta(a, b + x), is a sum over Gauss nodes: library 2F1s return
        1e20 for frequent buyers who hardly ever leave.
        """
        tau, shape = t / (self.alpha + T), self.r + x
        alive = np.empty(len(x))
        for repeats in np.unique(x):
            of = x == repeats
            p, share = _beta_nodes(self.a, self.b + float(repeats))
            alive[of] = -np.expm1(-shape[of, None] * np.log1p(tau[of, None] * p)) @ (share / p)
        return self.probability_alive(x, t_x, T) * alive


@dataclass(frozen=True)
class GammaGamma:
    """The value of a purchase is gamma(p, nu) around each customer's own mean, with nu from gamma(q, gamma).

    gamma has the unit of the values. In all methods, per customer: the mean value of n >= 1 purchases.
    """

    p: float
    q: float
    gamma: float

    @classmethod
    def fit(cls, n: np.ndarray, mean: np.ndarray, weight: np.ndarray, penalizer: float = 0.0) -> Self:
        """The parameters of the largest likelihood [FH eq. 1a], weighted; arrays (n,), all means > 0.

        penalizer: as in BGNBD.fit (gamma in units of the average mean). q > 1, or the mean over customers would not
        exist. Raises DataError for fewer than two customers, or when the search does not converge.
        """
        if (found := int((weight > 0).sum())) < 2:
            raise DataError(
                "bg_nbd_gamma_gamma",
                f"expected profiles with a positive spend on several days, got {found}",
                "take later cutoffs, or leave this estimator out",
            )
        scale = float(np.average(mean, weights=weight))
        total, share = n * mean / scale, weight / weight.sum()
        constant = -float(share @ np.log(mean / scale))  # of the density; no parameter is in it

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            p, q, gamma = np.exp(theta)
            pn, log_sum = p * n, np.log(gamma + total)
            log_share = -np.log1p(gamma / total)  # of total in gamma + total
            # few large terms, not many: where all are alike p and q run to the bound, and their differences to noise
            value = q * (theta[2] - log_sum) + pn * log_share - betaln(pn, q)
            gradient = (
                pn * (digamma(pn + q) - digamma(pn) + log_share),
                q * (digamma(pn + q) - digamma(q) + theta[2] - log_sum),
                q - gamma * (pn + q) / (gamma + total),
            )
            return -float(share @ value) - constant, -np.array([share @ each for each in gradient])

        p, q, gamma = _minimise("bg_nbd_gamma_gamma", loss, [-LOG_BOUND, np.log(1.01), -LOG_BOUND], penalizer)
        return cls(p, q, gamma * scale)

    def expected_value(self, n: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """(n,): E[value of a future purchase], between the customer's own mean and everybody's [FH eq. 5]."""
        return self.p * (self.gamma + n * mean) / (self.p * n + self.q - 1)


def _beta_nodes(a: float, b: float, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(nodes, shares summing to 1): sum(shares * f(nodes)) is E[f(p)] for p from beta(a, b) and a smooth f.

    Golub & Welsch, Calculation of Gauss Quadrature Rules (Math. Comp. 23, 1969), for Jacobi's polynomials on [0, 1].
    Not scipy's roots_jacobi, whose weights overflow for large b.
    """
    left, right, k = a - 1, b - 1, np.arange(1.0, count)
    both = left + right
    twice = 2 * k + both
    centre = np.append((left - right) / (both + 2), (left - right) * both / (twice * (twice + 2)))
    spread = 4 * k[1:] * (k + left)[1:] * (k + right)[1:] * (k + both)[1:]
    spread /= (twice**2 * (twice + 1) * (twice - 1))[1:]
    first = 4 * a * b / ((both + 2) ** 2 * (both + 3))  # the general formula is 0 / 0 here for a + b = 1
    nodes, vectors = eigh_tridiagonal(centre, np.sqrt(np.append(first, spread)))
    return np.maximum((1 + nodes) / 2, 1e-12), vectors[0] ** 2


def _minimise(
    subject: str, loss: Callable[[np.ndarray], tuple[float, np.ndarray]], lower: list[float], penalizer: float
) -> tuple[float, ...]:
    """exp of the logs that make loss (value, gradient) + penalizer * sum of squares the smallest, from 1 upwards."""

    def penalised(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(theta)
        return value + penalizer * float(theta @ theta), gradient + 2 * penalizer * theta

    def search(start: np.ndarray) -> tuple[Any, float]:
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
