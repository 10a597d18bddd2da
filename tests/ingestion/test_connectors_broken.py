"""A pull that breaks off, by a killed process or a database that goes down, is repaired by the next one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from postgres import Server, postgres
from systems import Postgres, make_project, order, payloads, plain
from test_kill import LOAD_IMPORTS, at_calls, killed, run

from foretell.errors import DataError, ForetellError, NotReady
from foretell.project import Project
from ingestion.connectors import sql
from ingestion.load import load

__all__ = ["postgres"]

IMPORTS = (*LOAD_IMPORTS, "ingestion.connectors.sql", "adbc_driver_postgresql.dbapi", "foretell.connectors")


@pytest.fixture
def orders(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    monkeypatch.setenv("TEST_SHOP_DB", postgres.url)
    system = Postgres(postgres)
    system.put(*[order(n) for n in range(1, 41)])
    return system


def big(orders: Postgres, rows: int) -> None:
    """Wide rows, so that a pull is in the middle of them for a while."""
    orders.run(
        f"""INSERT INTO orders SELECT i, 'p' || i % 5 || '@x.org', i % 100, repeat(md5(i::text), 40), true,
            timestamptz '2024-06-01' + i * interval '1 second', timestamptz '2024-06-01' + i * interval '1 second'
            FROM generate_series(1000, {999 + rows}) i"""
    )


def facts(project: Project) -> list[tuple]:
    return sorted(plain(row) for row in payloads(project))


def table_of(orders: Postgres) -> list[tuple]:
    """What a whole pull into a fresh project brings, which other tests hold to the table."""
    found = orders.server.execute("SELECT to_json(o)::text FROM orders o")
    return sorted(str(json.loads(text)["id"]) for (text,) in found)


def ids(project: Project) -> list[str]:
    return sorted(row["id"] for row in payloads(project))


# --- a killed process ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pull_killed_around_every_commit(orders: Postgres, tmp_path: Path) -> None:
    project = make_project(tmp_path / "shop", orders.connector(rows=10))
    plans = at_calls(*[("before", 1), ("after", 1), ("after", 2), ("before", 3), ("after", 3)] * 2, only=["append"])
    ends = run(project.folder, ["load"], [*plans, None], IMPORTS)
    assert killed(ends) >= 8
    assert facts(project) == sorted(plain(order(n)) for n in range(1, 41))


@pytest.mark.slow
def test_a_pull_killed_at_random_moments(orders: Postgres, tmp_path: Path) -> None:
    big(orders, 4000)
    calm = make_project(tmp_path / "calm", orders.connector(rows=500))
    whole = run(calm.folder, ["load"], [None], IMPORTS)[0]["seconds"]
    draw, hits = Random(4), 0
    for n in range(7):  # each from the start, so that some hits fall late
        project = make_project(tmp_path / f"shop{n}", orders.connector(rows=500))
        plans: list[dict | None] = [{"when": "clock", "seconds": draw.uniform(0.02, 0.4) * whole} for _ in range(9)]
        hits += killed(run(project.folder, ["load"], [*plans, None], IMPORTS))
        assert facts(project) == facts(calm)
        assert ids(project) == table_of(orders)
    assert hits >= 30  # the later ones of a project may find nothing left to do


# --- a database that goes down ---------------------------------------------------------------------------------------


def test_a_database_that_stops_in_the_middle(orders: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pulled whole stays; the error says so; the next pull goes on, and each row is there once."""
    monkeypatch.setattr(sql, "WAITS", (0.05,))
    big(orders, 40_000)
    project = make_project(tmp_path / "shop", orders.connector(rows=10_000))
    landed: list[str] = []

    def stop_midway(text: str) -> None:
        if "rows pulled" in text:
            landed.append(text)
            if len(landed) == 2:
                orders.server.stop()

    try:
        found = list(load(project, ["orders"], say=stop_midway))
        broken = [result for result in found if isinstance(result, ForetellError)]
        assert len(broken) == 1
        assert isinstance(broken[0], DataError)
        assert "the database stopped" in str(broken[0])
        assert "run it again: it goes on from the watermark" in str(broken[0])
        before = len(payloads(project))
        assert 10_000 <= before < 40_040
        assert isinstance(next(iter(load(project, ["orders"]))), ForetellError)  # still down: nothing is lost by asking
        assert len(payloads(project)) == before
    finally:
        orders.server.start()
    results = list(load(project, ["orders"]))
    assert sum(r.added for r in results if not isinstance(r, ForetellError)) == 40_040 - before
    assert ids(project) == table_of(orders)


@pytest.mark.slow
def test_a_short_outage_is_waited_for(orders: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "WAITS", (0.2, 0.5, 1.0, 2.0, 4.0))
    big(orders, 40_000)
    project = make_project(tmp_path / "shop", orders.connector(rows=10_000))
    said: list[str] = []

    def bounce(text: str) -> None:
        said.append(text)
        if sum("rows pulled" in line for line in said) == 2 and "rows pulled" in text:
            orders.server.stop()
            Thread(target=lambda: (time.sleep(0.5), orders.server.start())).start()

    for result in load(project, ["orders"], say=bounce):
        assert not isinstance(result, ForetellError), result
    assert any("trying again" in line for line in said)
    assert ids(project) == table_of(orders)


# --- what cannot be reached, and secrets -----------------------------------------------------------------------------


def refused(project: Project) -> ForetellError:
    (error,) = list(load(project, ["orders"]))
    assert isinstance(error, ForetellError)
    return error


def test_errors_never_show_a_password(orders: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "WAITS", (0.01,))
    project = make_project(tmp_path / "shop", orders.connector())
    for url in (
        "postgresql://me:hunter2@127.0.0.1:1/shop",
        f"postgresql://me:hunter2@/nope?host={orders.server.folder}",
        "postgresql://me:hunter2@no-such-host.invalid/shop",
        "postgresql://me:hunter2@[bad/shop",
        "oracle://me:hunter2@host/shop",
    ):
        monkeypatch.setenv("TEST_SHOP_DB", url)
        error = refused(project)
        assert "hunter2" not in str(error)
        assert error.fix
    monkeypatch.delenv("TEST_SHOP_DB")
    assert isinstance(refused(project), NotReady)
    assert "TEST_SHOP_DB is not set" in str(refused(project))


def test_a_password_that_is_wrong_is_not_tried_again(orders: Postgres, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sql, "WAITS", (60.0,))
    project = make_project(tmp_path / "shop", orders.connector(table="nope"))
    assert 'relation "nope" does not exist' in str(refused(project))
    monkeypatch.setenv("TEST_SHOP_DB", f"postgresql://nobody@/postgres?host={orders.server.folder}")
    assert "does not exist" in str(refused(project))


@pytest.mark.slow
def test_a_million_rows_need_less_than_a_gigabyte(orders: Postgres, tmp_path: Path) -> None:
    orders.run(
        """INSERT INTO orders SELECT i, 'p' || i % 50000 || '@x.org', i % 100, 'note ' || i, true,
           timestamptz '2024-06-01' + i * interval '1 second', timestamptz '2024-06-01' + i * interval '1 second'
           FROM generate_series(1000, 1000999) i"""
    )
    project = make_project(tmp_path / "shop", orders.connector(rows=100_000))
    code = (
        "import sys; from pathlib import Path; from benchmarks.report import peak_rss\n"
        "from foretell.project import Project; from ingestion.load import load\n"
        "print(sum(r.added for r in load(Project(Path(sys.argv[1])), ['orders'])))\n"
        "print(peak_rss() // 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(project.folder)], capture_output=True, text=True, check=True)
    added, megabytes = map(int, done.stdout.split())
    assert added == 1_000_040
    assert megabytes < 1000
