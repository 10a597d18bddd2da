"""What the gate before training names, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import leak_sets, leak_tables
from foretell.errors import DataError
from training import leaks
from training.leaks import Leak, inspect, refuse

CUTOFFS = pd.date_range("2024-01-01", periods=4, freq="30D", tz="UTC")
HONEST = ["age", "city", "orders", "recency", "spend"]
CITIES = {"city": ["Oslo", "Bergen", "Tromsø"]}


def shop(persons: int = 700, cutoffs: int = 4, seed: int = 0) -> pd.DataFrame:
    """Encoded rows of customers, who differ in how loyal they are; recency, orders and spend tell of it, and churn."""
    rng = np.random.default_rng(seed)
    n = persons * cutoffs
    loyal = np.tile(rng.normal(size=persons), cutoffs)
    label = (rng.random(n) < 1 / (1 + np.exp(1.8 * loyal))).astype(float)
    person = np.tile([f"p{k:05}" for k in range(persons)], cutoffs)
    return pd.DataFrame(
        {
            "profile_id": person, "cutoff": np.repeat(CUTOFFS[:cutoffs], persons), "label": label, "weight": 1.0,
            "person": person, "age": np.tile(rng.integers(18, 80, persons), cutoffs).astype(float),
            "city": np.tile(rng.choice([0.0, 1.0, 2.0, np.nan], persons), cutoffs),
            "orders": rng.poisson(np.exp(0.8 + 0.7 * loyal)).astype(float),
            "recency": rng.exponential(60 * np.exp(-0.9 * loyal)).round(),
            "spend": np.where(rng.random(n) < 0.3, np.nan, 40 * np.exp(loyal + 0.6 * rng.normal(size=n))),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def honest() -> pd.DataFrame:
    return shop()


def found(rows: pd.DataFrame, *more: str, kind: Any = "probability", **others: Any) -> dict[str, str]:
    """column -> check of what is found among the honest columns and these."""
    categories = CITIES | others.pop("categories", {})
    return {leak.column: leak.check for leak in inspect(rows, [*HONEST, *more], kind, categories, **others)}


def noise(rows: pd.DataFrame, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(rows))


def test_honest_columns_pass_though_they_are_strong(honest: pd.DataFrame) -> None:
    """Recency alone orders over 65% of pairs right, and all together over 75%: it is not that nothing is told."""
    from training.leak_evidence import Evidence

    evidence = Evidence.of(honest, HONEST, "probability", CITIES)
    assert evidence.skill(evidence.alone("recency")) > 0.3
    assert evidence.skill(evidence.together(HONEST)[0]) > 0.5
    assert found(honest) == {}


def test_a_column_that_predicts_too_well_is_named(honest: pd.DataFrame) -> None:
    rows = honest.assign(score=1.5 * honest["label"] + noise(honest))
    (leak,) = inspect(rows, [*HONEST, "score"], "probability", CITIES)
    assert (leak.column, leak.check) == ("score", "predicts too well")
    assert "the other 5 columns together" in leak.reason


def test_two_columns_that_hide_each_other_are_both_named(honest: pd.DataFrame) -> None:
    score = 1.8 * honest["label"] + noise(honest)
    assert found(honest.assign(score=score, copy=2 * score), "score", "copy") == {
        "score": "predicts too well", "copy": "predicts too well"
    }  # fmt: skip


def test_two_different_leaks_are_both_named(honest: pd.DataFrame) -> None:
    came_back = (honest["label"] == 0) & (noise(honest, 2) > 1.2)
    rows = honest.assign(score=1.5 * honest["label"] + noise(honest), tomorrow=came_back.astype(float))
    assert set(found(rows, "score", "tomorrow")) == {"score", "tomorrow"}


@pytest.mark.parametrize(
    ("unknown", "told"),
    [(0.0, "above 0"), (np.nan, "where it is known")],
    ids=["a value", "being known at all"],
)
def test_a_bin_that_gives_the_outcome_away_is_named(honest: pd.DataFrame, unknown: float, told: str) -> None:
    """Of those who come back, one in ten comes back tomorrow: too few to predict much, but nobody else does."""
    tomorrow = (honest["label"] == 0) & (noise(honest) > 1.25)
    (leak,) = inspect(
        honest.assign(tomorrow=np.where(tomorrow, 1.0 + (noise(honest, 2) > 1), unknown)), [*HONEST, "tomorrow"],
        "probability", CITIES,
    )  # fmt: skip
    assert (leak.column, leak.check) == ("tomorrow", "pure bin")
    assert told in leak.reason
    assert ", 0 have the label true" in leak.reason


def test_missing_values_that_tell_are_named(honest: pd.DataFrame) -> None:
    lost = (honest["label"] == 1) & (noise(honest) > 1)
    (leak,) = inspect(honest.assign(invoice=np.where(lost, np.nan, noise(honest, 2))), [*HONEST, "invoice"],
        "probability", CITIES)  # fmt: skip
    assert (leak.column, leak.check) == ("invoice", "pure bin")
    assert "where it is unknown, 0 have the label false" in leak.reason


def test_a_text_that_is_set_on_the_outcome_is_named_with_its_value(honest: pd.DataFrame) -> None:
    left = (honest["label"] == 1) & (noise(honest) > 1)
    rows = honest.assign(reason=np.where(left, 1.0, 0.0))
    columns, categories = [*HONEST, "reason"], CITIES | {"reason": ["", "too dear"]}
    (leak,) = inspect(rows, columns, "probability", categories)
    assert leak.column == "reason"
    assert "'too dear'" in leak.reason


def test_an_amount_that_holds_the_horizon_is_named(honest: pd.DataFrame) -> None:
    ahead = np.where(honest["label"] == 0, np.exp(3 + noise(honest)), 0.0)
    rows = honest.assign(label=ahead)
    assert found(rows, kind="amount") == {}
    mixed = rows.assign(spend_180d=honest["spend"].fillna(0) + ahead)
    assert set(found(mixed, "spend_180d", kind="amount")) == {"spend_180d"}
    tomorrow = rows.assign(tomorrow=np.where((ahead > 0) & (noise(honest, 3) > 1.25), ahead, 0.0))
    (leak,) = inspect(tomorrow, [*HONEST, "tomorrow"], "amount", CITIES)
    assert leak.column == "tomorrow"
    assert "have an amount not above 0" in leak.reason


# --- what the present does not have ----------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.0, 0.7], ids=["idle", "telling"])
@pytest.mark.parametrize("fresh", [np.nan, 0.0], ids=["unknown", "constant"])
def test_what_those_who_are_asked_about_do_not_have_is_named(honest: pd.DataFrame, fresh: float, effect: float) -> None:
    """One value for everyone may be the calendar's, if the column says nothing of its own; unknown never is."""
    rows = honest.assign(contacts=(effect * honest["label"] + noise(honest)).round(1))
    now = shop(seed=5)[HONEST].assign(contacts=fresh)
    assert found(rows, "contacts", now=now.assign(contacts=noise(now).round())) == {}
    named = found(rows, "contacts", now=now)
    assert named == ({"contacts": "gone by now"} if np.isnan(fresh) or effect else {})


def test_without_a_present_the_latest_cutoff_stands_for_it(honest: pd.DataFrame) -> None:
    late = honest["cutoff"] == CUTOFFS[-1]
    assert found(honest.assign(note=np.where(late, np.nan, noise(honest))), "note") == {"note": "gone by now"}


def test_what_began_late_what_has_a_season_and_what_is_the_same_for_all_at_a_cutoff_pass(honest: pd.DataFrame) -> None:
    place = honest["cutoff"].map({c: n for n, c in enumerate(CUTOFFS)}).to_numpy()
    drawn = np.random.default_rng(3).random(len(honest))
    rows = honest.assign(
        began=np.where(place < 2, np.nan, noise(honest)), gifts=(drawn < np.array([0.05, 0.1, 0.6, 0.5])[place]) * 1.0,
        rate=place * 1.0,
    )  # fmt: skip
    now = shop(seed=5)[HONEST].assign(began=noise(honest), gifts=0.0, rate=9.0)
    assert found(rows, "began", "gifts", "rate", now=now) == {}
    assert found(rows, "began", "gifts", "rate") == {}


def test_an_effect_that_the_latest_cutoff_lacks_is_named(honest: pd.DataFrame) -> None:
    """It adds less than what is refused by itself: what tells is that nothing of it is left."""
    late = (honest["cutoff"] == CUTOFFS[-1]).to_numpy()
    weak = 0.85 * honest["label"] * ~late + noise(honest)
    (leak,) = inspect(honest.assign(score=weak), [*HONEST, "score"], "probability", CITIES)
    assert (leak.column, leak.check) == ("score", "effect collapses")
    assert found(honest.assign(score=0.85 * honest["label"] * np.where(late, 0.6, 1.0) + noise(honest)), "score") == {}


def test_what_changes_when_rebuilt_is_named(honest: pd.DataFrame) -> None:
    earlier = honest[["profile_id", "cutoff", *HONEST]].iloc[::3].copy()
    earlier["recency"] *= 1 + 1e-12
    assert found(honest, earlier=earlier) == {}
    earlier.iloc[7, earlier.columns.get_loc("spend")] = -1.0
    earlier.iloc[8, earlier.columns.get_loc("city")] = np.nan if earlier["city"].iloc[8] >= 0 else 1.0
    told = inspect(honest, HONEST, "probability", CITIES, earlier=earlier.sample(frac=1, random_state=0))
    assert [(leak.column, leak.check) for leak in told] == [
        ("city", "changes when rebuilt"), ("spend", "changes when rebuilt")
    ]  # fmt: skip
    assert f"1 of {len(earlier):,} values" in told[0].reason


# --- what it says, and what it is told -------------------------------------------------------------------------------


def test_the_error_names_every_column_and_says_how_to_mend_it() -> None:
    told = [
        Leak("score", "predicts too well", "it adds 20%"),
        Leak("note", "gone by now", "0.0% of 500"),
        Leak("known", "pure bin", "0 of 30", allowed=True),
    ]
    with pytest.raises(DataError) as raised:
        refuse("churn", told)
    text = str(raised.value)
    assert text.startswith("churn: expected features that were known at the cutoff, got 2 ")
    for part in ("score: predicts too well (it adds 20%)", "note: gone by now (0.0% of 500)", "known_since", "delay",
                 "leave the column out", "--allow score --allow note"):  # fmt: skip
        assert part in text
    assert "0 of 30" not in text


def test_allowed_columns_are_flagged_and_do_not_refuse(honest: pd.DataFrame) -> None:
    rows = honest.assign(score=1.5 * honest["label"] + noise(honest))
    told = inspect(rows, [*HONEST, "score"], "probability", CITIES, allowed=["score", "age"])
    assert [(leak.column, leak.allowed) for leak in told] == [("score", True)]
    refuse("churn", told)
    with pytest.raises(DataError, match="score"):
        refuse("churn", [*told, Leak("score", "gone by now", "")])
    refuse("churn", [])


def test_a_missing_column_is_said(honest: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"the rows that will be asked about, got none named city, spend"):
        inspect(honest, HONEST, "probability", CITIES, now=honest[["age", "orders", "recency"]])
    with pytest.raises(DataError, match="the training rows, got none named weight, more"):
        inspect(honest.drop(columns="weight"), [*HONEST, "more"], "probability", CITIES)


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaky(honest: pd.DataFrame) -> pd.DataFrame:
    tomorrow = (honest["label"] == 0) & (noise(honest, 2) > 1.2)
    return honest.assign(score=1.5 * honest["label"] + noise(honest), tomorrow=tomorrow.astype(float))


def test_the_order_of_rows_and_columns_changes_nothing(leaky: pd.DataFrame) -> None:
    columns = [*HONEST, "score", "tomorrow"]
    told = inspect(leaky, columns, "probability", CITIES)
    assert {leak.column for leak in told} == {"score", "tomorrow"}
    shuffled = leaky.sample(frac=1, random_state=4)
    assert inspect(shuffled, columns[::-1], "probability", CITIES) == told


@pytest.mark.parametrize("seed", [11, 12])
def test_a_column_of_noise_changes_no_verdict(leaky: pd.DataFrame, honest: pd.DataFrame, seed: int) -> None:
    columns = ["score", "tomorrow"]
    assert found(leaky.assign(noise=noise(leaky, seed)), *columns, "noise") == found(leaky, *columns)
    assert found(honest.assign(noise=noise(honest, seed)), "noise") == {}


def test_rows_without_weight_or_label_do_not_count(leaky: pd.DataFrame) -> None:
    idle = shop(seed=9).assign(score=0.0, tomorrow=0.0)
    both = pd.concat([leaky, idle.assign(weight=0.0), idle.assign(label=np.nan)], ignore_index=True)
    named = found(both, "score", "tomorrow")
    assert named == found(leaky, "score", "tomorrow")


# --- sets in which there is little or nothing to learn ---------------------------------------------------------------


def small(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    match what:
        case "30 rows":
            return shop(persons=30, cutoffs=1, seed=6)
        case "no rows":
            return rows.iloc[:0]
        case "one class":
            return rows.assign(label=1.0)
        case "constant columns":
            return rows.assign(age=1.0, orders=0.0)
        case "all columns constant":
            return rows.assign(**dict.fromkeys(HONEST, 2.0))
        case "all-null columns":
            return rows.assign(**dict.fromkeys(HONEST, np.nan))
        case "infinite values":
            return rows.assign(spend=np.where(rows["spend"] > 60, np.inf, rows["spend"]))
        case _:
            return rows.assign(person="me")


@pytest.mark.parametrize("kind", ["probability", "amount"])
@pytest.mark.parametrize(
    "what",
    ["30 rows", "no rows", "one class", "constant columns", "all columns constant", "all-null columns",
     "infinite values", "one person"],
)  # fmt: skip
def test_sets_that_teach_nothing_raise_no_alarm(honest: pd.DataFrame, what: str, kind: str) -> None:
    rows = small(honest, what)
    assert found(rows, kind=kind) == {}
    assert found(rows, kind=kind, now=rows[HONEST], earlier=rows) == {}


@pytest.mark.parametrize("seed", range(6))
def test_small_honest_sets_pass(seed: int) -> None:
    assert found(shop(persons=150, cutoffs=2, seed=seed)) == {}
    assert inspect(shop(persons=150, cutoffs=2, seed=seed), ["recency", "age"], "probability", {}) == []


# --- the famous case -------------------------------------------------------------------------------------------------


def calls_of(made: leak_sets.LeakSet) -> list[Leak]:
    """What is found of sales calls, once their duration is a feature like the others."""
    both = leak_sets.LeakSet(
        made.name, made.rows.assign(duration=made.future["duration"]), [*made.columns, "duration"], made.kind,
        made.future,
    )  # fmt: skip
    rows, categories, _ = both.encoded()
    return leaks.inspect(rows, both.columns, both.kind, categories)


def test_the_duration_of_a_call_is_named_and_nothing_else(data_folder: Path) -> None:
    assert [leak.column for leak in calls_of(leak_sets.bank(data_folder))] == ["duration"]


def test_the_duration_of_a_made_up_call_is_named_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "bank_marketing" / "bank_additional_full.parquet"
    file.parent.mkdir()
    leak_tables.calls(np.random.default_rng(0)).to_parquet(file)
    made = leak_sets.bank(tmp_path)
    assert [leak.column for leak in calls_of(made)] == ["duration"]
