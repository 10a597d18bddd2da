"""How much a profile hears from us: messages and campaigns by window, and how long ago the last one was."""

from foretell import Feature, FeatureView, _, days, days_since, past

messages = FeatureView(
    name="messages",
    source="message",
    description="Messages sent, whatever the channel.",
    features={
        "messages_30d": Feature(_.count(where=past(days(30))), "messages"),
        "messages_90d": Feature(_.count(where=past(days(90))), "messages"),
        "messages_365d": Feature(_.count(where=past(days(365))), "messages"),
        "message_campaigns_365d": Feature(_.campaign_id.nunique(where=past(days(365))), "campaigns heard of"),
        "message_channels_365d": Feature(_.channel.nunique(where=past(days(365))), "channels heard by"),
        "days_since_message": Feature(days_since(_.event_at.max()), "since the last message", "days", "none yet"),
    },
)
