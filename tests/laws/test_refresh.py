"""Bringing a built cutoff up to date gives what building it from nothing would: for every discovered view."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from conftest import MORE_SOURCES, START, Facts, load_shop, more_facts, record, sale, shop_facts, write_shop

from features import build, built, changes
from features.store import repository
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import session
from unification.decisions import decide

CUTOFF = START + timedelta(days=300, microseconds=5)
DAY = timedelta(days=1)
VIEWS = sorted(p.stem for p in (Path(build.__file__).parent / "views").glob("[!_]*.py"))


def rows_of(project: Project, view: FeatureView, cutoff=CUTOFF) -> pd.DataFrame:
    """As they are read from what is built."""
    with session(project) as con:
        return con.execute(f"SELECT * FROM {build.read(project, view, cutoff)} ORDER BY {', '.join(view.keys)}").df()


def anew(project: Project, view: FeatureView, cutoff=CUTOFF) -> pd.DataFrame:
    with session(project) as con:
        return con.execute(build.rows_at(con, project, view, cutoff)).df()


def add(project: Project, facts: Facts, batch: int) -> None:
    """Load more rows as further files."""
    more = write_shop(project.folder.with_name(f"more{batch}"), facts, sources=MORE_SOURCES)
    for file in (more.folder / "exports").glob("*/*"):
        target = project.folder / "exports" / file.parent.name / f"{batch}{file.name}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    load_shop(project, [name for name, rows in facts.items() if rows])


def few(people: range, batch: int, *, joined: bool = True) -> Facts:
    """What a later load may bring about some people: late sales, sales after the cutoff, links, other traits.

    joined: the first and the last of them turn out to be one.
    """
    rows = Facts(shop=[], crm=[], web=[], mail=[], desk=[], site=[])
    for i in people:
        card, seen = f"CARD{i:04d}A", CUTOFF - DAY * (1 + i)
        rows["shop"].append(sale(seen, card, "31.00", order_id=f"late{i}-{batch}", recorded_at=CUTOFF - DAY))
        rows["shop"].append(sale(CUTOFF + DAY, card, "99.00"))
    one, other = people[0], people[-1]
    rows["crm"] += [
        record(CUTOFF - DAY, f"CARD{n:04d}A", f"joined{batch if joined else n}@shop.example", city="Tromsø")
        for n in (one, other)
    ]
    rows["crm"].append(record(CUTOFF + DAY, f"CARD{one:04d}A", "later@shop.example"))  # of no concern yet
    return rows


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Built at the cutoff, and brought up to date after each of three more loads; after the first, some are one."""
    facts = more_facts(shop_facts())
    project = write_shop(tmp_path_factory.mktemp("grown") / "shop", facts, sources=MORE_SOURCES)
    load_shop(project, facts)
    views = list(project.definitions.views.values())
    build.build(project, views, [CUTOFF])
    for batch, people in enumerate((range(1, 5), range(4, 6), range(6, 8)), 1):
        add(project, few(people, batch, joined=batch == 1), batch)
        assert build.build(project, views, [CUTOFF]) == len(views)
        assert build.build(project, views, [CUTOFF]) == 0
    return project


@pytest.mark.parametrize("name", VIEWS)
def test_brought_up_to_date_is_built_anew(grown: Project, name: str) -> None:
    view = grown.definitions.view(name)
    pd.testing.assert_frame_equal(rows_of(grown, view), anew(grown, view), rtol=1e-9)


@pytest.mark.parametrize("name", VIEWS)
def test_only_the_touched_are_built(grown: Project, name: str) -> None:
    """Not for views about companies or categories: whose rows a fact touches there is not looked for."""
    view = grown.definitions.view(name)
    file = built.file_of(grown, view, CUTOFF)
    if view.entity == "profile" and view.facts_of == "profile":
        sizes = [len(pd.read_parquet(patch)) for patch in built.patches(file)]
        assert len(sizes) == 3
        assert 0 < sum(sizes) < len(pd.read_parquet(file)) / 4
    else:
        assert not built.patches(file)


def test_training_rows_are_those_of_the_patches(grown: Project) -> None:
    """Feast reads the files by itself."""
    task = grown.definitions.task("churn")
    store = repository.apply(grown, [task])
    view = grown.definitions.view("orders")
    now = anew(grown, view)
    entities = now[["profile_id", "event_timestamp"]]
    found = repository.historical(store, repository.service_name(grown, task), entities)
    found = found.sort_values("profile_id", ignore_index=True)[["profile_id", *view.features]]
    expected = now[["profile_id", *view.features]].astype(found.dtypes.to_dict())
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)


def test_a_decision_builds_everyone_anew(grown: Project, tmp_path: Path) -> None:
    """Another rule of who is who may touch anybody."""
    project = copied(grown, tmp_path)
    view = project.definitions.view("orders")
    with project.writing("test"):
        decide(project, "veto", "loyalty_card:CARD0001A", "loyalty_card:CARD0004A")
    build.build(project, [view], [CUTOFF])
    assert not built.patches(built.file_of(project, view, CUTOFF))
    pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)


def test_many_patches_become_one_file(grown: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copied(grown, tmp_path)
    view = project.definitions.view("gaps")
    monkeypatch.setattr(built, "MOST_PATCHES", 2)
    add(project, few(range(9, 11), 3), 3)
    build.build(project, [view], [CUTOFF])
    file = built.file_of(project, view, CUTOFF)
    assert not built.patches(file)
    assert len(pd.read_parquet(file)) == len(anew(project, view))
    pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)


def test_a_fact_after_the_cutoff_touches_nobody(grown: Project, tmp_path: Path) -> None:
    project = copied(grown, tmp_path)
    view = project.definitions.view("orders")
    add(project, Facts(shop=[sale(CUTOFF, "CARD0001A"), sale(CUTOFF - DAY, "CARD0002A", recorded_at=CUTOFF)]), 3)
    build.build(project, [view], [CUTOFF])
    assert len(pd.read_parquet(built.patches(built.file_of(project, view, CUTOFF))[-1])) == 0
    pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)


def test_when_many_are_touched_everyone_is_built(grown: Project, tmp_path: Path) -> None:
    project = copied(grown, tmp_path)
    view = project.definitions.view("orders")
    add(project, Facts(shop=[sale(CUTOFF - DAY, f"CARD{i:04d}A", order_id=f"n{i}") for i in range(60)]), 3)
    build.build(project, [view], [CUTOFF])
    assert not built.patches(built.file_of(project, view, CUTOFF))
    pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)


def test_a_change_that_is_not_seen_would_be_caught(
    grown: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law can fail: whoever has new identifiers only must be built too."""
    project = copied(grown, tmp_path)
    view = project.definitions.view("orders")
    honest = changes.touched

    def blind(con, project, roles, cutoff, since):
        _, everyone, gone = honest(con, project, roles, cutoff, since)
        con.execute("DELETE FROM touched")
        return 0, everyone, gone

    monkeypatch.setattr(changes, "touched", blind)
    add(project, few(range(12, 14), 3), 3)
    build.build(project, [view], [CUTOFF])
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)


def copied(project: Project, folder: Path) -> Project:
    import shutil

    shutil.copytree(project.folder, folder / "shop")
    return Project(folder / "shop")


def test_versions_of_a_row_touch_both_owners(tmp_path: Path) -> None:
    """A row with a key that is another person's now: neither keeps what was."""
    source = deepcopy(MORE_SOURCES)
    from conftest import SOURCES

    source["shop"] = SOURCES["shop"].replace('known_at="recorded_at",', 'known_at="recorded_at",\n    key="order_id",')
    facts = Facts(shop=[sale(CUTOFF - DAY * i, f"C{i}", order_id=f"o{i}") for i in range(1, 30)])
    project = write_shop(tmp_path / "shop", facts, sources=source)
    load_shop(project, ["shop"])
    view = project.definitions.view("orders")
    build.build(project, [view], [CUTOFF])
    add(project, Facts(shop=[sale(CUTOFF - DAY, "C2", order_id="o1", recorded_at=CUTOFF - timedelta(hours=1))]), 2)
    build.build(project, [view], [CUTOFF])
    assert len(built.patches(built.file_of(project, view, CUTOFF))) == 1
    pd.testing.assert_frame_equal(rows_of(project, view), anew(project, view), rtol=1e-9)
