"""Every notebook runs from top to bottom, and shows what it is stored with (`python tests/rewrite.py` stores it)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from fixtures_demo import NOTEBOOKS, Toured, agree, demo, execute

__all__ = ["demo"]
TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


def shown(cell: nbformat.NotebookNode) -> tuple[str, int]:
    """What a cell prints or answers as text, and how many pictures it shows."""
    text, pictures = "", 0
    for output in cell.get("outputs", []):
        assert output["output_type"] != "error", output
        data = output.get("data", {})
        pictures += "image/png" in data
        text += output.get("text", "") + ("" if "image/png" in data else data.get("text/plain", ""))
    return TERMINAL.sub("", text), pictures


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook(file: Path, demo: Toured, tmp_path: Path) -> None:
    project = tmp_path / "complete_journey"
    shutil.copytree(demo.folder, project, ignore=shutil.ignore_patterns("exports"))
    stored, fresh = nbformat.read(file, as_version=4), execute(file, project)
    pictures = 0
    for then, now in zip(stored.cells, fresh.cells, strict=True):
        (text, kept), (again, drawn) = shown(then), shown(now)
        assert kept == drawn, f"{kept} pictures are stored, {drawn} drawn\n{now.source}"
        assert agree(text, again), f"{now.source}\n--- stored\n{text}\n--- now\n{again}"
        pictures += drawn
    assert pictures > 0


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_stored_is_small_and_names_no_machine(file: Path) -> None:
    text = file.read_text()
    assert len(text) < 1_000_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "stored as run from the top"
