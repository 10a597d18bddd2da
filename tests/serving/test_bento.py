"""A bento serves from another folder, where there is neither the repository nor the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fixtures_trained import TrainedShop, copy_of, trained
from test_http import PATIENCE, free_port
from test_score import rows_of

from foretell.errors import DataError, NotReady
from foretell.project import Project
from serving.bento import ROOMS, build

__all__ = ["trained"]


def test_what_cannot_be_packed(trained: TrainedShop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder that is not there yet"):
        build(trained.project, tmp_path)
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    with pytest.raises(NotReady, match="nothing has been published yet"):
        build(Project(tmp_path), tmp_path / "bento")


@pytest.mark.slow
def test_it_serves_from_another_folder_without_the_repository(trained: TrainedShop, tmp_path: Path) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    tag, made = build(project, tmp_path / "made")
    assert tag.startswith("foretell:")
    there = tmp_path / "elsewhere" / "bento"
    shutil.copytree(made, there)
    shutil.rmtree(made)
    shutil.rmtree(project.folder)
    packed = {path.name for path in (there / "src").iterdir()}
    assert {*ROOMS, "project"} <= packed
    assert not packed & {"training", "unification", "tests", "benchmarks"}
    blind = tmp_path / "blind"
    blind.mkdir()  # no module of the repository can be imported
    (blind / "sitecustomize.py").write_text(
        "import os, sys\nsys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, 'unification'))]\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FORETELL")}
    environment |= {"PYTHONPATH": str(blind), "BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", str(there), "--port", str(port)], stdout=out,
            stderr=subprocess.STDOUT, env=environment, cwd=tmp_path,
        )  # fmt: skip
    row = rows_of(trained.project, "churn")[0]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            end = time.monotonic() + PATIENCE
            while True:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
            answer = client.post("/v1/scores", json={"profiles": [row["profile_id"]], "tasks": ["churn"]}).json()
            (score,) = answer["results"][0]["scores"]
            assert (score["value"], score["score_id"]) == (row["value"], row["score_id"])
            past = client.get(f"/v1/scores/{row['score_id']}")
            assert past.status_code == 409
            assert "not where the service is" in past.text
    finally:
        server.terminate()
        server.wait(60)
