"""Does the shop still sell what a profile buys, and does it sell now? What everybody buys says what is in season."""

from foretell import Feature, FeatureView, _, days

SOME = 20  # lines of an average product that every product is given, so that the few of a rare one say little
none = "no product bought"


def products(facts):
    """One row per profile and product; still: the shop sold it in the last 30 days; pace: its part in what others buy
    in 30 days, over that in a year."""
    lines = facts.filter(~facts.cancelled.fill_null(False), facts.product_id.notnull())
    now = lines.event_at >= lines.cutoff - days(30)
    found = lines.group_by("profile_id", "cutoff", "product_id").aggregate(
        lines=lines.count(), lately=lines.count(where=now), last_day=lines.event_day.max()
    )
    found = found.mutate(
        in_last=found.last_day == found.last_day.max().over(group_by=found.profile_id),
        others=found.lines.sum().over(group_by=found.product_id) - found.lines,
        others_lately=found.lately.sum().over(group_by=found.product_id) - found.lately,
        still=found.lately.sum().over(group_by=found.product_id) > 0,
        usual=found.lately.sum().over(group_by=found.cutoff) / found.lines.sum().over(group_by=found.cutoff),
    )
    share = (found.others_lately + SOME * found.usual) / (found.others + SOME)
    return found.mutate(
        pace=(share / found.usual.nullif(0)).fill_null(1.0)
    )  # where nobody buys any more, nothing is slow


def mean_pace(where=None):
    # a sum of decimals is the same in every order, that of floats is not
    total = _.pace.cast("decimal(38, 9)").sum(where=where).cast("float64")
    return total / _.pace.count(where=where).nullif(0)


in_last = _.count(where=_.in_last).nullif(0)

assortment = FeatureView(
    name="assortment",
    source="order_line",
    lookback=days(365),
    facts_of="everybody",
    each=products,
    description="Products that a profile bought in 365 days, by what all profiles buy of them; null without one.",
    features={
        "items_still_sold_share_365d": Feature(
            _.count(where=_.still) / _.count().nullif(0), "products that somebody bought in the last 30 days", "share",
            none, "{value} of the products bought in 365 days are still being sold",
        ),
        "last_basket_still_sold_share_365d": Feature(
            _.count(where=_.in_last & _.still) / in_last,
            "products of the last order day that somebody bought in the last 30 days", "share", none,
            "{value} of the products of the last order day are still being sold",
        ),
        "item_pace_365d": Feature(
            mean_pace(),
            "how its products sell to others in 30 days, over how they do in a year",
            "ratio", none,
            "its products sell at {value} times their usual pace",
        ),
        "last_basket_pace_365d": Feature(
            mean_pace(_.in_last),
            "how the products of the last order day sell to others in 30 days, over how they do in a year",
            "ratio", none,
            "the products of the last order day sell at {value} times their usual pace",
        ),
    },
)  # fmt: skip
