"""What does the declared feature build cost over SQL written by hand, and Feast's join over an ASOF join?

A seeded log of transactions is loaded through the product's own contract, and unified. Then:

  features.cpu_vs_sql          CPU seconds of building the standard views at all cutoffs, over those of DuckDB SQL
                               written by hand: same aggregates, same who-is-who as known at the cutoff, same filter
                               on when a fact became known, same Parquet files. Both in fresh processes.
  features.rss_gb              the most memory that the build's process held, in GB.
  features.historical_vs_asof  seconds of a training join through Feast (three views, every profile at every cutoff
                               and up to 60 hours later, views expire after 48), over an ASOF join written by hand.

All values are compared; a difference fails the run. Nothing is left behind: the project lives in a temporary folder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from benchmarks import report
from benchmarks.report import Usage, apart, measure, progress
from features import build
from features.store import repository
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import load
from lake.engine import instant, last_batch, quote
from unification.identity import unify

SEED = 20_240_101
START = datetime(2022, 1, 1, tzinfo=UTC)
DAYS = 730
VIEWS = ("orders", "cadence", "basket")

SETTINGS = '[foretell]\nas_of = "2024-01-10T00:00:00+00:00"\nthreads = 2\nmemory = "3GB"\n'
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
    events: int
    profiles: int
    cutoffs: int


FULL, QUICK = Sizes(5_000_000, 200_000, 6), Sizes(100_000, 5_000, 2)


def generate(to: Path, sizes: Sizes, seed: int = SEED) -> None:
    """Write the log as one Parquet file a quarter. The same arguments give the same rows.

    People differ in how much they buy; six in ten gave an e-mail address, a quarter change cards on the way. One line
    in twenty is uploaded days late, one in fifty is a cancellation.
    """
    rng = np.random.default_rng(seed)
    lines = 1 + rng.poisson(4, size=sizes.events // 4)  # of every basket
    lines = lines[: int(np.searchsorted(np.cumsum(lines), sizes.events)) + 1]
    baskets = len(lines)
    zeal = rng.gamma(0.8, 1, sizes.profiles)
    person = np.searchsorted(np.cumsum(zeal) / zeal.sum(), rng.random(baskets)).clip(max=sizes.profiles - 1)
    person[: sizes.profiles] = rng.permutation(sizes.profiles)[:baskets]  # nobody without a basket
    second = rng.integers(0, DAYS * 86_400, baskets)
    has_email, new_card_at = rng.random(sizes.profiles) < 0.6, rng.integers(0, DAYS * 4 * 86_400, sizes.profiles)
    card = person * 2 + (second >= new_card_at[person])
    email = np.where(has_email[person] & (rng.random(baskets) < 0.4), person, -1)
    late = np.where(rng.random(baskets) < 0.05, rng.integers(3_600, 5 * 86_400, baskets), 60)
    cancelled = rng.random(baskets) < 0.02
    of = np.repeat(np.arange(baskets), lines)[: sizes.events]
    n = len(of)
    cents = np.round(np.exp(rng.normal(5.8, 0.9, n))).astype(np.int64) + 1
    off = np.where(rng.random(n) < 0.3, np.round(cents * rng.uniform(0.05, 0.4, n)), 0).astype(np.int64)
    product = (20_000 * rng.random(n) ** 2.5).astype(np.int32)
    frame = pd.DataFrame({
        "basket": of, "second": second[of], "late": late[of], "card": card[of], "email": email[of],
        "cancelled": cancelled[of], "cents": np.where(cancelled[of], -cents, cents), "off": off, "product": product,
        "quantity": 1 + rng.poisson(0.4, n),
    })  # fmt: skip
    to.mkdir(parents=True)
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
    for (first,) in con.execute("SELECT DISTINCT date_trunc('quarter', sold_at)::DATE FROM log ORDER BY 1").fetchall():
        con.execute(
            f"""COPY (FROM log WHERE date_trunc('quarter', sold_at) = DATE '{first}'
                ORDER BY sold_at, basket_id, product_id, paid)
                TO '{quote(to / str(first))}.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
    con.close()


def prepare(folder: Path, sizes: Sizes) -> dict[str, int]:
    """Make the project: generate, load, unify. Returns the counts that `unify` reports."""
    for name, text in {"foretell.toml": SETTINGS, "sources/shop.py": SOURCE, "tasks/bench.py": TASK}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    progress(f"drawing {sizes.events:,} lines")
    generate(folder / "exports" / "shop", sizes)
    project, added = Project(folder), 0
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, ForetellError):
            raise loaded
        if loaded.quarantined:
            raise ValueError(f"{loaded.file}: {loaded.reasons}")
        added += loaded.added
        progress(f"loaded {loaded.file}: {added:,} facts so far")
    progress("unifying")
    return unify(project)


def cutoffs_of(sizes: Sizes) -> list[datetime]:
    """Month by month, the last one when the log ends."""
    return [START + timedelta(days=DAYS - 30 * n) for n in reversed(range(sizes.cutoffs))]


# Contestants of the build, each in a process of its own


def build_declared(folder: Path, cutoffs: list[datetime]) -> Usage:
    """The product: every standard view at every cutoff, from nothing."""
    project = Project(folder)
    shutil.rmtree(project.home / "features", ignore_errors=True)
    views = [project.definitions.view(name) for name in VIEWS]
    for view in views:  # imports happen here, not while the clock runs
        build.fingerprint(view, dict(project.definitions.sources))
    used, written = measure(lambda: build.build(project, views, cutoffs))
    if written != len(views) * len(cutoffs):
        raise ValueError(f"built {written} files, expected {len(views) * len(cutoffs)}")
    return used


def build_by_hand(folder: Path, cutoffs: list[datetime]) -> Usage:
    """The alternative: the SQL below."""
    shutil.rmtree(folder / "by_hand", ignore_errors=True)
    for name in VIEWS:
        (folder / "by_hand" / name).mkdir(parents=True)
    return measure(partial(_run_sql, folder, cutoffs))[0]


def _run_sql(folder: Path, cutoffs: list[datetime]) -> None:
    home = quote(folder / ".foretell")
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2; SET memory_limit='3GB'; SET enable_progress_bar=false")
    for cutoff in cutoffs:
        at = instant(cutoff)
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE members AS SELECT node, profile_id
                FROM read_parquet('{home}/derived/member.parquet')
                WHERE known_from < {at} AND (known_to IS NULL OR known_to >= {at})"""
        )
        con.execute(
            f"""CREATE OR REPLACE TEMP VIEW known AS SELECT m.profile_id, f.*, NOT coalesce(cancelled, false) AS bought
                FROM read_parquet('{home}/lake/facts/shop/*/*.parquet', hive_partitioning=false) f
                JOIN members m USING (node) WHERE event_at < {at} AND known_at < {at}"""
        )
        for name in VIEWS:
            query = SQL[name].format(at=at)
            file = folder / "by_hand" / name / f"{cutoff:%Y%m%d}.parquet"
            con.execute(f"COPY ({query}) TO '{quote(file)}' (FORMAT parquet, COMPRESSION zstd)")
    con.close()


SQL = {
    "orders": """
        WITH g AS (
            SELECT profile_id,
                count(DISTINCT order_id) FILTER (event_at >= {at} - INTERVAL 30 DAY AND bought) AS orders_30d,
                count(DISTINCT order_id) FILTER (event_at >= {at} - INTERVAL 90 DAY AND bought) AS orders_90d,
                count(DISTINCT order_id) FILTER (event_at >= {at} - INTERVAL 180 DAY AND bought) AS orders_180d,
                count(DISTINCT order_id) FILTER (event_at >= {at} - INTERVAL 365 DAY AND bought) AS orders_365d,
                sum(amount) FILTER (event_at >= {at} - INTERVAL 30 DAY)::DOUBLE AS spend_30d,
                sum(amount) FILTER (event_at >= {at} - INTERVAL 90 DAY)::DOUBLE AS spend_90d,
                sum(amount) FILTER (event_at >= {at} - INTERVAL 365 DAY)::DOUBLE AS spend_365d,
                max(event_at) FILTER (bought) AS last_at
            FROM known GROUP BY profile_id)
        SELECT p.profile_id, {at} AS event_timestamp, {at} AS created,
            coalesce(orders_30d, 0) AS orders_30d, coalesce(orders_90d, 0) AS orders_90d,
            coalesce(orders_180d, 0) AS orders_180d, coalesce(orders_365d, 0) AS orders_365d,
            coalesce(spend_30d, 0) AS spend_30d, coalesce(spend_90d, 0) AS spend_90d,
            coalesce(spend_365d, 0) AS spend_365d, (epoch({at}) - epoch(last_at)) / 86400 AS days_since_order
        FROM (SELECT DISTINCT profile_id FROM members) p LEFT JOIN g USING (profile_id) ORDER BY p.profile_id""",
    "cadence": """
        WITH g AS (
            SELECT profile_id, count(DISTINCT event_day) FILTER (bought) AS order_days_ever,
                count(DISTINCT event_day) FILTER (event_at >= {at} - INTERVAL 90 DAY AND bought) AS order_days_90d,
                (epoch({at}) - epoch(min(event_at) FILTER (bought))) / 86400 AS since_first,
                (epoch({at}) - epoch(max(event_at) FILTER (bought))) / 86400 AS since_last,
                sum(amount)::DOUBLE AS spend
            FROM known GROUP BY profile_id),
        gaps AS (SELECT *, (since_first - since_last) / nullif(order_days_ever - 1, 0) AS gap FROM g)
        SELECT p.profile_id, {at} AS event_timestamp, {at} AS created,
            coalesce(order_days_ever, 0) AS order_days_ever, coalesce(order_days_90d, 0) AS order_days_90d,
            since_first AS days_since_first_order, since_first - since_last AS days_first_to_last_order,
            gap AS mean_gap_days_ever, since_last / nullif(gap, 0) AS overdue_ratio_ever,
            spend / nullif(order_days_ever, 0) AS mean_spend_per_order_day_ever
        FROM (SELECT DISTINCT profile_id FROM members) p LEFT JOIN gaps USING (profile_id) ORDER BY p.profile_id""",
    "basket": """
        WITH g AS (
            SELECT profile_id, count(*) AS lines, nullif(count(DISTINCT order_id), 0) AS orders,
                sum(amount)::DOUBLE AS paid, coalesce(sum(discount), 0)::DOUBLE AS saved,
                count(DISTINCT product_id) AS products, count(DISTINCT category) AS categories
            FROM known WHERE event_at >= {at} - INTERVAL 90 DAY AND bought GROUP BY profile_id)
        SELECT p.profile_id, {at} AS event_timestamp, {at} AS created,
            lines / orders AS lines_per_order_90d, paid / orders AS spend_per_order_90d,
            coalesce(products, 0) AS products_90d, coalesce(categories, 0) AS categories_90d,
            saved / nullif(paid + saved, 0) AS discount_share_90d
        FROM (SELECT DISTINCT profile_id FROM members) p LEFT JOIN g USING (profile_id) ORDER BY p.profile_id""",
}


def compare_builds(folder: Path, cutoffs: list[datetime]) -> int:
    """Every value of every file, declared against by hand. Returns how many rows agree; a difference is an error."""
    project, rows = Project(folder), 0
    con = duckdb.connect()
    for name in VIEWS:
        view = project.definitions.view(name)
        for cutoff in cutoffs:
            ours = build.read(project, view, cutoff)
            by_hand = f"read_parquet('{quote(folder / 'by_hand' / name / f'{cutoff:%Y%m%d}.parquet')}')"
            shapes = [con.execute(f"DESCRIBE FROM {t}").fetchall() for t in (ours, by_hand)]
            if [s[:2] for s in shapes[0]] != [s[:2] for s in shapes[1]]:
                raise ValueError(f"{name}: columns differ: {shapes}")
            differs = " OR ".join(_differ(column, kind) for column, kind, *_ in shapes[0])
            total, wrong = con.execute(
                f"SELECT count(*), count(*) FILTER ({differs}) FROM {ours} a FULL JOIN {by_hand} b USING (profile_id)"
            ).fetchall()[0]
            if wrong or not total:
                raise ValueError(f"{name} at {cutoff:%Y-%m-%d}: {wrong} of {total} rows differ from the SQL by hand")
            rows += total
    return rows


def _differ(column: str, kind: str) -> str:
    a, b = f'a."{column}"', f'b."{column}"'
    differ = f"{a} IS DISTINCT FROM {b}"
    if kind != "DOUBLE":
        return f"({differ})"
    return f"({differ} AND coalesce(abs({a} - {b}) > 1e-9 * greatest(1, abs({a}), abs({b})), true))"


# Contestants of the training join


def entities(folder: Path, cutoffs: list[datetime], seed: int = SEED) -> pd.DataFrame:
    """Every profile of every cutoff, at the cutoff or up to 60 hours later."""
    project = Project(folder)
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    files = ", ".join(
        f"'{quote(build.file_of(project, project.definitions.view('orders'), cutoff))}'" for cutoff in cutoffs
    )
    frame = con.execute(
        f"SELECT profile_id, event_timestamp FROM read_parquet([{files}]) ORDER BY event_timestamp, profile_id"
    ).df()
    rng = np.random.default_rng(seed)
    wait = np.where(rng.random(len(frame)) < 0.5, 0, rng.integers(0, 60 * 3600, len(frame)))
    return frame.assign(event_timestamp=frame["event_timestamp"] + pd.to_timedelta(wait, unit="s"))


def asof_query(folder: Path) -> str:
    """The training join in one query: per view the last row at or before each time, unless it has expired."""
    project = Project(folder)
    columns, joins = [], []
    for name in VIEWS:
        view = project.definitions.view(name)
        fresh = f"{name}.event_timestamp >= w.event_timestamp - to_seconds({int(view.ttl.total_seconds())})"
        columns += [f'CASE WHEN {fresh} THEN {name}."{feature}" END AS "{feature}"' for feature in view.features]
        files = quote(build.file_of(project, view, START).parent / "*.parquet")
        joins.append(
            f"ASOF LEFT JOIN read_parquet('{files}') {name} "
            f"ON w.profile_id = {name}.profile_id AND w.event_timestamp >= {name}.event_timestamp"
        )
    return f"SELECT w.profile_id, w.event_timestamp, {', '.join(columns)} FROM wanted w {' '.join(joins)}"


def join_by_hand(query: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Run that query. It was written beforehand: looking up which files to read is not what is measured."""
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'; SET threads=2; SET enable_progress_bar=false")
    con.register("wanted", rows)
    return con.execute(query).df()


def compare_joins(feast: pd.DataFrame, by_hand: pd.DataFrame) -> None:
    """Every value of the two training sets; a difference is an error."""
    key = ["profile_id", "event_timestamp"]
    if sorted(feast.columns) != sorted(by_hand.columns):
        raise ValueError(f"Feast's columns {list(feast.columns)} differ from {list(by_hand.columns)}")
    if len(feast) != len(by_hand):
        raise ValueError(f"Feast gave {len(feast):,} rows, the ASOF join by hand {len(by_hand):,}")
    a, b = (frame.sort_values(key, ignore_index=True)[list(by_hand.columns)] for frame in (feast, by_hand))
    for column in by_hand.columns:
        if column == "profile_id":
            same = bool((a[column] == b[column]).all())
        elif column == "event_timestamp":
            same = bool((pd.to_datetime(a[column], utc=True) == pd.to_datetime(b[column], utc=True)).all())
        else:
            left, right = (frame[column].to_numpy(dtype=float, na_value=np.nan) for frame in (a, b))
            same = np.allclose(left, right, rtol=1e-9, atol=1e-9, equal_nan=True)
        if not same:
            raise ValueError(f"{column}: Feast's join differs from the ASOF join by hand")
    if b["orders_30d"].isna().all() or not b["orders_30d"].isna().any():
        raise ValueError("the training join is trivial: it needs rows that found features, and expired ones")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "features")
    parser.epilog = (
        f"Full size: {FULL.events:,} lines, {FULL.profiles:,} people, {FULL.cutoffs} cutoffs. "
        f"Quick: {QUICK.events:,}, {QUICK.profiles:,}, {QUICK.cutoffs}."
    )
    given = parser.parse_args(arguments)
    sizes, repeats = QUICK if given.quick else FULL, report.repeats(given)
    cutoffs = cutoffs_of(sizes)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name)
        counts = prepare(folder, sizes)
        progress(f"building {', '.join(VIEWS)} at {len(cutoffs)} cutoffs")
        built = report.interleaved(
            {
                "declared": partial(apart, build_declared, folder, cutoffs),
                "by hand": partial(apart, build_by_hand, folder, cutoffs),
            },
            repeats,
        )
        compared = compare_builds(folder, cutoffs)
        progress(f"{compared:,} rows agree; joining them to a training set")

        project = Project(folder)
        store = repository.apply(project, [project.definitions.task("bench")])
        service = repository.service_name(project, project.definitions.task("bench"))
        rows = entities(folder, cutoffs)
        contestants = {
            "feast": partial(repository.historical, store, service, rows),
            "by hand": partial(join_by_hand, asof_query(folder), rows),
        }
        last: dict[str, pd.DataFrame] = {}

        def joined(by: str) -> Usage:
            last.pop(by, None)
            used, last[by] = measure(contestants[by])
            return used

        joins = report.interleaved({by: partial(joined, by) for by in contestants}, repeats, warm_up=1)
        compare_joins(last["feast"], last["by hand"])
        batches = last_batch(project)
    declared, by_hand = built["declared"], built["by hand"]
    feast, asof = joins["feast"], joins["by hand"]
    report.Report(
        benchmark="features",
        versions=report.versions("duckdb", "feast", "ibis-framework", "pyarrow", "pandas"),
        sizes={**asdict(sizes), "files": batches, "entity_rows": len(rows), "repeats": repeats, "quick": given.quick},
        bars=[
            report.ratio("features.cpu_vs_sql", [u.cpu for u in declared], [u.cpu for u in by_hand], "<=1.4"),
            report.bar("features.rss_gb", [u.rss / 1e9 for u in declared], "<=3"),
            report.ratio("features.historical_vs_asof", [u.wall for u in feast], [u.wall for u in asof], "<=2"),
        ],
        details={
            "build": report.medians(built), "join": report.medians(joins), "rows_equal": compared,
            "unified": {k: counts[k] for k in ("identifiers", "links", "profiles", "merges")},
        },
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
