"""How are many people's features read at once? The built files of a cutoff, joined for a run of profiles at a time.

What Feast's point-in-time join gives for a profile and a cutoff that is built, in a fraction of its time and memory:
every view's rows of the cutoff are of the cutoff itself, so that there is nothing to look for before it. A profile
without a row of a view is told apart from one whose features are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import build
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import few, quote

FEW = 1_000  # profiles
Categories = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Column:
    """A number that is read: a feature of a view's version. codes: of text, the values that have a code, in order; of
    text without any, (): then nothing is known of it. None: a number or true/false as it is."""

    view: str
    feature: str
    codes: tuple[str, ...] | None = None


class Wide:
    """The features of several sets of columns (one a model), each read once. Built for a cutoff that is built.

    columns: what is read, each once; places: by the name of the set, where its columns stand among them. sizes: bytes
    of a row.
    """

    def __init__(self, project: Project, cutoff: datetime):
        self._project, self._cutoff = project, cutoff
        self._views: dict[str, FeatureView] = {}
        self._sources = dict(project.definitions.sources)
        self.columns: list[Column] = []
        self.places: dict[str, np.ndarray] = {}
        self.views: dict[str, list[str]] = {}

    def add(self, name: str, views: Sequence[FeatureView], columns: Sequence[str], categories: Categories) -> None:
        """Read these columns of these views too, text by its codes (the place of a value among its categories)."""
        homes, kinds = {}, {}
        versions = [build.versioned(view, self._sources) for view in views]
        for version, view in zip(versions, views, strict=True):
            self._views[version] = view
            kinds |= build.types(view, self._sources)
            homes |= dict.fromkeys(view.features, version)
        known = {column: place for place, column in enumerate(self.columns)}
        found = []
        for feature in columns:
            codes = tuple(categories[feature]) if feature in categories else () if kinds[feature] == "string" else None
            column = Column(homes[feature], feature, codes)
            if column not in known:
                known[column] = len(self.columns)
                self.columns.append(column)
            found.append(known[column])
        self.places[name], self.views[name] = np.array(found, dtype=np.int64), versions

    @property
    def row_bytes(self) -> int:
        return 8 * max(1, len(self.columns))

    def files(self) -> list[list[object]]:
        """Each built file that is read, with its size and time of writing: they say whether it is still the same."""
        found = []
        for version in sorted(self._views):
            whole = build.file_of(self._project, self._views[version], self._cutoff)
            for file in [whole, *build.patches(whole)]:
                stat = file.stat()
                found.append([version, file.name, stat.st_size, stat.st_mtime_ns])
        return found

    def read(self, con: duckdb.DuckDBPyConnection, profiles: pa.Array) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(n, columns) float64 of these profiles, given in order of their ids, and by view who has no row of it."""
        n = len(profiles)
        con.register("chunk", pa.table({"profile_id": profiles, "nr": pa.array(np.arange(n, dtype=np.int32))}))
        query, shape = self.query("chunk", (profiles[0].as_py(), profiles[n - 1].as_py()))
        found = few(con, query) if n <= FEW else con.sql(query).to_arrow_table()
        con.unregister("chunk")
        order = found["nr"].to_numpy()
        if len(order) != n:
            raise ValueError(f"expected a row for each of {n} profiles, got {len(order)}")
        X, absent = shape.numbers(found)
        if not (np.diff(order) == 1).all():  # the engine may answer in another order
            turn = np.argsort(order)
            X, absent = X[turn], {view: lost[turn] for view, lost in absent.items()}
        return X, absent

    def query(self, people: str, between: tuple[str, str] | None = None) -> tuple[str, Shape]:
        """SQL for all that is read of a table of people (profile_id, …), beside its own columns; and what it means.

        between: their first and last id, where they lie close together.
        """
        within = f"WHERE profile_id BETWEEN '{quote(between[0])}' AND '{quote(between[1])}'" if between else ""
        read: dict[tuple[str, str], str] = {}
        joins = []
        for at, (version, view) in enumerate(self._views.items()):
            wanted = {c.feature: c.codes is None for c in self.columns if c.view == version}
            listed = [f"true AS has_{at}"]
            for feature, is_number in wanted.items():
                name = read[version, feature] = f"c{len(read)}"
                listed.append(f'"{feature}"{"::DOUBLE" if is_number else ""} AS {name}')
            table = build.read(self._project, view, self._cutoff)
            joins.append(f"LEFT JOIN (SELECT profile_id, {', '.join(listed)} FROM {table} {within}) USING (profile_id)")
        codes = tuple((read[c.view, c.feature], c.codes) for c in self.columns)
        return f"SELECT * FROM {people} {' '.join(joins)}", Shape(codes, tuple(self._views))


@dataclass(frozen=True)
class Shape:
    """What the answer to a query of Wide means. columns: of each, its name there and its codes; views: in order."""

    columns: tuple[tuple[str, tuple[str, ...] | None], ...]
    views: tuple[str, ...]

    def numbers(self, found: pa.Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(n, columns) float64 of its rows, and by view who has no row of it."""
        X = np.empty((len(found), len(self.columns)))
        for place, (name, codes) in enumerate(self.columns):
            X[:, place] = numbers(found[name], codes)
        absent = {view: found[f"has_{at}"].is_null().to_numpy() for at, view in enumerate(self.views)}
        return X, {view: lost for view, lost in absent.items() if lost.any()}


def numbers(values: pa.ChunkedArray, codes: tuple[str, ...] | None) -> np.ndarray:
    """A feature as float64, NaN where nothing is known; text by the place of its value among the codes."""
    if codes is not None:
        asked = pc.SetLookupOptions(value_set=pa.array(codes, pa.string()))
        values = pc.call_function("index_in", [values], asked)
    return values.cast(pa.float64()).to_numpy()


def empty_row(con: duckdb.DuckDBPyConnection, project: Project, view: FeatureView, cutoff: datetime) -> dict:
    """feature -> its value of a profile of whom the view knows no fact. con: a lake session."""
    known = build.facts_before(con, project, view.source, cutoff, cutoff, view.lookback)
    con.execute(
        f"""CREATE OR REPLACE TEMP VIEW facts AS SELECT NULL::BIGINT AS profile_id, * EXCLUDE (node)
            FROM ({known}) WHERE false"""
    )
    found = con.execute(f"SELECT * FROM ({build.compile_view(view, dict(project.definitions.sources))[1]})")
    names = [d[0] for d in found.description or []]
    return dict(zip(names, found.fetchall()[0], strict=True))
