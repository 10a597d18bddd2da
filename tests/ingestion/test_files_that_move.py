"""Files that vanish or grow while they are read, or were loaded before: nothing is lost, nothing is read twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from systems import make_project, payloads

from foretell.errors import DataError, ForetellError
from foretell.project import Project
from ingestion import load as loading
from ingestion.load import Loaded, load

HEADER = "email,ordered_at,amount\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "shop", None, files='"*.csv"')
    project.exports.mkdir()
    for name in "abc":
        write(
            project,
            name,
            f"{name}@x.org,2024-05-01 10:00,1\n{name}@z.org,2024-05-01 10:00,2\n{name}@y.org,not a time,3\n",
        )
    return project


def write(project: Project, name: str, rows: str, age: float = 10) -> Path:
    """Write a file that was last changed some seconds ago."""
    file = project.exports / f"{name}.csv"
    file.write_text(HEADER + rows)
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))
    return file


def after(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[Path], Any], victim: str = "b.csv") -> None:
    """Do something to a file just after a step of its load."""
    step = getattr(loading, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        found = step(*args, **kwargs)
        for arg in args:
            if isinstance(arg, Path) and arg.name == victim and arg.exists():
                act(arg)
        return found

    monkeypatch.setattr(loading, name, wrapped)


@pytest.mark.parametrize("step", ["sheets_of", "_state", "_digest", "read"])
def test_a_file_that_vanishes_while_it_is_read(project: Project, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        after(patched, step, Path.unlink)
        results = list(load(project, ["orders"]))
    assert [isinstance(result, ForetellError) for result in results] == [False, True, False]
    assert isinstance(results[1], DataError)
    assert "b.csv" in str(results[1])
    assert len(payloads(project)) == 4
    write(project, "b", "b@x.org,2024-05-01 10:00,1\n")
    assert [r.added for r in load(project, ["orders"]) if isinstance(r, Loaded)] == [0, 1, 0]


def test_a_file_that_grows_while_it_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a file is not loaded: its last line may be half a line."""

    def grow(file: Path) -> None:
        with file.open("a") as more:
            more.write("z@x.org,2024-05-01 10:00,1\n")

    with monkeypatch.context() as patched:
        after(patched, "read", grow)
        results = list(load(project, ["orders"]))
    assert "b.csv: changed while it was read; it stays, and is loaded when it is whole" in str(results[1])
    assert len(payloads(project)) == 4
    assert [r.added for r in load(project, ["orders"]) if isinstance(r, Loaded)] == [0, 3, 0]


def test_a_file_loaded_before_is_not_even_opened(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    digest = loading._digest
    monkeypatch.setattr(loading, "_digest", lambda file, sheet: (opened.append(file.name), digest(file, sheet))[1])
    list(load(project, ["orders"]))
    assert opened == ["a.csv", "b.csv", "c.csv"]
    opened.clear()
    assert all(isinstance(r, Loaded) and r.skipped for r in load(project, ["orders"]))
    assert opened == []
    os.utime(project.exports / "a.csv")  # looks new: its digest says that it is not
    same = (project.exports / "b.csv").stat()
    write(project, "b", "n@x.org,2024-05-01 10:00,1\nn@z.org,2024-05-01 10:00,2\nn@y.org,not a time,3\n")
    os.utime(project.exports / "b.csv", ns=(same.st_atime_ns, same.st_mtime_ns + 1))
    results = [r for r in load(project, ["orders"]) if isinstance(r, Loaded)]
    assert opened == ["a.csv", "b.csv"]
    assert [r.skipped for r in results] == [True, False, True]


def test_a_file_that_was_just_written_is_looked_at_again(project: Project) -> None:
    """It may change again within the resolution of its time stamp, and keep its size."""
    file = write(project, "d", "d@x.org,2024-05-01 10:00,1\n", age=0)
    list(load(project, ["orders"]))
    same = file.stat()
    file.write_text(HEADER + "e@x.org,2024-05-01 10:00,1\n")
    os.utime(file, ns=(same.st_atime_ns, same.st_mtime_ns))
    list(load(project, ["orders"]))
    assert "e@x.org" in {row.get("email") for row in payloads(project)}


def test_a_sheet_that_could_not_be_loaded_is_tried_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "shop", None, files='"*.xlsx"')
    project.exports.mkdir()
    book = Workbook()
    sheets = [book.active, book.create_sheet("later")]
    for n, (sheet, column) in enumerate(zip(sheets, ("email", "mail"), strict=True)):
        assert sheet is not None
        sheet.append([column, "ordered_at", "amount"])
        sheet.append([f"p{n}@x.org", "2024-05-01 10:00", 1])
    file = project.exports / "book.xlsx"
    book.save(file)
    os.utime(file, (1, 1))
    assert [isinstance(r, ForetellError) for r in load(project, ["orders"])] == [False, True]
    assert [isinstance(r, ForetellError) for r in load(project, ["orders"])] == [False, True]
    make_project(tmp_path / "shop", None, files='"*.xlsx"', aliases='{"email": ("mail",)}')
    project = Project(project.folder)
    assert [r.added for r in load(project, ["orders"]) if isinstance(r, Loaded)] == [0, 1]
