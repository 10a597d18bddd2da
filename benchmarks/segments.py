"""draft"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from features import build
from foretell.project import Project
from lake import derived
from lake.engine import connect, instant, table

CITIES, LANGUAGES = ("Oslo", "Bergen", "Tromsø", "Hamar", "Moss", "Bodø", "Voss", "Molde"), ("no", "en", "sv")
TASKS = {"churn": ("probability", "retention"), "clv": ("amount", "retention"), "propensity": ("probability", "marketing")}
NOW = "2024-06-01"


def prepare(folder: Path, people: int) -> Project:
    (folder / "sources").mkdir(parents=True)
    (folder / "segments").mkdir()
    (folder / "foretell.toml").write_text(f'[foretell]\nas_of = "{NOW}"\nthreads = 2\n')
    (folder / "sources" / "till.py").write_text(
        'from foretell import Source\n\ntill = Source("till", files="till.csv", role="order_line", event_at="at",\n'
        '    identifiers={"loyalty_card": "card", "email": "mail"}, traits={"city": "city"},\n'
        '    columns={"order_id": "receipt", "amount": "amount"})\n'
    )
    project = Project(folder)
    con = connect(project)
    con.execute(
        f"CREATE TABLE people AS SELECT range AS p, 'p' || left(sha256(range::VARCHAR), 20) AS profile_id FROM range({people})"
    )
    pick = lambda values, salt: f"{list(values)!r}[1 + (hash(p, '{salt}') % {len(values)})::INTEGER]"
    derived.write(
        con,
        f"""SELECT profile_id, 2 AS identifiers, {pick(CITIES, 'city')} AS city, {pick(LANGUAGES, 'lang')} AS language,
            {pick(('f', 'm'), 'g')} AS gender, (DATE '1940-01-01' + (hash(p, 'b') % 25000)::INTEGER)::VARCHAR AS birth_date,
            'person' || p || '@home.org' AS email, 'C' || p AS loyalty_card FROM people ORDER BY profile_id""",
        project.home / "derived" / "profiles.parquet",
    )
    nodes = " UNION ALL ".join(
        f"SELECT p, profile_id, {node} AS node, {birth} AS birth_id FROM people"
        for node, birth in (("'loyalty_card:C' || p", "profile_id"), ("'email:person' || p || '@home.org'", "'p' || left(sha256(p || 'e'), 20)"))
    )
    derived.write(
        con,
        f"""SELECT node, birth_id, profile_id, TIMESTAMPTZ '2023-01-01' + to_seconds(p % 604800) AS known_from,
            NULL::TIMESTAMPTZ AS known_to FROM ({nodes}) ORDER BY node""",
        project.home / "derived" / "member.parquet",
    )
    view = project.definitions.view("orders")
    columns = ", ".join(
        f"""(-ln(1 - (hash(p, '{name}') % 1000000 + 0.5) / 1000000.0) * {30 if 'spend' in name or 'days' in name else 3})::DOUBLE AS "{name}\""""
        for name in view.features
    )
    build.write(con, project, view, project.now, f"SELECT profile_id, {instant(project.now)} AS event_timestamp, {instant(project.now)} AS created, {columns} FROM people ORDER BY profile_id", (1, "benchmark"))
    import datetime
    for days in (7, 0):
        cutoff = project.now - datetime.timedelta(days=days)
        for task, (kind, purpose) in TASKS.items():
            value = f"(hash(p, '{task}{days}') % 1000000 + 0.5) / 1000000.0"
            rows = con.sql(
                f"""SELECT md5(p || '{task}{days}') AS score_id, '{task}' AS task, '{kind}' AS kind, profile_id, v AS value,
                    v * 0.5 AS value_low, least(1, v * 1.5) AS value_high, 100.0 * v AS percentile, 0.5::DOUBLE AS base_rate,
                    NULL::STRUCT(feature VARCHAR, value DOUBLE, effect DOUBLE, text VARCHAR)[] AS reasons, '1' AS model_version, 'blend' AS estimator,
                    '{task}__1' AS feature_service, MAP(['a', 'b'], [v, v * p]) AS features, {instant(cutoff)} AS cutoff, {instant(project.now)} AS scored_at,
                    {instant(cutoff + datetime.timedelta(days=28))} AS expires_at, 1::BIGINT AS batch, '{purpose}' AS purpose
                    FROM (SELECT *, {value} AS v FROM people)"""
            ).to_arrow_table()
            table(project, "scores").append(rows, why="benchmark")
    return project
