"""What did a profile buy of a category? One row per profile and category that it has ever bought from."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def count(window):
    value = _.order_id.nunique(where=past(days(window)) & bought)
    return Feature(value, "orders with the category", says=f"{{value:order}} with the category in {window} days")


category_orders = FeatureView(
    name="category_orders",
    source="order_line",
    entity="profile_category",
    description="How often, how much and how recently a profile bought from a category.",
    features={
        "orders_90d": count(90),
        "orders_365d": count(365),
        "order_days_ever": Feature(
            _.event_day.nunique(where=bought), "business days with the category",
            says="{value:day} with an order of the category so far",
        ),
        "spend_365d": Feature(_.amount.sum(where=past(days(365))).fill_null(0), "spent, refunds deducted", "money"),
        "days_since_order": Feature(
            days_since(_.event_at.max(where=bought)), "since the last order with the category", "days", "returns only",
            "no order with the category for {value}",
        ),
    },
)  # fmt: skip
