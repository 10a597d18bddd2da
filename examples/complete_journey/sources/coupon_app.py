"""The coupon app: log-ins, linked cards and redeemed coupons, as nested JSON, by device, card or e-mail."""

from foretell import Source

coupon_app = Source(
    name="coupon_app",
    files="coupon_app/events.jsonl",
    role="redemption",
    event_at="at",
    timezone="America/New_York",
    identifiers={"loyalty_card": "card", "email": '"user".email', "device": "device.id"},
    columns={"kind": "type", "campaign_id": "coupon.campaign", "coupon_id": "coupon.upc"},
)
