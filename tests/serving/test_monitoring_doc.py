"""The commands of docs/monitoring.md are run as they stand, on a shop with graded scores of real champions."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_trained import NOW, TrainedShop, copy_of, trained

from foretell.__main__ import cli
from serving.score import score

__all__ = ["trained"]

DOC = Path(__file__).parents[2] / "docs" / "monitoring.md"


def test_the_commands_run_as_they_stand(
    trained: TrainedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    project = copy_of(trained.project, tmp_path / "shop")
    for days in (130, 95):
        score(project, ["churn", "clv"], cutoff=NOW - timedelta(days=days))
    monkeypatch.chdir(project.folder)
    blocks = dict(re.findall(r"```(sh|python)\n(.*?)```", DOC.read_text(), re.DOTALL))
    said = {}
    for line in blocks["sh"].strip().splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "foretell"
        done = CliRunner().invoke(cli, words[1:])
        assert done.exit_code in ((0, 1) if "--fail" in words else (0,)), done.output
        said[" ".join(words[1:])] = done.output
    assert re.search(r"churn v1 +2024-02-22 +\d+ +\d+\.\d% +\d+\.\d%", said["grade"])
    assert "* log_loss" in said["monitor"]
    assert "It sat fewer than 3 exams" in said["monitor"]
    assert (project.folder / "monitor.html").stat().st_size > 100_000
    scope: dict = {}
    exec(blocks["python"], scope)
    assert len(scope["lake"].sql("SELECT DISTINCT cutoff FROM outcomes")) == 2
