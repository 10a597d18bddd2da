"""Will an active buyer place no order in the next 90 days?"""

from foretell import Label, PredictionTask, _, days

churn = PredictionTask(
    name="churn",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    # an order is a line that is not a cancellation; the kernel hands the horizon in, so it is said once
    label=Label(source="order_line", value=_.count(where=~_.cancelled.fill_null(False)) == 0),
    views=(
        "orders",
        "cadence",
        "gaps",
        "items",
        "season",
        "assortment",
        "order_size",
        "basket",
        "coupons",
        "messages",
        "traits",
    ),
    metric="log_loss",
    purpose="retention",
)
