"""How much will an active buyer spend in the next 90 days?"""

from foretell import Label, PredictionTask, _, days

clv = PredictionTask(
    name="clv",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    label=Label(source="order_line", value=_.amount.sum().fill_null(0)),
    views=("orders", "cadence", "gaps", "items", "decay", "basket", "coupons", "messages", "traits"),
    metric="mae",
    purpose="retention",
)
