"""How a profile responds to coupons: what it redeemed, of how many campaigns, and how long ago."""

from foretell import Feature, FeatureView, _, days, days_since, past

redeemed = (
    _.coupon_id.nullif("").notnull() | _.campaign_id.nullif("").notnull()
)  # other facts of such a source are log-ins and views


def count(window):
    value = _.count(where=past(days(window)) & redeemed)
    return Feature(value, "coupons redeemed", says=f"{{value:coupon}} redeemed in {window} days")


coupons = FeatureView(
    name="coupons",
    source="redemption",
    description="Redemptions are facts that name a coupon or a campaign; all facts count as contacts.",
    features={
        "coupons_90d": count(90),
        "coupons_365d": count(365),
        "coupon_campaigns_365d": Feature(
            _.campaign_id.nunique(where=past(days(365)) & redeemed), "campaigns of which a coupon was redeemed",
            says="coupons of {value:campaign} redeemed in 365 days",
        ),
        "days_since_coupon": Feature(
            days_since(_.event_at.max(where=redeemed)), "since a coupon was redeemed", "days", "no coupon redeemed yet",
            "no coupon redeemed for {value}",
        ),
        "coupon_contacts_30d": Feature(
            _.count(where=past(days(30))), "log-ins, views and redemptions",
            says="{value:log-in, view or redemption/log-ins, views and redemptions} of coupons in 30 days",
        ),
        "days_since_coupon_contact": Feature(
            days_since(_.event_at.max()), "since a log-in, view or redemption", "days",
            "no log-in, view or redemption of a coupon yet", "no log-in, view or redemption of a coupon for {value}",
        ),
    },
)  # fmt: skip
