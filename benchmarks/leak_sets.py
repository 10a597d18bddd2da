"""Training sets for the benchmark of the leak gate: real tables, and the same shape made up where they are absent.

A set is what `training.leaks.inspect` is given. Beside it lies what nobody could know at the cutoff (`future`), from
which leaks are planted. A shop's features and answers are worked out by DuckDB straight from its order lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from models import encoding
from training.metrics import Kind

HORIZON = 90  # days that a shop's label looks ahead


@dataclass(frozen=True)
class LeakSet:
    """rows: profile_id, cutoff, label, weight, person, features not encoded yet. future: what came after the cutoff,
    row by row. now: the features at a present cutoff whose labels are not known yet.
    """

    name: str
    rows: pd.DataFrame
    columns: list[str]
    kind: Kind
    future: pd.DataFrame = field(default_factory=pd.DataFrame)
    now: pd.DataFrame | None = None

    def encoded(self) -> tuple[pd.DataFrame, dict[str, list[str]], pd.DataFrame | None]:
        """(rows, categories, now), with the features as numbers."""
        categories = encoding.learn(self.rows, self.columns)
        rows = self.rows.assign(**dict(encoding.encode(self.rows, self.columns, categories).items()))
        now = self.now
        if now is not None:
            now = now.assign(**dict(encoding.encode(now, self.columns, categories).items()))
        return rows, categories, now

    def sample(self, name: str, rows: int, seed: int) -> LeakSet:
        """So many rows of whole persons, drawn by chance."""
        persons = np.random.default_rng(seed).permutation(self.rows["person"].unique())
        place = pd.Series(np.arange(len(persons)), persons)
        size = self.rows.groupby("person").size().reindex(persons).cumsum()
        kept = (self.rows["person"].map(place) < int((size <= rows).sum())).to_numpy()
        future = self.future[kept].reset_index(drop=True)
        return LeakSet(name, self.rows[kept].reset_index(drop=True), self.columns, self.kind, future, self.now)

    def only(self, name: str, columns: list[str]) -> LeakSet:
        """The same people, with these features alone."""
        return LeakSet(name, self.rows, columns, self.kind, self.future, self.now)

    def asking(self, name: str, label: str, kind: Kind) -> LeakSet:
        """The same people and features, another label: a column of the future."""
        rows = self.rows.assign(label=self.future[label].astype(float))
        return LeakSet(name, rows, self.columns, kind, self.future, self.now)

    def at(self, name: str, cutoffs: int) -> LeakSet:
        """The latest cutoffs alone."""
        kept = self.rows["cutoff"].isin(sorted(self.rows["cutoff"].unique())[-cutoffs:]).to_numpy()
        future = self.future[kept].reset_index(drop=True)
        return LeakSet(name, self.rows[kept].reset_index(drop=True), self.columns, self.kind, future, self.now)


def snapshot(name: str, table: pd.DataFrame, label: pd.Series, answers: list[str], kind: Kind) -> LeakSet:
    """A table without time: every row is a person of its own, at one made-up cutoff. answers: columns that came later.

    Rows are shuffled, since some tables lie in the order of their answers.
    """
    order = np.random.default_rng(0).permutation(len(table))
    features = table.drop(columns=answers).iloc[order].reset_index(drop=True)
    ids = [f"p{n:06}" for n in range(len(table))]
    meta = pd.DataFrame(
        {
            "profile_id": ids, "cutoff": pd.Timestamp("2024-01-01", tz="UTC"),
            "label": label.iloc[order].astype(float).to_numpy(), "weight": 1.0, "person": ids,
        }
    )  # fmt: skip
    future = table[answers].iloc[order].reset_index(drop=True)
    return LeakSet(name, pd.concat([meta, features], axis=1), list(features.columns), kind, future)


def bank(data: Path) -> LeakSet:
    """Who subscribes when called, asked before the call: its duration lies in the future."""
    table = pd.read_parquet(data / "bank_marketing" / "bank_additional_full.parquet")
    return snapshot("bank", table, table["y"].astype(str) == "yes", ["duration", "y"], "probability")


def telco(data: Path) -> LeakSet:
    """Who leaves a telephone company."""
    table = pd.read_parquet(data / "telco_churn" / "telco_churn.parquet").drop(columns="customerID")
    table["TotalCharges"] = pd.to_numeric(table["TotalCharges"], errors="coerce")
    return snapshot("telco", table, table["Churn"].astype(str) == "Yes", ["Churn"], "probability")


def hillstrom(data: Path) -> LeakSet:
    """Who visits the site after a mailing."""
    table = pd.read_parquet(data / "hillstrom" / "hillstrom.parquet")
    return snapshot("hillstrom", table, table["visit"], ["visit", "conversion", "spend"], "probability")


RETAIL = """SELECT CustomerID::VARCHAR AS person, Invoice::VARCHAR AS basket, InvoiceDate AS moment,
    Quantity * Price AS amount, StockCode::VARCHAR AS product, Country::VARCHAR AS country
    FROM '{data}/online_retail_ii/transactions.parquet'
    WHERE NOT overlap_dup AND CustomerID IS NOT NULL AND Quantity > 0 AND Price > 0"""
JOURNEY = """SELECT t.household_id::VARCHAR AS person, basket_id::VARCHAR AS basket, transaction_timestamp AS moment,
    sales_value AS amount, product_id::VARCHAR AS product, coalesce(d.income, 'unknown')::VARCHAR AS country
    FROM '{data}/completejourney/transactions.parquet' t
    LEFT JOIN '{data}/completejourney/demographics.parquet' d USING (household_id)"""
CDNOW = """SELECT master_id::VARCHAR AS person, master_id || '-' || date AS basket, date AS moment, value AS amount,
    quantity::VARCHAR AS product, 'US' AS country FROM '{data}/cdnow/sample.parquet'"""

FEATURES = {
    "recency": "date_diff('day', max(moment), {t})",
    "age": "date_diff('day', min(moment), {t})",
    "orders": "count(DISTINCT basket)",
    "orders_90d": "count(DISTINCT basket) FILTER ({t} - moment < INTERVAL 90 DAY)",
    "orders_365d": "count(DISTINCT basket) FILTER ({t} - moment < INTERVAL 365 DAY)",
    "spend": "sum(amount)",
    "spend_30d": "coalesce(sum(amount) FILTER ({t} - moment < INTERVAL 30 DAY), 0)",
    "spend_90d": "coalesce(sum(amount) FILTER ({t} - moment < INTERVAL 90 DAY), 0)",
    "lines": "count(*)",
    "products": "count(DISTINCT product)",
    "line_mean": "avg(amount)",
    "line_90d": "avg(amount) FILTER ({t} - moment < INTERVAL 90 DAY)",
    "hour": "avg(hour(moment))",
    "month_share": "avg((month(moment) = month({t}))::INT)",
    "country": "min(country)",
}
AFTER = {
    "spend_ahead": "sum(amount)", "orders_ahead": "count(DISTINCT basket)", "lines_ahead": "count(*)",
    "days_to_next": "min(date_diff('day', {t}, moment))",
    "tomorrow": "count(DISTINCT basket) FILTER (moment - {t} < INTERVAL 2 DAY)",
    "week": "count(DISTINCT basket) FILTER (moment - {t} < INTERVAL 7 DAY)",
}  # fmt: skip


def shop(name: str, lines: str, last: str, cutoffs: int, horizon: int = HORIZON, step: int = 30) -> LeakSet:
    """Who does not come back within the horizon, at cutoffs so many days apart; `last` is the last one with a label.

    lines: SQL of the order lines. now: the features a step and a horizon later. Everyone who has ever bought counts.
    """
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'; SET threads=2")
        con.execute(f"CREATE TABLE lines AS {lines}")
        end = pd.Timestamp(last)
        frames = [_at(con, end - pd.Timedelta(days=step * n), horizon) for n in range(cutoffs)]
        now = _at(con, end + pd.Timedelta(days=step + horizon), horizon)
    rows = pd.concat(frames, ignore_index=True).sort_values(["cutoff", "profile_id"], ignore_index=True)
    future, columns = rows[list(AFTER)], list(FEATURES)
    rows = rows.assign(label=(future["orders_ahead"] == 0).astype(float), weight=1.0, person=rows["profile_id"])
    meta = ["profile_id", "cutoff", "label", "weight", "person"]
    return LeakSet(name, rows[meta + columns], columns, "probability", future, now[["profile_id", "cutoff", *columns]])


def _at(con: duckdb.DuckDBPyConnection, cutoff: pd.Timestamp, horizon: int) -> pd.DataFrame:
    t = f"TIMESTAMP '{cutoff:%Y-%m-%d}'"
    features = ", ".join(f"{sql.format(t=t)} AS {name}" for name, sql in FEATURES.items())
    after = ", ".join(f"{sql.format(t=t)} AS {name}" for name, sql in AFTER.items())
    kept = ", ".join(n if n == "days_to_next" else f"coalesce({n}, 0) AS {n}" for n in AFTER)
    found = con.execute(
        f"""SELECT b.*, {kept} FROM (SELECT person AS profile_id, {features} FROM lines WHERE moment < {t} GROUP BY 1) b
            LEFT JOIN (SELECT person AS profile_id, {after} FROM lines
                WHERE moment >= {t} AND moment < {t} + INTERVAL {horizon} DAY GROUP BY 1) a USING (profile_id)"""
    ).df()
    numbers = [c for c in found.columns if c not in ("profile_id", "country")]
    return found.astype(dict.fromkeys(numbers, float)).assign(cutoff=cutoff.tz_localize("UTC"))
