"""How often and how long is a profile on the site or in the app? A visit ends after half an hour without anything."""

from foretell import Feature, FeatureView, _, days, days_since, past

PAUSE = 30 * 60  # seconds
none = "no visit"


def by_visit(facts):
    """One row per visit: when it began (event_at) and ended, pages and screens seen, what else was done."""
    line = {"group_by": facts.profile_id, "order_by": [facts.event_at, facts.fact_id]}
    before = facts.event_at.lag().over(**line)
    pause = (facts.event_at.epoch_seconds() - before.epoch_seconds()).fill_null(PAUSE)
    marked = facts.mutate(begins=(pause >= PAUSE).cast("int64"))
    ordered = {"group_by": marked.profile_id, "order_by": [marked.event_at, marked.fact_id], "rows": (None, 0)}
    numbered = marked.mutate(visit=marked.begins.sum().over(**ordered))
    seen = numbered.kind.isin(["page", "screen"])
    return numbered.group_by("profile_id", "cutoff", "visit").aggregate(
        event_at=numbered.event_at.min(), ended=numbered.event_at.max(), pages=numbered.count(where=seen),
        events=numbered.count(where=~seen),
    )  # fmt: skip


seconds = (_.ended.epoch_seconds() - _.event_at.epoch_seconds()).sum()

visits = FeatureView(
    name="visits",
    source="activity",
    lookback=days(90),
    each=by_visit,
    description="Visits of the last 90 days to site and app; a pause of 30 minutes begins a new one.",
    features={
        "visits_7d": Feature(_.count(where=past(days(7))), "visits", says="{value:visit} in 7 days"),
        "visits_30d": Feature(_.count(where=past(days(30))), "visits", says="{value:visit} in 30 days"),
        "visits_90d": Feature(_.count(), "visits", says="{value:visit} in 90 days"),
        "pages_per_visit_90d": Feature(
            _.pages.sum() / _.count().nullif(0), "pages and screens a visit", "ratio", none,
            "{value:page or screen/pages and screens} a visit in 90 days",
        ),
        "events_per_visit_90d": Feature(
            _.events.sum() / _.count().nullif(0), "other events a visit", "ratio", none,
            "{value:other event} a visit in 90 days",
        ),
        "minutes_per_visit_90d": Feature(
            seconds / 60.0 / _.count().nullif(0), "length of a visit", "minutes", none, "{value} a visit in 90 days"
        ),
        "one_page_visit_share_90d": Feature(
            _.count(where=_.pages <= 1) / _.count().nullif(0), "visits of one page at most", "share", none,
            "{value} of visits in 90 days were of one page at most",
        ),
        "days_since_visit_90d": Feature(
            days_since(_.ended.max()), "since the last visit", "days", none, "no visit for {value}"
        ),
    },
)  # fmt: skip
