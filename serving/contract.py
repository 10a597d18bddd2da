"""What does a score say? Value, interval, percentile, base rate, reasons, versions, cutoff, expiry, feature row.

Rows in, contracts out: nothing is read or written here, so that the batch and the service answer by the same code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

from models.registry import Champion

_STAMP = pa.timestamp("us", tz="UTC")
_REASON = pa.struct(
    [("feature", pa.string()), ("value", pa.float64()), ("effect", pa.float64()), ("text", pa.string())]
)
SCHEMA = pa.schema([
    ("score_id", pa.string()), ("task", pa.string()), ("kind", pa.string()), ("profile_id", pa.string()),
    ("value", pa.float64()), ("value_low", pa.float64()), ("value_high", pa.float64()), ("percentile", pa.float64()),
    ("base_rate", pa.float64()),
    ("reasons", pa.list_(_REASON)), ("model_version", pa.string()), ("estimator", pa.string()),
    ("feature_service", pa.string()), ("features", pa.map_(pa.string(), pa.float64())),
    ("cutoff", _STAMP), ("scored_at", _STAMP), ("expires_at", _STAMP), ("batch", pa.int64()), ("purpose", pa.string()),
])  # fmt: skip
# As it is stored: the features lie elsewhere, once for all tasks that read them (see lake/scored.py).
STORED = pa.schema([
    pa.field("rows", pa.string()) if field.name == "features" else field for field in SCHEMA
])  # fmt: skip

FEW = 64  # scores whose ids are worked out one by one
_BLOCK = 512  # rows whose numbers are mixed at a time: they stay in the processor's cache
_NAN = np.array([np.nan]).view(np.uint64)[0]


@dataclass(frozen=True)
class Terms:
    """What all scores of one task and cutoff share beside the model. batch: the last ingest batch they know."""

    cutoff: datetime
    expires_at: datetime
    batch: int
    purpose: str


def answers(model: Champion, X: np.ndarray, at: datetime) -> np.ndarray:
    """(n,): what the model says of encoded rows, whose columns are the model's in order, as asked at a cutoff."""
    return model.answers(X, at) if len(X) else np.empty(0)


def percentiles(crowd: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of the crowd (sorted) that is no higher than each value, in %."""
    # One row alone and the same row among many may differ in the last bit: as good as equal is equal.
    order = np.argsort(values)  # neighbours are looked up together: several times as fast
    ordered = values[order]
    found = np.empty(len(values))
    found[order] = 100.0 * np.searchsorted(crowd, ordered + 1e-9 * np.abs(ordered), side="right") / len(crowd)
    return found


def contract_rows(
    model: Champion, profiles: Sequence[str], X: pd.DataFrame, crowd: np.ndarray, terms: Terms, *,
    values: np.ndarray | None = None, reasons: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """`contracts` of encoded rows in a table, whatever the order of its columns."""
    rows = X[model.contract["columns"]].to_numpy(dtype=float)
    return contracts(model, profiles, rows, crowd, terms, values=values, reasons=reasons)


def contracts(
    model: Champion, profiles: Sequence[str], X: np.ndarray, crowd: np.ndarray, terms: Terms, *,
    values: np.ndarray | None = None, reasons: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """The score contract of each profile, whose encoded features are the row of X at its place, in the model's order.

    crowd: the sorted values of everyone eligible, among whom the percentile is counted (the share that is no higher, in
    %), so that it means the same whoever is asked about. values: the model's answers, if they are known already.
    reasons: what costs most; without them they are None.
    """
    X = np.ascontiguousarray(X)
    if values is None:
        values = answers(model, X, terms.cutoff)
    shares = percentiles(crowd, values).tolist()
    low, high = ([None if end != end else end for end in side.tolist()] for side in model.interval(values))
    said: list[Any] = list(model.reasons(X)) if reasons else [None] * len(X)
    made = score_ids(model, terms.cutoff, profiles, X).astype("<u8").tobytes().hex()
    shared, plain, columns, told = _shared(model, terms), X.tolist(), model.contract["columns"], values.tolist()
    first = dict.fromkeys(SCHEMA.names) | shared  # the order in which a contract is read
    return [
        {
            **first, "score_id": made[32 * i : 32 * i + 32], "profile_id": profile, "value": told[i],
            "value_low": low[i], "value_high": high[i], "percentile": shares[i], "reasons": said[i],
            "features": list(zip(columns, plain[i], strict=True)),
        }
        for i, profile in enumerate(profiles)
    ]  # fmt: skip


def contract_table(
    model: Champion, terms: Terms, rows: str, ids: np.ndarray, profiles: pa.Array, values: np.ndarray,
    shares: np.ndarray, reasons: pa.Array, scored_at: datetime,
) -> pa.Table:  # fmt: skip
    """The same contracts as a table in the form they are stored in: STORED. rows: the set their features are in;
    reasons: see reasons_column."""
    n = len(values)
    low, high = model.interval(values)
    made: dict[str, Any] = {
        "score_id": hexed(ids), "profile_id": profiles, "value": pa.array(values),
        "value_low": pa.array(low, from_pandas=True), "value_high": pa.array(high, from_pandas=True),
        "percentile": pa.array(shares), "reasons": reasons,
    }  # fmt: skip
    for name, value in {**_shared(model, terms), "scored_at": scored_at, "rows": rows}.items():
        kind = STORED.field(name).type
        if pa.types.is_string(kind):  # one text, n times: by number
            made[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value], kind))
        else:
            made[name] = pa.repeat(pa.scalar(value, kind), n)
    return pa.table([made[name] for name in STORED.names], names=STORED.names)


def reasons_column(model: Champion, X: np.ndarray, at: np.ndarray, n: int) -> pa.Array:
    """(n,): the reasons of encoded rows at these places (in order), null at all others; as `contracts` has them."""
    said = model.reasons_in_columns(X)
    counts, without = np.zeros(n + 1, dtype=np.int32), np.ones(n, dtype=bool)
    counts[at + 1], without[at] = said.counts, False
    names = pa.DictionaryArray.from_arrays(pa.array(said.feature.astype(np.int32)), pa.array(said.names, pa.string()))
    parts = [
        names.dictionary_decode(), pa.array(said.value, mask=~np.isfinite(said.value)), pa.array(said.effect),
        pa.array(said.text, pa.string()),
    ]  # fmt: skip
    rows = pa.StructArray.from_arrays(parts, fields=list(_REASON))
    return pa.ListArray.from_arrays(pa.array(np.cumsum(counts, dtype=np.int32)), rows, mask=pa.array(without))


def _shared(model: Champion, terms: Terms) -> dict[str, Any]:
    return {
        "task": model.task, "kind": model.contract["kind"], "base_rate": model.contract["base_rate"],
        "model_version": model.version, "estimator": model.contract["estimator"],
        "feature_service": model.contract["service"], "cutoff": terms.cutoff, "scored_at": datetime.now(UTC),
        "expires_at": terms.expires_at, "batch": terms.batch, "purpose": terms.purpose,
    }  # fmt: skip


# --- ids --------------------------------------------------------------------------------------------------------------


def score_ids(
    model: Champion, cutoff: datetime, profiles: Sequence[str] | pa.Array, X: np.ndarray, *,
    mixed: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """(n, 2) uint64: the id of each score, a digest of task, model, profile, cutoff and encoded feature row.

    The same question has the same id, in a batch and alone: scoring that was killed half way is repaired by scoring
    again. mixed: `mix(X)`, if it is known already; then X is not read.
    """
    seed = _seed(model.task, model.version, model.run_id, cutoff.astimezone(UTC).isoformat())
    if mixed is None and len(X) <= FEW:  # what costs is not the numbers, but to begin with each of them
        words = _padded(profiles)
        return _few_ids(
            words, np.ascontiguousarray(X), _factors(words.shape[1], "profile"), _factors(X.shape[1], "row"), seed
        )
    rows = _lanes(mix(X) if mixed is None else mixed, "row")
    made = _mix(_lanes(_words(profiles), "profile") + seed) + rows
    first = _mix(made[:, 0] + _mix(made[:, 1]))
    return np.stack([first, _mix(made[:, 1] ^ _turned(first))], axis=1)


@lru_cache(maxsize=256)
def _seed(*asked: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(json.dumps(asked).encode()).digest()[:16], dtype="<u8")


def hexed(ids: np.ndarray) -> pa.Array:
    """Ids as text, 32 hexadecimal digits each."""
    text = pa.py_buffer(np.ascontiguousarray(ids, dtype="<u8").tobytes().hex().encode())
    ends = pa.py_buffer(np.arange(0, 32 * len(ids) + 1, 32, dtype=np.int32))
    return pa.StringArray.from_buffers(len(ids), ends, text)


def unhexed(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n, 2) uint64 of ids as text; none of those that are no 32 hexadecimal digits."""
    text = "".join(i for i in ids.to_pylist() if len(i) == 32)
    return np.frombuffer(bytes.fromhex(text), dtype="<u8").reshape(-1, 2)


def mix(X: np.ndarray) -> np.ndarray:
    """A hash of each number of X by itself, shape as X. All that is no number is the same, and so are 0.0 and -0.0."""
    found = np.empty(X.shape, dtype=np.uint64)
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK] + 0.0
        block[np.isnan(block)] = np.nan
        found[start : start + _BLOCK] = _mix(block.view(np.uint64))
    return found


@njit(cache=True, nogil=True)
def _mixed(x: Any) -> Any:
    """64 bits into 64 others (the finaliser of MurmurHash3); 0 into 0."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


def _mix(x: np.ndarray) -> np.ndarray:
    """The same of many at once."""
    x = x ^ (x >> np.uint64(33))
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x


def _turned(x: np.ndarray) -> np.ndarray:
    return (x << np.uint64(29)) | (x >> np.uint64(35))


def _lanes(hashed: np.ndarray, what: str) -> np.ndarray:
    """(n, 2): two sums of a row's hashes, each times an odd number of its place, so that order counts."""
    found = np.empty((len(hashed), 2), dtype=np.uint64)
    first, second = np.ascontiguousarray(_factors(hashed.shape[1], what).T)
    _sum_lanes(np.ascontiguousarray(hashed), first, second, found)
    return _mix(found)


@njit(cache=True, nogil=True)
def _sum_lanes(hashed: Any, first: Any, second: Any, found: Any) -> None:
    for i in range(len(hashed)):
        one, other = np.uint64(0), np.uint64(0)
        for k in range(hashed.shape[1]):
            one += hashed[i, k] * first[k]
            other += hashed[i, k] * second[k]
        found[i, 0], found[i, 1] = one, other


@lru_cache(maxsize=256)
def _factors(count: int, what: str) -> np.ndarray:
    drawn = b"".join(hashlib.sha256(f"{what} {place}".encode()).digest()[:16] for place in range(count))
    return np.frombuffer(drawn, dtype="<u8").reshape(count, 2) | np.uint64(1)


def _words(profiles: Sequence[str] | pa.Array) -> np.ndarray:
    """(n, k): ids as numbers of eight bytes, hashed; what is beyond an id's end is 0, and adds nothing."""
    if isinstance(profiles, pa.StringArray) and (found := _equally_long(profiles)) is not None:
        return found
    return _mix(_padded(profiles))


def _padded(profiles: Sequence[str] | pa.Array) -> np.ndarray:
    """(n, k): ids as numbers of eight bytes."""
    coded = [str(profile).encode() for profile in profiles]
    width = -(-max(map(len, coded), default=1) // 8) * 8 or 8
    return np.frombuffer(b"".join(c.ljust(width, b"\0") for c in coded), dtype="<u8").reshape(len(coded), -1)


def _equally_long(profiles: pa.StringArray) -> np.ndarray | None:
    """The same of ids that are all as long, without making an object of each; None of others."""
    if not len(profiles):
        return None
    _, ends, text = profiles.buffers()
    places = np.frombuffer(ends, dtype=np.int32)[profiles.offset :][: len(profiles) + 1]
    lengths = np.diff(places)
    size = int(lengths[0])
    if not size or not (lengths == size).all():
        return None
    letters = np.frombuffer(text, dtype=np.uint8)[places[0] : places[-1]].reshape(-1, size)
    padded = np.zeros((len(letters), -(-size // 8) * 8), dtype=np.uint8)
    padded[:, :size] = letters
    return _mix(padded.view("<u8"))


@njit(cache=True, nogil=True)
def _few_ids(words: Any, X: Any, of_words: Any, of_row: Any, seed: Any) -> Any:
    """`score_ids`, number by number."""
    found = np.empty((len(X), 2), dtype=np.uint64)
    numbers = X.view(np.uint64)
    for i in range(len(X)):
        lanes = np.zeros((2, 2), dtype=np.uint64)
        for k in range(words.shape[1]):
            hashed = _mixed(words[i, k])
            for lane in range(2):
                lanes[0, lane] += hashed * of_words[k, lane]
        for k in range(X.shape[1]):
            x = X[i, k]
            hashed = _mixed(_NAN if x != x else np.uint64(0) if x == 0.0 else numbers[i, k])
            for lane in range(2):
                lanes[1, lane] += hashed * of_row[k, lane]
        for lane in range(2):
            lanes[0, lane] = _mixed(_mixed(lanes[0, lane]) + seed[lane]) + _mixed(lanes[1, lane])
        first = _mixed(lanes[0, 0] + _mixed(lanes[0, 1]))
        turned = (first << np.uint64(29)) | (first >> np.uint64(35))
        found[i, 0], found[i, 1] = first, _mixed(lanes[0, 1] ^ turned)
    return found
