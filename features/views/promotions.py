"""How much a profile buys at a discount, and whether that is getting more."""

from foretell import FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)
reduced = (_.discount > 0).fill_null(False) & bought


def share(window):
    return _.count(where=past(window) & reduced) / _.count(where=past(window) & bought).nullif(0)


promotions = FeatureView(
    name="promotions",
    source="order_line",
    description="Lines that cost less than their list price; shares are null without a line in the window.",
    features={
        "reduced_lines_90d": _.count(where=past(days(90)) & reduced),
        "reduced_line_share_90d": share(days(90)),
        "reduced_line_share_365d": share(days(365)),
        "saved_90d": _.discount.sum(where=past(days(90)) & bought).fill_null(0),
        "saved_365d": _.discount.sum(where=past(days(365)) & bought).fill_null(0),
        "days_since_reduced_line": days_since(_.event_at.max(where=reduced)),
    },
)
