"""What does the service compute scores from? The models, and everyone's encoded features in one row.

  model(task, champion)     the champion that answers, pickled
  row(profile_id, packed)   a byte for each task (see STATES), filled up to eight, then the encoded features of all
                            models, each once, as 64 bit floats

So one look finds all that is needed for a person's scores; the service needs neither MLflow nor Feast, and what it
answers from is of one moment whatever is written meanwhile. The rows are those of the batch that percentiles are
counted in, read once when it was scored: whoever publishes again, for a consent say, takes them over as they are.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from features.wide import Wide
from foretell.errors import ForetellError
from foretell.project import Project
from lake.engine import quote
from models.registry import champion, quietly
from serving.batch import Batch
from serving.http.index import REFUSED, STATES, Layout, read_only
from serving.rebuild import as_trained
from serving.stream import Asked
from training import dataset

TABLES = """
    CREATE TABLE model (task TEXT PRIMARY KEY, champion BLOB);
    CREATE TABLE row (profile_id TEXT PRIMARY KEY, packed BLOB) WITHOUT ROWID;
"""
CHUNK = 20_000  # profiles at a time


@dataclass
class Packing:
    """What is to be packed. layout: how a row is made; models: by task; broken: task -> why its model cannot be used.

    before: the publication before, if its rows are the same ones.
    """

    layout: Layout
    models: dict[str, bytes]
    broken: dict[str, ForetellError]
    wides: list[Wide]
    before: Path | None = None


def prepare(project: Project, served: Mapping[str, Batch], before: Path) -> Packing:
    """Find out how the rows of these batches are made. before: where the publication before lies, if there is one."""
    stamp = json.dumps([[name, b.version, b.service, b.cutoff.isoformat(), b.batch] for name, b in served.items()])
    if known := _known(before, digest := hashlib.sha256(stamp.encode()).hexdigest()):
        return Packing(*known, {}, [], before)
    models, broken = {}, {}
    found: list[tuple[Asked, Batch]] = []
    for name, last in served.items():
        try:
            model = quietly(lambda n=name, v=last.version: champion(project, n, v))
            task = as_trained(project, project.definitions.task(name), model)
            dataset.build_for(project, [task], [last.cutoff])
        except ForetellError as error:
            broken[name] = error
            continue
        found.append((Asked(task, model), last))
        models[name] = pickle.dumps(model)
    wides, places, width = laid_out(project, found, lambda cutoff: Wide(project, cutoff))
    # A task whose model is broken is tried again with the next publication.
    layout = Layout("" if broken else digest, [name for name in served if name in places], places, width)
    return Packing(layout, models, broken, wides)


def laid_out(
    project: Project, asked: Sequence[tuple[Asked, Batch]], wide: Callable[[datetime], Wide]
) -> tuple[list[Wide], dict[str, list[int]], int]:  # fmt: skip
    """How a row is made of what is asked of each batch: one `wide` for each cutoff, whose columns stand side by side;
    where the columns of each task are; how many columns there are."""
    wides: dict[datetime, Wide] = {}
    for one, last in asked:
        made = wides.setdefault(last.cutoff, wide(last.cutoff))
        views = project.definitions.views_of(one.task)
        made.add(one.name, views, one.model.contract["columns"], one.model.categories)
    starts = np.cumsum([0, *(len(made.columns) for made in wides.values())]).tolist()
    places = {
        name: (made.places[name] + start).tolist()
        for made, start in zip(wides.values(), starts, strict=False) for name in made.places
    }  # fmt: skip
    return list(wides.values()), places, starts[-1]


def _known(before: Path, digest: str) -> tuple[Layout, dict[str, bytes]] | None:
    """How the rows of the publication before are made, and its models, if they are those of the same batches."""
    if not before.exists():
        return None
    con = sqlite3.connect(read_only(before), uri=True)
    try:
        said = dict(con.execute("SELECT key, value FROM about").fetchall())
        layout = Layout(**json.loads(said["rows"])) if "rows" in said else None
        if layout is None or layout.digest != digest:
            return None
        return layout, dict(con.execute("SELECT task, champion FROM model").fetchall())
    finally:
        con.close()


def write(
    con: duckdb.DuckDBPyConnection, out: sqlite3.Connection, packing: Packing, served: Mapping[str, Batch],
    purposes: Mapping[str, str], refused: str,
) -> None:  # fmt: skip
    """Write the models and everyone's row. con: a lake session; purposes: by task; refused: SQL for (profile_id,
    purpose) of those who did not agree."""
    layout = packing.layout
    out.executemany("INSERT INTO model VALUES (?, ?)", packing.models.items())
    out.execute("INSERT INTO about VALUES ('rows', ?)", [json.dumps(vars(layout))])
    if packing.before:
        out.execute("ATTACH ? AS before", [read_only(packing.before)])
    for profiles, states in _people(con, layout.tasks, served, purposes, refused):
        if packing.before:
            rows = _taken_over(out, layout, profiles)
        else:
            rows = np.hstack([wide.read(con, pa.array(profiles))[0] for wide in packing.wides])
        head = np.zeros((len(profiles), layout.head), dtype=np.uint8)
        head[:, : states.shape[1]] = states
        packed = np.hstack([head, np.ascontiguousarray(rows).view(np.uint8)])
        out.executemany("INSERT INTO row VALUES (?, ?)", zip(profiles, map(bytes, packed), strict=True))
    if packing.before:
        out.commit()
        out.execute("DETACH before")


def _taken_over(out: sqlite3.Connection, layout: Layout, profiles: Sequence[str]) -> np.ndarray:
    """The features of these profiles, in order of their ids, as they lie in the publication before."""
    query = "SELECT profile_id, packed FROM before.row WHERE profile_id BETWEEN ? AND ? ORDER BY 1"
    known = dict(out.execute(query, [profiles[0], profiles[-1]]).fetchall())
    return np.stack([layout.features(known[profile]) for profile in profiles])


def _people(
    con: duckdb.DuckDBPyConnection, tasks: Sequence[str], served: Mapping[str, Batch], purposes: Mapping[str, str],
    refused: str,
) -> Iterator[tuple[list[str], np.ndarray]]:  # fmt: skip
    """Profiles in order of their ids, of whom a task's batch says anything, and the state of each in each task."""
    if not tasks:
        return
    batches = " UNION ALL ".join(
        f"""SELECT profile_id, {place} AS place, CASE WHEN value IS NULL THEN {STATES["insufficient"]}
            ELSE {STATES["scored"]} END AS state FROM read_parquet('{quote(served[task].file)}')"""
        for place, task in enumerate(tasks)
    )
    listed = ", ".join(
        f"""(coalesce(max(state) FILTER (place = {place}), 0)
            + CASE WHEN count(*) FILTER (r.purpose = '{quote(purposes[task])}') > 0 THEN {REFUSED} ELSE 0 END)::UTINYINT
            AS s{place}""" for place, task in enumerate(tasks)
    )  # fmt: skip
    found = con.sql(
        f"""SELECT profile_id, {listed} FROM ({batches}) LEFT JOIN ({refused}) r USING (profile_id)
            SEMI JOIN profiles USING (profile_id) GROUP BY 1 ORDER BY 1"""
    ).to_arrow_table()
    for some in found.to_batches(CHUNK):
        states = np.column_stack([some[f"s{place}"].to_numpy() for place in range(len(tasks))])
        yield some["profile_id"].to_pylist(), states.astype(np.uint8)
