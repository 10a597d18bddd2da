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


def change(value, window, what, many):
    now, before = value(past(days(window))), value(between(window, 2 * window))
    null = f"no {what} in the {window} days before"
    says = f"{{value}} times as {many} in {window} days as in the {window} before"
    return Feature(now / before.nullif(0), f"{what}, over those of the window before", "ratio", null, says)


def a_year_ago(value, window, what, place, unit="count"):
    """The value of the same window one year (52 weeks) ago; null for who has not bought for that long."""
    known = days_since(_.event_at.min(where=bought)) >= 364 + window
    then = value(between(364, 364 + window)).cast("float64")
    null = "no customer yet a year ago"
    says = f"{place} in the same {window} days a year ago"
    return Feature(known.ifelse(then, None), f"{what}, in the same window 52 weeks ago", unit, null, says)


trend = FeatureView(
    name="trend",
    source="order_line",
    description="Ratios are null where the earlier window is empty; last year's without a first order by then.",
    features={
        "orders_30d_over_30d_before": change(orders, 30, "orders", "many orders"),
        "orders_90d_over_90d_before": change(orders, 90, "orders", "many orders"),
        "spend_30d_over_30d_before": change(spend, 30, "money spent", "much spent"),
        "spend_90d_over_90d_before": change(spend, 90, "money spent", "much spent"),
        "orders_30d_last_year": a_year_ago(orders, 30, "orders", "{value:order}"),
        "orders_90d_last_year": a_year_ago(orders, 90, "orders", "{value:order}"),
        "spend_90d_last_year": a_year_ago(spend, 90, "money spent", "{value} spent", "money"),
    },
)
