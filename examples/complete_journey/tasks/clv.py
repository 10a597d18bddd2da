"""What will a household that shopped in the last three months spend in the next eight weeks?"""

from foretell import Label, PredictionTask, _, days

clv = PredictionTask(
    name="clv",
    population="orders_90d > 0",
    horizon=days(56),
    settle=days(1),
    label=Label(source="order_line", value=_.amount.sum().fill_null(0)),
    views=("orders", "cadence", "gaps", "decay", "basket", "coupons", "messages"),
    metric="mae",
    purpose="retention",
)
