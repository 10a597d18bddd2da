"""Laws that every estimator keeps, whatever it believes about customers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from simulated_shop import HORIZON, SETTINGS, estimators, labels, shop
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import roc_auc_score

from foretell.errors import DataError, UnknownName
from models.estimators import KINDS, LEARNED, blend, candidates, trees
from models.estimators.btyd import HISTORY
from models.explain import margin

COLUMNS = list(shop()[0].columns)
ALL = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, name in estimators()]
OF_MARGINS = ("probability", "amount")  # a duration has a baseline instead of a level
every = pytest.mark.parametrize(("kind", "name"), ALL)


def new(kind: str, name: str):
    return estimators()[kind, name]


def answer(estimator, X: pd.DataFrame) -> np.ndarray:
    return estimator.predict_proba(X)[:, 1] if is_classifier(estimator) else estimator.predict(X)


@pytest.fixture(scope="module")
def fitted():
    X, amount = shop()
    return {(kind, name): estimator.fit(X, labels(kind, amount)) for (kind, name), estimator in estimators().items()}


@every
def test_answers_are_probabilities_or_amounts(kind, name, fitted):
    X, _ = shop()
    estimator, got = fitted[kind, name], answer(fitted[kind, name], X)
    assert got.shape == (len(X),)
    assert np.isfinite(got).all()
    assert (got >= 0).all()
    assert list(estimator.feature_names_in_) == COLUMNS
    if kind == "probability":
        assert is_classifier(estimator)
        assert list(estimator.classes_) == [0, 1]
        assert (got <= 1).all()
        np.testing.assert_allclose(estimator.predict_proba(X).sum(axis=1), 1)
        assert set(estimator.predict(X)) <= {0, 1}
    else:
        assert is_regressor(estimator)
        assert kind == "amount" or (got <= HORIZON).all()


@every
def test_pickle_and_refit_give_identical_answers(kind, name, fitted):
    X, amount = shop()
    estimator = fitted[kind, name]
    expected = answer(estimator, X)
    np.testing.assert_array_equal(answer(pickle.loads(pickle.dumps(estimator)), X), expected)
    again = clone(estimator)
    assert again.get_params() == estimator.get_params()
    assert not hasattr(again, "feature_names_in_")
    np.testing.assert_array_equal(answer(again.fit(X, labels(kind, amount)), X), expected)


@every
def test_order_of_rows_and_columns_and_further_columns_do_not_matter(kind, name, fitted):
    X, _ = shop()
    shuffled = X.assign(more=1.0).sample(frac=1, random_state=1).sample(frac=1, axis=1, random_state=1)
    np.testing.assert_allclose(answer(fitted[kind, name], shuffled), answer(fitted[kind, name], X)[shuffled.index])


@every
def test_a_row_is_answered_with_the_same_bits_alone_in_a_few_and_among_many(kind, name, fitted):
    """Else a score could not be told from its stored row again: there is no knowing in which company it was scored."""
    X, _ = shop()
    estimator = fitted[kind, name]
    expected = answer(estimator, X)
    for size in (1, 2, 3, 7, 33):
        starts = range(0, min(len(X), 40 * size), size)
        got = np.concatenate([answer(estimator, X[start : start + size]) for start in starts])
        np.testing.assert_array_equal(got, expected[: len(got)])


@pytest.mark.parametrize("kind", OF_MARGINS)
def test_a_blend_says_the_same_bits_in_blocks_of_any_size(kind, fitted, monkeypatch):
    A = fitted[kind, "blend"].read(shop()[0])
    expected = fitted[kind, "blend"].answers(A)
    for size in (1, 97, len(A) - 1, len(A)):
        monkeypatch.setattr(blend, "TOGETHER", size)
        for rows in (A, np.asfortranarray(A)):
            np.testing.assert_array_equal(fitted[kind, "blend"].answers(rows), expected)


@every
def test_any_pattern_of_missing_values_is_answered(kind, name, fitted):
    X, _ = shop()
    holes = X.mask(np.random.default_rng(3).random(X.shape) < 0.4)
    holes.iloc[0] = np.nan
    holes.iloc[1] = np.inf
    for rows in (holes, holes[:1], holes[:0]):
        got = answer(fitted[kind, name], rows)
        assert got.shape == (len(rows),)
        assert np.isfinite(got).all()


@every
def test_a_row_says_the_same_alone_as_among_many_and_as_a_plain_array(kind, name, fitted):
    X, _ = shop()
    estimator, rows = fitted[kind, name], X.mask(np.random.default_rng(4).random(X.shape) < 0.2)[:40]
    among, A = answer(estimator, rows), estimator.read(rows)
    np.testing.assert_array_equal(estimator.answers(A), among)
    alone = [estimator.answers(A[place : place + 1])[0] for place in range(len(A))]
    np.testing.assert_array_equal(alone, among)
    np.testing.assert_array_equal(estimator.margins(A), margin(estimator, rows))


@every
def test_a_weight_of_two_is_a_row_twice_and_the_unit_of_weights_is_free(kind, name):
    X, amount = shop()
    y, twice = labels(kind, amount), np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    doubled = np.repeat(np.arange(len(X)), twice.astype(int))
    weighted = answer(new(kind, name).fit(X, y, sample_weight=twice), X)
    np.testing.assert_allclose(answer(new(kind, name).fit(X, y, sample_weight=7 * twice), X), weighted, rtol=1e-6)
    if name not in ("lightgbm", "blend"):  # the row sampling and leaf sizes of trees count rows
        repeated = answer(new(kind, name).fit(X.iloc[doubled], y[doubled]), X)
        np.testing.assert_allclose(repeated, weighted, rtol=0.01, atol=0.01 * weighted.mean())


@every
def test_labels_of_one_class_are_refused(kind, name):
    X, _ = shop()
    with pytest.raises(DataError, match=r"expected .*, got .*take more or other cutoffs"):
        new(kind, name).fit(X, labels(kind, np.zeros(len(X))))


@every
def test_a_missing_column_is_named_with_the_nearest_one(kind, name, fitted):
    X, amount = shop()
    column = fitted[kind, name].columns_[0]
    renamed = X.rename(columns={column: column + "s"})
    with pytest.raises(DataError, match=f'{column}.*did you mean "{column}s"'):
        answer(fitted[kind, name], renamed)
    if fitted[kind, name].requires:
        with pytest.raises(DataError, match="did you mean"):
            new(kind, name).fit(renamed, labels(kind, amount))


@pytest.mark.parametrize("name", [name for kind, name in (p.values for p in ALL) if kind == "probability"])
@pytest.mark.parametrize("churn", [False, True])
def test_probabilities_rank_either_way_round(name, churn):
    X, amount = shop()
    y = amount == 0 if churn else amount > 0
    if name == "base_rate":
        assert roc_auc_score(y, answer(new("probability", name).fit(X, y), X)) == 0.5
        return
    weakest = 0.6 if name == "past_spend" else 0.7  # here, what people spend says little of how long they stay
    assert roc_auc_score(y, answer(new("probability", name).fit(X, y), X)) > weakest


@pytest.mark.parametrize("name", [name for kind, name in (p.values for p in ALL) if kind == "amount"])
def test_amounts_are_near_the_truth_on_the_whole_and_follow_the_unit(name):
    X, amount = shop()
    got = answer(new("amount", name).fit(X, amount), X)
    assert got.sum() == pytest.approx(amount.sum(), rel=1.0 if name == "past_spend" else 0.15)
    money = [column for column in X if "spend" in column]
    if name not in ("rfm_tweedie", "log_tweedie", "blend"):  # whose log(1 + spend) knows cents from thousands
        cents = X.assign(**{column: X[column] * 128 for column in money})
        np.testing.assert_allclose(answer(new("amount", name).fit(cents, amount * 128), cents), got * 128, rtol=1e-4)


@every
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X": [[1.0]]}, "expected a pandas DataFrame"),
        ({"y": [1.0]}, "one finite value per row in the labels"),
        ({"sample_weight": -1}, "weights >= 0"),
        ({"sample_weight": 0}, "not all 0"),
        ({"sample_weight": np.nan}, "one finite value per row in the weights"),
    ],
)
def test_unusable_input_is_refused(kind, name, change, says):
    X, amount = shop()
    given = {"X": X, "y": labels(kind, amount)} | change
    if "sample_weight" in change:
        given["sample_weight"] = np.full(len(X), float(change["sample_weight"]))
    with pytest.raises(DataError, match=says):
        new(kind, name).fit(**given)


def test_labels_other_than_true_and_false_and_horizons_of_nothing_are_refused():
    X, amount = shop()
    with pytest.raises(DataError, match="expected the labels 0 and 1"):
        new("probability", "recency").fit(X, amount)
    with pytest.raises(DataError, match="horizon_days > 0, got 0"):
        candidates("probability", COLUMNS, 0)["recency"].fit(X, amount > 0)
    unknown = pd.Series(amount > 0, dtype="boolean").mask(np.arange(len(X)) == 5)
    with pytest.raises(DataError, match="leave out the rows"):
        new("probability", "recency").fit(X, unknown)


def test_candidates_are_those_the_columns_can_feed_simplest_first():
    probability = ["base_rate", "recency", "past_spend", "rfm_logistic", "bg_nbd", "blend"]
    assert list(candidates("probability", COLUMNS, 30)) == probability
    assert list(candidates("probability", COLUMNS, 30, **SETTINGS)) == ["base_rate", "target_rfm", *probability[1:]]
    assert list(candidates("probability", COLUMNS, 30, target="tea")) == probability
    amount = ["mean", "past_spend", "rfm_tweedie", "bg_nbd_gamma_gamma", "blend"]
    assert list(candidates("amount", COLUMNS, 30)) == amount
    assert list(candidates("probability", ["age", "days_since_order"], 30)) == ["base_rate", "recency", "blend"]
    assert list(candidates("amount", [], 30)) == ["mean", "blend"]
    duration = ["mean", "recency", "usual_gap", "rfm_cox", "bg_nbd", "blend"]
    assert list(candidates("duration", COLUMNS, 30)) == duration
    gaps = ["mean_gap_days_ever", "days_since_order"]
    assert list(candidates("duration", gaps, 30)) == ["mean", "recency", "usual_gap", "blend"]
    assert all(one.horizon_days == 30 for one in candidates("amount", COLUMNS, 30).values())
    with pytest.raises(UnknownName, match='did you mean "amount"'):
        candidates("amounts", COLUMNS, 30)


def test_past_spend_is_a_share_of_the_year():
    X = pd.DataFrame({"spend_365d": [365.0, 50.0, -9.0, np.nan]})
    estimator = candidates("amount", X.columns, 90)["past_spend"].fit(X, [1, 1, 1, 1])
    np.testing.assert_allclose(estimator.predict(X), [90, 50 * 90 / 365, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_learned_one_gives_the_same_bits_for_any_number_of_threads(kind):
    X, amount = shop()
    one, two = (
        answer(candidates(kind, COLUMNS, HORIZON, num_threads=n)[LEARNED].fit(X, labels(kind, amount)), X)
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", OF_MARGINS)
def test_trees_learn_what_their_start_leaves_unexplained(kind):
    X, amount = shop()
    y, start = labels(kind, amount), np.where(X["order_days_ever"] > 3, 2.0, -2.0) + (4.0 if kind == "amount" else 0.0)
    still = trees(kind, HORIZON).set_params(trees=1, learning_rate=1e-9).fit(X, y, start=start)
    np.testing.assert_allclose(still._margin(X.to_numpy()), 0, atol=1e-6)
    off = [inverse(kind, margin).mean() - y.mean() for margin in (start, start + after(kind, X, y, start))]
    assert abs(off[1]) < abs(off[0]) / 5
    assert not np.allclose(after(kind, X, y, start), after(kind, X, y, start * 0))


def after(kind: str, X: pd.DataFrame, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    return trees(kind, HORIZON).fit(X, y, start=start)._margin(X.to_numpy())


def inverse(kind: str, margin: np.ndarray) -> np.ndarray:
    return expit(margin) if kind == "probability" else np.exp(margin)


@pytest.mark.parametrize("kind", OF_MARGINS)
@pytest.mark.parametrize("histories", [True, False])
def test_a_blend_is_the_mean_margin_of_its_opinions(kind, histories):
    X, amount = shop()
    X = X if histories else X.drop(columns=HISTORY[0])
    blend = new(kind, "blend").fit(X, labels(kind, amount))
    said = {name: blend._said(part, part.read(X)) for name, part in blend.parts_.items()}
    opinions = [said[name] + said[name.removeprefix("trees_after_")] for name in said if "trees_after" in name]
    opinions += [said[name] for name in ("history", "trees") if name in said]
    opinions += [said["line"]] if blend.line_stands else []
    assert len(opinions) == {("probability", True): 5, ("probability", False): 3}.get((kind, histories), 2)
    np.testing.assert_allclose(answer(blend, X), inverse(kind, np.mean(opinions, axis=0)), rtol=1e-9)


def test_a_blend_does_not_hear_models_of_purchases_where_the_label_is_about_something_else():
    X, amount = shop()
    best = amount > np.quantile(amount, 0.95)  # few, whereas most people order
    blend = new("probability", "blend").fit(X, best)
    assert "says less of these labels than their mean" in blend.skipped_["bg_nbd"]
    assert blend.shares_["history"] == blend.shares_["trees_after_history"] == 1 / 4  # but trees correct it
    assert new("probability", "blend").fit(X, amount > 0).shares_["history"] == 2 / 5


@pytest.mark.parametrize("kind", OF_MARGINS)
def test_histories_are_stretched_as_far_as_the_labels_say(kind):
    X, amount = shop(customers=6000, seed=3)
    plain = new(kind, "blend").fit(X, labels(kind, amount))
    assert plain.stretch_ == pytest.approx(1, abs=0.12)  # of people who behave as the model says
    y = amount * (amount > np.median(amount[amount > 0])) if kind == "amount" else (amount > 0)
    apart = new(kind, "blend").fit(X, y)
    assert 0.5 <= apart.stretch_ <= 2
    assert kind == "probability" or apart.stretch_ > plain.stretch_


@pytest.mark.parametrize("kind", OF_MARGINS)
def test_the_level_is_between_that_of_the_latest_labels_and_that_of_histories(kind):
    X, amount = shop(customers=3000, never=0)
    late = np.arange(len(X)) % 3 == 0
    amount = np.where(late & (np.arange(len(X)) % 2 == 0), 0.0, amount)  # half of them come no more
    y, cutoff = labels(kind, amount), np.where(late, "2020-02-01", "2020-01-01")

    def level(horizon: float = 30, **told: Any) -> float:
        blend: Any = candidates(kind, COLUMNS, horizon, **SETTINGS)[LEARNED]
        assert blend.fit(X, y, **told).shares_["history"]
        return float(answer(blend, X).mean())

    base, latest = level(), y[late].mean()
    both, histories = level(cutoffs=cutoff, now=X), level(now=X)
    assert abs(level(cutoffs=cutoff) - latest) < abs(base - latest)
    assert min(latest, histories) < both < max(latest, histories)
    for quarter in (92, 182):  # another season
        assert level(quarter, now=X, cutoffs=cutoff) == pytest.approx(level(quarter, now=X), rel=0.02)
    few = np.where(np.arange(len(X)) < 10, "2020-02-01", "2020-01-01")
    assert level(cutoffs=few) == pytest.approx(base, rel=0.05)


@every
def test_dates_of_cutoffs_and_numbers_of_them_mean_the_same(kind, name):
    X, amount = shop()
    y, place = labels(kind, amount), np.arange(len(X)) % 3
    days = pd.Series(pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(30 * place, unit="D"))
    expected = answer(new(kind, name).fit(X, y, cutoffs=place), X)
    np.testing.assert_array_equal(answer(new(kind, name).fit(X, y, cutoffs=days), X), expected)
    if not new(kind, name).by_cutoff:
        np.testing.assert_array_equal(answer(new(kind, name).fit(X, y), X), expected)


@pytest.mark.parametrize("name", ["bg_nbd", "blend"])
def test_models_of_histories_learn_from_those_that_will_be_asked(name):
    X, amount = shop()
    rare = X.assign(**{c: X[c] * 9 for c in HISTORY[1:]})  # everybody orders a ninth as often
    plain, told = (new("probability", name).fit(X, amount > 0, now=now) for now in (None, rare))
    assert answer(told, X).mean() < answer(plain, X).mean() - 0.02
    np.testing.assert_array_equal(answer(new("probability", name).fit(X, amount > 0, now=X[:0]), X), answer(plain, X))


@pytest.mark.parametrize(
    "name", [name for kind, name in estimators() if kind == "probability" and new(kind, name).by_cutoff]
)
def test_the_level_of_a_cutoff_is_no_profiles_doing(name):
    """Of two cutoffs one has half of the outcomes; a column that tells them apart says nothing about profiles."""
    X, amount = shop()
    draw = np.random.default_rng(3)
    cutoffs = draw.integers(0, 2, len(X))
    y = (amount > 0) & ((cutoffs == 0) | (draw.random(len(X)) < 0.5))
    X = X.assign(month=cutoffs.astype(float))

    def moved(**told) -> tuple[float, float]:
        fitted = new("probability", name).fit(X, y, **told)
        by = np.abs(answer(fitted, X.assign(month=1.0)) - answer(fitted, X.assign(month=0.0))).mean()
        assert answer(fitted, X).mean() == pytest.approx(y.mean(), abs=0.05)
        added, start = fitted.effects(fitted.read(X))
        np.testing.assert_allclose(expit(added.sum(axis=1) + start), answer(fitted, X), atol=1e-6)
        return float(by), roc_auc_score(amount > 0, answer(fitted, X))

    (untold, _), (told, auc) = moved(), moved(cutoffs=cutoffs)
    assert told < untold / 3
    assert auc > 0.5


def test_cutoffs_are_one_per_row():
    X, amount = shop()
    with pytest.raises(DataError, match="one cutoff per row"):
        new("probability", "lightgbm").fit(X, amount > 0, cutoffs=[1, 2])


def test_where_no_history_says_what_to_expect_a_mean_stays_near_the_labels():
    """As in a shop's first months: everybody's year is a few weeks long, and then four times as long."""
    X, amount = shop()
    y = (amount > np.quantile(amount, 0.9)).astype(int)
    later = X * 4
    blend = new("probability", "blend")
    plain, told = clone(blend).fit(X, y), clone(blend).fit(X, y, now=later)
    assert "bg_nbd" in told.skipped_
    odds = [np.log(p.mean() / (1 - p.mean())) for p in (answer(plain, later), answer(told, later), y)]
    assert abs(odds[1] - odds[2]) <= 0.5 + 1e-6
    assert abs(odds[1] - odds[2]) <= abs(odds[0] - odds[2]) + 1e-9
    np.testing.assert_allclose(answer(clone(blend).fit(X, y, now=X), X), answer(plain, X), rtol=1e-9)
