"""What trouble did a profile have? Its tickets, how long they were open, and what it said of them."""

from foretell import Feature, FeatureView, _, days, days_since, past


def tickets(facts):
    """One row per ticket: when it was opened (event_at) and closed, and the lowest rating it was given."""
    named = facts.filter(facts.ticket_id.notnull())
    return named.group_by("profile_id", "cutoff", "ticket_id").aggregate(
        event_at=named.event_at.min(), closed=named.event_at.max(where=named.kind == "closed"),
        rating=named.rating.min(),
    )  # fmt: skip


hours = (_.closed.epoch_seconds() - _.event_at.epoch_seconds()) / 3600.0

support = FeatureView(
    name="support",
    source="ticket",
    lookback=days(365),
    each=tickets,
    description="Tickets of the last 365 days; one is closed by a fact of the kind closed.",
    features={
        "tickets_90d": Feature(
            _.count(where=past(days(90))), "tickets opened", says="{value:ticket} opened in 90 days"
        ),
        "tickets_365d": Feature(_.count(), "tickets opened", says="{value:ticket} opened in 365 days"),
        "open_tickets_365d": Feature(
            _.count(where=_.closed.isnull()), "tickets that nobody has closed",
            says="{value:ticket} of 365 days still open",
        ),
        "median_hours_to_close_365d": Feature(
            hours.median(), "from opening a ticket to closing it, in the median", "hours", "no ticket closed",
            "a median of {value} until a ticket was closed in 365 days",
        ),
        "lowest_rating_365d": Feature(
            _.rating.min(), "the lowest rating, on the desk's own scale", "points", "no ticket rated",
            "the lowest rating of a ticket in 365 days was {value}",
        ),
        "days_since_ticket_365d": Feature(
            days_since(_.event_at.max()), "since a ticket was opened", "days", "no ticket", "no new ticket for {value}"
        ),
    },
)  # fmt: skip
