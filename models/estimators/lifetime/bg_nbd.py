"""Who may leave after a purchase: BG/NBD and its modification for those who leave after the very first.

[FHL] Fader, Hardie & Lee, "Counting Your Customers" the Easy Way (Marketing Science 24, 2005).
[BDF] Batislam, Denizel & Filiztekin, Empirical Validation and Comparison of Models for Customer Base Analysis
      (International Journal of Research in Marketing 24, 2007).
[HW]  Hoppe & Wagner, Customer Base Analysis: The Case for a Central Variant of the Betageometric/NBD Model
      (Marketing: Journal of Research and Management 3, 2007), who came to the same modification.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import digamma, expit, gammaln

from models.estimators.lifetime.search import fit_histories, per_count


@dataclass(frozen=True)
class BGNBD:
    """Purchases at a gamma(r, alpha) rate; after each repeat one the customer leaves, with a beta(a, b) probability.

    alpha has the unit of time of the data the model was fitted on. In all methods, per customer: x repeat purchases,
    the last of them t_x after the first purchase, observed until T after it (0 <= t_x <= T).
    """

    name: ClassVar[str] = "bg_nbd"
    early: ClassVar[int] = 0  # how many occasions to leave there are before the first repeat purchase

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, x: np.ndarray, t_x: np.ndarray, T: np.ndarray, weight: np.ndarray, penalizer: float = 0.0) -> Self:
        """The parameters of the largest likelihood, weighted; arrays (n,), times in one unit.

        penalizer: times the sum of squared log-parameters (alpha in units of the mean T) is added to the mean negative
        log-likelihood. Raises DataError when nobody came back, or when the search does not converge.
        """
        (r, alpha, a, b), scale = fit_histories(cls.name, cls._log_likelihood, x, t_x, T, weight, penalizer)
        return cls(r, alpha * scale, a, b)

    def log_likelihood(self, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): log of the density of purchases at these times, the last at t_x, and none from then on until T."""
        return self._log_likelihood(np.log([self.r, self.alpha, self.a, self.b]), x, t_x, T)[0]

    @classmethod
    def _log_likelihood(
        cls, theta: np.ndarray, x: np.ndarray, t_x: np.ndarray, T: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """[FHL eq. 6], with m, not x, occasions to leave.

        For one rate l and dropout p it is l^x ((1 - p)^m exp(-l T) + p (1 - p)^(m - 1) exp(-l t_x)), whose second term
        is that of having left at t_x, after the last purchase; m = x in BG/NBD, and x + 1 in MBG/NBD [BDF, HW].
        """
        r, alpha, a, b = np.exp(theta)

        def special(x: np.ndarray) -> np.ndarray:
            m = x + cls.early
            ln_a1 = gammaln(r + x) - gammaln(r) + r * theta[1]
            ln_a2 = gammaln(a + b) - gammaln(a + b + m) + gammaln(b + m) - gammaln(b)
            by_a = digamma(a + b) - digamma(a + b + m)
            return np.array([ln_a1 + ln_a2, digamma(r + x) - digamma(r), by_a, by_a + digamma(b + m) - digamma(b)])

        ln_a12, by_r, by_a, by_b = per_count(special, x)
        m = x + cls.early
        b_m = np.where(m > 0, b + m - 1, 1.0)
        log_end, log_last = np.log(alpha + T), np.log(alpha + t_x)
        ln_a3 = -(r + x) * log_end
        ln_a4 = np.where(m > 0, theta[2] - np.log(b_m) - (r + x) * log_last, -np.inf)
        gone = expit(ln_a4 - ln_a3)  # the posterior probability of having left
        here = 1 - gone
        gradient = (
            r * (by_r + theta[1] - here * log_end - gone * log_last),
            r - alpha * (r + x) * (here / (alpha + T) + gone / (alpha + t_x)),
            a * by_a + gone,
            b * (by_b - gone / b_m),
        )
        return ln_a12 + np.logaddexp(ln_a3, ln_a4), np.array(gradient)

    def probability_alive(self, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): P(has not left at T). In BG/NBD it is 1 for x = 0, as one only leaves after a repeat purchase."""
        m = x + self.early
        with np.errstate(divide="ignore"):
            log_odds_gone = (
                np.log(self.a)
                - np.log(np.maximum(self.b + m - 1, 1e-300))
                + (self.r + x) * np.log((self.alpha + T) / (self.alpha + t_x))
            )
        return np.where(m > 0, expit(-log_odds_gone), 1.0)

    def probability_of_purchase(
        self, t: float | np.ndarray, x: np.ndarray, t_x: np.ndarray, T: np.ndarray
    ) -> np.ndarray:
        """(n,): P(at least one purchase in (T, T + t]); of several t, (n, len(t)) from histories (n, 1).

        Whoever is alive at T stays so until the next purchase, and their rate is gamma(r + x, alpha + T), so that
        P(none | alive) = E[exp(-rate t)] = ((alpha + T) / (alpha + T + t)) ** (r + x); whoever has left buys nothing.
        """
        some = -np.expm1(-(self.r + x) * np.log1p(t / (self.alpha + T)))
        return self.probability_alive(x, t_x, T) * some

    def expected_purchases(self, t: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): E[number of purchases in (T, T + t]], which [FHL eq. 10] and [BDF eq. 6] write with 2F1.

        For a customer alive at T with rate l and dropout p it is (1 - exp(-l p t)) / p [FHL, appendix]. The mean over
        l is gamma's, as above; that over p, which is beta(a, b + m), is a sum over Gauss nodes: library 2F1s return
        1e20 for frequent buyers who hardly ever leave.
        """
        tau, shape = t / (self.alpha + T), self.r + x
        alive = np.empty(len(x))
        for repeats in x if len(x) == 1 else np.unique(x):  # to sort one takes longer than all the rest
            of = x == repeats
            p, share = _beta_nodes(self.a, self.b + float(repeats) + self.early)
            some = -np.expm1(-shape[of, None] * np.log1p(tau[of, None] * p))
            alive[of] = (some * (share / p)).sum(axis=1)  # a product of matrices ends in other bits as rows are few
        return self.probability_alive(x, t_x, T) * alive


@dataclass(frozen=True)
class MBGNBD(BGNBD):
    """BG/NBD whose customers may leave right after the first purchase too [BDF, HW].

    In BG/NBD who never came back is alive for sure; here that is the less likely the longer ago they bought.
    """

    name: ClassVar[str] = "mbg_nbd"
    early: ClassVar[int] = 1


@lru_cache(4096)
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
