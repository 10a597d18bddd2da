"""Who is who in a small lake: spellings that join, values that never link, ids that last, and golden records."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import SOURCES, START, Facts, click, identifiers, known_at, make_shop, record, sale, shop_facts

from features.build import build, read
from foretell.__main__ import cli
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from lake.engine import session
from unification.identity import ensure, members_at, resolve, unify

DAY = timedelta(days=1)


def ask(project: Project, query: str) -> list[tuple]:
    with session(project) as con:
        return con.execute(query).fetchall()


def owners(project: Project) -> dict[str, str]:
    """node -> profile of the project's now."""
    return dict(ask(project, f"SELECT node, profile_id FROM ({members_at(project.now)})"))


def resolved(project: Project, text: str) -> str:
    with session(project) as con:
        return resolve(con, project, text)


def crm(folder: Path, *rows: dict, **other) -> Project:
    return make_shop(folder, facts=Facts(crm=list(rows), **other.pop("facts", {})), **other)


# Spellings.


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "ann@mail.example", " Ann@Mail.Example "),
        ("phone", "+1 614 555 0123", "(614) 555-0123"),
        ("phone", "001-614-555-0123", "6145550123"),
        ("card", "4000-0012 3456", "400000123456"),
        ("card", "ab-12", "AB12"),
    ],
)
def test_spellings_of_one_identifier_are_one_person(tmp_path: Path, kind: str, one: str, other: str) -> None:
    rest = [{"card": "CARD1"}, {"card": "CARD2"}] if kind != "card" else [{"email": f"{n}@x.example"} for n in "ab"]
    project = crm(tmp_path / "p", *(record(START, **{kind: v}, **r) for v, r in zip((one, other), rest, strict=True)))
    assert len(owners(project)) == 3
    assert len(set(owners(project).values())) == 1
    assert resolved(project, one) == resolved(project, other)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("email", "unknown@shop.example"), ("email", "noreply@shop.example"), ("email", "n/a"), ("email", "no mail"),
        ("email", "Test@shop.example"), ("email", "a@b@c.example"), ("phone", "000-000-0000"), ("phone", "123"),
        ("phone", "-1"), ("phone", "unknown"), ("card", "0000"), ("card", "null"), ("card", "--"), ("card", "N/A"),
    ],
)  # fmt: skip
def test_placeholders_never_link_two_people(tmp_path: Path, kind: str, value: str) -> None:
    rest = [{"card": "CARD1"}, {"card": "CARD2"}] if kind != "card" else [{"email": f"{n}@x.example"} for n in "ab"]
    project = crm(tmp_path / "p", *(record(START, **{kind: value}, **r) for r in rest))
    assert len(owners(project)) == 2
    assert len(set(owners(project).values())) == 2
    with pytest.raises(UnknownName, match="no such profile or identifier"):
        resolved(project, value)


def test_the_same_value_under_two_types_is_two_identifiers(tmp_path: Path) -> None:
    project = crm(tmp_path / "p", record(START, card="6145550123"), record(START, phone="6145550123"))
    assert len(set(owners(project).values())) == 2


# Graph and ids.


def test_profiles_are_the_components_of_what_the_facts_say(shop: Project) -> None:
    for before in (START + n * 57 * DAY for n in range(1, 8)):
        graph = nx.Graph()
        for name, rows in shop_facts().items():
            for row in rows:
                if known_at(name, row) < before:
                    found = identifiers(name, row)
                    graph.add_nodes_from(found)
                    graph.add_edges_from(pairwise(found))
        frame = pd.DataFrame(ask(shop, f"SELECT profile_id, node FROM ({members_at(before)})"), columns=["id", "node"])
        parts = {frozenset(part) for _, part in frame.groupby("id")["node"]}
        assert parts == {frozenset(part) for part in nx.connected_components(graph)}


@pytest.mark.slow
def test_a_rebuild_and_another_home_with_the_key_give_the_same_ids(tmp_path: Path) -> None:
    facts = shop_facts(people=20, days=200)
    project = make_shop(tmp_path / "one", facts=facts)
    before, members = owners(project), ask(project, "SELECT * FROM member")
    counts = unify(project)
    assert (owners(project), ask(project, "SELECT * FROM member")) == (before, members)
    assert counts == unify(project)
    assert owners(make_shop(tmp_path / "two", facts=facts)) == before
    other = owners(make_shop(tmp_path / "three", facts=facts, key="1" * 64))
    assert not set(other.values()) & set(before.values())


def test_an_old_id_leads_to_the_profile_of_today(tmp_path: Path) -> None:
    first = [record(START, "CARD1", "ann@x.example"), record(START + DAY, "CARD2", phone="614 555 0123")]
    link = record(START + 2 * DAY, "CARD2", "ann@x.example")
    apart, merged = crm(tmp_path / "apart", *first), crm(tmp_path / "merged", *first, link)
    younger = resolved(apart, "CARD2")
    assert younger != resolved(apart, "CARD1")
    assert resolved(merged, younger) == resolved(merged, "CARD1") == resolved(apart, "CARD1")
    assert ask(merged, "SELECT winner FROM alias WHERE loser = '" + younger + "'") == [(resolved(apart, "CARD1"),)]


@pytest.mark.parametrize("text", ["CARD1", "card1", "loyalty_card:card 1", "ANN@x.example", "email:ann@x.example"])
def test_any_spelling_of_an_identifier_resolves(tmp_path: Path, text: str) -> None:
    project = crm(tmp_path / "p", record(START, "CARD1", "ann@x.example"), record(START, "CARD2"))
    assert resolved(project, text) == owners(project)["loyalty_card:CARD1"]


def test_today_is_the_projects_now(tmp_path: Path) -> None:
    """Facts after `as_of` are of no concern: ids resolve to the profiles that the golden table has."""
    rows = [record(START, "CARD1"), record(START, "CARD2"), record(START + 300 * DAY, "CARD9")]
    rows += [record(START + 200 * DAY, card, "ann@x.example") for card in ("CARD1", "CARD2")]
    project = crm(tmp_path / "p", *rows, as_of=START + 100 * DAY)
    assert resolved(project, "CARD1") != resolved(project, "CARD2")
    assert {(resolved(project, c),) for c in ("CARD1", "CARD2")} == set(ask(project, "SELECT profile_id FROM profiles"))
    with pytest.raises(UnknownName, match="CARD9"):
        resolved(project, "CARD9")


def test_an_identifier_nobody_has_says_what_to_try(tmp_path: Path) -> None:
    project = crm(tmp_path / "p", record(START, "CARD1"))
    with pytest.raises(UnknownName, match=r"^nobody@x\.example: no such profile or identifier; .*e-mail or card"):
        resolved(project, "nobody@x.example")
    with pytest.raises(UnknownName):
        resolved(project, "it's ' quoted")


def test_a_value_of_two_people_names_both_and_asks_for_the_type(tmp_path: Path) -> None:
    project = crm(tmp_path / "p", record(START, card="6145550123"), record(START, phone="614 555 0123"))
    card, phone = (owners(project)[f"{kind}:6145550123"] for kind in ("loyalty_card", "phone"))
    with pytest.raises(UnknownName, match=r"means 2 profiles .*; say which type: email:…, phone:…") as caught:
        resolved(project, "6145550123")
    assert card in str(caught.value)
    assert phone in str(caught.value)
    assert resolved(project, "phone:614 555 0123") == phone
    assert resolved(project, "loyalty_card:6145550123") == card


def test_without_facts_or_graph_the_error_names_the_command(tmp_path: Path, shop: Project) -> None:
    from conftest import write_shop

    project = write_shop(tmp_path / "p", {})
    with pytest.raises(NotReady, match="foretell load"):
        unify(project)
    with pytest.raises(NotReady, match="foretell unify"):
        resolved(project, "CARD1")


def test_a_profile_too_large_is_refused_and_reported(tmp_path: Path) -> None:
    rows = [record(START + n * DAY, f"CARD{n}", "family@x.example") for n in range(6)]
    project = crm(tmp_path / "p", *rows, settings={"identity_max": 4})
    sizes = ask(project, f"SELECT count(*) FROM ({members_at(project.now)}) GROUP BY profile_id ORDER BY 1")
    assert sizes == [(1,), (1,), (1,), (4,)]
    refused = ask(project, "SELECT a, b, reason FROM refused_edges ORDER BY b")
    assert refused == [
        ("email:family@x.example", f"loyalty_card:CARD{n}", "profile would hold 5 identifiers, limit 4")
        for n in (3, 4, 5)
    ]
    assert unify(project)["refused"] == 3


def test_other_rules_are_shown_before_they_are_applied(tmp_path: Path) -> None:
    rows = [record(START, f"CARD{n}", "family@x.example") for n in range(3)]
    project = crm(tmp_path / "p", *rows)
    file = project.home / "derived" / "member.parquet"
    built = file.stat().st_mtime_ns
    ensure(project)
    assert file.stat().st_mtime_ns == built
    with (project.folder / "foretell.toml").open("a") as toml:
        toml.write("identity_max = 2\n")
    again = Project(project.folder)
    with pytest.raises(NotReady, match=r"limits: .*50.* -> .*2.*`foretell unify` shows which"):
        ensure(again)
    assert len(set(owners(again).values())) == 1
    before = set(owners(again).values())

    def said(*words: str, answer: str = "") -> str:
        return CliRunner().invoke(cli, ["--project", str(again.folder), "unify", *words], input=answer).output

    shown = said("--dry-run")
    assert "0 merges, 1 splits, 0 untouched" in shown
    assert f"  {before.pop()} -> " in shown
    said(answer="n\n")
    assert len(set(owners(again).values())) == 1
    assert "-> 3 profiles" in said(answer="y\n")
    assert len(set(owners(again).values())) == 3  # e-mail and one card, and two cards alone
    ensure(again)
    assert "The rules are those" in said("--dry-run")


@pytest.mark.parametrize("change", ["contract", "limit"])
def test_features_are_built_again_when_other_rules_make_another_graph(tmp_path: Path, change: str) -> None:
    """Though no fact was loaded, and the contract of the view's own source is as it was."""
    rows = [record(START + n * DAY, f"CARD{n}", "ann@x.example") for n in range(2)]
    sales = [sale(START + n * DAY, f"CARD{n}") for n in range(2)]
    project, at = crm(tmp_path / "p", *rows, facts={"shop": sales}), START + 50 * DAY
    build(project, [project.definitions.view("orders")], [at])
    if change == "contract":
        (project.folder / "sources/crm.py").write_text(SOURCES["crm"].replace('"email": "email", ', ""))
    else:
        with (project.folder / "foretell.toml").open("a") as toml:
            toml.write("identity_max = 2\n")
    again = Project(project.folder)
    unify(again)
    view = again.definitions.view("orders")
    assert build(again, [view], [at]) == 1
    assert build(again, [view], [at]) == 0
    assert {p for (p,) in ask(again, f"SELECT profile_id FROM {read(again, view, at)}")} == set(owners(again).values())


def test_an_edge_is_known_since_its_first_evidence_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [record(START + n * DAY, "CARD1", "ann@x.example") for n in (5, 2, 9)]
    project = crm(tmp_path / "p", *rows)
    (edge,) = ask(project, "SELECT a, b, known_at, source, evidence FROM edges")
    assert (edge[0], edge[1], edge[3], edge[4]) == ("email:ann@x.example", "loyalty_card:CARD1", "crm", 3)
    assert edge[2] == START + 2 * DAY


def test_links_come_from_events_too(tmp_path: Path) -> None:
    facts = Facts(
        shop=[sale(START, "CARD1", email="ann@x.example"), sale(START + DAY, "CARD2")],
        web=[click(START, "phone-1", "Ann@x.example"), click(START + DAY, "phone-1"), click(START, "phone-2")],
    )
    owner = owners(make_shop(tmp_path / "p", facts=facts))
    assert owner["loyalty_card:CARD1"] == owner["email:ann@x.example"] == owner["device:phone-1"]
    assert len(set(owner.values())) == 3


# Golden records.


MAILING = """
from foretell import Source

mailing = Source(
    name="mailing",
    files="crm/*.csv",
    kind="records",
    event_at="registered_at",
    identifiers={"email": "email"},
    traits={"first_name": "'mail-' || first_name", "city": "city"},
    trust=TRUST,
)
"""


def golden(project: Project) -> dict[str, dict]:
    with session(project) as con:
        frame = con.execute("SELECT * FROM golden").df()
    assert frame["profile_id"].nunique() == 1
    return frame.set_index("attribute").to_dict("index")


def two_sources(folder: Path, *rows: dict, trust: int) -> Project:
    from conftest import load_shop, write_shop

    project = write_shop(folder, {"crm": rows}, sources={"mailing": MAILING.replace("TRUST", str(trust))})
    load_shop(project, ["crm", "mailing"])
    return project


def test_the_most_trusted_source_wins_whatever_its_age(tmp_path: Path) -> None:
    row = record(START, email="ann@x.example", first_name="Ann", city="Oslo")
    assert golden(two_sources(tmp_path / "less", row, trust=1))["first_name"]["value"] == "Ann"
    won = golden(two_sources(tmp_path / "more", row, trust=3))["first_name"]
    assert (won["value"], won["source"], won["distinct_values"]) == ("mail-Ann", "mailing", 2)


def test_among_equals_the_most_recent_fact_wins_and_blanks_never_do(tmp_path: Path) -> None:
    project = crm(
        tmp_path / "p",
        record(START + 2 * DAY, "CARD1", first_name="Anna", city=""),
        record(START, "CARD1", first_name="Ann", city="Oslo"),
        record(START + DAY, "CARD1", first_name="Anne", city=" Bergen "),
        record(START + 3 * DAY, "CARD1", first_name="  "),
    )
    found = golden(project)
    assert (found["first_name"]["value"], found["first_name"]["distinct_values"]) == ("Anna", 3)
    assert found["city"]["value"] == "Bergen"


def test_every_value_names_the_fact_it_comes_from(tmp_path: Path) -> None:
    project = crm(tmp_path / "p", record(START, "CARD1", "ann@x.example", first_name="Ann"))
    found = golden(project)
    facts = ask(project, "SELECT fact_id, event_at, known_at FROM crm")
    name = found["first_name"]
    assert [(name["fact_id"], name["event_at"], name["known_at"])] == facts
    assert name["source"] == "crm"
    assert (found["email"]["value"], found["email"]["source"]) == ("ann@x.example", "identity graph")
    assert found["email"]["fact_id"] == "email:ann@x.example"
    columns = ["profile_id", "attribute", "value", "source", "fact_id", "event_at", "known_at", "distinct_values",
               "rule"]  # fmt: skip
    assert [c for (c, *_) in ask(project, "DESCRIBE golden")] == columns
    assert ask(project, "SELECT first_name, email, loyalty_card, identifiers FROM profiles") == [
        ("Ann", "ann@x.example", "CARD1", 2)
    ]


def test_golden_records_do_not_know_what_comes_after_now(tmp_path: Path) -> None:
    rows = [record(START, "CARD1", first_name="Ann"), record(START + 9 * DAY, "CARD1", first_name="Zoe")]
    assert golden(crm(tmp_path / "then", *rows, as_of=START + 9 * DAY))["first_name"]["value"] == "Ann"
    later = START + 9 * DAY + timedelta(microseconds=1)
    assert golden(crm(tmp_path / "now", *rows, as_of=later))["first_name"]["value"] == "Zoe"
