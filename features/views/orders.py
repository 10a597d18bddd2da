"""What a profile bought: order count, spend and recency."""

from foretell import FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)

orders = FeatureView(
    name="orders",
    source="order_line",
    description="How often, how much and how recently; counts leave cancellations out, spend nets them.",
    features={
        "orders_30d": _.order_id.nunique(where=past(days(30)) & bought),
        "orders_90d": _.order_id.nunique(where=past(days(90)) & bought),
        "orders_180d": _.order_id.nunique(where=past(days(180)) & bought),
        "orders_365d": _.order_id.nunique(where=past(days(365)) & bought),
        "spend_30d": _.amount.sum(where=past(days(30))).fill_null(0),
        "spend_90d": _.amount.sum(where=past(days(90))).fill_null(0),
        "spend_365d": _.amount.sum(where=past(days(365))).fill_null(0),
        "days_since_order": days_since(_.event_at.max(where=bought)),
    },
)
