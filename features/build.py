"""How is a view built as of a cutoff? Facts known before T, of the profiles as known at T, aggregated per profile.

One function, `rows_at`, serves training (many cutoffs in the past), scoring (T = now) and audits. A built cutoff is a
Parquet file per view that names the ingest batch it was made from. When facts have been loaded since, the rows of those
whom they touch are made anew, in a file beside it (see features.changes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import duckdb

from features import changes
from features.built import file_of as file_of
from features.built import made_from, patch, write
from features.built import patches as patches
from features.built import read as read
from features.compiling import compile_view as compile_view
from features.compiling import compiled, placed
from features.compiling import fingerprint as fingerprint
from features.compiling import types as types
from features.compiling import versioned as versioned
from features.counting import columns, counted_once, names_all
from foretell.binding import facts_schema
from foretell.errors import DataError
from foretell.project import Project
from foretell.views import FeatureView, FrozenView
from lake import derived
from lake.engine import instant, last_batch, quote, session, workers
from unification import accounts
from unification.identity import ensure, facts_of, members_at, rules
from unification.survivorship import versions as versions


def facts_before(
    con: duckdb.DuckDBPyConnection, project: Project, source: str | tuple[str, ...], cutoff: datetime,
    known_by: datetime, lookback: timedelta | None = None,
) -> str:  # fmt: skip
    """SQL for the facts of a role or source, or of several, that happened before the cutoff, with node and stamps.

    known_by: the instant before which they were known too; for features the cutoff itself. lookback: how long before
    the cutoff they may have happened; None: ever.
    """
    sources = dict(project.definitions.sources)
    columns = facts_schema(source, sources)
    moment = instant(cutoff)
    since = f" AND event_at >= {instant(cutoff - lookback)}" if lookback else ""
    parts = []
    for role in source if isinstance(source, tuple) else (source,):
        own = facts_schema(role, sources)
        said = {c: f'"{c}"' if c in own else f"NULL::{kind}" for c, kind in columns.items()}
        if isinstance(source, tuple):
            said["role"] = f"'{role}'"
        for s in facts_of(con, project, role):
            values = said | {"trust": f"{s.standing}::INTEGER", "cutoff": moment}
            listed = ", ".join(f'{value} AS "{c}"' for c, value in values.items())
            # known_at may lie before event_at only where a source says so itself; both must be past
            parts.append(
                f"""SELECT node, {listed}, '{s.name}' AS _source FROM {versions(s, known_by)}
                    WHERE known_at < {instant(known_by)} AND event_at < {moment}{since}"""
            )
    if parts:
        return " UNION ALL ".join(parts)
    empty = ", ".join(f'NULL::{kind} AS "{c}"' for c, kind in columns.items())
    return f"SELECT NULL::VARCHAR AS node, {empty}, '' AS _source WHERE false"


def rows_at(
    con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, cutoff: datetime,
    known_by: datetime | None = None, only: str | None = None,
) -> str:  # fmt: skip
    """SQL for one row per entity known at the cutoff: its keys, event_timestamp, created, the view's features.

    Profiles and accounts without facts get the view's empty row: the same aggregates over nothing.
    known_by: for labels alone, a later instant: the state at the cutoff as known by then, of the profiles of then.
    only: a query of the profile_ids that are wanted; everyone without it.
    """
    return next(rows_of(con, project, [view], cutoff, known_by, only))[1]


def rows_of(
    con: Any, project: Project, views: Iterable[FeatureView], cutoff: datetime,
    known_by: datetime | None = None, only: str | None = None,
) -> Iterator[tuple[FeatureView, str]]:  # fmt: skip
    """Of several views at once what `rows_at` gives of one; each query must be run before the next is asked for.

    Views of one source and lookback read its facts together, and as a rule are one aggregation.
    """
    if not (views := list(views)):
        return
    sources = dict(project.definitions.sources)
    know_profiles(con, known_by or cutoff, only)
    if any(_about_accounts(view) for view in views):
        know_accounts(con, project, known_by or cutoff)
    for (source, owner, lookback), alikes in _by_facts(views).items():
        known = facts_before(con, project, source, cutoff, known_by or cutoff, lookback)
        joined = f"SELECT m.nr AS profile_id, f.* EXCLUDE (node) FROM ({known}) f JOIN {owner}_nodes m USING (node)"
        queries = [compiled(tuple(alike), tuple(sources.items())) for alike in alikes]
        queries = [(counted_once(grouped), empty) for grouped, empty in queries]
        if sum(grouped.count('"facts"') for grouped, _ in queries) > 1:  # what is read several times is joined once
            read = _read(tuple(queries))
            con.execute(f"CREATE OR REPLACE TEMP TABLE facts_at AS SELECT {read} FROM ({joined})")
            joined = f"SELECT *, {instant(cutoff)} AS cutoff FROM facts_at"  # a constant, for windows to be folded
        con.execute(f"CREATE OR REPLACE TEMP VIEW facts AS {joined}")
        for alike, (grouped, empty) in zip(alikes, queries, strict=True):
            con.execute(f"CREATE OR REPLACE TEMP TABLE made AS {grouped}")
            con.execute(f"CREATE OR REPLACE TEMP TABLE empty_row AS {empty}")
            for place, view in enumerate(alike):
                yield view, _rows(view, place, cutoff)


@lru_cache(maxsize=1024)
def _read(queries: tuple[tuple[str, str], ...]) -> str:
    """The columns of the facts that aggregations read, over facts and over none, but for the cutoff."""
    if not all(names_all(grouped) for grouped, _ in queries):  # the other, over none, begins with all of no facts
        return "* EXCLUDE (cutoff)"
    named = {"profile_id", "event_at"}.union(*(columns(query) for both in queries for query in both))
    listed = ", ".join(f"'{quote(name)}'" for name in sorted(named - {"cutoff"}))
    return f"COLUMNS(lambda name: name IN ({listed}))"


def know_profiles(con: Any, at: datetime, only: str | None = None) -> None:
    """Make `profile_at` (profile_id, nr) and `profile_nodes` (node, nr), of everyone known at T or of some.

    Profiles go by number: what is joined and grouped is then a tenth as long.
    """
    wanted = f" WHERE profile_id IN ({only})" if only else ""
    con.execute(f"CREATE OR REPLACE TEMP TABLE at_cutoff AS SELECT * FROM ({members_at(at)}){wanted}")
    con.execute(
        """CREATE OR REPLACE TEMP TABLE profile_at AS SELECT profile_id, row_number() OVER (ORDER BY profile_id) AS nr
            FROM (SELECT DISTINCT profile_id FROM at_cutoff);
        CREATE OR REPLACE TEMP TABLE profile_nodes AS SELECT node, nr::INTEGER AS nr FROM at_cutoff
            JOIN profile_at USING (profile_id)"""
    )


def know_accounts(con: duckdb.DuckDBPyConnection, project: Project, at: datetime) -> None:
    """Make `account_at` (account_id, nr), `account_nodes` (node, nr) and `account_of` (profile_id, nr or null).

    Who belongs to several accounts counts for each, and is told of the first by id.
    """
    accounts.ensure(project)
    file = project.home / "derived" / "account_members.parquet"
    con.execute(
        f"""CREATE OR REPLACE VIEW account_members AS SELECT * FROM {derived.scan(file)};
        CREATE OR REPLACE TEMP TABLE belongs AS SELECT DISTINCT account_id, profile_id FROM ({accounts.members_at(at)});
        CREATE OR REPLACE TEMP TABLE account_at AS SELECT account_id, row_number() OVER (ORDER BY account_id) AS nr
            FROM (SELECT DISTINCT account_id FROM belongs);
        CREATE OR REPLACE TEMP TABLE account_nodes AS SELECT DISTINCT node, nr::INTEGER AS nr FROM at_cutoff
            JOIN belongs USING (profile_id) JOIN account_at USING (account_id);
        CREATE OR REPLACE TEMP TABLE account_of AS SELECT profile_id, min(a.nr) AS nr FROM profile_at
            LEFT JOIN belongs USING (profile_id) LEFT JOIN account_at a USING (account_id) GROUP BY profile_id"""
    )


def _about_accounts(view: FeatureView) -> bool:
    return "account" in (view.entity, view.facts_of)


def _rows(view: FeatureView, place: int, cutoff: datetime) -> str:
    """SQL for the rows of one of the views that were made together."""
    stamps = f"{instant(cutoff)} AS event_timestamp, {instant(cutoff)} AS created"
    keys = ", ".join(view.keys)
    if len(view.keys) > 1:  # rows are where facts are
        columns = ", ".join(f'g."{placed(place, name)}" AS "{name}"' for name in view.features)
        return f"""SELECT p.profile_id, {", ".join(f"g.{key}" for key in view.keys[1:])}, {stamps}, {columns}
            FROM made g JOIN profile_at p ON p.nr = g.profile_id ORDER BY {keys}"""
    columns = ", ".join(
        f'CASE WHEN g.profile_id IS NULL THEN e."{at}" ELSE g."{at}" END AS "{name}"'
        for name, at in ((name, placed(place, name)) for name in view.features)
    )
    everyone = "account_of" if view.facts_of == "account" else f"{view.entity}_at"
    return f"""SELECT p.{keys}, {stamps}, {columns} FROM {everyone} p
        LEFT JOIN made g ON g.profile_id = p.nr CROSS JOIN empty_row e ORDER BY p.{keys}"""


def _by_facts(
    views: Iterable[FeatureView],
) -> dict[tuple[str | tuple[str, ...], str, timedelta | None], list[list[FeatureView]]]:
    """(source, whose facts: "profile" or "account", lookback) -> views that are one aggregation."""
    found: dict[tuple[str | tuple[str, ...], str, timedelta | None], list[list[FeatureView]]] = {}
    for view in views:
        facts = view.source, "account" if _about_accounts(view) else "profile", view.lookback
        alikes = found.setdefault(facts, [])
        for alike in alikes:
            plain = not any(v.each or isinstance(v, FrozenView) for v in (view, alike[0]))
            if plain and len(view.keys) == len(alike[0].keys):
                alike.append(view)
                break
        else:
            alikes.append([view])
    return found


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
    state = last_batch(project), f"identity {rules(project)}"
    todo = {cutoff: _outdated(project, views, cutoff, state) for cutoff in cutoffs}
    total = sum(len(old) for since in todo.values() for old in since.values())
    if not total:
        return 0
    done = 0

    def step(text: str) -> None:
        nonlocal done
        done += 1
        progress(f"{text} ({done} of {total})")

    with session(project, state[0]) as con, workers(project, con, state[0]) as cluster:
        if begun := {cutoff for cutoff, old in todo.items() if None in old}:
            _check_cutoffs(con, project, views, begun)
        for cutoff, outdated in todo.items():
            if outdated:
                changes.record(con, project, cutoff, *state)
            for since, old in outdated.items():
                _bring(con, cluster, project, old, cutoff, since, state, step)
    return total


def _outdated(
    project: Project, views: Iterable[FeatureView], cutoff: datetime, state: tuple[int, str]
) -> dict[int | None, list[FeatureView]]:  # fmt: skip
    """The views that are not built as of a state yet, by the batch as of which they are built (None: not at all)."""
    sources, found = dict(project.definitions.sources), {}
    for view in {versioned(view, sources): view for view in views}.values():
        made = made_from(file_of(project, view, cutoff))
        if made != state:
            since = made[0] if made and made[1] == state[1] else None  # by other rules it is of no use
            found.setdefault(since, []).append(view)
    return found


def _bring(
    con: duckdb.DuckDBPyConnection, cluster: Any, project: Project, views: list[FeatureView], cutoff: datetime,
    since: int | None, to: tuple[int, str], progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Bring views at a cutoff from the state of the batch `since` to another; None: from nothing.

    cluster: who aggregates: `con`, or Spark; what is to be done, and what is written, is settled on `con`.
    """
    patched: list[FeatureView] = []
    some = everyone = gone = 0
    if since is not None:
        candidates = [view for view in views if view.keys == ("profile_id",) and view.facts_of == "profile"]
        roles = {role for view in candidates for role in view.roles}
        some, everyone, gone = changes.touched(con, project, sorted(roles), cutoff, since)
        patched = candidates if some <= changes.MOST * everyone else []
        if patched and cluster is not con:
            cluster.register("touched", con.sql("SELECT profile_id FROM touched").to_arrow_table())
    for view, query in rows_of(cluster, project, patched, cutoff, only="SELECT profile_id FROM touched"):
        progress(f"{view.name} at {cutoff:%Y-%m-%d}, {some:,} of {everyone:,} profiles")
        with _at_hand(con, cluster, project, view, query) as rows:
            patch(con, project, view, cutoff, rows, to, gone > 0)
    for view, query in rows_of(cluster, project, [view for view in views if view not in patched], cutoff):
        progress(f"{view.name} at {cutoff:%Y-%m-%d}")
        with _at_hand(con, cluster, project, view, query) as rows:
            write(con, project, view, cutoff, rows, to)


@contextmanager
def _at_hand(
    con: duckdb.DuckDBPyConnection, cluster: Any, project: Project, view: FeatureView, query: str
) -> Iterator[str]:  # fmt: skip
    """The rows of a view as a query of DuckDB's, whoever makes them."""
    if cluster is con:
        yield query
        return
    from lake.spark import landed

    with landed(project, cluster.frame(query)) as table:
        yield f"SELECT * FROM {table} ORDER BY {', '.join(view.keys)}"


def _check_cutoffs(
    con: duckdb.DuckDBPyConnection, project: Project, views: Iterable[FeatureView], cutoffs: Iterable[datetime]
) -> None:
    """Refuse cutoffs before which nothing was known of any of these views; one that begins later is empty there."""
    begins: dict[str, datetime] = {}
    for source in {role for view in views for role in view.roles}:
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
