"""Does a profile buy more or less than before? The last window over the one before it, and over that of last year."""

from foretell import FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def between(later, earlier):
    """Facts of `[T − earlier, T − later)`."""
    return past(days(earlier)) & ~past(days(later))


def orders(where):
    return _.order_id.nunique(where=where & bought)


def spend(where):
    return _.amount.sum(where=where).fill_null(0)


def a_year_ago(window, value):
    """The value of the same window one year (52 weeks) ago; null for who has not bought for that long."""
    known = days_since(_.event_at.min(where=bought)) >= 364 + window
    return known.ifelse(value(between(364, 364 + window)).cast("float64"), None)


trend = FeatureView(
    name="trend",
    source="order_line",
    description="Ratios are null where the earlier window is empty; last year's without a first order by then.",
    features={
        "orders_30d_over_30d_before": orders(past(days(30))) / orders(between(30, 60)).nullif(0),
        "orders_90d_over_90d_before": orders(past(days(90))) / orders(between(90, 180)).nullif(0),
        "spend_30d_over_30d_before": spend(past(days(30))) / spend(between(30, 60)).nullif(0),
        "spend_90d_over_90d_before": spend(past(days(90))) / spend(between(90, 180)).nullif(0),
        "orders_30d_last_year": a_year_ago(30, orders),
        "orders_90d_last_year": a_year_ago(90, orders),
        "spend_90d_last_year": a_year_ago(90, spend),
    },
)
