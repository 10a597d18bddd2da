"""What does the declared feature build cost over code written by hand, and Feast's join over an ASOF join?

A seeded log of transactions is loaded through the product's own contract, and unified. Then:

  features.cpu_vs_sql           CPU seconds of building the seven views over order lines at all cutoffs, over those of
                                DuckDB SQL written by hand: same values, same who-is-who as known at the cutoff, same
                                filter on when a fact became known, a Parquet file for every view and cutoff. Each in a
                                fresh process.
  features.cpu_vs_polars        the same over polars written by hand.
  features.rss_gb               the most memory that the build's process held, in GB.
  features.historical_vs_asof   seconds of a training join through Feast (three views, every profile at every cutoff
                                and up to 60 hours later, views expire after 48), over an ASOF join written by hand.
  features.incremental_speedup  seconds of building the views at now from nothing, over those of bringing them up to
                                date when a last upload, of 1% of the lines, has been loaded and unified.
  features.time_20m_over_5m     with --scaling: seconds of the build over four times the lines of four times the
                                people, over those of the build. Loading them takes about a quarter of an hour.

All values are compared; a difference fails the run. Nothing is left behind: the projects live in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks import features_sql, report
from benchmarks.features_shop import SEED, START, Sizes, cutoffs_of, load_last, prepare
from benchmarks.report import Usage, apart, measure, progress
from features import build
from features.store import repository
from foretell import FeatureView
from foretell.project import Project
from lake.engine import last_batch, quote

VIEWS = tuple(features_sql.VIEWS)
JOINED = ("orders", "cadence", "basket")
SCALE, SCALING_REPEATS = 4, 3
FULL, QUICK = Sizes(5_000_000, 200_000, 6), Sizes(100_000, 5_000, 2)
Tables = dict[tuple[str, datetime], str]  # of views at cutoffs, as DuckDB is asked for them


# Contestants of the build, each in a process of its own


def build_declared(folder: Path, cutoffs: list[datetime], before: Path | None = None) -> Usage:
    """The product: every view at every cutoff. before: the built files to bring up to date; default: from nothing."""
    project = Project(folder)
    shutil.rmtree(project.home / "features", ignore_errors=True)
    if before:
        shutil.copytree(before, project.home / "features")
    views = _views(project)
    for view in views:  # imports happen here, not while the clock runs
        build.fingerprint(view, dict(project.definitions.sources))
    used, written = measure(lambda: build.build(project, views, cutoffs))
    if written != len(views) * len(cutoffs):
        raise ValueError(f"built {written} files, expected {len(views) * len(cutoffs)}")
    return used


def build_sql(folder: Path, cutoffs: list[datetime]) -> Usage:
    """DuckDB SQL by hand."""
    to = _emptied(folder / "sql")
    return measure(lambda: features_sql.build(Project(folder).home, to, cutoffs))[0]


def build_polars(folder: Path, cutoffs: list[datetime]) -> Usage:
    """polars by hand."""
    os.environ["POLARS_MAX_THREADS"] = "2"  # it is read at the import, which the others' memory goes without
    from benchmarks import features_polars

    to = _emptied(folder / "polars")
    return measure(lambda: features_polars.build(Project(folder).home, to, cutoffs))[0]


def _views(project: Project) -> list[FeatureView]:
    return [project.definitions.view(name) for name in VIEWS]


def _emptied(folder: Path) -> Path:
    """With a folder for each view in it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in VIEWS:
        (folder / name).mkdir(parents=True)
    return folder


def built(project: Project, cutoffs: list[datetime]) -> Tables:
    """What the product has built."""
    return {(view.name, cutoff): build.read(project, view, cutoff) for view in _views(project) for cutoff in cutoffs}


def files(folder: Path, cutoffs: list[datetime]) -> Tables:
    """What is written by hand: `folder/<view>/<day>.parquet`."""
    named = {(name, cutoff): quote(folder / name / f"{cutoff:%Y%m%d}.parquet") for name in VIEWS for cutoff in cutoffs}
    return {at: f"'{file}'" for at, file in named.items()}


def compare(ours: Tables, theirs: Tables, nearly: float = 1e-8) -> int:
    """Every value of every table. Returns how many rows agree; a difference is an error.

    nearly: how far fractions may be apart, by their own size where that is more than 1. What decays is rounded to nine
    places before it is summed, and the last bit of an exponential, which is another in each library, may turn one.
    """
    rows, con = 0, duckdb.connect()
    for (name, cutoff), a in ours.items():
        b = theirs[name, cutoff]
        shapes = [con.execute(f"DESCRIBE FROM {table}").fetchall() for table in (a, b)]
        if [s[:2] for s in shapes[0]] != [s[:2] for s in shapes[1]]:
            raise ValueError(f"{name}: columns differ: {shapes}")
        differs = {column: _differ(column, kind, nearly) for column, kind, *_ in shapes[0]}
        counts = ", ".join(f"count(*) FILTER ({differ})" for differ in differs.values())
        total, *wrong = con.execute(
            f"SELECT count(*), {counts} FROM {a} a FULL JOIN {b} b USING (profile_id)"
        ).fetchall()[0]
        if any(wrong) or not total:
            of = {column: n for column, n in zip(differs, wrong, strict=True) if n}
            raise ValueError(f"{name} at {cutoff:%Y-%m-%d}: of {total} rows these differ from {b}: {of}")
        rows += total
    return rows


def _differ(column: str, kind: str, nearly: float) -> str:
    a, b = f'a."{column}"', f'b."{column}"'
    differ = f"{a} IS DISTINCT FROM {b}"
    if kind != "DOUBLE" or not nearly:
        return f"({differ})"
    return f"({differ} AND coalesce(abs({a} - {b}) > {nearly} * greatest(1, abs({a}), abs({b})), true))"


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
    for name in JOINED:
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


# What the bars are measured by, one after the other


def measure_builds(folder: Path, cutoffs: list[datetime], repeats: int) -> tuple[dict[str, list[Usage]], int]:
    """The build, declared and by hand. Returns also how many rows agree."""
    progress(f"building {', '.join(VIEWS)} at {len(cutoffs)} cutoffs")
    contestants = {"declared": build_declared, "sql": build_sql, "polars": build_polars}
    used = report.interleaved({by: partial(apart, run, folder, cutoffs) for by, run in contestants.items()}, repeats)
    ours = built(Project(folder), cutoffs)
    return used, sum(compare(ours, files(folder / by, cutoffs)) for by in ("sql", "polars"))


def measure_joins(folder: Path, cutoffs: list[datetime], repeats: int) -> tuple[dict[str, list[Usage]], int]:
    """The training join, through Feast and by hand. Returns also how many rows it has."""
    progress("joining them to a training set")
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

    used = report.interleaved({by: partial(joined, by) for by in contestants}, repeats, warm_up=1)
    compare_joins(last["feast"], last["by hand"])
    return used, len(rows)


def measure_update(folder: Path, repeats: int) -> tuple[dict[str, list[Usage]], dict[str, Any]]:
    """The build at now after the last upload, from nothing and from the files of before it. Returns also what changed.

    Loading and unifying the upload is not measured. The files must be the same to the last bit.
    """
    project = Project(folder)
    now = [project.now]
    progress(f"building at {project.now:%Y-%m-%d}, and loading the last upload")
    apart(build_declared, folder, now)
    old, before = _copied(project, now, folder / "old"), folder / "before"
    (project.home / "features").rename(before)
    last, tables = apart(load_last, folder), {}

    def brought(by: str) -> Usage:
        used = apart(build_declared, folder, now, before if by == "incremental" else None)
        tables[by] = _copied(project, now, folder / by)
        return used

    used = report.interleaved({by: partial(brought, by) for by in ("full", "incremental")}, repeats)
    compare(tables["incremental"], tables["full"], nearly=0)
    total, changed = _changed(old, tables["full"])
    if not 0 < changed < total:
        raise ValueError(f"the update is trivial: the last upload changes {changed} of {total} profiles")
    return used, {"new_facts": last["facts"], "profiles": total, "profiles_changed": changed}


def _copied(project: Project, cutoffs: list[datetime], to: Path) -> Tables:
    """What is built, as it is read now, in files of its own."""
    con, copies = duckdb.connect(), files(_emptied(to), cutoffs)
    for at, table in built(project, cutoffs).items():
        con.execute(f"COPY (FROM {table}) TO {copies[at]} (FORMAT parquet)")
    return copies


def _changed(old: Tables, new: Tables) -> tuple[int, int]:
    """How many profiles there are, and of how many a row is new or another in any of these tables."""
    con = duckdb.connect()
    differ = " UNION ".join(f"SELECT profile_id FROM (FROM {new[at]} EXCEPT FROM {old[at]})" for at in new)
    total = con.execute(f"SELECT count(*) FROM {next(iter(new.values()))}").fetchall()[0][0]
    return total, con.execute(f"SELECT count(*) FROM ({differ})").fetchall()[0][0]


def measure_scaling(
    folder: Path, large: Path, cutoffs: list[datetime], sizes: Sizes, repeats: int
) -> dict[str, list[Usage]]:
    """The build over the project and over one of `sizes`, which is made in the folder `large`."""
    apart(prepare, large, sizes)
    contestants = {
        "declared": partial(apart, build_declared, folder, cutoffs),
        "declared large": partial(apart, build_declared, large, cutoffs),
    }
    return report.interleaved(contestants, repeats)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "features")
    parser.add_argument("--scaling", action="store_true", help="also measure four times the lines and people")
    parser.epilog = (
        f"Full size: {FULL.events:,} lines, {FULL.profiles:,} people, {FULL.cutoffs} cutoffs. "
        f"Quick: {QUICK.events:,}, {QUICK.profiles:,}, {QUICK.cutoffs}, and one round."
    )
    given = parser.parse_args(arguments)
    sizes, repeats = QUICK if given.quick else FULL, report.repeats(given)
    if given.quick and not given.repeats:
        repeats = 1  # a dozen processes start as it is, which takes longer than what they do
    larger = Sizes(sizes.events * SCALE, sizes.profiles * SCALE, sizes.cutoffs)
    cutoffs = cutoffs_of(sizes)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name) / "shop"
        counts = apart(prepare, folder, sizes)
        builds, compared = measure_builds(folder, cutoffs, repeats)
        scaled = (
            measure_scaling(folder, Path(name) / "large", cutoffs, larger, min(repeats, SCALING_REPEATS))
            if given.scaling
            else {}
        )
        joins, entity_rows = measure_joins(folder, cutoffs, repeats)
        batches, features = last_batch(Project(folder)), sum(len(view.features) for view in _views(Project(folder)))
        updated, update = measure_update(folder, repeats)
    wall = {by: [u.wall for u in used] for by, used in {**joins, **updated}.items()}
    cpu = {by: [u.cpu for u in used] for by, used in builds.items()}
    bars = [
        report.ratio("features.cpu_vs_sql", cpu["declared"], cpu["sql"], "<=1.4"),
        report.ratio("features.cpu_vs_polars", cpu["declared"], cpu["polars"], "<=3"),
        report.bar("features.rss_gb", [u.rss / 1e9 for u in builds["declared"]], "<=3"),
        report.ratio("features.historical_vs_asof", wall["feast"], wall["by hand"], "<=2"),
        report.ratio("features.incremental_speedup", wall["full"], wall["incremental"], ">=10"),
    ]
    if scaled:
        large, small = ([u.wall for u in scaled[by]] for by in ("declared large", "declared"))
        bars.append(report.ratio("features.time_20m_over_5m", large, small, "<=4.5"))
    report.Report(
        benchmark="features",
        versions=report.versions("duckdb", "polars", "feast", "ibis-framework", "pyarrow", "pandas"),
        sizes={
            **asdict(sizes), "files": batches, "features": features, "entity_rows": entity_rows,
            "repeats": repeats, "quick": given.quick,
        },
        bars=bars,
        details={
            "build": report.medians(builds), "join": report.medians(joins), "update": report.medians(updated),
            **({"scaling": report.medians(scaled)} if scaled else {}), "rows_equal": compared, "news": update,
            "unified": {k: counts[k] for k in ("identifiers", "links", "profiles", "merges")},
        },
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
