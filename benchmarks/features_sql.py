"""The seven views over order lines in DuckDB SQL by hand, as one would write it who knows this shop's data.

Lines are summed up to baskets once, as a basket has one time and is cancelled whole; windows are then counted over
baskets, a fifth as many. The declared views cannot know that: they count distinct orders over lines.
Money is summed as fractions, so what is divided by is rounded: a refunded window is else a little more than nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb

from lake.engine import instant, quote

# before each cutoff; age: seconds from a line, or a basket, to the cutoff
TABLES = {
    "member": """
        SELECT node, profile_id FROM {identities}
        WHERE known_from < {at} AND (known_to IS NULL OR known_to >= {at})""",
    "profile": """
        SELECT profile_id, row_number() OVER (ORDER BY profile_id) AS nr FROM (SELECT DISTINCT profile_id FROM member)
        """,
    "line": """
        SELECT nr, order_id, event_day, epoch({at}) - epoch(event_at) AS age, amount::DOUBLE AS paid,
            discount::DOUBLE AS saved, product_id, category, NOT coalesce(cancelled, false) AS bought
        FROM {facts} JOIN (SELECT node, nr FROM member JOIN profile USING (profile_id)) USING (node)
        WHERE event_at < {at} AND known_at < {at}""",
    "basket": """
        SELECT nr, order_id, bought, min(age) AS age, min(event_day) AS event_day, count(*) AS lines,
            sum(paid) AS paid, sum(saved) AS saved, count(*) FILTER (saved > 0) AS reduced,
            sum(round(exp(age / (30 * 86400.0) * -ln(2)) * paid, 9)) AS paid_half_life_30d,
            sum(round(exp(age / (90 * 86400.0) * -ln(2)) * paid, 9)) AS paid_half_life_90d,
            sum(round(exp(age / (180 * 86400.0) * -ln(2)) * paid, 9)) AS paid_half_life_180d
        FROM line GROUP BY nr, order_id, bought""",
    "variety": """
        SELECT nr, count(DISTINCT product_id) AS products, count(DISTINCT category) AS categories
        FROM line WHERE bought AND age <= 90 * 86400 GROUP BY nr""",
    "day": """
        SELECT nr, count(*) AS order_days, count(*) FILTER (age <= 90 * 86400) AS order_days_90d
        FROM (SELECT nr, min(age) AS age FROM basket WHERE bought GROUP BY nr, event_day) GROUP BY nr""",
    "total": """
        SELECT nr,
            count(*) FILTER (bought AND age <= 30 * 86400) AS orders_30d,
            count(*) FILTER (bought AND age <= 90 * 86400) AS orders_90d,
            count(*) FILTER (bought AND age <= 180 * 86400) AS orders_180d,
            count(*) FILTER (bought AND age <= 365 * 86400) AS orders_365d,
            count(*) FILTER (bought AND age > 30 * 86400 AND age <= 60 * 86400) AS orders_30d_before,
            count(*) FILTER (bought AND age > 90 * 86400 AND age <= 180 * 86400) AS orders_90d_before,
            count(*) FILTER (bought AND age > 364 * 86400 AND age <= 394 * 86400) AS orders_30d_last_year,
            count(*) FILTER (bought AND age > 364 * 86400 AND age <= 454 * 86400) AS orders_90d_last_year,
            max(age) FILTER (bought) / 86400 AS since_first, min(age) FILTER (bought) / 86400 AS since_last,
            sum(paid) AS spend,
            coalesce(sum(paid) FILTER (age <= 30 * 86400), 0) AS spend_30d,
            coalesce(sum(paid) FILTER (age <= 90 * 86400), 0) AS spend_90d,
            coalesce(sum(paid) FILTER (age <= 365 * 86400), 0) AS spend_365d,
            sum(paid) FILTER (age > 30 * 86400 AND age <= 60 * 86400) AS spend_30d_before,
            sum(paid) FILTER (age > 90 * 86400 AND age <= 180 * 86400) AS spend_90d_before,
            coalesce(sum(paid) FILTER (age > 364 * 86400 AND age <= 454 * 86400), 0) AS spend_90d_last_year,
            sum(lines * round(exp(age / (30 * 86400.0) * -ln(2)), 9)) FILTER (bought) AS lines_half_life_30d,
            sum(lines * round(exp(age / (90 * 86400.0) * -ln(2)), 9)) FILTER (bought) AS lines_half_life_90d,
            sum(lines * round(exp(age / (180 * 86400.0) * -ln(2)), 9)) FILTER (bought) AS lines_half_life_180d,
            sum(paid_half_life_30d) AS spend_half_life_30d, sum(paid_half_life_90d) AS spend_half_life_90d,
            sum(paid_half_life_180d) AS spend_half_life_180d,
            sum(lines) FILTER (bought AND age <= 90 * 86400) AS bought_lines_90d,
            sum(lines) FILTER (bought AND age <= 365 * 86400) AS bought_lines_365d,
            sum(paid) FILTER (bought AND age <= 90 * 86400) AS bought_paid_90d,
            sum(saved) FILTER (bought AND age <= 90 * 86400) AS saved_90d,
            sum(saved) FILTER (bought AND age <= 365 * 86400) AS saved_365d,
            sum(reduced) FILTER (bought AND age <= 90 * 86400) AS reduced_lines_90d,
            sum(reduced) FILTER (bought AND age <= 365 * 86400) AS reduced_lines_365d,
            min(age) FILTER (bought AND reduced > 0) / 86400 AS since_reduced,
            sum(lines) FILTER (age <= 90 * 86400) AS lines_90d, sum(lines) FILTER (age <= 365 * 86400) AS lines_365d,
            sum(lines) FILTER (NOT bought AND age <= 90 * 86400) AS returned_lines_90d,
            sum(lines) FILTER (NOT bought AND age <= 365 * 86400) AS returned_lines_365d,
            sum(paid) FILTER (NOT bought AND age <= 365 * 86400) AS returned_paid_365d,
            min(age) FILTER (NOT bought) / 86400 AS since_return
        FROM basket GROUP BY nr""",
    "made": """
        FROM profile LEFT JOIN total USING (nr) LEFT JOIN day USING (nr) LEFT JOIN variety USING (nr)
        ORDER BY profile_id""",
}
# over one row per profile, of nulls where it has no line
VIEWS = {
    "orders": """
        coalesce(orders_30d, 0) AS orders_30d, coalesce(orders_90d, 0) AS orders_90d,
        coalesce(orders_180d, 0) AS orders_180d, coalesce(orders_365d, 0) AS orders_365d,
        coalesce(spend_30d, 0) AS spend_30d, coalesce(spend_90d, 0) AS spend_90d,
        coalesce(spend_365d, 0) AS spend_365d, since_last AS days_since_order""",
    "cadence": """
        coalesce(order_days, 0) AS order_days_ever, coalesce(order_days_90d, 0) AS order_days_90d,
        since_first AS days_since_first_order, since_first - since_last AS days_first_to_last_order,
        (since_first - since_last) / nullif(order_days - 1, 0) AS mean_gap_days_ever,
        since_last / nullif(mean_gap_days_ever, 0) AS overdue_ratio_ever,
        spend / nullif(order_days, 0) AS mean_spend_per_order_day_ever""",
    "basket": """
        bought_lines_90d::BIGINT / nullif(orders_90d, 0) AS lines_per_order_90d,
        bought_paid_90d / nullif(orders_90d, 0) AS spend_per_order_90d,
        coalesce(products, 0) AS products_90d, coalesce(categories, 0) AS categories_90d,
        saved_90d / nullif(bought_paid_90d + saved_90d, 0) AS discount_share_90d""",
    "decay": """
        coalesce(lines_half_life_30d, 0) AS lines_half_life_30d,
        coalesce(lines_half_life_90d, 0) AS lines_half_life_90d,
        coalesce(lines_half_life_180d, 0) AS lines_half_life_180d,
        coalesce(spend_half_life_30d, 0) AS spend_half_life_30d,
        coalesce(spend_half_life_90d, 0) AS spend_half_life_90d,
        coalesce(spend_half_life_180d, 0) AS spend_half_life_180d""",
    "trend": """
        orders_30d / nullif(orders_30d_before, 0) AS orders_30d_over_30d_before,
        orders_90d / nullif(orders_90d_before, 0) AS orders_90d_over_90d_before,
        spend_30d / nullif(round(spend_30d_before, 4), 0) AS spend_30d_over_30d_before,
        spend_90d / nullif(round(spend_90d_before, 4), 0) AS spend_90d_over_90d_before,
        CASE WHEN since_first >= 394 THEN orders_30d_last_year::DOUBLE END AS orders_30d_last_year,
        CASE WHEN since_first >= 454 THEN orders_90d_last_year::DOUBLE END AS orders_90d_last_year,
        CASE WHEN since_first >= 454 THEN spend_90d_last_year END AS spend_90d_last_year""",
    "promotions": """
        coalesce(reduced_lines_90d, 0)::BIGINT AS reduced_lines_90d,
        reduced_lines_90d / bought_lines_90d AS reduced_line_share_90d,
        reduced_lines_365d / bought_lines_365d AS reduced_line_share_365d,
        coalesce(saved_90d, 0) AS saved_90d, coalesce(saved_365d, 0) AS saved_365d,
        since_reduced AS days_since_reduced_line""",
    "returns": """
        coalesce(returned_lines_90d, 0)::BIGINT AS returned_lines_90d,
        coalesce(returned_lines_365d, 0)::BIGINT AS returned_lines_365d,
        coalesce(returned_lines_90d, 0) / lines_90d AS returned_line_share_90d,
        coalesce(returned_lines_365d, 0) / lines_365d AS returned_line_share_365d,
        -coalesce(returned_paid_365d, 0) AS refunded_365d, since_return AS days_since_return""",
}


def build(home: Path, to: Path, cutoffs: list[datetime]) -> None:
    """Write `to/<view>/<day>.parquet` for every view and cutoff. home: of the project, never patched since it was made
    from scratch."""
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2; SET memory_limit='3GB'; SET enable_progress_bar=false")
    facts = f"read_parquet('{quote(home)}/lake/facts/shop/*/*.parquet', hive_partitioning=false)"
    identities = f"read_parquet('{quote(home)}/derived/member.parquet')"
    for cutoff in cutoffs:
        at = instant(cutoff)
        for name, query in TABLES.items():
            query = query.format(at=at, facts=facts, identities=identities)
            con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
        for name, features in VIEWS.items():
            con.execute(
                f"""COPY (SELECT profile_id, {at} AS event_timestamp, {at} AS created, {features} FROM made)
                    TO '{quote(to / name / f"{cutoff:%Y%m%d}.parquet")}'
                    (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"""
            )
    con.close()
