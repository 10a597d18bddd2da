"""How a profile responds to coupons: what it redeemed, of how many campaigns, and how long ago."""

from foretell import FeatureView, _, days, days_since, past

redeemed = _.coupon_id.notnull() | _.campaign_id.notnull()  # other facts of such a source are log-ins and views

coupons = FeatureView(
    name="coupons",
    source="redemption",
    description="Redemptions are facts that name a coupon or a campaign; all facts count as contacts.",
    features={
        "coupons_90d": _.count(where=past(days(90)) & redeemed),
        "coupons_365d": _.count(where=past(days(365)) & redeemed),
        "coupon_campaigns_365d": _.campaign_id.nunique(where=past(days(365)) & redeemed),
        "days_since_coupon": days_since(_.event_at.max(where=redeemed)),
        "coupon_contacts_30d": _.count(where=past(days(30))),
        "days_since_coupon_contact": days_since(_.event_at.max()),
    },
)
