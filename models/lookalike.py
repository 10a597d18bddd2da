"""Who is not among the best customers yet, but will be: the next quarter's top tenth of spenders?"""

from foretell import Enters, PredictionTask, days

lookalike = PredictionTask(
    name="lookalike",
    population="orders_365d > 0",
    horizon=days(90),
    settle=days(1),
    label=Enters("top(spend_90d, 0.1)"),
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
    metric="log_loss",  # by AUC alone, one who predicts something else, such as any purchase, could win
    purpose="marketing",
)
