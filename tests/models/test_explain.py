"""Contributions against the shap library as an oracle, and reasons in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import shap
from simulated_shop import HORIZON, estimators, labels, shop

from foretell.errors import DataError
from models.estimators import KINDS, trees
from models.estimators.btyd import HISTORY
from models.explain import CENT, base, contributions, largest, largest_in_columns, margin, split, top_reasons
from models.wording import Wording

COLUMNS = list(shop()[0].columns)
ALL = list(estimators())
BACKGROUND = shop()[0].median()


@pytest.fixture(scope="module")
def fitted():
    X, amount = shop()
    return {(kind, name): estimator.fit(X, labels(kind, amount)) for (kind, name), estimator in estimators().items()}


def some(rows: int = 25) -> pd.DataFrame:
    """A few profiles in another order and under another index, some with holes, one that never ordered."""
    X = shop()[0].iloc[::-1].iloc[::64][:rows].set_axis([f"p{i}" for i in range(rows)])
    X.iloc[3, 2] = np.nan
    return X


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_contributions_add_up_to_the_margin(kind, name, fitted):
    model, X = fitted[kind, name], some()
    got = contributions(model, X, BACKGROUND)
    assert got.index.equals(X.index)
    assert list(got.columns) == COLUMNS
    total = got.sum(axis=1) + base(model, BACKGROUND)
    least = np.log(CENT) if kind == "amount" else -np.inf  # amounts below a cent are all the same to people
    np.testing.assert_allclose(np.maximum(total, least), margin(model, X), atol=1e-8)
    if model.requires:
        read = {*model.requires, *(model.told_as.values())}
        assert (got.drop(columns=list(read)) == 0).all(axis=None)
    pd.testing.assert_frame_equal(contributions(model, X[::-1], BACKGROUND)[::-1], got)
    assert contributions(model, X[:0], BACKGROUND).shape == (0, len(COLUMNS))


@pytest.mark.parametrize(
    ("kind", "name"), [k for k, v in estimators().items() if v.requires and not hasattr(v, "effects")]
)
def test_shapley_values_are_those_of_the_shap_library(kind, name, fitted):
    model, X = fitted[kind, name], some(5)
    used = list(model.requires)

    def oracle(values: np.ndarray) -> np.ndarray:
        return margin(model, pd.DataFrame(values, columns=used))

    explainer = shap.explainers.Exact(oracle, BACKGROUND[used].to_frame().T.to_numpy())
    known = X.dropna()  # shap takes NaN for equal to nothing, itself included
    expected = explainer(known[used].to_numpy())
    np.testing.assert_allclose(split(model, known, BACKGROUND)[0][used], expected.values, atol=1e-8)
    np.testing.assert_allclose(base(model, BACKGROUND), expected.base_values, atol=1e-8)


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier")
@pytest.mark.parametrize("kind", KINDS)
def test_lightgbm_contributions_are_those_of_treeshap(kind):
    model, X = trees(kind, HORIZON).fit(shop()[0], labels(kind, shop()[1])), some()
    expected = np.asarray(shap.TreeExplainer(model.booster_).shap_values(X.to_numpy()))
    if kind == "duration":  # its trees foretell how soon, its margin how late
        expected = -expected
    np.testing.assert_allclose(contributions(model, X, BACKGROUND), expected, atol=1e-6)


def test_a_history_is_told_as_how_often_and_how_long_ago(fitted):
    """Not as the two times whose difference it is: one row by hand, in both orders of the two changes."""
    model, X = fitted["probability", "bg_nbd"], shop()[0].iloc[[3]]
    x, span, since = HISTORY
    row, usual = X.iloc[0], model.typical_

    def said(often: pd.Series, late: pd.Series) -> float:
        ago = late[since] - late[span]
        rows = pd.DataFrame({x: [often[x]], span: [max(often[since] - ago, 0.0)], since: [often[since]]})
        return float(margin(model, rows)[0])

    both, none = said(row, row), said(usual, usual)
    often = (said(row, usual) - none + both - said(usual, row)) / 2
    got = contributions(model, X, BACKGROUND).iloc[0]
    assert got[x] == pytest.approx(often)
    assert got["days_since_order"] == pytest.approx(both - none - often)
    assert got[[span, since]].tolist() == [0, 0]
    without = contributions(model, X.drop(columns="days_since_order"), BACKGROUND).iloc[0]
    assert without[span] == pytest.approx(got["days_since_order"])  # nobody knows that column


def test_a_background_must_name_what_the_model_reads(fitted):
    with pytest.raises(DataError, match="expected a background value for days_since_order, got none"):
        contributions(fitted["probability", "recency"], some(), BACKGROUND.drop("days_since_order"))


def test_a_model_of_many_columns_must_split_its_own_margin():
    class Wide:
        columns_ = tuple(f"c{i}" for i in range(13))

    with pytest.raises(DataError, match="at most 12 columns, got 13"):
        contributions(Wide(), some(), BACKGROUND)


def test_reasons_are_the_largest_effects():
    """Of a model that kept no words, a column is called by its name."""
    contrib = pd.DataFrame({"b": [0.5, 0.0], "a": [-0.5, 0.0], "c": [0.9, 1e-12], "d": [0.1, -2.0]})
    X = pd.DataFrame({"a": [74.0, 1.0], "b": [np.nan, 1.0], "c": [0.1234567, 1.0], "d": [1.0, -1234.567]})
    first, second = top_reasons(contrib, X, pd.Series({"a": 9.0, "b": 2.5, "d": np.nan}))
    assert first == [
        {"feature": "c", "value": 0.1234567, "effect": 0.9, "text": "c: 0.123, which raises the score"},
        {"feature": "a", "value": 74.0, "effect": -0.5, "text": "a: 74 (typical: 9), which lowers the score"},
        {"feature": "b", "value": None, "effect": 0.5, "text": "b: unknown (typical: 2.5), which raises the score"},
    ]
    assert [reason["text"] for reason in second] == ["d: -1,234.57, which lowers the score"]
    assert [len(row) for row in top_reasons(contrib, X, BACKGROUND, n=1)] == [1, 1]


@pytest.mark.parametrize("n", [1, 3, 6])
def test_reasons_made_column_by_column_are_those_made_row_by_row(n: int):
    rng = np.random.default_rng(n)
    names = ["gap", "spend", "city", "orders", "share"]
    effects = rng.normal(size=(400, 5)).round(1)  # many are as large as another, some are none
    effects[rng.random(effects.shape) < 0.3] = 0.0
    values = (10 ** rng.normal(1, 2, effects.shape)).round(rng.integers(0, 3))
    values[:, 2] = rng.integers(0, 4, len(values))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(values.shape) < 0.05] = np.inf
    words = {
        "spend": {"says": "", "what": "spent", "unit": "money", "null": "", "window": "30 days"},
        "gap": {"says": "no order for {value}[, usually every {share}][, {other} more]", "what": "", "unit": "days",
                "null": "no order yet", "window": "ever"},
    }  # fmt: skip
    wording = [Wording(words, {"city": ["Oslo", "Bergen"]}, dict.fromkeys(names, 1.0)) for _ in range(2)]
    expected = largest(effects, values, names, wording[0], n)
    got = largest_in_columns(effects, values, names, wording[1], n)
    parts = [got.value.tolist(), got.effect.tolist(), got.text.tolist()]
    flat = [
        {"feature": names[place], "value": value if np.isfinite(value) else None, "effect": effect, "text": text}
        for place, value, effect, text in zip(got.feature.tolist(), *parts, strict=True)
    ]
    assert got.counts.tolist() == [len(row) for row in expected]
    assert flat == [reason for row in expected for reason in row]
    assert {0} < {len(row) for row in expected} if n == 6 else max(map(len, expected)) == n


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_equal_profiles_get_equal_reasons(kind, name, fitted):
    model, X = fitted[kind, name], some()
    twice = pd.concat([X, X.sample(frac=1, axis=1, random_state=0)])
    reasons = top_reasons(contributions(model, twice, BACKGROUND), twice, BACKGROUND)
    assert reasons[: len(X)] == reasons[len(X) :]
