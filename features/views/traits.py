"""What a profile has told us about itself, as the golden record would have said at the cutoff."""

from foretell import Feature, FeatureView, _, days_since, latest


def known(trait):
    return latest(trait.strip().nullif(""))


def said(trait, what):
    return Feature(known(trait), what, "text", "nobody says")


born = known(_.birth_date).try_cast("date").cast("timestamp")

traits = FeatureView(
    name="traits",
    source="person",
    description="The surviving value of each trait; null where no record says it. Text counts as a category.",
    features={
        "records_ever": Feature(_.count(), "records about the person", says="{value:record} about the person"),
        "days_since_first_record": Feature(
            days_since(_.event_at.min()), "since the first record, the tenure of who registered", "days",
            "no record about the person", "known to us for {value}",
        ),
        "age_years": Feature(days_since(born) / 365.25, "age", "years", "nobody says the birth date", "{value} old"),
        "known_gender": said(_.gender, "gender"),
        "known_city": said(_.city, "city"),
        "known_country": said(_.country, "country"),
        "known_language": said(_.language, "language"),
        "known_opt_in": said(_.opt_in, "whether they want to hear from us"),
    },
)  # fmt: skip
