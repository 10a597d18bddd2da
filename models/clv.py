"""How much will an active buyer spend in the next 90 days?"""

from foretell import Label, PredictionTask, _, days

clv = PredictionTask(
    name="clv",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    label=Label(source="order_line", value=_.amount.sum().fill_null(0)),
    views=("orders", "cadence", "gaps", "items", "decay", "basket", "coupons", "messages", "traits"),
    # who comes before whom, as budgets are spread by that; a mean absolute error would be best for the median, which is
    # nothing. That sums are no worse is watched beside.
    metric="norm_gini",
    purpose="retention",
)
