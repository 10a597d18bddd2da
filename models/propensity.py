"""Will an active buyer place an order in the next 30 days?

A project asks the same per product category by a file of its own: `replace(propensity, targets={…})`, see the README.
"""

from foretell import Label, PredictionTask, _, days

propensity = PredictionTask(
    name="propensity",
    population="orders_365d > 0",
    horizon=days(30),
    settle=days(1),
    label=Label(source="order_line", value=_.count(where=~_.cancelled.fill_null(False)) > 0),
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
    purpose="marketing",
)
