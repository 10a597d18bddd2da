"""Does a profile buy more or less than before? The last window over the one before it, and over that of last year."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def between(later, earlier):
    """Facts of `[T − earlier, T − later)`."""
    return past(days(earlier)) & ~past(days(later))


def orders(where):
    return _.order_id.nunique(where=where & bought)


def spend(where):
    return _.amount.sum(where=where).fill_null(0)


def change(value, window, what):
    now, before = value(past(days(window))), value(between(window, 2 * window))
    return Feature(now / before.nullif(0), f"{what}, over those of the window before", "ratio", "none in that window")


def a_year_ago(value, window, what, unit="count"):
    """The value of the same window one year (52 weeks) ago; null for who has not bought for that long."""
    known = days_since(_.event_at.min(where=bought)) >= 364 + window
    then = value(between(364, 364 + window)).cast("float64")
    null = "no customer yet when that window began"
    return Feature(known.ifelse(then, None), f"{what}, in the same window 52 weeks ago", unit, null)


trend = FeatureView(
    name="trend",
    source="order_line",
    description="Ratios are null where the earlier window is empty; last year's without a first order by then.",
    features={
        "orders_30d_over_30d_before": change(orders, 30, "orders"),
        "orders_90d_over_90d_before": change(orders, 90, "orders"),
        "spend_30d_over_30d_before": change(spend, 30, "money spent"),
        "spend_90d_over_90d_before": change(spend, 90, "money spent"),
        "orders_30d_last_year": a_year_ago(orders, 30, "orders"),
        "orders_90d_last_year": a_year_ago(orders, 90, "orders"),
        "spend_90d_last_year": a_year_ago(spend, 90, "money spent", "money"),
    },
)
