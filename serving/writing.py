"""How does a batch become facts? The rows of features first, then each task's scores: one file, one commit.

Readers see a task's batch whole or not at all. What was committed before a kill is not committed again: files are named
by what they are of, and scores that are known by their id are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.engine import table
from lake.scored import COLUMNS, ROWS
from serving.contract import STORED, Terms, contract_table, percentiles
from serving.reasons import Chosen
from serving.stream import Asked, Batch, is_known, known_ids, small_session

SLICE = 100_000  # scores that are made into rows of the table at a time

Progress = Callable[[str], None]


def write(batch: Batch, asked: Sequence[Asked], reasons: Chosen, progress: Progress = lambda _: None) -> None:
    """Write what was answered: the rows of features, then each task's scores in one commit."""
    project, staging = batch.project, batch.staging
    files = [staging.rows(chunk) for chunk, kept in enumerate(batch.kept) if len(kept)]
    if files:
        progress("keeping the rows of features")
        table(project, "scored_rows").adopt(files, ROWS, why="score: rows of features")
        _say_columns(batch, asked)
    with ThreadPoolExecutor(2) as writers:
        under_way: list[tuple[Asked, int, Future[None]]] = []
        for one in asked:
            found = batch.found[one.name]
            with small_session(project) as con:
                known = known_ids(con, one.name, batch.cutoff)
            new = np.flatnonzero(batch.wanted[found.at] & ~is_known(found.ids, known))
            if len(new):
                progress(f"{one.name}: writing {len(new):,} scores")
                said = _reasons(batch, one, new, reasons, progress)
                under_way.append((one, len(new), writers.submit(_file, batch, one, new, said)))
        for one, count, file in under_way:
            file.result()
            why_so = f"score {one.name} v{one.model.version}"
            table(project, "scores").adopt([staging.scores(one.name)], STORED, why=why_so)
            batch.found[one.name].added = count


def _file(batch: Batch, one: Asked, new: np.ndarray, said: dict[int, list]) -> None:
    """Write the new scores of a task to its file."""
    tables = _contracts(batch, one, new, said)
    first = next(tables)
    file = batch.staging.scores(one.name)
    batch.staging.write(file, first.schema, lambda: _after(first, tables), ["cutoff", "profile_id"])


def _after(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _say_columns(batch: Batch, asked: Sequence[Asked]) -> None:
    """Write down which features stand where in the rows of this batch, once."""
    stored, said = table(batch.project, "scored_columns"), set()
    if files := stored.files():
        query = f"SELECT task FROM {stored.scan(files)} WHERE rows = ?"
        said = {task for (task,) in duckdb.execute(query, [batch.staging.key]).fetchall()}
    rows = [
        {"rows": batch.staging.key, "task": one.name, "columns": list(one.model.contract["columns"]),
         "places": [int(place) + 1 for place in batch.wide.places[one.name]]}
        for one in asked if one.name not in said
    ]  # fmt: skip
    if rows:
        stored.append(pa.Table.from_pylist(rows, COLUMNS), why="score: names of features")


def _reasons(batch: Batch, one: Asked, new: np.ndarray, chosen: Chosen, progress: Progress) -> dict[int, list]:
    """Place among the task's answers -> its reasons, of those chosen among the profiles wanted. What they cost is
    noted."""
    found, began = batch.found[one.name], time.perf_counter()
    if chosen.nobody:
        return {}
    mine = np.flatnonzero(batch.wanted[found.at])
    picked = mine[chosen.among(batch.profiles.take(pa.array(found.at[mine])), found.values[mine])]
    picked = np.intersect1d(picked, new)
    said: dict[int, list] = {}
    ends = [*batch.chunks[1:], len(batch.profiles)]
    for chunk, (start, end) in enumerate(zip(batch.chunks, ends, strict=True)):
        low, high = np.searchsorted(found.at[picked], [start, end])
        if low == high:
            continue
        progress(f"{one.name}: reasons for {high:,} of {len(picked):,}")
        places = picked[low:high]
        X = _stored(batch, chunk)[np.searchsorted(batch.kept[chunk], found.at[places] - start)]
        columns = batch.wide.places[one.name]
        said |= dict(zip(places.tolist(), one.model.reasons(np.ascontiguousarray(X[:, columns])), strict=True))
    found.reasons, found.seconds = len(picked), time.perf_counter() - began
    return said


def _stored(batch: Batch, chunk: int) -> np.ndarray:
    """The rows of features of a chunk, as they were written."""
    values = pq.read_table(batch.staging.rows(chunk), columns=["values"])["values"]
    flat = np.concatenate([part.flatten().to_numpy() for part in values.chunks])
    return flat.reshape(len(batch.kept[chunk]), -1)


def _contracts(batch: Batch, one: Asked, new: np.ndarray, said: dict[int, list]) -> Iterator[pa.Table]:
    found, at = batch.found[one.name], datetime.now(UTC)
    terms = Terms(batch.cutoff, batch.cutoff + one.task.horizon, batch.number, one.task.purpose)
    shares = percentiles(np.sort(found.values), found.values)
    for start in range(0, len(new), SLICE):
        some = new[start : start + SLICE]
        reasons = [said.get(place) for place in some.tolist()] if said else [None] * len(some)
        yield contract_table(
            one.model, terms, batch.staging.key, found.ids[some], batch.profiles.take(pa.array(found.at[some])),
            found.values[some], shares[some], reasons, at,
        )  # fmt: skip
