"""BG/NBD and Gamma-Gamma against the published numbers, simulation, and numerical differentiation and integration."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import beta
from simulated_shop import HORIZON, TRUTH, VALUES, purchase_days, shop

from foretell.errors import DataError
from models.estimators import lifetime
from models.estimators.btyd import HISTORY, BGNBDGammaGamma, BGNBDProbability
from models.estimators.lifetime import BGNBD, GammaGamma

TEST_DATA = os.environ.get("FORETELL_TEST_DATA")


@pytest.fixture(scope="module")
def cdnow() -> pd.DataFrame:
    """One row per customer and day: sample_id, date, value."""
    if not TEST_DATA:
        pytest.skip("FORETELL_TEST_DATA is not set: the CDNOW sample is not at hand")
    lines = pd.read_parquet(Path(TEST_DATA) / "cdnow" / "sample.parquet")
    lines["date"] = pd.to_datetime(lines["date"])
    return lines.groupby(["sample_id", "date"], as_index=False)["value"].sum()


def history(days: pd.DataFrame, last: str) -> pd.DataFrame:
    """Per customer: the columns the estimators read, from all days up to and with the last."""
    seen = (
        days[days["date"] <= last]
        .groupby("sample_id")
        .agg(first=("date", "min"), latest=("date", "max"), order_days_ever=("date", "size"), spend=("value", "mean"))
    )
    return pd.DataFrame(
        {
            "order_days_ever": seen["order_days_ever"].astype(float),
            "days_first_to_last_order": (seen["latest"] - seen["first"]).dt.days.astype(float),
            "days_since_first_order": (pd.Timestamp(last) - seen["first"]).dt.days.astype(float),
            "mean_spend_per_order_day_ever": seen["spend"],
        }
    )


def test_published_parameters_of_cdnow(cdnow):
    """Fader, Hardie & Lee (2005), table 2, in weeks; Fader & Hardie (2013), section 3, on repeat purchases only."""
    X = history(cdnow, "1997-09-30")
    x, weeks = X["order_days_ever"].to_numpy() - 1, X[list(HISTORY[1:])].to_numpy() / 7
    assert len(X) == 2357
    start = time.perf_counter()
    got = BGNBD.fit(x, weeks[:, 0], weeks[:, 1], np.ones(len(x)))
    assert time.perf_counter() - start < 1
    assert (got.r, got.alpha, got.a, got.b) == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=0.0006)

    calibration = cdnow[cdnow["date"] <= "1997-09-30"]
    repeat = calibration[calibration["date"] > calibration.groupby("sample_id")["date"].transform("min")]
    spend = repeat.groupby("sample_id")["value"].agg(["size", "mean"])
    spend = spend[spend["mean"] > 0]
    assert len(spend) == 946
    values = GammaGamma.fit(spend["size"].to_numpy(float), spend["mean"].to_numpy(), np.ones(len(spend)))
    assert (values.p, values.q, values.gamma) == pytest.approx((6.25, 3.74, 15.44), abs=0.006)


def test_cdnow_customers_come_back_as_often_as_foretold(cdnow):
    """The next 39 weeks: the whole 78 within 6%; the 39 alone a little low (returning 10%, orders 12%, spend 16%)."""
    X = history(cdnow, "1997-09-30")
    later = cdnow[cdnow["date"] > "1997-09-30"].groupby("sample_id")["value"].agg(["size", "sum"])
    later = later.reindex(X.index, fill_value=0)
    churned = BGNBDProbability(39 * 7).fit(X, later["size"] == 0)
    assert churned.orientation_ == -1
    assert churned.predict_proba(X)[:, 0].sum() == pytest.approx((later["size"] > 0).sum(), rel=0.11)
    x, t_x, T = X[list(HISTORY)].to_numpy().T - [[1], [0], [0]]
    repeats = x.sum() + churned.bg_nbd_.expected_purchases(39 * 7, x, t_x, T).sum()
    assert repeats == pytest.approx(x.sum() + later["size"].sum(), rel=0.06)
    amount = BGNBDGammaGamma(39 * 7).fit(X, later["sum"])
    assert amount.predict(X).sum() == pytest.approx(later["sum"].sum(), rel=0.18)


def test_parameters_of_a_simulated_population_are_recovered():
    X, amount = shop(customers=6000, never=0, seed=1)
    fitted = BGNBDGammaGamma(HORIZON).fit(X, amount)
    got, want = fitted.bg_nbd_, TRUTH
    assert (got.r, got.alpha) == pytest.approx((want.r, want.alpha), rel=0.15)
    assert got.a / (got.a + got.b) == pytest.approx(want.a / (want.a + want.b), rel=0.15)
    values = fitted.gamma_gamma_
    assert values.p == pytest.approx(VALUES.p, rel=0.15)
    assert values.q == pytest.approx(VALUES.q, rel=0.2)
    assert values.expected_value(np.array([3.0]), np.array([20.0])) == pytest.approx(
        VALUES.expected_value(np.array([3.0]), np.array([20.0])), rel=0.02
    )


def test_purchase_probability_and_expectation_agree_with_simulated_futures():
    """What the model says of each history, against the mean future of the simulated customers who had such a one."""
    rng, T = np.random.default_rng(2), 200.0
    futures = [purchase_days(rng, TRUTH, T + HORIZON) for _ in range(20_000)]
    x = np.array([(times <= T).sum() for times in futures], dtype=float)
    t_x = np.array([times[times <= T].max(initial=0.0) for times in futures])
    later = np.array([(times > T).sum() for times in futures])
    some = TRUTH.probability_of_purchase(HORIZON, x, t_x, np.full(len(x), T))
    mean = TRUTH.expected_purchases(HORIZON, x, t_x, np.full(len(x), T))
    for group in (x == 0, x == 1, (x > 1) & (t_x < T / 2), (x > 1) & (t_x >= T / 2), x >= 6):
        error = 4 / np.sqrt(group.sum())
        assert some[group].mean() == pytest.approx((later[group] > 0).mean(), abs=error * (later[group] > 0).std())
        assert mean[group].mean() == pytest.approx(later[group].mean(), abs=error * later[group].std())


@pytest.mark.parametrize("x", [0, 1, 7, 60, 800])
@pytest.mark.parametrize("a", [0.01, 0.8, 1.0, 3.0])
def test_expected_purchases_are_the_integral_over_the_dropout_probability(x, a):
    model, T, t_x = BGNBD(0.5, 20.0, a, 2.5), 300.0, 290.0 if x else 0.0
    args = np.array([float(x)]), np.array([t_x]), np.array([T])
    root = min(a, 1.0)
    for t in (1.0, 90.0, 2000.0):

        def purchases(u, t=t):
            """At p = u ** (1 / root): for a < 1 this takes the steep p ** (a - 1) out of beta's density."""
            p = max(u ** (1 / root), 1e-300)
            mean = -np.expm1(-(model.r + x) * np.log1p(p * t / (model.alpha + T))) / p
            return mean * (1 - p) ** (model.b + x - 1) * u ** (a / root - 1)

        whole, _ = quad(purchases, 0, 1, limit=500, points=[q**root for q in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)])
        whole /= root * beta(a, model.b + x)
        assert model.expected_purchases(t, *args) == pytest.approx(whole * model.probability_alive(*args), rel=1e-5)


def test_one_time_buyers_are_alive_but_not_sure_to_return():
    zero, T = np.zeros(3), np.array([1.0, 100.0, 1000.0])
    assert (TRUTH.probability_alive(zero, zero, T) == 1).all()
    returns = TRUTH.probability_of_purchase(90, zero, zero, T)
    assert (np.diff(returns) < 0).all()
    assert 0 < returns[-1] < returns[0] < 1
    assert TRUTH.probability_of_purchase(1e9, zero, zero, T) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("penalizer", [0.0, 0.3])
def test_gradients_are_those_of_the_losses(monkeypatch, penalizer):
    """Central differences around some places, of the very functions that are minimised."""
    losses = []
    monkeypatch.setattr(
        lifetime, "_minimise", lambda subject, loss, lower, penalizer: losses.append(loss) or tuple(np.ones(len(lower)))
    )
    X, _ = shop(customers=200, never=0)
    n, t_x, T = X[list(HISTORY)].to_numpy().T
    weight = np.random.default_rng(0).random(len(X))
    BGNBD.fit(n - 1, t_x, T, weight, penalizer)
    GammaGamma.fit(n, X["mean_spend_per_order_day_ever"].to_numpy(), weight, penalizer)
    for loss, size in zip(losses, (4, 3), strict=True):
        for theta in np.random.default_rng(1).normal(size=(5, size)):
            step = 1e-5 * np.eye(size)
            numeric = [(loss(theta + h)[0] - loss(theta - h)[0]) / 2e-5 for h in step]
            np.testing.assert_allclose(loss(theta)[1], numeric, rtol=1e-5, atol=1e-7)


def test_the_unit_of_time_and_of_money_is_free():
    X, _ = shop(never=0)
    n, t_x, T = X[list(HISTORY)].to_numpy().T
    ones = np.ones(len(X))
    days, weeks = BGNBD.fit(n - 1, t_x, T, ones), BGNBD.fit(n - 1, t_x / 7, T / 7, ones)
    assert (weeks.r, weeks.alpha * 7, weeks.a, weeks.b) == pytest.approx((days.r, days.alpha, days.a, days.b), rel=1e-3)
    mean = X["mean_spend_per_order_day_ever"].to_numpy()
    euros, cents = GammaGamma.fit(n, mean, ones), GammaGamma.fit(n, mean * 100, ones)
    assert (cents.p, cents.q, cents.gamma / 100) == pytest.approx((euros.p, euros.q, euros.gamma), rel=1e-3)


def test_profiles_without_a_history_get_the_label_of_their_like():
    X, amount = shop(never=0)
    y = np.append(amount == 0, [True] * 99 + [False])
    unknown = pd.DataFrame(np.nan, range(100), X.columns)
    both = pd.concat([X, unknown], ignore_index=True)
    got = BGNBDProbability(HORIZON).fit(both, y).predict_proba(both)[:, 1]
    assert got[-100:] == pytest.approx((99 + y.mean()) / 101)
    without = BGNBDProbability(HORIZON).fit(X, amount == 0).predict_proba(unknown)[:, 1]
    assert without == pytest.approx((amount == 0).mean())


def test_histories_that_tell_nothing_are_refused():
    X, amount = shop(never=0)
    once = X.assign(order_days_ever=1.0, days_first_to_last_order=0.0)
    with pytest.raises(DataError, match=r"bg_nbd: expected profiles that ordered on several days, got 0 of 1500; take"):
        BGNBDProbability(HORIZON).fit(once, amount > 0)
    with pytest.raises(DataError, match=r"bg_nbd: .*got 0 of 0"):
        BGNBDProbability(HORIZON).fit(X * np.nan, amount > 0)
    with pytest.raises(DataError, match=r"bg_nbd_gamma_gamma: expected profiles with a positive spend"):
        BGNBDGammaGamma(HORIZON).fit(X.assign(mean_spend_per_order_day_ever=0.0), amount)


def test_a_flat_likelihood_still_gives_usable_answers():
    """All alike and nobody leaves: the parameters run off to the bounds, the predictions stay right."""
    rng, T = np.random.default_rng(5), np.full(400, 365.0)
    orders = 1.0 + rng.poisson(365 / 30, 400)
    X = pd.DataFrame(dict(zip(HISTORY, (orders, T - rng.exponential(30, 400).clip(0, 300), T), strict=True)))
    X["mean_spend_per_order_day_ever"] = 20.0
    fitted = BGNBDGammaGamma(30).fit(X, np.full(400, 20.0))
    assert fitted.predict(X).mean() == pytest.approx(20, rel=0.1)


def test_no_maximum_is_an_error_with_a_way_out():
    def nowhere(theta):
        return float("nan"), theta * np.nan

    with pytest.raises(DataError, match=r"expected a likelihood with a maximum, got none .*; set penalizer=0\.01"):
        lifetime._minimise("bg_nbd", nowhere, [-1.0, -1.0], 0.0)
