"""Who may leave at any moment: Pareto/NBD.

[SMC] Schmittlein, Morrison & Colombo, Counting Your Customers: Who Are They and What Will They Do Next? (Management
      Science 33, 1987).
[FH]  Fader & Hardie, A Note on Deriving the Pareto/NBD Model and Related Expressions (2005), brucehardie.com/notes/009.

[FH eq. 18-20] writes the likelihood with two 2F1s, whose difference cancels to noise for frequent buyers. Here it stays
what it is before it is worked out, an integral over the moment of leaving, and is summed over Gauss nodes; the gradient
is means over the same nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.special import digamma, expit, exprel, gammaln, roots_legendre

from models.estimators.lifetime.search import fit_histories

NODES, SHARES = (each[:, None] for each in roots_legendre(32))
FOLDS = 34.0  # An integrand that has fallen by e^-34 is over: 1e-15 of what it was.
BLOCK = 1024  # So many histories at a time: their nodes fit into the cache of the processor.


@dataclass(frozen=True)
class ParetoNBD:
    """Purchases at a gamma(r, alpha) rate, by a customer who leaves for good at a gamma(s, beta) rate.

    alpha and beta have the unit of time of the data the model was fitted on. In all methods, per customer: x repeat
    purchases, the last of them t_x after the first purchase, observed until T after it (0 <= t_x <= T).
    """

    name: ClassVar[str] = "pareto_nbd"

    r: float
    alpha: float
    s: float
    beta: float

    @classmethod
    def fit(cls, x: np.ndarray, t_x: np.ndarray, T: np.ndarray, weight: np.ndarray, penalizer: float = 0.0) -> Self:
        """The parameters of the largest likelihood, weighted; arrays (n,), times in one unit.

        penalizer: times the sum of squared log-parameters (alpha, beta in units of the mean T) is added to the mean
        negative log-likelihood. Raises DataError when nobody came back, or when the search does not converge.
        """
        (r, alpha, s, beta), scale = fit_histories(cls.name, _log_likelihood, x, t_x, T, weight, penalizer)
        return cls(r, alpha * scale, s, beta * scale)

    def log_likelihood(self, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): log of the density of purchases at these times, the last at t_x, and none from then on until T."""
        return _log_likelihood(np.log([self.r, self.alpha, self.s, self.beta]), x, t_x, T)[0]

    def probability_alive(self, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): P(has not left at T) [FH section 5]."""
        log_here = -(self.r + x) * np.log(self.alpha + T) - self.s * np.log(self.beta + T)
        log_gone = np.log(self.s) + _integral(self.r + x, self.alpha, self.s + 1, self.beta, t_x, T)[0]
        return expit(log_here - log_gone)

    def probability_of_purchase(self, t: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): P(at least one purchase in (T, T + t]).

        Rates l and m of one alive at T are gamma(r + x, alpha + T) and gamma(s, beta + T). The next purchase comes u
        later with the density E[l exp(-l u)] if they are still there, which is E[exp(-m u)] probable.
        """
        shape, begin = self.r + x, np.asarray(T, float)
        log_some = _integral(shape + 1, self.alpha, self.s, self.beta, begin, begin + t)[0]
        log_some += np.log(shape) + shape * np.log(self.alpha + T) + self.s * np.log(self.beta + T)
        return self.probability_alive(x, t_x, T) * np.minimum(np.exp(log_some), 1.0)

    def expected_purchases(self, t: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
        """(n,): E[number of purchases in (T, T + t]] [FH eq. 41], in a form that s = 1 does not interrupt."""
        lasts = np.log1p(t / (self.beta + T))
        stay = (self.beta + T) * lasts * exprel((1 - self.s) * lasts)  # how long of t they are expected to be there
        return self.probability_alive(x, t_x, T) * (self.r + x) / (self.alpha + T) * stay


def _log_likelihood(theta: np.ndarray, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) logs of the likelihood, and (4, n) their gradient by theta, the logs of the parameters.

    For one pair of rates l and m it is l^x (exp(-(l + m) T) + m * integral of exp(-(l + m) u) over u in t_x..T): still
    here at T, or gone at some u [FH section 3]. With the means over l and over m, which are gamma's, it is [FH eq. 18].
    """
    r, alpha, s, beta = np.exp(theta)
    shape = r + x
    log_gone, log_a, log_b, inverse_a, inverse_b = _integral(shape, alpha, s + 1, beta, t_x, T)
    log_here = -shape * np.log(alpha + T) - s * np.log(beta + T)
    log_gone += theta[2]
    gone = expit(log_gone - log_here)  # the posterior probability of having left
    here = 1 - gone
    value = gammaln(shape) - gammaln(r) + r * theta[1] + s * theta[3] + np.logaddexp(log_here, log_gone)
    gradient = (
        r * (digamma(shape) - digamma(r) + theta[1] - here * np.log(alpha + T) - gone * log_a),
        r - alpha * shape * (here / (alpha + T) + gone * inverse_a),
        s * (theta[3] - here * np.log(beta + T) - gone * log_b) + gone,
        s - beta * (s * here / (beta + T) + (s + 1) * gone * inverse_b),
    )
    return value, np.array(gradient)


def _integral(A: np.ndarray, alpha: float, B: float, beta: float, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(5, n): the log of the integral of f(u) = (alpha + u)^-A (beta + u)^-B over u in begin..end (-inf where that is
    empty), and the means under f of log(alpha + u), log(beta + u), 1 / (alpha + u) and 1 / (beta + u). A: (n,).
    """
    found = np.empty((5, len(begin)))
    for start in range(0, len(begin), BLOCK):
        part = slice(start, start + BLOCK)
        if alpha <= beta:
            found[:, part] = _block(A[part], alpha, B, beta, begin[part], end[part])
        else:
            found[[0, 2, 1, 4, 3], part] = _block(B, beta, A[part], alpha, begin[part], end[part])
    return found


def _block(A, alpha: float, B, beta: float, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, ...]:
    """_integral for alpha <= beta.

    Over w = log((alpha + u) / (alpha + begin)) the integrand is log-concave, and analytic for |imaginary w| < pi
    whatever the parameters are, so that Gauss nodes over the w where it has not died away are exact to 1e-9.
    """
    a, b = alpha + begin, beta + begin

    def fall(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-log of f du/dw relative to begin, u - begin, log((beta + u) / b)."""
        passed = a * (np.exp(w) - 1)
        log_b = np.log(1 + passed / b)
        return (A - 1) * w + B * log_b, passed, log_b

    upper = np.log1p((end - begin) / a)
    for _ in range(64):  # Newton, on a convex function from above: it stays above
        fallen, passed, _ = fall(upper)
        late = fallen > FOLDS + 4
        if not late.any():
            break
        slope = A - 1 + B * (a + passed) / (b + passed)
        upper = np.where(late, upper - (fallen - FOLDS) / slope, upper)

    w = upper * (NODES + 1) / 2
    fallen, passed, log_b = fall(w)
    density = SHARES / 2 * np.exp(-fallen)
    total = _down(density)
    means = (w, log_b, 1 / (a + passed), 1 / (b + passed))
    mean_w, mean_b, inverse_a, inverse_b = (_down(density * each) / total for each in means)
    with np.errstate(divide="ignore"):
        log_integral = np.log(upper * total) - (A - 1) * np.log(a) - B * np.log(b)
    return log_integral, np.log(a) + mean_w, np.log(b) + mean_b, inverse_a, inverse_b


def _down(terms: np.ndarray) -> np.ndarray:
    """(n,): the sums of the columns of (k, n), each in the same order of its terms however many columns there are."""
    return np.ascontiguousarray(terms.T).sum(axis=1)
