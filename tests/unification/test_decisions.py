"""A wrong link is explained, undone and kept undone; what depends on it follows, and the past does not change."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import START, load_shop, make_shop, record, sale, write_shop

from features.build import build, read
from foretell.__main__ import cli
from foretell.errors import NotReady, UnknownName
from foretell.project import Project
from lake.engine import session
from segments.audience import audience
from serving.profile import page
from unification.decisions import decide, decisions, take_back
from unification.explain import explain
from unification.identity import differences, ensure, owners, resolve

DAY = timedelta(days=1)
ANN, BOB = "email:ann@shop.example", "email:bob@shop.example"


@pytest.fixture
def household(tmp_path: Path) -> Project:
    """Ann and Bob, each with a card and an e-mail; then somebody wrote Bob's card into Ann's record."""
    crm = [
        record(START, "CARD1", "ann@shop.example", city="Oslo"),
        record(START + DAY, "CARD2", "bob@shop.example", city="Bergen"),
        record(START + 30 * DAY, "CARD2", "ann@shop.example", city="Oslo"),
    ]
    shop = [sale(START + 2 * DAY, "CARD1", "10.00"), *(sale(START + n * DAY, "CARD2", "5.00") for n in (3, 40, 41))]
    return make_shop(tmp_path / "shop", facts={"crm": crm, "shop": shop}, days=100)


def ask(project: Project, *words: str) -> str:
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "identity", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def who(project: Project, text: str) -> str:
    with session(project) as con:
        return resolve(con, project, text)


def orders(project: Project) -> dict[str, float]:
    """Profile -> spend_365d, as scoring would see it."""
    view = project.definitions.view("orders")
    build(project, [view], [project.now])
    with session(project) as con:
        return dict(con.execute(f"SELECT profile_id, spend_365d FROM {read(project, view, project.now)}").fetchall())


def test_the_chain_of_links_names_its_evidence(household: Project) -> None:
    found = explain(household, "bob@shop.example", "CARD1")
    assert [{link.a, link.b} for link in found.path] == [
        {BOB, "loyalty_card:CARD2"}, {ANN, "loyalty_card:CARD2"}, {ANN, "loyalty_card:CARD1"}
    ]  # fmt: skip
    assert {link.source for link in found.path} == {"crm"}
    with session(household) as con:
        facts = {row[0] for row in con.execute("SELECT fact_id FROM crm").fetchall()}
    assert {link.fact_id for link in found.path} <= facts
    said = ask(household, "explain", "bob@shop.example", "CARD1")
    assert "by 3 links" in said
    assert said.count("crm") >= 3


@pytest.mark.parametrize("kind", ["veto", "unlink"])
def test_a_wrong_link_is_undone_and_everything_follows(household: Project, kind: str) -> None:
    before = owners(household)
    assert len(set(before.values())) == 1
    assert list(orders(household).values()) == [25.0]
    said = ask(household, kind, "ann@shop.example", "bob@shop.example" if kind == "veto" else "CARD2")
    apart = owners(household)
    one, other = who(household, "ann@shop.example"), who(household, "CARD2")
    assert one == before[ANN]
    assert other != one
    assert {apart["loyalty_card:CARD1"], apart[ANN]} == {one}
    assert {apart["loyalty_card:CARD2"], apart[BOB]} == {other}
    assert f"{one} -> " in said
    assert other in said
    assert orders(household) == {one: 10.0, other: 15.0}
    assert set(audience(household, "identifiers = 2").members["profile_id"]) == {one, other}
    assert page(household, "CARD2")["profile_id"] == other
    assert other not in page(household, "CARD1")["former_ids"]
    (made,) = decisions(household)["decision_id"]
    ask(household, "undo", made, "--because", "they did marry")
    assert owners(household) == before
    assert list(orders(household).values()) == [25.0]
    assert "yes" in ask(household, "decisions")


def test_it_stays_undone_when_the_link_is_seen_again(household: Project) -> None:
    decide(household, "veto", ANN, BOB, "twins")
    again = household.exports / "crm" / "again.csv"
    first = (household.exports / "crm" / "crm.csv").read_text().splitlines()
    again.write_text("\n".join([first[0], first[3].replace("Oslo", "Tromsø")]) + "\n")
    load_shop(household, ["crm"])
    assert who(household, ANN) != who(household, BOB)
    found = explain(household, ANN, BOB)
    assert found.path == []
    assert [link.reason for link in found.refused] == ["a veto keeps the two apart"]
    assert "a veto keeps the two apart" in ask(household, "explain", ANN, BOB)


def test_a_decision_leaves_the_past_as_it_was_known(household: Project) -> None:
    view, then = household.definitions.view("orders"), household.now - 10 * DAY

    def rows() -> list[tuple]:
        build(household, [view], [then])
        with session(household) as con:
            return con.execute(f"SELECT * FROM {read(household, view, then)} ORDER BY ALL").fetchall()

    before = rows()
    decide(household, "veto", ANN, BOB)
    assert rows() == before
    assert len(before) == 1


def test_a_decision_is_noticed_by_whatever_comes_next(household: Project) -> None:
    decide(household, "veto", ANN, BOB)
    ensure(household)
    assert len(set(owners(household).values())) == 2
    (made,) = decisions(household)["decision_id"]
    take_back(household, made)
    ensure(household)
    assert len(set(owners(household).values())) == 1


def test_what_cannot_be_decided_says_why(household: Project) -> None:
    run = CliRunner()

    def refused(*words: str) -> str:
        done = run.invoke(cli, ["--project", str(household.folder), "identity", *words])
        assert done.exit_code != 0
        return str(done.exception)

    assert "expected two identifiers, got email:ann@shop.example twice" in refused("veto", "ann@shop.example", ANN)
    assert "nothing links these two directly" in refused("unlink", ANN, BOB)
    assert "no such profile or identifier" in refused("veto", ANN, "nobody@shop.example")
    assert "decision" in refused("undo", "d00000000")
    assert decisions(household).empty
    made = decide(household, "veto", ANN, BOB)
    take_back(household, made)
    with pytest.raises(UnknownName, match="is taken back already"):
        take_back(household, made)


@pytest.mark.parametrize("words", [("explain", "a", "b"), ("veto", "a", "b"), ("undo", "d00000000")])
def test_before_anything_is_loaded_it_says_what_to_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    project = write_shop(tmp_path / "shop", {})
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "identity", *words])
    assert isinstance(done.exception, NotReady)
    assert "run `foretell load` first" in str(done.exception)


def test_differences_are_groups_of_profiles_that_exchanged_identifiers() -> None:
    before = {"a": "p1", "b": "p1", "c": "p2", "d": "p3", "e": "p4", "f": "p4"}
    after = {"a": "p1", "b": "p2", "c": "p2", "d": "p3", "e": "p4", "f": "p5", "g": "p6"}
    assert differences(before, after) == [(["p1", "p2"], ["p1", "p2"]), (["p4"], ["p4", "p5"])]
    assert differences(before, before) == []
    assert differences({"a": "p1", "b": "p2"}, {"a": "p1", "b": "p1"}) == [(["p1", "p2"], ["p1"])]
