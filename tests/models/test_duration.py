"""Do survival models find what made the data, and say what lifelines says? And are their curves curves?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index, restricted_mean_survival_time
from simulated_shop import HORIZON, SETTINGS, labels, shop

from foretell.errors import DataError
from models.estimators import candidates
from models.estimators.btyd import HISTORY
from models.estimators.duration import BlendDuration, DurationCandidate, Everyone, LightGBMDuration, LogCox
from models.explain import contributions, margin, split
from training.metrics import concordance

DAYS = np.array([0.0, 1, 15, 30, 60, 89, 90])
NAMES = list(candidates("duration", shop()[0].columns, HORIZON))


def waits(rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """(X, days, log factor): waits whose hazard is proportional, on a log scale, to two features of three."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.gamma(2.0, 3.0, (rows, 3)), columns=["often", "late", "noise"])
    factor = 0.9 * np.log1p(X["often"].to_numpy()) - 0.6 * np.log1p(X["late"].to_numpy())
    # the baseline is no exponential: it rises with the square root of time
    days = (rng.exponential(1.0, rows) / np.exp(factor) * 8.0) ** 2.0
    return X, np.minimum(days, HORIZON), factor


@pytest.fixture(scope="module")
def fitted() -> dict[str, DurationCandidate]:
    X, amount = shop()
    return {
        name: one.fit(X, labels("duration", amount), now=X)
        for name, one in candidates("duration", X.columns, HORIZON, num_threads=1).items()
    }


def test_cox_without_a_penalty_is_that_of_lifelines():
    X, days, _ = waits(1500)
    days = np.ceil(days)  # ties, as of business days
    days[days == HORIZON] = HORIZON - 1
    days[np.random.default_rng(1).random(len(days)) < 0.2] = HORIZON
    model = LogCox(HORIZON, penalty=1e-12).fit(X, days)
    scaled = pd.DataFrame(model._scaled(model._design(X.to_numpy())), columns=X.columns)
    told = scaled.assign(days=days, seen=days < HORIZON)
    theirs = CoxPHFitter(baseline_estimation_method="breslow").fit(told, "days", "seen")
    # lifelines breaks ties by Efron's rule, ours by Breslow's: they differ by the share of ties
    np.testing.assert_allclose(model.coef_, theirs.params_.to_numpy(), atol=0.02)
    other = theirs.predict_survival_function(scaled[:50], times=list(DAYS[1:])).to_numpy().T
    np.testing.assert_allclose(model.survival(X[:50], DAYS[1:]), other, atol=0.02)


def test_cox_without_ties_is_that_of_lifelines_to_four_digits():
    X, days, _ = waits(800, seed=3)
    model = LogCox(HORIZON, penalty=1e-12)
    model.fit(X, days)
    scaled = pd.DataFrame(model._scaled(model._design(X.to_numpy())), columns=X.columns)
    theirs = CoxPHFitter().fit(scaled.assign(days=days, seen=days < HORIZON), "days", "seen")
    np.testing.assert_allclose(model.coef_, theirs.params_.to_numpy(), atol=1e-4)


def test_the_curve_of_everyone_is_that_of_kaplan_and_meier_and_its_area_the_mean():
    _, days, _ = waits(2000)
    X = pd.DataFrame({"nothing": np.zeros(len(days))})
    model = Everyone(HORIZON).fit(X, days)
    theirs = KaplanMeierFitter().fit(days, days < HORIZON)
    np.testing.assert_allclose(
        model.survival(X[:1], DAYS)[0, :-1], theirs.survival_function_at_times(DAYS[:-1]).to_numpy(), atol=2e-3
    )
    area: float = restricted_mean_survival_time(theirs, t=HORIZON)  # pyright: ignore[reportAssignmentType]
    assert model.predict(X[:1])[0] == pytest.approx(area, rel=0.01)
    assert model.predict(X[:1])[0] == pytest.approx(days.mean(), rel=0.01)


@pytest.mark.parametrize("model", [LogCox, LightGBMDuration, BlendDuration])
def test_what_made_the_waits_is_found(model):
    X, days, factor = waits(6000)
    fresh, truth, _ = waits(3000, seed=1)
    found = model(HORIZON).fit(X, days)
    _, _, apart = waits(3000, seed=1)
    assert np.corrcoef(-margin(found, fresh), apart)[0, 1] > 0.97
    assert concordance(truth, found.predict(fresh)) > concordance(truth, -apart) - 0.01
    assert found.predict(fresh).mean() == pytest.approx(truth.mean(), rel=0.03)
    assert found.survival(fresh, np.array([30.0])).mean() == pytest.approx((truth >= 30).mean(), abs=0.03)
    assert len(factor) == len(X)


@pytest.mark.parametrize("ties", [False, True])
def test_concordance_is_that_of_lifelines(ties):
    rng = np.random.default_rng(0)
    days = np.minimum(rng.exponential(60, 1500), 90)
    said = days + rng.normal(0, 40, 1500)
    if ties:
        days, said = np.round(days), np.round(said, -1)
    theirs = concordance_index(days, said, days < 90)
    assert concordance(days, said) == pytest.approx(theirs, abs=0.002)
    weight = rng.integers(0, 4, 1500)
    again = np.repeat(np.arange(1500), weight)
    assert concordance(days, said, weight) == pytest.approx(concordance(days[again], said[again]), abs=0.002)


@pytest.mark.parametrize("name", NAMES)
def test_curves_fall_from_one_and_the_answer_is_their_area(name, fitted):
    X, _ = shop()
    curve = fitted[name].survival(X, np.linspace(0, HORIZON, 400))
    assert np.allclose(curve[:, 0], 1)
    assert (np.diff(curve, axis=1) <= 1e-12).all()
    assert ((curve >= 0) & (curve <= 1)).all()
    area = np.trapezoid(curve, np.linspace(0, HORIZON, 400), axis=1)
    np.testing.assert_allclose(fitted[name].predict(X), area, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_contributions_add_up_to_the_margin(name, fitted):
    X, _ = shop()
    rows, typical = X[:200], X.median()
    added, start = split(fitted[name], rows, typical)
    np.testing.assert_allclose(added.sum(axis=1) + start, margin(fitted[name], rows), rtol=1e-6, atol=1e-6)
    assert (contributions(fitted[name], rows, typical).columns == X.columns).all()


def test_a_greater_margin_is_a_longer_wait(fitted):
    X, _ = shop()
    for name in ("recency", "rfm_cox", "blend"):
        order = np.argsort(margin(fitted[name], X))
        assert (np.diff(fitted[name].predict(X)[order]) >= -1e-9).all()


def test_a_blend_is_the_mean_margin_of_its_parts_at_the_level_of_histories(fitted):
    X, _ = shop()
    blend = fitted["blend"]
    assert list(blend.parts_) == ["bg_nbd", "trees", "line"]
    mean = np.mean([margin(part, X) for part in blend.parts_.values()], axis=0)
    np.testing.assert_allclose(margin(blend, X), mean - np.log(blend.baseline_[-1]), rtol=1e-9)
    assert blend.predict(X).mean() == pytest.approx(blend.parts_["bg_nbd"].predict(X).mean(), rel=1e-6)


def test_a_blend_leaves_out_histories_of_something_else_and_learns_from_those_that_will_be_asked():
    X, amount = shop()
    y = labels("duration", amount)
    unrelated = np.where(np.random.default_rng(0).random(len(y)) < 0.05, 10.0, HORIZON)
    without = candidates("duration", X.columns, HORIZON, **SETTINGS)["blend"].fit(X, unrelated)
    assert "says less of these labels than their mean" in without.skipped_["bg_nbd"]
    rare = X.assign(**{c: X[c] * 9 for c in HISTORY[1:]})
    plain, told = (BlendDuration(HORIZON).fit(X, y, now=now) for now in (None, rare))
    assert told.predict(X).mean() > plain.predict(X).mean() + 5


@pytest.mark.parametrize(
    ("days", "says"),
    [(-1.0, "got -1 to"), (HORIZON + 1.0, f"to {HORIZON + 1}"), (HORIZON, f"got {HORIZON} to {HORIZON}")],
)
def test_days_beyond_the_horizon_and_nobody_who_came_are_refused(days, says):
    X, amount = shop()
    y = labels("duration", amount) if days != HORIZON else np.full(len(X), float(HORIZON))
    y = np.append(y[:-1], days)
    with pytest.raises(
        DataError, match=f"expected days from 0 to the horizon of {HORIZON}, some of them below it.*{says}"
    ):
        Everyone(HORIZON).fit(X, y)
