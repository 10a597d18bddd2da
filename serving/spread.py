"""How is everyone scored on Spark? Each worker reads and answers its part, by the code that the batch runs here.

The models go to the workers once, pickled. What they answer is written as Parquet, in order of the profiles' ids, and
staged from there in the chunks of the batch: percentiles, reasons and contracts are then made as they always are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from features.wide import Shape
from lake.spark import Connection, landed
from models.registry import Champion
from serving.contract import mix
from serving.evidence import Evidence
from serving.stream import Asked, Batch, Progress, keep, kept
from serving.stream import answered as answers_of

NOT_ASKED, SCORED, LACKING = 0, 1, 2


@dataclass(frozen=True)
class Question:
    """What a worker is told of a task. places: of the model's columns among those that are read."""

    bit: int
    model: Champion
    evidence: Evidence
    views: Sequence[str]
    places: np.ndarray


def answered(
    con: duckdb.DuckDBPyConnection, cluster: Connection, batch: Batch, asked: Sequence[Asked], mask: np.ndarray,
    evidence: dict[str, Evidence], known: dict[str, np.ndarray], progress: Progress,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """What was found of each chunk, in order, staged: what serving.stream finds of it on this machine."""
    ends = [*batch.chunks[1:], len(batch.profiles)]
    staged = [batch.staging.load(chunk) for chunk in range(len(ends))]
    if all(done is not None for done in staged):
        yield from (done for done in staged if done is not None)
        return
    numbers = pa.array(np.arange(len(batch.profiles), dtype=np.int64))
    people = {"nr": numbers, "profile_id": batch.profiles, "mask": pa.array(mask.astype(np.int64))}
    cluster.register("people", pa.table(people))
    query, shape = batch.wide.query("people")
    questions = [
        Question(1 << place, one.model, evidence[one.name], batch.wide.views[one.name], batch.wide.places[one.name])
        for place, one in enumerate(asked)
    ]
    progress(f"scoring {len(batch.profiles):,} profiles on Spark")
    # in order, so that of the files that are written each holds a run of profiles
    rows = cluster.frame(query).repartitionByRange("nr").sortWithinPartitions("nr")
    made = rows.mapInArrow(worker(questions, shape, batch.cutoff), columns_of(len(asked)))
    with landed(batch.project, made) as table:
        for chunk, (start, end) in enumerate(zip(batch.chunks, ends, strict=True)):
            if (done := staged[chunk]) is None:
                found = con.sql(f"FROM {table} WHERE nr >= {start} AND nr < {end} ORDER BY nr").to_arrow_table()
                done = _done(found, asked)
                done["kept"] = kept(asked, done, batch.wanted[start:end], known)
                keep(batch, chunk, done, _matrix(found["features"], len(batch.wide.columns)))
            yield done


def columns_of(tasks: int) -> str:
    """What a worker answers, as Spark's schema: ids are two numbers of 64 bits, which have a sign there."""
    each = ", ".join(f"state{i} INT, value{i} DOUBLE, high{i} BIGINT, low{i} BIGINT" for i in range(tasks))
    return f"nr BIGINT, features ARRAY<DOUBLE>, {each}"


def worker(
    questions: Sequence[Question], shape: Shape, cutoff: datetime
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker does with the rows of its part, some thousands at a time."""

    def work(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            yield answer(pa.Table.from_batches([part]), questions, shape, cutoff)

    return work


def answer(rows: pa.Table, questions: Sequence[Question], shape: Shape, cutoff: datetime) -> pa.RecordBatch:
    """Of rows (nr, profile_id, mask, and what `shape` says) what each question is answered: columns_of."""
    n, mask = len(rows), rows["mask"].to_numpy()
    X, absent = shape.numbers(rows)
    profiles, mixed = rows["profile_id"].combine_chunks(), mix(X)
    profiles = pa.concat_arrays(profiles.chunks) if isinstance(profiles, pa.ChunkedArray) else profiles
    ends = pa.array(np.arange(n + 1, dtype=np.int32) * X.shape[1])
    made = {"nr": rows["nr"].to_numpy(), "features": pa.ListArray.from_arrays(ends, pa.array(X.ravel()))}
    for i, one in enumerate(questions):
        at = np.flatnonzero(mask & one.bit)
        found = answers_of(one.model, cutoff, one.evidence, one.views, profiles, at, one.places, X, absent, mixed)
        state, values, ids = np.zeros(n, np.int32), np.zeros(n), np.zeros((n, 2), np.uint64)
        state[found["lacking"]], state[found["at"]] = LACKING, SCORED
        values[found["at"]], ids[found["at"]] = found["values"], found["ids"]
        high, low = np.ascontiguousarray(ids.T).view(np.int64)
        made |= {f"state{i}": state, f"value{i}": values, f"high{i}": high, f"low{i}": low}
    return pa.RecordBatch.from_pydict(made)


def _done(found: pa.Table, asked: Sequence[Asked]) -> dict[str, np.ndarray]:
    """What workers answered, as serving.stream has it of a chunk."""
    done: dict[str, np.ndarray] = {}
    for i, one in enumerate(asked):
        state = found[f"state{i}"].to_numpy()
        at = np.flatnonzero(state == SCORED)
        ids = np.stack([found[f"{half}{i}"].to_numpy()[at] for half in ("high", "low")], axis=1)
        done |= {
            f"lacking {one.name}": np.flatnonzero(state == LACKING).astype(np.int32),
            f"at {one.name}": at.astype(np.int32), f"values {one.name}": found[f"value{i}"].to_numpy()[at],
            f"ids {one.name}": np.ascontiguousarray(ids).view(np.uint64),
        }  # fmt: skip
    return done


def _matrix(rows: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.concatenate([np.empty(0), *(part.flatten().to_numpy() for part in rows.chunks)]).reshape(-1, width)
