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

GRAPH = "identity graph"

# All of the chain but its rule is one integer, so that the survivor is a maximum. From the lowest bit: fact id, trust,
# microseconds since 1827, the rule's measure, and whether the value does more than fill a gap.
_TRUST, _TIME, _MEASURE, _TIER = 44, 52, 106, 122
_MOST = 2**16 - 1  # a measure beyond it is as good
_TIE = """((coalesce(TRY_CAST('0x' || left(fact_id, 9) AS BIGINT), (md5_number_lower(fact_id) >> 28)::BIGINT) << 8)
    + least(coalesce(TRY_CAST(substr(fact_id, 34) AS BIGINT), 0), 255))"""


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
    _decide(con, project, sources, [rules[name] for name in traits], moment)
    alone = [kind for kind in kinds if kind not in traits]
    _identifiers(con, [rules[kind] for kind in alone])
    rows = [_long([rules[name] for name in traits], sources)] if traits else []
    rows += [_long_identifier(rules[kind]) for kind in alone]
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


def _decide(
    con: duckdb.DuckDBPyConnection, project: Project, sources: Sequence[Source], rules: Sequence[Attribute], at: str
) -> None:
    """Make the tables of the survivors of each group of `golden_owner` (node, p, known_at).

    at: SQL for the instant before which facts must have happened and been known. golden_won: the facts of which a
    value survives, with that value as v<i> of attribute i, null of others, and how many distinct ones there were as
    n<i>. golden_wide: one row per p, v<i>.
    """
    kinds = {kind for source in sources for kind in source.identifiers}
    said = [_said(i, source, rules) for i, source in enumerate(sources) if not _several(source)]
    said += [_said_by_graph(len(sources), rule.name, rules) for rule in rules if rule.name in kinds]
    about = "SELECT o.p, s.* EXCLUDE (node) FROM ({}) s JOIN golden_owner o USING (node) WHERE " + (
        f"s.known_at < {at} AND s.event_at < {at}"
    )
    parts = [about.format(" UNION ALL ".join(said))] if said else []
    parts += [  # one fact once, however many of its identifiers are the profile's
        f"SELECT DISTINCT * FROM ({about.format(_said(i, source, rules))})"
        for i, source in enumerate(sources)
        if _several(source)
    ]
    ranks = _ranks(project, rules)
    stand = " ".join(f"WHEN {i} THEN {ranks[s.trust]}" for i, s in enumerate(sources))
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_claim AS SELECT *, ((epoch_us(event_at)::HUGEINT + {2**52}) << {_TIME})
            + ((CASE src {stand} ELSE {ranks[0]} END)::HUGEINT << {_TRUST}) + {_TIE} AS k
            FROM ({" UNION ALL ".join(parts)}) ORDER BY p"""
    )
    keys = [_key(i, rule, sources, ranks) for i, rule in enumerate(rules)]
    best = "".join(
        f""", arg_max(rowid, {key}) FILTER (v{i} IS NOT NULL) AS w{i},
            CASE WHEN min(hash(v{i})) FILTER (v{i} IS NOT NULL) = max(hash(v{i})) FILTER (v{i} IS NOT NULL) THEN 1
            WHEN count(v{i}) = 2 THEN 2 END AS n{i}"""
        for i, key in enumerate(keys)
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE golden_best AS SELECT p{best} FROM golden_claim GROUP BY p")
    # only where facts say several values must these be told apart and counted; of two facts the chain is enough
    for i, (rule, key) in enumerate(zip(rules, keys, strict=True)):
        facts = f"CASE WHEN max(key) >= {2**_TIER} THEN count(*) FILTER (key >= {2**_TIER}) ELSE count(*) END"
        settled = f"arg_max(r, key + (least(facts, {_MOST})::HUGEINT << {_MEASURE}))"
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE golden_disputed{i} AS
                SELECT p, count(*) AS n, {settled if rule.keep == "most_frequent" else "NULL::BIGINT"} AS r FROM (
                    SELECT p, arg_max(r, key) AS r, max(key) AS key, {facts} AS facts FROM (
                        SELECT p, hash(v{i}) AS h, c.rowid AS r, {key} AS key FROM golden_claim c
                        JOIN (SELECT p FROM golden_best WHERE n{i} IS NULL AND w{i} IS NOT NULL) USING (p)
                        WHERE v{i} IS NOT NULL
                    ) GROUP BY p, h
                ) GROUP BY p"""
        )
    numbers = range(len(rules))
    joins = "".join(f" LEFT JOIN golden_disputed{i} d{i} ON d{i}.p = b.p" for i in numbers)
    chosen = "".join(f", coalesce(d{i}.r, w{i}) AS w{i}, coalesce(d{i}.n, n{i}) AS n{i}" for i in numbers)
    con.execute(f"CREATE OR REPLACE TEMP TABLE golden_chosen AS SELECT b.p{chosen} FROM golden_best b{joins}")
    values = "".join(
        f", CASE WHEN w{i} = c.rowid THEN v{i} END AS v{i}, CASE WHEN w{i} = c.rowid THEN n{i} END AS n{i}"
        for i in numbers
    )
    won = " OR ".join(f"w{i} = c.rowid" for i in numbers) or "false"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_won AS SELECT p, src, fact_id, event_at, known_at{values}
            FROM golden_claim c JOIN golden_chosen USING (p) WHERE {won}"""
    )
    used = ["claim", "best", "chosen", *(f"disputed{i}" for i in numbers)]
    con.execute("; ".join(f"DROP TABLE golden_{name}" for name in used))  # memory is for what comes next
    wide = "".join(f", any_value(v{i}) AS v{i}" for i in numbers)
    con.execute(f"CREATE OR REPLACE TEMP TABLE golden_wide AS SELECT p{wide} FROM golden_won GROUP BY p")


def _said(i: int, source: Source, rules: Sequence[Attribute]) -> str:
    """SQL for what a source says, and of whom: src, node, stamps, and the values of each attribute as v<i>."""
    values = "".join(
        f", {_clean(rule.name) if rule.name in source.traits else 'NULL::VARCHAR'} AS v{n}"
        for n, rule in enumerate(rules)
    )
    said = f"SELECT {i}::UTINYINT AS src, fact_id, event_at, known_at{values}"
    if not _several(source):
        return f'{said}, node FROM "{source.name}"'
    # what enriches makes no profile and links none: it is about whoever has one of its identifiers
    nodes = ", ".join(f"'{kind}:' || id_{kind}" for kind in source.identifiers)
    return f"""SELECT * EXCLUDE (nodes) FROM (
        {said}, [{nodes}] AS nodes FROM "{source.name}"), unnest(nodes) AS n(node)"""


def _several(source: Source) -> bool:
    """Does it enrich whoever has one of several identifiers?"""
    return bool(source.enrich) and len(source.identifiers) > 1


def _clean(column: str) -> str:
    text = f'"{column}"::VARCHAR'
    return f"nullif(CASE WHEN contains({text}, ' ') THEN trim({text}) ELSE {text} END, '')"


def _said_by_graph(i: int, kind: str, rules: Sequence[Attribute]) -> str:
    """SQL for what the graph says of an identifier type that is a trait too."""
    values = "".join(
        f", {f'substr(node, {len(kind) + 2})' if rule.name == kind else 'NULL'} AS v{n}" for n, rule in enumerate(rules)
    )
    return f"""SELECT DISTINCT {i}::UTINYINT AS src, node AS fact_id, known_at AS event_at, known_at{values}, node
        FROM golden_owner WHERE starts_with(node, '{kind}:')"""


def _ranks(project: Project, rules: Sequence[Attribute]) -> dict[int, int]:
    """Every trust that is given -> its place among them, from 0."""
    given = {0} | {s.trust for s in project.definitions.sources.values()} | {t for r in rules for t in r.trust.values()}
    return {trust: place for place, trust in enumerate(sorted(given))}


def _key(i: int, rule: Attribute, sources: Sequence[Source], ranks: dict[int, int]) -> str:
    """SQL for the integer that is largest for the surviving fact of an attribute."""
    own = {}
    for n, source in enumerate(sources):
        rank = ranks[rule.trust.get(source.name, source.trust)]
        fills = rule.enrich.get(source.name, source.enrich) == "fill"
        measure = rank if rule.keep == "most_trusted" else 0
        own[n] = ((not fills) << _TIER) + (measure << _MEASURE) + ((rank - ranks[source.trust]) << _TRUST)
    other = (1 << _TIER) + ((ranks[0] if rule.keep == "most_trusted" else 0) << _MEASURE)
    cases = " ".join(f"WHEN {n} THEN {value}::HUGEINT" for n, value in own.items() if value != other)
    key = f"k + CASE src {cases} ELSE {other}::HUGEINT END" if cases else f"k + {other}::HUGEINT"
    return f"({key} + (least(length(v{i}), {_MOST})::HUGEINT << {_MEASURE}))" if rule.keep == "longest" else f"({key})"


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
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_identifiers AS
            SELECT p, count(*) AS identifiers{columns} FROM golden_owner GROUP BY p"""
    )


_SKIPPED = 5 + 17 + 1


def _long(rules: Sequence[Attribute], sources: Sequence[Source]) -> str:
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
