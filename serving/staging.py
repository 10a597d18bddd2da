"""What is kept of a batch while it is under way? Each chunk as soon as it is done, for whoever begins anew.

`staging/<key>/` below the home. The key says everything that the batch is made of: models, cutoff, facts, views' files,
who is asked about. The same command after a kill has the same key, and goes on where it was; any other key starts from
nothing, and what was staged under it before is removed. Files are whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretell.project import Project

FOLDER = "staging"
_GROUP = 16_384  # rows of a group: somebody's row is found without reading many others


def key_of(said: Any, *arrays: np.ndarray) -> str:
    """What identifies a batch: 24 hexadecimal digits of what is said (as JSON) and of the bytes of arrays."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:24]


class Staging:
    """The chunks of one batch."""

    def __init__(self, project: Project, key: str):
        self.key = key
        self._all = project.home / FOLDER
        self._folder = self._all / key
        for other in self._all.glob("*"):
            if other.name != key:
                shutil.rmtree(other, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)

    def rows(self, chunk: int) -> Path:
        """The file of a chunk's feature rows."""
        return self._folder / f"rows-{self.key}-{chunk:05}.parquet"

    def scores(self, task: str) -> Path:
        """The file of a task's scores."""
        return self._folder / f"scores-{self.key}-{task}.parquet"

    def load(self, chunk: int) -> dict[str, np.ndarray] | None:
        """What was kept of a chunk; None: it has not been done."""
        file = self._folder / f"{chunk:05}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as found:
            return dict(found)

    def keep(self, chunk: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what was found of a chunk; its rows must have been written."""

        def save(draft: Path) -> None:
            with draft.open("wb") as stream:
                np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]

        _whole(self._folder / f"{chunk:05}.npz", save)

    def write(self, file: Path, schema: pa.Schema, tables: Callable[[], Any], statistics: list[str]) -> None:
        """Write a Parquet file of some tables, each made when it is its turn. statistics: columns to find rows by."""

        def save(draft: Path) -> None:
            plain = ["values", "score_id", "profile_id", "value", "value_low", "value_high", "percentile"]
            named = [name for name in schema.names if name not in plain]
            with pq.ParquetWriter(
                draft, schema, compression="zstd", compression_level=1, write_statistics=statistics,  # pyright: ignore
                use_dictionary=named, store_schema=False,  # pyright: ignore[reportArgumentType]
            ) as writer:  # fmt: skip
                for table in tables():
                    writer.write_table(table, row_group_size=_GROUP)

        _whole(file, save)

    def clear(self) -> None:
        shutil.rmtree(self._all, ignore_errors=True)


def forget(project: Project) -> int:
    """Remove what is staged: a person is erased. Returns how many files that were."""
    folder = project.home / FOLDER
    files = sum(file.is_file() for file in folder.rglob("*"))
    shutil.rmtree(folder, ignore_errors=True)
    return files


def _whole(file: Path, save: Callable[[Path], None]) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
