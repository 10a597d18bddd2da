"""Rows are encoded the same whether they come as a table or one by one (a request of the service)."""

from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoding import encode, encode_rows

CATEGORIES = {"city": ["Oslo", "Bergen"], "channel": []}
COLUMNS = ["orders", "city", "spend", "member", "channel", "late"]
rows = st.fixed_dictionaries({
    "orders": st.none() | st.integers(-(2**53), 2**53), "spend": st.none() | st.floats(),
    "city": st.none() | st.sampled_from(["Oslo", "Bergen", "oslo", "Tromsø", ""]), "member": st.none() | st.booleans(),
    "channel": st.none() | st.text(max_size=3), "unused": st.text(max_size=3),
    "late": st.none() | st.text(max_size=3),  # text of which training had none

})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8))
def test_one_by_one_is_as_a_table(made: list[dict]) -> None:
    table = pd.DataFrame(made).astype(object)
    expected = encode(table.where(table.notna(), None), COLUMNS, CATEGORIES)
    pd.testing.assert_frame_equal(encode_rows(made, COLUMNS, CATEGORIES), expected, check_exact=True)


def test_no_rows() -> None:
    assert encode_rows([], COLUMNS, CATEGORIES).shape == (0, 6)
