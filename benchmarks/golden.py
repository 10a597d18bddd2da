"""How fast are golden profiles made, and what does it cost over a plain `GROUP BY`?

People with three identifiers each and eight traits, told by four sources (the company's own CRM, web accounts and
mailing tool, and bought data that fill gaps), so that one value in eight or so differs. All four rules of survivorship
are in use. Facts lie in Delta tables, membership in the derived table, as `foretell load` and `foretell unify` leave
them.

  golden.vs_group_by   both tables, provenance, counts of distinct values and all, over one `GROUP BY profile_id` of the
                       same rows with `max(column)` for each column of `profiles`, written to a Parquet file too
  golden.touched       a hundredth of the profiles made anew and patched in, over all of them

The `GROUP BY` with `arg_max(column, event_at)`, the most recent value of each, is in the details; CPU seconds are too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import report
from foretell.project import Project
from lake import derived
from lake.engine import instant, session, source_table
from unification.golden import build_golden

FULL, QUICK = 1_000_000, 20_000
KINDS = ("loyalty_card", "email", "phone")
NODES = {"loyalty_card": "'C' || p", "email": "'person' || p || '@home.org'", "phone": "2120000000 + p"}
# trait -> how many values there are
TRAITS = {
    "first_name": 3_000, "last_name": 20_000, "city": 500, "street": 100_000, "postcode": 5_000, "birth_date": 20_000,
    "language": 10, "income": 8,
}  # fmt: skip
# source -> facts per person, identifier, traits, what else its contract says
SOURCES: dict[str, tuple[float, str, tuple[str, ...], str]] = {
    "crm": (1.3, "loyalty_card", ("first_name", "last_name", "city", "street", "postcode", "birth_date"), "trust=2"),
    "web": (0.9, "email", ("first_name", "last_name", "city", "street", "postcode", "language"), "trust=1"),
    "mailing": (0.7, "email", ("first_name", "language"), ""),
    "bought": (0.6, "phone", ("city", "street", "postcode", "income"), 'party="third"'),
}
RULES = {
    "city": "most_frequent", "street": "most_recent", "postcode": "most_recent", "first_name": "longest",
    "language": "most_frequent",
}  # fmt: skip
OTHER = 12  # percent of the values that are not the person's usual one
WEEK, YEAR = 604_800, 31_536_000


def prepare(folder: Path, people: int) -> Project:
    """A project folder whose lake holds these people's facts and who is who."""
    (folder / "sources").mkdir(parents=True)
    (folder / "attributes").mkdir()
    (folder / "foretell.toml").write_text('[foretell]\nas_of = "2024-06-01"\n')
    rules = [f"{name} = Attribute({name!r}, keep={keep!r})\n" for name, keep in RULES.items()]
    (folder / "attributes" / "rules.py").write_text("from foretell import Attribute\n\n" + "".join(rules))
    for name, (_, kind, traits, more) in SOURCES.items():
        said = f'event_at="at", identifiers={{"{kind}": "{kind}"}}, traits={dict(zip(traits, traits, strict=True))}'
        contract = f'{name} = Source("{name}", files="{name}.csv", kind="records", {said}, {more})\n'
        (folder / "sources" / f"{name}.py").write_text(f"from foretell import Source\n\n{contract}")
    project = Project(folder)
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    for name, (share, kind, traits, _) in SOURCES.items():
        values = ", ".join(
            f"'{t}-' || hash(p, CASE WHEN hash(r, '{name}{t}') % 100 < {OTHER} THEN r END, '{t}') % {n} AS {t}"
            for t, n in TRAITS.items()
            if t in traits
        )
        at = f"TIMESTAMPTZ '2023-01-01' + to_seconds(hash(r, '{name}at') % {YEAR})"
        rows = con.sql(
            f"""SELECT md5('{name}' || r) || '-1' AS fact_id, 1::BIGINT AS batch, moment AS event_at,
                moment AS received_at, moment AS known_at, moment::DATE AS event_day, {values},
                {NODES[kind]} AS id_{kind},
                '{kind}:' || ({NODES[kind]}) AS node, '{{}}' AS payload
                FROM (SELECT r, {at} AS moment, (hash(r, '{name}') % {people})::BIGINT AS p
                    FROM range({int(share * people)}) t(r)) ORDER BY event_at"""
        ).to_arrow_table()
        source_table(project, name).append(rows, why="benchmark")
    each = " UNION ALL ".join(f"SELECT p, '{kind}:' || ({NODES[kind]}) AS node FROM people" for kind in KINDS)
    derived.write(
        con,
        f"""WITH people AS (SELECT range AS p FROM range({people}))
            SELECT node, 'p' || left(sha256(p::VARCHAR), 20) AS birth_id, birth_id AS profile_id,
            TIMESTAMPTZ '2022-12-01' + to_seconds(p % {WEEK}) AS known_from, NULL::TIMESTAMPTZ AS known_to
            FROM ({each}) ORDER BY node""",
        project.home / "derived" / "member.parquet",
    )
    return project


def rows(project: Project) -> str:
    """SQL for what both contestants read: each fact and each identifier with its profile, a column per attribute."""
    now = instant(project.now)
    parts = []
    for name, (_, _, traits, _) in SOURCES.items():
        own = ", ".join(t if t in traits else f"NULL AS {t}" for t in TRAITS)
        none = ", ".join(f"NULL AS {kind}" for kind in KINDS)
        parts.append(f"SELECT node, event_at, {own}, {none}, 0 AS identifiers FROM {name} WHERE known_at < {now}")
    own = ", ".join(f"CASE WHEN starts_with(node, '{k}:') THEN substr(node, {len(k) + 2}) END AS {k}" for k in KINDS)
    parts.append(f"SELECT node, known_from, {', '.join('NULL' for _ in TRAITS)}, {own}, 1 FROM member")
    return f"SELECT profile_id, f.* FROM ({' UNION ALL '.join(parts)}) f JOIN member USING (node)"


def group_by(project: Project, aggregate: str) -> None:
    """The contestant: one GROUP BY over the same rows, the columns of `profiles`."""
    columns = ", ".join(f"{aggregate.format(name)} AS {name}" for name in (*TRAITS, *KINDS))
    with session(project, 1) as con:
        query = f"SELECT profile_id, sum(identifiers) AS identifiers, {columns} FROM ({rows(project)}) GROUP BY 1"
        derived.write(con, query, project.home / "peer" / "profiles.parquet")


def golden(project: Project, share: int | None = None) -> None:
    """All profiles, or one in `share` of them."""
    with session(project, 1) as con:
        if share:
            con.execute(
                f"""CREATE TEMP TABLE touched AS SELECT DISTINCT profile_id FROM member
                    WHERE hash(profile_id) % {share} = 0"""
            )
        build_golden(con, project, "touched" if share else None)


def measure(quick: bool, repeats: int | None = None) -> dict[str, Any]:
    """Generate, let the contestants take turns, and report: the object that `report.Report.as_json` makes."""
    return found(QUICK if quick else FULL, repeats or (report.QUICK_REPEATS if quick else report.REPEATS)).as_json()


def found(people: int, repeats: int) -> report.Report:
    """What was measured."""
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
        report.progress(f"generating {people:,} people")
        project = prepare(Path(name) / "shop", people)
        contestants: dict[str, Callable[[], report.Usage]] = {
            "group_by": lambda: report.measure(partial(group_by, project, "max({})"))[0],
            "golden": lambda: report.measure(partial(golden, project))[0],
            "touched": lambda: report.measure(partial(golden, project, 100))[0],
        }
        golden(project)  # the table that is patched
        usages = report.interleaved(contestants, repeats)
        usages["group_by_recent"] = [report.measure(partial(group_by, project, "arg_max({}, event_at)"))[0]]
        with session(project, 1) as con:
            made = {t: con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in ("golden", "profiles")}
            facts = sum(con.execute(f"SELECT count(*) FROM {s}").fetchall()[0][0] for s in SOURCES)
            disputed = con.execute("SELECT avg((distinct_values > 1)::INT) FROM golden").fetchall()[0][0]
        if made["profiles"] != people:
            raise RuntimeError(f"expected {people} golden profiles, got {made['profiles']}")
    walls = {name: [u.wall for u in used] for name, used in usages.items()}
    return report.Report(
        benchmark="golden",
        versions=report.versions("duckdb", "deltalake"),
        sizes={
            "profiles": people, "facts": facts, "identifiers": len(KINDS) * people, "golden_rows": made["golden"],
            "with_several_values": disputed, "repeats": repeats,
        },
        bars=[
            report.ratio("golden.vs_group_by", walls["golden"], walls["group_by"], "<=3"),
            report.ratio("golden.touched", walls["touched"], walls["golden"], "<=0.25"),
        ],
        details=report.medians(usages),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "golden")
    parser.add_argument("--people", type=int, help="how many profiles, in place of the size's own")
    parser.epilog = f"Full size: {FULL:,} profiles. Quick: {QUICK:,}."
    given = parser.parse_args(arguments)
    found(given.people or (QUICK if given.quick else FULL), report.repeats(given)).show()


if __name__ == "__main__":
    sys.exit(main())
