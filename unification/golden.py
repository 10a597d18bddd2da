"""What do we hold to be true about a person? One value per attribute, with where it came from.

Survivorship: of the values that facts say of an attribute, one survives by the rule of its `Attribute`. The chain that
settles it, from the strongest: what is not a mere filling, the rule's own measure (trust, recency, how many facts say
so, length), recency, trust, fact id. So two builds agree, and so do a patched table and one made from scratch.

The derived table `golden` has one row per profile and attribute with its provenance, `profiles` one row per profile.
Identifiers are attributes too; there the identity graph is the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from foretell.declarations import Attribute, Source
from foretell.project import Project
from lake import derived
from lake.engine import instant, quote
from unification.survivorship import decide

GRAPH = "identity graph"


def build_golden(con: duckdb.DuckDBPyConnection, project: Project, touched: str | None = None) -> int:
    """Write `golden` and `profiles` for the project's now, from the table `member` of this home and the facts.

    touched: name of a table with a column profile_id: only these are made anew, those that are no more leave. None:
    all are. Returns the number of profiles.
    """
    golden_file, profiles_file = (project.home / "derived" / f"{name}.parquet" for name in ("golden", "profiles"))
    if touched and _columns(con, profiles_file) != _expected(con, project):
        touched = None  # a source came or went
    made = survivors(con, project, project.now, touched)
    if touched:
        for query, file in ((made.golden, golden_file), (made.profiles, profiles_file)):
            derived.patch(con, query, file, key="profile_id", keys=f"SELECT profile_id FROM {touched}")
    else:
        derived.write(con, made.golden, golden_file)
        derived.write(con, made.profiles, profiles_file)
    return int(con.execute(f"SELECT count(*) FROM {derived.scan(profiles_file)}").fetchall()[0][0])


def golden_at(con: duckdb.DuckDBPyConnection, project: Project, at: datetime, touched: str | None = None) -> str:
    """SQL for the table `golden` as it was known at an instant: no value known, no link made later."""
    return survivors(con, project, at, touched).golden


def declared(project: Project) -> list:
    """What golden records depend on beside the facts and the graph, as JSON holds it."""
    sources = [[s.name, list(s.traits.items()), s.trust, s.party, s.enrich] for s in _by_name(project)]
    rules = [
        [a.name, a.keep, sorted(a.trust.items()), sorted(a.enrich.items())]
        for a in project.definitions.attributes.values()
    ]
    return [sources, sorted(rules)]


@dataclass(frozen=True)
class Survivors:
    """SQL for the two tables, over temporary ones of this session."""

    golden: str
    profiles: str


def survivors(
    con: duckdb.DuckDBPyConnection, project: Project, at: datetime, touched: str | None = None
) -> Survivors:  # fmt: skip
    """Decide about the profiles as known at an instant (those named in the table `touched`, or all)."""
    member = derived.scan(project.home / "derived" / "member.parquet")
    moment = instant(at)
    own = f"AND profile_id IN (SELECT profile_id FROM {touched})" if touched else ""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_member AS SELECT node, profile_id, known_from FROM {member}
            WHERE known_from < {moment} AND (known_to IS NULL OR known_to >= {moment}) {own};
        CREATE OR REPLACE TEMP TABLE golden_person AS SELECT row_number() OVER (ORDER BY profile_id)::INTEGER AS p,
            profile_id FROM (SELECT DISTINCT profile_id FROM golden_member);
        CREATE OR REPLACE TEMP TABLE golden_owner AS SELECT node, p, least(known_from, earlier) AS known_at
            FROM golden_member JOIN golden_person USING (profile_id) LEFT JOIN (
                SELECT node, min(known_from) AS earlier FROM {member} WHERE known_to IS NOT NULL GROUP BY 1
            ) USING (node);
        DROP TABLE golden_member"""
    )
    sources = loaded(con, project)
    traits, kinds = attributes_of(sources)
    rules = {name: project.definitions.attributes.get(name, Attribute(name)) for name in [*traits, *kinds]}
    decide(con, project, sources, [rules[name] for name in traits], moment)
    alone = [kind for kind in kinds if kind not in traits]
    _identifiers(con, [rules[kind] for kind in alone])
    rows = [long_sql([rules[name] for name in traits], sources)] if traits else []
    rows += [_long_identifier(rules[kind]) for kind in alone]
    rows = rows or [_NOTHING]
    columns = ["i.identifiers"] + [
        f'w.v{traits.index(name)} AS "{name}"' if name in traits else f'substr(i."{name}", {_SKIPPED}) AS "{name}"'
        for name in sorted({*traits, *kinds})
    ]
    return Survivors(
        golden=f"""SELECT profile_id, g.* EXCLUDE (p) FROM ({" UNION ALL ".join(rows)}) g
            JOIN golden_person USING (p)""",
        profiles=f"""SELECT profile_id, {", ".join(columns)} FROM golden_person JOIN golden_identifiers i USING (p)
            LEFT JOIN golden_wide w USING (p) ORDER BY p""",
    )


def attributes_of(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """The traits that these sources tell, and the types of identifiers that they bring."""
    traits = sorted({trait for source in sources for trait in source.traits})
    return traits, sorted({kind for source in sources if not source.enrich for kind in source.identifiers})


# An identifier's survivor is the maximum of a text: its instant in 17 digits, after its length if that is the rule.
def _identifiers(con: duckdb.DuckDBPyConnection, rules: Sequence[Attribute]) -> None:
    """Make `golden_identifiers`: per p how many identifiers, and the surviving one and the number of each type."""
    columns = ""
    for rule in rules:
        name, value = rule.name, f"substr(node, {len(rule.name) + 2})"
        length = f"lpad(length({value})::VARCHAR, 5, '0')" if rule.keep == "longest" else "'00000'"
        text = f"{length} || (epoch_us(known_at) + {10**16})::VARCHAR || {value}"
        own = f"FILTER (starts_with(node, '{name}:'))"
        columns += f', max({text}) {own} AS "{name}", count(*) {own} AS "n_{name}"'
    made = f"SELECT p, count(*) AS identifiers{columns} FROM golden_owner WHERE {{}} GROUP BY p"
    con.execute(f"CREATE OR REPLACE TEMP TABLE golden_identifiers AS {made.format('false')}")
    people = con.execute("SELECT coalesce(max(p), 0) FROM golden_owner").fetchall()[0][0]
    for low in range(0, people + 1, _SPAN):  # so many that their texts stay near the processor
        con.execute(f"INSERT INTO golden_identifiers {made.format(f'p BETWEEN {low} AND {low + _SPAN - 1}')}")


_SKIPPED = 5 + 17 + 1
_NOTHING = """SELECT 0 AS p, '' AS attribute, '' AS value, '' AS source, '' AS fact_id, NULL::TIMESTAMPTZ AS event_at,
    NULL::TIMESTAMPTZ AS known_at, 0::BIGINT AS distinct_values, '' AS rule WHERE false"""
_SPAN = 125_000


def long_sql(rules: Sequence[Attribute], sources: Sequence[Source]) -> str:
    """SQL for what `decide` found, one row per group p and attribute, with provenance."""
    names = ", ".join(f"'{quote(s.name)}'" for s in sources)
    each = ", ".join(
        f"CASE WHEN v{i} IS NOT NULL THEN {{'a': '{r.name}', 'v': v{i}, 'n': n{i}, 'r': '{r.keep}'}} END"
        for i, r in enumerate(rules)
    )
    return f"""SELECT p, u.a AS attribute, u.v AS value, ([{names}, '{GRAPH}'])[src + 1] AS source, fact_id,
        event_at, known_at, u.n AS distinct_values, u.r AS rule
        FROM (SELECT p, src, fact_id, event_at, known_at, unnest([{each}]) AS u FROM golden_won) WHERE u IS NOT NULL"""


def _long_identifier(rule: Attribute) -> str:
    name = rule.name
    stamp = f'make_timestamptz(substr("{name}", 6, 17)::BIGINT - {10**16})'
    value = f'substr("{name}", {_SKIPPED})'
    return f"""SELECT p, '{name}' AS attribute, {value} AS value, '{GRAPH}' AS source, '{name}:' || {value} AS fact_id,
        {stamp} AS event_at, {stamp} AS known_at, "n_{name}" AS distinct_values, '{rule.keep}' AS rule
        FROM golden_identifiers WHERE "{name}" IS NOT NULL"""


def _expected(con: duckdb.DuckDBPyConnection, project: Project) -> list[str]:
    traits, kinds = attributes_of(loaded(con, project))
    return ["profile_id", "identifiers", *sorted({*traits, *kinds})]


def _columns(con: duckdb.DuckDBPyConnection, file: Path) -> list[str]:
    described = con.execute(f"DESCRIBE FROM {derived.scan(file)}").fetchall() if file.exists() else []
    return [name for name, *_ in described]


def loaded(con: duckdb.DuckDBPyConnection, project: Project) -> list[Source]:
    """The sources that have facts in this session, by name."""
    present = {row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    return [source for source in _by_name(project) if source.name in present]


def _by_name(project: Project) -> list[Source]:
    return sorted(project.definitions.sources.values(), key=lambda source: source.name)
