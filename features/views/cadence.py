"""How regularly a profile buys: order days, the span they cover, the usual gap and how overdue the next one is."""

from foretell import Feature, FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)
order_days = _.event_day.nunique(where=bought)
since_first = days_since(_.event_at.min(where=bought))
since_last = days_since(_.event_at.max(where=bought))
few = "fewer than two order days"
usual_gap = (since_first - since_last) / (order_days - 1).nullif(0)

cadence = FeatureView(
    name="cadence",
    source="order_line",
    description="Distinct business days with an order; gaps are null until there are two of them.",
    features={
        "order_days_ever": Feature(
            order_days, "business days with an order", says="{value:day} with an order so far"
        ),
        "order_days_90d": Feature(
            _.event_day.nunique(where=past(days(90)) & bought), "business days with an order",
            says="{value:day} with an order in 90 days",
        ),
        "days_since_first_order": Feature(
            since_first, "since the first order", "days", "no order yet", "first order {value} ago"
        ),
        "days_first_to_last_order": Feature(
            since_first - since_last, "from the first order to the last", "days", "no order yet",
            "{value} from the first order to the last",
        ),
        "mean_gap_days_ever": Feature(
            usual_gap, "between two order days, on average", "days", few, "an order every {value} on average"
        ),
        "overdue_ratio_ever": Feature(
            since_last / usual_gap.nullif(0), "since the last order, over the usual gap", "ratio", few,
            "no order for {value} times the usual gap[ of {mean_gap_days_ever}]",
        ),
        "mean_spend_per_order_day_ever": Feature(
            _.amount.sum() / order_days.nullif(0), "spent an order day, refunds deducted", "money", "no order yet",
            "{value} spent an order day, refunds deducted",
        ),
    },
)  # fmt: skip
