"""How much a profile hears from us: messages and campaigns by window, and how long ago the last one was."""

from foretell import Feature, FeatureView, _, days, days_since, past


def count(window):
    return Feature(_.count(where=past(days(window))), "messages", says=f"{{value:message}} in {window} days")


messages = FeatureView(
    name="messages",
    source="message",
    description="Messages sent, whatever the channel.",
    features={
        "messages_30d": count(30),
        "messages_90d": count(90),
        "messages_365d": count(365),
        "message_campaigns_365d": Feature(
            _.campaign_id.nunique(where=past(days(365))), "campaigns heard of",
            says="heard of {value:campaign} in 365 days",
        ),
        "message_channels_365d": Feature(
            _.channel.nunique(where=past(days(365))), "channels heard by",
            says="heard from us by {value:channel} in 365 days",
        ),
        "days_since_message": Feature(
            days_since(_.event_at.max()), "since the last message", "days", "no message yet", "no message for {value}"
        ),
    },
)  # fmt: skip
