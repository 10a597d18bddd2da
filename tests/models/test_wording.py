"""Reasons in words: every feature of every view can be said of anybody, and equal profiles are told the same."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MORE_SOURCES, write_shop

from features import build
from features.compiling import frozen, thawed, versioned
from foretell import Feature, FeatureView, _, days, days_since, past
from foretell.declarations import Source
from foretell.discovery import discover
from foretell.errors import DefinitionError
from foretell.views import PLACE
from models.explain import top_reasons
from models.registry import Champion
from models.wording import Wording, number, words
from serving.contract import Terms, contract_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(p.stem for p in (Path(build.__file__).parent / "views").glob("[!_]*.py"))
OF_EXAMPLES = sorted(p.stem for p in EXAMPLES.glob("*/views/[!_]*.py"))
LONGEST = 120
TEXTS = ("Oslo", "Bergen", "A city with a name so long that nobody would ever want to read all of it {value}")
WRONG = re.compile(r"[{}\[\]]|\bnan\b|\binf\b|  | ,|-0(?![.\d])|^[\s,;:]|[\s,;:]$")  # in any sentence
VALUES = (21.4, 0.0, -0.0, 1.0, 0.37, 2.0, 73.9999999, -0.001, 1e300, math.nan, math.inf)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, FeatureView], dict[str, Source]]:
    known = discover(write_shop(tmp_path_factory.mktemp("wording") / "shop", {}, sources=MORE_SOURCES).folder)
    return dict(known.views), dict(known.sources)


@pytest.fixture(scope="module")
def views(shop: tuple[dict[str, FeatureView], Any]) -> dict[str, FeatureView]:
    found = dict(shop[0])
    for example in ("complete_journey", "online_retail"):
        found |= {name: view for name, view in discover(EXAMPLES / example).views.items() if name not in found}
    return found


def categories_of(kept: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    return {column: list(TEXTS) for column, word in kept.items() if word["unit"] == "text"}


@pytest.mark.parametrize("name", [*NAMES, *OF_EXAMPLES])
def test_every_feature_can_be_said_of_anybody(views: dict[str, FeatureView], name: str) -> None:
    """Whether the others are known, unknown or not of the model."""
    kept = words(view for view in views.values() if view.entity == views[name].entity)
    categories = categories_of(kept)

    def largest(column: str) -> float:
        return {"share": 1.0, "text": len(TEXTS) - 1}.get(kept[column]["unit"], 1e9)

    said = 0
    for others in (dict.fromkeys(kept, 2.0), dict.fromkeys(kept, math.nan), {}):
        for typical in (others, {column: largest(column) for column in kept}):
            wording = Wording(kept, categories, typical)
            for feature in views[name].features:
                for value in (*VALUES, largest(feature)):
                    text = wording.text(feature, {**others, feature: value})
                    assert not WRONG.search(text), text
                    assert len(text) <= LONGEST, text
                    said += 1
    assert said == 6 * (len(VALUES) + 1) * len(views[name].features)


@pytest.mark.parametrize("name", [*NAMES, *OF_EXAMPLES])
def test_a_sentence_names_features_that_there_are(views: dict[str, FeatureView], name: str) -> None:
    known = {f for view in views.values() if view.entity == views[name].entity for f in view.features}
    named = {place for doc in views[name].docs.values() for place, *_ in PLACE.findall(doc.says)}
    assert named <= known | {"value", "typical"}


def test_what_is_named_is_said_of_the_same_profile(views: dict[str, FeatureView]) -> None:
    kept = words(view for view in views.values() if view.entity == "profile")
    named = {(f, p) for f, word in kept.items() for p, *_ in PLACE.findall(word["says"])} - {(f, "value") for f in kept}
    assert ("days_since_order", "mean_gap_days_ever") in named
    for feature, other in named:
        wording = Wording(kept, categories_of(kept), {})
        without, with_it = (wording.text(feature, {feature: 0.5, other: value}) for value in (math.nan, 0.0))
        assert len(with_it) > len(without), feature


SAID = {
    "days_since_order": [
        ({"days_since_order": 74.2, "mean_gap_days_ever": 20.9}, "no order for 74 days, usually every 21 days"),
        ({"days_since_order": 1.0, "mean_gap_days_ever": math.nan}, "no order for 1 day"),
        ({"days_since_order": 0.344}, "no order for 0.3 days"),
        ({"days_since_order": math.nan, "mean_gap_days_ever": 21.0}, "no order yet"),
    ],
    "orders_90d": [
        ({"orders_90d": 3.0}, "3 orders in 90 days"),
        ({"orders_90d": 1.0}, "1 order in 90 days"),
        ({"orders_90d": 0.0}, "no orders in 90 days"),
        ({"orders_90d": 1234.0}, "1,234 orders in 90 days"),
        ({"orders_90d": math.nan}, "orders in 90 days: unknown"),
    ],
    "spend_365d": [({"spend_365d": 1234.5}, "1,234.50 spent, refunds deducted, in 365 days")],
    "lines_half_life_30d": [
        ({"lines_half_life_30d": 2.346}, "2.35 lines bought lately, counted half for every 30 days past"),
    ],
    "discount_share_90d": [
        ({"discount_share_90d": 0.374}, "37% of the list price was saved in 90 days"),
        ({"discount_share_90d": math.nan}, "no order, or all for free, in 90 days"),
    ],
    "spend_90d_last_year": [
        ({"spend_90d_last_year": 80.0}, "80 spent in the same 90 days a year ago"),
        ({"spend_90d_last_year": math.nan}, "no customer yet a year ago"),
    ],
    "known_city": [({"known_city": 1.0}, "city: Bergen"), ({"known_city": math.nan}, "city: unknown, nobody says")],
    "top_category_spend_share_365d": [
        (
            {"top_category_spend_share_365d": 0.5, "top_category_365d": 0.0},
            "50% of money went to the favourite category, Oslo, in 365 days",
        ),
        ({"top_category_spend_share_365d": 0.5}, "50% of money went to the favourite category in 365 days"),
    ],
    "overdue_ratio_ever": [
        ({"overdue_ratio_ever": 3.52, "mean_gap_days_ever": 21.0}, "no order for 3.52 times the usual gap of 21 days"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("feature", SAID)
def test_sentences_of_the_standard_views(views: dict[str, FeatureView], feature: str) -> None:
    kept = words(view for view in views.values() if view.entity == "profile")
    for row, text in SAID[feature]:
        assert Wording(kept, categories_of(kept), {}).text(feature, row) == text
    row, text = SAID[feature][0]
    typical = Wording(kept, categories_of(kept), {feature: 0.0}).text(feature, row)
    assert typical.startswith(f"{text} (typical: ")


TRIED = FeatureView(
    name="tried",
    source="order_line",
    features={
        "boxes_90d": Feature(_.count(where=past(days(90))), "boxes", says="{value:box/boxes}[ ({typical} as a rule)]"),
        "plain_90d": Feature(_.count(where=past(days(90))), "boxes sent"),
        "paid_1d": Feature(_.amount.sum(where=past(days(1))), "paid, all in all", "money", "nothing"),
        "ratio_60d": Feature(_.count(where=past(days(30))) / _.count(where=past(days(60))), "now, of all", "share"),
        "silent_hours": Feature(24 * days_since(_.event_at.max()), "since the last box", "hours", "no box yet"),
        "member": Feature(_.count() > 0, "a member", "yes/no"),
        "city": Feature(_.count(), "city", "text", says="lives in {value}[ since {silent_hours}]"),
        "bare": _.count(),
    },
)


def test_sentences_of_what_a_feature_is() -> None:
    """Without a template, a sentence is made of what, unit, null and window; without these, of the name."""
    kept = words([TRIED])
    assert "bare" not in kept

    def said(column: str, value: float, typical: float = math.nan, **others: float) -> str:
        wording = Wording(kept, {"city": ["Oslo", "{silent_hours}\n[x]"]}, {column: typical})
        return wording.text(column, {column: value, **others})

    assert said("plain_90d", 3, 1) == "3 boxes sent in 90 days (typical: 1)"
    assert said("plain_90d", 0) == "no boxes sent in 90 days"
    assert said("plain_90d", 1) == "boxes sent in 90 days: 1"
    assert said("plain_90d", math.nan, 2) == "boxes sent in 90 days: unknown (typical: 2)"
    assert said("paid_1d", 120.5, 80) == "120.50 paid, all in all, in 1 day (typical: 80)"
    assert said("paid_1d", math.nan) == "paid, all in all, in 1 day: unknown, nothing"
    assert said("ratio_60d", 0.25) == "now, of all (30 and 60 days): 25%"
    assert said("silent_hours", 7.25, 1) == "since the last box: 7.2 hours (typical: 1 hour)"
    assert said("silent_hours", math.nan) == "since the last box: unknown, no box yet"
    assert [said("member", value) for value in (1, 0)] == ["a member: yes", "a member: no"]
    assert said("bare", 0.0001234, 2) == "bare: 0.000123 (typical: 2)"
    assert said("bare", math.nan) == "bare: unknown"
    # the typical value is said once, where the sentence says it, and behind it where there is no sentence
    assert said("boxes_90d", 2, 3) == "2 boxes (3 as a rule)"
    assert said("boxes_90d", 1) == "1 box"
    assert said("boxes_90d", math.nan, 3) == "boxes in 90 days: unknown (typical: 3)"
    # what a source holds is said as it is, and fills no place
    assert said("city", 1, 0, silent_hours=3.0) == "lives in {silent_hours} [x] since 3 hours (typical: Oslo)"
    assert said("city", 0) == "lives in Oslo"


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (74.0, "days", "74 days"), (73.9999999, "days", "74 days"), (1.0, "days", "1 day"), (0.96, "days", "1 day"),
        (9.97, "days", "10 days"), (5.25, "days", "5.2 days"), (1e6, "days", "1,000,000 days"),
        (-0.0, "days", "0 days"),
        (1234.5, "money", "1,234.50"), (80.0, "money", "80"), (79.999, "money", "80"), (-0.001, "money", "0"),
        (-20.5, "money", "-20.50"), (1e20, "money", "1e+20"), (0.374, "share", "37%"), (0.0341, "share", "3.4%"),
        (1.0, "share", "100%"), (-0.0, "share", "0%"), (3.0, "count", "3"), (2.3456, "count", "2.35"),
        (1e6, "count", "1,000,000"), (2.5, "ratio", "2.5"), (1.5, "hours", "1.5 hours"), (1.0, "minutes", "1 minute"),
        (41.3, "years", "41 years"), (4.0, "points", "4"), (1.0, "bits", "1 bit"), (1.0, "yes/no", "yes"),
        (-0.0, "yes/no", "no"), (0.1234567, "", "0.123"), (-1234.567, "", "-1,234.57"), (-0.0, "", "0"),
    ],
)  # fmt: skip
def test_numbers_for_people(value: float, unit: str, said: str) -> None:
    assert number(value, unit) == said


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("no order for {value", "says has places such as {value} or {value:order}"),
        ("no order for {}", "says has places such as"), ("no order for {Value}", "says has places such as"),
        ("{value:order:x}", "says has places such as"), ("{value:a/b/c}", "says has places such as"),
        ("{value}[, usually [every {gap}]]", "parts in [square brackets]"), ("{value}]", "parts in [square brackets]"),
        ("{val[ue}]", "says has places such as"), ("no order", "says names {value} outside of square brackets"),
        ("[{value}]", "says names {value} outside of square brackets"),
        ("{value}, usually every {gap}", "says names {value} outside of square brackets, and nothing else there"),
        ("{value} ({typical})", "says names {value} outside of square brackets, and nothing else there"),
        ("{value}[ in all]", "[ in all] names nothing; name a feature in it, or take the brackets away"),
        (3, "says is a sentence, got 3"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_filled_is_refused(says: Any, problem: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(problem)) as refused:
        Feature(_.count(), "orders", says=says)
    assert "test_wording.py" in str(refused.value)
    assert refused.value.fix


def test_words_are_no_part_of_a_version(shop: tuple[dict[str, FeatureView], dict[str, Source]]) -> None:
    """A sentence may be mended without building a view anew, or training a model again."""
    views, sources = shop
    for view in views.values():
        mute = {name: replace(doc, says="") for name, doc in view.docs.items()}
        without = replace(view, features=mute)
        assert not any(doc.says for doc in without.docs.values())
        assert versioned(without, sources) == versioned(view, sources)
        assert frozen(without, sources) == frozen(view, sources)
    assert any(doc.says for view in views.values() for doc in view.docs.values())


def test_words_are_kept_as_json_and_those_of_a_frozen_view_are_not_guessed(
    shop: tuple[dict[str, FeatureView], dict[str, Source]],
) -> None:
    views, sources = shop
    kept = words(views.values())
    assert json.loads(json.dumps(kept)) == kept
    assert kept["orders_90d"] == {
        "says": "{value:order} in 90 days", "what": "orders", "unit": "count", "null": "", "window": "90 days"
    }  # fmt: skip
    assert words([thawed(frozen(views["orders"], sources))]) == {}
    fewer = replace(views["orders"], features={"orders_90d": views["orders"].features["orders_90d"]})
    assert list(words([fewer])) == ["orders_90d"]


def test_equal_profiles_are_told_the_same(views: dict[str, FeatureView]) -> None:
    """Whoever is asked about beside them, and in whatever order rows and columns come."""
    kept = words(view for view in views.values() if view.entity == "profile")
    categories, columns = categories_of(kept), sorted(kept)
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.gamma(1, 30, (40, len(columns))), columns=pd.Index(columns))
    X[list(categories)] = rng.integers(0, len(TEXTS), (len(X), len(categories))).astype(float)
    X = X.mask(rng.random(X.shape) < 0.2)
    contrib = pd.DataFrame(rng.normal(size=X.shape).round(1), columns=X.columns)  # many ties
    background = X.median()

    def told(rows: list[int], order: list[str]) -> list[Any]:
        return top_reasons(contrib.loc[rows, order], X.loc[rows, order], background[order], 5, categories, kept)

    everybody = told(list(X.index), columns)
    assert len({reason["text"] for reasons in everybody for reason in reasons}) > 100
    mixed = list(rng.permutation(columns))
    assert told(list(X.index)[::-1], mixed)[::-1] == everybody
    assert [told([row], mixed)[0] for row in X.index] == everybody


class Sure:
    """A model for which every column adds as much as it is worth."""

    columns_ = ("days_since_order", "mean_gap_days_ever")

    def answers(self, A: np.ndarray) -> np.ndarray:
        return np.full(len(A), 0.5)

    def effects(self, A: np.ndarray) -> tuple[np.ndarray, float]:
        return np.where(np.isnan(A), 0.5, A), 0.0


def test_a_score_is_told_in_the_words_its_model_was_trained_with(views: dict[str, FeatureView]) -> None:
    now = datetime(2024, 7, 1, tzinfo=UTC)
    columns = {"days_since_order": 9.0, "mean_gap_days_ever": 7.0}
    contract = {
        "kind": "probability", "base_rate": 0.5, "estimator": "sure", "service": "churn__0", "columns": list(columns),
        "categories": {}, "background": columns,
    }  # fmt: skip
    X = pd.DataFrame({"days_since_order": [74.0, 1.0], "mean_gap_days_ever": [21.0, math.nan]})

    def told(contract: dict[str, Any]) -> list[str]:
        model = Champion("churn", "1", "run", Sure(), contract)
        terms = Terms(now, now, 1, "retention")
        rows = contract_rows(model, ["a", "b"], X, np.array([0.5]), terms)
        return [row["reasons"][0]["text"] for row in rows]

    assert told({**contract, "words": words([views["orders"], views["cadence"]])}) == [
        "no order for 74 days, usually every 21 days (typical: 9 days), which raises the score",
        "no order for 1 day (typical: 9 days), which raises the score",
    ]
    assert told(contract)[0] == "days_since_order: 74 (typical: 9), which raises the score"
