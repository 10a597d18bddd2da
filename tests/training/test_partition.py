"""Groups by rule: planted ones are found, none is made up, and whatever the tree, everyone is in exactly one."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from foretell.errors import DataError
from segments.predicate import parse
from training import partition, spelling
from training.naming import names, slugs
from training.partition import Bounds, Split, assign, bounds, find, grow, scaled, shortest
from training.spelling import spelled


def planted(seed: int, groups: int = 4, n: int = 1200, unknown: float = 0.0) -> tuple[pd.DataFrame, np.ndarray]:
    """Profiles around points that lie apart in every measure, and which point each is of."""
    rng = np.random.default_rng(seed)
    centres = np.array([rng.permutation(groups) for _ in range(3)]).T * 1.2
    truth = rng.integers(0, groups, n)
    X = pd.DataFrame(np.exp(centres[truth] + rng.normal(0, 0.2, (n, 3))), columns=["a", "b", "c"])
    return X.mask(rng.random(X.shape) < unknown), truth


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [3, 5])
def test_planted_groups_are_found(seed: int, groups: int) -> None:
    X, truth = planted(seed, groups)
    found, tried = find(X)
    mine = assign(found.tree, X)
    assert found.groups == groups
    assert adjusted_rand_score(truth, mine) > 0.95
    assert found.holds
    assert found.found_again.min() > 0.95
    assert found.agreement > 0.95
    assert found.explained == pytest.approx(partition.explained(scaled(X), mine))
    assert found.explained == pytest.approx(found.kmeans, abs=0.02)
    assert list(tried["groups"]) == list(range(3, 9))
    assert tried.set_index("groups").loc[groups, "explained"] == found.explained


def test_what_is_unknown_can_mark_a_group() -> None:
    X, truth = planted(1, 3)
    X.loc[truth == 0, "c"] = np.nan
    found, _ = find(X)
    assert adjusted_rand_score(truth, assign(found.tree, X)) > 0.95


def test_groups_that_are_asked_for_are_given_with_how_they_hold() -> None:
    X, truth = planted(0, 3)
    found, tried = find(X, 6)
    assert found.groups == 6
    assert not found.holds
    assert found.found_again.min() < 0.85
    assert list(tried["groups"]) == [6]
    finer = pd.crosstab(assign(found.tree, X), truth).to_numpy()
    assert (finer.max(axis=1) / finer.sum(axis=1)).min() > 0.95  # each is a part of one


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["normal", "exponential", "lumps"])
def test_no_groups_are_made_up(shape: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: np.exp(rng.normal(size=(1500, 4))),
        "exponential": lambda: rng.exponential(100, (1500, 4)),
        "lumps": lambda: rng.choice([0, 1, 30], p=[0.5, 0.3, 0.2], size=(1500, 4)),  # splits well, each by itself
    }[shape]()
    with pytest.raises(DataError) as error:
        find(pd.DataFrame(values, columns=list("abcd"), dtype=float))
    assert str(error.value).startswith("groups: expected groups that would be found again, got none: ")
    assert str(error.value).endswith(
        "; look at features that tell different things (--by), at other profiles (--among), or insist (--groups)"
    )


def test_a_cloud_along_a_line_is_no_groups() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(np.exp(rng.normal(size=(2000, 1)) + 0.5 * rng.normal(size=(2000, 3))), columns=list("abc"))
    with pytest.raises(DataError, match=r"another sample has \d+% of the weakest in common, below 85%; look at"):
        find(X)


def test_bad_input_is_refused() -> None:
    X, _ = planted(0)
    alike = X.assign(a=1.0, b=np.nan)
    lumps = pd.DataFrame({"a": [1.0] * 95 + [2.0] * 5, "b": [1.0] * 97 + [0.0] * 3})
    endless = X.copy()
    endless.loc[[3, 5], "b"] = [np.inf, -np.inf]
    few = "expected at least 100 profiles to find groups among, got {}; loosen --among, or load more data"
    vary = "groups: expected at least two features that differ between profiles, got {}; name others with --by, "
    cases: list[tuple[pd.DataFrame, int | None, str]] = [
        *((X.head(n), None, f"groups: {few.format(n)}") for n in (0, 1, 30, 99)),
        (endless, None, "b: expected finite numbers or null, got 2 that are infinite or no number; mend its view, as "),
        (alike, None, vary.format("1 (c)")),
        (alike[["a", "b"]], None, vary.format("0")),
        (X[["a"]], None, vary.format("1 (a)")),
        (lumps, None, "groups: expected groups that would be found again, got none: too many profiles are alike for 3"),
        (
            X.head(120),
            7,
            "groups: expected 7 of at least 20 profiles each, got fewer among 120; ask for fewer, or look",
        ),
        (X, 1, "groups: expected 2 to 12 of them, got 1; ask for groups=5, or leave it out"),
        (X, 13, "groups: expected 2 to 12 of them, got 13; ask for groups=5, or leave it out"),
    ]
    for rows, groups, says in cases:
        with pytest.raises(DataError) as error:
            find(rows, groups)
        assert str(error.value).startswith(says)


def test_equal_rows_equal_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    X, truth = planted(2, unknown=0.05)
    one, other = find(X), find(X.copy())
    assert one[0].tree == other[0].tree
    pd.testing.assert_frame_equal(one[1], other[1])
    monkeypatch.setattr(partition, "ROWS", 500)  # of many rows some are learned from, and all are assigned
    assert adjusted_rand_score(truth, assign(find(X)[0].tree, X)) > 0.75


# --- rules -----------------------------------------------------------------------------------------------------------


def random_tree(rng: np.random.Generator, leaves: list[int], depth: int = 0) -> Split | int:
    if depth == 4 or (depth and rng.random() < 0.3):
        leaves.append(len(leaves))
        return leaves[-1]
    feature, unknown_low = str(rng.choice(["a", "b"])), bool(rng.random() < 0.5)
    threshold = float(rng.choice([np.inf, *rng.normal(0, 3, 5), 1.0, 2.0], p=[0.1, *[0.9 / 7] * 7]))
    low = random_tree(rng, leaves, depth + 1)
    return Split(feature, threshold, unknown_low and threshold < np.inf, low, random_tree(rng, leaves, depth + 1))


def selected(rule: str, rows: pd.DataFrame) -> set[Any]:
    """Who satisfies a rule, by DuckDB."""
    query = parse(rule).bind(dict.fromkeys(rows.columns, "DOUBLE")).sql("rows")
    return {profile for (profile,) in duckdb.execute(query).fetchall()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rules_are_exhaustive_and_disjoint_and_say_what_the_tree_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, [])
    cuts = [1.0, 2.0, np.nan, 0.0, 1e300, -1e300]
    rows = pd.DataFrame({c: np.where(rng.random(80) < 0.5, rng.choice(cuts, 80), rng.normal(0, 3, 80)) for c in "ab"})
    rows.insert(0, "profile_id", np.arange(80))
    mine = assign(tree, rows)
    for group, limits in bounds(tree):
        if limits_nobody(limits):
            assert not (mine == group).any()
            continue
        rule = spelled(parse("a > -1e308 or a is null"), limits, set())
        assert selected(rule, rows) == set(rows["profile_id"][mine == group])


def limits_nobody(limits: dict[str, Bounds]) -> bool:
    """A random tree may ask for more than 2 of what has at most 1."""
    return any(b.above >= b.most and not b.unknown for b in limits.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_grown_trees_have_every_group_and_round_numbers_move_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [rng.exponential(10, 300), rng.poisson(2, 300), rng.normal(0, 1e-6, 300), rng.lognormal(20, 9, 300)]
    X = pd.DataFrame(dict(zip("abcd", kinds, strict=True)), dtype=float)
    X = X.mask(rng.random(X.shape) < rng.choice([0.0, 0.3]))
    k = int(rng.integers(2, 9))
    tree, exact = grow(X, scaled(X), k), None
    if tree is None:
        return
    mine = assign(tree, X)
    assert np.bincount(mine, minlength=k).min() >= 10
    assert [g for g, _ in bounds(tree)] == list(range(k))
    blur, partition.BLUR = partition.BLUR, 0.0
    try:
        exact = grow(X, scaled(X), k)
    finally:
        partition.BLUR = blur
    assert exact is not None
    assert (assign(exact, X) == mine).mean() > 0.9


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e9), st.floats(0, 1))
def test_thresholds_are_the_shortest_numbers(least: float, width: float, part: float) -> None:
    below = least + width
    if not least < below:
        return
    found = shortest(least, below, least + part * width)
    assert least <= found < below
    for power in range(14, -14, -1):  # the coarsest grid with a point inside
        step = Fraction(10) ** power
        if (point := ceil(Fraction(least) / step)) * step < Fraction(below):
            assert found == least or _digits(Decimal(repr(found))) <= _digits(Decimal(point))
            return


def _digits(number: Decimal) -> int:
    return len("".join(map(str, number.as_tuple().digits)).strip("0"))


def test_numbers_that_people_say() -> None:
    cases = [
        ((3, 4, 3.5), 3), ((88.2, 93.1, 91.7), 90), ((178.6, 184.9, 181.0), 180), ((0.0, 1.0, 0.5), 0),
        ((-2.5, 7.0, 1.0), 0), ((-7.4, -6.6, -7.0), -7), ((1234.5, 1234.75, 1234.6), 1234.6),
        ((99.5, 100.5, 99.9), 100),
        ((0.0123, 0.0141, 0.0130), 0.013), ((949.0, 1051.0, 990.0), 1000), ((1.05e18, 1.2e18, 1.1e18), 1.1e18),
    ]  # fmt: skip
    assert [shortest(*interval) for interval, _ in cases] == [said for _, said in cases]


def test_rules_are_short_where_nobody_can_be_unknown() -> None:
    limits = {"a": Bounds(1.0, 3.0, True), "b": Bounds(-np.inf, 0.25, False), "c": Bounds(np.inf, np.inf, True)}
    assert spelled(None, limits, set()) == "(a > 1 and a <= 3 or a is null) and b <= 0.25 and c is null"
    assert spelled(parse("x > 0 or y > 0"), limits, {"a"}) == (
        "(x > 0 or y > 0) and a > 1 and a <= 3 and b <= 0.25 and c is null"
    )
    assert spelled(parse("x > 0"), {"a": Bounds(unknown=False), "b": Bounds(-1e-7, 1e22)}, set()) == (
        "x > 0 and a is not null and (b > -1e-07 and b <= 1e+22 or b is null)"
    )
    third = {"a": Bounds(0.1 + 0.2, np.inf, False)}
    assert selected(spelled(None, third, set()), pd.DataFrame({"profile_id": [1, 2], "a": [0.3, 0.1 + 0.2]})) == set()


def test_what_the_population_is_sure_to_know() -> None:
    said = {"window": "ever", "what": "", "unit": "days", "says": ""}
    words = {"since": {**said, "null": "no order"}, "first": {**said, "null": "no order"}, "n": {**said, "null": ""}}
    X = pd.DataFrame({"since": [1.0], "first": [1.0], "n": [1.0], "gap": [1.0], "lone": [np.nan]})

    def certain(rule: str) -> set[str]:
        return spelling.certain(parse(rule) if rule else None, list(X.columns), words, X)

    assert certain("") == {"n"}
    assert certain("city = 'Oslo'") == {"n"}
    assert certain("since <= 365") == {"since", "first", "n"}
    assert certain("365 >= since and (gap between 1 and 3)") == {"since", "first", "n", "gap"}
    assert certain("since <= 365 or gap > 1") == {"n"}
    assert certain("coalesce(since, 0) <= 365 and not gap > 1 and lone is null") == {"n"}


# --- names -----------------------------------------------------------------------------------------------------------

WORDS = {
    "boxes_90d": {"what": "boxes sent back, of all", "unit": "count", "null": "", "says": "", "window": "90 days"},
    "gap_ever": {
        "what": "between two visits",
        "unit": "days",
        "null": "one visit",
        "says": "comes every {value}",
        "window": "ever",
    },
    "paid_ever": {"what": "paid in advance", "unit": "money", "null": "", "says": "", "window": "ever"},
}


def test_names_say_what_sets_a_group_apart() -> None:
    at_most, more = Bounds(most=1.0, unknown=False), Bounds(above=1.0)
    known = ("days_since_first_order", "orders_365d", "spend_365d", "days_since_order")

    def name(rule: dict[str, Bounds], *standing: float) -> str:
        return names([rule], [dict(zip(known, standing, strict=True))], {})[0]

    assert name({"orders_365d": more}, 0.6, 0.9, 0.95, 0.1) == "frequent big spenders, here lately"
    assert name({"days_since_first_order": at_most, "orders_365d": at_most}, 0.1, 0.2, 0.4, 0.5) == (
        "new one-time buyers"
    )
    assert name({"days_since_order": more, "orders_365d": Bounds(most=3.0)}, 0.5, 0.3, 0.3, 0.9) == (
        "occasional buyers, away for long"
    )
    assert name({"days_since_order": more}, 0.5, 0.5, 0.5, 0.52) == "here a while ago"
    assert name({"days_since_order": Bounds(unknown=False)}, 0.5, 0.6, 0.5, 0.5) == "everybody else"
    same = {"orders_90d": at_most, "order_days_ever": at_most}
    assert names([same], [dict.fromkeys(same, 0.2)], {}) == ["one-time buyers"]


def test_features_speak_in_the_words_of_their_view() -> None:
    rules = [{"boxes_90d": Bounds(most=2.0), "paid_ever": Bounds(above=2.0)}, {"gap_ever": Bounds(above=np.inf)}]
    rules.append({"luck": Bounds(above=0.3)})
    standing = [
        {"boxes_90d": 0.2, "gap_ever": 0.5, "paid_ever": 0.9, "luck": 0.5},
        {"boxes_90d": 0.5, "gap_ever": np.nan, "paid_ever": 0.5, "luck": 0.5},
        {"boxes_90d": 0.5, "gap_ever": 0.9, "paid_ever": 0.5, "luck": 0.6},
    ]
    assert names(rules, standing, WORDS) == [
        "few boxes sent back, much paid in advance", "one visit", "long between two visits, rather high luck",
    ]  # fmt: skip


def test_no_two_names_are_alike() -> None:
    rule = {"boxes_90d": Bounds(most=2.0)}
    standing = [{"boxes_90d": 0.1, "gap_ever": gap, "paid_ever": 0.5} for gap in (0.6, 0.4, 0.4)]
    assert names([rule] * 3, standing, WORDS) == [
        "few boxes sent back, rather long between two visits", "few boxes sent back, rather short between two visits, "
        "rather little paid in advance", "few boxes sent back, rather short between two visits, rather little paid in "
        "advance (2)",
    ]  # fmt: skip
    long = "few boxes sent back, rather short between two visits, rather little paid in advance"
    assert slugs(["Été, chez nous", long, f"{long} (2)", "?", "!"]) == [
        "été-chez-nous", "few-boxes-sent-back-rather-short-between-two-visits-rather",
        "few-boxes-sent-back-rather-short-between-two-visits-rather-2", "group", "group-2",
    ]  # fmt: skip
