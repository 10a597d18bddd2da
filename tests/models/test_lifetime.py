"""Models of customer lifetime against publications, another library, textbook formulas and simulated customers."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace

import cdnow_sample
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import beta, gamma, hyp2f1, roots_legendre

from foretell.errors import DataError
from models.estimators.lifetime import BGNBD, MBGNBD, GammaGamma, ParetoNBD, search
from models.estimators.lifetime.pareto_nbd import _integral

TRUTHS = {
    BGNBD: BGNBD(r=0.6, alpha=30.0, a=0.8, b=2.4),  # times in days
    MBGNBD: MBGNBD(r=0.8, alpha=30.0, a=0.8, b=2.4),
    ParetoNBD: ParetoNBD(r=0.8, alpha=30.0, s=0.7, beta=120.0),
}
HORIZON = 90.0
every = pytest.mark.parametrize("model", TRUTHS, ids=lambda m: m.name)

# What lifetimes 0.11.3 says of the CDNOW sample, in weeks up to 1997-09-30: BetaGeoFitter, ModifiedBetaGeoFitter and
# ParetoNBDFitter (maxiter=6000, tol=1e-9), and then for each of HISTORIES conditional_probability_alive and
# conditional_expected_number_of_purchases_up_to_time(39, ...).
HISTORIES = np.array([(0, 0, 38), (1, 20, 38), (2, 30.43, 38.86), (7, 35, 38), (7, 15, 38), (20, 38, 38)]).T
LIFETIMES = {
    BGNBD: (
        (0.24259454342106726, 4.413602716077381, 0.7929218333479484, 2.4259057287220465),
        (1.0, 0.6063308598, 0.7266091488, 0.8620043844, 0.03568420016, 0.9643130660),
        (0.1983361827, 0.5908870266, 1.225906810, 4.556163700, 0.1886104762, 13.88686060),
    ),
    MBGNBD: (
        (0.5248429031495967, 6.183081764399273, 0.891359517271205, 1.6140029311982804),
        (0.3921242041, 0.5690678291, 0.7061256993, 0.8505970675, 0.03684800315, 0.9603934609),
        (0.1575569599, 0.6393226995, 1.262669220, 4.393313151, 0.1903190394, 13.17432994),
    ),
    ParetoNBD: (
        (0.5532770624912468, 10.577683865707552, 0.6062400145680439, 11.668736116622085),
        (0.3002232554, 0.6820196042, 0.8691156583, 0.9528207020, 0.07028603553, 1.0),
        (0.1105616697, 0.7051205641, 1.455098741, 4.790316330, 0.3533637998, 13.68039603),
    ),
}
# conditional_probability_of_n_purchases_up_to_time(0, 39, ...) of its ParetoNBDFitter
NONE = (0.9288677266, 0.6458943113, 0.4080954579, 0.1239289971, 0.9353755040, 0.02807005453)


def parameters(model) -> tuple[float, ...]:
    return tuple(vars(model).values())


def weeks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, t_x, T of the CDNOW sample."""
    n, t_x, T = cdnow_sample.histories().iloc[:, :3].to_numpy().T
    return n - 1, t_x / 7, T / 7


def futures(truth, customers: int, T, seed: int, until: int = 400) -> np.ndarray:
    """(customers, until): times of repeat purchases of customers who behave as the model says, infinite once gone."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(truth.r, 1 / truth.alpha, customers)[:, None]
    with np.errstate(divide="ignore"):
        times = np.cumsum(rng.exponential(1, (customers, until)) / rate, axis=1)
    assert (times[:, -1] > np.max(T)).all(), "simulate more purchases"
    if isinstance(truth, ParetoNBD):
        leaves = rng.exponential(1 / rng.gamma(truth.s, 1 / truth.beta, customers))
        return np.where(times <= leaves[:, None], times, np.inf)
    made = rng.geometric(rng.beta(truth.a, truth.b, customers)) - truth.early  # repeat purchases until they leave
    return np.where(np.arange(until) < made[:, None], times, np.inf)


def seen(times: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, t_x, T of these customers when each has been observed for T."""
    past = times <= T[:, None]
    return past.sum(axis=1).astype(float), np.where(past, times, 0.0).max(axis=1), T


def simulated(truth, customers: int = 5000, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    T = np.random.default_rng(seed).integers(1, 400, customers).astype(float)
    return seen(futures(truth, customers, T, seed), T)


def textbook(truth, x: float, t_x: float, T: float) -> tuple[float, float]:
    """(likelihood, P(alive)) as printed, one history at a time."""
    r, alpha, p, q = parameters(truth)
    if isinstance(truth, ParetoNBD):  # Fader & Hardie's note, eq. 18-20
        low, high = sorted((alpha, q))
        total, other = r + p + x, p + 1 if alpha >= q else r + x
        a0 = [hyp2f1(total, other, total + 1, (high - low) / (high + t)) / (high + t) ** total for t in (t_x, T)]
        here = 1 / ((alpha + T) ** (r + x) * (q + T) ** p)
        whole = here + p / total * (a0[0] - a0[1])
        return gamma(r + x) / gamma(r) * alpha**r * q**p * whole, here / whole
    m = x + isinstance(truth, MBGNBD)  # Fader, Hardie & Lee, eq. 6; Batislam et al.
    rate = gamma(r + x) * alpha**r / gamma(r)
    here = beta(p, q + m) / beta(p, q) * rate / (alpha + T) ** (r + x)
    gone = beta(p + 1, q + m - 1) / beta(p, q) * rate / (alpha + t_x) ** (r + x) if m else 0.0
    return here + gone, here / (here + gone)


@pytest.mark.parametrize(
    ("model", "published", "within"),
    [
        (BGNBD, (0.243, 4.414, 0.793, 2.426), 0.0006),  # Fader, Hardie & Lee (2005), table 2
        (ParetoNBD, (0.553, 10.578, 0.606, 11.669), 0.0006),  # the same table
    ],
)
def test_published_parameters_of_cdnow(model, published, within):
    x, t_x, T = weeks()
    assert len(x) == 2357
    assert parameters(model.fit(x, t_x, T, np.ones(len(x)))) == pytest.approx(published, abs=within)


def test_published_values_of_cdnow():
    """Fader & Hardie (2013), section 3, on repeat purchases only; then GammaGammaFitter of lifetimes 0.11.3."""
    spend = cdnow_sample.repeat_values()
    assert len(spend) == 946
    got = GammaGamma.fit(spend["size"].to_numpy(), spend["mean"].to_numpy(), np.ones(len(spend)))
    assert parameters(got) == pytest.approx((6.25, 3.74, 15.44), abs=0.006)
    assert parameters(got) == pytest.approx((6.249572277632302, 3.7442246747588674, 15.443521018374328), rel=1e-4)
    expected = got.expected_value(np.array([1.0, 3.0, 10.0]), np.array([20.0, 50.0, 100.0]))
    assert expected == pytest.approx([24.628846698525727, 48.10654893849762, 97.27303479537869], rel=1e-5)


@every
def test_another_library_finds_the_same_of_cdnow(model):
    x, t_x, T = weeks()
    got = model.fit(x, t_x, T, np.ones(len(x)))
    found, alive, purchases = LIFETIMES[model]
    assert parameters(got) == pytest.approx(found, rel=1e-5)
    assert got.probability_alive(*HISTORIES) == pytest.approx(alive, rel=1e-6)
    assert got.expected_purchases(39, *HISTORIES) == pytest.approx(purchases, rel=1e-6)
    if model is ParetoNBD:
        assert 1 - got.probability_of_purchase(39, *HISTORIES) == pytest.approx(NONE, rel=1e-6)


@every
@pytest.mark.parametrize("change", [1.0, 0.1, 12.0])
def test_likelihoods_are_those_of_the_textbooks(model, change):
    r, alpha, p, q = parameters(TRUTHS[model])
    truth = model(r, alpha * change, p / change, q)
    for x, t_x, T in [(0, 0, 1), (0, 0, 400), (1, 0.5, 200), (3, 100, 100), (9, 30, 300), (40, 390, 400)]:
        value, alive = textbook(truth, x, t_x, T)
        one = np.array([[x], [t_x], [T]], float)
        assert np.exp(truth.log_likelihood(*one)) == pytest.approx(value, rel=1e-8)
        assert truth.probability_alive(*one) == pytest.approx(alive, rel=1e-8)


def test_the_value_of_a_mean_has_a_density():
    values = GammaGamma(p=6.0, q=4.0, gamma=15.0)
    for n in (1.0, 5.0):
        whole, _ = quad(lambda mean, n=n: float(np.exp(values.log_likelihood(n, mean))), 0, np.inf, limit=200)
        assert whole == pytest.approx(1, rel=1e-7)


@every
def test_all_that_can_happen_adds_up_to_one(model):
    """For a small T: no purchase, or x of them, the others at any times before the last: t_x^(x - 1) / (x - 1)!."""
    r, _, p, q = parameters(TRUTHS[model])
    truth, T = model(r, 10.0, p, q), 20.0
    node, share = roots_legendre(60)
    t_x, share = T * (node + 1) / 2, T * share / 2
    chance = np.exp(truth.log_likelihood(np.zeros(1), np.zeros(1), np.array([T])))[0]
    for x in range(1, 150):
        log_density = truth.log_likelihood(np.full(60, float(x)), t_x, np.full(60, T))
        log_orders = (x - 1) * np.log(t_x) - np.log(np.arange(1, x)).sum()
        chance += share @ np.exp(log_density + log_orders)
    assert chance == pytest.approx(1, abs=1e-9)


@every
def test_not_to_buy_is_a_longer_silence(model):
    """P(no purchase in (T, T + t]) is by how much the likelihood of the history falls until T + t."""
    truth = TRUTHS[model]
    x, t_x, T = simulated(truth, 300)
    for t in (1e-3, 1.0, HORIZON, 3000.0):
        none = np.exp(truth.log_likelihood(x, t_x, T + t) - truth.log_likelihood(x, t_x, T))
        np.testing.assert_allclose(truth.probability_of_purchase(t, x, t_x, T), 1 - none, atol=1e-9)


@every
def test_purchases_to_come_agree_with_simulated_futures(model):
    """What the model says of each history, against the mean future of the simulated customers who had such a one."""
    truth, T = TRUTHS[model], np.full(20_000, 200.0)
    times = futures(truth, len(T), 290.0, seed=2)
    x, t_x, _ = history = seen(times, T)
    later = ((times > 200) & (times <= 200 + HORIZON)).sum(axis=1)
    some, mean = truth.probability_of_purchase(HORIZON, *history), truth.expected_purchases(HORIZON, *history)
    for group in (x == 0, x == 1, (x > 1) & (t_x < 100), (x > 1) & (t_x >= 100), x >= 6):
        assert group.sum() > 200
        error = 4 / np.sqrt(group.sum())
        assert some[group].mean() == pytest.approx((later[group] > 0).mean(), abs=error * (later[group] > 0).std())
        assert mean[group].mean() == pytest.approx(later[group].mean(), abs=error * later[group].std())


@pytest.mark.parametrize("model", [BGNBD, MBGNBD], ids=lambda m: m.name)
@pytest.mark.parametrize("x", [0, 1, 7, 60, 800])
@pytest.mark.parametrize("a", [0.01, 0.8, 1.0, 3.0])
def test_expected_purchases_are_the_integral_over_the_dropout_probability(model, x, a):
    truth, T, t_x = model(0.5, 20.0, a, 2.5), 300.0, 290.0 if x else 0.0
    args = np.array([float(x)]), np.array([t_x]), np.array([T])
    root, stayed = min(a, 1.0), truth.b + x + truth.early
    for t in (1.0, 90.0, 2000.0):

        def purchases(u, t=t):
            """At p = u ** (1 / root): for a < 1 this takes the steep p ** (a - 1) out of beta's density."""
            p = max(u ** (1 / root), 1e-300)
            mean = -np.expm1(-(truth.r + x) * np.log1p(p * t / (truth.alpha + T))) / p
            return mean * (1 - p) ** (stayed - 1) * u ** (a / root - 1)

        whole, _ = quad(purchases, 0, 1, limit=500, points=[q**root for q in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)])
        whole /= root * beta(a, stayed)
        assert truth.expected_purchases(t, *args) == pytest.approx(whole * truth.probability_alive(*args), rel=1e-5)


@pytest.mark.parametrize("s", [0.3, 0.999, 1.0, 1.001, 2.5])
def test_expected_purchases_of_pareto_nbd_are_the_integral_over_time(s):
    """At u after T a purchase is as likely as E[rate] says, if they are still there: E[exp(-u * rate of leaving)]."""
    truth, x, T = ParetoNBD(0.5, 20.0, s, 40.0), 3.0, 100.0
    one = np.array([x]), np.array([60.0]), np.array([T])
    for t in (1.0, 90.0, 2000.0):
        there, _ = quad(lambda u: ((truth.beta + T) / (truth.beta + T + u)) ** s, 0, t)
        whole = truth.probability_alive(*one) * (truth.r + x) / (truth.alpha + T) * there
        assert truth.expected_purchases(t, *one) == pytest.approx(whole, rel=1e-9)


def test_integrals_over_the_moment_of_leaving_are_exact_for_any_parameters():
    """Against an adaptive rule over the logarithm of time, in ten pieces."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        (A, B), (alpha, beta_) = np.exp(rng.uniform(-3, 5, 2)), np.exp(rng.uniform(-9, 6, 2))
        A += rng.choice([0.0, 3.0, 2000.0])
        begin = rng.choice([0.0, rng.uniform(0, 2)])
        end = begin + rng.choice([1e-6, 0.1, 3.0])
        got = _integral(np.array([A]), alpha, B, beta_, np.array([begin]), np.array([end]))[:, 0]
        low = min(alpha, beta_)

        def integrand(w, A=A, B=B, alpha=alpha, beta_=beta_, low=low, begin=begin):
            u = (low + begin) * np.expm1(w)  # after begin
            return np.exp(w - A * np.log1p(u / (alpha + begin)) - B * np.log1p(u / (beta_ + begin)))

        last = np.log1p((end - begin) / (low + begin))
        pieces = np.append(0, last * 0.4 ** np.arange(9, -1, -1))
        whole = sum(quad(integrand, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in pairwise(pieces))
        want = np.log(whole * (low + begin)) - A * np.log(alpha + begin) - B * np.log(beta_ + begin)
        assert got[0] == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("penalizer", [0.0, 0.3])
def test_gradients_are_those_of_the_losses(monkeypatch, penalizer):
    """Central differences around some places, of the very functions that are minimised."""
    losses = []

    def minimize(loss, start, **options):
        losses.append((loss, len(start)))
        return SimpleNamespace(x=start, fun=0.0, jac=0 * start, nit=0, message="")

    monkeypatch.setattr(search, "minimize", minimize)
    for model, truth in TRUTHS.items():
        x, t_x, T = simulated(truth, 200)
        weight = np.random.default_rng(0).random(len(x))
        model.fit(x, t_x, T, weight, penalizer)
    GammaGamma.fit(x + 1, np.random.default_rng(5).gamma(3, 9, len(x)), weight, penalizer)
    assert [size for _, size in losses] == [4, 4, 4, 3]
    for loss, size in losses:
        for theta in np.random.default_rng(1).normal(size=(5, size)):
            step = 1e-5 * np.eye(size)
            numeric = [(loss(theta + h)[0] - loss(theta - h)[0]) / 2e-5 for h in step]
            np.testing.assert_allclose(loss(theta)[1], numeric, rtol=1e-5, atol=1e-7)


@every
def test_parameters_of_simulated_customers_are_recovered_fast(model):
    truth = TRUTHS[model]
    x, t_x, T = simulated(truth)
    start = time.perf_counter()
    got = model.fit(x, t_x, T, np.ones(len(x)))
    assert time.perf_counter() - start < 1
    assert got.log_likelihood(x, t_x, T).sum() >= truth.log_likelihood(x, t_x, T).sum()
    assert (got.r, got.alpha) == pytest.approx((truth.r, truth.alpha), rel=0.2)
    new = np.zeros(2)  # newcomers, over two horizons: what the other two parameters are for
    for t in (30.0, 365.0):
        assert got.expected_purchases(t, new, new, new) == pytest.approx(
            truth.expected_purchases(t, new, new, new), rel=0.1
        )
    fresh = seen(futures(truth, 1000, 200.0, seed=9), np.full(1000, 200.0))
    difference = got.probability_alive(*fresh) - truth.probability_alive(*fresh)
    assert np.abs(difference).max() < 0.1


@every
def test_the_unit_of_time_is_free_and_a_weight_of_two_is_a_history_twice(model):
    x, t_x, T = simulated(TRUTHS[model], 1500)
    ones = np.ones(len(x))
    for penalizer in (0.0, 0.1):
        in_days, in_weeks = (model.fit(x, t_x / unit, T / unit, ones, penalizer) for unit in (1, 7))
        units = [7 if name in ("alpha", "beta") else 1 for name in vars(in_days)]
        assert parameters(in_days) == pytest.approx(np.multiply(parameters(in_weeks), units), rel=1e-3)
    twice = np.where(np.arange(len(x)) % 3 == 0, 2, 1)
    weighted = model.fit(x, t_x, T, 5.0 * twice)
    repeated = model.fit(*(np.repeat(each, twice) for each in (x, t_x, T)), np.ones(twice.sum()))
    assert parameters(weighted) == pytest.approx(parameters(repeated), rel=1e-3)


@every
def test_a_large_penalizer_pulls_everything_to_one_and_times_to_their_mean(model):
    x, t_x, T = simulated(TRUTHS[model], 500)
    got = model.fit(x, t_x, T, np.ones(len(x)), penalizer=1e6)
    times = ("alpha", "beta")
    expected = [T.mean() if name in times else 1.0 for name in vars(got)]
    assert parameters(got) == pytest.approx(expected, rel=1e-4)


@every
def test_who_has_bought_once_is_the_less_alive_the_longer_ago(model):
    truth, zero, T = TRUTHS[model], np.zeros(4), np.array([0.0, 10.0, 100.0, 1000.0])
    alive = truth.probability_alive(zero, zero, T)
    if model is BGNBD:
        assert (alive == 1).all()  # one leaves after a repeat purchase only
    else:
        assert (np.diff(alive) < 0).all()
        at_once = truth.a / (truth.a + truth.b) if model is MBGNBD else 0
        assert alive[0] == pytest.approx(1 - at_once)
    returns = truth.probability_of_purchase(HORIZON, zero, zero, T)
    assert (np.diff(returns) < 0).all()
    assert ((returns > 0) & (returns < 1)).all()


@every
@pytest.mark.parametrize(
    "given",
    [
        (1, 1, 1, 1), (1e-5, 1e-5, 1e-5, 1e-5), (1e5, 1e5, 1e5, 1e5), (1e-5, 1e5, 1e5, 1e-5), (1e5, 1e-5, 1e-5, 1e5),
        (0.5, 10, 1e-5, 1e5), (0.5, 10, 1e5, 1e-5), (1e5, 1e6, 0.5, 10), (1e-5, 10, 0.5, 1e6),
    ],
)  # fmt: skip
def test_extreme_histories_and_parameters_get_usable_answers(model, given):
    x = np.array([0, 0, 0, 1, 1, 1, 5, 5000, 5000, 5000, 1e6])
    t_x = np.array([0, 0, 0, 0, 1e-6, 300, 300, 1e-3, 200, 300, 300])
    T = np.array([0, 1e-6, 3e4, 0, 3e4, 300, 300, 300, 300, 300, 3e4])
    fitted = model(*map(float, given))
    alive = fitted.probability_alive(x, t_x, T)
    assert ((alive >= 0) & (alive <= 1)).all()
    before = np.zeros(len(x))
    for t in (0.0, 1e-6, 30.0, 1e6):
        some, many = fitted.probability_of_purchase(t, x, t_x, T), fitted.expected_purchases(t, x, t_x, T)
        assert ((some >= 0) & (some <= alive + 1e-12)).all()
        assert np.isfinite(many).all()
        assert (some <= many * (1 + 1e-6) + 1e-9).all()  # one purchase or more are no fewer than one
        assert (some >= before - 1e-9).all()
        before = some
    assert np.isfinite(fitted.log_likelihood(x, t_x, T)).all()


@every
def test_populations_without_a_finite_maximum_get_usable_answers(model):
    """Nobody leaves, everyone leaves after the first return, all return at the end, some buy every hour."""
    rng, T = np.random.default_rng(5), np.full(400, 365.0)
    many = rng.poisson(12.0, 400).astype(float)
    populations = {
        "nobody leaves": (many, np.where(many > 0, T - rng.exponential(30, 400).clip(0, 300), 0.0), T),
        "all leave": (np.ones(400), rng.exponential(5, 400).clip(0.1, 60), T),
        "at the end": (many, np.where(many > 0, T, 0.0), T),
        "every hour": (np.full(400, 8000.0), T - rng.uniform(0, 0.04, 400), T),
        "one returns twice": (np.append(np.zeros(398), [1, 2]), np.append(np.zeros(398), [50.0, 90.0]), T),
    }
    for name, history in populations.items():
        fitted = model.fit(*history, np.ones(400))
        alive, some = fitted.probability_alive(*history), fitted.probability_of_purchase(30, *history)
        many = fitted.expected_purchases(30, *history)
        for chance in (alive, some):
            assert ((chance >= 0) & (chance <= 1)).all(), name
        assert np.isfinite(many).all(), name
        assert (many >= 0).all(), name
        if name == "nobody leaves":
            assert many.mean() == pytest.approx(12 * 30 / 365, rel=0.1)
        if name == "every hour":
            assert many.mean() == pytest.approx(8000 * 30 / 365, rel=0.1)
        if name == "all leave":
            assert some.max() < 0.05


@every
def test_nobody_who_came_back_is_refused(model):
    T = np.full(50, 100.0)
    with pytest.raises(DataError, match=rf"^{model.name}: expected profiles that ordered on several days, got 0 of 50"):
        model.fit(0 * T, 0 * T, T, np.ones(50))
    x = np.append([3.0, 3.0], np.zeros(48))  # without a weight they do not count
    with pytest.raises(DataError, match="got 1 of 50; take later cutoffs"):
        model.fit(x, x, T, np.append([0.0], np.ones(49)))
    with pytest.raises(DataError, match="got 2 of 50"):
        model.fit(x, 0 * T, 0 * T, np.ones(50))


def test_values_are_refused_without_customers_and_free_in_their_unit():
    with pytest.raises(
        DataError, match=r"^gamma_gamma: expected profiles with a positive spend on several days, got 1"
    ):
        GammaGamma.fit(np.ones(2), np.ones(2), np.array([1.0, 0.0]))
    rng = np.random.default_rng(0)
    n = rng.integers(1, 9, 8000).astype(float)
    mean = rng.gamma(6 * n, 1 / (n * rng.gamma(4, 1 / 15, 8000)))
    euros, cents = (GammaGamma.fit(n, mean * unit, np.ones(8000)) for unit in (1, 100))
    assert (cents.p, cents.q, cents.gamma / 100) == pytest.approx(parameters(euros), rel=1e-3)
    assert parameters(euros) == pytest.approx((6, 4, 15), rel=0.2)


def test_no_maximum_is_an_error_with_a_way_out():
    def nowhere(theta):
        return float("nan"), theta * np.nan

    with pytest.raises(DataError, match=r"^bg_nbd: expected a likelihood with a maximum, got none .*; set penalizer="):
        search.minimise("bg_nbd", nowhere, [-1.0, -1.0], 0.0)
