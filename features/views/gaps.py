"""What lies between two order days of a profile, and is the present silence longer than such gaps usually are?"""

import math

from ibis import row_number

from foretell import Feature, FeatureView, _

few = "fewer than two order days"


def order_days(facts):
    """One row per business day with an order, place 0 being the last; gap: days since the one before; silence: days
    since the last order."""
    lines = facts.filter(~facts.cancelled.fill_null(False))
    found = lines.group_by("profile_id", "cutoff", "event_day").aggregate(last=lines.event_at.max())
    number = (found.event_day.cast("timestamp").epoch_seconds() / 86_400).cast("int64")
    elapsed = (found.cutoff.epoch_seconds() - found["last"].epoch_seconds()) / 86_400.0
    return found.mutate(
        gap=number - number.lag().over(group_by=found.profile_id, order_by=found.event_day),
        silence=elapsed.min().over(group_by=found.profile_id),
        place=row_number().over(group_by=found.profile_id, order_by=found.event_day.desc()),
    )


gap_count, gap_sum = _.gap.count(), _.gap.sum()
# of whole numbers, so that the same days always give the same last bit
variance = ((_.gap * _.gap).sum() - gap_sum * gap_sum / gap_count.nullif(0)) / (gap_count - 1).nullif(0)
deviation = variance.clip(lower=0).sqrt()

longer = _.gap > _.silence
worth = (_.place * math.log(0.7)).exp()  # of the last gap 1, of each before it 0.7 times as much
# sums of decimals are the same in every order, those of floats are not
recent_gap = (_.gap * worth).cast("decimal(38, 9)").sum().cast("float64") / worth.cast("decimal(38, 9)").sum(
    where=_.gap.notnull()
).cast("float64").nullif(0)


def ended_within(window):
    value = _.count(where=longer & (_.gap <= _.silence + window))
    what = f"gaps longer than the present silence that ended within {window} days of it"
    says = f"{{value:time}} the next order came within {window} days after a silence as long as this"
    return Feature(value, what, says=says)


gaps = FeatureView(
    name="gaps",
    source="order_line",
    each=order_days,
    description="Days between two business days with an order; null until there are two of them.",
    features={
        "median_gap_days_ever": Feature(
            _.gap.median(), "the gap that half of the gaps are shorter than", "days", few,
            "a median of {value} between two order days",
        ),
        "longest_gap_days_ever": Feature(
            _.gap.max(), "the longest gap", "days", few, "at the longest {value} between two order days"
        ),
        "last_gap_days_ever": Feature(
            _.gap.max(where=_.place == 0), "the gap before the last order day", "days", few,
            "{value} between the last two order days",
        ),
        "gap_deviation_days_ever": Feature(
            deviation, "standard deviation of the gaps", "days", "fewer than three order days",
            "time between order days varies by {value}",
        ),
        "longer_gap_share_ever": Feature(
            _.count(where=longer) / gap_count.nullif(0),
            "gaps that went on when they were as long as the present silence", "share", few,
            "{value} of earlier gaps between orders were longer than the present one",
        ),
        "overdue_over_median_gap_ever": Feature(
            _.silence.max() / _.gap.median().nullif(0), "since the last order, over the median gap", "ratio", few,
            "no order for {value} times the median gap[ of {median_gap_days_ever}]",
        ),
        "longer_gaps_ever": Feature(
            _.count(where=longer), "gaps longer than the present silence",
            says="{value:earlier gap} between orders longer than the present one",
        ),
        "ended_within_30d_ever": ended_within(30),
        "ended_within_90d_ever": ended_within(90),
        "recent_gap_days_ever": Feature(
            recent_gap, "mean gap, each worth 0.7 times as much as the next", "days", few,
            "an order every {value} of late",
        ),
        "overdue_over_recent_gap_ever": Feature(
            _.silence.max() / recent_gap.nullif(0), "since the last order, over the mean gap of late", "ratio", few,
            "no order for {value} times the gap of late[ of {recent_gap_days_ever}]",
        ),
        "overdue_over_last_gap_ever": Feature(
            _.silence.max() / _.gap.max(where=_.place == 0).nullif(0), "since the last order, over the last gap",
            "ratio", few, "no order for {value} times the last gap[ of {last_gap_days_ever}]",
        ),
        "overdue_over_longest_gap_ever": Feature(
            _.silence.max() / _.gap.max().nullif(0), "since the last order, over the longest gap", "ratio", few,
            "no order for {value} times the longest gap[ of {longest_gap_days_ever}]",
        ),
    },
)  # fmt: skip
