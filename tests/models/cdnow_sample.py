"""The CDNOW sample of Fader & Hardie: 2,357 customers who first bought in early 1997, and what they bought since."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

TEST_DATA = os.environ.get("FORETELL_TEST_DATA")
CALIBRATION = "1997-09-30"  # the first 39 of 78 weeks


@cache
def purchases() -> pd.DataFrame:
    """One row per customer and day: sample_id, date, value. Skips the test where the sample is not at hand."""
    if not TEST_DATA:
        pytest.skip("FORETELL_TEST_DATA is not set: the CDNOW sample is not at hand")
    lines = pd.read_parquet(Path(TEST_DATA) / "cdnow" / "sample.parquet")
    lines["date"] = pd.to_datetime(lines["date"])
    return lines.groupby(["sample_id", "date"], as_index=False)["value"].sum()


def histories(last: str = CALIBRATION) -> pd.DataFrame:
    """Per customer: the columns the estimators read, from all days up to and with the last."""
    days = purchases()
    seen = (
        days[days["date"] <= last]
        .groupby("sample_id")
        .agg(first=("date", "min"), latest=("date", "max"), order_days_ever=("date", "size"), spend=("value", "mean"))
    )
    return pd.DataFrame(
        {
            "order_days_ever": seen["order_days_ever"].astype(float),
            "days_first_to_last_order": (seen["latest"] - seen["first"]).dt.days.astype(float),
            "days_since_first_order": (pd.Timestamp(last) - seen["first"]).dt.days.astype(float),
            "mean_spend_per_order_day_ever": seen["spend"],
        }
    )


def repeat_values(last: str = CALIBRATION) -> pd.DataFrame:
    """Per customer with a repeat purchase worth something: their number (size) and mean value (mean)."""
    days = purchases()
    days = days[days["date"] <= last]
    repeat = days[days["date"] > days.groupby("sample_id")["date"].transform("min")]
    found = repeat.groupby("sample_id")["value"].agg(["size", "mean"]).astype(float)
    return found[found["mean"] > 0]
