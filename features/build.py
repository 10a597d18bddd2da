"""How is a view built as of a cutoff? Facts known before T, of the profiles as known at T, aggregated per profile.

One function, `rows_at`, serves training (many cutoffs in the past), scoring (T = now) and audits. A built cutoff is a
Parquet file per view that names the ingest batch it was made from, and is rebuilt when facts have been loaded since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import cast

import duckdb
import ibis
import ibis.expr.types as ir

from foretell.binding import aggregate, facts_schema, players, table
from foretell.declarations import FeatureView, Source
from foretell.errors import DataError
from foretell.project import Project
from lake import derived
from lake.engine import instant, last_batch, quote, session
from unification.identity import IDENTITY_RULE, ensure, facts_of, members_at, rules
from unification.survivorship import versions as versions

COMPILER_VERSION = "1"


def compile_view(view: FeatureView, sources: dict[str, Source]) -> tuple[str, str]:
    """SQL over the view `facts`: (one row per profile with facts, the view's empty row).

    Money and ratios leave as double, counts as bigint.
    """
    return _compiled((view,), tuple(sources.items()), False)


@lru_cache(maxsize=1024)  # declarations do not change once made, and a view's version is asked for at every turn
def _compiled(
    views: tuple[FeatureView, ...], sources: tuple[tuple[str, Source], ...], numbered: bool = True
) -> tuple[str, str]:
    """The same for several views of one source at once; numbered: the features are named by the view's place too."""
    facts = table({"profile_id": "VARCHAR", **facts_schema(views[0].source, dict(sources))})
    nothing = facts.filter(cast(ir.BooleanValue, ibis.literal(False)))
    grouped, empty = (
        [v.name(_placed(i, v.get_name()) if numbered else v.get_name()) for i, view in enumerate(views)
         for v in _values(view, of)]
        for of in (facts, nothing)
    )  # fmt: skip
    return _sql(facts.group_by("profile_id").aggregate(grouped)), _sql(nothing.aggregate(empty))


def _placed(place: int, feature: str) -> str:
    return f"{place}__{feature}"


def types(view: FeatureView, sources: dict[str, Source]) -> dict[str, str]:
    """Feature -> its type: int64, float64, boolean or string."""
    facts = table({"profile_id": "VARCHAR", **facts_schema(view.source, sources)})
    return {value.get_name(): str(value.type()).lstrip("!") for value in _values(view, facts)}


def _values(view: FeatureView, facts: ir.Table) -> list[ir.Scalar]:
    values = []
    for name, expression in view.features.items():
        value = aggregate(facts, name, expression, what=view.name, where=view.where)
        kind = value.type()
        if kind.is_numeric():
            value = value.cast("int64" if kind.is_integer() else "float64")
        values.append(value.name(name))
    return values


def _sql(expression: ir.Table) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb"))


def fingerprint(view: FeatureView, sources: dict[str, Source]) -> str:
    """Eight hex digits that change when a value of the view might: by its SQL, its sources, the identity rule."""
    contracts = [
        [s.name, s.event_at, s.known_at, str(s.delay), s.timezone, s.times_in, sorted(s.columns.items()),
         sorted(s.types.items()), list(s.identifiers.items()), s.only, sorted(s.aliases.items()), sorted(s.optional),
         *([s.key] if s.key else [])]
        for s in sorted(players(view.source, sources), key=lambda s: s.name)
    ]  # fmt: skip
    if countries := {s.name: s.country for s in players(view.source, sources) if s.country}:
        contracts.append(sorted(countries.items()))
    parts = [
        COMPILER_VERSION,
        IDENTITY_RULE,
        str(view.ttl),
        str(view.lookback),
        *compile_view(view, sources),
        json.dumps(contracts),
    ]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]


def versioned(view: FeatureView, sources: dict[str, Source]) -> str:
    """The name under which Feast knows this version of a view: `orders__1a2b3c4d`."""
    return f"{view.name}__{fingerprint(view, sources)}"


def facts_before(
    con: duckdb.DuckDBPyConnection, project: Project, source: str, cutoff: datetime, known_by: datetime,
    lookback: timedelta | None = None,
) -> str:  # fmt: skip
    """SQL for the facts of a role or source that happened before the cutoff, with node and stamps.

    known_by: the instant before which they were known too; for features the cutoff itself. lookback: how long before
    the cutoff they may have happened; None: ever.
    """
    columns = facts_schema(source, dict(project.definitions.sources))
    listed = ", ".join(f'"{c}"' for c in columns if c not in {"cutoff", "trust"})
    moment = instant(cutoff)
    since = f" AND event_at >= {instant(cutoff - lookback)}" if lookback else ""
    # known_at may lie before event_at only where a source says so itself; both must be past
    parts = [
        f"""SELECT node, {listed}, {s.standing}::INTEGER AS trust, {moment} AS cutoff, '{s.name}' AS _source
            FROM {versions(s, known_by)} WHERE known_at < {instant(known_by)} AND event_at < {moment}{since}"""
        for s in facts_of(con, project, source)
    ]
    if parts:
        return " UNION ALL ".join(parts)
    empty = ", ".join(f'NULL::{kind} AS "{c}"' for c, kind in columns.items())
    return f"SELECT NULL::VARCHAR AS node, {empty}, '' AS _source WHERE false"


def rows_at(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, cutoff: datetime,
    known_by: datetime | None = None,
) -> str:  # fmt: skip
    """SQL for one row per profile known at the cutoff: profile_id, event_timestamp, created, the view's features.

    Profiles without facts get the view's empty row: the same aggregates over nothing.
    known_by: for labels alone, a later instant: the state at the cutoff as known by then, of the profiles of then.
    """
    return next(rows_of(con, project, [view], cutoff, known_by))[1]


def rows_of(
    con: duckdb.DuckDBPyConnection, project: Project, views: Iterable[FeatureView], cutoff: datetime,
    known_by: datetime | None = None,
) -> Iterator[tuple[FeatureView, str]]:  # fmt: skip
    """Of several views at once what `rows_at` gives of one; each query must be run before the next is asked for.

    Views of one source read its facts together, and those of one lookback are one aggregation.
    """
    sources = dict(project.definitions.sources)
    # profiles go by number: what is joined and grouped is then a tenth as long
    con.execute(f"CREATE OR REPLACE TEMP TABLE at_cutoff AS {members_at(known_by or cutoff)}")
    con.execute(
        """CREATE OR REPLACE TEMP TABLE profile_at AS SELECT profile_id, row_number() OVER (ORDER BY profile_id) AS nr
            FROM (SELECT DISTINCT profile_id FROM at_cutoff);
        CREATE OR REPLACE TEMP TABLE node_at AS SELECT node, nr::INTEGER AS nr FROM at_cutoff JOIN profile_at
            USING (profile_id)"""
    )
    for source, lookbacks in _by_source(views).items():
        widest = None if None in lookbacks else max(cast(timedelta, length) for length in lookbacks)
        known = facts_before(con, project, source, cutoff, known_by or cutoff, widest)
        joined = f"SELECT m.nr AS profile_id, f.* EXCLUDE (node) FROM ({known}) f JOIN node_at m USING (node)"
        if len(lookbacks) > 1:  # what is read several times is joined once
            con.execute(f"CREATE OR REPLACE TEMP TABLE facts_at AS {joined}")
            joined = "FROM facts_at"
        for length, alike in lookbacks.items():
            since = f" WHERE event_at >= {instant(cutoff - length)}" if length else ""
            con.execute(f"CREATE OR REPLACE TEMP VIEW facts AS SELECT * FROM ({joined}){since}")
            grouped, empty = _compiled(tuple(alike), tuple(sources.items()))
            con.execute(f"CREATE OR REPLACE TEMP TABLE made AS {grouped}")
            con.execute(f"CREATE OR REPLACE TEMP TABLE empty_row AS {empty}")
            for place, view in enumerate(alike):
                columns = ", ".join(
                    f'CASE WHEN g.profile_id IS NULL THEN e."{at}" ELSE g."{at}" END AS "{name}"'
                    for name, at in ((name, _placed(place, name)) for name in view.features)
                )
                yield (
                    view,
                    f"""SELECT p.profile_id, {instant(cutoff)} AS event_timestamp, {instant(cutoff)} AS created,
                    {columns} FROM profile_at p LEFT JOIN made g ON g.profile_id = p.nr CROSS JOIN empty_row e
                    ORDER BY p.profile_id""",
                )


def _by_source(views: Iterable[FeatureView]) -> dict[str, dict[timedelta | None, list[FeatureView]]]:
    found: dict[str, dict[timedelta | None, list[FeatureView]]] = {}
    for view in views:
        found.setdefault(view.source, {}).setdefault(view.lookback, []).append(view)
    return found


def file_of(project: Project, view: FeatureView, cutoff: datetime) -> Path:
    stamp = cutoff.astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")
    return project.home / "features" / versioned(view, dict(project.definitions.sources)) / f"{stamp}.parquet"


def build(
    project: Project, views: Iterable[FeatureView], cutoffs: Iterable[datetime],
    progress: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Build every view at every cutoff that is not built from today's facts yet. Returns how many files it wrote."""
    cutoffs, views = sorted(set(cutoffs)), list(views)
    if cutoffs and cutoffs[-1] > project.now:
        raise DataError(
            "features", f"expected cutoffs up to now ({project.now:%Y-%m-%d %H:%M}), got {cutoffs[-1]:%Y-%m-%d %H:%M}",
            "choose earlier ones",
        )  # fmt: skip
    ensure(project)
    watermark = last_batch(project)
    made_from = f"batch {watermark}, identity {rules(project)}"
    todo = [
        (view, cutoff)
        for cutoff in cutoffs
        for view in views
        if _made_from(file_of(project, view, cutoff)) != made_from
    ]
    if not todo:
        return 0
    with session(project, watermark) as con:
        _check_cutoffs(con, project, views, {cutoff for _, cutoff in todo})
        for cutoff in cutoffs:
            for view, query in rows_of(con, project, [v for v, at in todo if at == cutoff], cutoff):
                progress(f"{view.name} at {cutoff:%Y-%m-%d}")
                derived.write(con, query, file_of(project, view, cutoff), metadata={"made_from": made_from})
    return len(todo)


def _made_from(file: Path) -> str | None:
    """What a built file says it was made from, or None if there is no file."""
    if not file.exists():
        return None
    rows = duckdb.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(file)]).fetchall()
    return next((value.decode() for key, value in rows if key == b"made_from"), None)


def _check_cutoffs(
    con: duckdb.DuckDBPyConnection, project: Project, views: Iterable[FeatureView], cutoffs: Iterable[datetime]
) -> None:
    """Refuse cutoffs before which nothing was known of any of these views; one that begins later is empty there."""
    begins: dict[str, datetime] = {}
    for source in {view.source for view in views}:
        stamps = [
            con.execute(f'SELECT min(event_at), min(known_at) FROM "{s.name}"').fetchall()[0]
            for s in facts_of(con, project, source)
        ]
        if known := [max(pair) for pair in stamps if pair[0] is not None]:
            begins[source] = min(known)
    source = min(begins, key=lambda name: (begins[name], name), default=None)
    cutoff = min(cutoffs)
    if source is not None and cutoff > begins[source]:
        return
    had = (
        f"the first {source} was known {begins[source].astimezone(UTC):%Y-%m-%d %H:%M}" if source else "there are none"
    )
    raise DataError(
        "features", f"cutoff {cutoff.astimezone(UTC):%Y-%m-%d %H:%M} lies before the first fact: {had}",
        "choose a later cutoff, or load older data",
    )  # fmt: skip


def read(project: Project, view: FeatureView, cutoff: datetime) -> str:
    """A built cutoff as a DuckDB table function."""
    return f"read_parquet('{quote(file_of(project, view, cutoff))}')"
