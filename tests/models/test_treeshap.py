"""What trees say by feature is what LightGBM's own TreeSHAP says, whatever is missing and however codes split."""

from __future__ import annotations

import pickle
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from simulated_shop import HORIZON, labels, shop

from models.estimators import trees, treeshap

ROWS, COLUMNS, TEXTS = 1_500, 12, [3, 4]


def table(seed: int, rows: int) -> np.ndarray:
    """Numbers, codes of text (some of them new or none), exact zeros, and much that is unknown."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, COLUMNS))
    for place in TEXTS:
        X[:, place] = rng.integers(-2 if seed else 0, 45, rows)
    X[rng.random(X.shape) < 0.15] = np.nan
    X[rng.random(X.shape) < 0.15] = 0.0
    X[:, 8] = np.nan_to_num(rng.normal(size=rows))  # of this nothing was unknown in training
    return X


def booster(leaves: int, count: int = 60, **more: Any) -> lgb.Booster:
    X = table(0, ROWS)
    X[:, 8] = np.nan_to_num(X[:, 8])
    known = np.nan_to_num(X)
    y = known[:, 0] * known[:, 1] + 2 * (known[:, 3] % 7 == 2) + known[:, 7] + known[:, 8] > 0
    parameters = {"objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 20, "verbosity": -1,
                  "num_threads": 1, **more}  # fmt: skip
    return lgb.train(parameters, lgb.Dataset(X, y.astype(float), categorical_feature=TEXTS), count)


@pytest.mark.parametrize("leaves", [2, 7, 15])
@pytest.mark.parametrize("more", [{}, {"zero_as_missing": True}, {"use_missing": False}], ids=str)
def test_as_lightgbm_splits_it(leaves: int, more: dict[str, Any]) -> None:
    made, X = booster(leaves, **more), table(1, 300)
    X[:, 9] = np.nan
    found = treeshap.tables(made)
    assert found is not None
    expected = np.asarray(made.predict(X, pred_contrib=True, num_threads=1))
    got = treeshap.split(found, X)
    np.testing.assert_allclose(got, expected[:, :-1], rtol=0, atol=1e-12)
    assert found.base == pytest.approx(expected[0, -1], abs=1e-12)
    np.testing.assert_allclose(
        got.sum(axis=1) + found.base, np.asarray(made.predict(X, raw_score=True)), rtol=0, atol=1e-12
    )
    alone = np.concatenate([treeshap.split(found, X[place : place + 1]) for place in range(20)])
    np.testing.assert_array_equal(alone, got[:20])
    for many in (2, 31, 33, 129):  # rows are asked in blocks: one is the same in any
        np.testing.assert_array_equal(treeshap.split(found, X[:many]), got[:many])


def test_trees_that_never_split() -> None:
    made = lgb.train({"objective": "regression", "verbosity": -1, "min_data_in_leaf": 10_000, "num_threads": 1},
                     lgb.Dataset(table(0, 200), np.arange(200.0)), 3)  # fmt: skip
    found = treeshap.tables(made)
    assert found is not None
    assert not treeshap.split(found, table(1, 5)).any()
    assert found.base == pytest.approx(np.asarray(made.predict(table(1, 1)))[0])


def test_trees_that_are_too_deep_are_left_to_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    X, amount = shop()
    model = trees("probability", HORIZON).fit(X, labels("probability", amount))
    expected, base = model.effects(model.read(X))
    assert "_made" in model.__dict__
    again = pickle.loads(pickle.dumps(model))
    assert "_made" not in again.__dict__  # what a registered model is does not hang on whether it was asked
    monkeypatch.setattr(treeshap, "MOST_FEATURES", 1)
    found, also = again.effects(again.read(X))
    assert again._tables() is None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert also == pytest.approx(base, abs=1e-12)
