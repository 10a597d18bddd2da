"""Histories loaded as one shop; its views' rows as the product and as the naive oracle make them; where they differ."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from conftest import make_shop, profiles_at, write_shop
from histories import ORACLE_SOURCES, History, together
from naive_values import same
from naive_views import Key, Person, World, expected
from test_time import ORIGINS, _copy_definitions

from features import build
from foretell.project import Project
from lake.engine import session
from unification import accounts

Rows = dict[Key, dict[str, Any]]  # entity -> feature -> value


@dataclass
class Shop:
    """Histories, loaded: a project for each origin of views, and what the oracle is told."""

    histories: list[History]
    projects: dict[str, Project]
    world: World
    _people: dict[datetime, dict[str, Person]] = field(default_factory=dict)

    @classmethod
    def of(cls, histories: list[History], folder: Path) -> Shop:
        facts = together(histories)
        project = make_shop(folder / "standard", facts=facts, sources=ORACLE_SOURCES)
        projects = {"standard": project}
        for origin in ORIGINS[1:]:
            home = {"home": str(project.home)}
            projects[origin] = write_shop(folder / origin, {}, settings=home, sources=ORACLE_SOURCES)
            _copy_definitions(origin, projects[origin].folder)
        accounts.ensure(project)
        with session(project) as con:
            ids = {name: _fact_ids(con, name, rows) if rows else [] for name, rows in facts.items()}
            said = con.execute("SELECT account_id, domains, ids FROM accounts").fetchall()
        names = {name: i for i, domains, own in said for name in [*(f"domain:{d}" for d in domains), *own]}
        return cls(histories, projects, World(facts, dict(project.definitions.sources), ids, names))

    def people(self, cutoff: datetime) -> dict[str, Person]:
        """Profile -> its person; who is who is as networkx tells it."""
        if cutoff not in self._people:
            people, owner = self.world.people_at(cutoff), profiles_at(self.projects["standard"], cutoff)
            assert owner.keys() == people.keys()
            found = {owner[node]: person for node, person in people.items()}
            assert all(owner[node] == profile for profile, person in found.items() for node in person)
            assert len(found) == len(set(people.values()))
            self._people[cutoff] = found
        return self._people[cutoff]

    def rows(self, origin: str, names: Iterable[str], cutoff: datetime) -> dict[str, Rows]:
        """View -> its rows, as the product makes those of several views."""
        project, person = self.projects[origin], self.people(cutoff)
        views = [project.definitions.views[name] for name in names]
        made: dict[str, Rows] = {}
        with session(project) as con:
            for view, query in build.rows_of(con, project, views, cutoff):
                cursor = con.execute(query)
                columns, values = [column[0] for column in cursor.description], cursor.fetchall()
                made[view.name] = rows = {}
                for row in (dict(zip(columns, each, strict=True)) for each in values):
                    assert row.pop("event_timestamp") == row.pop("created") == cutoff
                    rows[tuple(person.get(part, part) for part in [row.pop(key) for key in view.keys])] = row
                assert len(rows) == len(values), f"{view.name}: two rows of one entity"
        return made

    def oracle(self, origin: str, name: str, cutoff: datetime) -> Rows:
        """A view's rows, as the oracle has them."""
        return expected(self.world, self.projects[origin].definitions.views[name], cutoff)


def _fact_ids(con: Any, source: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fact ids of the rows of a file. Equal rows have several, of which any is as good as another."""
    ids = defaultdict(list)
    for fact_id, payload in con.execute(f'SELECT fact_id, payload FROM "{source}"').fetchall():
        ids[_plain(json.loads(payload))].append(fact_id)
    return [ids[_plain(row)].pop() for row in rows]


def _plain(row: Mapping[str, Any]) -> str:
    stamped = {k: v.isoformat(timespec="microseconds") if isinstance(v, datetime) else v for k, v in row.items()}
    return json.dumps({k: v or None for k, v in stamped.items()}, sort_keys=True)


@dataclass(frozen=True)
class Difference:
    """A value that is not what the oracle says: of which history, view, feature and entity."""

    history: int
    view: str
    feature: str
    cutoff: datetime
    entity: Any
    said: Any
    wanted: Any

    def __str__(self) -> str:
        where = f"{self.view}.{self.feature} at {self.cutoff}, of {self.entity}"
        return f"{where}: {self.said!r}, and the naive loop gives {self.wanted!r}"


def differences(shop: Shop, cutoff: datetime, view: str, made: Rows, wanted: Rows) -> Iterator[Difference]:
    """Every value of a view that the oracle has otherwise."""
    of_account = {i: name for name, i in shop.world.account_ids.items()}
    for entity in made.keys() | wanted.keys():
        known_as = of_account.get(entity[0]) if isinstance(entity[0], str) else min(entity[0])
        number = re.search(r"h(\d+)x", known_as or "", re.IGNORECASE)
        history = int(number[1]) if number else -1
        one, other = made.get(entity, {}), wanted.get(entity, {})
        for feature in one.keys() | other.keys():
            said, right = one.get(feature, "no row"), other.get(feature, "no row")
            if not same(said, right):
                yield Difference(history, view, feature, cutoff, tuple(map(_shown, entity)), said, right)


def _shown(part: Any) -> str:
    return " = ".join(sorted(part)) if isinstance(part, frozenset) else str(part)


def told(histories: list[History], found: list[Difference], origin: str) -> str:
    """What is wrong, with the smallest history that can be found of which it is."""
    first = min(found, key=lambda d: (len(histories[d.history]), d.feature, d.cutoff))
    if first.history < 0:  # an account that the oracle has never heard of
        return str(first)
    history, first = smallest(histories[first.history], first, origin)
    rows = "\n".join(f"  {source}: {_brief(row)}" for source, row in history)
    wrong = ", ".join(sorted({d.feature for d in found}))
    return f"{first}\nof the history\n{rows}\nWrong in {len(found)} rows: {wrong}"


def smallest(history: History, difference: Difference, origin: str) -> tuple[History, Difference]:
    """A history with as few rows as can be of which the same feature differs; all shorter ones are loaded at once."""
    while True:
        shorter, size = [], len(history)
        while size := size // 2:
            shorter += [history[:i] + history[i + size :] for i in range(0, len(history), size)]
        found: list[Difference] = []
        if shorter:
            with tempfile.TemporaryDirectory() as folder:
                shop, view, cutoff = Shop.of(shorter, Path(folder)), difference.view, difference.cutoff
                made = shop.rows(origin, [view], cutoff)[view]
                found = list(differences(shop, cutoff, view, made, shop.oracle(origin, view, cutoff)))
        found = [d for d in found if d.feature == difference.feature and d.history >= 0]
        if not found:
            return history, difference
        difference = min(found, key=lambda d: len(shorter[d.history]))
        history = shorter[difference.history]


def _brief(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v.isoformat() if isinstance(v, datetime) else v}" for k, v in row.items() if v)
