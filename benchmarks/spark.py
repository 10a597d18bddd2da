"""What do features and scores take on Spark, on this machine, beside DuckDB? And are they the same?

The shop of benchmarks.batch: views are built at its now from the same files of facts by either engine, and everyone of
a larger crowd is scored by the same champions from the same features. Spark is local[2], one session, begun before the
clock starts (what that takes is in the details). On one machine Spark is the slower one: it is for what no longer fits.

  spark.unlike_features   values of the built views that differ by more than a part in 10⁹, floats, or at all
  spark.unlike_scores     scores that are not the same to the last bit, ids included

Quick: fewer people, one view, and no scores, for which models would have to be trained first. Without pyspark or Java
nothing is measured, and that is said.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import batch, features_shop, report
from benchmarks.report import Usage, measure, progress
from foretell.project import Project
from lake.engine import quote, session

ENGINES = ("duckdb", "spark")
VIEWS = batch.VIEWS


@dataclass(frozen=True)
class Sizes:
    """People of the shop whose facts are read, and people who are scored."""

    people: int
    profiles: int


FULL, QUICK = Sizes(6_000, 200_000), Sizes(300, 0)
# What a quick run leaves out: optimising what runs once.
HASTY = """
[foretell.spark_conf]
"spark.sql.adaptive.enabled" = false
"spark.driver.extraJavaOptions" = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""


def plain_shop(folder: Path, people: int) -> Project:
    """The shop of benchmarks.batch, loaded and unified, without models."""
    from ingestion.load import load
    from unification.identity import unify

    for name, text in {
        "foretell.toml": features_shop.SETTINGS + HASTY,
        "sources/shop.py": features_shop.SOURCE,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    batch.generate(folder / "exports" / "shop" / "lines.parquet", people)
    project = Project(folder)
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, Exception):
            raise loaded
    unify(project)
    return project


def built(folder: Path, names: Sequence[str], engine: str) -> Usage:
    """Build the views at now, from nothing; the files are kept under the engine's name."""
    from features import build

    project = Project(folder).told(engine=engine)
    views = [project.definitions.view(name) for name in names]
    for view in views:
        build.file_of(project, view, project.now).unlink(missing_ok=True)
    used, _ = measure(lambda: build.build(project, views, [project.now]))
    for view in views:
        shutil.copyfile(build.file_of(project, view, project.now), folder / f"{view.name}.{engine}.parquet")
    return used


def unlike_features(folder: Path, names: Sequence[str]) -> tuple[int, int]:
    """How many values differ between the files of both engines, and how many there are."""
    wrong = everything = 0
    for name in names:
        one, other = (f"read_parquet('{quote(folder / name)}.{engine}.parquet')" for engine in ENGINES)
        kinds = duckdb.execute(f"DESCRIBE FROM {one}").fetchall()
        if [row[:2] for row in kinds] != [row[:2] for row in duckdb.execute(f"DESCRIBE FROM {other}").fetchall()]:
            raise ValueError(f"{name}: the files have other columns")
        unlike = [
            f"""count(*) FILTER (a."{column}" IS DISTINCT FROM b."{column}" {
                f'AND NOT coalesce(abs(a."{column}" - b."{column}") <= 1e-9 * abs(a."{column}"), false)'
                if kind == "DOUBLE" else ""})"""
            for column, kind, *_ in kinds
        ]  # fmt: skip
        joined = f"{one} a FULL JOIN {other} b ON a.profile_id = b.profile_id"
        wrong_here, rows = duckdb.execute(f"SELECT {' + '.join(unlike)}, count(*) FROM {joined}").fetchall()[0]
        wrong, everything = wrong + int(wrong_here), everything + int(rows) * len(kinds)
    return wrong, everything


def scored(folder: Path, engine: str) -> Usage:
    """Score everyone without reasons; the scores are kept under the engine's name."""
    from serving.score import write_scores

    project = Project(folder).told(engine=engine)
    for name in ("lake/scores", "lake/scored_rows", "lake/scored_columns", "scored", "staging"):
        shutil.rmtree(project.home / name, ignore_errors=True)
    asked = batch._asked(project)
    used, _ = measure(lambda: write_scores(project, asked, project.now, reasons="none"))
    with session(project) as con:
        kept = "SELECT * EXCLUDE (scored_at) FROM scores ORDER BY task, profile_id"
        con.execute(f"COPY ({kept}) TO '{quote(folder)}/scores.{engine}.parquet'")
    return used


def unlike_scores(folder: Path) -> tuple[int, int]:
    """How many scores are of one engine only, and how many there are."""
    one, other = (f"(FROM read_parquet('{quote(folder)}/scores.{engine}.parquet'))" for engine in ENGINES)
    # a map is no key, and a NaN in it is not itself: the id is a digest of the features
    rows = "SELECT * EXCLUDE (features, reasons)"
    sides = f"({rows} FROM {one} EXCEPT {rows} FROM {other}) UNION ALL ({rows} FROM {other} EXCEPT {rows} FROM {one})"
    query = f"SELECT (SELECT count(*) FROM ({sides})), (SELECT count(*) FROM {one})"
    wrong, everything = duckdb.execute(query).fetchall()[0]
    return int(wrong), int(everything)


def _lacking() -> str:
    """What Spark needs and is not here; "" if nothing."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed"
    return "" if os.environ.get("JAVA_HOME") or shutil.which("java") else "Java is not installed"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "spark")
    parser.add_argument("--people", type=int, help=f"people of the shop (default: {FULL.people:,})")
    parser.add_argument("--profiles", type=int, help=f"people to score (default: {FULL.profiles:,})")
    given = parser.parse_args(arguments)
    sizes, repeats = QUICK if given.quick else FULL, given.repeats or (1 if given.quick else report.REPEATS)
    sizes = Sizes(given.people or sizes.people, sizes.profiles if given.profiles is None else given.profiles)
    said: dict[str, Any] = {"people": sizes.people, "profiles": sizes.profiles, "repeats": repeats}
    if why := _lacking():
        report.Report("spark", said, [], details={"left_out": why}).show()
        return
    bars, details = measured(sizes, repeats)
    versions = report.versions("pyspark", "duckdb", "pyarrow", "sqlglot")
    report.Report("spark", {**said, "quick": given.quick}, bars, versions, details).show()


def measured(sizes: Sizes, repeats: int) -> tuple[list[report.Bar], dict[str, Any]]:
    from lake.spark import spark_session

    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = Path(name) / "shop"
        project = batch.trained(folder, sizes.people) if sizes.profiles else plain_shop(folder, sizes.people)
        names = VIEWS if sizes.profiles else VIEWS[:1]
        began = time.perf_counter()
        spark_session(project)
        details: dict[str, Any] = {"spark_begins_s": time.perf_counter() - began}
        progress(f"Spark began in {details['spark_begins_s']:.1f} s")
        # once without a clock: the virtual machine compiles what it runs often
        warm_up = int(sizes.profiles > 0)
        usages = report.interleaved({e: partial(built, folder, names, e) for e in ENGINES}, repeats, warm_up)
        wrong, values = unlike_features(folder, names)
        bars = [report.bar("spark.unlike_features", [float(wrong)], "==0")]
        details |= {"build": report.medians(usages), "views": len(names), "values": values}
        if sizes.profiles:
            for view in VIEWS:
                batch.enlarge(project, view, sizes.profiles)
            usages = report.interleaved({e: partial(scored, folder, e) for e in ENGINES}, repeats, warm_up=1)
            wrong, scores = unlike_scores(folder)
            bars.append(report.bar("spark.unlike_scores", [float(wrong)], "==0"))
            details |= {"score": report.medians(usages), "scores": scores}
        details["load_average"] = os.getloadavg()[0]
    for part in ("build", "score"):
        for engine in details.get(part, {}).values():
            del engine["cpu_s"], engine["peak_gb"]  # of this process: Spark's own machine is another
    return bars, details


if __name__ == "__main__":
    sys.exit(main())
