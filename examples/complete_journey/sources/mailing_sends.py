"""Campaign mails that the mailing tool sent."""

from foretell import Source

mailing_sends = Source(
    name="mailing_sends",
    files="mailing/sends.csv",
    role="message",
    event_at="sent_at",
    timezone="America/New_York",
    identifiers={"email": "email"},
    columns={"campaign_id": "campaign_id", "channel": "'email'", "kind": "campaign_type"},
)
