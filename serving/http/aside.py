"""Who answers what the service does not know by itself? A process beside it, which has the whole project at hand.

Why a past score was what it was is told from the lake, with what unifies and trains. The service knows neither, and a
question now and then is not worth their memory: the process starts with the first one, and is gone after a while
without any.
"""

from __future__ import annotations

import importlib
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from foretell import errors
from foretell.errors import ForetellError, NotReady
from foretell.project import Project

PATIENCE = 55  # seconds for an answer, less than the service has (serving.http.errors.LONGEST)
IDLE = 300  # seconds without a question after which the process ends


def _asked(folder: Path, where: str, what: str, argument: str) -> tuple[str, Any]:
    """("answer", what is found); or the name of a ForetellError, with its words, which can be sent."""
    try:
        return "answer", getattr(importlib.import_module(where), what)(Project(folder), argument)
    except ModuleNotFoundError:
        return "NotReady", (what, "is told from the lake, which is not where the service is", "ask the project itself")
    except ForetellError as error:
        return type(error).__name__, (error.subject, error.problem, error.fix)


class Aside:
    """Asks functions (project, text) of modules by name."""

    def __init__(self, folder: Path, call: Callable[..., tuple[str, Any]] = _asked):
        self._folder, self._call = folder, call
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._timer: threading.Timer | None = None

    def ask(self, where: str, what: str, argument: str) -> Any:
        """The answer of a function, one at a time. Raises its ForetellError; NotReady where it takes too long."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
            try:
                said, found = self._pool.submit(self._call, self._folder, where, what, argument).result(PATIENCE)
            except (TimeoutError, BrokenProcessPool) as error:
                self._end()
                why = "took too long" if isinstance(error, TimeoutError) else "its process ended"
                raise NotReady(what, f"the answer {why}", "ask again, or ask the command line") from None
            self._timer = threading.Timer(IDLE, self.close)
            self._timer.daemon = True
            self._timer.start()
        if said == "answer":
            return found
        raise getattr(errors, said)(*found)

    def close(self) -> None:
        """End the process, if there is one; the next question starts another."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            for process in (pool._processes or {}).values():
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
