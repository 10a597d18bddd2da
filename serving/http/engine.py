"""How is one request answered? From the index and the champions of one publication, held together in memory.

A score comes from the model: its features are read, its value is predicted, as in the batch. The publication says which
model, features, cutoff and crowd belong together; a later one is noticed within a second and replaces all of them at
once.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import DataError, ForetellError, NotReady, unknown
from foretell.project import Project
from models.registry import Champion
from serving.contract import contracts
from serving.http.aside import Aside
from serving.http.fresh import KEPT
from serving.http.index import REFUSED, STATES, Index, Task, file_of
from serving.http.kept import Kept

log = logging.getLogger("foretell")
Newer = tuple[bytes, datetime]


@dataclass
class State:
    """One publication, ready to answer. broken: a task whose model cannot be loaded, and why."""

    project: Project
    stamp: tuple[int, int]
    index: Index
    champions: dict[str, Champion]
    broken: dict[str, ForetellError] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    stale: frozenset[str] = frozenset()
    turn: int = 0

    def heed_the_time(self) -> None:
        """Forget what was answered once a task's features or scores are too old for it."""
        now = self.project.now
        stale = frozenset(
            name for name in self.champions if now > min((t := self.index.tasks[name]).fresh_until, t.terms.expires_at)
        )
        if stale != self.stale:
            self.stale = stale
            self.kept.clear()

    def heed_the_stream(self) -> int:
        """Forget what was answered about whom something has come in since. Returns how often something has.

        For the one thread that answers are kept by.
        """
        fresh = self.index.fresh
        if fresh is not None and (changed := fresh.changes()) != set():
            self.kept.clear() if changed is None else self.kept.drop(changed)
            self.turn += 1
        return self.turn

    def row_of(self, name: str, profile: str, published: bytes | None, newer: Newer | None) -> tuple[bytes | None, Any]:
        """The row that a profile's score of a task is computed from, and its T if that is later than the batch's."""
        tasks = self.index.layout.tasks
        if newer is not None and name in tasks and newer[0][tasks.index(name)] != KEPT:
            return newer
        return published, None

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

    def refusal(self, name: str, profile: str, row: bytes | None) -> ForetellError | None:
        """Why a profile has no score of a task, by the byte that its row has for it; None if it has one."""
        task, tasks = self.task(name), self.index.layout.tasks
        packed = row[tasks.index(name)] if row and name in tasks else 0
        if packed == STATES["scored"]:
            return None
        # Who did not agree has been left out of batches since, and has no row: the page knows.
        pages = self.index.pages([profile])
        if packed & REFUSED or task.facts["purpose"] in pages.get(profile, {}).get("refused", ()):
            return NotReady(
                name, f"the profile must not be scored: no consent to {task.facts['purpose']}",
                "ask the person, and write down the answer: `foretell consent grant`",
            )  # fmt: skip
        if packed == STATES["insufficient"]:
            views = ", ".join(task.facts["batch"]["empty"])
            return NotReady(
                name, f"insufficient evidence: no fact of the profile is known to {views}",
                "nothing is predicted of whom nothing is known; load their facts",
            )  # fmt: skip
        return NotReady(
            name, f"the profile is not in its population ({task.facts['population']})",
            f"nothing is predicted for it as of {task.cutoff:%Y-%m-%d}; ask for another profile or task",
        )  # fmt: skip

    def scores(
        self, asked: Sequence[str], tasks: Sequence[str] | None, reasons: bool = False, features: bool = False
    ) -> dict[str, Any]:
        """For each text asked: profile_id, scores and problems; or problem and fix, if it means no profile."""
        for name in tasks or ():
            self.task(name)
        return _answer(self, asked, tasks, reasons, features)

    def whatif(self, name: str, who: str | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the model of a task says of rows of features (see answers.WhatIf)."""
        if problem := self.problem(name):
            raise problem
        task, model = self.index.tasks[name], self.champions[name]
        columns = model.contract["columns"]
        profile, begin = self._row_of(who, name) if who is not None else (None, np.full(len(columns), np.nan))
        X = np.array([_with(begin, row, columns, model) for row in rows])
        crowd = self.index.crowds[name]
        said = contracts(model, [""] * len(X), X, crowd, task.terms)
        kept = ("value", "value_low", "value_high", "percentile", "reasons")
        shared = ("kind", "base_rate", "model_version", "estimator", "cutoff")
        return {
            "task": name, "profile_id": profile, **{key: said[0][key] for key in shared},
            "results": [{**{key: one[key] for key in kept}, "features": dict(one["features"])} for one in said],
        }  # fmt: skip

    def _row_of(self, who: str, name: str) -> tuple[str, np.ndarray]:
        """A profile's id, and the features by which it is scored. Raises why it is not."""
        (profile,) = self.index.resolve([who])
        if isinstance(profile, ForetellError):
            raise profile
        layout, published = self.index.layout, self.index.rows([profile]).get(profile)
        packed, _ = self.row_of(name, profile, published, self.index.newer([profile]).get(profile))
        if problem := self.refusal(name, profile, packed):
            raise problem
        assert packed is not None
        return profile, layout.features(packed)[layout.places[name]]

    def open_tasks(self) -> list[str]:
        """The tasks that somebody has been scored for: those that are answered if none is named."""
        return [name for name, task in self.index.tasks.items() if task.problem is None]


class Engine:
    """Answers from the latest publication of a project. `refresh` and `scores` are for one thread at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.aside = Aside(folder)
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
        self.aside.close()

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
                self._state.index.look_for_news(project)
                self._state.heed_the_time()
                return False
            self._state = _load(project, stamp, self._state)
            log.info(
                "serving %s", ", ".join(_said(self._state.index.tasks[t]) for t in self._state.champions) or "nothing"
            )
            return True

    def scores(
        self, asked: Sequence[str], tasks: Sequence[str] | None, reasons: bool = False, features: bool = False
    ) -> dict[str, Any]:
        """See State."""
        return self.state.scores(asked, tasks, reasons, features)


def _said(task: Task) -> str:
    return f"{task.name} v{task.version} as of {task.cutoff:%Y-%m-%d %H:%M}"


def _load(project: Project, stamp: tuple[int, int], before: State | None) -> State:
    index = Index(project)
    champions: dict[str, Champion] = {}
    broken: dict[str, ForetellError] = {}
    for name, packed in index.models.items():
        task = index.tasks[name]
        known = before.champions.get(name) if before else None
        try:
            same = known is not None and before is not None and before.index.models[name] == packed
            champions[name] = known if same and known else _opened(packed, task)
        except Exception as error:
            log.exception("%s cannot be loaded", _said(task))
            broken[name] = NotReady(
                name, f"its model v{task.version} cannot be loaded ({type(error).__name__})",
                f"run `foretell train {name}` and `foretell score {name}`",
            )  # fmt: skip
    index.look_for_news(project)
    return State(project, stamp, index, champions, broken)


def _opened(packed: bytes, task: Task) -> Champion:
    found: Champion = pickle.loads(packed)
    row = found.background.reindex(found.contract["columns"]).to_numpy(dtype=float)[None]
    found.answers(row, task.cutoff)  # the first call of a library is its slowest
    found.reasons(row)
    return found


def _answer(
    state: State, asked: Sequence[str], tasks: Sequence[str] | None, reasons: bool, features: bool
) -> dict[str, Any]:  # fmt: skip
    names = list(dict.fromkeys(tasks or state.open_tasks()))
    meant = state.index.resolve(asked)
    profiles = list(dict.fromkeys(p for p in meant if isinstance(p, str)))
    rows, newer = state.index.rows(profiles), state.index.newer(profiles)
    problems = {name: state.problem(name) for name in names}
    served = [name for name in names if problems[name] is None]
    scores: dict[str, dict[str, Any]] = {profile: {} for profile in profiles}
    refused: dict[str, dict[str, ForetellError]] = {profile: {} for profile in profiles}
    layout = state.index.layout
    for name in names:
        who: dict[datetime | None, list[tuple[str, bytes]]] = {}
        for profile in profiles:
            row, at = state.row_of(name, profile, rows.get(profile), newer.get(profile))
            if problem := problems[name] or state.refusal(name, profile, row):
                refused[profile][name] = problem
            elif row is not None:
                who.setdefault(at, []).append((profile, row))
        for at, some in who.items():
            task, model, places = state.index.tasks[name], state.champions[name], layout.places[name]
            X = np.stack([layout.features(row)[places] for _, row in some])
            terms, crowd = task.terms_at(at), state.index.crowds[name]
            for contract in contracts(model, [p for p, _ in some], X, crowd, terms, reasons=reasons):
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
    cutoffs = [state.index.tasks[n].cutoff for n in served] + [at for _, at in newer.values() if served]
    return {"cutoff": max(cutoffs, default=None), "results": results}


def _with(begin: np.ndarray, row: Mapping[str, Any], columns: Sequence[str], model: Champion) -> np.ndarray:
    """A row of features with some others in place. Refuses names and values that the model does not know."""
    found = begin.copy()
    for name, value in row.items():
        if name not in columns:
            raise unknown("feature", name, columns)
        codes = model.categories.get(name)
        if (codes is None) == isinstance(value, str):
            expected = "a number or null" if codes is None else "text or null"
            raise DataError(name, f"expected {expected}, got {value!r}", "see the `features` of a score")
        if value is None or codes is None:
            found[columns.index(name)] = np.nan if value is None else float(value)
        else:  # text that training did not see is as good as unknown
            found[columns.index(name)] = codes.index(value) if value in codes else np.nan
    return found


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
