"""Does the ablation tell what adds from what does not? Signal, noise, verdicts, the cutoffs, and what it writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import ablation, findings, report
from benchmarks.contributions import (
    ADDED,
    ALL,
    BASE,
    LEFT_OUT,
    NOISE,
    NOISE_COLUMNS,
    Judgement,
    Part,
    contributions,
    difference,
    improvement,
    sets_of,
    verdict,
)
from foretell.declarations import FeatureView
from foretell.errors import DataError
from foretell.project import Project
from foretell.windows import _
from training.metrics import METRICS, Difference
from training.pooled import Judged, Pooled

KNOWN = [f"x{n}" for n in range(10)]
GROUPS = {"signal": ["z"], "idle": ["n1", "n2"], "town": ["city"]}
BETTER, WORSE, UNCLEAR = Difference(-0.2, -0.3, -0.1), Difference(0.2, 0.1, 0.3), Difference(-0.2, -0.5, 0.1)


def rows(n: int, seed: int, kind: str) -> pd.DataFrame:
    """A label that x0 … x9 and z decide; n1, n2 and the city have no say in it.

    Of a few columns each tree sees four fifths, rounded: there a column more or less would change how often a tree sees
    the others.
    """
    rng = np.random.default_rng(seed)
    drawn = pd.DataFrame(rng.normal(size=(n, 13)), columns=pd.Index([*KNOWN, "z", "n1", "n2"]))
    drive = drawn[KNOWN].sum(axis=1) / 3 + drawn["z"] + 0.5 * rng.normal(size=n)
    label = (drive > 0).astype(float) if kind == "probability" else np.exp(drive)
    people = [f"p{i}" for i in range(n)]
    cutoff = pd.Timestamp("2024-01-01", tz="UTC")
    return drawn.assign(
        city=rng.choice(["Oslo", "Bergen"], n), label=label, weight=1.0, person=people, cutoff=cutoff
    )  # fmt: skip


@pytest.fixture(scope="module", params=["probability", "amount"])
def found(request: pytest.FixtureRequest) -> Judgement:
    parts = [Part(rows(1_200, seed, request.param), rows(700, seed + 100, request.param)) for seed in range(3)]
    metric = {"probability": "log_loss", "amount": "mae"}[request.param]
    return contributions(request.param, metric, 30, parts, KNOWN, GROUPS)


def test_what_decides_the_label_adds_and_what_does_not_makes_no_measurable_difference(found: Judgement) -> None:
    tasks = {"asked": found}
    assert verdict(tasks, "signal") == ("adds", ["asked"])
    assert verdict(tasks, ALL) == ("adds", ["asked"])
    for group in ("idle", "town", NOISE):
        assert verdict(tasks, group) == ("no measurable difference", []), group


def test_differences_have_the_sign_of_their_metric(found: Judgement) -> None:
    for way in (ADDED, LEFT_OUT):
        for name, d in found.differences["signal"][way].items():
            better = improvement(d, METRICS[found.kind][name])
            assert 0 < better.low < better.value < better.high
    gain = found.values[ALL][found.metric] - found.values[BASE][found.metric]
    assert found.differences[ALL][ADDED][found.metric].value == pytest.approx(gain)


def test_every_set_is_compared_with_itself_but_for_the_group() -> None:
    sets, pairs = sets_of(["x"], GROUPS)
    everything = ["x", "z", "n1", "n2", "city"]
    assert sets[BASE] == ["x"]
    assert sets[ALL] == everything
    for (group, way), (more, less) in pairs.items():
        columns = {ALL: everything[1:], NOISE: NOISE_COLUMNS, **GROUPS}[group]
        assert sorted([*sets[less], *columns]) == sorted(sets[more])
        assert way == LEFT_OUT or sets[less] == ["x"]


def test_the_luck_of_a_seed_is_part_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    y, ids = (rng.random(400) < 0.5).astype(float), np.array([f"p{i}" for i in range(400)])
    p = np.clip(0.3 + 0.4 * y + 0.1 * rng.normal(size=400), 0.01, 0.99)
    lucky = [Judged(ids, y, {"a": np.clip(p + luck, 0.01, 0.99), "b": p}) for luck in (0.05, -0.05)]
    pooled = Pooled("probability", lucky, metrics=["log_loss"])
    alone, both = pooled.difference("a", "b", "log_loss"), difference(pooled, "a", "b", "log_loss", 2)
    assert both.value == alone.value
    assert both.low < alone.low < alone.high < both.high
    assert difference(pooled, "a", "b", "log_loss", 1) == pytest.approx(alone)  # nothing is known of luck
    assert list(pooled.metrics) == ["log_loss"]


def judgement(added: Difference, left_out: Difference, other: Difference = UNCLEAR) -> Judgement:
    """Of one group; `other` is the difference in a metric that is not the task's."""
    ways = {ADDED: added, LEFT_OUT: left_out}
    measured = {"g": {way: {"log_loss": d, "auc": other} for way, d in ways.items()}}
    values = {name: {"log_loss": 0.5, "auc": 0.8} for name in (BASE, ALL)}
    return Judgement("probability", "log_loss", measured, values)


@pytest.mark.parametrize(
    ("churn", "buys", "expected"),
    [
        ((BETTER, UNCLEAR), (UNCLEAR, UNCLEAR), ("adds", ["churn"])),
        ((UNCLEAR, BETTER), (BETTER, BETTER), ("adds", ["churn", "buys"])),
        ((WORSE, WORSE), (BETTER, UNCLEAR), ("adds", ["buys"])),  # nowhere means in no task
        ((UNCLEAR, WORSE), (UNCLEAR, UNCLEAR), ("hurts", ["churn"])),
        ((WORSE, UNCLEAR), (UNCLEAR, UNCLEAR), ("no measurable difference", [])),  # the base alone misses nothing
        ((UNCLEAR, UNCLEAR, Difference(0.1, 0.05, 0.2)), (UNCLEAR, UNCLEAR), ("no measurable difference", [])),
    ],
)
def test_the_rule_of_the_verdict(churn: Any, buys: Any, expected: tuple[str, list[str]]) -> None:
    assert verdict({"churn": judgement(*churn), "buys": judgement(*buys)}, "g") == expected


# What is measured


def test_groups_are_found_and_targets_own_views_are_none() -> None:
    known = Project(ablation.make_project.__globals__["HERE"]).definitions
    new = FeatureView(name="brand_new", source="order_line", features={"lines_ever": _.count()})
    account = replace(new, name="of_accounts", entity="account")
    views = {**known.views, new.name: new, account.name: account}
    project: Any = SimpleNamespace(definitions=replace(known, views=views))
    groups = ablation.groups_of(project)
    assert "propensity_beer" in known.views
    assert {"affinity", "household", "brand_new"} <= set(groups)
    assert not {"orders", "cadence", "propensity_beer", "of_accounts"} & set(groups)


def test_no_label_reaches_beyond_what_was_known(shop: Project) -> None:
    task = replace(shop.definitions.task("propensity"), horizon=timedelta(days=20))
    reach = task.horizon + task.settle
    tests = ablation.tests_of(shop, task, 5)
    assert len(tests) == 5
    assert max(tests) == shop.now - reach
    assert all(learned[-1] + reach == test for test, learned in tests.items())
    assert len(ablation.tests_of(shop, task, 100)) < 20  # as many as the history allows
    with pytest.raises(DataError, match="days of history"):
        ablation.tests_of(shop, replace(task, horizon=timedelta(days=200)), 5)


def test_the_cost_of_each_view_is_measured_alone(shop: Project) -> None:
    cpu = ablation.costs(shop, ["basket"], rounds=1)
    assert list(cpu) == [BASE, "basket", ALL]
    assert all(seconds > 0 for seconds in cpu.values())


# What is shown


@pytest.fixture
def measured() -> findings.Measured:
    judged = judgement(BETTER, UNCLEAR)
    noise = judgement(UNCLEAR, UNCLEAR).differences["g"]
    every = {ALL: {ADDED: judged.differences["g"][ADDED]}, **judged.differences, NOISE: noise}
    T = datetime(2024, 1, 1, tzinfo=UTC)
    return findings.Measured(
        "shop", {BASE: 15, "g": 2, ALL: 17}, {BASE: 2.0, "g": 1.0, ALL: 3.0}, {"churn": [T, T + timedelta(days=30)]},
        {"churn": (1_000, 500)}, {"churn": replace(judged, differences=every)},
    )  # fmt: skip


def test_the_tables_go_between_the_two_lines(tmp_path, measured: findings.Measured) -> None:
    file = tmp_path / "docs" / "features.md"
    findings.check_target(file)  # one that is not there is made
    findings.write(file, [measured], "python -m benchmarks.ablation", 2)
    text = file.read_text()
    assert "| g | 2 | 0.50 | added | -200.0 [-500.0, +100.0] | **-200.0** [-300.0, -100.0] | adds: churn |" in text
    assert "churn at 2 cutoffs, 2024-01-01 … 2024-01-31 (1,000 rows learned from, 500 predicted)" in text
    assert (file.parent / "ablation.png").stat().st_size < 200_000
    file.write_text(f"before\n{text.replace('| g |', '| old |')}after\n")
    findings.write(file, [measured], "python -m benchmarks.ablation", 2)
    assert file.read_text() == f"before\n{text}after\n"


def test_a_file_without_the_two_lines_is_refused_before_anything_is_measured(tmp_path) -> None:
    file = tmp_path / "features.md"
    file.write_text("# Ours\n")
    with pytest.raises(
        DataError, match=r"expected one place between the lines <!-- ablation -->.*got 0; write the two"
    ):
        ablation.main(["--quick", "--write", str(file)])
    assert file.read_text() == "# Ours\n"


def test_rows_are_the_base_then_the_groups_then_noise(measured: findings.Measured) -> None:
    head, shown = findings.lines(measured)
    assert {len(row) for row in shown} == {len(head)}
    assert [row[0] for row in shown] == [BASE, "g", "", ALL, NOISE, ""]
    assert measured.as_json()["groups"]["g"]["verdict"] == "adds"
    assert measured.cost(NOISE) is None


@pytest.mark.slow
def test_the_generated_shop_goes_through(capsys) -> None:
    ablation.main(["--quick"])
    found = report.parse(capsys.readouterr().out)["details"]["online_retail"]
    assert {"affinity", "basket", ALL, NOISE} <= set(found["groups"])
    assert found["groups"]["basket"]["cost"] > 0
    assert set(found["groups"]["basket"]["differences"]) == {"churn"}
