"""Feast's Spark store joins what its DuckDB store joins, when the setting `offline` says so."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import yaml
from conftest import START, make_shop
from fixtures_spark import CONF, needs_spark, unlike

from features import build
from features.store import repository
from features.store.online import offline_store, open_store
from foretell.errors import DefinitionError
from foretell.project import Project
from foretell.settings import Value
from training import dataset

CUTOFFS = [START + timedelta(days=200), START + timedelta(days=300)]


def _told(project: Project, offline: str) -> Project:
    other = Project(project.folder)
    other.settings.update({"offline": Value(offline, "test"), "spark_conf": Value(CONF, "test")})
    return other


def test_the_store_is_told_of_spark(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text('[foretell]\noffline = "spark"\nspark_master = "local[3]"\n')
    said = offline_store(Project(tmp_path))
    assert said["type"] == "spark"
    assert {"spark.master", "spark.sql.session.timeZone", "spark.ui.enabled"} <= said["spark_conf"].keys()
    assert (said["spark_conf"]["spark.master"], said["spark_conf"]["spark.sql.shuffle.partitions"]) == ("local[3]", "3")
    assert offline_store(Project(tmp_path)) == said, "the file would be written again at every turn"


def test_another_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "foretell.toml").write_text('[foretell]\noffline = "dask"\n')
    with pytest.raises(DefinitionError, match="expected duckdb or spark"):
        offline_store(Project(tmp_path))


@needs_spark
@pytest.mark.slow
def test_spark_joins_what_duckdb_joins(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", people=15)
    task = project.definitions.tasks["churn"]
    build.build(project, project.definitions.views_of(task), CUTOFFS)
    sets = []
    rows = pd.DataFrame({"profile_id": _profiles(project), "label": 1.0})
    asked = pd.concat([rows.assign(event_timestamp=pd.Timestamp(at)) for at in CUTOFFS], ignore_index=True)
    for offline in ("duckdb", "spark"):
        told = _told(project, offline)
        if offline == "spark":
            from lake.spark import spark_session

            spark_session(told)
        found = dataset.with_features(told, task, asked.assign(cutoff=asked["event_timestamp"]))
        sets.append(found.sort_values(["cutoff", "profile_id"], ignore_index=True))
        written = yaml.safe_load((project.home / "feast" / "feature_store.yaml").read_text())
        assert written["offline_store"]["type"] == offline
        assert open_store(told).config.offline_store
    assert list(sets[0].columns) == list(sets[1].columns)
    assert len(sets[0]) == len(asked)
    plain = [s.astype(object).to_numpy().tolist() for s in sets]
    assert unlike(list(sets[0].columns), plain[1], plain[0])[:5] == []
    assert repository.versions(project)


def _profiles(project: Project) -> list[str]:
    view = project.definitions.views["orders"]
    return [p for (p,) in duckdb.execute(f"SELECT profile_id FROM {build.read(project, view, CUTOFFS[0])}").fetchall()]
