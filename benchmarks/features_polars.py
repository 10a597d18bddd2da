"""The seven views over order lines in polars by hand: the plan of `features_sql`, as expressions."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import polars as pl

DAY = 86_400.0
LN2 = math.log(2)
AGE, BOUGHT, PAID, SAVED, LINES, REDUCED = (
    pl.col(name) for name in ("age", "bought", "paid", "saved", "lines", "reduced")
)


def past(days: int, but: int = 0) -> pl.Expr:
    """Is a line, or a basket, at most so many days old? but: and older than that."""
    within = days * DAY >= AGE
    return within & (but * DAY < AGE) if but else within


def half_life(days: int) -> pl.Expr:
    """What is left of 1 after a line's age."""
    return (AGE / (days * DAY) * -LN2).exp()


def total(value: pl.Expr, where: pl.Expr) -> pl.Expr:
    return pl.when(where).then(value).otherwise(0).sum()


def count(where: pl.Expr) -> pl.Expr:
    return where.cast(pl.Int64).sum()


def days(where: pl.Expr, how: str = "min") -> pl.Expr:
    """Days since the last basket, or with "max" the first one; null without any."""
    return getattr(pl.when(where).then(AGE / DAY), how)()


def per(number: pl.Expr) -> pl.Expr:
    """What is to be divided by; null for 0."""
    return pl.when(number != 0).then(number)


# of a basket's lines
BASKET = {
    "age": AGE.min(),
    "event_day": pl.col("event_day").min(),
    "lines": pl.len().cast(pl.Int64),
    "paid": PAID.sum(),
    "saved": SAVED.sum(),
    "reduced": count(SAVED > 0),
    **{f"paid_half_life_{n}d": (half_life(n) * PAID).round(9).sum() for n in (30, 90, 180)},
}
# of a profile's baskets
TOTAL = {
    **{f"orders_{n}d": count(BOUGHT & past(n)) for n in (30, 90, 180, 365)},
    "orders_30d_before": count(BOUGHT & past(60, but=30)),
    "orders_90d_before": count(BOUGHT & past(180, but=90)),
    "orders_30d_last_year": count(BOUGHT & past(394, but=364)),
    "orders_90d_last_year": count(BOUGHT & past(454, but=364)),
    "since_first": days(BOUGHT, "max"),
    "since_last": days(BOUGHT),
    "spend": PAID.sum(),
    **{f"spend_{n}d": total(PAID, past(n)) for n in (30, 90, 365)},
    "spend_30d_before": total(PAID, past(60, but=30)),
    "spend_90d_before": total(PAID, past(180, but=90)),
    "spend_90d_last_year": total(PAID, past(454, but=364)),
    **{f"lines_half_life_{n}d": total(half_life(n).round(9) * LINES, BOUGHT) for n in (30, 90, 180)},
    **{f"spend_half_life_{n}d": pl.col(f"paid_half_life_{n}d").sum() for n in (30, 90, 180)},
    "bought_paid_90d": total(PAID, BOUGHT & past(90)),
    "since_reduced": days(BOUGHT & (REDUCED > 0)),
    "returned_paid_365d": total(PAID, ~BOUGHT & past(365)),
    "since_return": days(~BOUGHT),
    **{
        f"{name}_{n}d": total(value, where & past(n))
        for n in (90, 365)
        for name, value, where in (
            ("saved", SAVED, BOUGHT),
            ("bought_lines", LINES, BOUGHT),
            ("reduced_lines", REDUCED, BOUGHT),
            ("returned_lines", LINES, ~BOUGHT),
            ("lines", LINES, pl.lit(True)),
        )
    },
}
_ = pl.col
GAP = (_("since_first") - _("since_last")) / per(_("order_days") - 1)
# of a profile's totals
VIEWS = {
    "orders": {
        **{f"orders_{n}d": _(f"orders_{n}d") for n in (30, 90, 180, 365)},
        **{f"spend_{n}d": _(f"spend_{n}d") for n in (30, 90, 365)},
        "days_since_order": _("since_last"),
    },
    "cadence": {
        "order_days_ever": _("order_days"),
        "order_days_90d": _("order_days_90d"),
        "days_since_first_order": _("since_first"),
        "days_first_to_last_order": _("since_first") - _("since_last"),
        "mean_gap_days_ever": GAP,
        "overdue_ratio_ever": _("since_last") / per(GAP),
        "mean_spend_per_order_day_ever": _("spend") / per(_("order_days")),
    },
    "basket": {
        "lines_per_order_90d": _("bought_lines_90d") / per(_("orders_90d")),
        "spend_per_order_90d": _("bought_paid_90d") / per(_("orders_90d")),
        "products_90d": _("products"),
        "categories_90d": _("categories"),
        "discount_share_90d": _("saved_90d") / per(_("bought_paid_90d") + _("saved_90d")),
    },
    "decay": {f"{of}_half_life_{n}d": _(f"{of}_half_life_{n}d") for of in ("lines", "spend") for n in (30, 90, 180)},
    "trend": {
        **{f"{of}_{n}d_over_{n}d_before": _(f"{of}_{n}d") / per(_(f"{of}_{n}d_before").round(4))
           for of in ("orders", "spend") for n in (30, 90)},
        **{f"{of}_{n}d_last_year": pl.when(_("since_first") >= 364 + n).then(_(f"{of}_{n}d_last_year").cast(pl.Float64))
           for of, n in (("orders", 30), ("orders", 90), ("spend", 90))},
    },
    "promotions": {
        "reduced_lines_90d": _("reduced_lines_90d"),
        **{f"reduced_line_share_{n}d": _(f"reduced_lines_{n}d") / per(_(f"bought_lines_{n}d")) for n in (90, 365)},
        **{f"saved_{n}d": _(f"saved_{n}d") for n in (90, 365)},
        "days_since_reduced_line": _("since_reduced"),
    },
    "returns": {
        **{f"returned_lines_{n}d": _(f"returned_lines_{n}d") for n in (90, 365)},
        **{f"returned_line_share_{n}d": _(f"returned_lines_{n}d") / per(_(f"lines_{n}d")) for n in (90, 365)},
        "refunded_365d": -_("returned_paid_365d"),
        "days_since_return": _("since_return"),
    },
}  # fmt: skip
COUNTED = ("order_days", "order_days_90d", "products", "categories")


def build(home: Path, to: Path, cutoffs: list[datetime]) -> None:
    """Write `to/<view>/<day>.parquet` for every view and cutoff. home: of the project, never patched since it was made
    from scratch."""
    for cutoff in cutoffs:
        totals = totals_at(home, cutoff)
        for name, features in VIEWS.items():
            stamps = {"event_timestamp": pl.lit(cutoff), "created": pl.lit(cutoff)}
            stamps = {stamp: at.dt.cast_time_unit("us") for stamp, at in stamps.items()}
            totals.select("profile_id", **stamps, **features).write_parquet(
                to / name / f"{cutoff:%Y%m%d}.parquet", compression="zstd", compression_level=1
            )


def totals_at(home: Path, cutoff: datetime) -> pl.DataFrame:
    """One row per profile known at the cutoff, by profile_id: its totals; of counts and sums 0 without a line."""
    known = (pl.col("known_from") < cutoff) & (pl.col("known_to").is_null() | (pl.col("known_to") >= cutoff))
    member = pl.scan_parquet(home / "derived" / "member.parquet").filter(known).select("node", "profile_id").collect()
    profile = member.select(pl.col("profile_id").unique().sort()).with_row_index("nr")
    line = (
        pl.scan_parquet(home / "lake" / "facts" / "shop" / "*" / "*.parquet", hive_partitioning=False)
        .filter((pl.col("event_at") < cutoff) & (pl.col("known_at") < cutoff))
        .select(
            "node", "order_id", "event_day", "product_id", "category",
            age=(cutoff - pl.col("event_at")).dt.total_seconds().cast(pl.Float64),
            paid=pl.col("amount").cast(pl.Float64), saved=pl.col("discount").cast(pl.Float64),
            bought=~pl.col("cancelled").fill_null(False),
        )
        .join(member.join(profile, on="profile_id").select("node", "nr").lazy(), on="node")
        .drop("node")
        .collect(engine="streaming")
        .lazy()
    )  # fmt: skip
    basket = line.group_by("nr", "order_id", "bought").agg(**BASKET).collect(engine="streaming").lazy()
    recent = line.filter(BOUGHT & past(90))
    bought_on = basket.filter(BOUGHT).group_by("nr", "event_day").agg(AGE.min())
    parts = [
        basket.group_by("nr").agg(**TOTAL),
        bought_on.group_by("nr").agg(order_days=pl.len(), order_days_90d=count(past(90))),
        recent.select("nr", "product_id").unique().group_by("nr").agg(products=pl.len()),
        recent.select("nr", "category").unique().group_by("nr").agg(categories=pl.len()),
    ]
    made = profile.lazy()
    for part in parts:
        made = made.join(part, on="nr", how="left")
    zeros = [name for name in TOTAL if not name.startswith("since_")]
    return (
        made.with_columns(pl.col(COUNTED).fill_null(0).cast(pl.Int64), pl.col(zeros).fill_null(0))
        .sort("profile_id")
        .collect(engine="streaming")
    )
