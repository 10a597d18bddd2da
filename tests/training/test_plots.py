"""The figures hold what they promise, are readable files, and leave pyplot alone."""

from __future__ import annotations

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from foretell.errors import DataError, UnknownName
from training import metrics as m
from training import plots


@pytest.fixture(autouse=True)
def _pyplot_untouched():
    settings = dict(mpl.rcParams)
    state = np.random.get_state()[1].copy()
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == settings
    assert (np.random.get_state()[1] == state).all()


def png(figure):
    assert isinstance(figure, Figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    assert file.getvalue().startswith(b"\x89PNG")
    return file.getvalue()


def title(figure):
    return " ".join(figure.get_suptitle().split())


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.fixture
def churn():
    r = np.random.default_rng(0)
    p = r.beta(1, 6, 1000)
    y = (r.random(1000) < p).astype(int)
    return y, {"tree": p, "rule": np.clip(p + r.normal(0, 0.2, 1000), 0, 1), "base": np.full(1000, y.mean())}


@pytest.fixture
def spend():
    r = np.random.default_rng(0)
    y = np.where(r.random(1000) < 0.5, 0, r.gamma(1, 50, 1000))
    return y, {"tree": 0.5 * y + r.gamma(1, 20, 1000), "base": np.full(1000, y.mean())}


def line(ax, label):
    return next(drawn for drawn in ax.get_lines() if drawn.get_label() == label)


def test_calibration_plot(churn):
    y, predictions = churn
    figure = plots.calibration_plot(y, predictions["tree"], "churn")
    png(figure)
    top, beneath = figure.axes
    table = m.bins(y, predictions["tree"], "probability")
    points = line(top, "a tenth of the profiles, with 95% interval")
    assert np.allclose(points.get_xdata(), table["predicted"])
    assert np.allclose(points.get_ydata(), table["actual"])
    assert np.allclose([path[1][1] for path in top.collections[0].get_segments()], table["high"])
    assert sum(bar.get_height() for bar in beneath.patches) == pytest.approx(1)
    assert title(figure) == f"churn: probabilities miss by {100 * m.ece(y, predictions['tree']):.1f} points on average"
    assert top.get_ylabel() == "Observed share of positives (%)"
    assert beneath.get_xlabel().startswith("Predicted probability (%")


def test_calibration_plot_of_weights_constants_and_odd_names(churn):
    y, predictions = churn
    weight = np.random.default_rng(1).integers(0, 3, len(y))
    figure = plots.calibration_plot(y, predictions["rule"], "cost in $ or $$", weight)
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == pytest.approx(1)
    png(figure)
    png(plots.calibration_plot(y, predictions["base"], "base"))
    png(plots.calibration_plot([0, 1], [0.0, 1.0], "two"))
    png(plots.calibration_plot([0] * 999 + [1], np.full(1000, 0.001), "rare"))


def test_decile_plot(spend):
    y, predictions = spend
    figure = plots.decile_plot(y, predictions["tree"], "clv", unit="USD")
    png(figure)
    (ax,) = figure.axes
    table = m.bins(y, predictions["tree"], "amount")
    assert np.allclose(line(ax, "predicted").get_ydata(), table["predicted"])
    assert np.allclose(line(ax, "actual, with 95% interval").get_ydata(), table["actual"])
    bias = m.bias_pct(y, predictions["tree"])
    assert title(figure) == f"clv: the predicted total is {abs(bias):.1f}% too {'high' if bias > 0 else 'low'}"
    assert ax.get_ylabel() == "Mean amount per profile (USD)"
    png(plots.decile_plot(y, predictions["base"], "base"))
    assert title(plots.decile_plot(y, y, "clv")).endswith("right to 0.1%")
    assert "predicted and actual" in title(plots.decile_plot(-y, y, "refunds"))


@pytest.mark.parametrize("kind", ["probability", "amount"])
def test_gain_plot(kind, churn, spend):
    y, predictions = churn if kind == "probability" else spend
    figure = plots.gain_plot(y, predictions, kind)
    png(figure)
    (ax,) = figure.axes
    shown = labels(ax)
    assert shown[0] == "perfect order"
    assert shown[1].startswith("tree (")
    assert shown[-2:] == [f"base ({'AUC 0.500' if kind == 'probability' else 'Gini 0.000'})", "random order"]
    curve = m.gain_curve(y, predictions["tree"], kind)
    assert np.allclose(line(ax, shown[1]).get_ydata(), curve["found"])
    assert title(figure).startswith("The best 10% by tree hold ")


def test_gain_plot_tells_many_candidates_apart(churn):
    y, predictions = churn
    many = {f"m{i}": predictions["tree"] for i in range(12)}
    (ax,) = plots.gain_plot(y, many, "probability").axes
    looks = {(drawn.get_color(), drawn.get_linestyle()) for drawn in ax.get_lines() if drawn.get_label()[0] == "m"}
    assert len(looks) == 12


@pytest.mark.parametrize("metric", ["auc", "brier", "lift10", "mae", "bias_pct"])
def test_comparison_plot(metric, churn, spend):
    kind = "probability" if metric in m.METRICS["probability"] else "amount"
    table = m.evaluate(*(churn if kind == "probability" else spend), kind, draws=20)
    figure = plots.comparison_plot(table, metric)
    png(figure)
    (ax,) = figure.axes
    rows = table[table["metric"] == metric].set_index("model")
    losses = rows["value"].map(m.METRICS[kind][metric].loss)
    ordered = list(losses.sort_values(kind="stable").index)
    assert [text.get_text() for text in ax.get_yticklabels()] == ordered
    assert ordered[0] in title(figure)
    assert ax.yaxis_inverted()
    ends = [bar.get_segments()[0][:, 0].tolist() for bar in ax.collections]
    assert np.allclose(ends, rows.loc[ordered, ["low", "high"]])


def test_comparison_plot_without_intervals(churn):
    png(plots.comparison_plot(m.evaluate(*churn, "probability", draws=0), "auc"))
    table = m.evaluate(*churn, "probability", draws=0)
    with pytest.raises(UnknownName, match='did you mean "auc"'):
        plots.comparison_plot(table, "aucc")
    with pytest.raises(UnknownName, match="no such metric in the evaluation"):
        plots.comparison_plot(table, "mae")


@pytest.fixture
def explained():
    r = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "age": r.normal(size=500),
            "city": pd.Categorical(r.choice(list("abc"), 500)),
            "size": pd.Categorical(r.choice(["s", "m"], 500), categories=["s", "m"], ordered=True),
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(r.integers(0, 99, 500), unit="D"),
            "member": r.random(500) < 0.5,
            "constant": 1.0,
            "orders": pd.array(r.integers(0, 5, 500), dtype="Int64"),
            "text": r.choice(["x", "y"], 500),
            "unused": 0.0,
        }
    )
    X.loc[::5, ["age", "city", "size", "since", "orders", "text"]] = None
    weights = np.array([0.5, 9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0])
    return pd.DataFrame(r.normal(size=(500, 9)) * weights, columns=X.columns), X


def test_importance_plot(explained):
    contributions, X = explained
    figure = plots.importance_plot(contributions, X, unit="log-odds")
    assert png(figure) == png(plots.importance_plot(contributions, X, unit="log-odds"))
    ax = figure.axes[0]
    expected = contributions.abs().mean().sort_values(ascending=False, kind="stable").index
    assert [text.get_text() for text in ax.get_yticklabels()] == list(expected)
    assert title(figure) == "city moves the predictions most"
    assert "(log-odds)" in ax.get_xlabel()
    across = np.sort(np.concatenate([dots.get_offsets()[:, 0] for dots in ax.collections[:2]]))
    assert np.allclose(across, np.sort(contributions["city"]))
    heights = np.concatenate([dots.get_offsets()[:, 1] for dots in ax.collections[:2]])
    assert np.abs(heights).max() < 0.5


def test_importance_plot_shows_the_top_and_thins_out_many_rows(explained):
    contributions, X = explained
    figure = plots.importance_plot(contributions, X, top=2)
    assert len(figure.axes[0].get_yticks()) == 2
    assert "the top 2 of 9 features" in figure.axes[0].get_title(loc="left").replace("\n", " ")
    many = pd.concat([contributions] * 20, ignore_index=True)
    figure = plots.importance_plot(many, pd.concat([X] * 20, ignore_index=True), top=1)
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == plots.DOTS
    png(plots.importance_plot(contributions * 0, X))
    png(plots.importance_plot(contributions.head(1), X.head(1)))


def test_shade_orders_what_has_an_order(explained):
    _, X = explained
    assert np.isnan(plots._shade(X["city"])).all()
    assert np.isnan(plots._shade(X["text"])).all()
    for name in ("age", "size", "since", "member", "orders"):
        shade = plots._shade(X[name])
        assert (np.isnan(shade) == X[name].isna()).all()
        assert (np.nanmin(shade), np.nanmax(shade)) == (0, 1)
    assert (plots._shade(X["constant"]) == 0.5).all()
    assert np.isnan(plots._shade(pd.Series([None, None], dtype="Float64"))).all()


def test_groups_plot():
    typical = pd.DataFrame({"spend_$_90d": ["$9", "no order", "$5"], "orders_90d": ["12", "1", "3"]})
    standing = pd.DataFrame({"spend_$_90d": [0.9, np.nan], "orders_90d": [0.8, 0.2]})
    figure = plots.groups_plot(["frequent $ spenders", "one-time"], np.array([0.25, 0.75]), typical, standing)
    assert png(figure)
    assert title(figure) == "2 kinds of customers"
    table, sizes = figure.axes
    assert [text.get_text() for text in table.texts] == [r"\$9", "12", "no order", "1", r"\$5", "3"]
    assert [text.get_fontweight() for text in table.texts] == ["bold", "bold", "normal", "bold", "normal", "normal"]
    assert [tick.get_text() for tick in table.get_yticklabels()] == [r"frequent \$ spenders", "one-time", "everybody"]
    assert [text.get_text() for text in sizes.texts] == ["25%", "75%"]
    shown = table.images[0].get_array()
    assert np.ma.getmaskarray(shown).tolist() == [[False, False], [True, False]]  # grey, as nothing is typical


def test_unusable_input_is_refused(explained, churn):
    contributions, X = explained
    y, predictions = churn
    for args, problem in [
        ((contributions.head(0), X.head(0)), "got none"),
        ((contributions, X.drop(columns="age")), "got none for age"),
        ((contributions, X.head(3)), "expected 500 rows in X"),
        ((contributions.mask(contributions > 1), X), "expected finite contributions"),
        ((contributions, X, 0), "top=0"),
    ]:
        with pytest.raises(DataError, match=problem):
            plots.importance_plot(*args)
    with pytest.raises(DataError, match="both classes"):
        plots.calibration_plot(np.zeros(1000), predictions["tree"], "churn")
    with pytest.raises(DataError, match="at least one model"):
        plots.gain_plot(y, {}, "probability")
    with pytest.raises(UnknownName, match="no such kind"):
        plots.gain_plot(y, predictions, "amounts")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="amounts that differ"):
        plots.decile_plot(np.ones(10), np.ones(10), "clv")
