"""Flat trees say what LightGBM says, to the last bit."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from models.estimators.forest import Forest

CASES: dict[str, dict[str, Any]] = {
    "unknown goes its way": {},
    "zero is unknown": {"zero_as_missing": True},
    "unknown is zero": {"use_missing": False},
    "many leaves": {"num_leaves": 63, "min_data_in_leaf": 5},
    "an amount": {"objective": "tweedie"},
    "no split": {"min_data_in_leaf": 100_000},
}


def rows(count: int, seed: int) -> np.ndarray:
    """Numbers, zeros, codes of text in the fourth and fifth column, and gaps in all."""
    draw = np.random.default_rng(seed)
    A = draw.normal(size=(count, 8))
    A[:, 3], A[:, 4] = draw.integers(0, 150, count), draw.integers(0, 3, count)
    A[:, 5] = np.where(draw.random(count) < 0.5, 0.0, A[:, 5])
    A[draw.random(A.shape) < 0.2] = np.nan
    return A


@pytest.fixture(params=CASES.values(), ids=CASES)
def booster(request: pytest.FixtureRequest) -> lgb.Booster:
    A = rows(4_000, 1)
    y = np.nan_to_num(A[:, 0]) + np.isin(A[:, 3], [1, 2, 70, 149]) + (A[:, 4] == 2) + np.isnan(A[:, 1])
    y = (y + np.random.default_rng(2).normal(size=len(y)) > 0.5).astype(float)
    given = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1, **request.param}
    return lgb.train(given, lgb.Dataset(A, y, categorical_feature=[3, 4]), 40)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 700, 5_000])
def test_the_sum_of_leaves_is_lightgbms(booster: lgb.Booster, count: int, threads: int):
    A = rows(count, 3)
    expected = booster.predict(A, raw_score=True) if count else np.zeros(0)
    np.testing.assert_array_equal(Forest(booster).sum(A, threads), expected)


def test_codes_that_training_did_not_see_go_where_lightgbm_sends_them(booster: lgb.Booster):
    A = np.repeat(rows(20, 4), 7, axis=0)
    A[:, 3] = np.tile([-1.0, -0.5, 0.5, 150.0, 191.0, 1e9, np.nan], 20)
    np.testing.assert_array_equal(Forest(booster).sum(A), booster.predict(A, raw_score=True))


def test_rows_in_another_order_of_memory_are_read(booster: lgb.Booster):
    A = rows(300, 5)
    np.testing.assert_array_equal(Forest(booster).sum(np.asfortranarray(A)), Forest(booster).sum(A))
