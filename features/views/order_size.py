"""How large are a profile's orders, how dear what is in them, and was the last one as large as usual?"""

from ibis import row_number

from foretell import Feature, FeatureView, _, days

none = "no order"


def by_order(facts):
    """One row per order: money, pieces, lines; place: 0 of the last."""
    lines = facts.filter(~facts.cancelled.fill_null(False), facts.order_id.notnull())
    found = lines.group_by("profile_id", "cutoff", "order_id").aggregate(
        at=lines.event_at.max(), spend=lines.amount.sum(), pieces=lines.quantity.sum()
    )
    last = [found["at"].desc(), found.order_id]
    return found.mutate(place=row_number().over(group_by=found.profile_id, order_by=last))


usual = _.spend.cast("float64").median()  # of a decimal it would be cut to as many places
last = _.spend.max(where=_.place == 0)

order_size = FeatureView(
    name="order_size",
    source="order_line",
    lookback=days(365),
    each=by_order,
    description="Orders of the last 365 days, without returns; null without one.",
    features={
        "median_order_spend_365d": Feature(
            usual, "paid in the median order", "money", none, "{value} paid in the median order of 365 days"
        ),
        "largest_order_spend_365d": Feature(
            _.spend.max(), "paid in the largest order", "money", none, "{value} paid in the largest order of 365 days"
        ),
        "last_order_spend_365d": Feature(
            last, "paid in the last order", "money", none, "{value} paid in the last order"
        ),
        "last_order_over_median_365d": Feature(
            last.cast("float64") / usual.nullif(0), "paid in the last order, over the median", "ratio", none,
            "the last order was {value} times the median order[ of {median_order_spend_365d}]",
        ),
        "spend_per_piece_365d": Feature(
            _.spend.sum() / _.pieces.sum().nullif(0), "paid a piece", "money", "no order, or no quantities",
            "{value} paid a piece in 365 days",
        ),
    },
)  # fmt: skip
