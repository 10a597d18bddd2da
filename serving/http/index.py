"""What was published? The index that serving/publish.py writes, opened once and asked often."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from foretell.errors import ForetellError, NotReady, UnknownName
from foretell.project import Project
from ingestion.normalise import identifier, other_forms, plain
from serving.contract import Terms
from serving.http.fresh import Fresh, fresh_file

AT_ONCE = 4  # threads that may ask
MOST = 900  # parameters of one SQLite query
STATES = {"scored": 1, "insufficient": 2}  # of a profile in a task's batch; 0: it is not in it
REFUSED = 128  # added to the state of who did not agree to the task's purpose


def file_of(project: Project) -> Path:
    return project.home / "serving" / "index.db"


def read_only(file: Path) -> str:
    """A SQLite file, as it is opened by who will not change it."""
    return f"{file.resolve().as_uri()}?mode=ro"


@dataclass(frozen=True)
class Layout:
    """How a row is packed (see serving/packing.py). tasks: a byte of state each, in this order; places: where among the
    `width` features each model's columns stand, in the model's order; digest: of the batches."""

    digest: str
    tasks: list[str]
    places: dict[str, list[int]]
    width: int

    @property
    def head(self) -> int:
        """Bytes before the features."""
        return -(-len(self.tasks) // 8) * 8

    def features(self, packed: bytes) -> np.ndarray:
        """(width,) float64."""
        return np.frombuffer(packed, dtype=np.float64, offset=self.head)


@dataclass(frozen=True)
class Task:
    """A task as published: what is asked (`facts`), and the batch it is answered for, or why it is not (`problem`)."""

    name: str
    facts: dict[str, Any]

    @property
    def problem(self) -> ForetellError | None:
        return NotReady(self.name, self.facts["problem"], self.facts["fix"]) if "problem" in self.facts else None

    @property
    def version(self) -> str:
        return self.facts["batch"]["version"]

    @property
    def service(self) -> str:
        return self.facts["batch"]["service"]

    @property
    def cutoff(self) -> datetime:
        return datetime.fromisoformat(self.facts["batch"]["cutoff"])

    @property
    def fresh_until(self) -> datetime:
        """Until when the features of the cutoff may be used, inclusive."""
        return datetime.fromisoformat(self.facts["batch"]["fresh_until"])

    @cached_property
    def terms(self) -> Terms:
        batch = self.facts["batch"]
        return Terms(self.cutoff, datetime.fromisoformat(batch["expires_at"]), batch["batch"], self.facts["purpose"])

    def terms_at(self, at: datetime | None) -> Terms:
        """The same of a row as of a later T; None: as of the batch's."""
        terms = self.terms
        return terms if at is None else replace(terms, cutoff=at, expires_at=at + (terms.expires_at - terms.cutoff))


class Index:
    """One publication; a later one is another file, and this stays what it is. For a few threads at a time."""

    def __init__(self, project: Project):
        file = file_of(project)
        if not file.exists():
            raise NotReady("service", "nothing has been published yet", "run `foretell score` first")
        # All at once, while the file is this one: a connection is used by one thread at a time.
        self._free = deque(sqlite3.connect(read_only(file), uri=True, check_same_thread=False) for _ in range(AT_ONCE))
        about = dict(self._all("SELECT key, value FROM about"))
        self.published_at = datetime.fromisoformat(about["published_at"])
        self.fresh: Fresh | None = None
        self.kinds: list[str] = json.loads(about["kinds"])
        self.countries: list[str] = json.loads(about.get("countries", "[]"))
        # None: it was published before this was written down
        self.personal = frozenset(json.loads(about["personal"])) if "personal" in about else None
        self.tasks = {
            name: Task(name, json.loads(facts))
            for name, facts in self._all("SELECT name, facts FROM task ORDER BY rowid")
        }
        self.segments = [json.loads(f) for (f,) in self._all("SELECT facts FROM segment ORDER BY name")]
        self.layout = Layout(**json.loads(about["rows"])) if "rows" in about else Layout("", [], {}, 0)
        self.stamp = f"{self.layout.digest} {about['published_at']}"  # what is fresher goes with one publication
        self.crowds = {task: np.frombuffer(values) for task, values in self._all("SELECT task, sorted FROM crowd")}

    def close(self) -> None:
        while self._free:
            self._free.pop().close()
        if self.fresh:
            self.fresh.close()

    def look_for_news(self, project: Project) -> None:
        """Open what `foretell stream` writes, if it is there, or is another file than before."""
        file, known = fresh_file(project), self.fresh
        try:
            if known is None or known.inode != file.stat().st_ino:
                self.fresh = Fresh(file, self.stamp)
        except (OSError, sqlite3.Error):  # it is not there, or is being made
            self.fresh = None

    def _all(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        con = self._free.pop()
        try:
            return con.execute(query, values).fetchall()
        finally:
            self._free.append(con)

    @cached_property
    def _duck(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:", config={"threads": 1})

    def resolve(self, asked: Sequence[str]) -> list[str | ForetellError]:
        """The profile that each text means: an id, a former one, or an identifier. Else the error that says why not.

        By the rules of `unification.identity.resolve`, for many at once.
        """
        found: dict[str, str | ForetellError] = {}
        ids = self._known({text for text in asked if ":" not in text})
        for text in dict.fromkeys(asked):
            if text in ids:
                found[text] = ids[text]
        nodes = self._nodes([text for text in dict.fromkeys(asked) if text not in found])
        known = self._known({node for several in nodes.values() for node in several})
        for text, several in nodes.items():
            profiles = sorted({known[node] for node in several if node in known})
            if len(profiles) == 1:
                found[text] = profiles[0]
            elif profiles:
                problem = f"means {len(profiles)} profiles ({', '.join(profiles)})"
                found[text] = UnknownName(text, problem, "say which type: email:…, phone:…")
            else:
                fix = "`foretell segment show` lists ids; try an e-mail or card"
                found[text] = UnknownName(text, "no such profile or identifier", fix)
        return [found[text] for text in asked]

    def _nodes(self, texts: Sequence[str]) -> dict[str, list[str]]:
        """The identifiers that each text may spell, in normal form."""
        asked = []
        for text in texts:
            kind, _, value = text.partition(":")
            pairs = [(kind, value)] if kind in self.kinds and value else [(k, text) for k in self.kinds]
            asked += [(text, kind, value) for kind, value in pairs]
        made: dict[str, list[str]] = {text: [] for text in texts}
        rest = []
        for text, kind, value in asked:
            made[text] += [f"{kind}:{form}" for form in other_forms(kind, value, self.countries)]
            if not (value.isascii() and value.isprintable()):
                rest.append((text, kind, value))
            elif (normal := plain(kind, value)) is not None:
                made[text].append(f"{kind}:{normal}")
        if rest:
            cases = " ".join(f"WHEN '{kind}' THEN {identifier(kind, 'value')}" for kind in self.kinds)
            query = f"""SELECT place, kind || ':' || CASE kind {cases} END FROM (SELECT unnest(?::INTEGER[]) AS place,
                unnest(?::VARCHAR[]) AS kind, unnest(?::VARCHAR[]) AS value)"""
            columns = [list(range(len(rest))), [k for _, k, _ in rest], [v for *_, v in rest]]
            for place, node in self._duck.execute(query, columns).fetchall():
                if node is not None:
                    made[rest[place][0]].append(node)
        return made

    def _known(self, keys: set[str]) -> dict[str, str]:
        found = self._pick("SELECT key, profile_id FROM who WHERE key IN", sorted(keys))
        return found | self.fresh.meaning(sorted(keys)) if self.fresh else found

    def pages(self, profiles: Sequence[str]) -> dict[str, dict[str, Any]]:
        """traits, identifiers, former_ids, segments, eligible and refused of each profile."""
        found = self._pick("SELECT profile_id, page FROM page WHERE profile_id IN", profiles)
        return {profile: json.loads(page) for profile, page in found.items()}

    def rows(self, profiles: Sequence[str]) -> dict[str, bytes]:
        """profile -> its packed row; of who is in no task's batch there is none."""
        return self._pick("SELECT profile_id, packed FROM row WHERE profile_id IN", profiles)

    def newer(self, profiles: Sequence[str]) -> dict[str, tuple[bytes, datetime]]:
        """profile -> a row as of T, and T, of those of whom something has come in since."""
        return self.fresh.rows(profiles) if self.fresh else {}

    @cached_property
    def models(self) -> dict[str, bytes]:
        """The champion that answers for each task, pickled."""
        return dict(self._all("SELECT task, champion FROM model"))

    def example(self) -> str | None:
        """The id of somebody who has been scored."""
        found = self._all("SELECT profile_id FROM page WHERE page NOT LIKE '%\"eligible\":[]%' LIMIT 1")
        return found[0][0] if found else None

    def _pick(self, query: str, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), MOST):
            some = keys[start : start + MOST]
            found |= dict(self._all(f"{query} ({', '.join('?' * len(some))})", some))
        return found
