"""Writes again what the documents show: `python tests/rewrite.py` runs the README's tour and the notebooks anew.

To be run, and its change read, whenever what they print has changed. Everything happens on a fresh project elsewhere.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import nbformat
from fixtures_demo import EXAMPLE, NOTEBOOKS, README, answers, blocks, execute, make_project, run, sessions


def readme(project: Path) -> None:
    """Run the tour and ask the service, and put what they print into the README."""
    place = str(EXAMPLE.relative_to(README.parent))
    steps = [(command, run(command, project).replace(str(project), place)) for command, _ in sessions("console")]
    _replace("console", steps)
    _replace("http", [(command, answer) for command, _, answer in answers(project) if command.startswith("curl")])


def _replace(language: str, steps: list[tuple[str, str]]) -> None:
    (old,) = blocks(language)
    text = "\n\n".join(f"$ {command}\n{output.strip()}" for command, output in steps)
    README.write_text(README.read_text().replace(old, text + "\n"))


def notebooks(project: Path) -> None:
    """Run every notebook, and store it with what it shows."""
    for file in NOTEBOOKS:
        notebook = execute(file, project)
        for cell in notebook.cells:
            cell.metadata = {}
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, file)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("usage: python tests/rewrite.py")
    with tempfile.TemporaryDirectory() as folder:
        fresh = make_project(Path(folder) / EXAMPLE.name)
        readme(fresh)
        notebooks(fresh)
