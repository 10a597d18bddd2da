"""Will an active buyer order in each of the next three months of thirty days?"""

from foretell import Label, PredictionTask, _, days
from foretell.windows import future

ordered = ~_.cancelled.fill_null(False)
first, second = future(days(30)), future(days(60))

loyalty = PredictionTask(
    name="loyalty",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    label=Label(
        source="order_line",
        value=(_.count(where=ordered & first) > 0)
        & (_.count(where=ordered & second & ~first) > 0)
        & (_.count(where=ordered & ~second) > 0),
    ),
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
