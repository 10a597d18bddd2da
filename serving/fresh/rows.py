"""What are scores of a few profiles computed from now? Their states and features, packed as they are published.

Each task that is served is asked again of the facts of these profiles: are they eligible, may they be used, is there
enough evidence, which features does the model read. What everybody's facts, or an account's, are behind is as of the
task's last batch. A task whose population cannot be known from a profile's own facts is answered from there whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from features.compiling import types, versioned
from features.fresh import Memory, can_be_fresh
from features.wide import Wide
from foretell.declarations import Enters
from foretell.errors import NotReady
from foretell.project import Project
from foretell.views import FeatureView
from models.registry import champion, quietly
from serving import batch
from serving.batch import Batch
from serving.evidence import Evidence
from serving.http.fresh import KEPT
from serving.http.index import REFUSED, STATES, Index
from serving.packing import laid_out
from serving.rebuild import as_trained
from serving.stream import Asked
from training import dataset
from unification.consent import barred


class _Task(NamedTuple):
    one: Asked
    last: Batch
    evidence: Evidence
    places: np.ndarray
    live: bool
    query: str  # of who satisfies the rule of the population


class Rows:
    """Packs rows that go with one publication, of facts and a graph in memory (see `use`)."""

    def __init__(self, project: Project):
        self._project = project
        self.index = Index(project)
        self.stamp = self.index.stamp
        served = {name: last for name in self.index.layout.tasks if (last := batch.last(project, name))}
        asked = []
        for name, last in served.items():
            model = quietly(lambda n=name, v=last.version: champion(project, n, v))
            asked.append((Asked(as_trained(project, project.definitions.task(name), model), model), last))
        self._wides, places, width = laid_out(project, asked, lambda cutoff: Wide(project, cutoff, where=self._where))
        if (places, width) != (self.index.layout.places, self.index.layout.width):
            raise NotReady("stream", "what is served was published by other definitions", "run `foretell score`")
        self._sources = dict(project.definitions.sources)
        self._asked = [(one, last, np.array(places[one.name])) for one, last in asked]
        views = [v for one, _ in asked for v in dataset.asked_views(project, one.task)]
        self._views = {versioned(view, self._sources): view for view in views}
        self.cutoff = max((last.cutoff for last in served.values()), default=None)
        self.batch = min((last.batch for last in served.values()), default=0)
        self._tasks: list[_Task] = []

    @property
    def views(self) -> list[FeatureView]:
        """The views that are built afresh."""
        return [view for view in self._views.values() if can_be_fresh(view)]

    def use(self, memory: Memory) -> None:
        """Ask these facts from now on."""
        self._memory = memory
        memory.rows([], self.cutoff or self._project.now)  # so that there are tables to compile questions for
        self._tasks = []
        for place, (one, last, places) in enumerate(self._asked):
            rule = dataset.population_views(self._project, one.task)
            live = not isinstance(one.task.label, Enters) and all(map(can_be_fresh, rule))
            query = ""
            if live:
                tables = [f'"{versioned(view, self._sources)}"' for view in rule]
                query = dataset.satisfying(memory.con, self._project, one.task, tables, f"eligible_{place}")
            evidence = Evidence(one.name, one.model.contract["columns"], last.empty)
            self._tasks.append(_Task(one, last, evidence, places, live, query))

    def pack(self, profiles: Sequence[str], at: datetime) -> dict[str, bytes]:
        """profile -> its packed row as of T, of profiles whose views the memory has just built."""
        if not profiles:
            return {}
        con, layout = self._memory.con, self.index.layout
        X = np.hstack([wide.read(con, pa.array(profiles))[0] for wide in self._wides])
        self._fill(profiles, X)
        head = np.zeros((len(profiles), layout.head), dtype=np.uint8)
        place_of = {profile: place for place, profile in enumerate(profiles)}
        for place, found in self._eligible(at).items():
            task = self._tasks[place]
            rows = np.array([place_of[profile] for profile in found if profile in place_of], dtype=np.int64)
            if len(rows):
                lacking = task.evidence.lacking(X[np.ix_(rows, task.places)])
                head[rows, place] = np.where(lacking, STATES["insufficient"], STATES["scored"])
        self._refuse(at, place_of, head)
        for place, task in enumerate(self._tasks):
            if not task.live:
                head[:, place] = KEPT
        packed = np.hstack([head, np.ascontiguousarray(X).view(np.uint8)])
        return dict(zip(profiles, map(bytes, packed), strict=True))

    def _where(self, version: str) -> str:
        """The rows of a view of the profiles asked about; none of a view that is as of the last batch."""
        view = self._views[version]
        if can_be_fresh(view):
            return f'"{version}"'
        names = {"int64": "BIGINT", "float64": "DOUBLE", "boolean": "BOOLEAN", "string": "VARCHAR"}
        columns = [f'NULL::{names[kind]} AS "{name}"' for name, kind in types(view, self._sources).items()]
        return f"(SELECT NULL::VARCHAR AS profile_id, {', '.join(columns)} WHERE false)"

    def _fill(self, profiles: Sequence[str], X: np.ndarray) -> None:
        """Take what is not built afresh from the publication; of whom it has no row, what is read of nobody."""
        columns = [column for wide in self._wides for column in wide.columns]
        old = [place for place, column in enumerate(columns) if not can_be_fresh(self._views[column.view])]
        if not old:
            return
        empty: dict[tuple[str, str], float | None] = {}
        for _, last, _ in self._asked:
            for view, row in last.empty.items():
                empty |= {(view, feature): value for feature, value in row.items()}
        nobody = [empty.get((self._views[columns[place].view].name, columns[place].feature)) for place in old]
        X[:, old] = [np.nan if value is None else value for value in nobody]
        published = self.index.rows(list(profiles))
        for place, profile in enumerate(profiles):
            if profile in published:
                X[place, old] = self.index.layout.features(published[profile])[old]

    def _eligible(self, at: datetime) -> dict[int, list[str]]:
        """Place of a task -> who satisfies the rule of its population, may be used or not."""
        queries = [
            f"SELECT profile_id, {n}::UTINYINT AS task FROM ({t.query})" for n, t in enumerate(self._tasks) if t.live
        ]
        found: dict[int, list[str]] = {}
        if queries:
            for profile, place in self._memory.con.execute(" UNION ALL ".join(queries)).fetchall():
                found.setdefault(place, []).append(profile)
        return found

    def _refuse(self, at: datetime, place_of: Mapping[str, int], head: np.ndarray) -> None:
        """Who did not agree to a task's purpose is in no batch, and marked."""
        con, known = self._memory.con, {}
        for place, task in enumerate(self._tasks):
            purpose = task.one.task.purpose
            if purpose not in known:
                query = barred(con, self._project, purpose, at) if self._memory.asks_consent else None
                known[purpose] = [p for (p,) in con.execute(query).fetchall()] if query else []
            rows = [place_of[profile] for profile in known[purpose] if profile in place_of]
            head[rows, place] = REFUSED
