"""Does the accuracy benchmark know what happened, and say so honestly? Its oracle, its intervals, its refusals."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks import accuracy, judging, presets, report
from benchmarks.log import Log, answers, write_lines
from benchmarks.shop import Asked, people_of
from foretell.errors import DataError
from training import dataset, metrics
from training.pooled import Judged, Pooled

T = datetime(2011, 3, 1, tzinfo=UTC)
RETAIL = presets.PRESETS[presets.RETAIL]
CHURN, ENTERED = Asked.parse("churn90"), Asked.parse("lookalike")


def judged(rows=400, seed=0, profiles=None):
    rng = np.random.default_rng(seed)
    p = rng.random(rows)
    y = (rng.random(rows) < p).astype(float)
    said = {"champion": p, "noise": rng.random(rows), "same": p}
    return Judged(np.array([f"p{i}" for i in range(rows)]) if profiles is None else profiles, y, said)


# Pooled metrics


def test_a_pooled_metric_is_the_mean_of_the_cutoffs_own():
    parts = [judged(seed=0), judged(seed=1)]
    pooled = Pooled("probability", parts)
    for name, metric in metrics.METRICS["probability"].items():
        own = [metric.function(j.y, j.predictions["champion"]) for j in parts]
        assert pooled.value("champion", name) == pytest.approx(np.mean(own))
        low, high = pooled.interval("champion", name)
        assert low < high
        assert pooled.difference("champion", "same", name) == (0, 0, 0)


def test_intervals_agree_with_those_of_one_cutoff_by_resampling_rows():
    part = judged(rows=300)
    pooled, rng = Pooled("probability", [part], draws=400), np.random.default_rng(7)
    picks = [rng.integers(0, 300, 300) for _ in range(400)]
    aucs = [metrics.auc(part.y[i], part.predictions["champion"][i]) for i in picks]
    low, high = np.percentile(aucs, [2.5, 97.5])
    assert pooled.interval("champion", "auc") == pytest.approx((low, high), abs=0.01)


def test_the_same_people_twice_are_no_new_evidence():
    part = judged()
    once, twice = Pooled("probability", [part]), Pooled("probability", [part, part])
    others = Judged(np.array([f"q{i}" for i in range(400)]), part.y, part.predictions)
    apart = Pooled("probability", [part, others])

    def width(pooled):
        low, high = pooled.interval("champion", "auc")
        return high - low

    assert width(twice) == pytest.approx(width(once))
    assert width(apart) < 0.85 * width(once)


def test_a_bias_of_both_signs_does_not_cancel():
    y = np.array([10.0, 20.0, 30.0, 40.0])
    ids = np.array(list("abcd"))
    pooled = Pooled("amount", [Judged(ids, y, {"champion": y * f, "exact": y}) for f in (0.7, 1.3)])
    assert pooled.at("champion", "bias_pct") == pytest.approx([-30, 30])
    assert pooled.value("champion", "bias_pct") == pytest.approx(30)
    assert pooled.difference("champion", "exact", "bias_pct").value == pytest.approx(30)


def test_the_best_baseline_is_chosen_metric_by_metric_and_the_champion_compared_with_it():
    part = judged()
    said = {**part.predictions, "blurred": np.clip(0.5 + (part.predictions["champion"] - 0.5) / 50, 0, 1)}
    pooled = Pooled("probability", [Judged(part.profiles, part.y, said)])
    bars = {b.id: b for b in judging.pooled_bars("churn90", pooled, ["noise", "blurred"], RETAIL.limits["churn90"])}
    assert bars["accuracy.churn90.auc_minus_best_baseline"].value == pytest.approx(0, abs=1e-12)  # against blurred
    assert bars["accuracy.churn90.log_loss_minus_best_baseline"].value < -0.05
    assert bars["accuracy.churn90.log_loss_minus_best_baseline"].holds
    assert bars["accuracy.churn90.auc"].limit == ">=0.792"
    assert bars["accuracy.churn90.auc"].spread[0] < bars["accuracy.churn90.auc"].value


def test_a_perfect_models_calibration_is_within_its_limit_and_another_is_not():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, 3000)
    y = (rng.random(3000) < p).astype(float)
    ids = np.arange(3000).astype(str)

    def bar(said):
        return judging.calibration("churn90", Pooled("probability", [Judged(ids, y, {"champion": said})], draws=2))

    assert bar(p).holds
    assert bar(p).spread[0] < bar(p).value < bar(p).spread[1] < 0.03
    assert not bar(np.clip(p + 0.05, 0, 1)).holds


def test_worse_beyond_chance_counts_how_many_comparisons_there_are():
    rng = np.random.default_rng(0)
    y, ids = rng.normal(50, 10, 500), np.arange(500).astype(str)
    said = {
        "champion": y + rng.normal(0, 10, 500),
        "near": y + rng.normal(0, 9.8, 500),
        "best": y + rng.normal(0, 5, 500),
    }
    pooled = Pooled("amount", [Judged(ids, y, said)])
    assert pooled.chance("champion", "best", "mae") < 1e-6
    assert pooled.chance("best", "champion", "mae") == 1.0
    assert 0.01 < pooled.chance("champion", "near", "mae") <= 1.0
    assert judging.worse({"a": 1e-6, "b": 0.2}) == ["a"]
    assert judging.worse({}) == []


# The oracle


LINES = """
    ('500', '20001', 2, TIMESTAMP '2010-03-01 00:00:00', 5.0, 1),      -- on the first instant of the year
    ('501', '20001', 2, TIMESTAMP '2010-02-28 23:59:59', 5.0, 2),      -- just before it
    ('502', '20001', 1, TIMESTAMP '2010-11-30 10:00:00', 9.0, 3),
    ('C503', '20001', -1, TIMESTAMP '2011-03-02 10:00:00', 9.0, 3),    -- only a cancellation after T
    ('504', '20001', 1, TIMESTAMP '2011-02-28 23:59:59', 1.0, 4),
    ('505', '20002', 3, TIMESTAMP '2011-03-01 00:00:00', 2.0, 4),      -- at T: the future
    ('C506', '20002', -1, TIMESTAMP '2011-05-01 10:00:00', 2.0, 4),
    ('507', '20002', 1, TIMESTAMP '2011-05-30 01:00:00', 70.0, 4),     -- at T + 90 days, in London's summer: beyond
    ('508', 'POST', 1, TIMESTAMP '2010-12-01 10:00:00', 9.0, 5),       -- not a product
    ('C509', '20001', -1, TIMESTAMP '2010-12-01 10:00:00', 9.0, 6),    -- never bought
    ('510', '20001', 1, TIMESTAMP '2010-12-01 10:00:00', 9.0, NULL),
    ('511', '20001', 1, TIMESTAMP '2010-12-01 10:00:00', 0.0, 7),
    ('512', '20001', -1, TIMESTAMP '2010-12-01 10:00:00', 2.0, 8)      -- a negative line that is no cancellation
"""


@pytest.fixture
def invoices(tmp_path):
    file = tmp_path / "invoices.parquet"
    columns = "Invoice, StockCode, Quantity, InvoiceDate, Price, CustomerID"
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {LINES}) t({columns})) TO '{file}' (FORMAT parquet)")
    return presets.online_retail(file)


def test_the_answers_by_sql(tmp_path, invoices):
    lines = tmp_path / "lines.parquet"
    assert write_lines(invoices, lines) == {"no profile": 1}
    people = pd.DataFrame({"customer": [str(n) for n in range(1, 9)], "profile_id": [f"p{n}" for n in range(1, 9)]})
    found = answers(lines, T, 90, people).set_index("customer")
    assert list(found.index) == ["1", "3", "4"]
    assert found["left"].to_dict() == {"1": 1, "3": 1, "4": 0}
    assert found["bought"].to_dict() == {"1": 0, "3": 0, "4": 1}
    assert found["purchases"].to_dict() == {"1": 0, "3": 0, "4": 1}
    assert found["spend"].to_dict() == {"1": 0, "3": -9, "4": 4}
    assert found["seed"].to_dict() == {"1": False, "3": False, "4": True}  # 9 pounds of customer 3 are older
    assert found["entered"].to_dict() == {"1": 0, "3": 0, "4": 1}
    assert found.loc["4", "profile_id"] == "p4"


def test_a_file_without_the_columns_is_refused(tmp_path):
    file = tmp_path / "other.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS Invoice) TO '{file}' (FORMAT parquet)")
    with pytest.raises(DataError, match=r"StockCode.*none named StockCode, Quantity.*archive.ics.uci.edu"):
        presets.online_retail(file)


def test_counts_that_ought_to_be_others_are_an_error():
    RETAIL.check(CHURN, "2011-03-01", 4_260, 0.6312)
    RETAIL.check(ENTERED, "2011-03-01", 4_260 - 426, 0.05)
    RETAIL.check(CHURN, "2011-03-02", 1, 0.1)  # nothing is known of another cutoff
    with pytest.raises(ValueError, match="expected 4,260 profiles, got 4,259"):
        RETAIL.check(CHURN, "2011-03-01", 4_259, 0.6312)
    with pytest.raises(ValueError, match=r"base rate of 0.631, got 0.6329"):
        RETAIL.check(CHURN, "2011-03-01", 4_260, 0.6329)
    with pytest.raises(DataError, match=r"805,828 lines of 5,875 customers, got 805,827"):
        RETAIL.check_file(805_827, 5_875)
    RETAIL.loosened().check_file(805_827, 5_875)


# The run


def test_without_data_it_says_where_to_get_them(monkeypatch):
    monkeypatch.delenv("FORETELL_TEST_DATA", raising=False)
    with pytest.raises(DataError, match=r"got no file.*archive.ics.uci.edu.*name the file.*FORETELL_TEST_DATA"):
        accuracy.main([])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--quick", "--tasks", "chrn90"], 'chrn90: no such prediction; .*did you mean "churn90"'),
        (["--quick", "--cutoffs", "2011-03-01,soon"], "--cutoffs: expected dates such as 2011-03-01, got 'soon'"),
        (["FILE", "--time", "InvoiceDate"], "got no --profile, --amount; known: Invoice, StockCode, Quantity"),
        (["FILE", "--profile", "a", "--time", "b", "--amount", "c"], "--cutoffs: expected dates .*, got none"),
        (["--profile", "a"], "expected a file of transactions or --preset, got neither"),
    ],
)
def test_a_command_that_says_too_little_is_refused(arguments, expected, invoices, capsys):
    with pytest.raises(SystemExit):
        accuracy.main([str(invoices.file) if a == "FILE" else a for a in arguments])
    assert re.search(expected, capsys.readouterr().err)


def test_cutoffs_without_a_future_in_the_file_are_refused(tmp_path, invoices):
    with pytest.raises(DataError, match=r"no horizon ends.*before 2011-05-31"):
        accuracy.run(invoices, [T.replace(day=3)], [CHURN, Asked.parse("clv180")], None, tmp_path, {})


def spending(file):
    """A dated log: a purchase a week and profile, from 2023-01-01 until 2023-12-31."""
    days = pd.date_range("2023-01-01", "2023-12-31")
    rows = [(f"p{who}", day, 1 + who) for who in range(20) for day in days[who % 7 :: 7 * (1 + who % 3)]]
    pd.DataFrame(rows, columns=["Client No", "Day", "Paid"]).to_csv(file, index=False)
    return ["--profile", "Client No", "--time", "Day", "--amount", "paid"]


def recency(project, lines, asked, more):
    """What `judge` does, but for training: everyone eligible, judged by SQL, predicted by nobody who had to learn."""
    task = project.definitions.task(asked.task)
    rows = dataset.eligible(project, task, project.now).drop(columns="cutoff")
    truth = answers(lines, project.now, asked.days, people_of(project))
    y = judging.aligned(truth, rows["profile_id"], asked, asked.name)
    if project.now < datetime(2023, 3, 1, tzinfo=UTC):
        raise DataError(asked.name, "needs more days of history", "load older data")
    said = {"champion": np.linspace(0.1, 0.9, len(y)), "recency": np.linspace(0.2, 0.8, len(y))}
    trained: Any = SimpleNamespace(task=task, kind="probability")
    asked_about = Judged(rows["profile_id"].to_numpy(dtype=str), y, said)
    return judging.Found(asked, project.now, trained, rows, asked_about, float("nan"))


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(accuracy, "judge", recency)
    monkeypatch.setattr(accuracy, "show_task", lambda found, pooled: print("a table"))
    monkeypatch.setattr(accuracy, "details", lambda found, pooled: {"cutoffs": [f"{f.cutoff:%m-%d}" for f in found]})


def test_what_cannot_be_asked_is_left_out_and_the_rest_goes_on(tmp_path, untrained, capsys):
    columns = spending(file := tmp_path / "log.csv")
    cutoffs = "2022-06-01,2023-02-01,2023-10-10,2023-12-22"
    accuracy.main([str(file), *columns, "--cutoffs", cutoffs, "--tasks", "churn14,buy10", "--json"])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    found = report.parse(said.out)
    details = {"churn14": {"cutoffs": ["10-10"]}, "buy10": {"cutoffs": ["10-10", "12-22"]}}
    assert {k: v for k, v in found["details"].items() if k in details} == details
    left = found["sizes"]["left_out"]
    assert set(left) == {f"{t} at {c}" for t in ("churn14", "buy10") for c in ("2022-06-01", "2023-02-01")} | {
        "churn14 at 2023-12-22"
    }
    assert "there is none before 2022-06-01" in left["buy10 at 2022-06-01"]
    assert "needs more days of history" in left["buy10 at 2023-02-01"]
    assert "its horizon of 14 days ends after the data do (2024-01-01)" in left["churn14 at 2023-12-22"]
    assert all(f"{what} is left out: " in said.err for what in left)
    assert {b["id"] for b in found["bars"]} == {"accuracy.worse_than_a_baseline"} | {
        f"accuracy.{task}.{metric}" for task in ("churn14", "buy10")
        for metric in ("ece_pooled", *(f"{m}_minus_best_baseline" for m in judging.AGAINST["probability"]))
    }  # fmt: skip


def test_a_preset_that_cannot_be_asked_misses_its_limits(tmp_path, untrained, monkeypatch, capsys):
    spending(file := tmp_path / "log.csv")
    preset = presets.Preset(
        file="log.csv", origin="nowhere", log=lambda f: Log(f, "Client No", "Day", "Paid"), cutoffs=("2023-02-01",),
        tasks=("buy10",), lines=None, customers=20, limits={"buy10": {"auc": ">=0.7"}},
    )  # fmt: skip
    monkeypatch.setitem(presets.PRESETS, "cdnow", preset)
    accuracy.main([str(file), "--preset", "cdnow"])
    found = report.parse(capsys.readouterr().out)
    missed = {"id": "accuracy.buy10.auc", "value": None, "limit": ">=0.7", "holds": False, "spread": [None, None]}
    assert found["bars"] == [missed]
    assert "needs more days of history" in found["sizes"]["left_out"]["buy10 at 2023-02-01"]


def test_other_people_are_an_error():
    truth = pd.DataFrame({"profile_id": ["a", "b"], "left": [1.0, 0.0]})
    assert list(judging.aligned(truth, pd.Series(["b", "a"]), CHURN, "churn90")) == [0, 1]
    with pytest.raises(ValueError, match="3 profiles are eligible, by SQL 2 are; 1 and 0 are in one only"):
        judging.aligned(truth, pd.Series(["a", "b", "c"]), CHURN, "churn90")


def test_other_labels_or_features_than_were_known_then_are_an_error():
    then = pd.DataFrame({"profile_id": ["b", "a"], "event_timestamp": [T, T], "orders": [1, 2], "city": ["X", None]})
    now = pd.DataFrame({"profile_id": ["a", "b"], "label": [0.0, 1.0], "orders": [2, 1], "city": [np.nan, "X"]})
    y = np.array([1.0, 0.0])
    judging.check_rows(then, now, y, "churn90")
    with pytest.raises(ValueError, match="labels differ"):
        judging.check_rows(then, now, 1 - y, "churn90")
    for column, values in {"orders": [2, 3], "city": ["Y", "X"]}.items():
        with pytest.raises(ValueError, match=f"{column} has changed"):
            judging.check_rows(then, now.assign(**{column: values}), y, "churn90")


@pytest.mark.slow
def test_the_generated_shop_goes_through_the_product(capsys):
    accuracy.main(["--quick", "--tasks", "churn90,lookalike"])
    found = report.parse(capsys.readouterr().out)
    assert {b["id"].split(".")[1] for b in found["bars"]} == {"churn90", "lookalike", "worse_than_a_baseline"}
    churn = found["details"]["churn90"]
    said = churn["cutoffs"]["2011-06-01"]
    assert said["judged_on"][-1] < "2011-03-03"  # its label is complete before T
    assert {"champion", "recency", "rfm_logistic", "bg_nbd", "blend"} <= set(churn["models"])
    assert churn["models"]["champion"]["auc"] == churn["models"][said["champion"]]["auc"]
    assert 0.55 < churn["models"]["champion"]["auc"][0] < 0.95
    json.dumps(found, allow_nan=False)
