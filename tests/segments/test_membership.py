"""Who entered and left: the history agrees with a naive loop over audiences, through merges, and survives a kill."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import START
from fixtures_segments import SEGMENTS, at, declare, score, scored_shop

from foretell.errors import DataError, ForetellError, NotReady, UnknownName
from foretell.project import Project
from lake.engine import session, table
from lake.tables import Table
from segments import history, plots
from segments.audience import audience
from segments.history import Refresh, record
from unification.decisions import decide, take_back
from unification.identity import ensure, members_at, unify

RULES = {
    "everybody": "rule: identifiers > 0\n",
    "osloers": "rule: city = 'Oslo'\n",
    "few": "rule: identifiers < 3\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Not to be changed."""
    return scored_shop(tmp_path_factory.mktemp("membership") / "shop")


@pytest.fixture
def mine(shop: Project, tmp_path: Path) -> Project:
    shutil.copytree(shop.folder, tmp_path / "mine")
    return Project(tmp_path / "mine")


def rows(project: Project) -> list[tuple]:
    with session(project) as con:
        return con.execute("SELECT * EXCLUDE (written_at) FROM memberships ORDER BY ALL").fetchall()


def ids(project: Project, segment: str) -> set[str]:
    """The ids that are in, as the table says without a look at who is who."""
    inside: set[str] = set()
    with session(project) as con:
        query = "SELECT change, profile_id FROM memberships WHERE segment = ? AND change <> 'counted' ORDER BY refresh"
        for change, profile in con.execute(query, [segment]).fetchall():
            inside.add(profile) if change == "entered" else inside.remove(profile)
    return inside


def owner(project: Project) -> dict[str, str]:
    with session(project) as con:
        return dict(con.execute(f"SELECT birth_id, profile_id FROM ({members_at(project.now)})").fetchall())


def test_the_history_is_what_a_naive_loop_says(
    mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """At seven moments of the shop's life, as identifiers are linked and people move."""
    for name in SEGMENTS:
        (mine.folder / "segments" / f"{name}.yaml").unlink()
    declare(mine, RULES)
    recorded: dict[str, set[str]] = {name: set() for name in RULES}
    merged = 0
    for month in (3, 4, 6, 8, 9, 11, 12):
        project = at(mine, START + timedelta(days=33 * month), monkeypatch)
        today = owner(project)
        merged += len({today[p] for p in recorded["everybody"]}) < len(recorded["everybody"])
        found = {r.segment: r for r in record(project) if isinstance(r, Refresh)}
        assert found.keys() == RULES.keys()
        for name, was in recorded.items():
            members = set(audience(project, name).members["profile_id"])
            before = {today[p] for p in was}
            entered, left = members - before, before - members
            assert (found[name].size, found[name].entered, found[name].left) == (
                len(members), len(entered), len(left)), (name, month)  # fmt: skip
            recorded[name] = {p for p in was if today[p] in members} | entered
            assert ids(project, name) == recorded[name]
            assert {today[p] for p in ids(project, name)} == members
        assert not found["everybody"].left, "nobody leaves by turning out to be somebody else"
    assert merged > 3
    seen = history.history(project, ["few"])
    assert len(seen) == 7
    assert sum(r.left for r in seen) > 0
    assert [r.at for r in seen] == sorted(r.at for r in seen)
    assert all(a.size + b.entered - b.left >= b.size for a, b in pairwise(seen))


def test_an_undone_merge_is_nobody_who_enters_or_leaves(mine: Project) -> None:
    record(mine)
    with session(mine) as con:
        a, b = con.execute(
            f"""SELECT min(node), max(node) FROM ({members_at(mine.now)}) WHERE node LIKE 'loyalty_card:%'
                GROUP BY profile_id HAVING count(*) = 2 ORDER BY 1"""
        ).fetchall()[0]
    decided = decide(mine, "veto", a, b, "two people")
    unify(mine)
    found = {r.segment: r for r in record(mine) if isinstance(r, Refresh)}
    assert (found["everybody"].entered, found["everybody"].left) == (1, 0)  # there is one more now
    take_back(mine, decided)
    unify(mine)
    found = {r.segment: r for r in record(mine) if isinstance(r, Refresh)}
    assert (found["everybody"].entered, found["everybody"].left) == (0, 0)


def test_asked_twice_it_adds_nothing(mine: Project) -> None:
    first = record(mine)
    once = rows(mine)
    assert [r.entered for r in first if isinstance(r, Refresh)] == [r.size for r in first if isinstance(r, Refresh)]
    assert Counter(row[2] for row in once)["counted"] == len(SEGMENTS)
    again = record(mine)
    assert rows(mine) == once
    assert all(isinstance(r, Refresh) and not r.entered and not r.left for r in again)


def test_a_later_refresh_is_written_even_if_nothing_changed(mine: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    record(mine)
    later = at(mine, mine.now + timedelta(days=1), monkeypatch)
    record(later)
    assert len(history.history(later, ["osloers"])) == 2
    with pytest.raises(DataError, match="expected a time after the last refresh"):
        record(at(mine, mine.now - timedelta(days=2), monkeypatch))


def test_by_the_clock_all_segments_are_of_one_moment(mine: Project) -> None:
    declare(mine, RULES)
    toml = mine.folder / "foretell.toml"
    toml.write_text("".join(line for line in toml.read_text().splitlines(True) if not line.startswith("as_of")))
    project = Project(mine.folder)
    ensure(project)
    for times in (1, 2):
        found = [r for r in record(project) if isinstance(r, Refresh)]
        assert len(found) >= len(RULES)
        assert len({r.at for r in history.history(project)}) == times
        assert {r.entered for r in found if times == 2} <= {0}


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_its_only_commit(mine: Project, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Before it nothing is left behind; after it there is nothing more to do."""
    append = Table.append

    def dying(self: Table, *arguments: object, **more: object) -> None:
        if when == "after":
            append(self, *arguments, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Table, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        record(mine)
    monkeypatch.setattr(Table, "append", append)
    assert table(mine, "memberships").exists == (when == "after")
    record(mine)
    seen = rows(mine)
    assert len(seen) == len({row[1:4] for row in seen})
    for name in SEGMENTS:
        assert ids(mine, name) == set(audience(mine, name).members["profile_id"])


def test_another_rule_has_another_digest(mine: Project) -> None:
    record(mine)
    declare(mine, {"osloers": "rule: city in ('Oslo', 'Bergen')\n"})
    found = {r.segment: r for r in record(mine) if isinstance(r, Refresh)}
    assert found["osloers"].entered > 0
    assert found["osloers"].left == 0
    first, last = history.history(mine, ["osloers"])
    assert first.rule != last.rule
    declare(mine, {"osloers": "rule: city   IN ('Oslo', 'Bergen')\ndescription: Written otherwise\n"})
    assert {r.rule for r in record(mine) if isinstance(r, Refresh) and r.segment == "osloers"} == {last.rule}


def test_a_rule_that_cannot_be_answered_leaves_its_history_alone(mine: Project) -> None:
    record(mine)
    before = rows(mine)
    declare(mine, {"leaving": "rule: lookalike > 0.5\n"})
    found = dict(zip(sorted(SEGMENTS), record(mine), strict=True))
    assert isinstance(found["leaving"], ForetellError)
    assert rows(mine) == before


def test_the_log_tells_nothing_of_a_person(mine: Project) -> None:
    """No statistics of ids in the Delta log, and files whose schema is what the catalogue says."""
    record(mine)
    stored = table(mine, "memberships")
    logs = "".join(file.read_text() for file in (stored.path / "_delta_log").glob("*.json"))
    assert not any(profile in logs for profile in ids(mine, "everybody"))
    assert "profile_id" in pq.read_schema(stored.files()[0]).names


def test_there_is_no_history_yet(mine: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReady, match="osloers: no history yet; `foretell segment refresh`"):
        history.history(mine, ["osloers"])
    with pytest.raises(UnknownName, match='did you mean "osloers"'):
        history.history(mine, ["oslers"])
    with pytest.raises(NotReady, match="segments: no history yet"):
        history.history(mine)
    for name in SEGMENTS:
        (mine.folder / "segments" / f"{name}.yaml").unlink()
    assert record(mine) == []


def test_pictures(mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(mine)
    later = at(mine, mine.now + timedelta(days=7), monkeypatch)
    score(later)
    record(later)
    found = history.history(later)
    assert len(found) == 2 * len(SEGMENTS)
    own = [r for r in found if r.segment == "leaving"]
    drawn = plots.history(own)
    heights = [bar.get_height() for bar in drawn.axes[1].patches]  # type: ignore[attr-defined]
    assert heights == [own[1].entered, -own[1].left]
    plots.trend(found).savefig(tmp_path / "trend.png")
    assert (tmp_path / "trend.png").stat().st_size > 5_000
