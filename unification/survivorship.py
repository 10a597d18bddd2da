"""Which of several values survives? The chain of the golden record as one integer a fact, so that it is a maximum.

The chain, from the strongest: what is not a mere filling, the rule's own measure (trust, recency, how many facts say
so, length), recency, trust, fact id. Groups of facts are numbered: a group is a profile, or a profile at an instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import duckdb

from foretell.declarations import Attribute, Source
from foretell.project import Project
from lake.engine import instant

# All of the chain but its rule is one integer, so that the survivor is a maximum. From the lowest bit: fact id, trust,
# microseconds since 1827, the rule's measure, and whether the value does more than fill a gap.
_TRUST, _TIME, _MEASURE, _TIER = 44, 52, 106, 122
_MOST = 2**16 - 1  # a measure beyond it is as good
_TIE = """((coalesce(TRY_CAST('0x' || left(fact_id, 9) AS BIGINT), (md5_number_lower(fact_id) >> 28)::BIGINT) << 8)
    + least(coalesce(TRY_CAST(substr(fact_id, 34) AS BIGINT), 0), 255))"""


def decide(
    con: duckdb.DuckDBPyConnection, project: Project, sources: Sequence[Source], rules: Sequence[Attribute], at: str
) -> None:
    """Make the tables of the survivors of each group of `golden_owner` (node, p, known_at).

    at: SQL for the instant before which facts must have happened and been known. golden_won: the facts of which a
    value survives, with that value as v<i> of attribute i, null of others, and how many distinct ones there were as
    n<i>. golden_wide: one row per p, v<i>.
    """
    kinds = {kind for source in sources for kind in source.identifiers}
    # at an instant of its own each, a group sees every version of a row as a fact
    tables = [versions(s, at) if at.startswith("TIMESTAMPTZ") else f'"{s.name}"' for s in sources]
    claims = [said(i, source, rules, tables[i]) for i, source in enumerate(sources) if not _several(source)]
    claims += [_said_by_graph(len(sources), rule.name, rules) for rule in rules if rule.name in kinds]
    claims = claims or [_said_by_graph(0, "", rules)]  # nobody says anything
    about = "SELECT o.p, s.* EXCLUDE (node) FROM ({}) s JOIN golden_owner o USING (node) WHERE " + (
        f"s.known_at < {at} AND s.event_at < {at}"
    )
    parts = [about.format(" UNION ALL ".join(claims))]
    parts += [  # one fact once, however many of its identifiers are the profile's
        f"SELECT DISTINCT * FROM ({about.format(said(i, source, rules, tables[i]))})"
        for i, source in enumerate(sources)
        if _several(source)
    ]
    ranks = _ranks(project, rules)
    stand = " ".join(["WHEN -1 THEN 0", *(f"WHEN {i} THEN {ranks[s.trust]}" for i, s in enumerate(sources))])
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_claim AS SELECT *, ((epoch_us(event_at)::HUGEINT + {2**52}) << {_TIME})
            + ((CASE src {stand} ELSE {ranks[0]} END)::HUGEINT << {_TRUST}) + {_TIE} AS k
            FROM ({" UNION ALL ".join(parts)}) ORDER BY p"""
    )
    numbers = range(len(rules))
    keys = [_key(i, rule, sources, ranks) for i, rule in enumerate(rules)]
    best = "".join(
        f""", arg_max(rowid, {key}) FILTER (v{i} IS NOT NULL) AS w{i},
            CASE WHEN min(hash(v{i})) FILTER (v{i} IS NOT NULL) = max(hash(v{i})) FILTER (v{i} IS NOT NULL) THEN 1
            WHEN count(v{i}) = 2 THEN 2 END AS n{i}"""
        for i, key in enumerate(keys)
    )
    joins = "".join(f" LEFT JOIN golden_disputed{i} d{i} ON d{i}.p = b.p" for i in numbers)
    chosen = "".join(f", coalesce(d{i}.r, w{i}) AS w{i}, coalesce(d{i}.n, n{i}) AS n{i}" for i in numbers)
    won = " OR ".join(f"w{i} = c.rowid" for i in numbers) or "false"
    values = "".join(
        f", CASE WHEN w{i} = c.rowid THEN v{i} END AS v{i}, CASE WHEN w{i} = c.rowid THEN n{i} END AS n{i}"
        for i in numbers
    )
    wide = "".join(f", any_value(v{i}) AS v{i}" for i in numbers)
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
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE golden_chosen AS SELECT b.p{chosen} FROM golden_best b{joins};
        CREATE OR REPLACE TEMP TABLE golden_won AS SELECT p, src, fact_id, event_at, known_at{values}
            FROM golden_claim c JOIN golden_chosen USING (p) WHERE {won}"""
    )
    used = ["claim", "best", "chosen", *(f"disputed{i}" for i in numbers)]
    con.execute("; ".join(f"DROP TABLE golden_{name}" for name in used))  # memory is for what comes next
    con.execute(f"CREATE OR REPLACE TEMP TABLE golden_wide AS SELECT p{wide} FROM golden_won GROUP BY p")


def versions(source: Source, known_by: datetime | str) -> str:
    """The facts of a source as a table: where its contract has a key, of each row the last version known by then (an
    instant, or one as SQL)."""
    if not source.key:
        return f'"{source.name}"'
    moment = known_by if isinstance(known_by, str) else instant(known_by)
    latest = ("known_at DESC, " if source.known_at else "") + "batch DESC, row_nr DESC"
    return f"""(SELECT * FROM "{source.name}" WHERE known_at < {moment} QUALIFY row_number() OVER
        (PARTITION BY coalesce(row_key, fact_id) ORDER BY {latest}) = 1)"""


def said(i: int, source: Source, rules: Sequence[Attribute], table: str) -> str:
    """SQL for what a source says, and of whom: src, node, stamps, and the values of each attribute as v<i>."""
    values = "".join(
        f", {_clean(rule.name) if rule.name in source.traits else 'NULL::VARCHAR'} AS v{n}"
        for n, rule in enumerate(rules)
    )
    select = f"SELECT {i}::UTINYINT AS src, fact_id, event_at, known_at{values}"
    if not _several(source):
        return f"{select}, node FROM {table}"
    # what enriches makes no profile and links none: it is about whoever has one of its identifiers
    nodes = ", ".join(f"'{kind}:' || id_{kind}" for kind in source.identifiers)
    return f"""SELECT * EXCLUDE (nodes) FROM (
        {select}, [{nodes}] AS nodes FROM {table}), unnest(nodes) AS n(node)"""


def _several(source: Source) -> bool:
    """Does it enrich whoever has one of several identifiers?"""
    return bool(source.enrich) and len(source.identifiers) > 1


def _clean(column: str) -> str:
    text = f'"{column}"::VARCHAR'
    return f"nullif(CASE WHEN contains({text}, ' ') THEN trim({text}) ELSE {text} END, '')"


def _said_by_graph(i: int, kind: str, rules: Sequence[Attribute]) -> str:
    """SQL for what the graph says of an identifier type that is a trait too."""
    values = "".join(
        f", {f'substr(node, {len(kind) + 2})' if rule.name == kind else 'NULL::VARCHAR'} AS v{n}"
        for n, rule in enumerate(rules)
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
