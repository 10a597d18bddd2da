"""The README's section on bad rows: its contract loads, its commands print what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

README = Path(__file__).parents[2] / "README.md"
ROWS = """joined,mail,phone,name,born
2024-01-05,jo@home.org,(212) 555-0103,"HENDERSON, JO",3/4/1985
2024-01-06,ann@home.org,212.555.0104,,7/9/1991
02/07/2024,ann@work.org,+1 212 555 0103,Dr. Ann O'Neil,7/9/1991
2024-02-08,ann@work.org,,Ann O'Neil,7/9/1991
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (block,) = re.findall(r"^```python\n# of sources/club.py\n(.*?)^```$", README.read_text(), flags=re.S | re.M)
    for name in ("sources", "exports", ".foretell"):
        (tmp_path / name).mkdir()
    (tmp_path / ".foretell" / "key").write_text("readme")  # everyone's ids are the same
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    (tmp_path / "sources" / "club.py").write_text(f"from foretell import Source\n\n{block}")
    (tmp_path / "exports" / "club.csv").write_text(ROWS)
    return tmp_path


def run(folder: Path, line: str) -> str:
    import shlex

    from foretell.__main__ import cli

    words = shlex.split(line)[1:]
    return CliRunner().invoke(cli, ["--project", str(folder), *words], catch_exceptions=False).output


def test_bad_rows(shop: Path) -> None:
    text = README.read_text()
    section = text[text.index("## When rows are bad") : text.index("## Ask over HTTP")]
    (block,) = re.findall(r"^```text\n(.*?)^```$", section, flags=re.S | re.M)
    steps = re.split(r"^\$ (.*)\n", block, flags=re.M)[1:]
    assert len(steps) >= 4
    for line, shown in zip(steps[::2], steps[1::2], strict=True):
        if line.startswith("$EDITOR sources/club.py  # "):
            file = shop / "sources" / "club.py"
            file.write_text(file.read_text().replace('event_at="joined"', line.partition("# ")[2]))
            continue
        assert run(shop, line).strip() == shown.strip(), line
