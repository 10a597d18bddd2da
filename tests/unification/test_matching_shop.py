"""Profiles without a common identifier are found to be one person, from then on, reversibly and under every guard."""

from __future__ import annotations

import csv
import shutil
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from conftest import SOURCES, START, make_shop, record

from foretell.__main__ import cli
from foretell.errors import DataError, DefinitionError, NotReady, UnknownName
from foretell.project import Project
from lake.engine import last_batch, session, table
from unification.decisions import decide, decisions
from unification.explain import explain
from unification.identity import ensure, members_at, owners, unify
from unification.matching import kept, matcher, review
from unification.matching.people import profiles, without_found
from unification.matching.run import match
from unification.matching.weights import picture, weigh

CRM = SOURCES["crm"].replace(
    '"first_name": "first_name",',
    '"first_name": "first_name", "last_name": "last_name", "street": "street", "postcode": "postcode",',
)
FIRST = [
    "anna",
    "bert",
    "carla",
    "dirk",
    "elena",
    "frank",
    "greta",
    "hugo",
    "ines",
    "jonas",
    "karin",
    "lars",
    "mona",
    "nils",
    "olga",
    "paul",
    "rosa",
    "sven",
    "tina",
    "urs",
]
LAST = [
    "abel",
    "brandt",
    "corner",
    "dahl",
    "eriksen",
    "falk",
    "gruber",
    "holm",
    "iversen",
    "jansen",
    "krogh",
    "lund",
    "meyer",
    "nygaard",
    "olsen",
    "peters",
]
N, TWICE = 120, 40
TWINS = ("loyalty_card:TWIN1", "loyalty_card:TWIN2")


def people(seed: int = 0) -> list[dict]:
    """Records of 120 people, 40 of whom came twice with another card and a slip; and a pair of twins in one house."""
    draw = Random(seed)
    rows = []
    for n in range(N):
        about = {
            "first_name": draw.choice(FIRST), "last_name": draw.choice(LAST) + draw.choice(LAST)[:2],
            "born": f"{draw.randrange(1940, 2004)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}",
            "street": f"{draw.choice(LAST)} street {n}", "postcode": f"{draw.randrange(1000, 9999)}", "city": "Oslo",
        }  # fmt: skip
        rows.append(record(START + timedelta(days=n % 50), f"A{n}", **about))
        if n < TWICE:
            last = about["last_name"]
            again = {**about, "last_name": last[:-2] + last[-1] + last[-2] if n % 2 else last}
            rows.append(record(START + timedelta(days=60 + n % 30), f"B{n}", **again))
    home = {"last_name": "sorensen", "born": "1999-03-04", "street": "twin lane 7", "postcode": "4711", "city": "Oslo"}
    rows += [
        record(START, TWINS[0][13:], first_name="freya", **home),
        record(START, TWINS[1][13:], first_name="magnus", **home),
    ]
    return rows


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Matched once; the tests that use it change nothing."""
    folder = tmp_path_factory.mktemp("matched") / "shop"
    project = make_shop(folder, facts={"crm": people()}, days=100, sources={"crm": CRM})
    assert match(project).trained
    unify(project)
    return project


def again(matched: Project, folder: Path, **settings: object) -> Project:
    """The same home with its model, before anything was matched. settings: others than the usual."""
    shutil.copytree(matched.folder, folder)
    with (folder / "foretell.toml").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    shutil.rmtree(folder / ".foretell" / "lake" / kept.TABLE)
    for made in ("graph", "derived"):
        shutil.rmtree(folder / ".foretell" / made)
    project = Project(folder)
    unify(project)
    return project


@pytest.fixture
def fresh(matched: Project, tmp_path: Path) -> Project:
    return again(matched, tmp_path / "shop")


def ask(project: Project, *words: str, fails: int = 0, typed: str | None = None) -> str:
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "identity", *words], input=typed)
    assert (done.exit_code != 0) == bool(fails), done.output
    return done.output + (str(done.exception) if done.exception else "")


def one(project: Project, n: int) -> bool:
    """Are the two cards of person n one profile?"""
    owner = owners(project)
    return owner[f"loyalty_card:A{n}"] == owner[f"loyalty_card:B{n}"]


def test_people_who_came_twice_are_found_and_nobody_else(matched: Project) -> None:
    assert sum(one(matched, n) for n in range(TWICE)) >= TWICE - 2
    owner = owners(matched)
    for node, profile in owner.items():
        members = {other[13:].lstrip("AB") for other, its in owner.items() if its == profile}
        assert len(members) == 1, node


def test_twins_in_one_house_stay_two(matched: Project) -> None:
    owner = owners(matched)
    assert owner[TWINS[0]] != owner[TWINS[1]]


def test_links_carry_weight_model_and_time_and_explain_shows_them(matched: Project) -> None:
    pairs = kept.pairs(matched, kept.LINKED)
    assert pairs
    for pair in pairs:
        assert pair.probability >= matched.setting("match_at")
        assert pair.model_version == "1"
        assert pair.known_at is not None
        assert pair.known_at < matched.now
        assert sum(bits for _, bits in pair.parts.values()) == pytest.approx(pair.weight, abs=0.01)
    found = explain(matched, "A0", "B0")
    assert [link.source for link in found.path] == ["match"]
    said = ask(matched, "explain", "A0", "B0")
    assert "match" in said
    assert "model 1" in said
    assert "weight +" in said


def test_a_match_never_changes_who_was_who_before(matched: Project) -> None:
    """Up to the instant at which a pair was found, members are those of a home without matching."""
    known = min(pair.known_at for pair in kept.pairs(matched, kept.LINKED))  # pyright: ignore[reportArgumentType]
    with session(matched) as con:
        for at in (START + timedelta(days=70), known):
            now = dict(con.execute(f"SELECT node, profile_id FROM ({members_at(at)})").fetchall())
            assert len(set(now.values())) == len(now)  # every card is a profile of its own
        after = con.execute(f"SELECT count(DISTINCT profile_id) FROM ({members_at(matched.now)})").fetchall()[0][0]
    assert after < len(now)


def test_from_scratch_the_graph_is_the_same(fresh: Project) -> None:
    match(fresh)
    unify(fresh)
    before = owners(fresh)
    with session(fresh) as con:
        edges = con.execute("SELECT a, b, known_at, source, fact_id FROM edges ORDER BY ALL").fetchall()
    (fresh.home / "graph" / "state.json").unlink()
    unify(fresh)
    assert owners(fresh) == before
    with session(fresh) as con:
        assert con.execute("SELECT a, b, known_at, source, fact_id FROM edges ORDER BY ALL").fetchall() == edges


def test_again_adds_nothing_and_a_later_load_only_what_is_new(fresh: Project) -> None:
    first = match(fresh)
    unify(fresh)
    rows = table(fresh, kept.TABLE).rows()
    second = match(fresh)
    unify(fresh)
    assert (first.trained, second.trained) == (False, False)
    assert (second.linked, second.version) == (0, first.version)
    assert table(fresh, kept.TABLE).rows() == rows + second.review + second.refused


def test_a_version_reproduces_its_weights(fresh: Project) -> None:
    before = weigh_all(fresh, None)
    assert match(fresh, version="1").version == "1"
    match(fresh, train=True)
    assert kept.load(fresh)[0] == "2"  # pyright: ignore[reportOptionalSubscript]
    assert weigh_all(fresh, "1") == before
    with pytest.raises(UnknownName, match="version"):
        match(fresh, version="99")


def weigh_all(project: Project, version: str | None) -> dict[str, float]:
    """Weights of some pairs."""
    found = [weigh(project, f"A{n}", f"B{n}", version) for n in range(3)]
    return {f"{w.a} {w.b}": w.weight for w in found}


def test_a_veto_wins_before_and_after(fresh: Project) -> None:
    decide(fresh, "veto", "loyalty_card:A0", "loyalty_card:B0")
    match(fresh)
    unify(fresh)
    assert not one(fresh, 0)
    assert one(fresh, 1)
    assert kept.pair_id("loyalty_card:A0", "loyalty_card:B0") not in {pair.match_id for pair in kept.pairs(fresh)}
    ask(fresh, "veto", "A1", "B1")
    assert not one(fresh, 1)
    ask(fresh, "match")
    assert not one(fresh, 1)


def test_a_link_is_taken_out_by_unlink_and_stays_out(fresh: Project) -> None:
    ask(fresh, "match")
    said = ask(fresh, "unlink", "A2", "B2")
    assert not one(fresh, 2)
    ask(fresh, "match")
    assert not one(fresh, 2)
    ask(fresh, "undo", said.split("Decision ")[1].split(";")[0])
    assert one(fresh, 2)


def test_limits_hold_for_found_links(matched: Project, tmp_path: Path) -> None:
    project = again(matched, tmp_path / "shop", identity_most="{loyalty_card = 1}")
    match(project)
    unify(project)
    assert not any(one(project, n) for n in range(TWICE))
    with session(project) as con:
        reasons = con.execute("SELECT DISTINCT reason FROM refused_edges").fetchall()
    assert reasons == [("profile would hold more than 1 identifiers of type loyalty_card",)]


@pytest.fixture
def asked(matched: Project, tmp_path: Path) -> Project:
    """A shop that links nothing by itself and asks about everything."""
    project = again(matched, tmp_path / "shop", match_at=0.999999999999, review_at=0.3)
    match(project)
    unify(project)
    return project


def test_answers_become_evidence_and_vetoes_and_can_be_undone(asked: Project) -> None:
    pairs = review.waiting(asked)
    assert [w.pair.weight for w in pairs] == sorted((w.pair.weight for w in pairs), reverse=True)
    yes, no = (next(w for w in pairs if {w.pair.a[13:], w.pair.b[13:]} == {f"A{n}", f"B{n}"}) for n in (3, 4))
    said = ask(
        asked, "review", "--same", yes.pair.match_id, "--different", no.pair.match_id, "--because", "I know them"
    )
    assert one(asked, 3)
    assert not one(asked, 4)
    assert [link.source for link in explain(asked, "A3", "B3").path] == ["review"]
    left = {w.pair.match_id for w in review.waiting(asked)}
    assert not left & {yes.pair.match_id, no.pair.match_id}
    assert "same" in ask(asked, "decisions")
    assert "I know them" in ask(asked, "decisions")
    match(asked)
    assert not {w.pair.match_id for w in review.waiting(asked)} & {yes.pair.match_id, no.pair.match_id}
    made = decisions(asked).set_index("kind")["decision_id"]
    assert made["same"] in said
    ask(asked, "undo", made["same"])
    ensure(asked)
    assert not one(asked, 3)
    ask(asked, "undo", made["veto"])
    assert {w.pair.match_id for w in review.waiting(asked)} == left | {yes.pair.match_id, no.pair.match_id}


def test_answers_in_bulk_and_asked_one_by_one(asked: Project, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    ask(asked, "review", "--to", str(file))
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == len(review.waiting(asked))
    assert {"first_name_a", "first_name_b"} <= set(rows[0])
    rows[0]["answer"], rows[1]["answer"] = "same", "Different"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "2 answers" in ask(asked, "review", "--from", str(file))
    assert len(review.waiting(asked)) == len(rows) - 2
    said = ask(asked, "review", "--ask", typed="y\nn\ns\nq\n")
    assert "2 answers" in said
    assert "weights: prior" in said
    assert len(review.waiting(asked)) == len(rows) - 4


def test_wrong_answers_are_refused_and_nothing_is_written(asked: Project, tmp_path: Path) -> None:
    known = review.waiting(asked)[0].pair.match_id
    with pytest.raises(UnknownName, match="pair that waits"):
        review.answer(asked, {known: "same", "m0": "same"})
    with pytest.raises(UnknownName, match="answer"):
        review.answer(asked, {known: "perhaps"})
    assert decisions(asked).empty
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected the columns pair and answer, got a, b"):
        review.read(tmp_path / "odd.csv")
    assert "expected one answer" in ask(asked, "review", "--same", known, "--different", known, fails=2)


def test_weights_of_any_pair_and_their_picture(matched: Project, tmp_path: Path) -> None:
    for b in ("B0", "A1"):
        found = weigh(matched, "A0", b)
        assert sum(bar.bits for bar in found.bars) == pytest.approx(found.weight, abs=0.01)
        assert found.probability == pytest.approx(1 / (1 + 2**-found.weight), abs=1e-6)
    linked = next(p for p in kept.pairs(matched) if {p.a[13:], p.b[13:]} == {"A0", "B0"})
    assert weigh(matched, "A0", "B0").weight == pytest.approx(linked.weight, abs=0.6)  # names are a little rarer by now
    file = tmp_path / "pair.png"
    said = ask(matched, "weights", "A0", "B0", "--plot", str(file))
    assert file.read_bytes()[:4] == b"\x89PNG"
    assert "probability" in said
    other = tmp_path / "explained.png"
    ask(matched, "explain", "A0", "B0", "--plot", str(other))
    assert other.exists()
    assert "One person with probability" in picture(found).get_suptitle()
    with pytest.raises(DataError, match="facts have linked"):
        weigh(matched, "A0", "A0")


def test_what_facts_alone_link(matched: Project) -> None:
    with session(matched) as con:
        assert without_found(con, matched, "loyalty_card:A0") == ["loyalty_card:A0"]
        assert profiles(con, matched)["birth_date"] == "birth_date"


def test_thresholds_in_the_wrong_order_and_no_model(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "load", lambda project, version=None: None)
    with pytest.raises(NotReady, match="no model"):
        weigh(fresh, "A0", "B0")
    with pytest.raises(NotReady, match="no pair waits"):
        review.answer(fresh, {"m1": "same"})
    assert "No pair waits" in ask(fresh, "review")
    monkeypatch.setenv("FORETELL_MATCH_AT", "0.4")
    with pytest.raises(DefinitionError, match="at most match_at"):
        match(Project(fresh.folder))
    monkeypatch.setenv("FORETELL_MATCH_AT", "2")
    assert "between 0 and 1" in ask(fresh, "match", fails=2)


def test_who_is_erased_leaves_no_pair(fresh: Project) -> None:
    ask(fresh, "match")
    done = CliRunner().invoke(cli, ["--project", str(fresh.folder), "erase", "A5", "--yes"])
    assert done.exit_code == 0, done.output
    with session(fresh) as con:
        rows = con.execute(f"FROM {table(fresh, kept.TABLE).scan()}").df()
    assert not rows.isin(["loyalty_card:A5", "loyalty_card:B5"]).any().any()
    assert "loyalty_card:A5" not in owners(fresh)
    assert "loyalty_card:B5" not in owners(fresh)
    assert one(fresh, 6)
    assert last_batch(fresh)


def test_a_model_of_mlflow_holds_nobodys_values(matched: Project) -> None:
    files = list((matched.home / "mlflow" / "artifacts" / "identity_match").rglob("*.json"))
    assert {f.name for f in files} >= {"model.json", "splink.json"}
    text = " ".join(f.read_text() for f in files)
    assert not [name for name in ("sorensen", "freya", "twin lane") if name in text]
    assert matcher.MATCH_AT == 0.5
