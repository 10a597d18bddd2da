"""Which household is not among the tenth that spends most yet, but will be in the next eight weeks?

The seed is the top tenth of spenders of the last eight weeks; the year is too short for a quarter.
"""

from foretell import Enters, PredictionTask, days

lookalike = PredictionTask(
    name="lookalike",
    population="orders_90d > 0",
    horizon=days(56),
    label=Enters("top(spend_90d, 0.1)"),
    views=("orders", "cadence", "basket", "promotions", "affinity", "coupons", "messages", "household"),
    metric="auc",
    purpose="marketing",
)
