"""How much did a profile buy, the recent counting more? Sums that halve with every half-life, without an edge."""

from foretell import Feature, FeatureView, _, days, decayed

bought = ~_.cancelled.fill_null(False)


def lines(half_life):
    what, value = f"lines bought, each half as much per {half_life} days", decayed(1, days(half_life), where=bought)
    return Feature(value, what, says=f"{{value:line}} bought lately, counted half for every {half_life} days past")


def spend(half_life):
    what = f"spent, refunds deducted, each half as much per {half_life} days"
    says = f"{{value}} spent lately, counted half for every {half_life} days past"
    return Feature(decayed(_.amount, days(half_life)), what, "money", says=says)


decay = FeatureView(
    name="decay",
    source="order_line",
    description="Lines bought and money spent, each worth half for every half-life it lies back; 0 without any.",
    features={
        "lines_half_life_30d": lines(30),
        "lines_half_life_90d": lines(90),
        "lines_half_life_180d": lines(180),
        "spend_half_life_30d": spend(30),
        "spend_half_life_90d": spend(90),
        "spend_half_life_180d": spend(180),
    },
)
