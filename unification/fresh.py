"""Whose are facts that are not loaded yet? The graph in memory, to which what has just come in is added.

It is a copy of the graph at hand: the same walk over the same links gives the same profiles, which `unify` finds again
once the facts are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from foretell.project import Project
from lake import derived
from lake.engine import few, instant, quote
from lake.erasure import rebirths, tombstones
from unification.identity import decided, describing, folder_of, identifiers, limits, met_together
from unification.store import Store


class Graph:
    """Who is who now. con: a connection of its owner's, which gets the table `known_members`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, project: Project):
        self._con, self._project = con, project
        self._store = Store(limits(project), folder_of(project))
        self._store.detach()
        self._decisions = decided(project)
        reborn = (lambda names: rebirths(project, names)) if tombstones(project) else (lambda names: {})
        self._describe = describing(con, project.key, project.setting("identity_blocked"), reborn)
        con.execute(
            f"""CREATE OR REPLACE TABLE known_members AS
                SELECT * FROM {derived.scan(project.home / "derived" / "member.parquet")} ORDER BY profile_id;
            CREATE INDEX of_node ON known_members (node);
            CREATE INDEX of_profile ON known_members (profile_id)"""
        )

    def add(self, fresh: Mapping[str, pa.Table]) -> tuple[list[str], list[str]]:
        """Take facts in, by source. Returns the profiles that they are of or that changed by them, and the keys
        (identifiers, and ids that profiles had) that mean another profile since."""
        met: list[np.ndarray] = [np.empty(0, np.int32)]
        for name, facts in fresh.items():
            source = self._project.definitions.sources[name]
            if not source.identifiers:
                continue
            self._con.register("fresh_facts", facts)
            rows = few(self._con, f"SELECT {identifiers(source)}, known_at FROM fresh_facts")
            self._con.unregister("fresh_facts")
            *texts, known = (column.combine_chunks() for column in rows.columns)
            if source.enrich:  # it makes no profile and links none
                met += [self._store.find(column) for column in texts]
            else:
                met += met_together(self._store, texts, known.cast("int64").to_numpy(zero_copy_only=False))[0]
        changed = self._store.walk(self._describe, self._decisions)
        keys: list[str] = []
        if len(changed.nodes):
            members, gone = self._store.members(changed), self._store.names(changed.nodes)
            self._con.register("changed_members", members)
            self._con.execute(f"DELETE FROM known_members WHERE node IN ({listed(gone.to_pylist())})")
            self._con.execute("INSERT INTO known_members BY NAME FROM changed_members")
            self._con.unregister("changed_members")
            keys = [*gone.to_pylist(), *self._store.birth_ids(changed.nodes).to_pylist()]
        nodes = np.concatenate(met)
        owners = self._store.distinct(np.concatenate([changed.owners, self._store.nodes["owner"][nodes[nodes >= 0]]]))
        return self._store.birth_ids(owners).to_pylist(), keys

    def some(self, most: int) -> list[str]:
        """A few profiles."""
        return [p for (p,) in self._con.execute(f"SELECT profile_id FROM known_members LIMIT {int(most)}").fetchall()]

    def owners(self, nodes: Sequence[str]) -> list[str]:
        """The profiles of these identifiers now."""
        if not nodes:
            return []
        found = self._store.find(pa.array(nodes, pa.large_string()))
        return self._store.birth_ids(self._store.distinct(self._store.nodes["owner"][found[found >= 0]])).to_pylist()

    def members(self, profiles: Sequence[str], at: datetime) -> pa.Table:
        """The table `member` of these profiles alone, as known at T."""
        return few(
            self._con,
            f"""SELECT * FROM known_members WHERE profile_id IN ({listed(profiles)}) AND known_from < {instant(at)}
                AND (known_to IS NULL OR known_to >= {instant(at)})""",
        )

    def keys_of(self, profiles: Sequence[str]) -> list[str]:
        """Every identifier, and every id that they had, of some profiles."""
        query = f"SELECT DISTINCT node, birth_id FROM known_members WHERE profile_id IN ({listed(profiles)})"
        return [key for pair in self._con.execute(query).fetchall() for key in pair]

    def meaning(self, keys: Sequence[str], at: datetime) -> dict[str, str]:
        """Identifier, or id that a profile has had -> the profile that it means at T."""
        known = f"known_from < {instant(at)} AND (known_to IS NULL OR known_to >= {instant(at)})"
        found = self._con.execute(
            f"""SELECT node, birth_id, profile_id FROM known_members
                WHERE node IN ({listed([key for key in keys if ":" in key])}) AND {known}"""
        ).fetchall()
        return {key: profile for node, birth, profile in found for key in (node, birth)}


def listed(texts: Iterable[str | None]) -> str:
    """Texts as SQL lists them, without those that are null: an index is used for constants only."""
    return ", ".join(f"'{quote(text)}'" for text in dict.fromkeys(texts) if text is not None) or "NULL"
