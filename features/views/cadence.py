"""How regularly a profile buys: order days, the span they cover, the usual gap and how overdue the next one is."""

from foretell import FeatureView, _, days, days_since, past

bought = ~_.cancelled.fill_null(False)
order_days = _.event_day.nunique(where=bought)
since_first = days_since(_.event_at.min(where=bought))
since_last = days_since(_.event_at.max(where=bought))
usual_gap = (since_first - since_last) / (order_days - 1).nullif(0)

cadence = FeatureView(
    name="cadence",
    source="order_line",
    description="Distinct business days with an order; gaps are null until there are two of them.",
    features={
        "order_days_ever": order_days,
        "order_days_90d": _.event_day.nunique(where=past(days(90)) & bought),
        "days_since_first_order": since_first,
        "days_first_to_last_order": since_first - since_last,
        "mean_gap_days_ever": usual_gap,
        "overdue_ratio_ever": since_last / usual_gap.nullif(0),
        "mean_spend_per_order_day_ever": _.amount.sum() / order_days.nullif(0),
    },
)
