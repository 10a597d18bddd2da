"""What a profile is fond of: how its lines spread over categories, brands and products, and what it comes back for."""

from foretell import Feature, FeatureView, _, days, entropy, top_share

bought = ~_.cancelled.fill_null(False)
lines = _.count(where=bought)
none = "no line, or the source does not say which"

affinity = FeatureView(
    name="affinity",
    source="order_line",
    lookback=days(365),
    description="Lines of the last 365 days; null without one, or where the source does not say the category or brand.",
    features={
        "top_category_share_365d": Feature(
            top_share(_.category, where=bought), "lines of the category that has the most of them", "share", none,
            "{value} of lines were of one category in 365 days",
        ),
        "category_entropy_365d": Feature(
            entropy(_.category, where=bought), "how evenly lines spread over categories", "bits", none,
            "variety of categories in 365 days: {value}",
        ),
        "top_brand_share_365d": Feature(
            top_share(_.brand, where=bought), "lines of the brand that has the most of them", "share", none,
            "{value} of lines were of one brand in 365 days",
        ),
        "brand_entropy_365d": Feature(
            entropy(_.brand, where=bought), "how evenly lines spread over brands", "bits", none,
            "variety of brands in 365 days: {value}",
        ),
        "products_365d": Feature(
            _.product_id.nunique(where=bought), "different products bought",
            says="{value:different product} bought in 365 days",
        ),
        "repeat_line_share_365d": Feature(
            1 - _.product_id.nunique(where=bought) / lines.nullif(0),
            "lines of a product that was bought before in the window", "share", "no line",
            "{value} of lines in 365 days were of a product bought before",
        ),
    },
)  # fmt: skip
