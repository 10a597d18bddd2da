"""The shop of the feature benchmark: a seeded log of transactions, loaded through the product's own contract.

The log goes on for a hundredth longer than the cutoffs do. What is uploaded in that time is a last upload, held back
until `load_last`: the news with which features are brought up to date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from benchmarks.report import progress
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import load
from lake.engine import instant, quote
from unification.identity import unify

SEED = 20_240_101
START = datetime(2022, 1, 1, tzinfo=UTC)
DAYS = 730
MOST_LATE = 5  # days

# now is when the last line of the last upload has arrived
SETTINGS = '[foretell]\nas_of = "2024-01-14T00:00:00+00:00"\nthreads = 2\nmemory = "3GB"\n'
SOURCE = '''"""A shop's transactions, one line of a basket per row; the e-mail address of those who want a receipt."""

from foretell import Source

shop = Source(
    name="shop",
    files="shop/*.parquet",
    role="order_line",
    event_at="sold_at",
    known_at="uploaded_at",
    timezone="Europe/Oslo",
    times_in="UTC",
    identifiers={"email": "email", "loyalty_card": "card_no"},
    columns={
        "order_id": "basket_id",
        "amount": "paid",
        "quantity": "quantity",
        "discount": "discount",
        "product_id": "product_id",
        "category": "category",
        "brand": "brand",
        "cancelled": "cancelled",
    },
)
'''
TASK = '''"""The task whose views the training join brings together."""

from foretell import Label, PredictionTask, _, days

bench = PredictionTask(
    name="bench",
    population="orders_90d > 0",
    horizon=days(28),
    label=Label(source="order_line", value=_.count() == 0),
    views=("orders", "cadence", "basket"),
    metric="log_loss",
    purpose="benchmark",
)
'''


@dataclass(frozen=True)
class Sizes:
    """Lines uploaded before the last cutoff (about: they are drawn), people, and months with a cutoff."""

    events: int
    profiles: int
    cutoffs: int


def cutoffs_of(sizes: Sizes) -> list[datetime]:
    """Month by month, the last one when the last upload is yet to come."""
    return [START + timedelta(days=DAYS - 30 * n) for n in reversed(range(sizes.cutoffs))]


def generate(to: Path, held_back: Path, sizes: Sizes, seed: int = SEED) -> None:
    """Write the log as one Parquet file a quarter, the last upload as one elsewhere. The same arguments give the same
    rows.

    People differ in how much they buy; six in ten gave an e-mail address, a quarter change cards on the way. One line
    in twenty is uploaded days late, one in fifty is a cancellation.
    """
    rng = np.random.default_rng(seed)
    events, seconds = sizes.events + sizes.events // 100, DAYS * 86_400 + DAYS * 864
    lines = 1 + rng.poisson(4, size=events // 4)  # of every basket
    lines = lines[: int(np.searchsorted(np.cumsum(lines), events)) + 1]
    baskets = len(lines)
    zeal = rng.gamma(0.8, 1, sizes.profiles)
    person = np.searchsorted(np.cumsum(zeal) / zeal.sum(), rng.random(baskets)).clip(max=sizes.profiles - 1)
    person[: sizes.profiles] = rng.permutation(sizes.profiles)[:baskets]  # nobody without a basket
    second = rng.integers(0, seconds, baskets)
    has_email, new_card_at = rng.random(sizes.profiles) < 0.6, rng.integers(0, 4 * seconds, sizes.profiles)
    card = person * 2 + (second >= new_card_at[person])
    email = np.where(has_email[person] & (rng.random(baskets) < 0.4), person, -1)
    late = np.where(rng.random(baskets) < 0.05, rng.integers(3_600, MOST_LATE * 86_400, baskets), 60)
    cancelled = rng.random(baskets) < 0.02
    of = np.repeat(np.arange(baskets), lines)[:events]
    n = len(of)
    cents = np.round(np.exp(rng.normal(5.8, 0.9, n))).astype(np.int32) + 1
    off = np.where(rng.random(n) < 0.3, np.round(cents * rng.uniform(0.05, 0.4, n)), 0)
    product = 20_000 * rng.random(n) ** 2.5
    quantity = 1 + rng.poisson(0.4, n)
    frame = pd.DataFrame({
        "basket": of, "second": second[of], "late": late[of], "card": card[of], "email": email[of],
        "cents": np.where(cancelled[of], -cents, cents), "off": off, "product": product, "quantity": quantity,
        "cancelled": cancelled[of],
    }).astype(dict.fromkeys(("off", "product"), np.int32))  # fmt: skip
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2; SET preserve_insertion_order=false")
    con.register("drawn", frame)
    con.execute(
        f"""CREATE TABLE log AS SELECT 'b' || basket AS basket_id,
            (TIMESTAMP '{START:%Y-%m-%d}' + to_seconds(second)) AS sold_at, sold_at + to_seconds(late) AS uploaded_at,
            'C' || (10000000 + card) AS card_no, CASE WHEN email >= 0 THEN 'p' || email || '@example.org' END AS email,
            (cents / 100)::DECIMAL(18,2) AS paid, quantity, (off / 100)::DECIMAL(18,2) AS discount,
            'sku' || product AS product_id, 'category ' || product % 300 AS category,
            'brand ' || product % 900 AS brand, cancelled FROM drawn"""
    )
    last = f"uploaded_at >= {instant(START + timedelta(days=DAYS))}"
    quarters = con.execute(
        f"SELECT DISTINCT date_trunc('quarter', sold_at)::DATE FROM log WHERE NOT {last} ORDER BY 1"
    ).fetchall()
    files = {to / str(q): f"NOT {last} AND date_trunc('quarter', sold_at) = DATE '{q}'" for (q,) in quarters}
    for file, rows in {**files, held_back / "last": last}.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        con.execute(
            f"""COPY (FROM log WHERE {rows} ORDER BY sold_at, basket_id, product_id, paid)
                TO '{quote(file)}.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
    con.close()


def prepare(folder: Path, sizes: Sizes) -> dict[str, int]:
    """Make the project: generate, load all but the last upload, unify. Returns the counts that `unify` reports, and
    how many `facts` there are."""
    for name, text in {"foretell.toml": SETTINGS, "sources/shop.py": SOURCE, "tasks/bench.py": TASK}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    progress(f"drawing {sizes.events:,} lines")
    generate(folder / "exports" / "shop", folder / "held_back", sizes)
    return _load(folder)


def load_last(folder: Path) -> dict[str, int]:
    """Load the last upload, and unify. Returns what `prepare` does; `facts` are the new ones."""
    (folder / "held_back" / "last.parquet").rename(folder / "exports" / "shop" / "last.parquet")
    return _load(folder)


def _load(folder: Path) -> dict[str, int]:
    project, added = Project(folder), 0
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, ForetellError):
            raise loaded
        if loaded.quarantined:
            raise ValueError(f"{loaded.file}: {loaded.reasons}")
        added += loaded.added
        progress(f"loaded {loaded.file}: {added:,} new facts so far")
    progress("unifying")
    return unify(project) | {"facts": added}
