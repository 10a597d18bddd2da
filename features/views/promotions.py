"""How much a profile buys at a discount, and whether that is getting more."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)
reduced = (_.discount > 0).fill_null(False) & bought


def share(window):
    of = _.count(where=past(days(window)) & bought).nullif(0)
    value = _.count(where=past(days(window)) & reduced) / of
    says = f"{{value}} of lines were below list price in {window} days"
    return Feature(value, "lines below list price", "share", "no line", says)


def saved(window):
    value = _.discount.sum(where=past(days(window)) & bought).fill_null(0)
    return Feature(value, "saved against list prices", "money", says=f"{{value}} saved in {window} days")


promotions = FeatureView(
    name="promotions",
    source="order_line",
    description="Lines that cost less than their list price; shares are null without a line in the window.",
    features={
        "reduced_lines_90d": Feature(
            _.count(where=past(days(90)) & reduced), "lines below list price",
            says="{value:line} below list price in 90 days",
        ),
        "reduced_line_share_90d": share(90),
        "reduced_line_share_365d": share(365),
        "saved_90d": saved(90),
        "saved_365d": saved(365),
        "days_since_reduced_line": Feature(
            days_since(_.event_at.max(where=reduced)), "since a line below list price", "days",
            "no line below list price yet", "no line below list price for {value}",
        ),
    },
)  # fmt: skip
