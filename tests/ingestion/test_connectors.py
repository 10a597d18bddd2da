"""What holds for every connector: in the end the facts are the rows that were there, each once, however it went.

The oracle is the table itself: every state of a row that a pull could see is one fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from api import Api, serving
from postgres import postgres
from systems import KINDS, Rest, System, make_project, make_system, order, payloads, plain

from features.build import versions
from foretell.connectors import SQL
from foretell.errors import ForetellError
from foretell.project import Project
from foretell.windows import minutes
from ingestion.connectors import rest
from ingestion.ledger import seen
from ingestion.load import Loaded, load
from lake.engine import session

__all__ = ["postgres"]

DATABASES = ("sqlite", "postgresql")
# The laws with random changes, for every system with a watermark and without; those that take other code are not slow.
QUICK = {("sqlite", True), ("postgresql", True), ("postgresql", False), ("rest-offset", True), ("rest-cursor", True),
         ("rest-whole", False)}  # fmt: skip
EVERY = [
    pytest.param(kind, watermark, marks=() if (kind, watermark) in QUICK else pytest.mark.slow)
    for kind in KINDS
    for watermark in (True, False)
]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api()) as found:
        yield found


@pytest.fixture(params=KINDS)
def system(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr(rest, "BACK_OFF", 0.01)
    monkeypatch.setattr(rest, "RECORDS", 20)
    return make_system(request.param, request, tmp_path)


def pull(project: Project, **other: bool) -> list[Loaded]:
    found = list(load(project, ["orders"], **other))
    for result in found:
        assert not isinstance(result, ForetellError), result
    return [result for result in found if isinstance(result, Loaded)]


def facts(project: Project) -> list[tuple]:
    return sorted(plain(row) for row in payloads(project))


def test_a_pull_brings_every_row_once_and_the_next_one_nothing(system: System, tmp_path: Path) -> None:
    rows = [order(n) for n in range(1, 31)]
    system.put(*rows)
    project = make_project(tmp_path / "shop", system.connector())
    assert sum(result.added for result in pull(project)) == 30
    assert facts(project) == sorted(map(plain, rows))
    assert sum(result.added for result in pull(project)) == 0
    assert sum(result.added for result in pull(project, full=True)) == 0
    assert facts(project) == sorted(map(plain, rows))
    assert not list((project.home / "landing").rglob("*.parquet"))


@pytest.mark.parametrize(("system", "watermark"), EVERY, indirect=["system"])
def test_incremental_pulls_bring_every_state_that_a_pull_could_see(
    system: System, watermark: bool, tmp_path: Path
) -> None:
    draw, now, clock = Random(3), {}, 0
    connector = system.connector(overlap=minutes(5)) if watermark else system.connector(watermark=None)
    project = make_project(tmp_path / "shop", connector)
    expected: set[tuple] = set()
    for _ in range(3):
        for _ in range(draw.randint(1, 12)):
            clock += draw.randint(0, 3)  # several rows may have one watermark
            n = draw.choice([len(now) + 1, draw.randint(1, len(now) + 1)])
            now[n] = order(n, clock, amount=f"{draw.randint(0, 9)}.25")
        system.put(*now.values())
        expected |= {plain(row) for row in now.values()}
        pull(project)
        assert facts(project) == sorted(expected)
    pull(project, full=True)
    assert facts(project) == sorted(expected)


@pytest.mark.parametrize(("system", "watermark"), EVERY, indirect=["system"])
def test_with_a_key_the_rows_that_count_are_those_of_the_table_then(
    system: System, watermark: bool, tmp_path: Path
) -> None:
    """A changed row is a later version of the same fact; an earlier cutoff goes on seeing the one known then."""
    draw, now, clock = Random(5), {}, 0
    connector = system.connector() if watermark else system.connector(watermark=None)
    project = make_project(tmp_path / "shop", connector, key='"id"', delay="None")
    states: list[tuple[datetime, list[tuple]]] = []
    for _ in range(3):
        for _ in range(6):
            clock += 1
            n = draw.choice([len(now) + 1, draw.randint(1, len(now) + 1)])
            now[n] = order(n, clock, amount=f"{draw.randint(0, 9)}.25")
        system.put(*now.values())
        pull(project)
        states.append((datetime.now(UTC), sorted(map(plain, now.values()))))
    for then, expected in states:
        assert counted(project, then) == expected


def counted(project: Project, then: datetime) -> list[tuple]:
    with session(project) as con:
        rows = con.execute(f"SELECT payload FROM {versions(project.definitions.source('orders'), then)}").fetchall()
    return sorted(plain(json.loads(payload)) for (payload,) in rows)


@pytest.mark.parametrize("system", DATABASES, indirect=True)  # an API that is asked for newer rows does not send them
def test_rows_without_a_watermark_come_too(system: System, tmp_path: Path) -> None:
    rows = [order(n) for n in range(1, 9)]
    rows[2]["updated_at"] = rows[5]["updated_at"] = None
    system.put(*rows)
    project = make_project(tmp_path / "shop", system.connector())
    assert "2 rows without updated_at, which are read every time" in pull(project)[0].reasons
    late = {**order(20), "updated_at": None}
    system.put(late)
    assert sum(result.added for result in pull(project)) == 1
    assert facts(project) == sorted(map(plain, [*rows, late]))


def test_a_row_committed_late_is_found_by_the_overlap(system: System, tmp_path: Path) -> None:
    system.put(*[order(n) for n in (1, 2, 7000)])
    project = make_project(tmp_path / "shop", system.connector())
    pull(project)
    system.put(order(6800))  # 5 minutes, if nothing else is said
    assert sum(result.added for result in pull(project)) == 1
    system.put(order(5000))
    assert sum(result.added for result in pull(project)) == 0
    project = make_project(tmp_path / "shop", system.connector(overlap=minutes(60)))
    assert sum(result.added for result in pull(project)) == 1


@pytest.mark.parametrize("system", DATABASES, indirect=True)
def test_a_watermark_of_numbers(system: System, tmp_path: Path) -> None:
    system.put(*[order(n) for n in range(1, 2000, 100)])
    project = make_project(tmp_path / "shop", system.connector(overlap=150, watermark="id"))
    pull(project)
    system.put(order(1800), order(1500), order(2000))
    assert sum(result.added for result in pull(project)) == 2
    assert watermark_of(project) == "2000"


def test_a_row_dated_in_the_future_keeps_nothing_out(system: System, tmp_path: Path) -> None:
    ahead = {**order(1), "updated_at": "2199-01-01 00:00:00+00"}
    system.put(ahead, order(2))
    project = make_project(tmp_path / "shop", system.connector(watermark="updated_at"))
    pull(project)
    assert '"2024' < watermark_of(project) < '"2199'


def watermark_of(project: Project) -> str:
    connector = project.definitions.source("orders").connector
    assert connector
    return seen(project, "orders", connector.fingerprint).watermark or ""


def test_another_watermark_or_table_is_read_from_the_start(system: System, tmp_path: Path) -> None:
    system.put(*[order(n, 1000 - n) for n in range(1, 20)])
    project = make_project(tmp_path / "shop", system.connector())
    pull(project)
    if isinstance(system, Rest):
        system.put(order(5, 2, amount="7.00"))
        other = system.connector(params={"of": "everything"})
    else:
        system.put(order(5, 2, amount="7.00"))  # below the watermark: an incremental pull does not see it
        assert sum(result.added for result in pull(project)) == 0
        other = system.connector(watermark="ordered_at")
    project = make_project(tmp_path / "shop", other)
    assert sum(result.added for result in pull(project)) == 1


def test_equal_rows_are_as_many_facts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A table without a key may have the same row several times, on both sides of a piece's end."""
    system = make_system("sqlite", request, tmp_path)
    system.run("CREATE TABLE clicks (email, ordered_at, updated_at)")  # type: ignore[attr-defined]
    rows = [("a@x.org", "2024-05-01 10:00:00", f"2024-05-01 10:00:0{n // 10}") for n in range(45)]
    system.run("INSERT INTO clicks VALUES (?, ?, ?)", rows)  # type: ignore[attr-defined]
    for n, watermark in enumerate(("updated_at", None)):
        connector = SQL(url=f"sqlite:///{tmp_path}/shop.db", table="clicks", watermark=watermark, rows=14)
        project = make_project(tmp_path / f"shop{n}", connector, columns="{}", types="{}")
        for _ in range(2):
            pull(project)
            assert len(payloads(project)) == 45
        system.run("INSERT INTO clicks VALUES (?, ?, ?)", rows[-2:])  # type: ignore[attr-defined]
        pull(project)
        assert len(payloads(project)) == 47
        system.run("DELETE FROM clicks WHERE rowid > 45")  # type: ignore[attr-defined]
