"""The guide's files and commands work as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_segments import scored_shop

from foretell import __main__ as program
from segments.predicate import FUNCTIONS

GUIDE = Path(__file__).parents[2] / "docs" / "segments.md"


def test_every_file_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.read_text()
    project = scored_shop(tmp_path / "shop", {})
    (project.folder / "segments").mkdir(exist_ok=True)
    for block in re.findall(r"```yaml\n(.*?)```", text, re.S):
        name = re.match(r"# (segments/\w+\.yaml)\n", block)
        assert name, block
        (project.folder / name[1]).write_text(block)
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("FORETELL_PROJECT", raising=False)
    commands = re.findall(r"^foretell (.*)$", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)), re.M)
    verbs = set()
    for words in map(shlex.split, commands):
        said = CliRunner().invoke(program.cli, words)
        assert said.exit_code == 0, (words, said.output, said.exception)
        assert said.output
        verbs.add(words[1])
    assert verbs == set(program.cli.commands["segment"].commands), "the guide shows every verb"  # type: ignore[attr-defined]
    assert (project.folder / "audience.csv").exists()
    assert (project.folder / "worth_keeping.png").stat().st_size > 5_000


def test_it_names_every_function() -> None:
    text = GUIDE.read_text()
    assert [name for name in FUNCTIONS if f"`{name}" not in text] == []
