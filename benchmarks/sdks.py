"""Where are the vendors' SDKs? Each in an environment of its own below build/, as an app has it that uses one.

They are installed from PyPI and npm as they are, at the versions below. (The Python one cannot live beside Foretell: it
needs an older python-dateutil.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

PYTHON = "segment-analytics-python==2.4.0"
NODE = {"@segment/analytics-node": "3.1.0"}
_BUILD = Path(__file__).parents[1] / "build" / "sdks"


class Missing(Exception):
    """An SDK that cannot be had here, and why."""


def python() -> Path:
    """The Python of an environment that has segment-analytics-python."""
    folder = _BUILD / PYTHON
    uv = Path(sys.executable).parent / "uv"
    interpreter = folder / "bin" / "python"

    def install() -> None:
        _run([str(uv), "venv", "-q", "--python", sys.executable, str(folder)])
        _run([str(uv), "pip", "install", "-q", "--python", str(interpreter), PYTHON])

    _once(folder, install)
    return interpreter


def node() -> Path:
    """A folder in which `node` finds @segment/analytics-node."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Missing("node and npm are not installed (Debian: apt-get install nodejs npm)")
    folder = _BUILD / "analytics-node-{@segment/analytics-node}".format(**NODE)

    def install() -> None:
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": NODE}))
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"], folder)

    _once(folder, install)
    return folder


def _once(folder: Path, install) -> None:
    """Install unless that was done before, to its end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        done = folder / "installed"
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        install()
        done.touch()


def _run(command: list[str], folder: Path | None = None) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environ)
    if done.returncode:
        raise Missing(f"`{' '.join(command[:4])} …` failed: {(done.stderr or done.stdout).strip()[-500:]}")
