"""What a profile bought: order count, spend and recency."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def count(window):
    value = _.order_id.nunique(where=past(days(window)) & bought)
    return Feature(value, "orders", says=f"{{value:order}} in {window} days")


def spend(window):
    return Feature(_.amount.sum(where=past(days(window))).fill_null(0), "spent, refunds deducted", "money")


orders = FeatureView(
    name="orders",
    source="order_line",
    description="How often, how much and how recently; counts leave cancellations out, spend nets them.",
    features={
        "orders_30d": count(30),
        "orders_90d": count(90),
        "orders_180d": count(180),
        "orders_365d": count(365),
        "spend_30d": spend(30),
        "spend_90d": spend(90),
        "spend_365d": spend(365),
        "days_since_order": Feature(
            days_since(_.event_at.max(where=bought)), "since the last order", "days", "no order yet",
            "no order for {value}[, usually every {mean_gap_days_ever}]",
        ),
    },
)  # fmt: skip
