"""What was collected since? The whole, durable lines of a stream's segments that were not read yet, sealed or not.

Reading waits for a write that is under way, so that a line is read only once its sender was told that it is safe. A
segment keeps its name, but for the ending, when it is sealed: how far it was read is kept by that name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from ingestion.collector.log import OPEN, SEALED


class Tail:
    """A reader of one stream. loaded: names of segments, without their endings, that are not to be read."""

    def __init__(self, folder: Path, loaded: Iterable[str] = ()):
        self._folder, self._done = folder, set(loaded)
        self._read: dict[str, int] = {}

    def read(self, most: int = 8_000_000) -> bytes:
        """Whole lines that were not read yet, the oldest segment's first: about so many bytes, b"" if there are none.

        A line is never cut: if the first one is longer, it comes alone.
        """
        found: list[bytes] = []
        for file in self._segments():
            if most <= 0:
                break
            if data := self._lines(file, most):
                found.append(data)
                most -= len(data)
        return b"".join(found)

    def waiting(self) -> int:
        """Bytes that were not read yet."""
        sizes = [(file.stem, _size(file)) for file in self._segments()]
        return sum(max(0, size - self._read.get(name, 0)) for name, size in sizes)

    def _segments(self) -> list[Path]:
        try:
            with os.scandir(self._folder) as entries:
                names = [e.name for e in entries if e.name.endswith((OPEN, SEALED))]
        except FileNotFoundError:  # nothing was sent to it yet
            return []
        return sorted(self._folder / name for name in names if name.rpartition(".")[0] not in self._done)

    def _lines(self, file: Path, most: int) -> bytes:
        name, sealed = file.stem, file.suffix == SEALED
        start = self._read.get(name, 0)
        if not sealed and _size(file) <= start:
            return b""
        try:
            fd = os.open(file, os.O_RDONLY)
        except FileNotFoundError:  # it was sealed a moment ago: the next time it has its other name
            return b""
        try:
            if not sealed:
                fcntl.flock(fd, fcntl.LOCK_SH)
            size = os.fstat(fd).st_size
            data = os.pread(fd, min(most, size - start), start)
            while (end := data.rfind(b"\n") + 1) == 0 and start + len(data) < size:
                data += os.pread(fd, min(most, size - start - len(data)), start + len(data))
        finally:
            os.close(fd)  # and with it goes the lock
        self._read[name] = start + end
        if sealed and start + end >= size:
            self._done.add(name)
            del self._read[name]
        return data[:end]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
