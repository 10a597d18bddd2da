"""Who lives in the household, as the CRM knew at the cutoff; two thirds of the households never said."""

from foretell import FeatureView, _, latest

household = FeatureView(
    name="household",
    source="crm",
    features={
        "known_age_group": latest(_.age_group),
        "known_income": latest(_.income),
        "known_household_size": latest(_.household_size),
        "known_kids": latest(_.kids),
    },
)
