"""How does a running service write down what it hands out? Lines by a thread, which no request waits for.

What came meanwhile is written and synced together, ten times a second: a service that is killed loses what it answered
in the last tenth of a second, and what it was just writing. While lines cannot be written, nothing personal is
answered. `take_in` makes rows of them in the table `audit`, those of a running service too.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from foretell.project import Project
from ingestion.collector.log import Segment, seal_all
from lake import audit
from serving.access.caller import Refusal

GATHER = 0.1  # seconds between two writes
MOST = 64_000_000  # bytes of answers and lines that may wait
SEGMENT = 16_000_000  # bytes of a file that is then sealed
_ID = re.compile(rb'"profile_id"\s*:\s*"([^"\\]+)"')

log = logging.getLogger("foretell")


@dataclass
class Read:
    """An answer that was handed out. body: of JSON, from which the ids of the profiles are taken."""

    at: datetime
    who: str
    route: str
    scopes: Sequence[str]
    status: int
    body: bytes

    def line(self) -> bytes:
        ids = [found.decode() for found in dict.fromkeys(_ID.findall(self.body))]
        row = {
            "read_at": self.at.isoformat(), "who": self.who, "route": self.route, "profiles": ids, "count": len(ids),
            "scopes": self.scopes, "status": self.status,
        }  # fmt: skip
        return msgspec.json.encode(row) + b"\n"


class Trail:
    """The writer of one process."""

    def __init__(self, home: Path):
        self._folder = audit.folder_of(home)
        self._turn = threading.Condition()
        self._reads: list[Read] = []
        self._late = b""  # lines that could not be written
        self._bytes, self._closing = 0, False
        self._problem: str | None = None
        self._segment: Segment | None = None
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raises Refusal while what is answered could not be written down."""
        if self._problem or self._bytes > MOST:
            why = f"it cannot be written down who reads ({self._problem})" if self._problem else "too many are reading"
            fix = "ask again in a few seconds; the home's disk may be full"
            raise Refusal(503, "audit", why, fix, {"Retry-After": "5"})

    def add(self, read: Read) -> None:
        with self._turn:
            self._reads.append(read)
            self._bytes += len(read.body)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
                self._thread.start()
            self._turn.notify()

    def close(self) -> None:
        """Write what waits."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        if self._thread:
            self._thread.join()
        if self._segment:
            self._segment.seal()

    def _write(self) -> None:
        while True:
            with self._turn:
                while not (self._reads or self._late):
                    if self._closing:
                        return
                    self._turn.wait()
                if not self._closing:
                    self._turn.wait_for(lambda: self._closing, GATHER)
                reads, self._reads = self._reads, []
            self._append(self._late + b"".join(read.line() for read in reads))
            with self._turn:
                self._bytes = sum(len(read.body) for read in self._reads) + len(self._late)
                if self._closing and self._problem:
                    return

    def _append(self, data: bytes) -> None:
        try:
            segment = self._segment or Segment(self._folder)
            if not segment.append(data):  # sealed, to be taken in
                segment = Segment(self._folder)
                segment.append(data)
            self._segment, self._late, self._problem = segment, b"", None
            if segment.size >= SEGMENT:
                segment.seal()
                self._segment = None
        except OSError as error:
            if self._segment:
                self._segment.close()
            if not self._problem:
                log.error("the audit cannot be written: %s", error.strerror)
            self._segment, self._late, self._problem = None, data, error.strerror or type(error).__name__


def now() -> datetime:
    return datetime.now(UTC)


def take_in(project: Project) -> int:
    """Make rows of every line that was written, by a running service too. Returns how many are new."""
    for torn in seal_all(audit.folder_of(project.home)):
        torn.unlink()  # its writer was killed half way through a line
    return audit.take_in(project)
