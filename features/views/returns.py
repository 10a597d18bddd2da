"""What does a profile send back or cancel, how much of what it bought, and how long ago?"""

from foretell import FeatureView, _, days, days_since, past

returned = _.cancelled.fill_null(False)


def share(window):
    return _.count(where=past(window) & returned) / _.count(where=past(window)).nullif(0)


returns = FeatureView(
    name="returns",
    source="order_line",
    description="Cancelled and returned lines; shares are null without a line in the window.",
    features={
        "returned_lines_90d": _.count(where=past(days(90)) & returned),
        "returned_lines_365d": _.count(where=past(days(365)) & returned),
        "returned_line_share_90d": share(days(90)),
        "returned_line_share_365d": share(days(365)),
        "refunded_365d": -_.amount.sum(where=past(days(365)) & returned).fill_null(0),
        "days_since_return": days_since(_.event_at.max(where=returned)),
    },
)
