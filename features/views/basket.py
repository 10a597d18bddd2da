"""What the baskets look like: size, variety, price level and how much of it is bought at a discount."""

from foretell import Feature, FeatureView, _, days

recent = ~_.cancelled.fill_null(False)
orders = _.order_id.nunique(where=recent)
paid = _.amount.sum(where=recent)
saved = _.discount.sum(where=recent).fill_null(0)

basket = FeatureView(
    name="basket",
    source="order_line",
    lookback=days(90),
    description="Baskets of the last 90 days; ratios are null without one.",
    features={
        "lines_per_order_90d": Feature(
            _.count(where=recent) / orders.nullif(0), "lines an order", "ratio", "no order",
            "{value:line} an order in 90 days",
        ),
        "spend_per_order_90d": Feature(
            paid / orders.nullif(0), "paid an order", "money", "no order", "{value} paid an order in 90 days"
        ),
        "products_90d": Feature(
            _.product_id.nunique(where=recent), "different products bought",
            says="{value:different product} bought in 90 days",
        ),
        "categories_90d": Feature(
            _.category.nunique(where=recent), "different categories bought from",
            says="bought from {value:category/categories} in 90 days",
        ),
        "discount_share_90d": Feature(
            saved / (paid + saved).nullif(0), "of the list price, what was saved", "share", "no order, or all for free",
            "{value} of the list price was saved in 90 days",
        ),
    },
)  # fmt: skip
