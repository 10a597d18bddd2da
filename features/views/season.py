"""Does a profile buy at the same time every year? What it did a year ago, in the days that lie ahead now."""

from foretell import Feature, FeatureView, _, days, past

YEAR = 364  # 52 weeks, so that a weekend meets a weekend
bought = ~_.cancelled.fill_null(False)


def lately(window):
    value = _.event_day.nunique(where=past(days(window)) & bought)
    return Feature(value, "business days with an order", says=f"{{value:day}} with an order in {window} days")


def a_year_ago(earlier, later, when):
    """Order days of `[T − earlier, T − later)`."""
    value = _.event_day.nunique(where=past(days(earlier)) & ~past(days(later)) & bought)
    what = f"days with an order a year ago, {when}"
    return Feature(value, what, says=f"{{value:day}} with an order a year ago, {when}")


season = FeatureView(
    name="season",
    source="order_line",
    lookback=days(YEAR + 30),
    description="Order days of the last year, and those 52 weeks ago around the same date: 0 for who did not buy then.",
    features={
        "order_days_180d": lately(180),
        "order_days_365d": lately(365),
        "order_days_30d_ahead_last_year": a_year_ago(YEAR, YEAR - 30, "in the 30 days from this date"),
        "order_days_90d_ahead_last_year": a_year_ago(YEAR, YEAR - 90, "in the 90 days from this date"),
        "order_days_30d_behind_last_year": a_year_ago(YEAR + 30, YEAR, "in the 30 days before this date"),
        "order_days_58d_around_last_year": a_year_ago(YEAR + 14, YEAR - 44, "around this date"),
    },
)
