"""A project that keeps itself up to date: what a run does, what it leaves out, what it says afterwards."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from foretell.__main__ import cli
from foretell.project import Project
from ingestion import journal
from lake.engine import last_batch, session
from serving import run as running
from serving.run import Stop, once, patience

ROOT = Path(__file__).parents[2]
SOURCES = """
from foretell import SQL, Source, minutes

till = Source(name="till", files="till/*.csv", event_at="at", identifiers={"email": "email"})
shop_db = Source(
    name="shop_db", connector=SQL(url="sqlite:///shop.db", table="orders", watermark="at", overlap=minutes(1)),
    event_at="at", identifiers={"email": "email"},
)
"""


def insert(folder: Path, *emails: str) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as con, con:
        con.execute("CREATE TABLE IF NOT EXISTS orders (email, at)")
        count = con.execute("SELECT count(*) FROM orders").fetchone()[0]
        rows = [(email, f"2024-05-01 10:00:{count + n:02}") for n, email in enumerate(emails)]
        con.executemany("INSERT INTO orders VALUES (?, ?)", rows)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "shop"
    (folder / "sources").mkdir(parents=True)
    (folder / "exports" / "till").mkdir(parents=True)
    (folder / "foretell.toml").write_text("[foretell]\n")
    (folder / "sources" / "both.py").write_text(SOURCES)
    (folder / "exports" / "till" / "a.csv").write_text("email,at\na@x.org,2024-05-01 09:00:00\n")
    insert(folder, "a@x.org", "b@x.org")
    return Project(folder)


def foretell(project: Project, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["--project", str(project.folder), *words])
    return done.exit_code, done.output


def profiles(project: Project) -> int:
    with session(project) as con:
        return con.execute("SELECT count(DISTINCT profile_id) FROM member").fetchall()[0][0]


def test_a_run_loads_and_unifies_and_the_next_one_finds_nothing(project: Project) -> None:
    status, said = foretell(project, "run")
    assert status == 0, said
    assert "till: till/a.csv: 1 facts" in said
    assert "shop_db: table orders: 2 facts" in said
    assert said.splitlines()[-1] == "3 new facts."
    assert profiles(project) == 2
    batch = last_batch(project)
    assert foretell(project, "run")[1] == "0 new facts.\n"
    assert last_batch(project) == batch  # nothing new is no batch: nothing is computed again
    insert(project.folder, "c@x.org")
    assert foretell(project, "run")[1].endswith("1 new facts.\n")
    assert profiles(project) == 3
    assert [(run.added, run.error) for run in journal.runs(project)] == [(1, None), (0, None), (3, None)]


def test_status_says_when_the_next_run_is(project: Project) -> None:
    run, _ = once(project, ("load",), Stop(), say=print)
    journal.plan_next(project, run, datetime(2030, 1, 2, 3, 4, tzinfo=UTC))
    assert "- next run: 2030-01-02 03:04 UTC" in foretell(project, "status")[1]
    journal.plan_next(project, run, None)
    assert "next run" not in foretell(project, "status")[1]


def test_only_some_steps(project: Project) -> None:
    assert foretell(project, "run", "--only", "load")[0] == 0
    assert not (project.home / "derived").exists()
    status, said = foretell(project, "run", "--only", "load,train")
    assert status == 2
    assert "no such step 'train'" in said
    status, said = foretell(project, "run", "--every", "ten minutes")
    assert status == 2
    assert "such as 10m" in said


def test_a_failing_source_does_not_stop_the_others(project: Project) -> None:
    (project.folder / "exports" / "till" / "a.csv").unlink()
    status, said = foretell(project, "run")
    assert status == 2
    assert "no file matches till/*.csv" in said
    assert "shop_db: table orders: 2 facts" in said
    assert profiles(project) == 2
    told = foretell(project, "status")[1]
    assert re.search(
        r"- last run \(load, unify, score, grade\): began .*, ended .*, 2 new facts: till: no file matches", told
    )
    assert re.search(r"- till failed \d{4}-\d\d-\d\d \d\d:\d\d: till: no file matches", told)
    foretell(project, "run")
    assert "(2 times in a row)" in foretell(project, "status")[1]
    (project.folder / "exports" / "till" / "a.csv").write_text("email,at\na@x.org,2024-05-01 09:00:00\n")
    assert foretell(project, "run")[0] == 0
    assert "failed" not in foretell(project, "status")[1]


def test_a_failing_source_is_tried_less_often(project: Project) -> None:
    (project.folder / "exports" / "till" / "a.csv").unlink()
    said: list[str] = []

    def run() -> None:
        said.clear()
        once(project, ("load",), Stop(), every=timedelta(minutes=10), say=said.append)

    for _ in range(2):
        run()
    assert any("no file matches" in line for line in said) or any("tried again from" in line for line in said)
    run()
    assert [line for line in said if "tried again from" in line]
    assert not [line for line in said if "no file matches" in line]
    with closing(sqlite3.connect(project.home / "journal.db")) as con, con:
        con.execute("UPDATE sources SET tried_at = '2024-01-01T00:00:00+00:00'")
    run()
    assert [line for line in said if "no file matches" in line]


def test_patience_doubles_up_to_a_limit() -> None:
    ten, day = timedelta(minutes=10), timedelta(days=1)
    assert [patience(ten, n) for n in range(4)] == [ten, 2 * ten, 4 * ten, 8 * ten]
    assert patience(ten, 50) == timedelta(hours=6)
    assert patience(day, 5) == day


def test_one_writer_at_a_time(project: Project) -> None:
    with project.writing("train"):
        status, said = foretell(project, "run")
    assert status == 0
    assert "`foretell train`" in said
    assert "this run is left out" in said
    assert last_batch(project) == 0
    assert "is writing here" in str(journal.runs(project)[0].error)


def test_a_mistake_of_ours_does_not_end_the_schedule(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setitem(running._STEPS, "unify", broken)
    said: list[str] = []
    _, report = once(project, ("load", "unify"), Stop(), every=timedelta(minutes=1), say=said.append)
    assert report.broken
    assert "oops" in str(journal.runs(project)[0].error)
    with pytest.raises(KeyError):
        once(project, ("unify",), Stop(), say=said.append)


def test_a_changed_column_is_shown_in_status(project: Project) -> None:
    foretell(project, "run")
    with closing(sqlite3.connect(project.folder / "shop.db")) as con, con:
        con.execute("ALTER TABLE orders ADD COLUMN channel")
        con.execute("INSERT INTO orders VALUES ('d@x.org', '2024-05-01 11:00:00', 'web')")
    assert "column channel is new: not in the contract, kept in the row" in foretell(project, "run")[1]
    assert re.search(r"- shop_db changed .*: column channel is new", foretell(project, "status")[1])


def test_every_runs_until_it_is_told_to_stop(project: Project) -> None:
    words = ["--project", str(project.folder), "run", "--every", "1s", "--only", "load,unify"]
    process = subprocess.Popen(
        [sys.executable, "-m", "foretell", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        _until(lambda: len(journal.runs(project)) >= 2 and last_batch(project) == 2)
        insert(project.folder, "z@x.org")
        _until(lambda: last_batch(project) == 3)
        _until(lambda: journal.runs(project)[0].next_at is not None)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "shop_db: table orders: 1 facts" in said
    assert "next run: " not in foretell(project, "status")[1]
    with project.writing("load"):  # it left no lock
        pass


def _until(done, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
