"""Will somebody who hears from us redeem a coupon, or answer a campaign, within 30 days?"""

from foretell import Label, PredictionTask, _, days

answered = _.coupon_id.nullif("").notnull() | _.campaign_id.nullif("").notnull()

campaign_response = PredictionTask(
    name="campaign_response",
    population="messages_90d > 0",
    horizon=days(30),
    settle=days(1),
    label=Label(source="redemption", value=_.count(where=answered) > 0),
    views=("orders", "cadence", "basket", "coupons", "messages", "response", "traits"),
    metric="log_loss",
    purpose="marketing",
)
