"""What do we hold to be true about a person? One value per attribute, with where it came from.

Survivorship: the most trusted source wins, among equals the most recent fact; ties go to the larger fact id, so that
two builds agree. The derived table `golden` has one row per profile and attribute with its provenance, `profiles` one
row per profile.
"""

from __future__ import annotations

import duckdb

from foretell.project import Project
from lake import derived
from lake.engine import instant


def build_golden(con: duckdb.DuckDBPyConnection, project: Project, touched: str | None = None) -> int:
    """Write `golden` and `profiles` for the project's now. Needs the table `member` of this home.

    Returns the number of profiles.
    """
    home, now = project.home / "derived", instant(project.now)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE members AS
            SELECT node, profile_id FROM {derived.scan(home / "member.parquet")}
            WHERE known_from < {now} AND (known_to IS NULL OR known_to >= {now})"""
    )
    present = {row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    claims = [
        f"""SELECT node, '{trait}' AS attribute, "{trait}"::VARCHAR AS value, '{name}' AS source,
                {source.trust} AS trust, fact_id, event_at, known_at
            FROM "{name}" WHERE nullif(trim("{trait}"), '') IS NOT NULL AND known_at < {now}"""
        for name, source in project.definitions.sources.items()
        for trait in source.traits
        if name in present
    ]
    # identifiers are attributes too: the one that became known last
    claims.append(
        f"""SELECT node, split_part(node, ':', 1) AS attribute, substr(node, instr(node, ':') + 1) AS value,
            'identity graph' AS source, 0 AS trust, node AS fact_id, known_at AS event_at, known_at
            FROM (SELECT node, min(known_from) AS known_at FROM {derived.scan(home / "member.parquet")} GROUP BY node)
            WHERE known_at < {now}"""
    )
    derived.write(
        con,
        f"""SELECT profile_id, attribute, trim(value) AS value, source, fact_id, event_at, known_at,
            count(DISTINCT trim(value)) OVER (PARTITION BY profile_id, attribute) AS distinct_values
            FROM ({" UNION ALL ".join(claims)}) JOIN members USING (node)
            QUALIFY row_number() OVER (PARTITION BY profile_id, attribute
                ORDER BY trust DESC, event_at DESC, fact_id DESC) = 1
            ORDER BY profile_id, attribute""",
        home / "golden.parquet",
    )
    names = [
        row[0] for row in con.execute(f"SELECT DISTINCT attribute FROM '{home}/golden.parquet' ORDER BY 1").fetchall()
    ]
    columns = "".join(f", max(value) FILTER (attribute = '{n}') AS \"{n}\"" for n in names)
    return derived.write(
        con,
        f"""WITH p AS (SELECT profile_id, count(*) AS identifiers FROM members GROUP BY 1)
            SELECT p.profile_id, any_value(p.identifiers) AS identifiers{columns}
            FROM p LEFT JOIN '{home}/golden.parquet' g USING (profile_id) GROUP BY 1 ORDER BY 1""",
        home / "profiles.parquet",
    )
