"""The CRM: people as the service desk typed them in, some of them twice."""

from foretell import Source

crm = Source(
    name="crm",
    files="crm/customers.csv",
    kind="records",
    event_at="registered_at",
    timezone="America/New_York",
    identifiers={"customer_no": "customer_no", "loyalty_card": "card_no", "email": "email", "phone": "phone"},
    traits={
        "first_name": "first_name",
        "last_name": "last_name",
        "street": "street",
        "city": "city",
        "postcode": "postcode",
        "birth_date": "birth_date",
        "age_group": "age_group",
        "income": "income",
        "household_size": "household_size",
        "kids": "kids",
    },
    trust=2,
)
