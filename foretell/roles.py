"""Which columns may a view rely on, whatever the company? A source says which role its facts play.

A role is a promise: a source that plays `order_line` fills these columns from its own, or leaves them null. Views are
written against roles, so that they fit a till, a web shop and any file that carries the same facts.
"""

from __future__ import annotations

# Money is DECIMAL: sums are then exact and equal from run to run.
MONEY = "DECIMAL(18,4)"

ROLES: dict[str, dict[str, str]] = {
    "order_line": {
        "order_id": "VARCHAR",
        "amount": MONEY,  # revenue of the line, negative for returns, in the source's currency
        "quantity": "DOUBLE",
        "discount": MONEY,  # what the line cost less than its list price, >= 0
        "product_id": "VARCHAR",
        "category": "VARCHAR",
        "brand": "VARCHAR",
        "cancelled": "BOOLEAN",  # a return or cancellation: counts as revenue, not as an order
    },
    "redemption": {"campaign_id": "VARCHAR", "coupon_id": "VARCHAR", "kind": "VARCHAR"},
    "message": {"campaign_id": "VARCHAR", "channel": "VARCHAR", "kind": "VARCHAR"},
    # what somebody did on a site or in an app: kind is page, screen or track, name that of the page or event
    "activity": {"kind": "VARCHAR", "name": "VARCHAR", "category": "VARCHAR", "url": "VARCHAR"},
    # what happened to a request for help: kind is opened, answered, closed, rated, …; rating on the desk's own scale
    "ticket": {"ticket_id": "VARCHAR", "kind": "VARCHAR", "channel": "VARCHAR", "topic": "VARCHAR", "rating": "DOUBLE"},
    # what a record says about a person; a trait of one of these names fills it
    "person": {
        "birth_date": "VARCHAR",
        "gender": "VARCHAR",
        "city": "VARCHAR",
        "postcode": "VARCHAR",
        "country": "VARCHAR",
        "language": "VARCHAR",
        "opt_in": "VARCHAR",
    },
}

# What a role needs at least to mean anything.
REQUIRED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ROLES, ()),
    "order_line": ("order_id", "amount"),
    "ticket": ("ticket_id",),
}

# Stamps every fact carries, beside its role's columns, when a declaration sees it.
STAMPS: dict[str, str] = {
    "fact_id": "VARCHAR",
    "trust": "INTEGER",  # of its source: which of two values survives in the golden record
    "event_at": "TIMESTAMP WITH TIME ZONE",
    "event_day": "DATE",  # the day in the source's business time zone
    "cutoff": "TIMESTAMP WITH TIME ZONE",
}
