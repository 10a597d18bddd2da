"""Which products does a profile come back for, and are they due again? Each product has its own usual gap."""

from foretell import Feature, FeatureView, _

none = "no product bought again"


def products(facts):
    """One row per product bought; due: days since it was bought last, over its usual gap (null of one order day)."""
    lines = facts.filter(~facts.cancelled.fill_null(False), facts.product_id.notnull())
    found = lines.group_by("profile_id", "cutoff", "product_id").aggregate(
        order_days=lines.event_day.nunique(), first=lines.event_at.min(), last=lines.event_at.max(),
        last_day=lines.event_day.max(),
    )  # fmt: skip
    first, last = found["first"].epoch_seconds(), found["last"].epoch_seconds()
    gap = (last - first) / (found.order_days - 1).nullif(0) / 86_400.0
    elapsed = (found.cutoff.epoch_seconds() - last) / 86_400.0
    return found.mutate(
        gap=gap,
        due=elapsed / gap.nullif(0),
        again=found.order_days > 1,
        in_last=found.last_day == found.last_day.max().over(group_by=found.profile_id),
    )


again = _.count(where=_.again)
due = _.count(where=(_.due >= 0.75) & (_.due < 1.5))

items = FeatureView(
    name="items",
    source="order_line",
    each=products,
    description="Products bought on two days or more are bought again; one is due at 0.75 to 1.5 of its usual gap.",
    features={
        "items_bought_again_ever": Feature(again, "products bought again", says="{value:product} bought again"),
        "items_bought_again_share_ever": Feature(
            again / _.count().nullif(0), "products bought again", "share", "no product yet",
            "{value} of products were bought again",
        ),
        "items_due_ever": Feature(due, "products that are due", says="{value:product} due to be bought again"),
        "items_due_share_ever": Feature(
            due / again.nullif(0), "products that are due, of those bought again", "share", none,
            "{value} of products bought again are due",
        ),
        "items_dropped_share_ever": Feature(
            _.count(where=_.due >= 3) / again.nullif(0),
            "products bought again that stay away for three usual gaps", "share", none,
            "{value} of products bought again were not bought for three usual gaps",
        ),
        "median_item_gap_days_ever": Feature(
            _.gap.median(), "the median of the products' usual gaps", "days", none,
            "the same product again every {value}",
        ),
        "last_basket_again_share_ever": Feature(
            _.count(where=_.in_last & _.again) / _.count(where=_.in_last).nullif(0),
            "products of the last order day that were bought before", "share", "no product yet",
            "{value} of the products of the last order day were bought before",
        ),
    },
)  # fmt: skip
