"""How are millions scored in little memory? A chunk of profiles at a time, each read once for all tasks, and staged.

Every chunk is read and answered: values, ids, and the rows of features go to files (serving.staging); of each profile
only value and id stay in memory, as a percentile is counted among all. What was staged before a kill is not done again.
Then scores are written (serving.writing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from features.wide import Wide
from foretell.declarations import PredictionTask
from foretell.project import Project
from lake.engine import last_batch, session, workers
from lake.scored import ROWS
from models.registry import Champion
from serving.batch import empty_rows
from serving.contract import answers, mix, score_ids, unhexed
from serving.evidence import Empty, Evidence
from serving.reasons import is_among
from serving.staging import Staging, key_of
from training import dataset
from unification.identity import rules

CHUNK_BYTES = 1 << 24  # of the features of a chunk, as numbers; a model takes several times as much
MEMORY = "600MB"  # of the engine, which joins no more than a chunk, unless the settings say otherwise
FORM = "1"  # of what is staged

Progress = Callable[[str], None]
Rows = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]  # of a chunk: see _read
Item = TypeVar("Item")
Made = TypeVar("Made")


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
    with small_session(project) as con, workers(project, con) as cluster:
        profiles, mask, refused = _people(cluster, project, asked, cutoff)
        wide, evidence, of_nobody = Wide(project, cutoff), {}, {}
        for one in asked:
            views = project.definitions.views_of(one.task)
            columns = one.model.contract["columns"]
            wide.add(one.name, views, columns, one.model.categories)
            empty = empty_rows(con, project, one.model, views, cutoff, of_nobody)
            evidence[one.name] = Evidence(one.name, columns, empty)
        wanted = np.ones(len(profiles), dtype=bool)
        if members is not None:
            wanted = is_among(profiles, members)
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
        known = {one.name: known_ids(con, one.name, cutoff) for one in asked}
        if cluster is con:
            parts = list(_answered(con, batch, asked, mask, evidence, known, progress))
        else:
            from serving import spread

            parts = list(spread.answered(con, cluster, batch, asked, mask, evidence, known, progress))
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
    con: Any, project: Project, asked: Sequence[Asked], cutoff: datetime
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


def known_ids(con: duckdb.DuckDBPyConnection, task: str, cutoff: datetime) -> np.ndarray:
    """(n, 2): the ids that there are of a task's scores at a cutoff, in order."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'stored_scores'").fetchall():
        return np.empty((0, 2), dtype=np.uint64)
    query = "SELECT score_id FROM stored_scores WHERE task = ? AND cutoff = ?"
    found = unhexed(con.sql(query, params=[task, cutoff]).to_arrow_table()["score_id"])
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def is_known(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    if not len(known):
        return np.zeros(len(ids), dtype=bool)
    place = np.minimum(np.searchsorted(known[:, 0], ids[:, 0]), len(known) - 1)
    return (known[place] == ids).all(axis=1)


def _answered(
    con: duckdb.DuckDBPyConnection, batch: Batch, asked: Sequence[Asked], mask: np.ndarray,
    evidence: dict[str, Evidence], known: dict[str, np.ndarray], progress: Progress,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """What was found of each chunk, in order, staged. While some are answered and written, a thread each, the next is
    read."""
    ends = [*batch.chunks[1:], len(batch.profiles)]
    staged = [batch.staging.load(chunk) for chunk in range(len(ends))]
    todo = [chunk for chunk, done in enumerate(staged) if done is None]

    def read(chunk: int) -> tuple[int, Rows]:
        return chunk, _read(con, batch, chunk, ends[chunk])

    def work(one: tuple[int, Rows]) -> dict[str, np.ndarray]:
        chunk, rows = one
        done = _chunk(batch, chunk, asked, mask[batch.chunks[chunk] : ends[chunk]], evidence, known, *rows)
        keep(batch, chunk, done, rows[0])
        return done

    threads = int(batch.project.setting("threads"))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as workers:
        made = ahead(workers, work, ahead(reader, read, todo, 1), threads)
        for chunk, done in enumerate(staged):
            if done is None:
                progress(f"scoring {ends[chunk]:,} of {len(batch.profiles):,} profiles")
            yield next(made) if done is None else done


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Made], items: Iterable[Item], most: int
) -> Iterator[Made]:
    """What a function makes of each item, in order, by the threads of a pool: so many before they are asked for."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        del item  # what is made of it holds it as long as it must
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(con: duckdb.DuckDBPyConnection, batch: Batch, chunk: int, end: int) -> Rows:
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
    done: dict[str, np.ndarray] = {}
    for place, one in enumerate(asked):
        at = np.flatnonzero(mask & np.uint64(1 << place))
        views, columns = batch.wide.views[one.name], batch.wide.places[one.name]
        found = answered(one.model, batch.cutoff, evidence[one.name], views, profiles, at, columns, X, absent, mixed)
        done |= {f"{what} {one.name}": values for what, values in found.items()}
    done["kept"] = kept(asked, done, wanted, known)
    return done


def answered(
    model: Champion, cutoff: datetime, evidence: Evidence, views: Sequence[str], profiles: pa.Array, at: np.ndarray,
    columns: np.ndarray, X: np.ndarray, absent: dict[str, np.ndarray], mixed: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A task's answers for those at these places of some profiles: values and ids, of whom (at), and who is lacking.

    columns: where the model's columns stand among those of X; views: its views, of which `absent` says who has no row.
    """
    rows = _of(X, at, columns)
    lacking = evidence.lacking(rows)
    for view in views:
        if view in absent:
            lacking |= absent[view][at]
    left_out = at[lacking].astype(np.int32)
    if lacking.any():
        at, rows = at[~lacking], rows[~lacking]
    values = answers(model, rows, cutoff) if len(at) else np.empty(0)
    who = profiles if len(at) == len(profiles) else profiles.take(pa.array(at))
    ids = score_ids(model, cutoff, who, rows, mixed=_of(mixed, at, columns))
    return {"lacking": left_out, "at": at.astype(np.int32), "values": values, "ids": ids}


def kept(
    asked: Sequence[Asked], done: dict[str, np.ndarray], wanted: np.ndarray, known: dict[str, np.ndarray]
) -> np.ndarray:
    """The places in a chunk of those wanted who get a score that is new: their features are to be kept."""
    scored = np.zeros(len(wanted), dtype=bool)
    for one in asked:
        scored[done[f"at {one.name}"]] |= ~is_known(done[f"ids {one.name}"], known[one.name])
    return np.flatnonzero(scored & wanted).astype(np.int32)


def _of(X: np.ndarray, at: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """These rows and columns; X itself if that is all of it, in order."""
    if len(at) == len(X) and len(columns) == X.shape[1] and (np.diff(columns) == 1).all():
        return X
    return X[np.ix_(at, columns)]


def keep(batch: Batch, chunk: int, done: dict[str, np.ndarray], X: np.ndarray) -> None:
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
