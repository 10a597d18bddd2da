"""Which category does a profile like best, and how much of its money goes there?"""

from ibis import row_number

from foretell import Feature, FeatureView, _, days

none = "no line, or the source does not say the category"


def categories(facts):
    """One row per category bought from, with lines, money and order days; place: 0 of the one with most lines."""
    lines = facts.filter(~facts.cancelled.fill_null(False), facts.category.notnull())
    found = lines.group_by("profile_id", "cutoff", "category").aggregate(
        lines=lines.count(), spend=lines.amount.sum(), order_days=lines.event_day.nunique()
    )
    first = [found.lines.desc(), found.spend.desc(), found.category]  # so that two of them never tie
    return found.mutate(place=row_number().over(group_by=found.profile_id, order_by=first))


favourites = FeatureView(
    name="favourites",
    source="order_line",
    lookback=days(365),
    each=categories,
    description="Categories by their lines of the last 365 days; null where the source does not say the category.",
    features={
        "top_category_365d": Feature(
            _.category.max(where=_.place == 0), "the category with most lines", "text", none,
            "buys most from {value} in 365 days",
        ),
        "top_category_spend_share_365d": Feature(
            _.spend.sum(where=_.place == 0) / _.spend.sum().nullif(0), "of money spent, on that category", "share",
            none, "{value} of money went to the favourite category[, {top_category_365d},] in 365 days",
        ),
        "categories_365d": Feature(
            _.count(), "categories bought from", says="bought from {value:category/categories} in 365 days"
        ),
        "categories_again_365d": Feature(
            _.count(where=_.order_days > 1), "categories bought from on two days or more",
            says="bought from {value:category/categories} on two days or more in 365 days",
        ),
    },
)  # fmt: skip
