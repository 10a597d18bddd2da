"""Erased is erased: every file below the home is decoded and searched, at once and after the sources were loaded again.

One person of the trained shop is given everything that a person may have: several cards and e-mails, spelt in several
ways, rows in quarantine and lines that are no rows, a decision, consents, files that came in, rows of others that name
them, and what a killed writer left behind.
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures_trained import NOW, TASKS, TrainedShop, copy_of, trained
from test_kill import LOAD_IMPORTS, at_calls, killed, run

from features.store.online import Online
from foretell import __main__ as program
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from ingestion.load import load_file
from lake import catalogue
from lake.engine import session
from lake.erasure import receipts, tombstones, unfinished
from lake.scan import search
from models.registry import champion, quietly
from segments.control import hand_out
from segments.history import record
from serving.consent import say
from serving.erase import erase, plan
from serving.export import collect, write
from serving.grade import grade
from serving.profile import page
from serving.publish import publish
from serving.score import score
from training.lineage import erased_rows, learned_from
from unification.decisions import decide
from unification.identity import ensure, owners, resolve, unify

__all__ = ["trained"]

MAIL, OTHER_MAIL, CARD, OTHER_CARD = "person17@example.org", "anna.of.17@home.example", "40000017", "77-00 0017"
STREET, NAME = "17 Hidden Lane", "Annabellina"
# what must not be left anywhere, in any case, as it was written and in its normal form
TEXTS = [MAIL, OTHER_MAIL, CARD, OTHER_CARD, "77000017", "7700 0017", STREET, NAME]
STRANGER = "stranger@example.org"


def everything_about(project: Project) -> None:
    """Give the person of MAIL all that a person may have."""
    folder = project.folder / "more"
    folder.mkdir()
    crm = [
        "registered_at,email,card_no,first_name,city",
        f'2024-01-02 10:00:00,{MAIL.title()},{OTHER_CARD},{NAME},"{STREET}"',
        f"2024-01-03 10:00:00, {OTHER_MAIL.upper()} ,7700 0017,{NAME},Oslo",
        f"never,{MAIL},,{NAME},Oslo",
        f"2024-01-05 10:00:00,{STRANGER},{CARD[:4]} {CARD[4:]},Stranger,Oslo",  # a wrong link, undone below
    ]
    (folder / "crm.csv").write_text("\n".join(crm) + "\n")
    (folder / "till.csv").write_text(
        "receipt,sold_at,card_no,amount,quantity,sku\n"
        f"rx1,2024-02-01 10:00:00,{OTHER_CARD},10.00,1,sku1\nrx2,2024-02-01,{CARD},a lot,1,sku1\n"
    )
    (folder / "web.jsonl").write_text(
        f'{{"at": "2024-02-02T10:00:00", "order_id": "w17", "total": "5", "user": {{"email": "{MAIL}"}}}}\n'
        f'{{"at": "2024-02-02T10:00:00", "order_id": broken, "user": {{"email": "{OTHER_MAIL}"}}}}\n'
    )
    for name in ("crm", "till", "web"):
        load_file(project, project.definitions.source(name), next(folder.glob(f"{name}.*")))
    ensure(project)
    decide(project, "unlink", f"email:{STRANGER}", f"card:{CARD}", f"{MAIL} is not the stranger")
    unify(project)
    say(project, OTHER_MAIL, "marketing", True, f"{NAME} called")
    score(project, list(TASKS[:1]))
    score(project, list(TASKS[:1]), cutoff=NOW - timedelta(days=95))
    assert grade(project)
    (project.folder / "segments" / "held.yaml").write_text("rule: identifiers > 0\ncontrol: 0.4\n")
    record(project)
    hand_out(project, "held", folder / "held.csv")
    shutil.rmtree(folder)
    home = project.home
    (home / "collected" / "web").mkdir(parents=True)
    lines = [json.dumps({"type": "identify", "traits": {"email": who}}) for who in ("x@y.org", MAIL, "z@y.org")]
    (home / "collected" / "web" / "1.jsonl").write_text("\n".join(lines) + "\n")
    (home / "landing").mkdir()
    (home / "landing" / "page.jsonl.gz").write_bytes(gzip.compress(json.dumps({"card": OTHER_CARD}).encode() + b"\n"))
    stored = next((home / "lake" / "facts" / "crm").glob("*.parquet"))
    shutil.copy(stored, stored.with_name("part-00000-orphan.parquet"))  # written, and never committed
    shutil.copy(home / "derived" / "golden.parquet", home / "features" / ".golden.parquet.12345")


def state(project: Project, but: set[str]) -> dict[str, Any]:
    """What is held of everybody else."""
    with session(project) as con:
        others = {n: p for n, p in owners(project).items() if p not in but}
        found: dict[str, Any] = {"owners": others}
        con.execute("CREATE TEMP TABLE kept AS SELECT unnest(?::VARCHAR[]) AS node", [list(others)])
        for name in project.definitions.sources:
            query = f'SELECT * FROM "{name}" WHERE node IN (SELECT node FROM kept) ORDER BY fact_id'
            found[name] = con.execute(query).fetchall()
        con.execute("CREATE TEMP TABLE gone AS SELECT unnest(?::VARCHAR[]) AS profile_id", [list(but)])
        rest = "profile_id NOT IN (SELECT profile_id FROM gone) ORDER BY ALL"
        found["scores"] = con.execute(
            f"SELECT * EXCLUDE (reasons, features), reasons::VARCHAR, features::VARCHAR FROM scores WHERE {rest}"
        ).fetchall()
        for name in ("golden", "outcomes", "memberships", "exposures"):
            found[name] = con.execute(f"SELECT * FROM {name} WHERE {rest}").fetchall()
        for file in sorted((project.home / "features").rglob("[!.]*.parquet")):
            query = f"SELECT * FROM read_parquet('{file}', hive_partitioning=false) WHERE {rest}"
            found[str(file.relative_to(project.home))] = [str(r) for r in con.execute(query).fetchall()]
    return found


@dataclass(frozen=True)
class Done:
    project: Project
    ids: set[str]
    nodes: list[str]
    hits_before: list[tuple[Path, str, str]]
    before: dict[str, Any]
    learned: list[dict[str, Any]]
    exported: dict[str, Any]
    receipt: dict[str, Any]


@pytest.fixture(scope="module")
def full(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The trained shop with the person who has everything. Not to be changed."""
    project = copy_of(trained.project, tmp_path_factory.mktemp("full") / "shop")
    everything_about(project)
    return project


@pytest.fixture(scope="module")
def done(full: Project, tmp_path_factory: pytest.TempPathFactory) -> Done:
    project = copy_of(full, tmp_path_factory.mktemp("erased") / "shop")
    hits = search([project.home], TEXTS).hits
    found = plan(project, MAIL)
    ids = set(found.known.profile_ids)
    before, exported = state(project, ids), collect(project, MAIL)
    learned = learned_from(project, ids)
    receipt = erase(project, found)
    return Done(project, ids, found.known.nodes, hits, before, learned, exported, receipt)


def test_the_person_had_everything(done: Done) -> None:
    """Else the tests below would find nothing because there was nothing."""
    assert sorted(done.nodes) == [
        "card:40000017", "card:77000017", f"email:{OTHER_MAIL}", f"email:{MAIL}",
    ]  # fmt: skip
    places = {str(file.relative_to(done.project.home)).split("/")[0] for file, *_ in done.hits_before}
    assert {"lake", "derived", "serving", "landing", "collected", "features"} <= places
    tables = {
        file.relative_to(done.project.home / "lake").parts[0] for file, *_ in done.hits_before if "lake" in file.parts
    }
    assert tables == {"facts", "quarantine", "decisions", "consents"}
    assert {text for *_, text in done.hits_before} == set(TEXTS)
    erased = done.receipt["erased"]
    assert {"facts/crm", "facts/till", "facts/web", "quarantine", "scores", "outcomes", "training_rows", "decisions",
            "consents", "features", "online store", "last batches", "collected", "landing", "memberships", "exposures",
            } <= erased.keys()  # fmt: skip
    assert erased["quarantine"] == 3
    assert erased["collected"] == erased["landing"] == erased["decisions"] == erased["consents"] == 1
    assert erased["facts/crm, blanked in rows of others"] == 1


def test_nothing_is_left_in_any_file(done: Done) -> None:
    found = search([done.project.home], TEXTS)
    assert found.hits == []
    assert found.short == []
    assert {"Parquet", "JSON", "SQLite", "picture", "bytes"} <= found.formats.keys()
    assert done.receipt["verified"]["found"] == []
    assert done.receipt["verified"]["files"] > 150


def test_the_profile_is_gone_from_features_models_and_scores(done: Done) -> None:
    """Its ids are in the erasure's own record, and nowhere else."""
    found = search([done.project.home], done.ids)
    assert {file.relative_to(done.project.home).parts[:2] for file, *_ in found.hits} == {("lake", "erasures")}
    service = quietly(lambda: champion(done.project, "churn")).contract["service"]
    rows = Online(done.project, [service]).read([service], sorted(done.ids))[service]
    assert all(rows.times(place) == {None} for place in range(len(done.ids)))
    for who in [*done.nodes, *done.ids, MAIL, OTHER_CARD]:
        with session(done.project) as con, pytest.raises(UnknownName):
            resolve(con, done.project, who)


def test_everybody_else_is_as_before(done: Done) -> None:
    after = state(done.project, done.ids)
    assert after.keys() == done.before.keys()
    for name, rows in done.before.items():
        if name == "crm":  # the row of the stranger that named the person
            assert len(after[name]) == len(rows)
            changed = [new for new, old in zip(after[name], rows, strict=True) if new != old]
            assert [(json.loads(row[-1])["email"], json.loads(row[-1])["card_no"]) for row in changed] == [
                (STRANGER, "[erased]"),
            ]  # fmt: skip
            continue
        assert after[name] == rows, name
    assert len(after["owners"]) > 200
    assert done.receipt["rebuilt"] == ["derived", "serving"]


def test_others_scores_are_bit_exact_from_their_stored_rows(done: Done) -> None:
    import pandas as pd

    model = quietly(lambda: champion(done.project, "churn"))
    with session(done.project) as con:
        stored = con.execute("SELECT features, value, cutoff FROM scores WHERE task = 'churn' LIMIT 200").fetchall()
    X = pd.DataFrame([dict(features) for features, *_ in stored])
    assert list(model.predict(X, stored[0][2])) == [value for _, value, _ in stored]


def test_the_receipt_says_what_was_done_and_nothing_personal(done: Done) -> None:
    receipt = done.receipt
    assert receipts(done.project) == [receipt]
    text = json.dumps(receipt)
    assert not [t for t in TEXTS if t.lower() in text.lower()]
    assert receipt["profile_id"] in done.ids
    assert receipt["models"] == done.learned
    assert {m["task"] for m in receipt["models"]} >= {"churn", "clv"}
    assert all(0 < m["training"] + m["final"] + m["evaluation"] < m["of_final"] for m in receipt["models"])
    for model in receipt["models"]:  # k of n rows erased
        assert erased_rows(done.project, model["task"], model["version"]) == model["final"]
        contract = quietly(lambda m=model: champion(done.project, m["task"])).contract
        assert model["of_final"] == contract["rows"]["final"]
    outside = receipt["outside_our_control"]["files"]
    assert outside == sorted(outside)
    assert "exports/crm/people.csv" in outside
    assert unfinished(done.project) == []


def test_loading_the_same_sources_again_brings_nothing_back(done: Done, tmp_path: Path) -> None:
    project = copy_of(done.project, tmp_path / "shop")
    before = state(project, set())
    kept_out = 0
    for name, source in project.definitions.sources.items():
        for file in sorted((project.exports / name).iterdir()):
            assert load_file(project, source, file).skipped
            file.write_text(file.read_text() + "\n")  # the same rows in another file
            result = load_file(project, source, file)
            assert (result.added, result.skipped) == (0, False)
            kept_out += result.erased
    (project.exports / "crm" / "later.csv").write_text(  # never seen, and dated before the erasure
        f"registered_at,email,card_no,first_name,city\n2024-03-01 10:00:00,{OTHER_MAIL},99001122,{NAME},{STREET}\n"
        f"nonsense,{MAIL},,{NAME},\n"
    )
    later = load_file(project, project.definitions.source("crm"), project.exports / "crm" / "later.csv")
    assert (later.added, later.erased, later.quarantined) == (0, 2, 0)
    assert kept_out > 5
    unify(project)
    publish(project)
    assert search([project.home], TEXTS).hits == []
    after = state(project, set())
    assert after == before


@pytest.mark.slow
def test_who_comes_back_is_somebody_new(done: Done, tmp_path: Path) -> None:
    project = copy_of(done.project, tmp_path / "shop")
    toml = project.folder / "foretell.toml"
    toml.write_text(toml.read_text().replace(NOW.isoformat(), "2024-09-01T00:00:00+00:00"))
    project = Project(project.folder)
    (project.exports / "crm" / "back.csv").write_text(
        f"registered_at,email,card_no,first_name,city\n2024-08-01 10:00:00,{MAIL},,{NAME},Oslo\n"
        f"2024-06-01 10:00:00,{MAIL},,{NAME},Bergen\n"
    )
    result = load_file(project, project.definitions.source("crm"), project.exports / "crm" / "back.csv")
    assert (result.added, result.erased) == (1, 1)
    unify(project)
    found = page(project, MAIL)
    assert found["profile_id"] not in done.ids
    assert found["scores"] == []
    assert [i["identifier"] for i in found["identifiers"]] == [f"email:{MAIL}"]
    assert unify(project)["profiles"] == len(set(owners(project).values()))
    with session(project) as con:  # the same at every rebuild
        assert resolve(con, project, MAIL) == found["profile_id"]
    receipt = erase(project, plan(project, MAIL))  # and may be erased once more
    assert receipt["verified"]["found"] == []
    assert search([project.home], [MAIL, NAME]).hits == []
    assert max(times for _, times in tombstones(project).values()) == 2


def test_every_table_and_folder_is_in_the_catalogue(full: Project, done: Done) -> None:
    for project in (full, done.project):
        assert [n for n in catalogue.tables(project) if catalogue.held(n) is None] == []
        assert [f.name for f in project.home.iterdir() if f.name not in {*catalogue.FOLDERS, "lake"}] == []


def test_the_export_has_everything(done: Done, tmp_path: Path) -> None:
    found = done.exported
    write(found, tmp_path / "anna.json")
    read = json.loads((tmp_path / "anna.json").read_text())
    assert read["format"] == "foretell-export/1"
    assert {i["identifier"] for i in read["profile"]["identifiers"]} == set(done.nodes)
    assert {t["attribute"] for t in read["profile"]["traits"]} == {"first_name", "city"}
    rows = [fact["row"] for facts in read["facts"].values() for fact in facts]
    assert len(rows) == sum(done.receipt["erased"][f"facts/{s}"] for s in ("crm", "till", "web"))
    assert {"receipt": "rx1", "sold_at": "2024-02-01 10:00:00", "card_no": OTHER_CARD, "amount": "10.00",
            "quantity": "1", "sku": "sku1"} in rows  # as it came  # fmt: skip
    assert len(read["quarantine"]) == 3
    assert [c["purpose"] for c in read["consents"]] == ["marketing"]
    assert len(read["scores"]) == done.receipt["erased"]["scores"]
    assert all(score["features"] for score in read["scores"])
    for name in ("memberships", "exposures"):
        assert len(read[name]) == done.receipt["erased"][name] > 0
        assert "held" in {row["segment"] for row in read[name]}
    assert len(read["outcomes"]) == done.receipt["erased"]["outcomes"] >= 1
    assert {row["score_id"] for row in read["outcomes"]} <= {row["score_id"] for row in read["scores"]}
    assert [d["kind"] for d in read["decisions"]] == ["unlink"]
    assert read["models"] == done.learned
    assert read["links"]
    with pytest.raises(DataError, match="is there already"):
        write(found, tmp_path / "anna.json")
    with pytest.raises(DataError, match="an export is JSON"):
        write(found, tmp_path / "anna.csv")


@pytest.mark.slow
def test_the_commands(full: Project, tmp_path: Path) -> None:
    project = copy_of(full, tmp_path / "shop")
    said = CliRunner()

    def foretell(*words: str, answer: str | None = None) -> tuple[int, str]:
        done = said.invoke(program.cli, ["--project", str(project.folder), *words], input=answer)
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")

    code, out = foretell("erase", MAIL, answer="n\n")
    assert code == 1
    assert "facts/till" in out
    assert "Erase this for good? [y/N]: n" in out
    assert resolve_one(project, MAIL)
    code, out = foretell("erase", "--verify", MAIL)
    assert code == 0
    assert "table who" in out
    code, out = foretell("export", MAIL, "--to", str(tmp_path / "a.json"))
    assert (code, "facts of 3 sources" in out) == (0, True)
    code, out = foretell("erase", MAIL, "--yes", "--to", str(tmp_path / "receipt.json"))
    assert code == 0, out
    assert "nothing found" in out
    assert "exports/crm/people.csv still names the person" in out
    assert json.loads((tmp_path / "receipt.json").read_text()) == receipts(project)[0]
    code, out = foretell("erase")
    assert receipts(project)[0]["erasure_id"] in out
    code, out = foretell("erase", MAIL, "--yes")
    assert (code, "no such profile or identifier" in out) == (1, True)
    code, out = foretell("erase", "--verify", "abc")
    assert "shorter ones stand in any file by chance" in out
    assert foretell("erase", "--verify")[0] == 2


def resolve_one(project: Project, who: str) -> str:
    with session(project) as con:
        return resolve(con, project, who)


IMPORTS = (*LOAD_IMPORTS, "serving.erase")


def _killed_and_finished(full: Project, folder: Path, *kills: tuple[str, int]) -> None:
    """Kill an erasure at one point after the other, run the same command to its end, and look."""
    project = copy_of(full, folder)
    ends = run(project.folder, ["erase", MAIL, "--yes"], [*at_calls(*kills), None], IMPORTS)
    assert killed(ends) == len(kills)
    assert not unfinished(project)
    assert len(receipts(project)) == 1
    assert search([project.home], TEXTS).hits == []
    with session(project) as con:
        others = con.execute("SELECT count(DISTINCT profile_id) FROM member").fetchall()[0][0]
    assert others > 190


@pytest.mark.slow
def test_an_erasure_that_was_killed_is_finished_by_running_it_again(full: Project, tmp_path: Path) -> None:
    """Once it has been written down (the first commit), every run goes on where the last one was cut short."""
    _killed_and_finished(full, tmp_path / "shop", ("after", 1), ("after", 2), ("before", 3), ("after", 6))


@pytest.mark.slow
@pytest.mark.parametrize("nth", range(1, 21, 4))
def test_an_erasure_that_was_killed_anywhere(full: Project, tmp_path: Path, nth: int) -> None:
    _killed_and_finished(full, tmp_path / "shop", ("before", nth), ("after", max(1, nth - 2)))
