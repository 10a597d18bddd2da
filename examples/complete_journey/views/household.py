"""Who lives in the household, as the CRM knew at the cutoff; two thirds of the households never said.

No task learns from it: the households that said so did in November, and those who still bought then had been asked.
"""

from foretell import Feature, FeatureView, _, latest


def said(trait, what):
    return Feature(latest(trait), what, "text", "the household never said")


household = FeatureView(
    name="household",
    source="crm",
    description="What the CRM knew of the household.",
    features={
        "known_age_group": said(_.age_group, "age group of the head of the household"),
        "known_income": said(_.income, "income group"),
        "known_household_size": said(_.household_size, "people in the household"),
        "known_kids": said(_.kids, "children in the household"),
    },
)
