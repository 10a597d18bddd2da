"""Will somebody who has ordered once, in the last half-year, come back within 90 days?"""

from foretell import Label, PredictionTask, _, days

repurchase = PredictionTask(
    name="repurchase",
    population="order_days_ever == 1 and orders_180d > 0",
    horizon=days(90),
    settle=days(1),
    label=Label(source="order_line", value=_.count(where=~_.cancelled.fill_null(False)) > 0),
    views=("orders", "cadence", "basket", "coupons", "messages", "traits"),
    metric="log_loss",
    purpose="marketing",
)
