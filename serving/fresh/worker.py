"""How does an event reach the scores of its profile within a second? Turn by turn: whatever came in, for whom it is of.

A turn reads the lines that collectors have made durable, makes facts of them by the contracts, adds these to facts and
graph in memory, builds the features of the profiles they touch, and writes what their scores are computed from. T of a
turn lies just behind the last event that was received: the rows are those of a rebuild at that T.

The log is the truth: whatever is killed reads it again from where the ledger of loads ends, and comes to the same rows.
Every minute the log is loaded by a process of its own. When something else changes (a batch is scored, other facts are
loaded, somebody decides who is who, somebody is erased) all is read anew in the background, then taken up at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.fresh import Memory
from foretell.declarations import Source
from foretell.errors import Busy, ForetellError, NotReady
from foretell.project import Project
from ingestion.collector.log import folder_of
from ingestion.collector.tail import Tail
from ingestion.fresh import Lines
from ingestion.ledger import last_beside, seen
from lake import consent
from lake.engine import table
from lake.erasure import TABLE as ERASURES
from serving.fresh.online import Online
from serving.fresh.rows import Rows
from serving.fresh.store import Store
from serving.http.fresh import fresh_file
from serving.http.index import file_of
from unification.decisions import MATCHES
from unification.decisions import TABLE as DECISIONS
from unification.identity import ensure

if TYPE_CHECKING:
    from ingestion.connectors.kafka import Topic

POLL = 0.005  # seconds between two looks at the log
LOOK = 0.5  # seconds between two looks at everything else
AT_ONCE = 500  # profiles of a turn that are caught up with, while nothing comes in
MOST = 1_000_000  # bytes of the log in a turn
_TICK = timedelta(microseconds=1)


def streams_of(project: Project) -> dict[str, list[Source]]:
    """Stream -> the sources that read it."""
    found: dict[str, list[Source]] = {}
    for source in project.definitions.sources.values():
        if source.stream:
            found.setdefault(source.stream, []).append(source)
    return found


def _topics(project: Project, say: Callable[[str], None]) -> dict[str, Topic]:
    """Stream -> the topic that is followed into it."""
    followed = [s for s in project.definitions.sources.values() if s.connector and s.stream]
    if not followed:
        return {}
    from ingestion.connectors.kafka import Topic

    found: dict[str, Topic] = {}
    for source in followed:
        if str(source.stream) not in found:
            found[str(source.stream)] = Topic(project, source)
            say(f"following {source.connector.shown if source.connector else ''}")
    return found


class State:
    """All that a turn needs, as of a publication and a state of the lake. pending: profiles to be caught up with."""

    def __init__(self, project: Project, say: Callable[[str], None]):
        self.streams = streams_of(project)
        self.stamp = stamp_of(project)
        with project.writing("stream"):
            ensure(project)
            loaded = {stream: _loaded(project, sources) for stream, sources in self.streams.items()}
            self.rows = Rows(project)
            self.memory = Memory(project, self.rows.views)
        self.rows.use(self.memory)
        self.lines = {stream: Lines(project, sources) for stream, sources in self.streams.items()}
        home = folder_of(project.home)
        self.tails = {stream: Tail(home / stream, loaded[stream]) for stream in self.streams}
        self.online = Online(project, say)
        self.pending = self.memory.since(self.rows.batch)

    def close(self) -> None:
        self.memory.close()
        for lines in self.lines.values():
            lines.close()


def _loaded(project: Project, sources: list[Source]) -> set[str]:
    """The segments that all sources of a stream have loaded, by their names without the ending."""
    names = [{Path(name).stem for name in seen(project, source.name).names} for source in sources]
    return set.intersection(*names)


def stamp_of(project: Project) -> tuple:
    """Changes when something other than the log did: what is published, decided, said by hand, erased, or loaded."""
    try:
        found = file_of(project).stat()
    except FileNotFoundError:
        raise NotReady("stream", "nothing has been published yet", "run `foretell score` first") from None
    tables = [table(project, name) for name in (DECISIONS, MATCHES, consent.TABLE, ERASURES)]
    return (
        found.st_ino,
        found.st_mtime_ns,
        tuple(t.version() for t in tables),
        last_beside(project, folder_of(project.home).name),
    )


@dataclass
class Tally:
    """What was done since it was last told: events, profiles; ages: seconds from received to written."""

    events: int = 0
    profiles: int = 0
    ages: list[float] = field(default_factory=list)

    def said(self, seconds: float, waiting: int) -> str:
        text = f"{self.events:,} events ({self.events / seconds:.0f}/s), {self.profiles:,} profiles"
        if self.ages:
            half, most = np.percentile(self.ages, [50, 95]) * 1e3
            text += f", received to written {half:,.0f} ms (p95 {most:,.0f} ms)"
        return text + (f", {waiting:,} bytes wait" if waiting else "")


class Worker:
    """The one process that keeps fresh rows. every: seconds between two loads of the log; 0: others load it."""

    def __init__(self, project: Project, every: float = 60.0, say: Callable[[str], None] = lambda text: None):
        self._project, self._every, self._say = project, every, say
        self.tally = Tally()
        self._state: State | None = None
        self._store = Store(fresh_file(project))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._coming: Future[State] | None = None
        self._loading: subprocess.Popen | None = None
        self._looked = self._load_at = time.monotonic()
        self._unloaded = False
        self._topics = _topics(project, say)
        self._at = self._store.at

    def run(
        self, stop: Callable[[], bool] = lambda: False, tell: float = 10.0, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Work until `stop`. tell: seconds between two lines that say what was done; ready: called when it begins."""
        self.open()
        ready()
        told = time.monotonic()
        try:
            while not stop():
                if not self.turn():
                    time.sleep(POLL)
                if (now := time.monotonic()) - self._looked >= LOOK:
                    self._look(now)
                if now - told >= tell:
                    if self.tally.events:
                        self._say(self.tally.said(now - told, self.waiting()))
                    self.tally, told = Tally(), now
        finally:
            self.close()

    def open(self) -> None:
        """Read everything, waiting for whoever writes. Raises why it cannot be served."""
        while True:
            try:
                self._take(State(self._project, self._say))
                return
            except Busy as error:
                self._say(f"waiting: {error.problem}")
                time.sleep(1.0)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._loading:
            self._loading.wait()
        for topic in self._topics.values():
            topic.close()
        if self._state:
            self._state.close()
        self._store.close()

    def waiting(self) -> int:
        """Bytes of the log that were not read yet."""
        return sum(tail.waiting() for tail in self._state.tails.values()) if self._state else 0

    def turn(self) -> int:
        """Take in what has come, or catch up with some; how many lines or profiles that were."""
        state = self._state
        assert state is not None
        if self._store.replaced:  # somebody is being erased: what comes now waits until that is done
            return 0
        for topic in self._topics.values():
            topic.take()
        lines = {stream: data for stream, tail in state.tails.items() if (data := tail.read(MOST))}
        found = [state.lines[stream].facts(data) for stream, data in lines.items()]
        fresh = {name: facts for one in found for name, facts in one.facts.items()}
        keys: list[str] = []
        touched: list[str] = []
        if fresh:
            touched, keys = state.memory.add(fresh)
        count = sum(one.lines for one in found)
        if not lines:
            state.pending += state.online.behind()
            touched, state.pending = state.pending[:AT_ONCE], state.pending[AT_ONCE:]
            keys = state.memory.graph.keys_of(touched)
        if touched:
            received = [one.last for one in found if one.last]
            self._write(state, touched, keys, self._next(state, received))
        now = datetime.now(UTC)
        if lines:
            self._unloaded = True
            self.tally.events += count
            self.tally.ages += [(now - at).total_seconds() for one in found for at in (one.first, one.last) if at]
        self.tally.profiles += len(touched)
        return count or len(touched)

    def _next(self, state: State, received: list[datetime]) -> datetime:
        """T of a turn: behind all that was received, behind the turn before, and behind the batches."""
        after = [*received, *([self._at] if self._at else []), *([state.rows.cutoff] if state.rows.cutoff else [])]
        self._at = max(after, default=self._project.now) + _TICK
        return self._at

    def _write(self, state: State, touched: list[str], keys: list[str], at: datetime) -> None:
        built = state.memory.rows(touched, at)
        packed = state.rows.pack(built, at)
        gone = sorted(set(touched).difference(built.profiles))
        state.online.write(built, gone)
        self._store.write(packed, gone, state.memory.graph.meaning(keys, at), at)

    def _take(self, state: State) -> None:
        """Use this from now on."""
        if self._state:
            self._state.close()
        if self._store.replaced:
            self._store.close()
            self._store = Store(fresh_file(self._project))
        self._state = state
        # what was decided, said or loaded meanwhile is known by now
        self._at = max(self._at or self._project.now, self._project.now)
        self._warm(state)
        self._store.begin(state.rows.stamp)

    def _warm(self, state: State) -> None:
        """The first time is the slowest, as much is compiled: let it not be an event's."""
        if someone := state.memory.graph.some(2):
            at = state.rows.cutoff or self._project.now
            state.rows.pack(state.memory.rows(someone, at), at)
        for lines in state.lines.values():
            lines.facts(b"{}\n")

    def _look(self, now: float) -> None:
        """See whether something else has changed, and whether it is time to load the log."""
        self._looked = now
        if self._coming is not None and self._coming.done():
            coming, self._coming = self._coming, None
            try:
                self._take(coming.result())
                self._say("took up what has changed")
            except Busy:
                pass  # again, in a moment
            except ForetellError as error:
                self._say(f"cannot take up what has changed: {error}")
        if self._coming is None and (self._store.replaced or self._changed()):
            self._coming = self._thread.submit(State, Project(self._project.folder), self._say)
        self._load(now)

    def _changed(self) -> bool:
        try:
            return self._state is not None and stamp_of(self._project) != self._state.stamp
        except ForetellError:
            return False

    def _load(self, now: float) -> None:
        """Load the log, in a process of its own."""
        if self._loading is not None and self._loading.poll() is not None:
            self._loading = None
        due = self._every and self._unloaded and now - self._load_at >= self._every
        if not due or self._loading is not None:
            return
        self._load_at, self._unloaded = now, False
        sources = [source.name for several in streams_of(self._project).values() for source in several]
        command = [sys.executable, "-m", "foretell", "--project", str(self._project.folder), "load", *sources]
        self._loading = subprocess.Popen(
            ["nice", "-n", "10", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._project.folder,
        )
