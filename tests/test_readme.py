"""The README's commands, output and code are real: they run here, on the demo's project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from feast import FeatureStore
from fixtures_demo import README, ROOT, Toured, agree, answers, blocks, demo, run

from foretell.project import Project
from models import registry

__all__ = ["demo"]


@pytest.fixture(scope="module")
def project(demo: Toured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after the tour, to be added to."""
    folder = tmp_path_factory.mktemp("readme") / "complete_journey"
    shutil.copytree(demo.folder, folder, ignore=shutil.ignore_patterns("exports"))
    (folder / "exports").mkdir()
    return folder


def test_the_comparison_notices_differences() -> None:
    assert agree("auc 0.865  2,476 profiles", "auc   0.866 2,476 profiles")
    assert not agree("auc 0.865", "auc 0.765")
    assert not agree("2,476 profiles", "2,476 persons")


def test_tour(demo: Toured) -> None:
    assert 1 <= len(demo.steps) <= 10
    for command, shown, got in demo.steps:
        assert agree(shown, got), f"$ {command}\n--- README\n{shown}\n--- now\n{got}"


def test_service(demo: Toured) -> None:
    asked = answers(demo.folder)
    assert asked
    for command, shown, got in asked:
        if command.startswith("curl"):
            assert agree(shown, got), f"$ {command}\n--- README\n{shown}\n--- now\n{got}"
        else:
            assert re.fullmatch(r"churn: 0\.\d\d, no lower than \d+% of those scored\n(.+ the score\n){3}", got)


def test_code_blocks(project: Path) -> None:
    """Each file of the README is put where it says; then its commands run as printed."""
    placed = [re.match(r"# ((?:sources|views|tasks|segments)/\w+\.(?:py|yaml))\n", b) for b in code()]
    folders = []
    for block, match in zip(code(), placed, strict=True):
        if match is None or match[1] == "sources/shop_db.py":  # which has a test with a database of its own
            continue
        file = project / match[1]
        file.write_text(block)
        folders.append(file.parent.name)
        if file.parent.name == "sources":
            (project / "exports" / "web").mkdir(exist_ok=True)
            (project / "exports" / "web" / "orders.csv").write_text(
                "order_no,ordered_at,mail,cookie,units,unit_price,sku\n"
                "w1,2017-12-24 18:00,Nora@Web.example.org,c-1,2,9.95,tea\n"
            )
            assert "1 facts" in run("foretell load web_shop", project)
            file.unlink()  # the data of one order change everybody's history: the tasks below are without it
    assert folders == ["sources", "views", "tasks", "segments"]
    for line in [line for block in blocks("sh") for line in block.splitlines() if "big_" in line]:
        output = run(line.split("  #")[0], project)
        assert "big_" in output or "profiles" in output
    assert "weekend" in run("foretell features list", project)


def test_undo_a_wrong_merge(project: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("foretell identity")]
    explain, veto, undo = (line.split("#")[0].strip() for line in lines)
    before = run(explain, project)
    assert re.search(r"by \d links", before)
    said = run(veto, project)
    assert "not one person" in run(explain, project)
    (decision,) = re.findall(r"Decision (d\w+);", said)
    run(undo.replace("DECISION", decision), project)
    assert run(explain, project) == before


def test_consent_and_erasure(project: Path, tmp_path: Path) -> None:
    """As printed, on a copy: the settings first, then one command after the other."""
    folder = tmp_path / "shop"
    shutil.copytree(project, folder)
    (settings,) = [block for block in blocks("toml") if "purposes" in block]
    with (folder / "foretell.toml").open("a") as toml:
        toml.write("\n" + settings)
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    withdraw, show, export, erase, verify = [
        line for line in lines if line.split()[1] in ("consent", "export", "erase")
    ]
    assert "is left out for marketing" in run(withdraw, folder)
    assert re.search(r"marketing +opt-in +no", run(show, folder))
    assert "facts of" in run(export, folder)
    assert "nothing found" in run(erase, folder)
    assert run(verify, folder).endswith("nothing found.\n")


def code() -> list[str]:
    """The README's blocks that are files of a project, in order."""
    return [*blocks("python"), *blocks("yaml")]


def test_notebook_front_door(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (block,) = [b for b in blocks("python") if b.startswith("import lake")]
    names: dict = {}
    exec(block, names)
    assert {"weekend_lines_90d", "label", "weight"} <= set(names["rows"].columns)
    assert set(names["rows"]["cutoff"].dt.strftime("%Y-%m-%d")) == {"2017-09-01", "2017-10-01"}
    assert int(names["facts"]["lines"][0]) > 1_000_000
    assert len(names["scores"]) > 1_000


def test_init_block(tmp_path: Path) -> None:
    init, propose = [
        line.split("#")[0]
        for block in blocks("sh")
        for line in block.splitlines()
        if " shop " in line or " source new exports" in line
    ]
    run(init, tmp_path)
    shop = tmp_path / "shop"
    assert "Next: foretell load" in run("foretell status", shop)
    (shop / "exports" / "till").mkdir()
    (shop / "exports" / "till" / "2024.csv").write_text(
        "order_no,ordered_at,email,sku,units,unit_price\n"
        "1,2024-01-03 10:00,Jo@home.org,tea,2,9.95\n1,2024-01-03 10:00,Jo@home.org,mug,1,4.50\n"
        "2,2024-02-11 18:30,ann@home.org,tea,1,9.95\n"
    )
    said = run(propose, shop)
    assert "email" in said
    assert len(list((shop / "sources").glob("*.py"))) == 2


def test_rooms_are_those_that_exist() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    listed = re.findall(r"^\| `(\w+)/` \|", README.read_text(), flags=re.M)
    assert listed == packages


def test_a_feature_is_one_file_and_in_the_next_training(project: Path) -> None:
    """As a newcomer adds it, from the README; no task is edited."""
    (block,) = [b for b in code() if b.startswith("# views/")]
    assert len(block.strip().splitlines()) < 20
    (project / "views" / "weekend.py").write_text(block)
    for line in [line.split("  #")[0].strip() for text in blocks("sh") for line in text.splitlines()]:
        if line.startswith("foretell features "):
            said = run(line, project)
            assert "weekend" in said or line.endswith("apply"), said
    store = FeatureStore(repo_path=str(project / ".foretell" / "feast"))
    assert any(view.name.startswith("weekend__") for view in store.list_feature_views())
    assert (project / "weekend.png").stat().st_size > 10_000
    run("foretell train churn --trials 0", project)
    model = registry.quietly(lambda: registry.champion(Project(project), "churn"))
    assert {"weekend_lines_90d", "weekend_spend_90d"} <= set(model.contract["columns"])
