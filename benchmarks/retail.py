"""The shop that accuracy is measured on: its lines, a project that knows a part of them, and what happened afterwards.

The answers are worked out here by plain SQL over the shop's own file, without anything of the product: they are the
oracle that the product's labels are held to.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd

from examples.online_retail import generate as generator
from foretell.errors import DataError
from foretell.project import Project
from ingestion.load import load_file
from lake.engine import last_batch, quote, session
from unification.identity import unify

WHERE_FROM = (
    "Online Retail II (CC BY 4.0): https://archive.ics.uci.edu/dataset/502; pass the file with --data, or name the "
    "folder that holds online_retail_ii/transactions.parquet in the variable FORETELL_TEST_DATA"
)
FILE = "online_retail_ii/transactions.parquet"
EXAMPLE = Path(__file__).parents[1] / "examples" / "online_retail"
KEY = "accuracy-benchmark"
"""The homes' key. Profile ids, and so the order of rows and the luck of a seed, are the same in every run."""

COLUMNS = ("Invoice", "StockCode", "Quantity", "InvoiceDate", "Price", "CustomerID")
GENERATED_CUSTOMERS, GENERATED_CUTOFFS = 700, ("2011-06-01",)
POPULATION_DAYS = 365
TOP = 0.1  # what the standard lookalike task calls a seed: the top tenth by the spend of SEED_DAYS
SEED_DAYS = 90

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


def located(given: Path | None) -> Path:
    """The file that is given, or the one in the folder of test data; says where to get one if there is none."""
    where = os.environ.get("FORETELL_TEST_DATA")
    file = given or (Path(where) / FILE if where else None)
    if file is None or not file.exists():
        raise DataError("benchmark", f"expected a shop's invoice lines, got {file or 'no file'}", WHERE_FROM)
    return file


def generate(file: Path) -> None:
    """Write the example's SYNTHETIC shop, for want of a real one."""
    generator.write(generator.generate(GENERATED_CUSTOMERS), file)


def lines(file: Path) -> str:
    """SQL for the lines that count: of a known customer, of a product, with a price, and of a sensible sign.

    Columns: customer, sold_at and day (the shop's clock), amount, cancelled. Duplicate lines are kept, but for those
    that a second sheet of the same workbook repeats, which such a file marks.
    """
    described = duckdb.execute(f"DESCRIBE FROM read_parquet('{quote(file)}')").fetchall()
    present = {name.replace(" ", ""): name for name, *_ in described}
    if lacking := [c for c in COLUMNS if c not in present]:
        problem = f"expected the columns {', '.join(COLUMNS)}, got none named {', '.join(lacking)}"
        raise DataError(str(file), problem, f"use {WHERE_FROM}")
    customer = f'"{present["CustomerID"]}"'
    once = "NOT overlap_dup" if "overlap_dup" in present else "true"
    return f"""SELECT {customer}::BIGINT::VARCHAR AS customer, InvoiceDate AS sold_at, InvoiceDate::DATE AS day,
            (Quantity * Price)::DECIMAL(18,4) AS amount, starts_with(Invoice, 'C') AS cancelled
        FROM read_parquet('{quote(file)}')
        WHERE {once} AND {customer} IS NOT NULL AND Price > 0 AND regexp_matches(StockCode, '^[0-9]{{5}}')
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
    T, end = _sql(cutoff), _sql(cutoff + timedelta(days=days))
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


def open_shop(folder: Path) -> Project:
    """The example's project, with a task beside the standard ones, before anything is loaded."""
    made = ("exports", "audiences", ".*", "__pycache__")  # by runs of the example
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(*made))
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / "clv180.py").write_text(CLV180)
    project = Project(folder)
    project.home.mkdir()
    (project.home / "key").write_text(KEY)
    return project


def live_until(project: Project, file: Path, now: datetime) -> Project:
    """The same project at a later now: the file's lines from its last now to this one come in, as another export."""
    before = "true" if last_batch(project) == 0 else f"InvoiceDate >= {_sql(project.now)}"
    settings = project.folder / "foretell.toml"
    text, replaced = re.subn(r"(?m)^as_of = .*$", f'as_of = "{now.isoformat()}"', settings.read_text())
    if replaced != 1:
        raise ValueError(f"{settings}: expected one line as_of, got {replaced}")
    settings.write_text(text)
    project, export = Project(project.folder), project.folder / f"until_{now:%Y%m%d}.parquet"
    lived = f"FROM read_parquet('{quote(file)}') WHERE {before} AND InvoiceDate < {_sql(now)}"
    duckdb.execute(f"COPY ({lived}) TO '{quote(export)}' (FORMAT parquet)")
    loaded = load_file(project, project.definitions.source("invoices"), export)
    if loaded.quarantined:
        raise ValueError(f"{loaded.quarantined:,} lines in quarantine: {loaded.reasons}")
    unify(project)
    return project


def _sql(at: datetime) -> str:
    """An instant on the shop's clock. It is UTC here, an hour less than London's in summer, when nobody shops."""
    return f"TIMESTAMP '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}'"


def people_of(project: Project) -> pd.DataFrame:
    """customer, profile_id: whose number belongs to which profile."""
    with session(project) as con:
        query = "SELECT DISTINCT split_part(node, ':', 2) AS customer, profile_id FROM member WHERE known_to IS NULL"
        return con.execute(query).df()
