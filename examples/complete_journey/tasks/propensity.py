"""Will a household that shopped in the last three months come in the next two weeks, and will it buy beer, coffee …?

One question, asked of everything and of each category: propensity, propensity_beer, propensity_coffee, …
"""

from foretell import Label, PredictionTask, _, days

propensity = PredictionTask(
    name="propensity",
    population="orders_90d > 0",
    horizon=days(14),
    label=Label(source="order_line", value=_.count() > 0),
    targets={
        "beer": _.category == "BEERS/ALES",
        "coffee": _.category == "COFFEE",
        "frozen_pizza": _.category == "FROZEN PIZZA",
    },
    views=("orders", "cadence", "gaps", "basket", "coupons", "messages"),
    metric="log_loss",
    purpose="marketing",
)
