"""Made-up tables in the shape of the real ones that the benchmark of the leak gate reads, where those are absent.

People differ in how often they buy and in whether they have left, as in the models of Schmittlein, Morrison & Colombo
(Counting Your Customers, 1987); snapshots are drawn from a logistic model of their columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

CALLS, PHONES, MAILS = 20_000, 7_000, 40_000


def write(folder: Path) -> Path:
    """All tables, under the names of the real ones. Returns the folder."""
    for seed, (name, made) in enumerate(
        {
            "bank_marketing/bank_additional_full": calls,
            "telco_churn/telco_churn": phones,
            "hillstrom/hillstrom": mails,
            "online_retail_ii/transactions": invoices,
            "completejourney/transactions": baskets,
            "completejourney/demographics": households,
            "cdnow/sample": records,
        }.items()
    ):
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        made(np.random.default_rng(seed)).to_parquet(file)
    return folder


def calls(rng: np.random.Generator) -> pd.DataFrame:
    """Sales calls: who subscribes depends on the economy and on earlier calls; those who do talk longer."""
    n = CALLS
    rate, before = rng.choice([0.7, 1.3, 4.1, 4.9], n, p=[0.15, 0.1, 0.25, 0.5]), rng.random(n) < 0.13
    success = before & (rng.random(n) < 0.3)
    age = rng.normal(40, 10, n).clip(18, 90).round()
    y = rng.random(n) < expit(-0.7 - 0.55 * rate + 1.6 * success + 0.02 * np.abs(age - 40))
    duration = np.where(y, 80 + rng.gamma(2.2, 210, n), rng.gamma(1.5, 150, n)).round()
    return pd.DataFrame(
        {
            "age": age, "job": rng.choice(["admin", "services", "retired", "student"], n),
            "education": rng.choice(["basic", "school", "degree"], n), "housing": rng.choice(["yes", "no"], n),
            "contact": rng.choice(["cellular", "telephone"], n), "month": rng.choice(["may", "jul", "nov", "mar"], n),
            "day_of_week": rng.choice(["mon", "tue", "wed", "thu", "fri"], n), "duration": duration,
            "campaign": rng.geometric(0.4, n), "pdays": np.where(success, rng.integers(2, 20, n), 999),
            "previous": before.astype(int),
            "poutcome": np.where(success, "success", np.where(before, "failure", "nonexistent")),
            "cons.conf.idx": rate * 2 + rng.normal(-45, 3, n), "euribor3m": (rate + rng.normal(0, 0.05, n)).round(2),
            "nr.employed": 4_990 + 48 * rate.round(), "y": np.where(y, "yes", "no"),
        }
    )  # fmt: skip


def phones(rng: np.random.Generator) -> pd.DataFrame:
    """Subscribers: those who are new, pay by the month and pay much leave more often."""
    n = PHONES
    tenure = rng.integers(0, 73, n)
    contract = np.where(rng.random(n) < 0.25 + tenure / 110, "Two year", "Month-to-month")
    service = rng.choice(["DSL", "Fiber optic", "No"], n)
    charges = (20 + 35 * (service == "DSL") + 65 * (service == "Fiber optic") + rng.normal(0, 8, n)).round(2)
    left = rng.random(n) < expit(-1.3 - 0.03 * tenure + 1.3 * (contract == "Month-to-month") + 0.012 * charges)
    return pd.DataFrame(
        {
            "customerID": [f"c{k}" for k in range(n)], "gender": rng.choice(["Female", "Male"], n),
            "Partner": rng.choice(["Yes", "No"], n), "Dependents": rng.choice(["Yes", "No"], n), "tenure": tenure,
            "InternetService": service, "TechSupport": rng.choice(["Yes", "No"], n), "Contract": contract,
            "PaymentMethod": rng.choice(["cheque", "card", "transfer"], n), "MonthlyCharges": charges,
            "TotalCharges": (charges * tenure).round(2).astype(str), "Churn": np.where(left, "Yes", "No"),
            "OnlineSecurity": rng.choice(["Yes", "No"], n),
        }
    )  # fmt: skip


def mails(rng: np.random.Generator) -> pd.DataFrame:
    """A mailing in three arms; recent customers visit more, few of the visitors buy."""
    n = MAILS
    recency, history, arm = rng.integers(1, 13, n), rng.lognormal(5, 0.8, n).round(2), rng.integers(0, 3, n)
    visit = rng.random(n) < expit(-2.2 - 0.06 * recency + 0.0008 * history + 0.35 * (arm > 0))
    bought = visit & (rng.random(n) < 0.06)
    return pd.DataFrame(
        {
            "recency": recency, "history": history, "mens": rng.integers(0, 2, n), "newbie": rng.integers(0, 2, n),
            "zip_code": rng.choice(["Urban", "Rural"], n), "channel": rng.choice(["Phone", "Web"], n),
            "segment": np.array(["No E-Mail", "Mens E-Mail", "Womens E-Mail"])[arm], "visit": visit.astype(int),
            "conversion": bought.astype(int), "spend": np.where(bought, rng.lognormal(4, 0.8, n), 0.0).round(2),
        }
    )  # fmt: skip


def invoices(rng: np.random.Generator) -> pd.DataFrame:
    """Two years of a shop's order lines, more of them before Christmas."""
    made = _purchases(rng, 4_000, "2009-12-01", 738, every=60, stay=500, lines=12, christmas=True)
    country = np.where(made["person"] % 10, "United Kingdom", "France")
    return pd.DataFrame(
        {
            "Invoice": made["basket"], "StockCode": made["product"].astype(str), "Quantity": made["quantity"],
            "InvoiceDate": made["moment"], "Price": made["price"], "CustomerID": made["person"], "Country": country,
            "overlap_dup": False,
        }
    )  # fmt: skip


def baskets(rng: np.random.Generator) -> pd.DataFrame:
    """One year of a grocer's, whose customers come often and stay."""
    made = _purchases(rng, 2_000, "2017-01-01", 365, every=9, stay=2_000, lines=4)
    return pd.DataFrame(
        {
            "household_id": made["person"], "basket_id": made["basket"], "transaction_timestamp": made["moment"],
            "sales_value": made["price"] * made["quantity"], "product_id": made["product"],
        }
    )  # fmt: skip


def households(rng: np.random.Generator) -> pd.DataFrame:
    """What the grocer knows of four in ten of them."""
    return pd.DataFrame({"household_id": range(0, 2_000, 5), "income": rng.choice(["35-49K", "50-74K"], 400)})


def records(rng: np.random.Generator) -> pd.DataFrame:
    """A cohort that first buys records in one quarter, and mostly never again."""
    made = _purchases(rng, 2_400, "1997-01-01", 545, every=90, stay=250, lines=1, starts=90)
    value = made["price"] * made["quantity"]
    return pd.DataFrame(
        {"master_id": made["person"], "date": made["moment"], "quantity": made["quantity"], "value": value}
    )


def _purchases(
    rng: np.random.Generator, people: int, start: str, days: int, *, every: float, stay: float, lines: int,
    starts: int | None = None, christmas: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Order lines of people who buy every so many days, on average, until they leave after about `stay` days.

    starts: within how many days people buy first. christmas: whether a third of the orders from February to July is
    not made.
    """
    begin, pace = rng.integers(0, starts or days, people), rng.gamma(1.2, every / 1.2, people) + 2
    gone = np.minimum(begin + rng.exponential(stay, people), days)
    more = rng.poisson((gone - begin) / pace)
    person = np.repeat(np.arange(people), 1 + more)
    first = np.append(0, (1 + more).cumsum()[:-1])
    day = begin[person] + rng.random(len(person)) * (gone - begin)[person]
    day[first] = begin
    moment = pd.Timestamp(start) + pd.to_timedelta((day * 1_440).round(), unit="min")
    kept = np.ones(len(person), bool)
    if christmas:
        kept = ~(pd.DatetimeIndex(moment).month.isin(range(2, 8)) & (rng.random(len(person)) < 1 / 3))
        kept[first] = True
    price_of = rng.lognormal(0.8, 0.5, people)
    order = np.repeat(np.flatnonzero(kept), rng.poisson(lines - 1, int(kept.sum())) + 1)
    n = len(order)
    return pd.DataFrame(
        {
            "person": person[order], "basket": order, "moment": pd.DatetimeIndex(moment)[order],
            "product": rng.integers(0, 3_000, n), "quantity": rng.geometric(0.25, n),
            "price": (price_of[person[order]] * rng.lognormal(0, 0.4, n)).round(2),
        }
    )  # fmt: skip
