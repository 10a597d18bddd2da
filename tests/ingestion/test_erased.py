"""Identifiers of erased people are found in text however they are spelt; what is shared by many is nobody's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from conftest import START, Facts, load_shop, make_shop, record, sale

from ingestion.erased import BLANK, Mentions
from ingestion.load import load_file
from lake.engine import session
from lake.erasure import digest
from lake.scan import search
from serving.erase import erase, plan
from serving.status import collect
from unification.decisions import decide
from unification.identity import owners, unify

DAY = timedelta(days=1)
KEY = "secret"
NODES = ["email:jo@home.org", "phone:4755500012", "loyalty_card:AB12", "device:d-1"]


@pytest.fixture(scope="module")
def finder() -> Mentions:
    return Mentions(KEY, ["email", "phone", "loyalty_card", "device"], [digest(KEY, node) for node in NODES])


@pytest.mark.parametrize(
    ("text", "blanked"),
    [
        ('{"mail": " Jo@Home.ORG ", "n": 1}', f'{{"mail": " {BLANK} ", "n": 1}}'),
        ("1,+47 555 00012,x", f"1,{BLANK},x"),
        ("a;ab-12;b", f"a;{BLANK};b"),
        ("user=d-1 ok", f"user={BLANK} ok"),
        ("please call jo@home.org.", f"please call {BLANK}."),
        ("<JO@HOME.ORG>, or +4755500012!", f"<{BLANK}>, or {BLANK}!"),
        ("email:jo@home.org", f"email:{BLANK}"),
        ("nojo@home.org AB123 d-12 47555000123", None),
        ("", None),
        (None, None),
    ],
)
def test_mentions(finder: Mentions, text: str | None, blanked: str | None) -> None:
    assert finder.blank(text) == (blanked if blanked is not None else text)
    assert bool(finder.find(text)) == (blanked is not None)


def test_tombstones_are_keyed(finder: Mentions) -> None:
    assert not Mentions("another key", ["email"], [digest(KEY, "email:jo@home.org")]).find("jo@home.org")


def test_a_device_that_many_use_is_nobodys(tmp_path: Path) -> None:
    """It stays with the others, and is no tombstone: their rows of the past still come in."""
    cards = ["AAAA1", "BBBB2", "CCCC3", "DDDD4"]
    facts = Facts(shop=[sale(START + n * DAY, card, device="kiosk-7") for n, card in enumerate(cards)])
    project = make_shop(tmp_path / "shop", facts=facts, settings={"identity_shared": "device=9"})
    for card in cards[1:]:
        decide(project, "unlink", f"loyalty_card:{card}", "device:kiosk-7")
    unify(project)
    before = owners(project)
    assert before["device:kiosk-7"] == before["loyalty_card:AAAA1"] != before["loyalty_card:BBBB2"]
    receipt = erase(project, plan(project, "AAAA1"))
    assert receipt["kept_as_shared"] == {"device": 1}
    assert receipt["erased"]["facts/shop"] == 1
    assert not search([project.home], ["AAAA1"]).hits
    with session(project) as con:
        found = con.execute("SELECT node, id_device FROM shop ORDER BY 1").fetchall()
    assert found == [(f"loyalty_card:{card}", "kiosk-7") for card in cards[1:]]
    assert {n: p for n, p in owners(project).items() if "card" in n} == {
        n: p for n, p in before.items() if "card" in n and "AAAA1" not in n
    }  # fmt: skip
    file = next((project.exports / "shop").glob("*.csv"))
    file.write_text(file.read_text() + file.read_text().splitlines()[2].replace("2024-01-02", "2024-01-09") + "\n")
    result = load_file(project, project.definitions.source("shop"), file)
    assert (result.added, result.erased, result.known) == (1, 1, 3)


def test_the_last_person_may_be_erased(tmp_path: Path) -> None:
    facts = Facts(shop=[sale(START + DAY, "CARD1")], crm=[record(START, "CARD1", "a@x.org", first_name="Zoltana")])
    project = make_shop(tmp_path / "shop", facts=facts)
    receipt = erase(project, plan(project, "a@x.org"))
    assert receipt["erased"]["facts/shop"] == receipt["erased"]["facts/crm"] == 1
    assert not search([project.home], ["CARD1", "a@x.org", "Zoltana"]).hits
    assert owners(project) == {}
    assert collect(project).next
    load_shop(project, ["shop", "crm"])


def test_a_record_without_a_time_stays_out(tmp_path: Path) -> None:
    """It may be as old as any: loaded again later, it would bring the person back."""
    undated = (
        "from foretell import Source\n\ncrm = Source(name='crm', files='crm/*.csv', kind='records',\n"
        "    identifiers={'email': 'email'}, traits={'first_name': 'first_name'})\n"
    )
    people = [record(START, "", f"person{n}@x.org", first_name=f"Name{n}") for n in range(3)]
    project = make_shop(tmp_path / "shop", facts=Facts(crm=people), sources={"crm": undated}, settings={"as_of": ""})
    erase(project, plan(project, "person1@x.org"))
    file = next((project.exports / "crm").glob("*.csv"))
    file.write_text(file.read_text().replace("Name1", "Name1 again"))
    result = load_file(project, project.definitions.source("crm"), file)
    assert (result.added, result.known, result.erased) == (0, 2, 1)
    assert not search([project.home], ["person1@x.org", "Name1 again"]).hits
