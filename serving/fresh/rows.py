"""What are scores of a few profiles computed from now? Their states and features, packed as they are published.

Each task that is served is asked again of the facts of these profiles: are they eligible, may they be used, is there
enough evidence, which features does the model read. What everybody's facts, or an account's, are behind is as of the
task's last batch. A task whose population cannot be known from a profile's own facts is answered from there whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from features.compiling import versioned
from features.fresh import Built, Memory, can_be_fresh
from features.wide import Wide, numbers
from foretell.declarations import Enters
from foretell.errors import NotReady
from foretell.project import Project
from foretell.views import FeatureView
from lake.again import Question, T
from lake.engine import session
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


class Rebuilt(NamedTuple):
    """What a row ought to be. features: (columns,) float64; own: those that hang on the profile's own facts alone;
    eligible: of each task, whether it is asked about the profile."""

    features: np.ndarray
    own: np.ndarray
    eligible: np.ndarray


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
        wides, places, width = laid_out(project, asked, lambda cutoff: Wide(project, cutoff))
        if (places, width) != (self.index.layout.places, self.index.layout.width):
            raise NotReady("stream", "what is served was published by other definitions", "run `foretell score`")
        self._sources = dict(project.definitions.sources)
        self._asked = [(one, last, np.array(places[one.name])) for one, last in asked]
        views = [v for one, _ in asked for v in dataset.asked_views(project, one.task)]
        self._views = {versioned(view, self._sources): view for view in views}
        self.cutoff = max((last.cutoff for last in served.values()), default=None)
        self.batch = min((last.batch for last in served.values()), default=0)
        self._tasks: list[_Task] = []
        self._columns = [column for wide in wides for column in wide.columns]
        self._kept = np.array([n for n, c in enumerate(self._columns) if not can_be_fresh(self._views[c.view])], int)
        empty = {(view, feature): value for _, last in asked for view, row in last.empty.items()
                 for feature, value in row.items()}  # fmt: skip
        nobody = [empty.get((self._views[c.view].name, c.feature)) for c in self._columns]
        self._nobody = np.array([np.nan if value is None else value for value in nobody])[self._kept]

    @property
    def views(self) -> list[FeatureView]:
        """The views that are built afresh."""
        return [view for view in self._views.values() if can_be_fresh(view)]

    def use(self, memory: Memory) -> None:
        """Ask these facts from now on."""
        self._memory, self._prepared, con = memory, memory.prepared, memory.con
        self._tasks, asked = [], list[str]()
        for place, (one, last, places) in enumerate(self._asked):
            rule = dataset.population_views(self._project, one.task)
            live = not isinstance(one.task.label, Enters) and all(map(can_be_fresh, rule))
            if live:
                tables = [f'"{versioned(view, self._sources)}"' for view in rule]
                query = dataset.satisfying(con, self._project, one.task, tables, f"eligible_{place}")
                asked.append(f"SELECT profile_id, {place}::UTINYINT AS task FROM ({query})")
            evidence = Evidence(one.name, one.model.contract["columns"], last.empty)
            self._tasks.append(_Task(one, last, evidence, places, live))
        self._eligible = Question(con, " UNION ALL ".join(asked)) if asked else None
        purposes = {one.task.purpose for one, _, _ in self._asked} if memory.asks_consent else set()
        said = {purpose: barred(con, self._project, purpose, T) for purpose in purposes}
        self._barred = {purpose: Question(con, query) for purpose, query in said.items() if query}

    def pack(self, built: Built, at: datetime) -> dict[str, bytes]:
        """profile -> its packed row as of T. built: what the memory has just built for it."""
        profiles = built.profiles
        if not profiles:
            return {}
        if self._prepared != self._memory.prepared:
            self.use(self._memory)
        X = self._features(built)
        head = np.zeros((len(profiles), self.index.layout.head), dtype=np.uint8)
        place_of = {profile: place for place, profile in enumerate(profiles)}
        for place, found in self._satisfying(at).items():
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

    def rebuilt(self, profile: str, at: datetime) -> Rebuilt:
        """What the row of a profile as of T is by the lake, of all facts that are loaded by now: to hold a packed row
        against."""
        tasks = [one.task for one, _, _ in self._asked]
        dataset.build_for(self._project, tasks, [at])
        asked = [(one, last) for one, last, _ in self._asked]
        wides, _, _ = laid_out(self._project, asked, lambda _: Wide(self._project, at))
        eligible = []
        with session(self._project) as con:
            X = np.hstack([wide.read(con, pa.array([profile]))[0] for wide in wides])[0]
            for place, task in enumerate(tasks):
                dataset.population_table(con, self._project, task, at, f"population_{place}")
                query = f"SELECT count(*) > 0 FROM population_{place} WHERE profile_id = ?"
                eligible.append(con.execute(query, [profile]).fetchall()[0][0])
        own = np.ones(len(X), dtype=bool)
        own[self._kept] = False
        return Rebuilt(X, own, np.array(eligible, dtype=bool))

    def _features(self, built: Built) -> np.ndarray:
        """(profiles, columns) float64: as built; of a view that is as of the last batch as it was published, and of
        whom there is no row there, as it is of nobody."""
        X = np.empty((len(built.profiles), len(self._columns)))
        for place, column in enumerate(self._columns):
            if column.view in built.views:
                X[:, place] = numbers(built.views[column.view][column.feature], column.codes)
        if len(self._kept):
            X[:, self._kept] = self._nobody
            published = self.index.rows(built.profiles)
            for place, profile in enumerate(built.profiles):
                if profile in published:
                    X[place, self._kept] = self.index.layout.features(published[profile])[self._kept]
        return X

    def _satisfying(self, at: datetime) -> dict[int, list[str]]:
        """Place of a task -> who satisfies the rule of its population, may be used or not."""
        found: dict[int, list[str]] = {}
        if self._eligible:
            rows = self._eligible.ask(at)
            for profile, place in zip(rows["profile_id"].to_pylist(), rows["task"].to_pylist(), strict=True):
                found.setdefault(place, []).append(profile)
        return found

    def _refuse(self, at: datetime, place_of: Mapping[str, int], head: np.ndarray) -> None:
        """Who did not agree to a task's purpose is in no batch, and marked."""
        known = {purpose: question.ask(at)["profile_id"].to_pylist() for purpose, question in self._barred.items()}
        for place, task in enumerate(self._tasks):
            who = known.get(task.one.task.purpose, ())
            head[[place_of[profile] for profile in who if profile in place_of], place] = REFUSED
