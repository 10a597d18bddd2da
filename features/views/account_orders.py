"""What did an account (a company) buy: orders, spend and recency of all its people. One row per account."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def count(window):
    value = _.order_id.nunique(where=past(days(window)) & bought)
    return Feature(value, "orders", says=f"{{value:order}} in {window} days")


account_orders = FeatureView(
    name="account_orders",
    source="order_line",
    entity="account",
    description="How often, how much and how recently the people of an account bought.",
    features={
        "orders_90d": count(90),
        "orders_365d": count(365),
        "spend_90d": Feature(_.amount.sum(where=past(days(90))).fill_null(0), "spent, refunds deducted", "money"),
        "spend_365d": Feature(_.amount.sum(where=past(days(365))).fill_null(0), "spent, refunds deducted", "money"),
        "categories_365d": Feature(_.category.nunique(where=past(days(365)) & bought), "categories bought from"),
        "days_since_order": Feature(
            days_since(_.event_at.max(where=bought)), "since the last order", "days", "no order yet",
            "no order for {value}",
        ),
    },
)  # fmt: skip
