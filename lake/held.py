"""How are files of a bucket read as fast as local ones? By a copy of each, kept in the home as long as it is current.

Files of a Delta table never change, so a copy is as good as the file as long as its size and time of change are those
that the table's log says; engines read it as any Parquet file, without an extension or a download of their own at each
query. The copies are those of the current version, and of versions that were read within the last hour; what is older
goes when the table is read next, and at once when the table is vacuumed, as an erasure does. So the copies of a lake
take no more room than the lake.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lake.bucket import Bucket

STALE = 3600  # seconds after its last use in which a file of an older version may still be read by a query
_TOUCH = 60  # seconds after which the use of a file is noted again
_AT_ONCE = 8


class Gone(Exception):
    """A file that the log names is in the bucket no more, or not as the log says: the log must be read again."""


@dataclass(frozen=True)
class File:
    """A file as the log says. key: below the table. size: bytes. changed: milliseconds since 1970."""

    key: str
    size: int
    changed: int


def hold(bucket: Bucket, folder: Path, files: Sequence[File]) -> list[str]:
    """Paths of local copies of a table's files, in their order; those that are missing are fetched. Gone.

    bucket: the table's. folder: of the copies of this table, and nothing else.
    """
    now = time.time()
    missing = [file for file in files if not _is_held(folder, file, now)]
    if len(missing) == 1:
        _fetch(bucket, folder, missing[0])
    elif missing:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _fetch(bucket, folder, file), missing))
    drop(folder, files, older=STALE)
    return [str(folder / file.key) for file in files]


def drop(folder: Path, current: Sequence[File], *, older: float = 0) -> int:
    """Remove copies that are not of the current files, and were not used for so many seconds. Returns how many."""
    wanted, count, before = {folder / file.key for file in current}, 0, time.time() - older
    for file in list(folder.rglob("*")):
        with suppress(FileNotFoundError):
            # the time of change of the inode: that of the file's content is the one of the log
            if file not in wanted and file.is_file() and file.stat().st_ctime <= before:
                file.unlink()
                count += 1
    return count


def _is_held(folder: Path, file: File, now: float) -> bool:
    try:
        found = (folder / file.key).stat()
        if found.st_size != file.size or found.st_mtime_ns != file.changed * 1_000_000:
            return False
        if now - found.st_ctime > _TOUCH:
            os.utime(folder / file.key, ns=(int(now * 1e9), file.changed * 1_000_000))
    except FileNotFoundError:
        return False
    return True


def _fetch(bucket: Bucket, folder: Path, file: File) -> None:
    target = folder / file.key
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.{os.getpid()}")
    try:
        size = bucket.fetch(file.key, draft)
        if size != file.size:
            raise Gone(f"{bucket.url}/{file.key}: expected {file.size:,} bytes, got {size:,}")
        os.utime(draft, ns=(time.time_ns(), file.changed * 1_000_000))
        os.replace(draft, target)
    except FileNotFoundError as error:  # removed from the bucket meanwhile, or the draft by an erasure
        raise Gone(f"{bucket.url}/{file.key}") from error
    finally:
        draft.unlink(missing_ok=True)
