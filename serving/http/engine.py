"""How is one request answered? Index, champions and online features of one publication, held together in memory.

A score comes from the model: its features are read online, its value is predicted, as in the batch. The publication
says which model, features, cutoff and crowd belong together; a later one is noticed within a second and replaces all of
them at once. A row online that is not of the publication's cutoff is never used.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.store.online import Online
from foretell.errors import ForetellError, NotReady, unknown
from foretell.project import Project
from models.encoding import encode_rows
from models.registry import Champion, Unanswered, champion, quietly
from serving.contract import contract_rows
from serving.http.index import Index, Task, file_of

log = logging.getLogger("foretell")


@dataclass
class State:
    """One publication, ready to answer. broken: a task whose model cannot be loaded, and why."""

    project: Project
    stamp: tuple[int, int]
    index: Index
    online: Online
    champions: dict[str, Champion]
    broken: dict[str, ForetellError] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        if name not in self.index.tasks:
            raise unknown("task", name, self.index.tasks)
        return self.index.tasks[name]

    def problem(self, name: str) -> ForetellError | None:
        """Why nobody's score of this task can be answered now."""
        task = self.task(name)
        if problem := task.problem or self.broken.get(name):
            return problem
        if self.project.now > min(task.fresh_until, task.terms.expires_at):
            return NotReady(
                name, f"its features are of {task.cutoff:%Y-%m-%d %H:%M} UTC and could be used until "
                f"{min(task.fresh_until, task.terms.expires_at):%Y-%m-%d %H:%M}", f"run `foretell score {name}`",
            )  # fmt: skip
        return None

    def open_tasks(self) -> list[str]:
        """The tasks that somebody has been scored for: those that are answered if none is named."""
        return [name for name, task in self.index.tasks.items() if task.problem is None]


class Engine:
    """Answers from the latest publication of a project. `refresh` and `scores` are for one thread at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._state: State | None = None
        self._problem: ForetellError = NotReady("service", "is starting", "ask again in a few seconds")
        self._stopping = threading.Event()

    @property
    def state(self) -> State:
        """The publication in use. Raises why there is none."""
        if self._state is None:
            raise self._problem
        return self._state

    def start(self) -> None:
        """Load in the background, then look for a new publication every second."""
        threading.Thread(target=self._watch, name="publications", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _watch(self) -> None:
        parent = os.getppid()
        while True:
            try:
                self.refresh()
            except ForetellError as error:
                self._problem = error
            except Exception as error:
                log.exception("the publication cannot be used")
                self._problem = NotReady(
                    "service", f"the publication cannot be used ({type(error).__name__})", "see its log"
                )
            if self._stopping.wait(1.0):
                return
            if os.getppid() != parent:  # whoever started this worker was killed: nobody else would ever stop it
                os.kill(os.getpid(), signal.SIGTERM)

    def refresh(self) -> bool:
        """Use the publication there is now. True if it is another than before."""
        with self._lock:
            project = Project(self._folder)
            try:
                found = file_of(project).stat()
            except FileNotFoundError:
                raise NotReady("service", "nothing has been published yet", "run `foretell score` first") from None
            stamp = (found.st_ino, found.st_mtime_ns)
            if self._state is not None and self._state.stamp == stamp:
                return False
            self._state = _load(project, stamp, self._state)
            log.info(
                "serving %s", ", ".join(_said(self._state.index.tasks[t]) for t in self._state.champions) or "nothing"
            )
            return True

    def scores(
        self, asked: Sequence[str], tasks: Sequence[str] | None, reasons: bool = False, features: bool = False
    ) -> dict[str, Any]:
        """For each text asked: profile_id, scores and problems; or problem and fix, if it means no profile."""
        for name in tasks or ():
            self.state.task(name)
        found, mixed = _answer(self.state, asked, tasks, reasons, features)
        if mixed and self.refresh():  # features are renewed just before the publication that goes with them
            found, _ = _answer(self.state, asked, tasks, reasons, features)
        return found


def _said(task: Task) -> str:
    return f"{task.name} v{task.version} as of {task.cutoff:%Y-%m-%d %H:%M}"


def _load(project: Project, stamp: tuple[int, int], before: State | None) -> State:
    index = Index(project)
    champions: dict[str, Champion] = {}
    broken: dict[str, ForetellError] = {}
    for task in index.tasks.values():
        if task.problem:
            continue
        known = before.champions.get(task.name) if before else None
        try:
            same = known is not None and known.version == task.version
            champions[task.name] = known if same and known else _champion(project, task)
        except Unanswered:  # for now: what is served stays, and it is tried again
            raise
        except Exception as error:
            log.exception("%s cannot be loaded", _said(task))
            broken[task.name] = NotReady(
                task.name, f"its model v{task.version} cannot be loaded ({type(error).__name__})",
                f"run `foretell train {task.name}` and `foretell score {task.name}`",
            )  # fmt: skip
    online = quietly(lambda: Online(project, {index.tasks[name].service for name in champions}))
    return State(project, stamp, index, online, champions, broken)


def _champion(project: Project, task: Task) -> Champion:
    found = quietly(lambda: champion(project, task.name, task.version))
    found.predict(found.background.to_frame().T, task.cutoff)  # the first call of a library is its slowest
    return found


def _answer(
    state: State, asked: Sequence[str], tasks: Sequence[str] | None, reasons: bool, features: bool
) -> tuple[dict[str, Any], bool]:
    """The answer, and whether features online were of another cutoff than the publication."""
    names = list(dict.fromkeys(tasks or state.open_tasks()))
    meant = state.index.resolve(asked)
    profiles = list(dict.fromkeys(p for p in meant if isinstance(p, str)))
    pages = state.index.pages(profiles)
    problems = {name: state.problem(name) for name in names}
    served = [name for name in names if problems[name] is None]
    rows = state.online.read({state.index.tasks[name].service for name in served}, profiles)
    scores: dict[str, dict[str, Any]] = {profile: {} for profile in profiles}
    refused: dict[str, dict[str, ForetellError]] = {profile: {} for profile in profiles}
    mixed = False
    for name in names:
        task, places = state.index.tasks[name], []
        for place, profile in enumerate(profiles):
            if problem := problems[name]:
                refused[profile][name] = problem
            elif task.facts["purpose"] in pages.get(profile, {}).get("refused", ()):
                refused[profile][name] = NotReady(
                    name, f"the profile must not be scored: no consent to {task.facts['purpose']}",
                    "ask the person, and write down the answer: `foretell consent grant`",
                )  # fmt: skip
            elif name not in pages.get(profile, {}).get("eligible", ()):
                refused[profile][name] = NotReady(
                    name, f"the profile is not in its population ({task.facts['population']})",
                    f"nothing is predicted for it as of {task.cutoff:%Y-%m-%d}; ask for another profile or task",
                )  # fmt: skip
            elif rows[task.service].times(place) != {task.cutoff}:
                mixed = True
                refused[profile][name] = NotReady(
                    name, f"the features online are not those of {task.cutoff:%Y-%m-%d %H:%M}",
                    f"ask again in a minute, if `foretell score` is running; else run `foretell score {name}`",
                )  # fmt: skip
            else:
                places.append(place)
        if places:
            model = state.champions[name]
            X = encode_rows(rows[task.service].values(places), model.contract["columns"], model.categories)
            who = [profiles[place] for place in places]
            crowd = state.index.crowds[name]
            for contract in contract_rows(model, who, X, crowd, task.terms, reasons=reasons):
                contract["features"] = dict(contract["features"]) if features else None
                scores[contract["profile_id"]][name] = contract
    results = []
    for text, profile in zip(asked, meant, strict=True):
        if isinstance(profile, ForetellError):
            results.append({"profile": text, "problem": profile.problem, "fix": profile.fix})
            continue
        results.append({
            "profile": text, "profile_id": profile, "scores": list(scores[profile].values()),
            "problems": [{"task": n, "problem": e.problem, "fix": e.fix} for n, e in refused[profile].items()],
        })  # fmt: skip
    return {"cutoff": max((state.index.tasks[n].cutoff for n in served), default=None), "results": results}, mixed


def page(state: State, who: str) -> tuple[str, dict[str, Any]]:
    """(profile_id, page) of one profile as published. Raises UnknownName."""
    profile = state.index.resolve([who])[0]
    if isinstance(profile, ForetellError):
        raise profile
    empty: dict[str, Any] = {key: [] for key in ("traits", "identifiers", "former_ids", "segments", "eligible")}
    return profile, state.index.pages([profile]).get(profile, empty)


def tasks(state: State) -> list[dict[str, Any]]:
    """Every declared task: what is asked, and the champion that answers, or why nobody is answered."""
    found = []
    for name, task in state.index.tasks.items():
        facts = {k: task.facts[k] for k in ("name", "description", "population", "horizon_days", "metric", "purpose")}
        problem = state.problem(name)
        model = state.champions.get(name)
        found.append({
            **facts, "kind": model.contract["kind"] if model else None,
            "champion": model and {
                "version": model.version, "estimator": model.contract["estimator"],
                "base_rate": model.contract["base_rate"], "feature_service": task.service, "cutoff": task.cutoff,
                "expires_at": task.terms.expires_at, "eligible": len(state.index.crowds[name]),
            },
            "problem": problem and {"subject": name, "problem": problem.problem, "fix": problem.fix},
        })  # fmt: skip
    return found
