"""When is a message safe? When its line is in a segment of its stream's log, and the disk has it.

A stream is a folder of segments. A writer appends to one it has opened (`.open`), and a sealed one (`.jsonl`) never
changes again. Each write is done under the file's lock, and whoever holds that lock may seal the segment by renaming
it: so `foretell load` takes what was collected a moment ago without asking the collector, and seals what a killed one
has left just the same. Only the last line of such a segment can be torn; nobody was told that it is safe, and it is put
aside.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import threading
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

OPEN, SEALED, TORN = ".open", ".jsonl", ".torn"
_sync = getattr(os, "fdatasync", os.fsync)  # the size of a file is data that fdatasync keeps


def folder_of(home: Path) -> Path:
    """Where a home keeps what was collected: a folder for each stream."""
    return home / "collected"


class Full(Exception):
    """More waits to be written than may: the sender should come again in a second."""


class Log:
    """The writer of all streams below a folder: one thread, one write and one sync for all that came meanwhile.

    segment: bytes after which a segment is sealed. waiting: bytes that may wait to be written.
    failure: what the last write met, if it failed.
    """

    def __init__(self, folder: Path, *, segment: int = 64_000_000, waiting: int = 32_000_000):
        self.folder, self.segment, self.most = folder, segment, waiting
        self.failure: OSError | None = None
        self._segments: dict[str, Segment] = {}
        self._group: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._waiting, self._closing = 0, False
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    async def append(self, stream: str, lines: bytes) -> None:
        """Return once these lines are durable. Raises Full, or the OSError that kept them from being written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._turn:
            if self._closing or self._waiting + len(lines) > self.most:
                raise Full
            self._waiting += len(lines)
            self._group.append((stream, lines, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, args=(loop,), name="collector log", daemon=True)
                self._thread.start()
            self._turn.notify()
        await future

    def close(self) -> None:
        """Write what waits, and seal every segment."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        if self._thread:
            self._thread.join()
        for segment in self._segments.values():
            segment.seal()

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._turn:
                while not self._group:
                    if self._closing:
                        return
                    self._turn.wait()
                group, self._group = self._group, []
            parts: defaultdict[str, list[bytes]] = defaultdict(list)
            for stream, lines, _ in group:
                parts[stream].append(lines)
            failures = {stream: self._append(stream, b"".join(lines)) for stream, lines in parts.items()}
            self.failure = next((error for error in failures.values() if error), None)
            with self._turn:
                self._waiting -= sum(len(lines) for _, lines, _ in group)
            try:
                loop.call_soon_threadsafe(_settle, [(future, failures[stream]) for stream, _, future in group])
            except RuntimeError:  # the loop has ended, and with it everyone who waited
                return

    def _append(self, stream: str, data: bytes) -> OSError | None:
        try:
            segment = self._segments.get(stream) or Segment(self.folder / stream)
            if not segment.append(data):  # sealed by someone else
                segment = Segment(self.folder / stream)
                segment.append(data)
            self._segments[stream] = segment
            if segment.size >= self.segment:
                self._segments.pop(stream).seal()
        except OSError as error:
            if segment := self._segments.pop(stream, None):
                segment.close()
            return error
        return None


def _settle(outcomes: list[tuple[asyncio.Future[None], OSError | None]]) -> None:
    for future, error in outcomes:
        if future.done():  # its request was given up
            continue
        if error:
            future.set_exception(error)
        else:
            future.set_result(None)


_numbers = itertools.count(1)


class Segment:
    """The segment that a writer appends to."""

    def __init__(self, folder: Path):
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}-{next(_numbers)}"
        self.path, self.size = folder / (name + OPEN), 0
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        _sync_folder(folder)
        if new:
            _sync_folder(folder.parent)

    def append(self, data: bytes) -> bool:
        """Add whole lines, durably, or nothing at all: False if the segment was sealed. An OSError is its end."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if not _is(self._fd, self.path):
                self.close()
                return False
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
                _sync(self._fd)
            except OSError:
                try:
                    os.ftruncate(self._fd, self.size)
                finally:  # if even that fails, the torn line is the segment's last: nothing is written after it
                    self.close()
                raise
            self.size += len(data)
            return True
        finally:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def seal(self) -> None:
        self.close()
        seal(self.path)


def seal(file: Path) -> Path | None:
    """Give an open segment its final name, whether its writer lives or not.

    Returns the file that holds a torn last line, if there was one. Bytes after the last line end were never said to be
    safe: their writer was killed, or its disk was full.
    """
    try:
        fd = os.open(file, os.O_RDWR)
    except FileNotFoundError:  # sealed by someone else
        return None
    torn = None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _is(fd, file):
            return None
        size = os.fstat(fd).st_size
        whole = _last_line_end(fd, size)
        if whole < size:
            torn = file.with_suffix(TORN)
            torn.write_bytes(os.pread(fd, size - whole, whole))
            os.ftruncate(fd, whole)
            os.fsync(fd)
        if whole:
            os.rename(file, file.with_suffix(SEALED))
        else:
            os.unlink(file)
        _sync_folder(file.parent)
    finally:
        os.close(fd)  # and with it goes the lock
    return torn


def seal_all(folder: Path) -> list[Path]:
    """Seal every open segment of a stream. Returns the files that hold torn lines."""
    return [torn for file in sorted(folder.glob(f"*{OPEN}")) if (torn := seal(file))]


def sealed(folder: Path) -> list[Path]:
    """The sealed segments of a stream, the oldest first."""
    return sorted(folder.glob(f"*{SEALED}"))


def _last_line_end(fd: int, size: int, step: int = 1 << 16) -> int:
    """How many bytes the file's whole lines have."""
    end = size
    while end > 0:
        start = max(end - step, 0)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _is(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """A file's name is durable once its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
