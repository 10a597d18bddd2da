"""How does a batch become facts? The rows of features first, then each task's scores: one file, one commit.

Readers see a task's batch whole or not at all. What was committed before a kill is not committed again: files are named
by what they are of, and scores that are known by their id are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.engine import table
from lake.scored import COLUMNS, ROWS
from serving import batch as last
from serving.contract import STORED, Terms, contract_table, percentiles, reasons_column
from serving.reasons import Chosen
from serving.stream import Asked, Batch, ahead, is_known, known_ids, small_session

TOGETHER = 2  # files that are written at a time

Progress = Callable[[str], None]


@dataclass
class _Writing:
    """The scores of a task on their way. new: which of its answers are; picked: which of these get reasons; seconds:
    that reasons took."""

    one: Asked
    new: np.ndarray
    picked: np.ndarray
    seconds: list[float] = field(default_factory=list)


def write(batch: Batch, asked: Sequence[Asked], reasons: Chosen, progress: Progress = lambda _: None) -> None:
    """Write what was answered: the rows of features, then each task's scores in one commit, and who they are among."""
    project, staging = batch.project, batch.staging
    files = [staging.rows(chunk) for chunk, kept in enumerate(batch.kept) if len(kept)]
    if files:
        progress("keeping the rows of features")
        table(project, "scored_rows").adopt(files, ROWS, why="score: rows of features")
        _say_columns(batch, asked)
    with small_session(project) as con:
        known = {one.name: known_ids(con, one.name, batch.cutoff) for one in asked}
    threads = int(project.setting("threads"))
    with ThreadPoolExecutor(threads) as workers, ThreadPoolExecutor(TOGETHER) as writers:

        def begin(one: Asked) -> _Writing:
            return _file(batch, one, known[one.name], reasons, workers, progress)

        try:
            for one, made in zip(asked, ahead(writers, begin, asked, len(asked)), strict=True):
                found = batch.found[one.name]
                found.added, found.reasons, found.seconds = len(made.new), len(made.picked), sum(made.seconds)
                if found.added:
                    why_so = f"score {one.name} v{one.model.version}"
                    table(project, "scores").adopt([staging.scores(one.name)], STORED, why=why_so)
                _be_last(batch, one)
        except BaseException:
            workers.shutdown(cancel_futures=True)  # who waits for it to be done ends too
            raise


def _be_last(batch: Batch, one: Asked) -> None:
    """Say who was answered in the task's last batch, and what."""
    found = batch.found[one.name]
    who, lacking = (batch.profiles.take(pa.array(places)) for places in (found.at, found.lacking))
    last.keep(batch.project, one.model, batch.cutoff, who, found.values, lacking, found.empty)


def _file(
    batch: Batch, one: Asked, known: np.ndarray, reasons: Chosen, workers: ThreadPoolExecutor, progress: Progress
) -> _Writing:
    """Write the new scores of a task to its file, with reasons of those chosen among the profiles wanted."""
    found = batch.found[one.name]
    new = np.flatnonzero(batch.wanted[found.at] & ~is_known(found.ids, known))
    made = _Writing(one, new, _picked(batch, one, new, reasons))
    tables = _contracts(batch, made, workers, progress)
    if (first := next(tables, None)) is not None:
        file = batch.staging.scores(one.name)
        batch.staging.write(file, first.schema, lambda: _after(first, tables), ["cutoff", "profile_id"])
    return made


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


def _picked(batch: Batch, one: Asked, new: np.ndarray, chosen: Chosen) -> np.ndarray:
    """Which of the task's new answers get reasons: of those chosen among the profiles wanted."""
    if chosen.nobody or not len(new):
        return new[:0]
    found = batch.found[one.name]
    mine = np.flatnonzero(batch.wanted[found.at])
    picked = mine[chosen.among(batch.profiles.take(pa.array(found.at[mine])), found.values[mine])]
    return np.intersect1d(picked, new, assume_unique=True)


def _contracts(batch: Batch, made: _Writing, workers: ThreadPoolExecutor, progress: Progress) -> Iterator[pa.Table]:
    """The new scores of each chunk as rows of the table, in order."""
    one, at, found = made.one, datetime.now(UTC), batch.found[made.one.name]
    terms = Terms(batch.cutoff, batch.cutoff + one.task.horizon, batch.number, one.task.purpose)
    shares = percentiles(np.sort(found.values), found.values)
    ends = [*batch.chunks[1:], len(batch.profiles)]
    places = np.searchsorted(found.at[made.new], [0, *ends])

    def table_of(chunk: int) -> pa.Table:
        some = made.new[places[chunk] : places[chunk + 1]]
        return contract_table(
            one.model, terms, batch.staging.key, found.ids[some], batch.profiles.take(pa.array(found.at[some])),
            found.values[some], shares[some], _reasons(batch, made, chunk, some), at,
        )  # fmt: skip

    full = [chunk for chunk in range(len(ends)) if places[chunk] < places[chunk + 1]]
    for chunk, rows in zip(full, ahead(workers, table_of, full, 1), strict=True):
        progress(f"{one.name}: writing {places[chunk + 1]:,} of {len(made.new):,} scores")
        yield rows


def _reasons(batch: Batch, made: _Writing, chunk: int, some: np.ndarray) -> pa.Array:
    """The reasons of some answers of a chunk, null of those who get none. What they cost is noted."""
    began, found, one = time.perf_counter(), batch.found[made.one.name], made.one
    low, high = np.searchsorted(made.picked, [some[0], some[-1] + 1])
    picked = made.picked[low:high]
    if not len(picked):
        return pa.nulls(len(some), STORED.field("reasons").type)
    stored = np.searchsorted(batch.kept[chunk], found.at[picked] - batch.chunks[chunk])
    X = _stored(batch, chunk)[np.ix_(stored, batch.wide.places[one.name])]
    column = reasons_column(one.model, X, np.searchsorted(some, picked), len(some))
    made.seconds.append(time.perf_counter() - began)
    return column


def _stored(batch: Batch, chunk: int) -> np.ndarray:
    """The rows of features of a chunk, as they were written."""
    values = pq.read_table(batch.staging.rows(chunk), columns=["values"], use_threads=False)["values"]
    flat = np.concatenate([part.flatten().to_numpy() for part in values.chunks])
    return flat.reshape(len(batch.kept[chunk]), -1)
