"""Batch by batch, profiles are what they would be made of all facts at once; a killed update is made good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from conftest import SOURCES, START, Facts, load_shop, record, sale, shop_facts, write_shop

from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import load
from lake.engine import session
from unification.decisions import decide, decisions, take_back
from unification.identity import ensure, unify

TABLES = ("member", "alias", "golden", "profiles")


def state(project: Project) -> dict[str, list[tuple]]:
    found = {}
    with session(project) as con:
        for name in TABLES:
            columns = [c[0] for c in con.execute(f"DESCRIBE {name}").fetchall()]
            listed = ", ".join(f'"{c}"' for c in sorted(columns))
            found[name] = con.execute(f"SELECT {listed} FROM {name} ORDER BY ALL").fetchall()
        found["refused"] = con.execute("SELECT a, b, known_at, reason FROM refused_edges ORDER BY ALL").fetchall()
        found["edges"] = con.execute(
            """SELECT a, b, min(known_at), min_by(source, (known_at, fact_id)), sum(evidence) FROM edges
               GROUP BY 1, 2 ORDER BY ALL"""
        ).fetchall()
    return found


def made_anew(project: Project, folder: Path) -> dict[str, list[tuple]]:
    """What the same facts and decisions give from scratch."""
    shutil.copytree(project.folder, folder)
    other = Project(folder)
    shutil.rmtree(other.home / "graph")
    shutil.rmtree(other.home / "derived")
    unify(other)
    return state(other)


def parts_of(facts: Facts, draw: Random, many: int) -> list[Facts]:
    """The same rows in batches, in no order of time."""
    batches: list[Facts] = [{} for _ in range(many)]
    for name, rows in facts.items():
        for row in rows:
            draw.choice(batches).setdefault(name, []).append(row)
    return batches


def add(project: Project, folder: Path, facts: Facts, number: int) -> None:
    """Load more rows into a project, from files of their own."""
    other = write_shop(folder, {n: rows for n, rows in facts.items() if rows})
    for name in facts:
        for file in (other.exports / name).iterdir():
            target = project.exports / name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / f"{number}-{file.name}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_batch_by_batch_is_all_at_once(tmp_path: Path, seed: int) -> None:
    draw = Random(seed)
    batches = parts_of(shop_facts(seed=seed, people=25, days=120), draw, 4)
    project = write_shop(tmp_path / "shop", batches[0], settings={"identity_max": 3, "identity_shared": "device=1"})
    load_shop(project, batches[0])
    for number, batch in enumerate(batches[1:]):
        add(project, tmp_path / f"batch{number}", batch, number)
        load_shop(project, batch)
        if number == 1:  # and somebody decides something in between
            pairs = linked(project)
            decide(project, "veto", *draw.choice(pairs))
            decide(project, "veto", *draw.choice(pairs))
            ensure(project)
            take_back(project, decisions(project)["decision_id"][0])
            ensure(project)
        found, expected = state(project), made_anew(project, tmp_path / f"anew{number}")
        for name in found:
            assert found[name] == expected[name], name
    assert any(row[1] is not None for row in alias_ends(project))  # somebody was parted


def alias_ends(project: Project) -> list[tuple]:
    with session(project) as con:
        return con.execute("SELECT loser, known_to FROM alias").fetchall()


def linked(project: Project) -> list[tuple]:
    """Pairs of identifiers that are one person."""
    with session(project) as con:
        return con.execute(
            """SELECT a.node, b.node FROM member a JOIN member b USING (profile_id)
               WHERE a.known_to IS NULL AND b.known_to IS NULL AND a.node < b.node ORDER BY ALL"""
        ).fetchall()


def test_a_small_batch_leaves_the_large_tables_as_they_are(tmp_path: Path) -> None:
    rows = [record(START, f"CARD{n}", f"p{n}@x.example", city="Oslo") for n in range(40)]
    project = write_shop(tmp_path / "shop", {"crm": rows}, as_of=None)
    load_shop(project, ["crm"])
    files = {f: f.stat().st_mtime_ns for f in (project.home / "derived").glob("*.parquet")}
    add(project, tmp_path / "more", {"crm": [record(START, "CARD7", "other@x.example", city="Bergen")]}, 1)
    load_shop(project, ["crm"])
    member = project.home / "derived" / "member.parquet"
    assert member.stat().st_mtime_ns == files[member]
    with session(project) as con:
        rows = con.execute("SELECT count(DISTINCT node), count(DISTINCT profile_id) FROM member").fetchall()
        assert rows[0] == (81, 40)


def test_a_source_that_was_taken_away_takes_its_links_along(tmp_path: Path) -> None:
    rows = [record(START, "CARD1", "ann@x.example")]
    sales = [sale(START, "CARD1", email="bob@x.example")]
    project = write_shop(tmp_path / "shop", {"crm": rows, "shop": sales})
    load_shop(project, ["crm", "shop"])
    with session(project) as con:
        assert con.execute("SELECT count(DISTINCT node) FROM member").fetchall() == [(3,)]
    (project.folder / "sources" / "shop.py").unlink()
    again = Project(project.folder)
    ensure(again)
    with session(again) as con:
        assert con.execute("SELECT count(DISTINCT node) FROM member").fetchall() == [(2,)]


KILLER = """
import os, pathlib, shutil, signal, sys
import ibis, pandas, rich.progress, models.churn  # slow to import: before the forks
from foretell.project import Project
from unification.identity import unify

source, copies = sys.argv[1], pathlib.Path(sys.argv[2])
for at in range(1, 40):
    folder = copies / f"{at:02}"
    shutil.copytree(source, folder)
    child = os.fork()
    if child == 0:
        count, replace = 0, os.replace

        def dying(*paths):
            global count
            count += 1
            if count == (at + 1) // 2 and at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
            if count == at // 2 and not at % 2:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = dying
        pathlib.Path.replace = lambda self, to: dying(self, to)
        try:
            unify(Project(folder))
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(at, status, flush=True)
    if status != signal.SIGKILL:
        break
"""


@pytest.mark.slow
def test_an_update_killed_before_or_after_any_write_is_made_good(tmp_path: Path) -> None:
    batches = parts_of(shop_facts(seed=7, people=20, days=90), Random(7), 2)
    project = write_shop(tmp_path / "shop", batches[0])
    load_shop(project, batches[0])
    add(project, tmp_path / "more", batches[1], 1)
    assert not [e for e in load(project, list(SOURCES)) if isinstance(e, ForetellError)]
    expected = made_anew(project, tmp_path / "anew")
    (tmp_path / "copies").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(project.folder), str(tmp_path / "copies")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, timeout=300,
    )  # fmt: skip
    ends = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(ends) > 10, done.stderr
    assert ends[-1][1] == 0
    for at, _ in ends:
        copy = Project(tmp_path / "copies" / f"{at:02}")
        ensure(copy)
        assert state(copy) == expected, at
