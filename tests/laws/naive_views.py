"""What are the rows of a feature view at a cutoff, by a naive loop over the rows that were written to files?

Nothing of the product is asked but what was declared (sources, views) and two names that it gives by hashing: of facts,
which settle ties, and of accounts, of which a person's first counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from conftest import Facts, components, identifiers, known_at
from naive import Row, Rows, rows_of, value_of
from naive_values import unknown

from foretell.binding import aggregate, facts_schema, seen
from foretell.declarations import Source
from foretell.views import FeatureView

Person = frozenset[str]
Key = tuple[Any, ...]

# E-mail domains of the histories that are a company's; all others are free ones or reserved.
COMPANY = "works.com"


@dataclass
class World:
    """Rows as they were written, and how the sources are declared.

    fact_ids: of each source, the ids of its rows in their order. account_ids: name of an account -> its id.
    """

    facts: Facts
    sources: Mapping[str, Source]
    fact_ids: Mapping[str, list[str]]
    account_ids: Mapping[str, str]
    _at: dict[datetime, dict[str, Person]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for source in self.sources.values():
            if source.key or source.unique or source.only or source.enrich or source.delay is None:
                raise unknown(f"a source such as {source.name}: of versions, some of its rows, or another's data")

    def people_at(self, cutoff: datetime) -> dict[str, Person]:
        """identifier -> its person, of what was known before the cutoff."""
        if cutoff not in self._at:
            self._at[cutoff] = components(self.facts, cutoff)
        return self._at[cutoff]

    def accounts_at(self, cutoff: datetime) -> dict[Person, set[str]]:
        """Person -> ids of the accounts it belongs to: by the domain of each of its e-mail addresses, and by what the
        latest record says that begins with one of its identifiers."""
        people = self.people_at(cutoff)
        found: dict[Person, set[str]] = {person: set() for person in people.values()}
        for node, person in people.items():
            if node.startswith("email:") and node.endswith(COMPANY):
                found[person].add(self.account_ids[f"domain:{node.partition('@')[2]}"])
        for source in self.sources.values():
            latest: dict[str, tuple[Any, str]] = {}
            for row, fact_id in zip(self.facts.get(source.name, []), self.fact_ids.get(source.name, []), strict=True):
                name = account_said(source, row)
                if name and known_at(source.name, row) < cutoff and (nodes := identifiers(source.name, row)):
                    said = (known_at(source.name, row), row[source.event_at], fact_id), f"{source.name}:{name}"
                    latest[nodes[0]] = max(latest.get(nodes[0], said), said)
            for node, (_, name) in latest.items():
                found[people[node]].add(self.account_ids[name])
        return found


def account_said(source: Source, row: Row) -> str:
    """The account that a row of the small shop names: those alike in age, income and children are one."""
    if not source.account:
        return ""
    if source.name != "crm" or source.account_domain:
        raise unknown(f"which account a row of {source.name} names")
    return " ".join(row[trait] for trait in ("age_group", "income", "kids") if row[trait])


def expected(world: World, view: FeatureView, cutoff: datetime) -> dict[Key, dict[str, Any]]:
    """Entity -> feature -> value. A profile is its identifiers, an account its id; a category comes behind them."""
    owners, everyone = _owners(world, view, cutoff)
    facts = []
    for node, fact in known(world, view, cutoff):
        facts += [fact | {"profile_id": owner} for owner in owners.get(node, ())]
    table = seen(view, dict(world.sources))
    rows = Rows(rows_of(table, facts))
    keys = [key if key != "account_id" else "profile_id" for key in view.keys]
    groups: dict[Key, list[int]] = {}
    for i, row in enumerate(rows.rows):
        groups.setdefault(tuple(row[key] for key in keys), []).append(i)
    entities = everyone if len(keys) == 1 else {key: key for key in groups if None not in key}
    values = {n: aggregate(table, n, e, what=view.name, where=view.where) for n, e in view.features.items()}
    nothing = {name: value_of(value, []) for name, value in values.items()}
    made = {}
    for entity, owner in entities.items():
        group = rows.some(groups.get(owner, ()))
        made[entity] = {n: value_of(v, group) for n, v in values.items()} if group.rows else nothing
    return made


def _owners(world: World, view: FeatureView, cutoff: datetime) -> tuple[dict[str, list[Any]], dict[Key, Key]]:
    """Identifier -> whose facts it begins, and entity -> whose facts are its own: a profile, or an account."""
    people = world.people_at(cutoff)
    if "account" not in (view.entity, view.facts_of):
        return {node: [person] for node, person in people.items()}, {(p,): (p,) for p in people.values()}
    accounts = world.accounts_at(cutoff)
    owners = {node: sorted(accounts[person]) for node, person in people.items()}
    if view.entity == "account":
        return owners, {(i,): (i,) for ids in accounts.values() for i in ids}
    return owners, {(person,): (min(ids, default=None),) for person, ids in accounts.items()}


def known(world: World, view: FeatureView, cutoff: datetime) -> Iterator[tuple[str, Row]]:
    """The facts that a view sees at a cutoff, each with its first identifier."""
    columns = facts_schema(view.source, dict(world.sources))
    for role in view.roles:
        players = [world.sources[role]] if role in world.sources else world.sources.values()
        own = facts_schema(role, dict(world.sources))
        for source in players:
            if role not in (source.role, source.name):
                continue
            said: dict[str, str | None] = dict.fromkeys(columns)
            said |= {c: source.columns.get(c) or source.traits.get(c) for c in own}
            for row, fact_id in zip(world.facts.get(source.name, []), world.fact_ids.get(source.name, []), strict=True):
                happened = row[source.event_at]
                if not (happened < cutoff and known_at(source.name, row) < cutoff):
                    continue
                if view.lookback is not None and happened < cutoff - view.lookback:
                    continue
                if not (nodes := identifiers(source.name, row)):
                    continue
                fact = {c: _read(source, row, text, columns[c]) for c, text in said.items()}
                fact |= {
                    "fact_id": fact_id,
                    "trust": source.trust,
                    "event_at": happened,
                    "event_day": happened.astimezone(ZoneInfo(source.timezone)).date(),
                    "cutoff": cutoff,
                }
                if "account_id" in own:
                    fact["account_id"] = account_said(source, row)
                yield nodes[0], fact | ({"role": role} if "role" in columns else {})


def _read(source: Source, row: Row, expression: str | None, kind: str) -> Any:
    """The value of a contract's expression: a column, a path or a text; where CSV is empty, null."""
    if expression is None:
        return None
    if text := re.fullmatch(r"'([^']*)'", expression):
        return text[1]
    if not re.fullmatch(r"\w+(\.\w+)*", expression):
        raise unknown(f"the expression {expression!r} of the source {source.name}")
    value: Any = row
    for name in expression.split("."):
        value = value[name]
    if value is None or (value == "" and str(source.files).endswith(".csv")):
        return None
    if kind == "VARCHAR":
        return value
    if kind == "DOUBLE":
        return float(value)
    if kind == "BOOLEAN":
        return {"true": True, "false": False}[value]
    if kind.startswith("DECIMAL"):
        return Decimal(value)
    raise unknown(f"a column of the type {kind}")
