"""How much a profile hears from us: messages and campaigns by window, and how long ago the last one was."""

from foretell import FeatureView, _, days, days_since, past

messages = FeatureView(
    name="messages",
    source="message",
    description="Messages sent, whatever the channel.",
    features={
        "messages_30d": _.count(where=past(days(30))),
        "messages_90d": _.count(where=past(days(90))),
        "messages_365d": _.count(where=past(days(365))),
        "message_campaigns_365d": _.campaign_id.nunique(where=past(days(365))),
        "message_channels_365d": _.channel.nunique(where=past(days(365))),
        "days_since_message": days_since(_.event_at.max()),
    },
)
