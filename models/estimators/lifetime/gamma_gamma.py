"""What is a purchase worth? Gamma-Gamma: Fader & Hardie, The Gamma-Gamma Model of Monetary Value (note, 2013), [FH]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.special import betaln, digamma

from foretell.errors import DataError
from models.estimators.lifetime.search import LOG_BOUND, minimise, per_count


@dataclass(frozen=True)
class GammaGamma:
    """The value of a purchase is gamma(p, nu) around each customer's own mean, with nu from gamma(q, gamma).

    gamma has the unit of the values. In all methods, per customer: the mean value of n >= 1 purchases.
    """

    name: ClassVar[str] = "gamma_gamma"

    p: float
    q: float
    gamma: float

    @classmethod
    def fit(cls, n: np.ndarray, mean: np.ndarray, weight: np.ndarray, penalizer: float = 0.0) -> Self:
        """The parameters of the largest likelihood, weighted; arrays (n,), all means > 0.

        penalizer: as in BGNBD.fit (gamma in units of the average mean). q > 1, or the mean over customers would not
        exist. Raises DataError for fewer than two customers, or when the search does not converge.
        """
        if (found := int((weight > 0).sum())) < 2:
            raise DataError(
                cls.name,
                f"expected profiles with a positive spend on several days, got {found}",
                "take later cutoffs, or leave this estimator out",
            )
        scale = float(np.average(mean, weights=weight))
        share, mean = weight / weight.sum(), mean / scale

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = _log_likelihood(theta, n, mean)
            return -float(share @ value), -(gradient @ share)

        p, q, gamma = minimise(cls.name, loss, [-LOG_BOUND, float(np.log(1.01)), -LOG_BOUND], penalizer)
        return cls(p, q, gamma * scale)

    def log_likelihood(self, n: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """(n,): log of the density of such a mean of n values."""
        return _log_likelihood(np.log([self.p, self.q, self.gamma]), n, mean)[0]

    def expected_value(self, n: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """(n,): E[value of a future purchase], between the customer's own mean and everybody's [FH eq. 5]."""
        return self.p * (self.gamma + n * mean) / (self.p * n + self.q - 1)


def _log_likelihood(theta: np.ndarray, n: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[FH eq. 1a]: (n,) logs of the density, and (3, n) their gradient by theta, the logs of the parameters."""
    p, q, gamma = np.exp(theta)

    def special(n: np.ndarray) -> np.ndarray:
        pn = p * n
        return np.array([betaln(pn, q), digamma(pn + q) - digamma(pn), digamma(pn + q) - digamma(q)])

    ln_beta, by_pn, by_q = per_count(special, n)
    pn, total = p * n, n * mean
    log_rest = theta[2] - np.log(gamma + total)  # log of gamma's share in gamma + total
    log_share = -np.log1p(gamma / total)  # of total's
    # few large terms, not many: where all are alike p and q run to the bound, and their differences to noise
    value = q * log_rest + pn * log_share - ln_beta - np.log(mean)
    gradient = (pn * (by_pn + log_share), q * (by_q + log_rest), q - gamma * (pn + q) / (gamma + total))
    return value, np.array(gradient)
