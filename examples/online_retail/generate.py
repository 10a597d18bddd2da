"""A file of the shape of Online Retail II, drawn from a seed, for trying the example without the real one.

    python -m examples.online_retail.generate FILE [--customers N] [--seed S]

SYNTHETIC: nobody bought any of this. People order at a rate of their own until they lose interest, come back to the
items they like, order more before Christmas, and cancel now and then. Some lines have no customer, are no product, or
have no price, as in the real file, whose two sheets both hold 1 to 9 December 2010.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

START, END = pd.Timestamp("2009-12-01"), pd.Timestamp("2011-12-10")
OVERLAP = (pd.Timestamp("2010-12-01"), pd.Timestamp("2010-12-10"))
DAYS = (END - START).days
ITEMS = 400
COLUMNS = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]
NO_PRODUCT = [("POST", "POSTAGE"), ("M", "Manual"), ("D", "Discount"), ("BANK CHARGES", "Bank Charges")]
COUNTRIES = ["United Kingdom", "Germany", "France", "EIRE"]


def generate(customers: int = 300, seed: int = 0) -> pd.DataFrame:
    """Every line once, in order of time, with UCI's columns."""
    rng = np.random.default_rng(seed)
    codes = [f"{number}{rng.choice(['', '', 'A', 'P'])}" for number in rng.choice(80_000, ITEMS, False) + 10_000]
    prices = np.round(rng.gamma(2.0, 1.5, ITEMS) + 0.19, 2)
    popular = rng.dirichlet(np.full(ITEMS, 0.5))
    orders = []  # (time, customer, country, [(item, quantity)])
    for n in range(customers):
        country = rng.choice(COUNTRIES, p=[0.9, 0.04, 0.03, 0.03])
        liked = rng.choice(ITEMS, 25, p=popular)
        rate, leaves, size = rng.gamma(1.2, 1 / 40), rng.beta(1.0, 9.0), rng.gamma(3.0, 2.5)
        at = rng.uniform(0, DAYS - 30)
        while at < DAYS:
            lines = 1 + rng.poisson(size)
            items = np.where(rng.random(lines) < 0.6, rng.choice(liked, lines), rng.choice(ITEMS, lines, p=popular))
            orders.append((_in_the_day(at, rng), 12346 + n, country, items, rng.choice([1, 2, 4, 6, 12, 24], lines)))
            before_christmas = (START + pd.Timedelta(days=at)).month in (9, 10, 11)
            at += 1.0 + rng.exponential(1 / (rate * (1.6 if before_christmas else 1.0)))
            if rng.random() < leaves:
                break
    for _ in range(len(orders) // 6):  # someone who gave no number
        lines = 1 + rng.poisson(6)
        items = rng.choice(ITEMS, lines, p=popular)
        orders.append((_in_the_day(rng.uniform(0, DAYS), rng), None, COUNTRIES[0], items, rng.choice([1, 2, 4], lines)))

    rows = []
    for number, (at, customer, country, items, quantities) in enumerate(sorted(orders, key=lambda o: o[0]), 489434):
        said = (at, customer, country)
        for item, quantity in zip(items, quantities, strict=True):
            rows.append((str(number), codes[item], f"ITEM {item}", quantity, prices[item], *said))
            if rng.random() < 0.01:
                rows.append(rows[-1])  # the same thing twice in one basket
        if rng.random() < 0.1:
            code, name = NO_PRODUCT[rng.integers(len(NO_PRODUCT))]
            rows.append((str(number), code, name, 1, round(rng.uniform(2, 40), 2), *said))
        if rng.random() < 0.02:
            rows.append((str(number), codes[items[0]], "damaged", -quantities[0], 0.0, at, None, COUNTRIES[0]))
        if rng.random() < 0.05 and (later := at + pd.Timedelta(days=rng.integers(1, 20))) < END:
            back = (codes[items[0]], f"ITEM {items[0]}", -quantities[0], prices[items[0]])
            rows.append((f"C{number}", *back, later, customer, country))
    invoice, code, name, quantity, price, at, customer, country = zip(*rows, strict=True)
    lines = pd.DataFrame(dict(zip(COLUMNS, [invoice, code, name, quantity, at, price, customer, country], strict=True)))
    lines["Customer ID"] = lines["Customer ID"].astype("Int64")
    return lines.sort_values("InvoiceDate", kind="stable", ignore_index=True)


def _in_the_day(day: float, rng: np.random.Generator) -> pd.Timestamp:
    """A minute of the shop's hours on that day."""
    return START + pd.Timedelta(days=int(day), hours=8, minutes=int(rng.integers(0, 12 * 60)))


def sheets(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines as UCI's workbook holds them: nine days are on both of its sheets."""
    first, second = lines["InvoiceDate"] < OVERLAP[1], lines["InvoiceDate"] >= OVERLAP[0]
    return {"Year 2009-2010": lines[first], "Year 2010-2011": lines[second]}


def write(lines: pd.DataFrame, file: Path) -> None:
    """Write the two sheets as a workbook, or one after the other into a .csv or .parquet file.

    A .parquet file marks lines that are in both by `overlap_dup`.
    """
    parts = sheets(lines)
    if file.suffix == ".xlsx":
        from openpyxl import Workbook

        book = Workbook(write_only=True)
        for name, part in parts.items():
            sheet = book.create_sheet(name)
            sheet.append(COLUMNS)
            for row in part.astype(object).where(part.notna(), None).itertuples(index=False, name=None):
                sheet.append([int(v) if isinstance(v, str) and v.isdigit() else v for v in row])
        book.save(file)
    elif file.suffix == ".csv":
        both = pd.concat(parts.values())
        both.astype({"Customer ID": "float"}).to_csv(file, index=False)
    else:
        first, second = parts.values()
        marked = [first.assign(overlap_dup=first["InvoiceDate"] >= OVERLAP[0]), second.assign(overlap_dup=False)]
        pd.concat(marked).to_parquet(file, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help=".xlsx, .csv or .parquet")
    parser.add_argument("--customers", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    lines = generate(given.customers, given.seed)
    write(lines, given.file)
    print(f"{given.file}: {len(lines):,} lines of {given.customers:,} SYNTHETIC customers")


if __name__ == "__main__":
    main()
