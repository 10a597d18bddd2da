"""What did everybody in a profile's company buy? Of a profile without one it is as if nobody had bought."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)


def count(window):
    value = _.order_id.nunique(where=past(days(window)) & bought)
    return Feature(value, "orders of the company", says=f"{{value:order}} of the company in {window} days")


company = FeatureView(
    name="company",
    source="order_line",
    facts_of="account",
    description="Orders of everybody in the profile's account, the profile's own among them.",
    features={
        "company_orders_90d": count(90),
        "company_orders_365d": count(365),
        "company_spend_365d": Feature(
            _.amount.sum(where=past(days(365))).fill_null(0), "spent by the company, refunds deducted", "money"
        ),
        "days_since_company_order": Feature(
            days_since(_.event_at.max(where=bought)), "since the company's last order", "days", "no order, no company",
            "no order of the company for {value}",
        ),
    },
)  # fmt: skip
