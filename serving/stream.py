"""How are millions scored in little memory? A chunk of profiles at a time, each read once for all tasks, and staged.

First every chunk is read and answered: values, ids, and the rows of features go to files (serving.staging); of each
profile only value and id stay in memory, as a percentile is counted among all. Then each task's scores are written to
one file, and become part of the table in one commit: readers see a task's batch whole or not at all. Whatever was
staged or committed before a kill is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.wide import Wide
from foretell.declarations import PredictionTask
from foretell.project import Project
from lake.engine import last_batch, session, table
from lake.scored import COLUMNS, ROWS
from models.registry import Champion
from serving.contract import STORED, Terms, answers, contract_table, mix, percentiles, score_ids, unhexed, why
from serving.evidence import Empty, Evidence, empty_rows
from serving.reasons import Chosen
from serving.staging import Staging, key_of
from training import dataset
from unification.identity import rules

CHUNK_BYTES = 1 << 24  # of the features of a chunk, as numbers; a model takes several times as much
MEMORY = "600MB"  # of the engine, which joins no more than a chunk, unless the settings say otherwise
SLICE = 100_000  # scores that are made into rows of the table at a time
FORM = "1"  # of what is staged

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A task, as it was when its champion was trained, and the champion."""

    task: PredictionTask
    model: Champion

    @property
    def name(self) -> str:
        return self.task.name


@dataclass
class Answered:
    """What was found of a task. at: whose values these are, as places among the profiles; lacking: of whom there is
    too little evidence. refused: how many did not agree to the purpose. eligible: at and lacking, of the members."""

    at: np.ndarray
    values: np.ndarray
    ids: np.ndarray
    lacking: np.ndarray
    refused: int
    empty: Empty
    added: int = 0
    reasons: int = 0
    seconds: float = 0.0


@dataclass
class Batch:
    """A batch that has been answered, and is to be written. wanted: of which profiles scores are written. chunks: where
    each begins; kept: by chunk, of whose profiles there is a row of features in its file, as places in the chunk."""

    project: Project
    cutoff: datetime
    number: int
    profiles: pa.Array
    wanted: np.ndarray
    wide: Wide
    staging: Staging
    chunks: list[int]
    kept: list[np.ndarray] = field(default_factory=list)
    found: dict[str, Answered] = field(default_factory=dict)


@contextmanager
def small_session(project: Project) -> Iterator[duckdb.DuckDBPyConnection]:
    """A lake session that keeps little in memory."""
    with session(project) as con:
        if project.settings["memory"].origin == "default":
            con.execute("SET memory_limit=?", [MEMORY])
        yield con


def answer(
    project: Project, asked: Sequence[Asked], cutoff: datetime, members: pa.Array | None = None,
    progress: Progress = lambda _: None,
) -> Batch:  # fmt: skip
    """Answer each task for everyone eligible at a cutoff that is built. Nothing is written but what is staged.

    members: the profiles of whom scores are wanted; the others count for percentiles alone. None: everyone.
    """
    with small_session(project) as con:
        profiles, mask, refused = _people(con, project, asked, cutoff)
        wide, evidence = Wide(project, cutoff), {}
        for one in asked:
            views = project.definitions.views_of(one.task)
            columns = one.model.contract["columns"]
            wide.add(one.name, views, columns, one.model.categories)
            evidence[one.name] = Evidence(one.name, columns, empty_rows(con, project, one.model, views, cutoff))
        wanted = np.ones(len(profiles), dtype=bool)
        if members is not None:
            wanted = pc.is_in(profiles, value_set=members).to_numpy(zero_copy_only=False)
        size = max(1, CHUNK_BYTES // wide.row_bytes)
        number = last_batch(project)
        said = [
            FORM, cutoff, number, rules(project), size, [vars(c) for c in wide.columns], wide.files(),
            [(a.name, a.model.version, a.model.run_id, evidence[a.name].empty) for a in asked],
        ]  # fmt: skip
        text = np.frombuffer(profiles.buffers()[2] or b"", dtype=np.uint8)
        staging = Staging(project, key_of(said, text, mask, wanted))
        batch = Batch(
            project, cutoff, number, profiles, wanted, wide, staging, list(range(0, len(profiles), size))
        )  # fmt: skip
        known = {one.name: _known(con, one.name, cutoff) for one in asked}
        parts = list(_answered(con, batch, asked, mask, evidence, known, progress))
    batch.kept = [part["kept"] for part in parts]
    for one in asked:
        batch.found[one.name] = Answered(
            _joined([p[f"at {one.name}"].astype(np.int64) + s for p, s in zip(parts, batch.chunks, strict=True)], int),
            _joined([p[f"values {one.name}"] for p in parts], float),
            _joined([p[f"ids {one.name}"] for p in parts], np.uint64).reshape(-1, 2),
            _joined([p[f"lacking {one.name}"].astype(np.int64) + s
                     for p, s in zip(parts, batch.chunks, strict=True)], int),
            refused[one.name], evidence[one.name].empty,
        )  # fmt: skip
    return batch


def _joined(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def _people(
    con: duckdb.DuckDBPyConnection, project: Project, asked: Sequence[Asked], cutoff: datetime
) -> tuple[pa.Array, np.ndarray, dict[str, int]]:
    """Who is eligible for any task, in order of their ids; a bit for each task that they are; how many may not be."""
    refused, parts = {}, ["SELECT NULL::VARCHAR AS profile_id, 0::UBIGINT AS bit WHERE false"]
    for place, one in enumerate(asked):
        refused[one.name] = dataset.population_table(con, project, one.task, cutoff, f"people_{place}")
        parts.append(f"SELECT profile_id, {1 << place}::UBIGINT FROM people_{place}")
    query = f"SELECT profile_id, bit_or(bit) AS mask FROM ({' UNION ALL '.join(parts)}) GROUP BY 1 ORDER BY 1"
    found = con.sql(query).to_arrow_table()
    for place in range(len(asked)):
        con.execute(f"DROP TABLE people_{place}")
    profiles = found["profile_id"].combine_chunks()
    profiles = pa.concat_arrays(profiles.chunks) if isinstance(profiles, pa.ChunkedArray) else profiles
    return profiles, found["mask"].to_numpy().astype(np.uint64), refused


def _known(con: duckdb.DuckDBPyConnection, task: str, cutoff: datetime) -> np.ndarray:
    """(n, 2): the ids that there are of a task's scores at a cutoff, in order."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'stored_scores'").fetchall():
        return np.empty((0, 2), dtype=np.uint64)
    query = "SELECT score_id FROM stored_scores WHERE task = ? AND cutoff = ?"
    found = unhexed(con.sql(query, params=[task, cutoff]).to_arrow_table()["score_id"])
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _is_known(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    if not len(known):
        return np.zeros(len(ids), dtype=bool)
    place = np.minimum(np.searchsorted(known[:, 0], ids[:, 0]), len(known) - 1)
    return (known[place] == ids).all(axis=1)


def _answered(
    con: duckdb.DuckDBPyConnection, batch: Batch, asked: Sequence[Asked], mask: np.ndarray,
    evidence: dict[str, Evidence], known: dict[str, np.ndarray], progress: Progress,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """What was found of each chunk, in order, staged. While the models answer one, the next is read and the last is
    written, by threads of their own: neither holds up the other."""
    ends = [*batch.chunks[1:], len(batch.profiles)]
    staged = [batch.staging.load(chunk) for chunk in range(len(ends))]
    todo = [chunk for chunk, done in enumerate(staged) if done is None]
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = [reader.submit(_read, con, batch, chunk, ends[chunk]) for chunk in todo[:1]]
        leaving: list[Future[None]] = []
        for chunk, done in enumerate(staged):
            if done is None:
                progress(f"scoring {ends[chunk]:,} of {len(batch.profiles):,} profiles")
                rows = coming.pop().result()
                if after := [later for later in todo if later > chunk][:1]:
                    coming.append(reader.submit(_read, con, batch, after[0], ends[after[0]]))
                done = _chunk(batch, chunk, asked, mask[batch.chunks[chunk] : ends[chunk]], evidence, known, *rows)
                if leaving:
                    leaving.pop().result()  # one at a time waits to be written
                leaving.append(writer.submit(_keep, batch, chunk, done, rows[0]))
            yield done
        for last in leaving:
            last.result()


def _read(
    con: duckdb.DuckDBPyConnection, batch: Batch, chunk: int, end: int
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """The features of a chunk, who has no row of which view, and the hashes of the features."""
    start = batch.chunks[chunk]
    X, absent = batch.wide.read(con, batch.profiles.slice(start, end - start))
    return X, absent, mix(X)


def _chunk(
    batch: Batch, chunk: int, asked: Sequence[Asked], mask: np.ndarray, evidence: dict[str, Evidence],
    known: dict[str, np.ndarray], X: np.ndarray, absent: dict[str, np.ndarray], mixed: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Answer one chunk. kept: the places of those who get a score that is new, whose features are to be kept."""
    start = batch.chunks[chunk]
    profiles, wanted = batch.profiles.slice(start, len(mask)), batch.wanted[start : start + len(mask)]
    scored = np.zeros(len(mask), dtype=bool)
    done: dict[str, np.ndarray] = {}
    for place, one in enumerate(asked):
        at, columns = np.flatnonzero(mask & np.uint64(1 << place)), batch.wide.places[one.name]
        rows = _of(X, at, columns)
        lacking = evidence[one.name].lacking(rows)
        for view in batch.wide.views[one.name]:
            if view in absent:
                lacking |= absent[view][at]
        done[f"lacking {one.name}"] = at[lacking].astype(np.int32)
        if lacking.any():
            at, rows = at[~lacking], rows[~lacking]
        done[f"at {one.name}"] = at.astype(np.int32)
        done[f"values {one.name}"] = answers(one.model, rows, batch.cutoff) if len(at) else np.empty(0)
        who = profiles if len(at) == len(profiles) else profiles.take(pa.array(at))
        ids = score_ids(one.model, batch.cutoff, who, rows, mixed=_of(mixed, at, columns))
        done[f"ids {one.name}"] = ids
        scored[at] |= ~_is_known(ids, known[one.name])
    done["kept"] = np.flatnonzero(scored & wanted).astype(np.int32)
    return done


def _of(X: np.ndarray, at: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """These rows and columns; X itself if that is all of it, in order."""
    if len(at) == len(X) and len(columns) == X.shape[1] and (np.diff(columns) == 1).all():
        return X
    return X[np.ix_(at, columns)]


def _keep(batch: Batch, chunk: int, done: dict[str, np.ndarray], X: np.ndarray) -> None:
    """Stage a chunk: first the rows of features, then what was found."""
    kept = done["kept"]
    if len(kept):
        values = X if len(kept) == len(X) else X[kept]
        ends = pa.array(np.arange(len(kept) + 1, dtype=np.int32) * X.shape[1])
        profiles = batch.profiles.take(pa.array(kept.astype(np.int64) + batch.chunks[chunk]))
        made = pa.table(
            [_one_text(batch.staging.key, len(kept)), profiles,
             pa.ListArray.from_arrays(ends, pa.array(values.ravel()))], names=ROWS.names,
        )  # fmt: skip
        batch.staging.write(batch.staging.rows(chunk), made.schema, lambda: [made], ["rows", "profile_id"])
    batch.staging.keep(chunk, done)


def _one_text(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


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
                known = _known(con, one.name, batch.cutoff)
            new = np.flatnonzero(batch.wanted[found.at] & ~_is_known(found.ids, known))
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
        said |= dict(zip(places.tolist(), why(one.model, np.ascontiguousarray(X[:, columns])), strict=True))
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
