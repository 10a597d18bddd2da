"""What does a profile send back or cancel, how much of what it bought, and how long ago?"""

from foretell import Feature, FeatureView, _, days, days_since, past

returned = _.cancelled.fill_null(False)


def count(window):
    value = _.count(where=past(days(window)) & returned)
    what = "returned or cancelled"
    return Feature(value, f"lines {what}", says=f"{{value:line}} {what} in {window} days")


def share(window):
    value = _.count(where=past(days(window)) & returned) / _.count(where=past(days(window))).nullif(0)
    says = f"{{value}} of lines were returned or cancelled in {window} days"
    return Feature(value, "lines returned or cancelled, of all", "share", "no line", says)


returns = FeatureView(
    name="returns",
    source="order_line",
    description="Cancelled and returned lines; shares are null without a line in the window.",
    features={
        "returned_lines_90d": count(90),
        "returned_lines_365d": count(365),
        "returned_line_share_90d": share(90),
        "returned_line_share_365d": share(365),
        "refunded_365d": Feature(
            -_.amount.sum(where=past(days(365)) & returned).fill_null(0), "paid back", "money"
        ),
        "days_since_return": Feature(
            days_since(_.event_at.max(where=returned)), "since the last return or cancellation", "days",
            "nothing returned or cancelled yet", "last return or cancellation {value} ago",
        ),
    },
)  # fmt: skip
