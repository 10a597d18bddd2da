"""What are the features of a few profiles a moment after their facts came in? The same queries over their facts alone.

The facts of the lake lie in memory, in tables that are looked up by whose they are; what has just come in is added. For
the profiles asked about, their facts become the tables that a lake session has, and the views are built from these as
they are built from the lake: by the queries of `features.build`, taken down once as a single question (lake.again).

A view of everybody's facts, or of an account's, cannot be built from a few profiles' facts (see `can_be_fresh`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa

from features import build
from features.compiling import versioned
from foretell.binding import players
from foretell.declarations import Source
from foretell.project import Project
from foretell.views import FeatureView
from lake import consent
from lake.again import Held, Question, Steps, T
from lake.engine import few, last_batch, quote, source_table
from unification.fresh import Graph, listed


def can_be_fresh(view: FeatureView) -> bool:
    """Whether the view's rows of a profile hang on the profile's own facts alone."""
    return view.keys == ("profile_id",) and view.facts_of == "profile"


class Built(NamedTuple):
    """profiles: those that there are at T, in order. views: of each version of a view ("orders__1a2b3c4d") its rows,
    one each of these profiles, in their order."""

    profiles: list[str]
    views: dict[str, pa.Table]


class Memory:
    """Facts and graph in memory. views: what is built of them; each must be one that can be fresh.

    batch: the last ingest batch that was read. con: after `rows`, it has a table for each view, named by its version,
    of the profiles asked about, and all that a lake session has of them for the state of consent. asks_consent: whether
    there is a purpose that anything is known of. prepared: counts up when questions of `con` have to be made anew.
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
        for name, source in self._wanted.items():
            stored = source_table(project, name)
            if stored.exists and (files := stored.files()):
                query = f"FROM {stored.scan(files)} WHERE batch <= {self.batch}"
                has = {column for column, *_ in self.con.execute(f"DESCRIBE {query}").fetchall()}
                everything = "* EXCLUDE (payload)" if "payload" in has else "*"
                self._kept[name] = _Facts(self.con, name, f"SELECT {everything} {query}", source)
        self._by_hand = _Facts(self.con, consent.BY_HAND, consent.by_hand(project))
        self.graph = Graph(self.con, project)
        self._member = Held(self.con, "member", self.graph.members([], T))
        self._built: dict[str, Held] = {}
        self.prepared = 0
        self._prepare()

    def close(self) -> None:
        self.con.close()

    def add(self, fresh: Mapping[str, pa.Table]) -> tuple[list[str], list[str]]:
        """Take facts in, by source. Returns the profiles that may have other features by them, and the keys that mean
        another profile since (see `Graph.add`)."""
        touched, keys = self.graph.add(fresh)
        others: set[str] = set()
        for name in fresh.keys() & self._wanted.keys():
            kept, facts = self._kept.get(name), fresh[name]
            anew = kept is None or kept.widen(facts)
            if kept:
                others |= kept.add(facts)
            else:
                self.con.register("fresh_facts", facts)
                self._kept[name] = _Facts(self.con, name, "FROM fresh_facts", self._wanted[name])
                self.con.unregister("fresh_facts")
            if anew:
                self._prepare()
        return sorted({*touched, *self.graph.owners(sorted(others))}), keys

    def rows(self, profiles: Sequence[str], at: datetime) -> Built:
        """Build the views of these profiles at T. One that was merged into another is none any more."""
        self._member.rows = self.graph.members(profiles, at)
        nodes = self._member.rows["node"].unique().to_pylist()
        for kept in (*self._kept.values(), self._by_hand):
            kept.show(nodes)
        found = self._question.ask(at)
        for version, held in self._built.items():
            held.rows = _unpacked(found[version])
        return Built(found["profile_id"].to_pylist(), {version: held.rows for version, held in self._built.items()})

    def since(self, batch: int) -> list[str]:
        """The profiles that have facts of later ingest batches, or such as are not loaded yet."""
        nodes: set[str] = set()
        for name in self._kept:
            query = f'SELECT DISTINCT node FROM "all {name}" WHERE batch > {int(batch)} AND node IS NOT NULL'
            found = self.con.execute(query)
            nodes |= {node for (node,) in found.fetchall()}
        return self.graph.owners(sorted(nodes))

    def _prepare(self) -> None:
        """Take down how the views are built, and build them of nobody, so that there are tables."""
        self._see_consents()
        steps, sources = Steps(self.con), dict(self._project.definitions.sources)
        build.know_profiles(steps, T)
        people = steps.reading("SELECT profile_id FROM profile_at")
        of = {versioned(view, sources): steps.reading(query)
              for view, query in build.rows_of(steps, self._project, self.views.values(), T)}  # fmt: skip
        joins = "".join(f' JOIN {query} "{version}" USING (profile_id)' for version, query in of.items())
        listed = "".join(f', "{version}"' for version in of)
        query = f"SELECT profile_id{listed} FROM {people}{joins} ORDER BY profile_id"
        self._question = Question(self.con, steps.whole(query))
        nobody = self._question.ask(T)
        for version in of.keys() - self._built.keys():
            self._built[version] = Held(self.con, version, _unpacked(nobody[version]))
        self.prepared += 1

    def _see_consents(self) -> None:
        """Make the view `consents` of a session. A purpose that anybody has spoken of is known, whoever is shown."""
        query = f'SELECT DISTINCT purpose FROM "all {consent.BY_HAND}" WHERE purpose IS NOT NULL'
        spoken = [f"SELECT * REPLACE ('{quote(purpose)}' AS purpose) FROM nothing_said"
                  for (purpose,) in self.con.execute(query).fetchall()]  # fmt: skip
        blank = consent.NOTHING.replace("WHERE false", "")
        self.con.execute(f"CREATE OR REPLACE TEMP VIEW nothing_said AS {blank}")
        consent.view_of(self.con, self._project, self._kept, f'SELECT * FROM "{consent.BY_HAND}"', *spoken)
        self.asks_consent = bool(consent.purposes(self._project, self.con))


def _unpacked(structs: pa.ChunkedArray) -> pa.Table:
    """A column of rows as the table that they are."""
    return pa.Table.from_struct_array(structs.combine_chunks())


class _Facts:
    """The facts of a source. `all NAME` is the table of all; NAME shows those of the profiles asked about."""

    def __init__(self, con: duckdb.DuckDBPyConnection, name: str, query: str, source: Source | None = None):
        self._con, self._name, self._source = con, name, source
        con.execute(f'CREATE TABLE "all {name}" AS FROM ({query}) ORDER BY node')
        con.execute(f'CREATE INDEX "of {name}" ON "all {name}" (node)')
        if self._keyed:
            con.execute(f'CREATE INDEX "key of {name}" ON "all {name}" (row_key)')
        self._see()

    @property
    def _keyed(self) -> bool:
        return self._source is not None and bool(self._source.key)

    def _see(self) -> None:
        self._shown = Held(self._con, self._name, self._those("false"))
        self._columns = set(self._shown.rows.column_names)

    def _those(self, condition: str) -> pa.Table:
        return few(self._con, f'SELECT * FROM "all {self._name}" WHERE {condition}')

    def show(self, nodes: Sequence[str]) -> None:
        """Show the facts of these identifiers."""
        found = self._those(f"node IN ({listed(nodes)})")
        if self._keyed and found.num_rows:  # a version of another's may have taken the place of one of these
            keys, known = (listed(found[column].to_pylist()) for column in ("row_key", "fact_id"))
            found = pa.concat_tables([found, self._those(f"row_key IN ({keys}) AND fact_id NOT IN ({known})")])
        self._shown.rows = found

    def widen(self, facts: pa.Table) -> bool:
        """Have the columns of these facts too. Whether some were new: what was asked of the view must be asked anew."""
        if self._columns.issuperset(facts.column_names):
            return False
        self._con.register("fresh_facts", facts)
        for column, kind, *_ in self._con.execute("DESCRIBE fresh_facts").fetchall():
            if column not in self._columns:
                self._con.execute(f'ALTER TABLE "all {self._name}" ADD COLUMN "{column}" {kind}')
        self._con.unregister("fresh_facts")
        self._see()
        return True

    def add(self, facts: pa.Table) -> set[str]:
        """Add facts of columns that there are. Returns the identifiers of those whose facts these take the place of."""
        con, name = self._con, self._name
        con.register("fresh_facts", facts)
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
