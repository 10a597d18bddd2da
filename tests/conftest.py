"""A small shop for tests: four sources of plain rows, written, loaded and unified as a project of its own.

Import the functions (`from conftest import make_shop, shop_facts`); alter the rows and make another project to see what
a change of the facts does. Projects made with the same key give the same person the same profile id.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from servers import redis_server as redis_server  # a fixture

from foretell.errors import ForetellError
from foretell.project import Project

Row = dict[str, Any]
Facts = dict[str, list[Row]]

START = datetime(2024, 1, 1, tzinfo=UTC)
KEY = "0" * 64

SOURCES = {
    "shop": """
from foretell import Source

shop = Source(
    name="shop",
    files="shop/*.csv",
    role="order_line",
    event_at="sold_at",
    known_at="recorded_at",
    timezone="Europe/Oslo",
    identifiers={"loyalty_card": "card", "email": "email", "device": "device"},
    columns={
        "order_id": "order_id", "amount": "amount", "quantity": "quantity", "discount": "discount",
        "product_id": "product", "category": "category", "brand": "brand", "cancelled": "cancelled",
    },
)
""",
    "crm": """
from foretell import Source

crm = Source(
    name="crm",
    files="crm/*.csv",
    kind="records",
    event_at="registered_at",
    timezone="Europe/Oslo",
    identifiers={"loyalty_card": "card", "email": "email", "phone": "phone"},
    traits={
        "first_name": "first_name", "city": "city", "birth_date": "born", "gender": "gender", "country": "country",
        "language": "language", "opt_in": "opt_in", "age_group": "age_group", "income": "income",
        "household_size": "household_size", "kids": "kids",
    },
    trust=2,
)
""",
    "web": """
from foretell import Source

web = Source(
    name="web",
    files="web/*.jsonl",
    role="redemption",
    event_at="at",
    known_at="recorded_at",
    timezone="Europe/Oslo",
    identifiers={"email": "user.email", "device": "device.id"},
    columns={"kind": "type", "campaign_id": "campaign", "coupon_id": "coupon"},
)
""",
    "mail": """
from foretell import Source, hours

mail = Source(
    name="mail",
    files="mail/*.csv",
    role="message",
    event_at="sent_at",
    delay=hours(1),
    timezone="Europe/Oslo",
    identifiers={"email": "email"},
    columns={"campaign_id": "campaign", "channel": "'email'", "kind": "kind"},
)
""",
}

# More sources, for views that need them: a support desk, visits of the site, and people who belong to companies.
MORE_SOURCES = {
    "desk": """
from foretell import Source

desk = Source(
    name="desk",
    files="desk/*.csv",
    role="ticket",
    event_at="at",
    known_at="recorded_at",
    timezone="Europe/Oslo",
    identifiers={"email": "email"},
    columns={"ticket_id": "ticket", "kind": "kind", "channel": "channel", "topic": "topic", "rating": "rating"},
)
""",
    "site": """
from foretell import Source

site = Source(
    name="site",
    files="site/*.csv",
    role="activity",
    event_at="at",
    known_at="recorded_at",
    timezone="Europe/Oslo",
    identifiers={"email": "email", "device": "device"},
    columns={"kind": "kind", "name": "name"},
)
""",
    # those alike in age, income and children stand for the people of a company
    "crm": SOURCES["crm"].replace(
        "    trust=2,", """    trust=2,
    account="concat_ws(' ', nullif(age_group, ''), nullif(income, ''), nullif(kids, ''))",""",
    ),
}  # fmt: skip

# What people tell about themselves, beside name and city.
TRAITS = {
    "born": ["1990-05-17", "1970-01-01", "2001-02-29", ""],
    "gender": ["f", "m", ""],
    "country": ["NO", "SE"],
    "language": ["no", "en", ""],
    "opt_in": ["yes", "no"],
    "age_group": ["19-24", "25-34", "65+"],
    "income": ["Under 15K", "50-74K", ""],
    "household_size": ["1", "2", "5+"],
    "kids": ["0", "1", "3+"],
}
# Those that the example's tasks ask about are among them.
CATEGORIES = ["c0", "c1", "c2", "BEERS/ALES", "COFFEE", "FROZEN PIZZA"]

COLUMNS = {
    "shop": ["line", "order_id", "sold_at", "recorded_at", "card", "email", "device", "product", "category", "brand",
             "quantity", "amount", "discount", "cancelled"],
    "crm": ["registered_at", "card", "email", "phone", "first_name", "city", *TRAITS],
    "mail": ["sent_at", "email", "campaign", "kind"],
    "desk": ["at", "recorded_at", "email", "ticket", "kind", "channel", "topic", "rating"],
    "site": ["at", "recorded_at", "email", "device", "kind", "name"],
}  # fmt: skip


def known_at(source: str, row: Row) -> datetime:
    """When a fact of the small shop could be known."""
    if source == "crm":
        return row["registered_at"]
    return row["sent_at"] + timedelta(hours=1) if source == "mail" else row["recorded_at"]


def identifiers(source: str, row: Row) -> list[str]:
    """The identifiers of a fact in normal form, "type:value", as the graph's nodes are named."""
    raw = row if source != "web" else {"device": row["device"]["id"], "email": row["user"]["email"]}
    forms: dict[str, tuple[str, Callable[[str], str]]] = {
        "loyalty_card": ("card", lambda v: v.replace(" ", "").replace("-", "").upper()),
        "email": ("email", lambda v: v.strip().lower()),
        "device": ("device", str.strip),
        "phone": ("phone", lambda v: "".join(c for c in v if c.isdigit())),
    }
    return [f"{kind}:{form(raw[key])}" for kind, (key, form) in forms.items() if raw.get(key)]


def sale(at: datetime, card: str = "", amount: str = "10.00", **other: Any) -> Row:
    """A line of the till; known a minute after it happened, its own order, unless said otherwise."""
    stamp = f"{at:%Y%m%d%H%M%S%f}"
    row = {"line": "1", "order_id": f"o{card}{stamp}", "sold_at": at, "recorded_at": at + timedelta(minutes=1),
           "card": card, "email": "", "device": "", "product": "p1", "category": "c1", "brand": "b1",
           "quantity": "1", "amount": amount, "discount": "0.00", "cancelled": "false"}  # fmt: skip
    return {**row, **other}


def record(at: datetime, card: str = "", email: str = "", phone: str = "", **traits: str) -> Row:
    """A row of the CRM."""
    row = {"registered_at": at, "card": card, "email": email, "phone": phone, "first_name": "", "city": ""}
    return {**row, **dict.fromkeys(TRAITS, ""), **traits}


def click(at: datetime, device: str = "", email: str = "", **other: Any) -> Row:
    """A line of the web shop's log; known a second after it happened."""
    row = {"at": at, "recorded_at": at + timedelta(seconds=1), "type": "view", "campaign": None, "coupon": None}
    return {**row, "device": {"id": device}, "user": {"email": email}, **other}


def letter(at: datetime, email: str, campaign: str = "m1") -> Row:
    """A campaign mail; known an hour after it was sent."""
    return {"sent_at": at, "email": email, "campaign": campaign, "kind": "newsletter"}


def call(at: datetime, email: str, ticket: str, kind: str = "opened", **other: Any) -> Row:
    """What happened to a ticket of the support desk; known a minute later."""
    row = {"at": at, "recorded_at": at + timedelta(minutes=1), "email": email, "ticket": ticket, "kind": kind}
    return {**row, "channel": "phone", "topic": "", "rating": "", **other}


def page(at: datetime, email: str = "", device: str = "", kind: str = "page", **other: Any) -> Row:
    """A page of the site that was seen, or what was done there; known a second later."""
    row = {"at": at, "recorded_at": at + timedelta(seconds=1), "email": email, "device": device, "kind": kind}
    return {**row, "name": "home", **other}


def more_facts(facts: Facts, *, people: int = 60, days: int = 400) -> Facts:
    """The small shop's facts, and those of MORE_SOURCES about some of its people."""
    draw = Random(1)
    facts |= {"desk": [], "site": []}

    def moment() -> datetime:
        return START + timedelta(microseconds=draw.randrange(int(days * 864e8)))

    for i in range(people):
        email, late = f"person{i}@shop.example", timedelta(days=draw.choice([0, 0, 0, 5]), seconds=7)
        for n in range(draw.choice([0, 0, 1, 2, 3])):
            at, ticket = moment(), f"t{i}-{n}"
            facts["desk"].append(call(at, email, ticket, recorded_at=at + late))
            if draw.random() < 0.7:
                facts["desk"].append(call(at + timedelta(hours=draw.randrange(1, 90)), email, ticket, "closed"))
            if draw.random() < 0.5:
                facts["desk"].append(call(at + timedelta(days=2), email, ticket, "rated", rating=f"{n + 1}"))
        for _ in range(draw.choice([0, 2, 8])):
            at = moment() if draw.random() < 0.5 else START + timedelta(days=draw.uniform(230, 330))
            for step in range(draw.randrange(1, 5)):
                seen = at + step * timedelta(minutes=draw.choice([0, 3, 29, 30]))
                who = {"email": email} if draw.random() < 0.5 else {"device": f"device-{i}"}
                facts["site"].append(page(seen, kind=draw.choice(["page", "track"]), recorded_at=seen + late, **who))
    return facts


def shop_facts(*, seed: int = 0, people: int = 60, days: int = 400) -> Facts:
    """Rows of a shop: by card, sometimes e-mail or device; every tenth line recorded days late; some people have two
    cards, some only a record, some no record at all."""
    draw, told = Random(seed), Random(f"{seed} traits")
    facts: Facts = {"shop": [], "crm": [], "web": [], "mail": []}

    def moment(low: float = 0, high: float = 1) -> datetime:
        return START + timedelta(microseconds=draw.randrange(int(low * days * 864e8), int(high * days * 864e8)))

    for i in range(people):
        cards = [f"CARD{i:04d}A", f"CARD{i:04d}B"][: 2 if draw.random() < 0.3 else 1]
        email = f"person{i}@shop.example" if draw.random() < 0.8 else ""
        device = f"device-{i}" if draw.random() < 0.6 else ""
        phone = f"+47 555 {i:05d}" if draw.random() < 0.5 else ""
        if draw.random() < 0.9:
            for card in cards:
                shown = " ".join([card[:4], card[4:]]) if draw.random() < 0.5 else card.lower()
                text = email.title() if draw.random() < 0.5 else f" {email} " if email else ""
                traits = {"first_name": f"Name{i}", "city": draw.choice(["Oslo", "Bergen", ""])}
                traits |= {name: told.choice(values) for name, values in TRAITS.items()}
                facts["crm"].append(record(moment(), shown, text, phone, **traits))
        buys = 0 if i % 10 == 0 else draw.randrange(2, 25)
        for order in range(buys):
            at = moment(0, draw.choice([0.5, 1, 1]))
            late = timedelta(days=draw.uniform(1, 25)) if draw.random() < 0.1 else timedelta(minutes=draw.randrange(60))
            who = {"card": draw.choice(cards)}
            if email and draw.random() < 0.15:
                who |= {"email": email}
            if device and draw.random() < 0.15:
                who = {"device": device, "card": draw.choice([who["card"], ""]), "email": email}
            returned = draw.random() < 0.08
            for line in range(draw.randrange(1, 4)):
                cents = draw.randrange(100, 9000) * (-1 if returned else 1)
                facts["shop"].append(sale(
                    at, amount=f"{cents / 100:.2f}", discount=f"{draw.randrange(0, 300) / 100:.2f}", line=str(line),
                    order_id=f"o{i}-{order}", recorded_at=at + late, product=f"p{draw.randrange(40)}",
                    category=CATEGORIES[draw.randrange(6)], brand=f"b{draw.randrange(3)}",
                    cancelled="true" if returned else "false", **who,
                ))  # fmt: skip
        for _ in range(draw.randrange(0, 8) if device or email else 0):
            kind = draw.choice(["view", "login", "coupon_redeemed"])
            facts["web"].append(click(
                moment(), device, email if kind == "login" or not device else "", type=kind,
                campaign=f"m{draw.randrange(3)}" if kind == "coupon_redeemed" else None,
            ))  # fmt: skip
        facts["mail"] += [letter(moment(), email, f"m{n}") for n in range(draw.randrange(0, 4)) if email]
    return facts


def write_shop(
    folder: Path, facts: Mapping[str, Iterable[Row]], *, key: str = KEY, as_of: datetime | None = None,
    sources: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None,
) -> Project:  # fmt: skip
    """Write a project folder and its files; nothing is loaded."""
    toml = {"as_of": (as_of or START + timedelta(days=400)).isoformat(), **(settings or {})}
    (folder / "sources").mkdir(parents=True)
    (folder / "foretell.toml").write_text(
        "[foretell]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in toml.items())
    )
    for name, text in (SOURCES | dict(sources or {})).items():
        (folder / "sources" / f"{name}.py").write_text(text)
    write_files(folder, facts)
    project = Project(folder)
    project.home.mkdir(parents=True, exist_ok=True)
    (project.home / "key").write_text(key)
    return project


def write_files(folder: Path, facts: Mapping[str, Iterable[Row]], stem: str = "") -> None:
    """Write one export file per source, called as the source is, or `stem`. Rows may have more columns than COLUMNS."""
    for name, rows in facts.items():
        target, rows = folder / "exports" / name, list(rows)
        target.mkdir(parents=True, exist_ok=True)
        if name == "web":
            lines = "".join(json.dumps(row, default=_text) + "\n" for row in rows)
            (target / f"{stem or name}.jsonl").write_text(lines)
            continue
        with (target / f"{stem or name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys([*COLUMNS[name], *(c for row in rows for c in row)])))
            writer.writeheader()
            writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)


def load_shop(project: Project, names: Iterable[str]) -> None:
    """Load these sources and unify; a file or row that is refused is an error here."""
    from ingestion.load import load
    from unification.identity import unify

    for result in load(project, list(names)):
        if isinstance(result, ForetellError):
            raise result
        assert not result.quarantined, result.reasons
    unify(project)


def make_shop(
    folder: Path, *, seed: int = 0, people: int = 60, days: int = 400, facts: Facts | None = None, key: str = KEY,
    as_of: datetime | None = None, sources: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None,
) -> Project:  # fmt: skip
    """A loaded and unified project in `folder`, made of `facts` (default: `shop_facts`); now is the end of its days."""
    facts = {n: rows for n, rows in (facts or shop_facts(seed=seed, people=people, days=days)).items() if rows}
    until = as_of or START + timedelta(days=days)
    project = write_shop(folder, facts, key=key, as_of=until, sources=sources, settings=settings)
    load_shop(project, facts)
    return project


def _text(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def profiles_at(project: Project, cutoff: datetime) -> dict[str, str]:
    """node -> profile as known at the cutoff."""
    from lake.engine import session
    from unification.identity import members_at

    with session(project) as con:
        return dict(con.execute(f"SELECT node, profile_id FROM ({members_at(cutoff)})").fetchall())


def components(facts: Facts, before: datetime) -> dict[str, frozenset[str]]:
    """node -> the nodes of its person, of what was known before: networkx as the oracle of the identity graph."""
    import networkx as nx

    graph = nx.Graph()
    for name, rows in facts.items():
        for row in rows:
            if known_at(name, row) < before:
                found = identifiers(name, row)
                graph.add_nodes_from(found)
                graph.add_edges_from((found[0], other) for other in found[1:])
    return {node: frozenset(part) for part in nx.connected_components(graph) for node in part}


def lines_of(facts: Facts, owner: Mapping[str, str], happened: datetime, known: datetime) -> dict[str, list[Row]]:
    """Profile -> its till lines that happened before one instant and were known before the other; of every profile."""
    lines: dict[str, list[Row]] = {profile: [] for profile in owner.values()}
    for row in facts["shop"]:
        if row["sold_at"] < happened and known_at("shop", row) < known:
            lines[owner[identifiers("shop", row)[0]]].append(row)
    return lines


# Modules of costly fixtures, the costliest first. Where tests run in several processes, the modules that import one
# stay in the same process and come first; any other module is by itself.
SHARED = ("fixtures_demo", "fixtures_trained", "fixtures_spark")


@cache
def _group(module: str) -> str:
    text = (Path(__file__).parents[1] / module).read_text()
    return next((name for name in SHARED if f"from {name} import" in text), module)


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()):  # the whole tour takes minutes
            item.add_marker(pytest.mark.slow)
    order = {name: place for place, name in enumerate(SHARED)}
    items.sort(key=lambda item: order.get(_group(item.nodeid.split("::")[0]), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # its own groups ("loadgroup" of 3.8) are not heeded by pytest 9
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.split("::")[0])

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A loaded and unified small shop, for tests that only read it."""
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets for tests (FORETELL_TEST_DATA); tests that need it are skipped without it."""
    if not (given := os.environ.get("FORETELL_TEST_DATA")):
        pytest.skip("FORETELL_TEST_DATA is not set: the folder with real data sets is not at hand")
    return Path(given)
