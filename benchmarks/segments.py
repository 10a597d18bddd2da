"""What does the rule language cost over SQL written by hand, and what do a hundred segments cost over one?

Profiles with traits, features at a cutoff and scores at two cutoffs lie in a project's home as `foretell unify`,
`foretell features build` and `foretell score` leave them: more than twenty attributes. A rule of six conditions, one of
them `top`, over two traits, a feature and three scores is answered by `segments.audience`, and by a query that an
analyst would write over the same files for just this rule: it knows which tasks there are, that nobody has merged and
that nobody was asked for consent. Both return the members with the attributes of the rule, and the same ones.

  segments.vs_sql           `audience`, from opening the session on, over the query, from opening the session on
  segments.hundred_over_one the sizes of a hundred such segments in one pass, over the size of one

`refresh` in the details is the membership history of the hundred: `first`, when everybody enters, and `again`, a week
later by new scores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from benchmarks import report
from features import build
from foretell.project import Project
from lake import derived
from lake.engine import connect, instant, quote, session, table
from segments.audience import audience, sizes
from segments.history import record

FULL, QUICK = 1_000_000, 20_000
SEGMENTS = 100
NOW = "2024-06-01"
TRAITS = {
    "city": ("Oslo", "Bergen", "Tromsø", "Hamar", "Moss", "Bodø", "Voss", "Molde"),
    "language": ("no", "en", "sv"),
    "gender": ("f", "m"),
    "country": ("NO", "SE", "DK"),
    "age_group": ("19-24", "25-34", "35-44", "45-54", "65+"),
}
# task -> kind, purpose
TASKS = {
    "churn": ("probability", "retention"),
    "clv": ("amount", "retention"),
    "propensity": ("probability", "marketing"),
}
RULE = (
    "churn > 0.5 and top(clv, 0.5) and city in ('Oslo', 'Bergen', 'Hamar') and orders_90d > 1 and language = 'en' "
    "and propensity > 0.2"
)
READ = ("churn", "city", "clv", "language", "orders_90d", "propensity")
BY_HAND = """WITH scored AS (
        SELECT profile_id, max_by(value, cutoff) FILTER (task = 'churn') AS churn,
            max_by(value, cutoff) FILTER (task = 'clv') AS clv,
            max_by(value, cutoff) FILTER (task = 'propensity') AS propensity
        FROM scores WHERE task IN ('churn', 'clv', 'propensity') AND cutoff <= {now} AND expires_at > {now} GROUP BY 1),
    wide AS (
        SELECT p.profile_id, city, language, churn, clv, propensity, orders_90d FROM profiles p
        LEFT JOIN scored USING (profile_id) LEFT JOIN read_parquet('{orders}') USING (profile_id)),
    best AS (
        SELECT profile_id FROM wide WHERE clv IS NOT NULL ORDER BY clv DESC, profile_id
        LIMIT (SELECT (count(clv) + 1) // 2 FROM wide))
    SELECT profile_id, churn, city, clv, language, orders_90d, propensity FROM wide SEMI JOIN best USING (profile_id)
    WHERE churn > 0.5 AND city IN ('Oslo', 'Bergen', 'Hamar') AND orders_90d > 1 AND language = 'en'
        AND propensity > 0.2 ORDER BY profile_id"""


def prepare(folder: Path, people: int) -> Project:
    """A project folder whose home holds these profiles, their features and scores, and a hundred segments."""
    (folder / "sources").mkdir(parents=True)
    (folder / "segments").mkdir()
    (folder / "foretell.toml").write_text(f'[foretell]\nas_of = "{NOW}"\nthreads = 2\n')
    (folder / "sources" / "till.py").write_text(
        'from foretell import Source\n\ntill = Source("till", files="till.csv", role="order_line", event_at="at",\n'
        f'    identifiers={{"loyalty_card": "card", "email": "mail"}}, traits={ {name: name for name in TRAITS}!r},\n'
        '    columns={"order_id": "receipt", "amount": "amount"})\n'
    )
    for n in range(SEGMENTS):
        (folder / "segments" / f"s{n:03}.yaml").write_text(f"rule: {_rule(n)}\n")
    project = Project(folder)
    con = connect(project)
    con.execute(
        f"CREATE TABLE people AS SELECT range AS p, 'p' || left(sha256(range::VARCHAR), 20) AS id FROM range({people})"
    )
    _profiles(con, project)
    view = project.definitions.view("orders")
    features = ", ".join(f'{_random(name)} * {_scale(name)} AS "{name}"' for name in view.features)
    now = instant(project.now)
    query = f"SELECT id AS profile_id, {now} AS event_timestamp, {now} AS created, {features} FROM people ORDER BY id"
    build.write(con, project, view, project.now, query, (1, "benchmark"))
    for days in (7, 0):
        score(con, project, days)
    con.close()
    return project


def _rule(n: int) -> str:
    """The n-th rule: six conditions over the same kinds of attributes, with limits and attributes of its own."""
    best, other = list(TASKS)[n % 3], list(TASKS)[(n + 1) % 3]
    city, language = TRAITS["city"][n % 8], TRAITS["language"][n % 3]
    feature = ("orders_30d", "orders_90d", "orders_365d", "spend_90d")[n % 4]
    word = ("top", "bottom")[n // 2 % 2]
    return (
        f"{word}({best}, {0.3 + n % 5 / 10:.1f}) and {other} > {n / 1000} and city <> '{city}' and {feature} > {n % 4} "
        f"and (language = '{language}' or gender = 'f') and {best}_percentile between {n % 10} and 99"
    )


def _scale(name: str) -> int:
    return 30 if "spend" in name or "days" in name else 3


def _random(salt: str) -> str:
    """SQL for a number of each person, exponential, mean 1."""
    return f"-ln(1 - (hash(p, '{salt}') % 1000000 + 0.5) / 1000000.0)"


def _profiles(con: duckdb.DuckDBPyConnection, project: Project) -> None:
    picked = ", ".join(
        f"[{', '.join(repr(v) for v in values)}][1 + (hash(p, '{name}') % {len(values)})::INTEGER] AS {name}"
        for name, values in TRAITS.items()
    )
    derived.write(
        con,
        f"""SELECT id AS profile_id, 2 AS identifiers, {picked}, 'person' || p || '@home.org' AS email,
            'C' || p AS loyalty_card FROM people ORDER BY 1""",
        project.home / "derived" / "profiles.parquet",
    )
    nodes = """SELECT p, id, 'loyalty_card:C' || p AS node, id AS birth_id FROM people
        UNION ALL SELECT p, id, 'email:person' || p || '@home.org', 'p' || left(sha256(p || 'e'), 20) FROM people"""
    derived.write(
        con,
        f"""SELECT node, birth_id, id AS profile_id, TIMESTAMPTZ '2023-01-01' + to_seconds(p % 604800) AS known_from,
            NULL::TIMESTAMPTZ AS known_to FROM ({nodes}) ORDER BY node""",
        project.home / "derived" / "member.parquet",
    )


def score(con: duckdb.DuckDBPyConnection, project: Project, days: int) -> None:
    """Scores of everyone for every task, made so many days before the project's now."""
    cutoff = project.now - timedelta(days=days)
    for task, (kind, purpose) in TASKS.items():
        rows = con.sql(
            f"""SELECT md5(p || '{task}{cutoff}') AS score_id, '{task}' AS task, '{kind}' AS kind, id AS profile_id,
                v AS value, v * 0.5 AS value_low, v * 1.5 AS value_high, 100.0 * v AS percentile,
                0.5::DOUBLE AS base_rate,
                [{{'feature': 'a', 'value': v, 'effect': v - 1, 'text': 'a of ' || round(v, 3)}}] AS reasons,
                '1' AS model_version, 'blend' AS estimator, '{task}__1' AS feature_service,
                MAP(['a', 'b', 'c'], [v, p::DOUBLE, v * p]) AS features, {instant(cutoff)} AS cutoff,
                {instant(cutoff + timedelta(hours=1))} AS scored_at,
                {instant(cutoff + timedelta(days=28))} AS expires_at, 1::BIGINT AS batch, '{purpose}' AS purpose
                FROM (SELECT *, (hash(p, '{task}{cutoff}') % 1000000 + 0.5) / 1000000.0 AS v FROM people) ORDER BY id"""
        ).to_arrow_table()
        table(project, "scores").append(rows, why="benchmark")


def by_hand(project: Project) -> pd.DataFrame:
    """The contestant: the rule as one query over the same files."""
    with session(project) as con:
        file = build.file_of(project, project.definitions.view("orders"), project.now)
        return con.execute(BY_HAND.format(now=instant(project.now), orders=quote(file))).df()


def by_rule(project: Project) -> pd.DataFrame:
    return audience(project, RULE).members


def refreshed(folder: Path, people: int) -> dict[str, report.Usage]:
    """The history of all segments, from nothing and a week later by new scores."""
    first, _ = report.measure(partial(record, Project(folder)))
    project = Project(folder)
    toml = (folder / "foretell.toml").read_text()
    (folder / "foretell.toml").write_text(toml.replace(NOW, "2024-06-08"))
    project = Project(folder)
    with connect(project) as con:
        con.execute(
            f"""CREATE TABLE people AS SELECT range AS p, 'p' || left(sha256(range::VARCHAR), 20) AS id
                FROM range({people})"""
        )
        score(con, project, 0)
    view = project.definitions.view("orders")
    before = build.file_of(project, view, project.now - timedelta(days=7))
    shutil.copy(before, build.file_of(project, view, project.now))
    again, _ = report.measure(partial(record, project))
    (folder / "foretell.toml").write_text(toml)
    return {"refresh_first": first, "refresh_again": again}


def found(people: int, repeats: int) -> report.Report:
    """What was measured."""
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        report.progress(f"generating {people:,} people")
        project = prepare(Path(name) / "shop", people)
        mine, theirs = by_rule(project), by_hand(project)  # once before: the definitions are read, the files are warm
        pd.testing.assert_frame_equal(mine, theirs, check_dtype=False)
        contestants: dict[str, Callable[[], report.Usage]] = {
            "sql": lambda: report.measure(partial(by_hand, project))[0],
            "rule": lambda: report.measure(partial(by_rule, project))[0],
            "one": lambda: report.measure(partial(sizes, project, ["s000"]))[0],
            "hundred": lambda: report.measure(partial(sizes, project))[0],
        }
        usages = report.interleaved(contestants, repeats)
        counted = [size for _, size, _ in sizes(project) if isinstance(size, int)]
        if len(counted) != SEGMENTS:
            raise RuntimeError(f"expected the sizes of {SEGMENTS} segments, got {len(counted)}")
        once = refreshed(project.folder, people)
    walls = {name: [u.wall for u in used] for name, used in usages.items()}
    rows: dict[str, Any] = {
        "profiles": people, "traits": len(TRAITS) + 2, "scores": 2 * len(TASKS) * people, "members": len(mine),
        "segments": len(counted), "memberships": sum(counted), "repeats": repeats,
    }  # fmt: skip
    return report.Report(
        benchmark="segments",
        versions=report.versions("duckdb", "deltalake"),
        sizes=rows,
        bars=[
            report.ratio("segments.vs_sql", walls["rule"], walls["sql"], "<=1.5"),
            report.ratio("segments.hundred_over_one", walls["hundred"], walls["one"], "<=10"),
        ],
        details=report.medians(usages | {name: [used] for name, used in once.items()}),
    )


def measure(quick: bool, repeats: int | None = None) -> dict[str, Any]:
    """Generate, let the contestants take turns, and report: the object that `report.Report.as_json` makes."""
    return found(QUICK if quick else FULL, repeats or (report.QUICK_REPEATS if quick else report.REPEATS)).as_json()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "segments")
    parser.add_argument("--people", type=int, help="how many profiles, in place of the size's own")
    parser.epilog = f"Full size: {FULL:,} profiles. Quick: {QUICK:,}."
    given = parser.parse_args(arguments)
    found(given.people or (QUICK if given.quick else FULL), report.repeats(given)).show()


if __name__ == "__main__":
    sys.exit(main())
