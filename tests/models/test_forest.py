"""Flat trees say what LightGBM says, to the last bit."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.estimators.forest import TOGETHER, Forest

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


@pytest.fixture(params=CASES.values(), ids=list(CASES))
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


# Beside the borders of what is 0 to LightGBM, what is a code, and what a number can be.
NEAREST = float(np.float32(1e-35))
ODD = [
    np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-35, -1e-35, NEAREST, -NEAREST, 1.1e-35, -1.1e-35, 1e-300, 1e300, -1e300,
    1.7e308, -1.7e308, -1.0, -0.5, 0.5, 63.0, 64.0, 149.9, 2147483647.0, 2147483648.0, 1e18,
]  # fmt: skip


def strange(booster: lgb.Booster, count: int, seed: int) -> np.ndarray:
    """Rows as above, with odd values, and with the trees' own thresholds and their neighbours."""
    A, draw = rows(count, seed), np.random.default_rng(seed)
    table = booster.trees_to_dataframe()
    own = pd.to_numeric(table["threshold"], errors="coerce").dropna().to_numpy(dtype=float)
    borders = np.concatenate([ODD, own, np.nextafter(own, -np.inf), np.nextafter(own, np.inf)])
    other = draw.random(A.shape) < 0.4
    A[other] = draw.choice(borders, other.sum())
    return A


def both_ways(booster: lgb.Booster) -> list[Forest]:
    """Forests in which every row walks by itself, and in which rows always choose together."""
    walking, together = Forest(booster), Forest(booster)
    walking.few, together.few = 10**9, 0
    return [walking, together]


@given(
    seed=st.integers(0, 2**16), trees=st.integers(1, 12), leaves=st.sampled_from([2, 3, 7, 8, 31, 64, 65, 300]),
    count=st.sampled_from([0, 1, 2, 3, 31, 32, 33, 127, 128, 129, 300]), threads=st.integers(1, 3),
    categorical=st.sampled_from([[], [3], [3, 4]]), zero=st.booleans(), use=st.booleans(), leaf_rows=st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_booster_says_the_same_of_any_rows(
    seed: int, trees: int, leaves: int, count: int, threads: int, categorical: list[int], zero: bool, use: bool,
    leaf_rows: int,
):  # fmt: skip
    draw = np.random.default_rng(seed)
    learnt = rows(600, seed)
    # Few values of a sign and of 0: splits beside 0, and features without anything unknown.
    learnt[:, 6], learnt[:, 7] = draw.integers(-1, 2, 600), np.nan_to_num(learnt[:, 7])
    learnt[:, 2] = np.where(draw.random(600) < 0.1, draw.choice([np.inf, -np.inf], 600), learnt[:, 2])
    y = np.nan_to_num(learnt[:, [0, 3, 6, 7]]) @ [1.0, 0.02, 1.0, 1.0] + np.isnan(learnt[:, 1]) + draw.normal(size=600)
    parameters = {
        "objective": "regression", "num_leaves": leaves, "min_data_in_leaf": leaf_rows, "verbosity": -1, "seed": seed,
        "num_threads": 1, "zero_as_missing": zero, "use_missing": use, "min_data_per_group": 5, "cat_smooth": 1.0,
    }  # fmt: skip
    data: Any = lgb.Dataset(learnt, y, categorical_feature=categorical)  # pyright: ignore[reportArgumentType]
    booster = lgb.train(parameters, data, trees)
    A = strange(booster, count, seed)
    expected = booster.predict(A, raw_score=True, num_threads=1) if count else np.zeros(0)
    for forest in (Forest(booster), *both_ways(booster)):
        np.testing.assert_array_equal(forest.sum(A, threads), expected)


def test_odd_values_go_where_lightgbm_sends_them(booster: lgb.Booster):
    A = strange(booster, 3_000, 6)
    for forest in both_ways(booster):
        np.testing.assert_array_equal(forest.sum(A), booster.predict(A, raw_score=True))


def test_a_row_is_told_the_same_alone_and_among_many(booster: lgb.Booster):
    A, forest = strange(booster, 300, 7), Forest(booster)
    together = forest.sum(A)
    for many in (1, 2, 5, 130):
        alone = [forest.sum(A[start : start + many]) for start in range(0, len(A), many)]
        np.testing.assert_array_equal(np.concatenate(alone), together)


def test_a_tree_of_many_leaves_keeps_few_slots():
    draw = np.random.default_rng(8)
    A = draw.exponential(size=(3_000, 3)) ** 4
    parameters = {"num_leaves": 2_000, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0.0, "verbosity": -1}
    booster = lgb.train(
        {**parameters, "num_threads": 1}, lgb.Dataset(A, A @ [1.0, 2.0, 3.0] + draw.normal(size=3_000)), 3
    )
    for forest in both_ways(booster):
        assert len(forest.choices) > 3_000
        assert forest.room <= TOGETHER * (2 + np.log2(2_000))
        np.testing.assert_array_equal(forest.sum(A), booster.predict(A))
