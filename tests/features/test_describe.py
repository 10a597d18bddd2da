"""A view in numbers and a picture: held to pandas; drift is nothing where nothing moved, and much where it did."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import START, make_shop

from features.describe import describe, picture, psi, rows_of
from foretell.__main__ import cli
from foretell.project import Project

NOW = START + timedelta(days=380)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_shop(tmp_path_factory.mktemp("describe") / "shop")


def test_nothing_moved_and_everything_did() -> None:
    draw = np.random.default_rng(0)
    before = pd.Series(draw.normal(size=20_000))
    assert psi(before, before) == 0
    assert psi(before, pd.Series(draw.normal(size=20_000))) < 0.01
    assert psi(before, before + 1) > 0.25
    assert psi(before, before.where(draw.random(20_000) > 0.4)) > 0.25  # two fifths are missing now


def test_the_index_is_the_formula() -> None:
    before, now = pd.Series(["a"] * 60 + ["b"] * 40), pd.Series(["a"] * 30 + ["b"] * 70)
    assert psi(before, now) == pytest.approx((0.3 - 0.6) * np.log(0.3 / 0.6) + (0.7 - 0.4) * np.log(0.7 / 0.4))
    assert psi(pd.Series(dtype=float), now) == 0
    assert psi(pd.Series([1.0, None]), pd.Series([None, None], dtype=float)) > 0.25


@pytest.mark.slow
def test_every_view_is_what_pandas_says(project: Project) -> None:
    for view in project.definitions.views.values():
        now, before = (rows_of(project, view, NOW - timedelta(days=back)) for back in (0, 90))
        found = describe(view, now, before)
        assert [d.feature for d in found] == list(view.features)
        for d in found:
            values = now[d.feature]
            assert d.missing == pytest.approx(values.isna().mean())
            assert d.psi is not None
            assert d.drift in {"stable", "shifted", "drifted"}
            if d.kind == "number" and d.middle is not None:
                assert d.low is not None
                assert d.high is not None
                assert d.low <= d.middle <= d.high
                assert d.middle == pytest.approx(values.dropna().astype(float).median())
                assert d.zero == pytest.approx((values == 0).mean())
        drawn = picture(view, now, before, "says", "detail")
        assert sum(ax.get_visible() for ax in drawn.axes) == len(view.features)


def test_the_commands(project: Project, tmp_path: Path) -> None:
    shell, at = CliRunner(), f"{NOW:%Y-%m-%d}"
    drawn = tmp_path / "orders.png"
    done = shell.invoke(cli, ["--project", str(project.folder), "features", "describe", "orders", "--at", at,
                              "--picture", str(drawn)])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "days_since_order" in done.output
    assert drawn.stat().st_size > 10_000
    done = shell.invoke(cli, ["--project", str(project.folder), "features", "describe", "order"])
    assert done.exit_code == 1
    assert 'did you mean "orders"' in str(done.exception)
