"""Does the gate before training find what knows the future, and leave honest columns alone?

Leaks of many kinds are planted in real tables, one at a time, strong ones and subtle ones; the same tables without
them, at other cutoffs, with other labels, features and sizes, must pass. Without FORETELL_TEST_DATA the tables are
made up. Thresholds were set by looking at the first collection; the held-out one has other seeds, samples, cutoffs and
features, and a table more.

  leaks.caught        sets in which the planted column is named, of 20
  leaks.false_alarms  clean sets in which a column is named, of 20
  leaks.named_beside  sets with a leak in which an honest column is named as well

The same counts of the held-out collection are in the details, as are the sets that went wrong.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import leak_tables, report
from benchmarks.leak_sets import CDNOW, JOURNEY, RETAIL, LeakSet, bank, hillstrom, shop, telco
from foretell.console import table
from training import leaks

QUICK, QUICK_ROWS = 8, 6_000  # sets of either kind of the first collection, none that is held out; rows of each
LEAK = "planted"
Values = Any


@dataclass(frozen=True)
class Judged:
    """What the gate said of a set. planted: whether there is a leak; named: the columns it named; checks: by which."""

    name: str
    planted: bool
    rows: int
    named: tuple[str, ...]
    checks: tuple[str, ...]
    seconds: float

    @property
    def caught(self) -> bool:
        return LEAK in self.named

    @property
    def beside(self) -> int:
        return len([c for c in self.named if c != LEAK])

    @property
    def right(self) -> bool:
        return self.caught == self.planted and not self.beside


def planted(base: LeakSet, name: str, values: Values, now: bool = False) -> LeakSet:
    """The set with one more column. now: whether the present is shown to the gate, where that column is empty."""
    rows = base.rows.assign(**{LEAK: np.asarray(values)})
    present = (
        base.now.assign(**{LEAK: None if rows[LEAK].dtype == object else np.nan}) if base.now is not None else None
    )
    return replace(base, name=name, rows=rows, columns=[*base.columns, LEAK], now=present if now else None)


def noisy(base: LeakSet, auc: float, seed: int) -> np.ndarray:
    """A number that tells the label with about this AUC: of an amount, that of its rank."""
    label = base.rows["label"].rank(pct=True) if base.kind == "amount" else base.rows["label"]
    apart = {0.77: 1.05, 0.8: 1.19, 0.85: 1.47, 0.9: 1.81}[auc] * (3 if base.kind == "amount" else 1)
    return apart * label.to_numpy() + np.random.default_rng(seed).normal(size=len(label))


def told(base: LeakSet, share: float, seed: int, outcome: float = 1) -> np.ndarray:
    """Of the rows with this outcome so many, by chance."""
    return (base.rows["label"] == outcome).to_numpy() & (np.random.default_rng(seed).random(len(base.rows)) < share)


def status(base: LeakSet, share: float, seed: int, values: list[str], else_: str | None = None) -> np.ndarray:
    """Text that is set when the label comes true, for so many of them."""
    chosen = np.random.default_rng(seed).choice(values, len(base.rows)).astype(object)
    return np.where(told(base, share, seed), chosen, else_)


def missing(base: LeakSet, column: str, share: float, seed: int, outcome: float = 1) -> np.ndarray:
    """A column that gets lost for so many of the rows with an outcome, and for one in 50 of the others."""
    lost = told(base, share, seed, outcome) | told(base, 0.02, seed + 1, 1 - outcome)
    return base.rows[column].astype(float).mask(lost).to_numpy()


def encoding_of(base: LeakSet, by: list[str]) -> np.ndarray:
    """The mean label of those who are alike, the row itself among them."""
    return base.rows.groupby(by, dropna=False, observed=True)["label"].transform("mean").to_numpy()


def numbered(base: LeakSet, noise: float, seed: int) -> np.ndarray:
    """A running number given more or less in the order of the outcomes."""
    drawn = np.random.default_rng(seed).normal(size=len(base.rows))
    return (base.rows["label"] + noise * drawn).rank(method="first").to_numpy()


def late(base: LeakSet, values: Values, cutoffs: int) -> np.ndarray:
    """Values that the latest cutoffs do not have yet."""
    fresh = base.rows["cutoff"].isin(sorted(base.rows["cutoff"].unique())[-cutoffs:])
    return pd.Series(np.asarray(values, dtype=float)).mask(fresh.to_numpy()).to_numpy()


Collection = tuple[list[Callable[[], LeakSet]], list[Callable[[], LeakSet]]]


def first(data: Path) -> Collection:
    """The collection that thresholds were set by: sets with a leak, clean sets."""
    calls, phone, mail = bank(data), telco(data), hillstrom(data)
    lines = RETAIL.format(data=data)
    retail = shop("retail", lines, "2011-08-01", 6)
    clv = retail.asking("clv", "spend_ahead", "amount")
    grocer = shop("grocer", JOURNEY.format(data=data), "2017-09-01", 5, horizon=7, step=14)
    f, c = retail.future, calls.sample("calls", 10_000, 1)
    few, small, part = calls.sample("calls", 3_000, 2), phone.sample("phone", 2_000, 3), retail.sample("shop", 5_000, 4)
    buy = retail.rows
    with_leak = [
        lambda: planted(calls, "call duration", calls.future["duration"]),
        lambda: planted(few, "call duration, 3,000 rows", few.future["duration"]),
        lambda: planted(c, "label with noise, 0.85", noisy(c, 0.85, 5)),
        lambda: planted(c, "status of a sale", status(c, 0.7, 6, ["signed", "paid"], "open")),
        lambda: planted(c, "target encoding", encoding_of(c, ["age", "job", "education", "day_of_week"])),
        lambda: planted(c, "number in order of outcome", numbered(c, 0.4, 7)),
        lambda: planted(phone, "cancel reason", status(phone, 0.5, 8, ["price", "service", "moved"])),
        lambda: planted(phone, "missing when gone", missing(phone, "MonthlyCharges", 0.4, 9)),
        lambda: planted(small, "label with noise, 0.9, 2,000 rows", noisy(small, 0.9, 10)),
        lambda: planted(mail, "conversion", mail.future["conversion"]),
        lambda: planted(retail, "orders of tomorrow", f["tomorrow"]),
        lambda: planted(retail, "orders of the next week", f["week"]),
        lambda: planted(retail, "days to the next order", f["days_to_next"]),
        lambda: planted(retail, "orders of all time", buy["orders"] + f["orders_ahead"]),
        lambda: planted(clv, "spend of all time", buy["spend"] + f["spend_ahead"]),
        lambda: planted(clv, "mean over past and horizon", 0.7 * buy["spend_90d"] + 0.3 * f["spend_ahead"]),
        lambda: planted(retail, "filled in late", late(retail, noisy(retail, 0.85, 11), 2)),
        lambda: planted(retail, "empty at present", noisy(retail, 0.77, 12), now=True),
        lambda: planted(part, "label with noise, 0.77, 5,000 rows", noisy(part, 0.77, 13)),
        lambda: planted(clv, "amount with noise, 0.8", noisy(clv, 0.8, 14)),
    ]
    contract = ["tenure", "Contract", "MonthlyCharges", "gender", "Partner", "TechSupport"]
    short = ["age", "job", "contact", "poutcome", "pdays", "previous"]
    clean = [
        lambda: calls,
        lambda: c,
        lambda: calls.sample("calls, 2,000 rows", 2_000, 15),
        lambda: calls.only("calls, 6 features", short),
        lambda: phone,
        lambda: phone.sample("phone, 1,000 rows", 1_000, 16),
        lambda: phone.sample("phone, 300 rows", 300, 17),
        lambda: phone.only("phone, 6 features", contract),
        lambda: mail.sample("mail, 40,000 rows", 40_000, 18),
        lambda: replace(grocer, name="grocer, at the turn of a month", now=None),
        lambda: mail.sample("", 20_000, 20).asking("mail, spend", "spend", "amount"),
        lambda: retail,
        lambda: retail.at("retail, 3 cutoffs", 3),
        lambda: retail.at("retail, 1 cutoff", 1),
        lambda: clv,
        lambda: clv.sample("clv, 2,000 rows", 2_000, 21),
        lambda: retail.sample("retail, 600 rows", 600, 22),
        lambda: retail.only("retail, 3 features", ["recency", "hour", "country"]),
        lambda: shop("retail over Christmas", lines, "2011-03-01", 6),
        lambda: shop("retail at its start", lines, "2010-08-01", 6),
    ]  # fmt: skip
    return with_leak, clean


def held_out(data: Path) -> Collection:
    """Other seeds, samples, cutoffs and features, and a table more: no threshold was set by these."""
    calls, phone = bank(data).sample("calls", 15_000, 201), telco(data)
    grocer = shop("grocer", JOURNEY.format(data=data), "2017-10-18", 6, horizon=10, step=21)
    basket = grocer.asking("grocer, spend", "spend_ahead", "amount")
    music = shop("music", CDNOW.format(data=data), "1998-03-20", 4, horizon=60)
    spend = music.asking("music, spend", "spend_ahead", "amount")
    g, m = grocer.future, music.future
    with_leak = [
        lambda: planted(grocer, "grocer: label with noise, 0.85", noisy(grocer, 0.85, 202)),
        lambda: planted(grocer, "grocer: orders of tomorrow", g["tomorrow"]),
        lambda: planted(grocer, "grocer: days to the next order", g["days_to_next"]),
        lambda: planted(grocer, "grocer: filled in late", late(grocer, noisy(grocer, 0.9, 203), 2)),
        lambda: planted(grocer, "grocer: missing when gone", missing(grocer, "line_mean", 0.5, 204)),
        lambda: planted(basket, "grocer: lines of all time", grocer.rows["lines"] + g["lines_ahead"]),
        lambda: planted(basket, "grocer: half the horizon", 0.5 * (grocer.rows["spend_30d"] + g["spend_ahead"])),
        lambda: planted(music, "music: orders of all time", music.rows["orders"] + m["orders_ahead"]),
        lambda: planted(music, "music: orders of the next week", m["week"]),
        lambda: planted(music, "music: status of the gone", status(music, 0.4, 105, ["gone", "moved"])),
        lambda: planted(music, "music: empty at present", noisy(music, 0.8, 206), now=True),
        lambda: planted(spend, "music: amount with noise, 0.85", noisy(spend, 0.85, 207)),
        lambda: planted(spend, "music: mean over past and horizon", music.rows["spend"] + 0.5 * m["spend_ahead"]),
        lambda: planted(phone, "phone: label with noise, 0.8", noisy(phone, 0.8, 208)),
        lambda: planted(phone, "phone: target encoding", encoding_of(phone, ["MonthlyCharges", "Contract"])),
        lambda: planted(phone, "phone: number in order of outcome", numbered(phone, 0.6, 209)),
        lambda: planted(phone, "phone: kept account", status(phone, 0.9, 110, ["closed"], "active")),
        lambda: planted(calls, "calls: call duration", calls.future["duration"]),
        lambda: planted(calls, "calls: label with noise, 0.8", noisy(calls, 0.8, 211)),
        lambda: planted(calls, "calls: missing when sold", missing(calls, "age", 0.5, 212)),
    ]
    clean = [
        lambda: grocer,
        lambda: grocer.sample("grocer, 800 rows", 800, 213),
        lambda: grocer.only("grocer, 4 features", ["age", "products", "month_share", "spend_30d"]),
        lambda: basket,
        lambda: basket.sample("grocer, spend, 1,500 rows", 1_500, 214),
        lambda: shop("grocer, 40 days", JOURNEY.format(data=data), "2017-09-20", 4, horizon=40),
        lambda: music,
        lambda: music.at("music, 2 cutoffs", 2),
        lambda: music.sample("music, 500 rows", 500, 215),
        lambda: music.only("music, recency and age", ["recency", "age"]),
        lambda: spend,
        lambda: shop("music at its start", CDNOW.format(data=data), "1997-09-10", 5, horizon=45),
        lambda: phone.sample("phone, 400 rows", 400, 216),
        lambda: phone.sample("phone, 3,000 rows", 3_000, 217),
        lambda: phone.only("phone, 4 features", ["PaymentMethod", "OnlineSecurity", "tenure", "Partner"]),
        lambda: calls,
        lambda: calls.sample("calls, 1,000 rows", 1_000, 218),
        lambda: calls.only("calls, the economy", ["euribor3m", "nr.employed", "cons.conf.idx", "month"]),
        lambda: calls.only("calls, one of the economy", ["age", "job", "housing", "nr.employed"]),
        lambda: shop("retail, 60 days", RETAIL.format(data=data), "2011-05-10", 5, horizon=60),
    ]
    return with_leak, clean


def judge(made: Callable[[], LeakSet], is_planted: bool, most: int | None = None) -> Judged:
    """Show one set to the gate, or so many rows of it."""
    given = made()
    if most and len(given.rows) > most:
        given = given.sample(given.name, most, 0)
    rows, categories, now = given.encoded()
    started = time.perf_counter()
    found = leaks.inspect(rows, given.columns, given.kind, categories, now=now)
    took = time.perf_counter() - started
    named = tuple(dict.fromkeys(leak.column for leak in found))
    judged = Judged(given.name, is_planted, len(rows), named, tuple(leak.check for leak in found), took)
    report.progress(f"{'' if judged.right else 'WRONG '}{given.name}: {', '.join(named) or 'nothing'}, {took:.1f} s")
    return judged


def judged(collection: Collection, sets: int | None = None) -> list[Judged]:
    """Every set of a collection, or so many of either kind, spread over it."""
    found = []
    for made, is_planted in zip(collection, (True, False), strict=True):
        step = max(1, len(made) // sets) if sets else 1
        found += [judge(one, is_planted, QUICK_ROWS if sets else None) for one in made[::step][:sets]]
    return found


def counts(found: list[Judged]) -> dict[str, int]:
    """caught, false_alarms, named_beside, and of how many sets."""
    return {
        "leaks": sum(j.planted for j in found), "caught": sum(j.planted and j.caught for j in found),
        "clean": sum(not j.planted for j in found), "false_alarms": sum(not j.planted and j.beside > 0 for j in found),
        "named_beside": sum(j.planted and j.beside > 0 for j in found),
    }  # fmt: skip


def measure(quick: bool, data: Path | None = None) -> report.Report:
    """Judge both collections. data: the folder of real tables; made-up ones are written for want of it."""
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as made_up:
        folder = data or leak_tables.write(Path(made_up))
        seen = judged(first(folder), QUICK if quick else None)
        unseen = [] if quick else judged(held_out(folder))
    total, apart = counts(seen), counts(unseen)
    wrong = [f"{j.name}: {', '.join(j.named) or 'nothing'}" for j in (*seen, *unseen) if not j.right]
    table(["set", "leak", "rows", "named", "by", "s"], [_line(j) for j in (*seen, *unseen)])

    def bar(name: str, limit: str) -> report.Bar:
        return report.Bar(f"leaks.{name}", total[name], limit, (total[name], total[name]))

    return report.Report(
        benchmark="leaks",
        versions=report.versions("lightgbm", "numpy", "scipy"),
        sizes={"leaks": total["leaks"], "clean": total["clean"], "real_data": data is not None},
        bars=[
            bar("caught", f">={total['leaks'] - 1}"), bar("false_alarms", "<=1"), bar("named_beside", "<=1"),
        ],
        details={
            "held_out": apart, "wrong": wrong, "longest_s": max(j.seconds for j in (*seen, *unseen)),
        },
    )  # fmt: skip


def _line(j: Judged) -> list[str]:
    checks = ", ".join(dict.fromkeys(j.checks))
    return [j.name, "yes" if j.planted else "", f"{j.rows:,}", ", ".join(j.named), checks, f"{j.seconds:.1f}"]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, judge, report."""
    parser = report.options(__doc__ or "", "leaks", repeats=False)
    parser.add_argument("--made-up", action="store_true", help="made-up tables, though FORETELL_TEST_DATA is set")
    given = parser.parse_args(arguments)
    where = None if given.made_up else os.environ.get("FORETELL_TEST_DATA")
    measure(given.quick, Path(where) if where else None).show()


if __name__ == "__main__":
    sys.exit(main())
