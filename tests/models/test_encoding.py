"""Text becomes codes that mean the same for ever, and the unknown stays unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.encoding import MOST, RAREST, background, decode, encode, learn
from models.estimators import trees
from models.explain import contributions, top_reasons

COLUMNS = ["city", "orders", "member", "rare"]


def rows(seed: int = 0, n: int = 400) -> pd.DataFrame:
    """Features as they come from Feast: text, numbers, true/false with unknowns (objects then)."""
    rng = np.random.default_rng(seed)
    city = rng.choice(np.array(["Oslo", "Bergen", "Vadsø", None], dtype=object), n, p=[0.5, 0.28, 0.02, 0.2])
    return pd.DataFrame({
        "city": city, "orders": rng.integers(0, 9, n), "rare": [f"only {i // 5}" for i in range(n)],
        "member": rng.choice(np.array([True, False, None], dtype=object), n),
    })  # fmt: skip


def test_codes_go_by_frequency_and_the_rare_get_none() -> None:
    found = learn(rows(), COLUMNS)
    assert found == {"city": ["Oslo", "Bergen"], "rare": []}  # of Vadsø there are fewer than it takes
    assert 0 < (rows()["city"] == "Vadsø").sum() < RAREST
    made = encode(rows(), COLUMNS, found)
    assert list(made.columns) == COLUMNS
    assert set(made.dtypes) == {np.dtype(float)}
    city = rows()["city"]
    assert (made.loc[city == "Oslo", "city"] == 0).all()
    assert (made.loc[city == "Bergen", "city"] == 1).all()
    assert made.loc[city.isna() | (city == "Vadsø"), "city"].isna().all()
    assert made["rare"].isna().all()
    member = rows()["member"]
    assert (made["member"].isna() == member.isna()).all()
    assert (made.loc[member.notna(), "member"] == member.dropna().astype(float)).all()
    assert made["orders"].tolist() == rows()["orders"].tolist()


def test_the_order_of_rows_gives_no_other_codes() -> None:
    equal = pd.DataFrame({"city": ["b", "a", "c"] * RAREST})  # as frequent as each other: by name
    assert learn(equal, ["city"]) == learn(equal[::-1], ["city"]) == {"city": ["a", "b", "c"]}
    for seed in range(5):
        mixed = rows().sample(frac=1, random_state=seed)
        assert learn(mixed, COLUMNS) == learn(rows(), COLUMNS)
        pd.testing.assert_frame_equal(
            encode(mixed, COLUMNS, learn(rows(), COLUMNS)).sort_index(), encode(rows(), COLUMNS, learn(rows(), COLUMNS))
        )


def test_at_most_so_many_codes() -> None:
    many = pd.DataFrame({"city": [f"{i % (MOST + 30):03d}" for i in range((MOST + 30) * RAREST)] + ["129"]})
    assert learn(many, ["city"])["city"] == ["129", *(f"{i:03d}" for i in range(MOST - 1))]


@given(st.lists(st.one_of(st.none(), st.sampled_from(["Oslo", "oslo", "", "12", "é", "nan"]), st.text(max_size=3))))
def test_decoding_gives_the_text_back(values: list[str | None]) -> None:
    frame = pd.DataFrame({"city": pd.Series(values, dtype=object)})
    known = learn(pd.concat([frame] * RAREST), ["city"])
    made = encode(frame, ["city"], known)["city"]
    for value, code in zip(values, made, strict=True):
        assert decode("city", code, known) == value
    assert len(known.get("city", [])) == len({value for value in values if value is not None})


def test_a_code_of_nothing_means_nothing() -> None:
    known = {"city": ["Oslo"]}
    assert [decode("city", code, known) for code in (0.0, 1.0, -1.0, np.nan, np.inf)] == ["Oslo", *[None] * 4]
    assert decode("orders", 0.0, known) is None


@pytest.mark.parametrize("unknown", [[None] * 30, [np.nan] * 30])
def test_text_of_which_training_saw_none_is_unknown(unknown: list[Any]) -> None:
    """A source that began after the cutoffs learned from: its text comes later, at the evaluation or in scoring."""
    before, after = pd.DataFrame({"city": unknown}), pd.DataFrame({"city": [None, "Oslo", "12"]})
    known = learn(before, ["city"])
    assert encode(before, ["city"], known)["city"].isna().all()
    assert encode(after, ["city"], known)["city"].isna().all()
    assert encode(after[1:2], ["city"], known)["city"].isna().all()


def test_one_row_and_no_row_are_encoded_alike() -> None:
    known = learn(rows(), COLUMNS)
    made = encode(rows(), COLUMNS, known)
    for i in range(20):
        pd.testing.assert_frame_equal(encode(rows()[i : i + 1], COLUMNS, known), made[i : i + 1])
    assert encode(rows()[:0], COLUMNS, known).shape == (0, 4)


def test_the_typical_profile_lives_in_the_most_frequent_city() -> None:
    known = learn(rows(), COLUMNS)
    typical = background(encode(rows(), COLUMNS, known), known)
    assert decode("city", typical["city"], known) == "Oslo"
    assert typical["orders"] == rows()["orders"].median()
    assert np.isfinite(list(typical.values())).all()


def test_a_category_decides_and_the_reasons_name_it() -> None:
    """A middle code is the good one: a model that took codes for quantities would need two splits, and no reason
    could name a text."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "city": rng.choice(["Oslo", "Bergen", "Tromsø"], 3000, p=[0.5, 0.3, 0.2]), "orders": rng.integers(0, 9, 3000)
    })  # fmt: skip
    y = rng.random(3000) < np.where(frame["city"] == "Bergen", 0.9, 0.1)
    known = learn(frame, ["city", "orders"])
    X = encode(frame, ["city", "orders"], known)
    model: Any = trees("probability", 30, num_threads=1, categorical=known)
    model.fit(X, y)
    typical = pd.Series(background(X, known))
    asked = pd.DataFrame({"city": ["Bergen", "Tromsø", "Vadsø"], "orders": [3, 3, 3]})
    codes = encode(asked, ["city", "orders"], known)
    p = model.predict_proba(codes)[:, 1]
    assert p[0] > 0.8
    assert p[1] < 0.2
    assert np.isfinite(p[2])
    reasons = top_reasons(contributions(model, codes, typical), codes, typical, 1, known)
    assert [row[0]["text"] for row in reasons[:2]] == [
        "city: Bergen (typical: Oslo), which raises the score",
        "city: Tromsø (typical: Oslo), which lowers the score",
    ]
    assert reasons[2][0]["text"].startswith("city: unknown (typical: Oslo)")
    assert reasons[2][0]["value"] is None
