"""The README's “Collect events” is real: its commands run here, in a project of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from one_source import ask

from foretell.project import Project

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    section = (ROOT / "README.md").read_text().split("\n## Collect events\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return [re.sub(r"\s+# .*", "", line) for line in block.splitlines()]


def test_collect_events(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**{k: v for k, v in os.environ.items() if not k.startswith("FORETELL_")}, "PATH": path}
    environ["PYTHONPATH"] = str(ROOT)
    (tmp_path / "foretell.toml").write_text("[foretell]\n")

    def run(line: str) -> str:
        line = re.sub(r"^foretell", f"{sys.executable} -m foretell", line)
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    new, collect, curl, propose, load = commands()
    environ["WRITE_KEY"] = run(new).strip()
    assert collect == "foretell collect &"
    command = [sys.executable, "-m", "foretell", "collect"]
    server = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen("http://localhost:3001/livez").close()
                break
            except OSError:
                if server.poll() is not None and server.stdout:
                    said = server.stdout.read().decode()
                    if "another program is listening there" in said:
                        pytest.skip(said)
                    pytest.fail(said)
                time.sleep(0.1)
        assert run(curl) == '{"success":true}'
        assert run(propose).splitlines()[-1] == "Next: foretell load web_activity web_orders"
        assert "web_orders        collected/web/" in run(load)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    assert ask(Project(tmp_path), "SELECT order_id, amount::DOUBLE, id_user_id FROM web_orders") == [("o1", 9.5, "u1")]
