"""Will a household that shopped in the last three months stay away for the next four weeks?

A grocer's customer comes weekly: four weeks without a basket is a long time, and ninety days would be too late to act.
"""

from foretell import Label, PredictionTask, _, days

churn = PredictionTask(
    name="churn",
    population="orders_90d > 0",
    horizon=days(28),
    settle=days(1),
    label=Label(source="order_line", value=_.count() == 0),
    views=("orders", "cadence", "gaps", "basket", "coupons", "messages"),
    metric="log_loss",
    purpose="retention",
)
