"""A regression on logs says the same of a row, to the last bit, whatever rows are asked about beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.estimators.linear import TOGETHER, LogLogistic, LogTweedie


@pytest.fixture(scope="module", params=[LogLogistic, LogTweedie])
def asked(request: pytest.FixtureRequest) -> tuple[LogLogistic | LogTweedie, np.ndarray]:
    """A model of numbers with gaps and of codes of text, and rows."""
    draw = np.random.default_rng(0)
    A = draw.lognormal(2.0, 2.0, (2 * TOGETHER + 1, 40)) * draw.choice([-1.0, 1.0], 40)
    A[draw.random(A.shape) < 0.1], A[draw.random(A.shape) < 0.1] = np.nan, 0.0
    A[:, 3] = draw.integers(0, 4, len(A))
    X = pd.DataFrame(A, columns=pd.Index([f"c{place}" for place in range(40)]))
    y = (np.nan_to_num(np.log1p(np.abs(A[:, 0]))) + (A[:, 3] == 2) + draw.normal(size=len(A)) > 2.5).astype(float)
    return request.param(90, categorical=("c3",)).fit(X, y), A


@pytest.mark.parametrize("rows", [0, 1, 2, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER + 1])
def test_rows_in_blocks_are_what_they_are_all_at_once(asked: tuple[LogLogistic | LogTweedie, np.ndarray], rows: int):
    model, A = asked[0], asked[1][:rows]
    at_once = model._terms(A).sum(axis=1) + model.intercept_
    assert model._margin(A).tobytes() == at_once.tobytes()


def test_a_row_alone_is_what_it_is_among_many(asked: tuple[LogLogistic | LogTweedie, np.ndarray]):
    model, A = asked
    alone = np.concatenate([model._margin(A[place : place + 1]) for place in range(len(A))])
    assert model._margin(A).tobytes() == alone.tobytes()
