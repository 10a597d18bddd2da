"""Does a profile answer what we send, and by which channel best? A redemption that names a campaign answers it."""

from foretell import Feature, FeatureView, _, days, days_since

none, unanswered = "heard of no campaign", "no campaign answered"


def campaigns(facts):
    """One row per campaign heard of; answered: when it was redeemed after it was sent; rate: share answered of those by
    the same channel."""
    named = facts.filter(facts.campaign_id.notnull())
    message, redemption = named.role == "message", named.role == "redemption"
    found = named.group_by("profile_id", "cutoff", "campaign_id").aggregate(
        sent=named.event_at.min(where=message), channel=named.channel.max(where=message),
        redeemed=named.event_at.max(where=redemption),
    )  # fmt: skip
    heard = found.filter(found.sent.notnull())
    heard = heard.mutate(answered=(heard.redeemed >= heard.sent).ifelse(heard.redeemed, None))
    by_channel = {"group_by": [heard.profile_id, heard.channel]}
    return heard.mutate(rate=heard.answered.count().over(**by_channel) / heard.sent.count().over(**by_channel))


answered = _.answered.count()

response = FeatureView(
    name="response",
    source=("message", "redemption"),
    lookback=days(365),
    each=campaigns,
    description="Campaigns heard of in the last 365 days, and whether a redemption that names them followed.",
    features={
        "campaigns_answered_365d": Feature(
            answered, "campaigns answered", says="{value:campaign} answered in 365 days"
        ),
        "campaigns_answered_share_365d": Feature(
            answered / _.count().nullif(0), "campaigns answered, of those heard of", "share", none,
            "{value} of campaigns were answered in 365 days",
        ),
        "best_channel_365d": Feature(
            _.channel.first(where=_.answered.notnull(), order_by=[_.rate.desc(), _.channel]),
            "the channel whose campaigns are answered most often", "text", unanswered, "answers best by {value}",
        ),
        "best_channel_answered_share_365d": Feature(
            _.rate.max(where=_.answered.notnull()), "campaigns answered, of those by that channel", "share",
            unanswered, "{value} of campaigns by the best channel[, {best_channel_365d},] were answered in 365 days",
        ),
        "days_since_answer_365d": Feature(
            days_since(_.answered.max()), "since a campaign was answered", "days", unanswered,
            "no campaign answered for {value}",
        ),
    },
)  # fmt: skip
