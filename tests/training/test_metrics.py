"""The metrics against scikit-learn, SciPy and resampled rows; the intervals; what is refused."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from foretell.errors import DataError, UnknownName
from training import metrics as m
from training.metrics import METRICS, compare, evaluate, verdict

PROBABILITY, AMOUNT = list(METRICS["probability"]), list(METRICS["amount"])
EVERY = [(kind, name) for kind, names in METRICS.items() for name in names]


def data(kind, n=400, seed=0, *, ties=False):
    """Outcomes, somewhat right predictions and whole-number weights (some 0)."""
    r = np.random.default_rng(seed)
    if kind == "probability":
        pred = r.beta(1, 3, n)
        y = (r.random(n) < pred).astype(float)
        pred = np.clip(pred + r.normal(0, 0.1, n), 0, 1)
    elif kind == "duration":
        y = np.minimum(np.floor(r.exponential(60, n)), 90)
        pred = np.clip(np.round(y + r.normal(0, 30, n)), 0, 90)  # whole days: concordance groups what is finer
    else:
        y = np.where(r.random(n) < 0.3, 0, r.gamma(1, 50, n)) - 5.0 * (r.random(n) < 0.05)
        pred = np.maximum(0.5 * y + r.normal(30, 20, n), 0)
    if ties:
        pred = np.round(pred, 1) if kind == "probability" else np.round(pred, -1)
        y = y if kind == "probability" else np.round(y, -1)
    return y, pred, r.integers(0, 4, n).astype(float)


def kernel(kind, name, y, pred, weights):
    """The quick version on several weightings, as the bootstrap calls it."""
    return METRICS[kind][name].kernel(m._Sample(y, pred, np.atleast_2d(weights)))


def lift_by_hand(y, p):
    """The mean lift over many random ways to order ties."""
    r, k, found = np.random.default_rng(0), -(-len(y) // 10), []
    for _ in range(2000):
        best = np.lexsort((r.random(len(y)), -p))[:k]
        found.append(y[best].mean() / y.mean())
    return np.mean(found)


def weighted_spearman(y, pred, weight=None):
    repeat = np.arange(len(y)) if weight is None else np.repeat(np.arange(len(y)), weight.astype(int))
    return stats.spearmanr(y[repeat], pred[repeat]).statistic


def gini_by_hand(y, pred):
    """Frees et al.'s sum over the rows in order, without ties."""
    n, ordered = len(y), y[np.argsort(pred)]
    return 2 * (np.arange(1, n + 1) * ordered).sum() / (n * ordered.sum()) - (n + 1) / n


REFERENCE = {
    "auc": lambda y, p, w: sk.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, w: sk.average_precision_score(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: sk.log_loss(y, p, sample_weight=w),
    "brier": lambda y, p, w: sk.brier_score_loss(y, p, sample_weight=w),
    "mae": lambda y, p, w: sk.mean_absolute_error(y, p, sample_weight=w),
    "rmse": lambda y, p, w: sk.root_mean_squared_error(y, p, sample_weight=w),
    "spearman": weighted_spearman,
    "bias_pct": lambda y, p, w: 100 * (np.average(p, weights=w) / np.average(y, weights=w) - 1),
}


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_metric_and_kernel_equal_the_library(name, weighted, ties, seed):
    kind = "probability" if name in PROBABILITY else "amount"
    y, pred, weight = data(kind, seed=seed, ties=ties)
    w = weight if weighted else None
    expected = REFERENCE[name](y, pred, w)
    assert METRICS[kind][name].function(y, pred, w) == pytest.approx(expected, rel=1e-9)
    quick = kernel(kind, name, y, pred, np.ones_like(y) if w is None else w)
    assert quick == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("ties", [False, True])
def test_kernel_on_counts_equals_the_metric_on_resampled_rows(kind, name, ties):
    y, pred, _ = data(kind, ties=ties)
    counts = np.concatenate(list(m._counts(len(y), 5, seed=3)))
    quick = kernel(kind, name, y, pred, counts)
    for count, value in zip(counts, quick, strict=True):
        rows = np.repeat(np.arange(len(y)), count.astype(int))
        assert value == pytest.approx(METRICS[kind][name].function(y[rows], pred[rows]), rel=1e-9)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_only_proportions_of_weights_matter_and_weight_0_is_absence(kind, name):
    y, pred, weight = data(kind)
    metric = METRICS[kind][name].function
    value = metric(y, pred, weight)
    assert metric(y, pred, weight * 1e-3) == pytest.approx(value)
    assert metric(y, pred, np.ones_like(y)) == pytest.approx(metric(y, pred))
    used = weight > 0
    assert metric(y[used], pred[used], weight[used]) == pytest.approx(value)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_order_of_rows_does_not_matter(kind, name):
    y, pred, weight = data(kind, ties=True)
    shuffled = np.random.default_rng(1).permutation(len(y))
    metric = METRICS[kind][name].function
    assert metric(y[shuffled], pred[shuffled], weight[shuffled]) == pytest.approx(metric(y, pred, weight), rel=1e-9)


def test_lift10_by_hand():
    y = np.array([1, 1, 0, 1] + [0] * 16)
    assert m.lift10(y, np.linspace(1, 0, 20)) == pytest.approx(1 / (3 / 20))
    assert m.lift10(y, np.full(20, 0.5)) == pytest.approx(1)
    p = np.array([0.9] + [0.8] * 3 + [0.1] * 16)  # the second place goes to one of three, two of them positive
    assert m.lift10(y, p) == pytest.approx((1 + 2 / 3) / 2 / (3 / 20))
    y, p, _ = data("probability", 101, ties=True)
    assert m.lift10(y, p) == pytest.approx(lift_by_hand(y, p), rel=0.02)
    assert m.lift10([1, 0, 0], [0.9, 0.2, 0.1]) == pytest.approx(3)


def test_ece_by_hand():
    y, p, _ = data("probability", 400)
    order = np.argsort(p).reshape(10, 40)
    expected = np.mean([abs(p[rows].mean() - y[rows].mean()) for rows in order])
    assert m.ece(y, p) == pytest.approx(expected)
    assert m.ece(y, np.full(400, y.mean())) == pytest.approx(0, abs=1e-12)
    assert m.ece([0, 1], [0.0, 1.0]) == pytest.approx(0)


def test_decile_mape_by_hand():
    y, pred, _ = data("amount", 400)
    pred = pred + np.arange(400) * 1e-6  # no ties
    order = np.argsort(pred).reshape(10, 40)
    expected = 100 * np.mean([abs(pred[rows].sum() - y[rows].sum()) / abs(y[rows].sum()) for rows in order])
    assert m.decile_mape(y, pred) == pytest.approx(expected)
    assert m.decile_mape(np.arange(1, 101), 1.2 * np.arange(1, 101)) == pytest.approx(20)
    nothing = np.repeat([0.0, 10.0], 50)  # half of the deciles hold nothing: right if predicted so, else 100% wrong
    assert m.decile_mape(nothing, nothing) == pytest.approx(0)
    assert m.decile_mape(nothing, nothing + np.linspace(1e-6, 2e-6, 100)) == pytest.approx(50, abs=1e-3)


def test_norm_gini_by_hand():
    y, pred, _ = data("amount", ties=False)
    y, pred = np.maximum(y, 0) + np.arange(len(y)) * 1e-9, pred + np.arange(len(y)) * 1e-6
    assert m.norm_gini(y, pred) == pytest.approx(gini_by_hand(y, pred) / gini_by_hand(y, y), rel=1e-6)
    assert m.norm_gini(y, y) == pytest.approx(1)
    assert m.norm_gini(y, -y) == pytest.approx(-1)
    assert m.norm_gini(y, np.ones_like(y)) == pytest.approx(0, abs=1e-12)
    assert m.norm_gini([-5, 0, 10], [1, 2, 3]) == pytest.approx(m.norm_gini([0, 0, 10], [1, 2, 3]))


def test_constant_predictions_order_nobody():
    y, _, _ = data("amount")
    assert m.spearman(y, np.ones_like(y)) == 0
    assert m.auc([0, 1, 0], [0.2, 0.2, 0.2]) == 0.5


def test_extreme_probabilities_stay_finite():
    assert m.log_loss([0, 1], [1.0, 0.0]) == pytest.approx(36.04, abs=0.01)
    y, p = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    assert kernel("probability", "log_loss", y, p, np.ones(2)) == pytest.approx(m.log_loss(y, p))


def test_bias_has_a_sign_and_a_unit():
    assert m.bias_pct([10, 30], [20, 40]) == pytest.approx(50)
    assert m.bias_pct([10, 30], [10, 10]) == pytest.approx(-50)


def test_list_says_what_is_better():
    greater = {name for metrics in METRICS.values() for name, metric in metrics.items() if metric.greater}
    assert greater == {"auc", "average_precision", "lift10", "spearman", "norm_gini", "concordance"}
    assert all(name == metric.name for metrics in METRICS.values() for name, metric in metrics.items())
    assert METRICS["amount"]["bias_pct"].loss(-3) == 3
    assert METRICS["amount"]["bias_pct"].direction == "nearer to 0 is better"


@pytest.mark.parametrize("kind", ["probability", "amount"])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate(kind, weighted):
    y, pred, weight = data(kind, 300)
    predictions = {"good": pred, "flat": np.full(300, y.mean())}
    w = weight if weighted else None
    table = evaluate(y, predictions, kind, w, draws=60)
    assert list(table.columns) == ["model", "metric", "value", "low", "high"]
    assert list(zip(table["model"], table["metric"], strict=True)) == list(
        itertools.product(predictions, METRICS[kind])
    )
    for row in table.to_dict("records"):
        assert row["value"] == pytest.approx(METRICS[kind][row["metric"]].function(y, predictions[row["model"]], w))
        assert row["low"] <= row["high"]
    pd.testing.assert_frame_equal(table, evaluate(pd.Series(y), predictions, kind, w, draws=60))
    assert not table["low"].equals(evaluate(y, predictions, kind, w, draws=60, seed=1)["low"])


def test_interval_is_the_percentile_interval_of_resampled_rows():
    y, p, _ = data("probability", 200)
    r, values = np.random.default_rng(7), []
    for _ in range(20):
        rows = r.integers(0, 200, 200)
        values.append(sk.roc_auc_score(y[rows], p[rows]))
    row = evaluate(y, {"a": p}, "probability", draws=20, seed=7).set_index("metric").loc["auc"]
    assert [row["low"], row["high"]] == pytest.approx(list(np.percentile(values, [2.5, 97.5])))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered = []
    for seed in range(60):
        r = np.random.default_rng(seed)
        y = np.repeat([0, 1], 150)
        score = np.clip(0.4 + 0.1 * y + r.normal(0, 0.1, 300), 0, 1)
        row = evaluate(y, {"a": score}, "probability", draws=60).set_index("metric").loc["auc"]
        covered.append(row["low"] <= stats.norm.cdf(1 / np.sqrt(2)) <= row["high"])
    assert 0.85 <= np.mean(covered) <= 1


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    whole = np.concatenate(list(m._counts(37, 50, seed=5)))
    assert (whole.sum(axis=1) == 37).all()
    y, p, _ = data("probability", 100)
    table = evaluate(y, {"a": p}, "probability", draws=30)
    monkeypatch.setattr(m, "CHUNK", 700)
    pd.testing.assert_frame_equal(table, evaluate(y, {"a": p}, "probability", draws=30))


def test_draws_of_one_class_are_left_out_and_no_draws_give_no_interval():
    y, p = np.array([1] + [0] * 19), np.linspace(1, 0, 20)
    table = evaluate(y, {"a": p}, "probability", draws=50)
    assert np.isfinite(table[["low", "high"]].to_numpy()).all()
    assert evaluate(y, {"a": p}, "probability", draws=0)["low"].isna().all()


def test_evaluate_is_quick():
    r = np.random.default_rng(0)
    p = r.beta(1, 6, 5000)
    y = (r.random(5000) < p).astype(int)
    predictions = {str(s): np.clip(p + r.normal(0, s, 5000), 0, 1) for s in (0.0, 0.05, 0.1, 0.2)}
    start = time.process_time()
    evaluate(y, predictions, "probability")
    assert time.process_time() - start < 6


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_compare_is_paired_with_the_draws_of_evaluate(kind, name):
    y, pred, weight = data(kind)
    noise = np.random.default_rng(2).normal(0, 0.2 if kind == "probability" else 60, len(y))
    worse = np.clip(pred + noise, 0, 1) if kind == "probability" else np.maximum(pred + noise, 0)
    predictions = {"old": worse, "new": pred}
    metric = METRICS[kind][name]
    found = compare(y, predictions, kind, name, "old", "new", weight, draws=50)
    used = weight > 0
    kept = {model: p[used] for model, p in predictions.items()}
    drawn = m._bootstrap(y[used], kept, [metric], weight[used], draws=50, seed=0)
    new, old = drawn["new", name], drawn["old", name]
    apart = new - old if metric.target is None else abs(new) - abs(old)
    assert [found.low, found.high] == pytest.approx(list(np.percentile(apart, [2.5, 97.5])))
    value = metric.function(y, pred, weight), metric.function(y, worse, weight)
    if metric.target is None:
        assert found.value == pytest.approx(value[0] - value[1])
    else:
        assert found.value == pytest.approx(abs(value[0]) - abs(value[1]))
    assert found.low <= found.high
    turned = compare(y, predictions, kind, name, "new", "old", weight, draws=50)
    assert turned == pytest.approx((-found.value, -found.high, -found.low))
    assert compare(y, predictions, kind, name, "new", "new", weight, draws=50) == (0, 0, 0)


def test_pairing_sees_what_separate_intervals_hide():
    r = np.random.default_rng(0)
    skill = r.normal(size=1500)
    y = (r.random(1500) < 1 / (1 + np.exp(2 - skill))).astype(int)
    p = 1 / (1 + np.exp(2 - skill))
    predictions = {"champion": 1 / (1 + np.exp(2 - skill - r.normal(0, 0.4, 1500))), "challenger": p}
    table = evaluate(y, predictions, "probability").set_index(["metric", "model"])
    assert table.loc[("auc", "champion"), "high"] > table.loc[("auc", "challenger"), "low"]
    difference = compare(y, predictions, "probability", "auc", "champion", "challenger")
    assert verdict(difference, METRICS["probability"]["auc"]) == "better"
    loss = compare(y, predictions, "probability", "log_loss", "champion", "challenger")
    assert loss.value < 0
    assert verdict(loss, METRICS["probability"]["log_loss"]) == "better"


@pytest.mark.parametrize(
    ("low", "high", "of_auc", "of_brier"),
    [
        (0.1, 0.2, "better", "worse"),
        (-0.2, -0.1, "worse", "better"),
        (-1, 1, "unclear", "unclear"),
        (np.nan, np.nan, "unclear", "unclear"),
        (0.0, 0.0, "unclear", "unclear"),
    ],
)
def test_verdict(low, high, of_auc, of_brier):
    difference = m.Difference(0, low, high)
    assert verdict(difference, METRICS["probability"]["auc"]) == of_auc
    assert verdict(difference, METRICS["probability"]["brier"]) == of_brier


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_unusable_input_is_refused(kind, name):
    metric = METRICS[kind][name].function
    y, pred, _ = data(kind, 50)
    bad = pred.copy()
    bad[3] = np.nan
    for args, problem in [
        ((np.ones(50), pred), "got 1 in all 50 rows"),
        ((y, bad), "got 1 of 50 NaN or infinite"),
        ((bad, pred), "NaN or infinite"),
        ((y, pred[:49]), "expected 50 predictions, one for each outcome, got 49"),
        (([], []), "expected at least one row, got none"),
        ((y, np.stack([pred, pred], axis=1)), r"got an array of shape \(50, 2\)"),
        ((y, ["a"] * 50), "missing or not numbers"),
        ((y, pd.Series([pd.NA] * 50, dtype="Int64")), "missing or not numbers|NaN or infinite"),
        ((y, pred, np.ones(3)), "expected 50 weights"),
        ((y, pred, -np.ones(50)), "expected weights of 0 or more"),
        ((y, pred, np.zeros(50)), "expected weights of 0 or more"),
        ((y, pred, (y == y[0]).astype(float)), "in all"),
    ]:
        with pytest.raises(DataError, match=problem) as error:
            metric(*args)
        assert error.value.subject == name
        assert error.value.fix


def test_what_a_kind_cannot_judge_is_refused():
    with pytest.raises(DataError, match="expected outcomes of 0 or 1, got 2"):
        m.auc([0, 1, 2], [0.1, 0.2, 0.3])
    assert m.auc([0, 1], [-3, 7]) == 1  # a ranking needs no probabilities
    for metric in (m.log_loss, m.brier, m.ece):
        with pytest.raises(DataError, match="expected probabilities from 0 to 1, got -3 to 7"):
            metric([0, 1], [-3, 7])
    for metric in (m.bias_pct, m.decile_mape):
        with pytest.raises(DataError, match="got a total of -1"):
            metric([-2, 1], [1, 1])
    with pytest.raises(DataError, match="expected some amount above 0"):
        m.norm_gini([-2, 0], [1, 1])


def test_evaluate_and_compare_name_what_is_wrong():
    y, p, _ = data("probability", 50)
    with pytest.raises(DataError, match=r"tree: expected 50 predictions"):
        evaluate(y, {"ok": p, "tree": p[:10]}, "probability")
    with pytest.raises(DataError, match=r"tree: expected probabilities from 0 to 1"):
        evaluate(y, {"tree": p + 1}, "probability")
    with pytest.raises(DataError, match="at least one model"):
        evaluate(y, {}, "probability")
    with pytest.raises(DataError, match="0 draws or more"):
        evaluate(y, {"a": p}, "probability", draws=-1)
    with pytest.raises(UnknownName, match="no such kind of prediction"):
        evaluate(y, {"a": p}, "probabilty")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnknownName, match='did you mean "auc"'):
        compare(y, {"a": p}, "probability", "aucc", "a", "a")
    with pytest.raises(UnknownName, match="tree: no such model"):
        compare(y, {"a": p}, "probability", "auc", "a", "tree")


def test_bins():
    y, p, _ = data("probability", 1000)
    table = m.bins(y, p, "probability")
    assert list(table.columns) == ["bin", "rows", "share", "predicted", "actual", "low", "high"]
    assert table["rows"].sum() == 1000
    assert table["share"].sum() == pytest.approx(1)
    assert (table["share"] * (table["predicted"] - table["actual"]).abs()).sum() == pytest.approx(m.ece(y, p))
    for row in table.to_dict("records"):
        ci = stats.binomtest(round(row["actual"] * row["rows"]), row["rows"]).proportion_ci(method="wilson")
        assert [row["low"], row["high"]] == pytest.approx([ci.low, ci.high], abs=1e-6)
    two = m.bins([0, 0, 1, 1], [0.1, 0.1, 0.9, 0.9], "probability")
    assert len(two) == 2
    assert two.loc[0, "low"] == 0
    assert two.loc[1, "high"] == 1
    y, pred, _ = data("amount", 1000)
    table = m.bins(y, pred, "amount", np.full(1000, 0.5))
    lowest = y[np.argsort(pred, kind="stable")]
    assert table["actual"].iloc[-1] == pytest.approx(lowest[-100:].mean())
    error = stats.sem(lowest[-100:])
    assert table["high"].iloc[-1] - table["actual"].iloc[-1] == pytest.approx(1.959964 * error)


def test_gain_curve():
    y = np.array([1, 0, 1, 0])
    curve = m.gain_curve(y, [0.9, 0.5, 0.5, 0.1], "probability")
    assert curve["taken"].tolist() == [0, 0.25, 0.75, 1]
    assert curve["found"].tolist() == [0, 0.5, 1, 1]
    y, pred, weight = data("amount", ties=True)
    curve = m.gain_curve(y, pred, "amount", weight)
    best = m.gain_curve(y, y, "amount", weight)

    def area(c):
        return np.trapezoid(c["found"], c["taken"]) - 0.5

    assert area(curve) / area(best) == pytest.approx(m.norm_gini(y, pred, weight), rel=1e-3)
