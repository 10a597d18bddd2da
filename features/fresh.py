"""What are the features of a few profiles a moment after their facts came in? The same queries over their facts alone.

The facts of the lake lie in memory, in tables that are looked up by whose they are; what has just come in is added. For
the profiles asked about, their facts become the tables that a lake session has, and the views are built from these as
they are built from the lake: by `features.build`, which does not see the difference.

A view of everybody's facts, or of an account's, cannot be built from a few profiles' facts (see `can_be_fresh`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from features import build
from features.compiling import versioned
from foretell.binding import players
from foretell.declarations import Source
from foretell.project import Project
from foretell.views import FeatureView
from lake import consent
from lake.engine import last_batch, quote, source_table
from unification.fresh import Graph, listed


def can_be_fresh(view: FeatureView) -> bool:
    """Whether the view's rows of a profile hang on the profile's own facts alone."""
    return view.keys == ("profile_id",) and view.facts_of == "profile"


class Memory:
    """Facts and graph in memory. views: what is built of them; each must be one that can be fresh.

    batch: the last ingest batch that was read. con: after `rows`, it has a table for each view, named by its version,
    of the profiles asked about, and all that a lake session has of them for the state of consent. asks_consent: whether
    there is a purpose that anything is known of.
    """

    def __init__(self, project: Project, views: Iterable[FeatureView]):
        self._project = project
        sources = dict(project.definitions.sources)
        self.views = {versioned(view, sources): view for view in views}
        self.batch = last_batch(project)
        self.con = duckdb.connect(config={"threads": 1})  # what is asked is small: a second thread only costs
        self.con.execute("SET TimeZone='UTC'; SET autoinstall_known_extensions=false; SET enable_progress_bar=false")
        self.con.execute("SET python_enable_replacements=false")
        played = {s.name for view in self.views.values() for role in view.roles for s in players(role, sources)}
        self._wanted = {name: source for name, source in sources.items() if name in played or source.consents}
        self._kept: dict[str, _Facts] = {}
        self._empties: dict[str, str] = {}
        for name, source in self._wanted.items():
            stored = source_table(project, name)
            if stored.exists and (files := stored.files()):
                query = f"FROM {stored.scan(files)} WHERE batch <= {self.batch}"
                has = {column for column, *_ in self.con.execute(f"DESCRIBE {query}").fetchall()}
                everything = "* EXCLUDE (payload)" if "payload" in has else "*"
                self._kept[name] = _Facts(self.con, name, f"SELECT {everything} {query}", source)
        self._by_hand = _Facts(self.con, consent.BY_HAND, consent.by_hand(project))
        self._see_consents()
        self.graph = Graph(self.con, project)

    def close(self) -> None:
        self.con.close()

    def add(self, fresh: Mapping[str, pa.Table]) -> tuple[list[str], list[str]]:
        """Take facts in, by source. Returns the profiles that may have other features by them, and the keys that mean
        another profile since (see `Graph.add`)."""
        touched, keys = self.graph.add(fresh)
        others: set[str] = set()
        for name in fresh.keys() & self._wanted.keys():
            if name in self._kept:
                others |= self._kept[name].add(fresh[name])
                continue
            self.con.register("fresh_facts", fresh[name])
            self._kept[name] = _Facts(self.con, name, "FROM fresh_facts", self._wanted[name])
            self.con.unregister("fresh_facts")
            self._see_consents()
        return sorted({*touched, *self.graph.owners(sorted(others))}), keys

    def rows(self, profiles: Sequence[str], at: datetime) -> list[str]:
        """Build the views of these profiles at T, as tables named by the views' versions. Returns those of them that
        there are at T: one that was merged into another is none any more."""
        nodes = self.graph.show(profiles, at)
        for kept in (*self._kept.values(), self._by_hand):
            kept.show(nodes)
        sources = dict(self._project.definitions.sources)
        for view, query in build.rows_of(self.con, self._project, self.views.values(), at, empties=self._empties):
            self.con.execute(f'CREATE OR REPLACE TEMP TABLE "{versioned(view, sources)}" AS {query}')
        return [
            profile for (profile,) in self.con.execute("SELECT DISTINCT profile_id FROM member ORDER BY 1").fetchall()
        ]

    def since(self, batch: int) -> list[str]:
        """The profiles that have facts of later ingest batches, or such as are not loaded yet."""
        nodes: set[str] = set()
        for name in self._kept:
            query = f'SELECT DISTINCT node FROM "all {name}" WHERE batch > {int(batch)} AND node IS NOT NULL'
            found = self.con.execute(query)
            nodes |= {node for (node,) in found.fetchall()}
        return self.graph.owners(sorted(nodes))

    def _see_consents(self) -> None:
        """Make the view `consents` of a session. A purpose that anybody has spoken of is known, whoever is shown."""
        query = f'SELECT DISTINCT purpose FROM "all {consent.BY_HAND}" WHERE purpose IS NOT NULL'
        spoken = [f"SELECT * REPLACE ('{quote(purpose)}' AS purpose) FROM nothing_said"
                  for (purpose,) in self.con.execute(query).fetchall()]  # fmt: skip
        blank = consent.NOTHING.replace("WHERE false", "")
        self.con.execute(f"CREATE OR REPLACE TEMP VIEW nothing_said AS {blank}")
        consent.view_of(self.con, self._project, self._kept, f'SELECT * FROM "{consent.BY_HAND}"', *spoken)
        self.asks_consent = bool(consent.purposes(self._project, self.con))


class _Facts:
    """The facts of a source. `all NAME` is the table of all; the view NAME shows those of the profiles asked about."""

    def __init__(self, con: duckdb.DuckDBPyConnection, name: str, query: str, source: Source | None = None):
        self._con, self._name, self._source = con, name, source
        con.execute(f'CREATE TABLE "all {name}" AS FROM ({query}) ORDER BY node')
        con.execute(f'CREATE INDEX "of {name}" ON "all {name}" (node)')
        if self._keyed:
            con.execute(f'CREATE INDEX "key of {name}" ON "all {name}" (row_key)')
        self._columns = self._see()

    @property
    def _keyed(self) -> bool:
        return self._source is not None and bool(self._source.key)

    def _see(self) -> set[str]:
        con, name = self._con, self._name
        con.execute(f'CREATE OR REPLACE TEMP TABLE "some {name}" AS SELECT * FROM "all {name}" WHERE false')
        con.execute(f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT * FROM "some {name}"')
        return {column for column, *_ in con.execute(f'DESCRIBE "all {name}"').fetchall()}

    def show(self, nodes: Sequence[str]) -> None:
        name = self._name
        theirs = f'SELECT * FROM "all {name}" WHERE node IN ({listed(nodes)})'
        self._con.execute(f'CREATE OR REPLACE TEMP TABLE "some {name}" AS {theirs}')
        if self._keyed:  # a version of another profile's may have taken the place of one of these
            self._con.execute(
                f"""INSERT INTO "some {name}" SELECT * FROM "all {name}" a SEMI JOIN "some {name}" USING (row_key)
                    WHERE a.fact_id NOT IN (SELECT fact_id FROM "some {name}")"""
            )

    def add(self, facts: pa.Table) -> set[str]:
        """Add facts. Returns the identifiers of those whose facts these take the place of."""
        con, name = self._con, self._name
        con.register("fresh_facts", facts)
        new = [(c, kind) for c, kind, *_ in con.execute("DESCRIBE fresh_facts").fetchall() if c not in self._columns]
        for column, kind in new:
            con.execute(f'ALTER TABLE "all {name}" ADD COLUMN "{column}" {kind}')
        if new:
            self._columns = self._see()
        # sent twice it is one fact: the first counts, and both have the same identifiers
        ids, nodes = (listed(facts[column].to_pylist()) for column in ("fact_id", "node"))
        query = f"""SELECT * FROM fresh_facts WHERE fact_id NOT IN
                (SELECT fact_id FROM "all {name}" WHERE coalesce(node, '') IN ({nodes}) AND fact_id IN ({ids}))
            QUALIFY row_number() OVER (PARTITION BY fact_id ORDER BY received_at) = 1"""
        before: list[tuple[str, str | None]] = []
        if self._keyed:
            rows = listed(facts["row_key"].to_pylist())
            before = con.execute(f'SELECT row_key, node FROM "all {name}" WHERE row_key IN ({rows})').fetchall()
            # as loading has it: a change is known as it comes
            if before and self._source and not self._source.known_at:
                query = f"""SELECT * REPLACE (CASE WHEN row_key IN ({listed([key for key, _ in before])})
                    THEN greatest(known_at, received_at) ELSE known_at END AS known_at) FROM ({query})"""
        con.execute(f'INSERT INTO "all {name}" BY NAME {query}')
        con.unregister("fresh_facts")
        return {node for _, node in before if node}
