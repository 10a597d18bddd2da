"""The guide from a laptop to a cluster: its commands run, its settings are settings, its figures are a benchmark's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import make_shop

from foretell import databases, settings
from foretell.__main__ import cli
from foretell.project import Project
from lake import place
from lake.engine import session

sys.path.append(str(Path(__file__).parents[1] / "lake"))
from bucket_server import BucketServer, bucket  # pyright: ignore[reportMissingImports]

__all__ = ["bucket"]

GUIDE = (Path(__file__).parents[2] / "docs" / "grow.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE, flags=re.S | re.M)


def test_the_commands_run_and_the_lake_moves(bucket: BucketServer, tmp_path: Path) -> None:
    bucket.client.create_bucket(Bucket="shop-lake")
    project = make_shop(tmp_path / "shop", people=12, days=120)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("foretell ")]
    assert len(lines) >= 2
    said = {}
    for line in lines:
        words = ["--project", str(project.folder), *shlex.split(line)[1:]]
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        said[line] = done.output
    assert said["foretell status"].count("  reached") == 4
    toml = next(text for text in blocks("toml") if "lake =" in text)
    query = "SELECT fact_id, known_at, node FROM shop ORDER BY ALL"
    with session(project) as con:
        before = con.execute(query).fetchall()
    with (project.folder / "foretell.toml").open("a") as out:
        out.write(toml.replace("[foretell]\n", ""))
    shutil.rmtree(project.home / "lake")
    moved = Project(project.folder)
    with session(moved) as con:
        assert con.execute(query).fetchall() == before != []
    assert place.names(moved) == ["batches", "facts/crm", "facts/mail", "facts/shop", "facts/web"]
    shown = CliRunner().invoke(cli, ["--project", str(moved.folder), "status"], catch_exceptions=False)
    assert re.search(r"lake: facts, scores +s3://shop-lake/production +foretell.toml +reached", shown.output)


def test_its_settings_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict = {}
    for text in blocks("toml"):
        (tmp_path / settings.FILE).write_text(text)
        settings.load(tmp_path, {})
        found |= tomllib.loads(text)["foretell"]
    assert found.keys() == {"threads", "memory", "registry", "mlflow", "lake"}
    monkeypatch.setenv("MLFLOW_DATABASE", "postgresql://foretell:secret@db.example.com/mlflow")
    (tmp_path / settings.FILE).write_text(
        "[foretell]\n" + "".join(f'{name} = "{found[name]}"\n' for name in ("registry", "mlflow"))
    )
    for name in ("registry", "mlflow"):
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        assert databases.address(Project(tmp_path), name).startswith("postgresql+psycopg://foretell")


def measured(document: str, benchmark: str) -> dict[str, Any]:
    """What a document shows of a benchmark, as it printed it."""
    text = (Path(__file__).parents[2] / "docs" / document).read_text()
    found = re.search(rf"<!-- measured: python -m benchmarks.{benchmark} -->\n```json\n(.*?)\n```", text, flags=re.S)
    assert found
    return json.loads(found[1])


def test_its_figures_are_of_the_benchmark() -> None:
    found = measured("grow.md", "lake")
    names = {f"{ask}.{way}_ms" for ask in ("scan", "anti_join")
             for way in ("folder", "bucket", "bucket_first", "bucket_each_time")}  # fmt: skip
    assert names <= found["details"].keys()
    assert found["sizes"]["rows"] >= 1_000_000


def test_figures_of_spark_are_of_the_benchmark() -> None:
    found = measured("spark.md", "spark")
    assert {bar["id"]: bar["value"] for bar in found["bars"]} == {"spark.unlike_features": 0, "spark.unlike_scores": 0}
    for part in ("build", "score"):
        assert found["details"][part].keys() == {"duckdb", "spark"}
        assert all(took["wall_s"] > 0 for took in found["details"][part].values())
    assert found["sizes"]["profiles"] >= 100_000
