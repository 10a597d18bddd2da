"""A run scores when facts came in, and leaves it when nothing did."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from fixtures_trained import TrainedShop, copy_of, trained

from lake.engine import session
from serving.run import STEPS, Stop, once

__all__ = ["trained"]


@pytest.mark.slow
def test_scores_follow_new_facts(trained: TrainedShop, tmp_path: Path) -> None:
    project = copy_of(trained.project, tmp_path / "shop")
    said: list[str] = []
    _, report = once(project, STEPS, Stop(), say=said.append)
    assert not report.errors
    assert said == []  # its champions have scored its facts already
    file = sorted((project.exports / "till").glob("*.csv"))[-1]
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))[:3]
    with (file.parent / "9999.csv").open("w", newline="") as lines:
        more = csv.DictWriter(lines, list(rows[0]))
        more.writeheader()
        more.writerows({**row, "receipt": f"{row['receipt']}-again"} for row in rows)
    _, report = once(project, STEPS, Stop(), say=said.append)
    assert not report.errors, report.errors
    assert report.added > 0
    assert [line for line in said if line.startswith("churn: ") and line.endswith(" new scores")]
    with session(project) as con:
        latest = con.execute("SELECT max(batch) FROM scores WHERE task = 'churn'").fetchall()[0][0]
        assert latest == con.execute("SELECT max(batch) FROM batches").fetchall()[0][0]
    said.clear()
    once(project, STEPS, Stop(), say=said.append)
    assert said == []
