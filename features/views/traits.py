"""What a profile has told us about itself, as the golden record would have said at the cutoff."""

from foretell import FeatureView, _, days_since, latest


def known(trait):
    return latest(trait.strip().nullif(""))


traits = FeatureView(
    name="traits",
    source="person",
    description="The surviving value of each trait; null where no record says it. Text counts as a category.",
    features={
        "records_ever": _.count(),
        "days_since_first_record": days_since(_.event_at.min()),
        "age_years": days_since(known(_.birth_date).try_cast("date").cast("timestamp")) / 365.25,
        "known_gender": known(_.gender),
        "known_city": known(_.city),
        "known_country": known(_.country),
        "known_language": known(_.language),
        "known_opt_in": known(_.opt_in),
    },
)
