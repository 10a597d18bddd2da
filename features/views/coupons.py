"""How a profile responds to coupons: what it redeemed, of how many campaigns, and how long ago."""

from foretell import Feature, FeatureView, _, days, days_since, past

redeemed = (
    _.coupon_id.nullif("").notnull() | _.campaign_id.nullif("").notnull()
)  # other facts of such a source are log-ins and views

coupons = FeatureView(
    name="coupons",
    source="redemption",
    description="Redemptions are facts that name a coupon or a campaign; all facts count as contacts.",
    features={
        "coupons_90d": Feature(_.count(where=past(days(90)) & redeemed), "coupons redeemed"),
        "coupons_365d": Feature(_.count(where=past(days(365)) & redeemed), "coupons redeemed"),
        "coupon_campaigns_365d": Feature(
            _.campaign_id.nunique(where=past(days(365)) & redeemed), "campaigns of which a coupon was redeemed"
        ),
        "days_since_coupon": Feature(
            days_since(_.event_at.max(where=redeemed)), "since a coupon was redeemed", "days", "none yet"
        ),
        "coupon_contacts_30d": Feature(_.count(where=past(days(30))), "log-ins, views and redemptions"),
        "days_since_coupon_contact": Feature(
            days_since(_.event_at.max()), "since a log-in, view or redemption", "days", "none yet"
        ),
    },
)
