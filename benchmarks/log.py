"""A transaction log of any shape, as the lines that accuracy is measured on, and what happened after a cutoff.

The answers are worked out here by plain SQL over the lines, without anything of the product: they are the oracle that
the product's population and labels are held to. A purchase is a distinct profile-day with a line that is not cancelled;
revenue is the sum of amounts, cancellations and other negative amounts included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import available_timezones

import duckdb
import pandas as pd

from foretell.errors import DataError, did_you_mean, unknown
from lake.engine import quote

POPULATION_DAYS = 365
TOP = 0.1  # what the standard lookalike task calls a seed: the top tenth by the spend of SEED_DAYS
SEED_DAYS = 90
FIRST_DAY = "1970-01-02"  # the product holds an earlier time for an empty one
CSV = (".csv", ".csv.gz", ".tsv", ".txt")
_YES = "('true', 't', 'yes', 'y', '1', '1.0')"
_DONE = "^(complet|confirm|clos|captur|collect)"  # words of an order that went well, though they begin with C


@dataclass(frozen=True)
class Log:
    """A file of transactions, Parquet or CSV, and which of its columns say what.

    profile, time, amount, item, cancelled, order, quantity: a column's name, or an SQL expression over the columns.
    cancelled: a truth value, a number that is not 0, or a text that says yes or begins with C, as the numbers of
        cancelled invoices do. Without it a line is a purchase if its amount is above 0.
    order: which lines are one order. Without it those of a profile's day are.
    where: SQL condition; rows of which it is not true are no part of the log.
    timezone: a day is the shop's day. Times without an offset are read in `times_in` (default: timezone). Of dates,
        which have no clock, neither matters.
    """

    file: Path
    profile: str
    time: str
    amount: str
    item: str | None = None
    cancelled: str | None = None
    order: str | None = None
    quantity: str | None = None
    where: str | None = None
    timezone: str = "UTC"
    times_in: str | None = None

    def __post_init__(self) -> None:
        for zone in filter(None, (self.timezone, self.times_in)):
            if zone not in (known := available_timezones()):
                raise DataError("--timezone", f"no such time zone: {zone!r}", did_you_mean(zone, known))

    @cached_property
    def relation(self) -> str:
        """SQL for the file's rows as they are. Of CSV, ids are text: 007 is not 7."""
        file = quote(self.file)
        if not self.file.is_file():
            raise DataError(str(self.file), "expected a file of transactions, got no such file", "check the path")
        if not self.file.name.lower().endswith(CSV):
            return f"read_parquet('{file}')"
        asked = {text.lower() for text in (self.profile, self.order, self.item) if text}
        ids = [name for name in self._described(f"read_csv('{file}', sample_size=-1)") if name.lower() in asked]
        types = ", ".join(f"'{quote(name)}': 'VARCHAR'" for name in ids)
        return f"read_csv('{file}', sample_size=-1{f', types={{{types}}}' if ids else ''})"

    @cached_property
    def columns(self) -> dict[str, str]:
        """Column of the file -> its SQL type."""
        return self._described(self.relation)

    @property
    def clock(self) -> str:
        """The zone of the shop's days; of dates, which have no clock, UTC leaves them as they are."""
        return "UTC" if self._of("time", self.time)[1] == "DATE" else self.timezone

    def lines(self) -> str:
        """SQL for the lines that count, one row each.

        Columns: customer VARCHAR (digits as they are, any other id spelt so that no rule of identifiers changes it),
        sold_at TIMESTAMP (UTC), day DATE (the shop's), amount DECIMAL(18,4), cancelled BOOLEAN, order_id VARCHAR,
        quantity DOUBLE and item VARCHAR (both NULL without such a column).
        """
        return f"SELECT * EXCLUDE (why) FROM ({self.rows()}) WHERE why IS NULL"

    def rows(self) -> str:
        """SQL for the lines, and with them the rows that cannot be used: of those, `why` says what is amiss."""
        amount, kind = self._of("amount", self.amount)
        amount = f"TRY_CAST({f'trim({amount})' if kind == 'VARCHAR' else amount} AS DECIMAL(18,4))"
        day = "sold_at" if self.clock == "UTC" else f"timezone('{quote(self.clock)}', timezone('UTC', sold_at))"
        texts = {name: self._text(name) for name in ("order", "item")}
        quantity = f"TRY_CAST({self._of('quantity', self.quantity)[0]} AS DOUBLE)" if self.quantity else "NULL::DOUBLE"
        kept = f"({self.where})" if self.where else "true"
        return f"""SELECT CASE WHEN regexp_full_match(id, '[0-9]*[1-9][0-9]*') THEN id ELSE 'id-' || hex(id) END
                AS customer, sold_at, ({day})::DATE AS day, paid AS amount, {self._cancelled()} AS cancelled,
                coalesce(in_order, customer || ' ' || day::VARCHAR) AS order_id,
                CASE WHEN isfinite(pieces) THEN pieces END AS quantity, item,
                CASE WHEN id IS NULL THEN 'no profile' WHEN sold_at IS NULL THEN 'no time'
                    WHEN sold_at < TIMESTAMP '{FIRST_DAY}' THEN 'a time before {FIRST_DAY}'
                    WHEN sold_at > {sql(datetime.now(UTC))} THEN 'a time in the future'
                    WHEN paid IS NULL THEN 'no finite amount' END AS why
            FROM (SELECT {self._id()} AS id, {self._time()} AS sold_at, {amount} AS paid, {self._said()} AS said,
                {texts["order"]} AS in_order, {quantity} AS pieces, {texts["item"]} AS item
                FROM {self.relation} WHERE {kept})"""

    def _id(self) -> str:
        given, kind = self._of("profile", self.profile)
        text = f"({given})::VARCHAR"
        if kind in ("FLOAT", "DOUBLE"):  # whole numbers, of which some are missing
            whole = f"CASE WHEN {given} = trunc({given}) THEN TRY_CAST({given} AS BIGINT)::VARCHAR END"
            text = f"CASE WHEN isfinite({given}) THEN coalesce({whole}, {text}) END"
        return f"CASE WHEN trim({text}) <> '' THEN {text} END"

    def _time(self) -> str:
        given, kind = self._of("time", self.time)
        zone = quote(self.times_in or self.timezone)

        def naive(value: str) -> str:
            return value if zone == "UTC" else f"timezone('UTC', timezone('{zone}', {value}))"

        if kind == "DATE":
            return f"({given})::TIMESTAMP"
        if "TZ" in kind or "TIME ZONE" in kind:
            return f"timezone('UTC', ({given})::TIMESTAMPTZ)"
        if kind.startswith("TIMESTAMP"):
            return naive(f"({given})::TIMESTAMP")
        if kind == "VARCHAR":  # an offset, or the name of a zone, after a time of day
            given = f"trim({given})"
            aware = f"regexp_matches({given}, '[0-9]:[0-9].*([A-Za-z]|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$')"
            return f"""CASE WHEN {aware} THEN timezone('UTC', TRY_CAST({given} AS TIMESTAMPTZ))
                ELSE {naive(f"TRY_CAST({given} AS TIMESTAMP)")} END"""
        fix = f"write an expression, such as --time 'to_timestamp(\"{self.time}\")' of seconds since 1970"
        raise DataError("--time", f"expected dates or times, got {kind} in {self.time}", fix)

    def _said(self) -> str:
        return self._of("cancelled", self.cancelled)[0] if self.cancelled else "NULL"

    def _cancelled(self) -> str:
        if not self.cancelled:
            return "NOT paid > 0"
        kind = self._of("cancelled", self.cancelled)[1]
        if kind == "BOOLEAN":
            return "coalesce(said, false)"
        if kind == "VARCHAR":
            begins = f"starts_with(trim(said), 'C') AND NOT regexp_matches(lower(trim(said)), '{_DONE}')"
            known = f"lower(trim(said)) IN {_YES} OR starts_with(lower(trim(said)), 'cancel')"
            return f"coalesce({known} OR ({begins}), false)"
        if not re.match("U?(TINY|SMALL|BIG|HUGE)?INT|FLOAT|DOUBLE|DECIMAL", kind):
            fix = "write a condition, such as --cancelled \"status = 'returned'\""
            raise DataError("--cancelled", f"expected yes or no, 0 or 1, or text, got {kind}", fix)
        return "coalesce(TRY_CAST(said AS BIGINT) <> 0, false)"

    def _text(self, name: str) -> str:
        given = getattr(self, name)
        return f"nullif(trim(({self._of(name, given)[0]})::VARCHAR), '')" if given else "NULL::VARCHAR"

    def _of(self, option: str, text: str) -> tuple[str, str]:
        """SQL for a column or an expression, and its type; what is neither is refused, with the nearest column."""
        for name, kind in self.columns.items():
            if name.lower() == text.lower():  # as SQL has it
                return '"' + name.replace('"', '""') + '"', kind
        try:
            found = self._described(f"(SELECT ({text}) AS value FROM {self.relation})")
        except DataError as error:
            if re.fullmatch(r"[\w .-]*", text):
                raise unknown("column", text, self.columns, where=f"--{option}, {self.file.name}") from None
            problem = f"expected a column or an SQL expression, got {text!r} ({error.problem})"
            raise DataError(f"--{option}", problem, did_you_mean(text, self.columns)) from None
        return f"({text})", found["value"]

    def _described(self, relation: str) -> dict[str, str]:
        try:
            rows = connect().execute(f"DESCRIBE FROM {relation}").fetchall()
        except duckdb.Error as error:
            fix = f"give a Parquet file, or a CSV file by a name that ends in {', '.join(CSV)}"
            raise DataError(str(self.file), f"cannot be read: {str(error).splitlines()[0]}", fix) from None
        return {name: kind for name, kind, *_ in rows}


def write_lines(log: Log, file: Path) -> dict[str, int]:
    """Write the lines of a log as Parquet. Returns how many rows were left out, by reason; a log without any line that
    counts is refused."""
    con, rows = connect(), log.rows()
    try:
        con.execute(f"CREATE TEMP TABLE rows AS {rows}")
    except duckdb.Error as error:
        subject, fix = ("--where", did_you_mean(log.where, log.columns)) if log.where else (str(log.file), "mend it")
        raise DataError(subject, f"cannot be applied: {str(error).splitlines()[0]}", fix) from None
    counts = dict(con.execute("SELECT why, count(*) FROM rows GROUP BY why ORDER BY why").fetchall())
    kept = counts.pop(None, 0)
    if not kept:
        why = f"all of {sum(counts.values()):,} are left out: {counts}" if counts else "got none"
        fix = f"loosen --where {log.where!r}" if log.where and not counts else "check the columns that are named"
        raise DataError(str(log.file), f"expected rows, {why}", fix)
    con.execute(f"COPY (SELECT * EXCLUDE (why) FROM rows WHERE why IS NULL) TO '{quote(file)}' (FORMAT parquet)")
    return counts


def span(lines: Path) -> tuple[int, int, datetime]:
    """(lines, customers, the instant after which nothing is known: the end of the last day) of a file of lines."""
    n, customers, end = connect().execute(
        f"""SELECT count(*), count(DISTINCT customer), max(day)::TIMESTAMP + INTERVAL 1 DAY
            FROM read_parquet('{quote(lines)}')"""
    ).fetchall()[0]  # fmt: skip
    return int(n), int(customers), end.replace(tzinfo=UTC)


def answers(lines: Path, cutoff: datetime, days: int, people: pd.DataFrame) -> pd.DataFrame:
    """What the customers with a purchase in the year before T did in `[T, T + days)`: one row each, by customer.

    Columns: customer, profile_id, left (no purchase), bought, purchases (days with one), spend (cancellations netted),
    seed (top tenth by the spend of the SEED_DAYS before T), entered (top tenth afterwards).
    people: customer, profile_id; equal spends are ranked by the profile's id.
    """
    con = connect()
    con.register("people", people)
    T, end = sql(cutoff), sql(cutoff + timedelta(days=days))
    place = "row_number() OVER (ORDER BY {} DESC, profile_id) <= ceil(" + str(TOP) + " * count(*) OVER ())"
    return con.execute(
        f"""WITH line AS (FROM read_parquet('{quote(lines)}')),
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
            purchases::DOUBLE AS purchases, spend::DOUBLE AS spend, {place.format("spent")} AS seed,
            ({place.format("spend")})::DOUBLE AS entered
        FROM joined ORDER BY customer"""
    ).df()


def connect() -> duckdb.DuckDBPyConnection:
    """A connection of its own, whose clock is UTC wherever it runs."""
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET python_enable_replacements=false")
    return con


def sql(at: datetime) -> str:
    """An instant as SQL, on UTC's clock."""
    return f"TIMESTAMP '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
