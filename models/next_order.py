"""In how many days will an active buyer order next?

Asked for 90 days: the answer is the expected wait, whoever waits longer counting as 90 days.
"""

from foretell import PredictionTask, Until, _, days

next_order = PredictionTask(
    name="next_order",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    label=Until(source="order_line", only=~_.cancelled.fill_null(False)),
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
    metric="rmse",
    purpose="marketing",
)
