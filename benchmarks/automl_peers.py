"""How are FLAML and AutoGluon asked, and what is kept of it? Each in an environment of its own, through files.

They bring hundreds of megabytes that nothing else uses. So they are installed from PyPI on first use, at the versions
below, with all the learners that they take by themselves but none that needs PyTorch or a GPU. What runs there is
_automl_peer.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.judging import CHAMPION
from benchmarks.report import progress
from benchmarks.sdks import _once, _run
from benchmarks.shop import Asked
from training.pooled import Judged

PEERS = {
    "flaml": ["flaml==2.7.0", "lightgbm<5", "xgboost-cpu<3", "catboost<2", "scikit-learn<1.8", "pandas<3", "pyarrow"],
    "autogluon": ["autogluon.tabular[lightgbm,catboost,xgboost]==1.6.3"],
}  # fmt: skip
"""What each is installed from. FLAML's own extra would bring an XGBoost for GPUs; the one that it allows is older than
the latest scikit-learn."""
QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "TABPFN_DISABLE_TELEMETRY": "1"}
LATE = (10, 300)  # times the seconds, and seconds on top: no peer keeps its time exactly, but one this late hangs

Ask = Callable[[str, Path], None]
"""Lets a peer do the job in a folder: job.json, learn.parquet, asked.parquet -> said.parquet, answer.json."""


@dataclass(frozen=True)
class Place:
    """One task at one cutoff, in a folder of its own: what is there is done."""

    folder: Path
    asked: Asked
    cutoff: datetime

    @property
    def label(self) -> str:
        return f"{self.asked.name} at {self.cutoff:%Y-%m-%d}"

    def about(self, who: str) -> dict[str, Any]:
        """What is kept of a contestant besides its predictions; {} before it has had its turn."""
        file = self.folder / f"{who}.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def keep(self, who: str, said: pd.DataFrame, about: Mapping[str, Any]) -> None:
        """The text comes last, at once or not at all: whatever has one is whole."""
        said.to_parquet(self.folder / f"{who}.parquet")
        now = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z", "load": os.getloadavg()[0]}
        (part := self.folder / f"{who}.part").write_text(json.dumps({**about, **now}))
        part.replace(self.folder / f"{who}.json")
        progress(f"{self.label}: {who}, {about['chosen']}, in {about['seconds']:.0f} s")

    def judged(self, peers: Sequence[str]) -> Judged:
        ours = pd.read_parquet(self.folder / f"{CHAMPION}.parquet")
        said = {peer: pd.read_parquet(self.folder / f"{peer}.parquet")["p"].to_numpy() for peer in peers}
        return Judged(
            ours["profile_id"].to_numpy(dtype=str), ours["y"].to_numpy(), {CHAMPION: ours["p"].to_numpy(), **said}
        )


def interpreter(peer: str) -> Path:
    """The Python of an environment that has the peer. Raises sdks.Missing where it cannot be had."""
    folder = Path(tempfile.gettempdir()) / f"foretell-peers-{peer}-{digest(*PEERS[peer])}"
    uv, python = Path(sys.executable).parent / "uv", folder / "bin" / "python"

    def install() -> None:
        progress(f"installing {PEERS[peer][0]} into {folder}")
        _run([str(uv), "venv", "-q", "--python", sys.executable, str(folder)])
        _run([str(uv), "pip", "install", "-q", "--python", str(python), *PEERS[peer]])

    _once(folder, install)
    return python


def ask(peer: str, folder: Path) -> None:
    """Run the peer on the job in a folder, in its own environment. A RuntimeError says how it failed."""
    job = json.loads((folder / "job.json").read_text())
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | QUIET
    environ["OMP_NUM_THREADS"] = str(job["threads"])
    environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin on processors that others want take many times as long
    command = [str(interpreter(peer)), str(Path(__file__).with_name("_automl_peer.py")), str(folder)]
    patience = LATE[0] * job["seconds"] + LATE[1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=patience, cwd=folder)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{peer}: expected an answer after {job['seconds']:g} s, got none in {patience:g}") from None
    if done.returncode or not (folder / "answer.json").exists():
        raise RuntimeError(f"{peer}: expected an answer, got exit code {done.returncode}: {done.stderr[-1000:]}")


def theirs(place: Place, peer: str, seconds: float, ask: Ask) -> None:
    """Let a peer learn from the same rows, and say what it thinks of the same people."""
    progress(f"{place.label}: {peer} has {seconds:g} s")
    about = place.about(CHAMPION)
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as held:
        folder = Path(held)
        for name in ("learn.parquet", "asked.parquet"):
            shutil.copy(place.folder / name, folder)
        job = {"peer": peer, "seconds": seconds, **{k: about[k] for k in ("threads", "columns", "categories")}}
        (folder / "job.json").write_text(json.dumps(job))
        ask(peer, folder)
        said = pd.read_parquet(folder / "said.parquet")
        if len(said) != about["profiles"] or not said["p"].between(0, 1).all():
            problem = f"got {len(said):,} from {said['p'].min()} to {said['p'].max()}, {said['p'].isna().sum()} empty"
            raise RuntimeError(f"{peer}: expected {about['profiles']:,} probabilities from 0 to 1, {problem}")
        place.keep(peer, said, json.loads((folder / "answer.json").read_text()))


def digest(*texts: str) -> str:
    """A short name for these texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
