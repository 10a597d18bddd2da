"""The mailing tool's subscribers."""

from foretell import Source

mailing_contacts = Source(
    name="mailing_contacts",
    files="mailing/contacts.csv",
    kind="records",
    event_at="subscribed_at",
    timezone="America/New_York",
    identifiers={"email": "email"},
    traits={"first_name": "first_name", "language": "language", "opt_in": "opt_in"},
    trust=1,
)
