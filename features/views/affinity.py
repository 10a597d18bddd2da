"""What a profile is fond of: how its lines spread over categories, brands and products, and what it comes back for."""

from foretell import FeatureView, _, days, entropy, top_share

bought = ~_.cancelled.fill_null(False)
lines = _.count(where=bought)

affinity = FeatureView(
    name="affinity",
    source="order_line",
    lookback=days(365),
    description="Lines of the last 365 days; null without one, or where the source does not say the category or brand.",
    features={
        "top_category_share_365d": top_share(_.category, where=bought),
        "category_entropy_365d": entropy(_.category, where=bought),
        "top_brand_share_365d": top_share(_.brand, where=bought),
        "brand_entropy_365d": entropy(_.brand, where=bought),
        "products_365d": _.product_id.nunique(where=bought),
        "repeat_line_share_365d": 1 - _.product_id.nunique(where=bought) / lines.nullif(0),
    },
)
