"""What did everybody in a profile's company buy? Of a profile without one it is as if nobody had bought."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)

company = FeatureView(
    name="company",
    source="order_line",
    facts_of="account",
    description="Orders of everybody in the profile's account, the profile's own among them.",
    features={
        "company_orders_90d": Feature(_.order_id.nunique(where=past(days(90)) & bought), "orders of the company"),
        "company_orders_365d": Feature(_.order_id.nunique(where=past(days(365)) & bought), "orders of the company"),
        "company_spend_365d": Feature(
            _.amount.sum(where=past(days(365))).fill_null(0), "spent by the company, refunds deducted", "money"
        ),
        "days_since_company_order": Feature(
            days_since(_.event_at.max(where=bought)), "since the company's last order", "days", "no order, no company"
        ),
    },
)
