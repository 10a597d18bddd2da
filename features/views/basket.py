"""What the baskets look like: size, variety, price level and how much of it is bought at a discount."""

from foretell import FeatureView, _, days

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
        "lines_per_order_90d": _.count(where=recent) / orders.nullif(0),
        "spend_per_order_90d": paid / orders.nullif(0),
        "products_90d": _.product_id.nunique(where=recent),
        "categories_90d": _.category.nunique(where=recent),
        "discount_share_90d": saved / (paid + saved).nullif(0),
    },
)
