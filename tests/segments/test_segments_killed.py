"""`kill -9` around the one commit of a refresh or an export, and at random moments: run again, all is well."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest
from fixtures_segments import scored_shop
from test_kill import LOAD_IMPORTS, at_calls, killed, run

from foretell.project import Project
from lake.engine import session

IMPORTS = (*LOAD_IMPORTS, "segments.audience", "segments.history", "segments.control")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Not to be changed."""
    return scored_shop(tmp_path_factory.mktemp("killed") / "shop")


def kept(project: Project) -> list[tuple]:
    with session(project) as con:
        views = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
        return [
            (name, *row)
            for name in sorted({"memberships", "exposures"} & views)
            for row in con.execute(f"SELECT * EXCLUDE (written_at) FROM {name} ORDER BY ALL").fetchall()
        ]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["refresh", "export"])
def test_killed_it_is_repaired_by_running_it_again(shop: Project, tmp_path: Path, verb: str) -> None:
    for name in ("calm", "shop"):
        shutil.copytree(shop.folder, tmp_path / name)
    words = ["segment", verb, *(["tested", "--to", str(tmp_path / "x.csv")] if verb == "export" else [])]
    whole = run(tmp_path / "calm", words, [None], IMPORTS)[0]["seconds"]
    calm, draw = kept(Project(tmp_path / "calm")), Random(1)
    members = (tmp_path / "x.csv").read_text() if verb == "export" else ""
    (tmp_path / "x.csv").unlink(missing_ok=True)
    plans: list[dict | None] = [{"when": "clock", "seconds": draw.uniform(0.2, 0.9) * whole} for _ in range(6)]
    plans = [*at_calls(("before", 1), only=["append"]), *plans, *at_calls(("after", 1), only=["append"])]
    ends = run(tmp_path / "shop", words, [*plans, None], IMPORTS)
    assert killed(ends) >= 2
    assert len(calm) > 50
    assert kept(Project(tmp_path / "shop")) == calm
    if verb == "export":
        assert (tmp_path / "x.csv").read_text() == members
