"""The shop that accuracy is measured on: its lines, a project that knows a part of them, and what happened afterwards.

The answers are worked out here by plain SQL over the shop's own file, without anything of the product: they are the
oracle that the product's labels are held to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from foretell.errors import DataError
from foretell.project import Project
from ingestion.load import load_file
from lake.engine import quote, session
from unification.identity import unify

WHERE_FROM = (
    "Online Retail II (CC BY 4.0): https://archive.ics.uci.edu/dataset/502; pass the file with --data, or name the "
    "folder that holds online_retail_ii/transactions.parquet in the variable FORETELL_TEST_DATA"
)
KEY = "accuracy-benchmark"
"""The homes' key. Profile ids, and so the order of rows and the luck of a seed, are the same in every run."""

FILE = "online_retail_ii/transactions.parquet"
COLUMNS = ("Invoice", "StockCode", "Quantity", "InvoiceDate", "Price", "CustomerID")
GENERATED_CUTOFFS = ("2011-06-01",)
POPULATION_DAYS = 365
TOP = 0.1  # what the standard lookalike task calls a seed: the top tenth by the spend of SEED_DAYS
SEED_DAYS = 90

SETTINGS = '[foretell]\nas_of = "{at}"\n'
SOURCE = '''"""The shop's invoice lines."""

from foretell import Source

invoices = Source(
    name="invoices",
    files="invoices/*",
    role="order_line",
    event_at="InvoiceDate",
    timezone="Europe/London",
    currency="GBP",
    identifiers={"customer_no": "CustomerID"},
    columns={
        "order_id": "Invoice",
        "amount": "Quantity * Price",
        "quantity": "Quantity",
        "product_id": "StockCode",
        "cancelled": "starts_with(Invoice, 'C')",
    },
)
'''


CLV180 = '''"""How much will an active buyer spend in the next 180 days?"""

from dataclasses import replace

from foretell import days
from models.clv import clv

clv180 = replace(clv, name="clv180", horizon=days(180))
'''


@dataclass(frozen=True)
class Asked:
    """A prediction that is measured: the task that makes it, how far it looks, and which answer is its label."""

    name: str
    task: str
    days: int
    answer: str


ASKED = {
    a.name: a
    for a in (
        Asked("churn90", "churn", 90, "left"),
        Asked("propensity30", "propensity", 30, "bought"),
        Asked("clv90", "clv", 90, "spend"),
        Asked("clv180", "clv180", 180, "spend"),
        Asked("lookalike", "lookalike", 90, "entered"),
    )
}


@dataclass(frozen=True)
class Preset:
    """What is known of a file: the cutoffs its limits are meant for, and the counts that it must give.

    profiles: cutoff -> how many had a purchase in the year before; rates: prediction -> cutoff -> its base rate, to
    three decimals.
    """

    cutoffs: tuple[str, ...]
    lines: int
    customers: int
    profiles: Mapping[str, int]
    rates: Mapping[str, Mapping[str, float]]

    def check_file(self, lines: int, customers: int) -> None:
        if (lines, customers) != (self.lines, self.customers):
            raise DataError(
                "accuracy", f"expected {self.lines:,} lines of {self.customers:,} customers, got {lines:,} of "
                f"{customers:,}", "pass --preset none if this is another file",
            )  # fmt: skip

    def check(self, asked: Asked, cutoff: datetime, profiles: int, rate: float) -> None:
        """Refuse another number of profiles, or another base rate, than is known of a cutoff."""
        at = f"{cutoff:%Y-%m-%d}"
        if expected := self.profiles.get(at):
            expected -= math.ceil(TOP * expected) if asked.answer == "entered" else 0
            if profiles != expected:
                raise ValueError(f"{asked.name} at {at}: expected {expected:,} profiles, got {profiles:,}")
        known = self.rates.get(asked.name, {}).get(at)
        if known is not None and abs(rate - known) > 0.0005 + 1e-9:
            raise ValueError(f"{asked.name} at {at}: expected a base rate of {known}, got {rate:.4f}")


PRESETS = {
    "online_retail_ii": Preset(
        cutoffs=("2011-03-01", "2011-06-01", "2011-09-01"),
        lines=805_828,
        customers=5_875,
        profiles={"2011-03-01": 4_260, "2011-06-01": 4_324, "2011-09-01": 4_324},
        rates={
            "churn90": {"2011-03-01": 0.631, "2011-06-01": 0.634, "2011-09-01": 0.505},
            "propensity30": {"2011-03-01": 0.177, "2011-06-01": 0.201, "2011-09-01": 0.241},
        },
    ),
}


def generate(file: Path, customers: int = 700, seed: int = 0) -> None:
    """Write two years of a shop of the same shape: people differ in how often they come, how much they buy, and when
    they stay away for good. One basket in twenty is sent back. The same arguments give the same lines.
    """
    rng = np.random.default_rng(seed)
    first, days = datetime(2009, 12, 1), 739
    baskets = []
    for customer in range(customers):
        gap, value, day = rng.gamma(1.2, 50) + 3, rng.gamma(2.0, 2.0), rng.uniform(0, days)
        while day < days:
            baskets.append((12_000 + customer, day, value))
            day += rng.exponential(gap) if rng.random() > 0.12 else days
    baskets.sort(key=lambda basket: basket[1])
    rows = []
    for number, (customer, day, value) in enumerate(baskets):
        opened = first + timedelta(days=int(day), hours=8 + int(rng.integers(0, 10)), minutes=int(rng.integers(0, 60)))
        for _ in range(1 + rng.poisson(4)):
            line = (f"{20_000 + rng.integers(0, 800)}", 1 + rng.poisson(4), round(0.2 + rng.gamma(2.0, value / 4), 2))
            rows.append((f"{489_000 + number}", *line, opened, customer))
            if rng.random() < 0.02:
                back = opened + timedelta(days=int(rng.integers(1, 15)))
                rows.append((f"C{489_000 + number}", line[0], -line[1], line[2], back, customer))
    frame = pd.DataFrame(
        rows, columns=pd.Index(["Invoice", "StockCode", "Quantity", "Price", "InvoiceDate", "CustomerID"])
    )
    con = duckdb.connect()
    con.register("drawn", frame)
    con.execute(
        f"""COPY (SELECT Invoice, StockCode, NULL::VARCHAR AS Description, Quantity::INTEGER AS Quantity,
                InvoiceDate::TIMESTAMP AS InvoiceDate, Price, CustomerID::INTEGER AS CustomerID,
                'United Kingdom' AS Country, false AS overlap_dup
            FROM drawn ORDER BY InvoiceDate, Invoice) TO '{quote(file)}' (FORMAT parquet)"""
    )


def lines(file: Path) -> str:
    """SQL for the lines that count: of a known customer, of a product, with a price, and of a sensible sign.

    Columns: customer, sold_at and day (the shop's clock), amount, cancelled. Duplicate lines are kept, but for those
    that a second sheet of the same workbook repeats, which such a file marks.
    """
    con = duckdb.connect()
    present = {name for name, *_ in con.execute(f"DESCRIBE FROM read_parquet('{quote(file)}')").fetchall()}
    if lacking := [c for c in COLUMNS if c not in present]:
        raise DataError(str(file), f"expected the columns {', '.join(COLUMNS)}, got none named {', '.join(lacking)}",
                        f"use {WHERE_FROM}")  # fmt: skip
    once = "NOT overlap_dup" if "overlap_dup" in present else "true"
    return f"""SELECT CustomerID::VARCHAR AS customer, InvoiceDate AS sold_at, InvoiceDate::DATE AS day,
            (Quantity * Price)::DECIMAL(18,4) AS amount, starts_with(Invoice, 'C') AS cancelled
        FROM read_parquet('{quote(file)}')
        WHERE {once} AND CustomerID IS NOT NULL AND Price > 0 AND regexp_matches(StockCode, '^[0-9]{{5}}')
            AND CASE WHEN starts_with(Invoice, 'C') THEN Quantity < 0 ELSE Quantity > 0 END"""


def span(file: Path) -> tuple[int, int, datetime]:
    """(lines, customers, the instant after which nothing is known): what the file holds of lines that count."""
    n, customers, last = duckdb.execute(
        f"SELECT count(*), count(DISTINCT customer), max(sold_at) FROM ({lines(file)})"
    ).fetchall()[0]
    return int(n), int(customers), last.replace(tzinfo=UTC)


def answers(file: Path, cutoff: datetime, days: int, people: pd.DataFrame) -> pd.DataFrame:
    """What the customers with a purchase in the year before T did in `[T, T + days)`: one row each, by customer.

    Columns: customer, profile_id, left (no purchase), bought, spend (cancellations netted), seed (top tenth by the
    spend of the SEED_DAYS before T), entered (top tenth afterwards). A purchase is a day with a line that is not
    cancelled.
    people: customer, profile_id; equal spends are ranked by the profile's id.
    """
    con = duckdb.connect()
    con.register("people", people)
    T, end = (f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}'" for at in (cutoff, cutoff + timedelta(days=days)))
    place = "row_number() OVER (ORDER BY {} DESC, profile_id) <= ceil(" + str(TOP) + " * count(*) OVER ())"
    return con.execute(
        f"""WITH line AS ({lines(file)}),
        year AS (
            SELECT customer, coalesce(sum(amount) FILTER (sold_at >= {T} - INTERVAL {SEED_DAYS} DAY), 0) AS spent
            FROM line WHERE sold_at < {T} AND sold_at >= {T} - INTERVAL {POPULATION_DAYS} DAY
            GROUP BY customer HAVING count(*) FILTER (NOT cancelled) > 0),
        later AS (
            SELECT customer, count(DISTINCT day) FILTER (NOT cancelled) AS purchases, sum(amount) AS spend
            FROM line WHERE sold_at >= {T} AND sold_at < {end} GROUP BY customer),
        joined AS (
            SELECT customer, profile_id, spent, coalesce(purchases, 0) AS purchases, coalesce(spend, 0) AS spend
            FROM year LEFT JOIN later USING (customer) LEFT JOIN people USING (customer))
        SELECT customer, profile_id, (purchases = 0)::DOUBLE AS "left", (purchases > 0)::DOUBLE AS bought,
            spend::DOUBLE AS spend, {place.format("spent")} AS seed, ({place.format("spend")})::DOUBLE AS entered
        FROM joined ORDER BY customer"""
    ).df()


def project_at(folder: Path, file: Path, now: datetime) -> Project:
    """A project whose now is this instant, and which was given the lines before it and nothing else."""
    written = {"foretell.toml": SETTINGS.format(at=now.isoformat()), "sources/invoices.py": SOURCE}
    for name, text in {**written, "tasks/clv180.py": CLV180}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    project = Project(folder)
    project.home.mkdir(parents=True)
    (project.home / "key").write_text(KEY)
    export = project.exports / "invoices" / "lines.parquet"
    export.parent.mkdir(parents=True)
    query = f"""SELECT * FROM read_parquet('{quote(file)}') WHERE InvoiceDate < TIMESTAMP '{now:%Y-%m-%d %H:%M:%S}'
            AND NOT overlap_dup AND CustomerID IS NOT NULL AND Price > 0 AND regexp_matches(StockCode, '^[0-9]{{5}}')
            AND CASE WHEN starts_with(Invoice, 'C') THEN Quantity < 0 ELSE Quantity > 0 END"""
    duckdb.execute(f"COPY ({query}) TO '{quote(export)}' (FORMAT parquet)")
    loaded = load_file(project, project.definitions.source("invoices"), export)
    if loaded.quarantined:
        raise ValueError(f"{loaded.quarantined:,} lines in quarantine: {loaded.reasons}")
    unify(project)
    return project


def people_of(project: Project) -> pd.DataFrame:
    """customer, profile_id: whose number belongs to which profile."""
    with session(project) as con:
        query = "SELECT DISTINCT split_part(node, ':', 2) AS customer, profile_id FROM member WHERE known_to IS NULL"
        return con.execute(query).df()
