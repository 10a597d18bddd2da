"""Which profiles did something change? Who is who and the golden records, before it and after.

Taken before a step and asked after it:

    with watching(project) as changed:
        replay(...)
        ensure(project)
        print(changed().lines())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from foretell.project import Project
from lake.engine import session
from unification.identity import differences, members_at

MOST = 20


@dataclass(frozen=True)
class Changes:
    """new: ids of profiles none of whose identifiers was known. regrouped: (ids before, ids after) of merges, splits
    and profiles with another id. gained: profile -> identifiers that are new to it. renewed: profile -> attribute ->
    (value before, value after), where the profile itself is the same; None: it had none, or has none now."""

    new: list[str]
    regrouped: list[tuple[list[str], list[str]]]
    gained: dict[str, list[str]]
    renewed: dict[str, dict[str, tuple[str | None, str | None]]]

    def __len__(self) -> int:
        return len(self.new) + len(self.regrouped) + len(self.gained.keys() | self.renewed.keys())

    def lines(self, most: int = MOST) -> list[str]:
        """For people to read: a count of each kind, then one line for each profile, at most so many."""
        same = sorted(self.gained.keys() | self.renewed.keys())
        if not len(self):
            return ["No profile changed."]
        counts = [(len(self.new), "new"), (len(self.regrouped), "merged or split"), (len(same), "changed")]
        said = [f"{', '.join(f'{n:,} {what}' for n, what in counts if n)} of the profiles:"]
        listed = [f"  {' and '.join(old)} -> {' and '.join(new)}" for old, new in self.regrouped]
        listed += [f"  {profile}: {self._of(profile)}" for profile in same]
        listed += [f"  {profile}: new" for profile in self.new]
        return said + listed[:most] + ([f"  and {len(listed) - most:,} more"] if len(listed) > most else [])

    def _of(self, profile: str) -> str:
        values = [
            f"{name} {_shown(old)} -> {_shown(new)}" for name, (old, new) in self.renewed.get(profile, {}).items()
        ]
        return ", ".join([f"+ {node}" for node in self.gained.get(profile, [])] + values)


def _shown(value: str | None) -> str:
    return "nothing" if value is None else f'"{value}"'


@contextmanager
def watching(project: Project) -> Iterator[Callable[[], Changes]]:
    """Remember who is who and what is held to be true of them now; the function given tells what has changed since."""
    with session(project) as before:
        _remember(before, project, "before")

        def changed() -> Changes:
            with session(project) as after:
                _remember(after, project, "after")
                for name in ("owner", "value"):  # as Arrow, from one engine to the other
                    before.register("handed", after.sql(f"SELECT * FROM after_{name}").to_arrow_table())
                    before.execute(f"CREATE OR REPLACE TEMP TABLE after_{name} AS SELECT * FROM handed")
                    before.unregister("handed")
            return _compare(before)

        yield changed


def _remember(con: duckdb.DuckDBPyConnection, project: Project, when: str) -> None:
    present = {row[0] for row in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    owners = f"SELECT node, profile_id FROM ({members_at(project.now)})"
    # identifiers are attributes too, but who has which is told by the members
    values = "SELECT profile_id, attribute, value FROM golden WHERE source <> 'identity graph'"
    nothing = "SELECT NULL::VARCHAR AS {} WHERE false"
    if "member" not in present:
        owners = nothing.format("node, NULL::VARCHAR AS profile_id")
    if "golden" not in present:
        values = nothing.format("profile_id, NULL::VARCHAR AS attribute, NULL::VARCHAR AS value")
    con.execute(f"CREATE OR REPLACE TEMP TABLE {when}_owner AS {owners}")
    con.execute(f"CREATE OR REPLACE TEMP TABLE {when}_value AS {values}")


def _compare(con: duckdb.DuckDBPyConnection) -> Changes:
    new = con.execute(
        """SELECT profile_id FROM after_owner a GROUP BY 1
           HAVING NOT bool_or(node IN (SELECT node FROM before_owner)) ORDER BY 1"""
    ).fetchall()
    # only the profiles that a moved identifier touches need to be compared one by one
    con.execute(
        """CREATE OR REPLACE TEMP TABLE moved AS SELECT unnest([b.profile_id, a.profile_id]) AS profile_id
           FROM before_owner b JOIN after_owner a USING (node) WHERE a.profile_id <> b.profile_id"""
    )
    touched = "SELECT node, profile_id FROM {}_owner SEMI JOIN moved USING (profile_id) ORDER BY ALL"
    was, now = (dict(con.execute(touched.format(when)).fetchall()) for when in ("before", "after"))
    regrouped = differences(was, now)
    elsewhere = sorted({p for old, new in regrouped for p in (*old, *new)} | {p for (p,) in new})
    con.execute("CREATE OR REPLACE TEMP TABLE elsewhere AS SELECT unnest(?::VARCHAR[]) AS profile_id", [elsewhere])
    gained: dict[str, list[str]] = {}
    for profile, node in con.execute(
        """SELECT profile_id, node FROM after_owner ANTI JOIN before_owner USING (node)
           ANTI JOIN elsewhere USING (profile_id) ORDER BY ALL"""
    ).fetchall():
        gained.setdefault(profile, []).append(node)
    renewed: dict[str, dict[str, tuple[str | None, str | None]]] = {}
    for profile, name, old, value in con.execute(
        """SELECT profile_id, attribute, b.value, a.value
           FROM before_value b FULL JOIN after_value a USING (profile_id, attribute)
           ANTI JOIN elsewhere USING (profile_id)
           WHERE a.value IS DISTINCT FROM b.value ORDER BY ALL"""
    ).fetchall():
        renewed.setdefault(profile, {})[name] = (old, value)
    return Changes([p for (p,) in new], regrouped, gained, renewed)
