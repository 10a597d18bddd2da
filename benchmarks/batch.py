"""What does a batch of scores cost, over bare prediction and over a script that one would write?

A shop is generated, loaded and unified, and four of the standard tasks are trained on it, each on the same forty
features of orders. Half of its people come every sixth week until they stay away, which no baseline can know: learned
models win. Then the built files of its views are made large: as many people as are asked for, each with the
features of one of the shop's, amounts and times a few percent off. All contestants answer the same four champions:

  product   what `foretell score` does before it brings features online: who is eligible, features of a chunk at a time,
            answers, and the contract of each score (interval, percentile among all, ids, features), committed whole
  naive     pandas and the models as they are, asked by LightGBM itself: the files read and merged, each task predicted
            for all eligible at once, percentiles by rank, a Parquet file a task with the features
  bare      the models' answers alone, for the same rows, which are in memory already

  batch.speedup_vs_naive  scores a second of the product, over naive's
  batch.vs_compiled       seconds of bare over those of the product (both ask the compiled walk over the trees)
  batch.rss_gb            the most memory that the product held, in GB
  batch.reasons_cost      seconds of the product with reasons for the top 5% of each task, over those without

Every run has a process of its own; answers of product and naive are compared. What bringing features online costs is
in the details, of few people: Feast's part of it grows with them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import features_shop, report
from benchmarks.report import Usage, apart, measure, progress
from foretell.project import Project
from lake import derived
from lake.engine import quote, session

TASKS = ("churn", "propensity", "loyalty", "clv")
VIEWS = ("orders", "cadence", "gaps", "items", "basket")
TASK = '''"""The standard task, of the views that the benchmark has."""

from dataclasses import replace

from models.{name} import {name} as standard

{name} = replace(standard, views={views})
'''
SETTINGS = "cutoffs = 3\nfolds = 2\ntrials = 0\n"


@dataclass(frozen=True)
class Sizes:
    """People scored, and people of the shop that the models are trained on."""

    profiles: int
    people: int


FULL, QUICK = Sizes(1_000_000, 6_000), Sizes(20_000, 1_500)
ONLINE = 5_000  # people whose features are brought online, to say what that costs


def generate(file: Path, people: int, seed: int = 7) -> None:
    """Write the lines of a shop's two years, in the form of `features_shop`."""
    rng, days = np.random.default_rng(seed), features_shop.DAYS
    who, when = [], []
    for person in range(people):
        regular = person % 2 == 0
        rate, dropout = rng.gamma(1.5, 1 / 30), rng.beta(1.0, 60.0 if regular else 9.0)
        at = float(rng.uniform(0, days - 60))
        while at < days:
            who.append(person)
            when.append(at)
            if rng.random() < dropout:
                break
            at += float(rng.normal(42, 2) if regular else rng.exponential(1 / max(rate, 1e-3)))
    lines = 1 + rng.poisson(0.8, len(who))
    of = np.repeat(np.arange(len(who)), lines)
    n, usual = len(of), rng.gamma(4, 6, people)
    person = np.array(who)[of]
    sold = pd.Timestamp(features_shop.START) + pd.to_timedelta(np.round(np.array(when) * 86_400)[of], unit="s")
    product = (2_000 * rng.random(n) ** 2.5).astype(int)
    frame = pd.DataFrame({
        "basket_id": "b" + pd.Series(of).astype(str), "sold_at": sold.as_unit("us"), "email": None,
        "uploaded_at": (sold + pd.Timedelta(minutes=1)).as_unit("us"), "card_no": "C" + pd.Series(person).astype(str),
        "paid": np.round(rng.gamma(4, usual[person] / 4), 2), "quantity": 1 + rng.poisson(0.4, n),
        "discount": np.round(rng.random(n) * (rng.random(n) < 0.3), 2),
        "product_id": "sku" + pd.Series(product).astype(str), "category": "c" + pd.Series(product % 30).astype(str),
        "brand": "b" + pd.Series(product % 90).astype(str), "cancelled": rng.random(n) < 0.01,
    })  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.sort_values(["sold_at", "basket_id"]).to_parquet(file, index=False)


def prepare(folder: Path, sizes: Sizes) -> None:
    """A project with four champions, and its views built at its now for as many people as are asked for."""
    from training.dataset import build_for

    project = trained(folder, sizes.people)
    build_for(project, [project.definitions.task(name) for name in TASKS], [project.now])
    for view in VIEWS:
        enlarge(project, view, sizes.profiles)


def trained(folder: Path, people: int) -> Project:
    """A project with four champions, of a shop of so many people."""
    from ingestion.load import load
    from training.champion import train
    from unification.identity import unify

    texts = {f"tasks/{name}.py": TASK.format(name=name, views=VIEWS) for name in TASKS}
    texts |= {"foretell.toml": features_shop.SETTINGS + SETTINGS, "sources/shop.py": features_shop.SOURCE}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    generate(folder / "exports" / "shop" / "lines.parquet", people)
    project = Project(folder)
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, Exception):
            raise loaded
    unify(project)
    for name in TASKS:
        progress(f"{name}: {train(project, name, progress).winner}")
    return project


def enlarge(project: Project, name: str, profiles: int) -> None:
    """Write a view's rows at now again, of so many people: each as one of the shop's, the same in all views."""
    from features import build

    view, now = project.definitions.view(name), project.now
    file = build.file_of(project, view, now)
    kinds = build.types(view, dict(project.definitions.sources))
    varied = ", ".join(
        f'''"{f}" * (0.97 + 0.06 * hash(made.profile_id || '{f}') / 18446744073709551615.0) AS "{f}"'''
        for f, kind in kinds.items() if kind == "float64"
    )  # fmt: skip
    replaced = f"REPLACE (made.profile_id AS profile_id{', ' + varied if varied else ''})"
    with session(project) as con:
        con.execute(
            f"""CREATE TEMP TABLE own AS SELECT *, row_number() OVER (ORDER BY profile_id) - 1 AS _place
                FROM {build.read(project, view, now)};
            CREATE TEMP TABLE people AS SELECT 'p' || md5(range::VARCHAR)[:20] AS profile_id,
                hash(range) % (SELECT count(*) FROM own) AS _place FROM range({int(profiles)})"""
        )
        made = f"""SELECT own.* EXCLUDE (_place) {replaced} FROM own JOIN people made USING (_place)
            ORDER BY made.profile_id"""
        said = con.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'made_from'", [str(file)]).fetchall()
        derived.write(con, made, file, metadata={"made_from": said[0][0].decode()})
    for old in build.patches(file):
        old.unlink()


def _asked(project: Project) -> list[Any]:
    from models.registry import champion, quietly
    from serving.stream import Asked

    return [Asked(project.definitions.task(name), quietly(lambda n=name: champion(project, n))) for name in TASKS]


def product(folder: Path, reasons: str) -> tuple[Usage, int]:
    """Score everyone; usage and how many scores were committed."""
    from serving.score import write_scores

    project = Project(folder)
    for name in ("lake/scores", "lake/scored_rows", "lake/scored_columns", "scored", "staging"):
        shutil.rmtree(project.home / name, ignore_errors=True)
    asked = _asked(project)
    used, found = measure(lambda: write_scores(project, asked, project.now, reasons=reasons))
    return used, sum(scored.added for scored in found)


def naive(folder: Path, to: Path) -> tuple[Usage, int]:
    """The same answers by pandas, as one would write it; usage and how many rows were written."""
    from models.estimators.boosting import _LightGBM

    def margin(trees: Any, A: np.ndarray) -> np.ndarray:
        """As LightGBM says it, not by the product's own walk over its trees."""
        return trees.booster_.predict(A, raw_score=True, num_threads=2) + trees.offset_ + trees.level_

    setattr(_LightGBM, "_margin", margin)  # noqa: B010 (in a process of its own)
    project = Project(folder)
    asked, now = _asked(project), project.now
    return measure(lambda: _naive(project, asked, now, to))


def _naive(project: Project, asked: list[Any], now: datetime, to: Path) -> int:
    from features import build

    together = None
    for name in VIEWS:
        rows = pd.read_parquet(build.file_of(project, project.definitions.view(name), now))
        rows = rows.drop(columns=["event_timestamp", "created"])
        together = rows if together is None else together.merge(rows, on="profile_id")
    assert together is not None
    written = 0
    for one in asked:
        rows = together.query(one.task.population)
        X = one.model.encode(rows)
        values = one.model.predict(X, now)
        low, high = one.model.interval(values.to_numpy())
        said = X.assign(
            profile_id=rows["profile_id"], value=values, value_low=low, value_high=high,
            percentile=100 * values.rank(pct=True, method="max"), base_rate=one.model.contract["base_rate"],
            model_version=one.model.version, cutoff=now, expires_at=now + one.task.horizon,
        )  # fmt: skip
        said.to_parquet(to / f"{one.name}.parquet")
        written += len(said)
    return written


def bare(folder: Path) -> tuple[Usage, int]:
    """The answers alone: rows are in memory before the clock starts. Usage and how many answers."""
    from features.wide import Wide
    from serving.contract import answers
    from serving.stream import CHUNK_BYTES, _people

    project = Project(folder)
    asked = _asked(project)
    wide = Wide(project, project.now)
    for one in asked:
        views = project.definitions.views_of(one.task)
        wide.add(one.name, views, one.model.contract["columns"], one.model.categories)
    rows: dict[str, list[np.ndarray]] = {one.name: [] for one in asked}
    size = CHUNK_BYTES // wide.row_bytes
    with session(project) as con:
        profiles, mask, _ = _people(con, project, asked, project.now)
        for start in range(0, len(profiles), size):
            X, _ = wide.read(con, profiles.slice(start, size))
            for place, one in enumerate(asked):
                at = np.flatnonzero(mask[start : start + size] & np.uint64(1 << place))
                rows[one.name].append(X[np.ix_(at, wide.places[one.name])])

    def answer() -> int:
        return sum(len(answers(one.model, X, project.now)) for one in asked for X in rows[one.name])

    return measure(answer)


def compare(folder: Path, to: Path) -> float:
    """The largest relative difference between the values of product and naive; both must have the same people."""
    project = Project(folder)
    with session(project) as con:
        files = " UNION ALL ".join(
            f"SELECT '{name}' AS task, profile_id, value, percentile FROM read_parquet('{quote(to / name)}.parquet')"
            for name in TASKS
        )
        found = con.execute(
            f"""SELECT count(*), count(s.value), count(n.value),
                max(abs(s.value - n.value) / greatest(1, abs(n.value))), max(abs(s.percentile - n.percentile))
                FROM scores s FULL JOIN ({files}) n USING (task, profile_id)"""
        ).fetchall()[0]
    everyone, ours, theirs, apart_by, ranks = found
    if not everyone == ours == theirs or not apart_by <= 1e-9 or not ranks <= 0.01:
        raise ValueError(f"product and naive differ: {found}")
    return float(apart_by)


def online(project: Project, profiles: int) -> Usage:
    """Bring the features of some people online, through Feast, as `foretell score` does at its end."""
    from features.store import repository

    tasks = [project.definitions.task(name) for name in TASKS]
    views = [project.definitions.view(name) for name in VIEWS]
    for name in VIEWS:
        enlarge(project, name, profiles)
    store = repository.apply(project, tasks)
    return measure(lambda: repository.materialise(project, store, views, project.now))[0]


def _online(folder: Path, profiles: int) -> Usage:
    """The same on a copy without scores: a project that is kept keeps its people."""
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        copy = Path(name) / "shop"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("scores", "scored*", "staging"))
        return online(Project(copy), profiles)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, prepare, measure, report."""
    parser = report.options(__doc__ or "", "batch")
    parser.add_argument("--profiles", type=int, help=f"people to score (default: {FULL.profiles:,})")
    parser.add_argument("--project", type=Path, help="the folder of a project that an earlier run has left")
    parser.add_argument("--keep", type=Path, help="leave the project in this folder")
    given = parser.parse_args(arguments)
    sizes, repeats = QUICK if given.quick else FULL, report.repeats(given)
    sizes = Sizes(given.profiles or sizes.profiles, sizes.people)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        folder = given.project or given.keep or Path(name) / "shop"
        if not given.project:
            folder.mkdir(parents=True)
            apart(prepare, folder, sizes)
        elif given.profiles:
            for view in VIEWS:
                enlarge(Project(folder), view, sizes.profiles)
        to = Path(name) / "naive"
        to.mkdir()
        counts: dict[str, int] = {}

        def run(what: str, function: Any, *rest: Any) -> Usage:
            used, counts[what] = apart(function, folder, *rest)
            return used

        usages = report.interleaved({
            "bare": partial(run, "bare", bare), "naive": partial(run, "naive", naive, to),
            "none": partial(run, "none", product, "none"), "top": partial(run, "top", product, "top:0.05"),
        }, repeats)  # fmt: skip
        differ = apart(compare, folder, to)
        loads = os.getloadavg()
        progress(f"features of {ONLINE:,} people online")
        fed = apart(_online, folder, ONLINE)
    walls = {name: [used.wall for used in some] for name, some in usages.items()}
    scores = counts["none"]
    report.Report(
        benchmark="batch",
        versions=report.versions("lightgbm", "pandas", "duckdb", "deltalake", "feast"),
        sizes={"profiles": sizes.profiles, "scores": scores, "features": 40, "tasks": len(TASKS), "repeats": repeats,
               "quick": given.quick},
        bars=[
            report.ratio("batch.speedup_vs_naive", walls["naive"], walls["none"], ">=2"),
            report.ratio("batch.vs_compiled", walls["bare"], walls["none"], ">=0.7"),
            report.bar("batch.rss_gb", [used.rss / 1e9 for used in usages["none"] + usages["top"]], "<=1.5"),
            report.ratio("batch.reasons_cost", walls["top"], walls["none"], "<=2"),
        ],
        details={
            **report.medians(usages), "scores_per_s": scores / report.summary(walls["none"])[0],
            "largest_difference": differ, "load_average": loads[0],
            "online_of_some": {"profiles": ONLINE, "cpu_s": fed.cpu, "peak_gb": fed.rss / 1e9},
        },
    ).show()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
