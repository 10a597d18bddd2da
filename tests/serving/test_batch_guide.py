"""The guide to scoring everybody: its commands run, and say what it says they say."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner
from fixtures_trained import mine, trained

import serving
from foretell.__main__ import cli
from foretell.project import Project
from serving import reasons

__all__ = ["mine", "trained"]

GUIDE = Path(__file__).parents[2] / "docs" / "batch.md"


def test_the_commands_run(mine: Callable[[], Project]) -> None:
    text = GUIDE.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.S | re.M)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    assert len(lines) >= 8
    project = mine()
    score_id = serving.scores("churn", str(project.folder))["score_id"][0]
    said = {}
    for line in lines:
        words = shlex.split(line.replace("ID", score_id))
        assert words[0] == "foretell"
        done = CliRunner().invoke(cli, ["--project", str(project.folder), *words[1:]], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)
        said[line] = done.output
    assert re.search(r"^clv .* 2024-06-01$", said["foretell score clv --at 2024-06-01"], flags=re.M)
    assert json.loads(said["foretell score explain ID --json"])["rescored"]["identical"]
    assert f"{reasons.FEW:,} scores of a task" in text
    assert reasons.SHARE == 1 / 20
