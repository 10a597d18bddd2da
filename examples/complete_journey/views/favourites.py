"""How often and how recently a household buys in the categories whose offers we plan."""

from foretell import FeatureView, _, days, days_since, past

CATEGORIES = {"beer": "BEERS/ALES", "coffee": "COFFEE", "frozen_pizza": "FROZEN PIZZA"}

features = {}
for name, category in CATEGORIES.items():
    of_it = _.category == category
    features[f"{name}_orders_90d"] = _.order_id.nunique(where=past(days(90)) & of_it)
    features[f"{name}_orders_365d"] = _.order_id.nunique(where=past(days(365)) & of_it)
    features[f"{name}_spend_90d"] = _.amount.sum(where=past(days(90)) & of_it).fill_null(0)
    features[f"days_since_{name}"] = days_since(_.event_at.max(where=of_it))

favourites = FeatureView(
    name="favourites",
    source="order_line",
    description="Per category of the till; days_since_… is null for a household that never bought there.",
    features=features,
)
