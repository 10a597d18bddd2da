"""How much did a profile buy, the recent counting more? Sums that halve with every half-life, without an edge."""

from foretell import FeatureView, _, days, decayed

bought = ~_.cancelled.fill_null(False)

decay = FeatureView(
    name="decay",
    source="order_line",
    description="Lines bought and money spent, each worth half for every half-life it lies back; 0 without any.",
    features={
        "lines_half_life_30d": decayed(1, days(30), where=bought),
        "lines_half_life_90d": decayed(1, days(90), where=bought),
        "lines_half_life_180d": decayed(1, days(180), where=bought),
        "spend_half_life_30d": decayed(_.amount, days(30)),
        "spend_half_life_90d": decayed(_.amount, days(90)),
        "spend_half_life_180d": decayed(_.amount, days(180)),
    },
)
