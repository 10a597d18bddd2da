"""What was known at T does not change: laws over every discovered view and task, standard ones and the example's.

One boundary B serves all: features are asked at T = B, labels at T = B - horizon - settle, so that what is known at or
after B concerns neither. Each altered lake is made once and every view and task is checked on it.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from conftest import (
    CATEGORIES,
    MORE_SOURCES,
    START,
    Facts,
    call,
    click,
    components,
    identifiers,
    known_at,
    letter,
    make_shop,
    more_facts,
    page,
    profiles_at,
    record,
    sale,
    shop_facts,
    write_shop,
)

from features import build, labels
from features.store import repository
from features.store.online import Online
from foretell import _, days_since, past
from foretell.binding import aggregate, kind_of, players, seen
from foretell.declarations import Enters, PredictionTask, Until
from foretell.discovery import Definitions, discover
from foretell.errors import DataError
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import instant, session
from training import dataset
from unification import accounts
from unification.identity import members_at

BOUNDARY = START + timedelta(days=300, hours=5, microseconds=7)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
Lake = TypeVar("Lake", str, Project)
EXAMPLE = Path(__file__).parents[2] / "examples/complete_journey"


# Which views and tasks: those that come with the rooms, and with the example's in their place.


def _copy_definitions(origin: str, folder: Path) -> None:
    for name in ("views", "tasks"):
        if origin == "complete_journey" and (EXAMPLE / name).exists():
            shutil.copytree(EXAMPLE / name, folder / name)


@cache
def discovered(origin: str) -> Definitions:
    with tempfile.TemporaryDirectory() as folder:
        project = write_shop(Path(folder) / "shop", {}, sources=MORE_SOURCES)
        _copy_definitions(origin, project.folder)
        return discover(project.folder)


ORIGINS = ("standard", "complete_journey")


def _own(declared: Any, origin: str) -> bool:
    """Whether it is the origin's own: the example has the standard views and tasks too, and once is enough."""
    return origin == "standard" or not Path(declared.where).is_relative_to(Path(__file__).parents[2])


VIEWS = {f"{v.name}@{o}": (o, v.name) for o in ORIGINS for v in discovered(o).views.values() if _own(v, o)}
LONGEST = timedelta(days=100)  # the lake's days hold no longer horizon; a task of one is a standard one's but for that
TASKS = {
    f"{t.name}@{o}": (o, t.name) for o in ORIGINS for t in discovered(o).tasks.values()
    if _own(t, o) and t.horizon < LONGEST
}  # fmt: skip
RARE = ("repurchase",)  # few of the lake's people have ordered once only
OF_SEVERAL = ("loyalty",)  # one purchase decides nothing: it needs one in each of three months
BUYING = {  # the others are about a rule: tests/training/test_entering.py
    k: (o, n) for k, (o, n) in TASKS.items() if getattr(discovered(o).tasks[n].label, "source", "") == "order_line"
}

PROFILE_VIEWS = {k: (o, n) for k, (o, n) in VIEWS.items() if discovered(o).views[n].entity == "profile"}

every_view = pytest.mark.parametrize(("origin", "name"), VIEWS.values(), ids=VIEWS)
every_profile_view = pytest.mark.parametrize(("origin", "name"), PROFILE_VIEWS.values(), ids=PROFILE_VIEWS)
every_task = pytest.mark.parametrize(("origin", "name"), TASKS.values(), ids=TASKS)
every_task_about_orders = pytest.mark.parametrize(("origin", "name"), BUYING.values(), ids=BUYING)


class Lakes:
    """Lakes of one shop, by name, each with a project per origin of definitions; made when first asked for."""

    def __init__(
        self, folder: Path, *, facts: Facts | None = None, sources: Mapping[str, str] = MORE_SOURCES,
        altered: Mapping[str, Callable[[Facts], Facts]] | None = None,
    ):  # fmt: skip
        self.folder, self.sources = folder, sources
        self.facts = facts or more_facts(shop_facts())
        self.altered = altered or ALTERED
        self.made: dict[str, Project] = {}
        self.rows: dict[tuple[str, str, datetime], dict[str, pd.DataFrame]] = {}
        self.files: set[tuple[str, str, tuple[datetime, ...]]] = set()

    def get(self, name: str, origin: str = "standard") -> Project:
        if name not in self.made:
            self.made[name] = make_shop(
                self.folder / name, facts=self.altered[name](deepcopy(self.facts)), sources=self.sources
            )
        key = f"{name}-{origin}"
        if origin != "standard" and key not in self.made:
            home = str(self.made[name].home)
            self.made[key] = write_shop(self.folder / key, {}, settings={"home": home}, sources=self.sources)
            _copy_definitions(origin, self.made[key].folder)
        return self.made[name] if origin == "standard" else self.made[key]

    def views(self, name: str, origin: str) -> list[FeatureView]:
        return [self.get(name, origin).definitions.view(view) for o, view in VIEWS.values() if o == origin]

    def features(self, name: str, origin: str, view: str, cutoff: datetime) -> pd.DataFrame:
        """The rows of a view at a cutoff; those of all views are made together when one is first asked for."""
        key = name, origin, cutoff
        if key not in self.rows:
            project = self.get(name, origin)
            with session(project) as con:
                made = build.rows_of(con, project, self.views(name, origin), cutoff)
                self.rows[key] = {view.name: con.execute(query).df() for view, query in made}
        return self.rows[key][view].copy()

    def built(self, name: str, origin: str, view: str, *cutoffs: datetime) -> pd.DataFrame:
        """The file of a view at the boundary, after all views were built at the cutoffs."""
        project = self.get(name, origin)
        if (key := (name, origin, cutoffs)) not in self.files:
            build.build(project, self.views(name, origin), cutoffs)
            self.files.add(key)
        with session(project) as con:
            return con.execute(f"SELECT * FROM {build.read(project, project.definitions.view(view), BOUNDARY)}").df()


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    return Lakes(tmp_path_factory.mktemp("lakes"))


# How a lake may be altered.


def _used_cards(facts: Facts) -> list[str]:
    return sorted({row["card"] for row in facts["shop"] if row["card"]})


def _extras(facts: Facts, known: datetime, happened: datetime | None = None) -> Facts:
    """One more large order, redemption and mail for a third of the people, known at `known`."""
    at = happened or known - timedelta(days=3)
    if not happened:  # letters and records are known by when they happen: neither can happen after
        for n in range(0, 60, 3):
            facts["mail"].append(letter(known - timedelta(hours=1), f"person{n}@shop.example", f"m{known.microsecond}"))
        for n, card in enumerate(_used_cards(facts)[::3]):
            facts["crm"].append(record(known, card, city=f"City{n}", age_group="new", income="new", opt_in="new"))
    for n, card in enumerate(_used_cards(facts)[::3]):
        for category in (f"new{n}", *CATEGORIES):
            new = {"product": f"new{n}", "category": category, "quantity": "3", "discount": "1.50"}
            facts["shop"].append(sale(at, card, "777.77", recorded_at=known, **new))
    for n in range(0, 60, 3):
        email = f"person{n}@shop.example"
        facts["web"].append(click(at, email=email, type="coupon_redeemed", campaign="m0", recorded_at=known))
        facts["desk"].append(call(at, email, f"new{n}", recorded_at=known))
        facts["site"].append(page(at, email, recorded_at=known))
    return facts


def _removed(facts: Facts) -> Facts:
    """Nothing is known at or after the boundary."""
    return {name: [row for row in rows if known_at(name, row) < BOUNDARY] for name, rows in facts.items()}


def _changed(facts: Facts) -> Facts:
    """What is known at or after the boundary is another story: altered values, late events, revisions, merges."""
    cards, before = _used_cards(facts), _removed(facts)
    for name, rows in facts.items():
        for n, row in enumerate(row for row in rows if known_at(name, row) >= BOUNDARY):
            if name == "shop":
                row |= {
                    "amount": "999.99",
                    "card": cards[n % len(cards)],
                    "email": "",
                    "device": "",
                    "product": "other",
                }
            elif name == "crm":
                row |= {"card": cards[n % len(cards)], "email": "everyone@shop.example", "city": "Elsewhere"}
            elif name == "web":
                row |= {"user": {"email": f"person{n % 60}@shop.example"}, "campaign": "other"}
            elif name in ("desk", "site"):
                row |= {"email": f"person{n % 60}@shop.example", "kind": "other"}
    for n, row in enumerate(before["shop"][::5]):  # revised later, some in the very instant of the boundary
        facts["shop"].append({**row, "amount": "123.45", "cancelled": "true", "recorded_at": BOUNDARY + n % 3 * DAY})
    for n, card in enumerate(cards):  # late, and in the future
        facts["shop"].append(
            sale(BOUNDARY - timedelta(days=n * 3, hours=1), card, "55.00", recorded_at=BOUNDARY + n * TICK)
        )
        facts["shop"].append(sale(BOUNDARY + timedelta(days=n), card, "66.00"))
    for one, other in zip(cards[::2], cards[1::2], strict=False):  # they merge, some in the very instant
        facts["crm"] += [record(BOUNDARY, card, f"{one}@pair.example", first_name="Merged") for card in (one, other)]
    for n in range(0, 58, 4):
        at = BOUNDARY + n % 8 * DAY
        facts["web"] += [click(at, "one-device-for-two", f"person{m}@shop.example", recorded_at=at) for m in (n, n + 1)]
    return _extras(facts, BOUNDARY)


def _paired(facts: Facts, *, one_card: bool = False, known: datetime = BOUNDARY - TICK) -> Facts:
    """Pairs of cards turn out to be one person a moment before the boundary; or it had one card all along."""
    cards = _used_cards(facts)
    for one, other in zip(cards[:20:2], cards[1:20:2], strict=True):
        facts["crm"] += [record(known, card, f"{one}@pair.example") for card in (one, other)]
        for row in facts["shop"]:
            if one_card and row["card"] == other:
                row["card"] = one
    return facts


def _shuffled(facts: Facts) -> Facts:
    """The same facts in files of another order."""
    rng = np.random.default_rng(1)
    return {name: [rows[i] for i in rng.permutation(len(rows))] for name, rows in facts.items()}


def _edges(facts: Facts) -> Facts:
    """For each task, people who bought once, in the first or last instant of the horizon or just outside of it."""
    rows = Facts(shop=[sale(START, "FIRST")], crm=[], web=[], mail=[], desk=[], site=[])
    for key, (origin, name) in TASKS.items():
        task = discovered(origin).tasks[name]
        start = label_cutoff(task)
        end = start + task.horizon
        moments = {"IN1": start, "IN2": end - TICK, "OUT1": start - TICK, "OUT2": end, "LATE": start}
        for case, at in moments.items():
            known, card = BOUNDARY if case == "LATE" else BOUNDARY - TICK, _edge_card(case, key)
            for category in CATEGORIES:  # whichever of them the task asks about
                rows["shop"].append(sale(at, card, recorded_at=known, category=category))
            if name in OF_SEVERAL:  # the other two months
                first = 0 if case in ("IN2", "OUT2") else 1
                rows["shop"] += [sale(start + (30 * m + 15) * DAY, card) for m in (first, first + 1)]
        rows["crm"] += [record(START, _edge_card(case, key)) for case in [*moments, "NONE"]]
    return rows


def _edge_card(case: str, key: str) -> str:
    return f"{case}{key}".upper().replace("@", "").replace("_", "")


ALTERED: dict[str, Callable[[Facts], Facts]] = {
    "base": lambda facts: facts,
    "again": lambda facts: facts,
    "removed": _removed,
    "changed": _changed,
    "shuffled": _shuffled,
    "at_boundary": lambda facts: _extras(facts, BOUNDARY),
    "just_before": lambda facts: _extras(facts, BOUNDARY - TICK),
    "happens_at_boundary": lambda facts: _extras(facts, BOUNDARY - TICK, happened=BOUNDARY),
    "paired": _paired,
    "one_card": lambda facts: _paired(facts, one_card=True),
    "edges": _edges,
}
LATER = ("removed", "changed", "at_boundary")  # differ from "base" only in what is known at or after the boundary


# The law itself.


def assert_same(left: pd.DataFrame, right: pd.DataFrame, exact: frozenset[str] = frozenset()) -> None:
    """The same rows in the same order: whole numbers, text and the columns `exact` exactly, other floats to 1e-9."""
    assert list(left.columns) == list(right.columns)
    assert len(left) == len(right), f"{len(left)} rows, then {len(right)}"
    for column in left.columns:
        one, other = left[column], right[column]
        assert one.dtype == other.dtype, column
        assert (one.isna() == other.isna()).all(), f"{column}: known in one, unknown in the other"
        one, other = one[one.notna()], other[other.notna()]
        if one.dtype.kind == "f" and column not in exact:
            differs = (one - other).abs() > 1e-9 * one.abs().clip(lower=1)
        else:
            differs = one != other
        assert not differs.any(), f"{column}: {one[differs].head(3).tolist()}, then {other[differs].head(3).tolist()}"


def assert_time_safe(
    build_rows: Callable[[Lake], pd.DataFrame], base: Lake, altered: Mapping[str, Lake],
    exact: frozenset[str] = frozenset(), least: int = 10,
) -> None:  # fmt: skip
    """`build_rows` gives the same rows on `base` and on lakes that differ in what was not to be known."""
    expected = build_rows(base)
    assert len(expected) > least, "too few rows to prove anything"
    for name, lake in altered.items():
        try:
            assert_same(expected, build_rows(lake), exact)
        except AssertionError as error:
            raise AssertionError(f"lake {name!r}: {error}") from None


def features_at(project: Project, view: FeatureView, cutoff: datetime) -> pd.DataFrame:
    with session(project) as con:
        return con.execute(build.rows_at(con, project, view, cutoff)).df()


def labels_at(project: Project, task: PredictionTask, cutoff: datetime) -> pd.DataFrame:
    if isinstance(task.label, Enters):
        build.build(project, dataset.asked_views(project, task), [cutoff])
    with session(project) as con:
        return dataset.labels_at(con, project, task, cutoff)


def label_cutoff(task: PredictionTask) -> datetime:
    """The cutoff of a label that is complete at the boundary."""
    return BOUNDARY - task.horizon - task.settle


def exact_features(project: Project, view: FeatureView) -> frozenset[str]:
    """The features that are counts or money."""
    sources = dict(project.definitions.sources)
    facts = seen(view, sources)
    kinds = {n: aggregate(facts, n, e, what=view.name, where="").type() for n, e in view.features.items()}
    return frozenset(n for n, kind in kinds.items() if kind.is_integer() or kind.is_decimal())


# Features and populations.


def test_the_small_shop_feeds_every_standard_view_and_task() -> None:
    """A view or task without facts would pass every law here; give the small shop a source for it."""
    assert {o: discovered(o).idle for o in ORIGINS} == {o: {} for o in ORIGINS}


@every_view
def test_features_ignore_what_was_known_later(lakes: Lakes, origin: str, name: str) -> None:
    base = lakes.get("base", origin)
    exact = exact_features(base, base.definitions.view(name))
    assert_time_safe(
        lambda lake: lakes.features(lake, origin, name, BOUNDARY), "base", {lake: lake for lake in LATER}, exact
    )


@every_task
def test_populations_ignore_what_was_known_later(lakes: Lakes, origin: str, name: str) -> None:
    def rows(project: Project) -> pd.DataFrame:
        dataset.build_for(project, [project.definitions.task(name)], [BOUNDARY])
        with session(project) as con:
            found = dataset.population(con, project, project.definitions.task(name), BOUNDARY)
        return pd.DataFrame({"profile_id": found})

    later = {lake: lakes.get(lake, origin) for lake in LATER}
    assert_time_safe(rows, lakes.get("base", origin), later, least=3 if name in RARE else 10)


@every_view
def test_a_fact_known_a_microsecond_before_the_cutoff_is_seen(lakes: Lakes, origin: str, name: str) -> None:
    before, after = (lakes.features(lake, origin, name, BOUNDARY) for lake in ("base", "just_before"))
    with pytest.raises(AssertionError):
        assert_same(before, after)


@every_view
def test_a_fact_that_happens_at_the_cutoff_is_not_seen(lakes: Lakes, origin: str, name: str) -> None:
    before = lakes.features("base", origin, name, BOUNDARY)
    entity = before.columns[0]

    def rows(lake: str) -> pd.DataFrame:  # an identifier first met in such a fact is a profile; leave it out
        found = lakes.features(lake, origin, name, BOUNDARY)
        return found[found[entity].isin(before[entity])].reset_index(drop=True)

    assert_time_safe(rows, "base", {"happens at T": "happens_at_boundary"})


@every_profile_view
def test_links_found_after_the_cutoff_do_not_reach_features(lakes: Lakes, origin: str, name: str) -> None:
    assert_time_safe(lambda lake: lakes.features(lake, origin, name, BOUNDARY - TICK), "base", {"paired": "paired"})
    paired, base = (lakes.features(lake, origin, name, BOUNDARY) for lake in ("paired", "base"))
    assert len(paired) == len(base) - 10


@every_view
def test_builds_agree_whatever_the_order_and_the_other_cutoffs(lakes: Lakes, origin: str, name: str) -> None:
    base = lakes.get("base", origin)
    view = base.definitions.view(name)
    exact = exact_features(base, view)

    def rows(lake: str) -> pd.DataFrame:
        others = [BOUNDARY + 40 * DAY, BOUNDARY - 40 * DAY] if lake == "again" else []
        return lakes.built(lake, origin, name, *others, BOUNDARY)

    assert_time_safe(rows, "base", {"other cutoffs": "again", "shuffled": "shuffled"}, exact)
    assert_same(rows("base"), features_at(base, view, BOUNDARY), exact)  # asked alone


@every_profile_view
def test_profiles_without_facts_get_the_empty_row(lakes: Lakes, origin: str, name: str) -> None:
    project = lakes.get("base", origin)
    view, owner = project.definitions.view(name), profiles_at(project, BOUNDARY)
    rows = lakes.features("base", origin, name, BOUNDARY).set_index("profile_id")
    active = {
        owner[identifiers(source.name, row)[0]]
        for source in players(view.source, project.definitions.sources)
        for row in lakes.facts[source.name]
        if known_at(source.name, row) < BOUNDARY and row.get("sold_at", START) < BOUNDARY
    }
    assert set(rows.index) == set(owner.values())
    if view.facts_of == "account":  # what colleagues did counts
        with session(project) as con:
            people = con.execute(f"SELECT account_id, profile_id FROM ({accounts.members_at(BOUNDARY)})").df()
        companies = people.loc[people["profile_id"].isin(active), "account_id"]
        active = set(people.loc[people["account_id"].isin(companies), "profile_id"])
    empty = rows.loc[~rows.index.isin(active), list(view.features)]
    assert len(empty) > 3
    assert len(empty.drop_duplicates()) == 1
    counts = [f for f, kind in build.types(view, dict(project.definitions.sources)).items() if kind == "int64"]
    assert (empty[counts] == 0).all().all()


# Labels.


@every_task
def test_labels_ignore_what_was_known_after_they_settled(lakes: Lakes, origin: str, name: str) -> None:
    base = lakes.get("base", origin)
    task = base.definitions.task(name)
    altered = {lake: lakes.get(lake, origin) for lake in (*LATER, "shuffled")}
    assert_time_safe(lambda p: labels_at(p, task, label_cutoff(task)), base, altered, frozenset({"label", "weight"}))


@every_task_about_orders
def test_labels_see_the_whole_horizon_and_only_it(lakes: Lakes, origin: str, name: str) -> None:
    project = lakes.get("edges", origin)
    task, cutoff = project.definitions.task(name), label_cutoff(project.definitions.task(name))
    owner = profiles_at(project, cutoff)
    label = labels_at(project, task, cutoff).set_index("profile_id")["label"]
    found = {
        case: label[owner[f"loyalty_card:{_edge_card(case, f'{name}@{origin}')}"]]
        for case in ("IN1", "IN2", "OUT1", "OUT2", "LATE", "NONE")
    }
    if isinstance(task.label, Until):
        tick = 1 / 86_400 / 1000
        assert [found["IN1"], found["IN2"]] == pytest.approx([0.0, task.horizon / DAY], abs=tick)
    else:
        assert found["IN1"] == found["IN2"]
        assert found["IN1"] != found["NONE"]
    assert found["OUT1"] == found["OUT2"] == found["LATE"] == found["NONE"]


@every_task
def test_labels_count_what_was_done_under_identifiers_linked_later(lakes: Lakes, origin: str, name: str) -> None:
    """Two cards linked between T and L give both profiles of T the label of one card used for everything."""
    paired, one_card = lakes.get("paired", origin), lakes.get("one_card", origin)
    task, cutoff = paired.definitions.task(name), label_cutoff(paired.definitions.task(name))
    cards = _used_cards(lakes.facts)[:20]
    owner, truth = profiles_at(paired, cutoff), profiles_at(one_card, cutoff)
    rows = labels_at(paired, task, cutoff).set_index("profile_id")
    true = labels_at(one_card, task, cutoff).set_index("profile_id")["label"]
    checked = 0
    for one, other in zip(cards[::2], cards[1::2], strict=True):
        pair = (f"loyalty_card:{one}", f"loyalty_card:{other}")
        nodes = [node for node in pair if owner.get(node) in rows.index]
        if truth.get(pair[0]) not in true.index or not nodes:
            continue
        found = rows.loc[[owner[node] for node in nodes]]
        assert (found["label"] == true[truth[pair[0]]]).all()
        assert found["person"].nunique() == 1
        assert len(nodes) == 1 or (found["weight"] <= 0.5).all()
        checked += len(nodes) == 2
    assert checked > 3
    if f"{name}@{origin}" in BUYING:
        alone = labels_at(lakes.get("base", origin), task, cutoff).set_index("profile_id")["label"]
        assert (rows["label"] != alone).any(), "the links changed no label: the test proves nothing"


@every_task
@pytest.mark.parametrize("lake", ["base", "paired", "changed"])
def test_profiles_that_became_one_person_share_one_weight(lakes: Lakes, origin: str, name: str, lake: str) -> None:
    project = lakes.get(lake, origin)
    task, cutoff = project.definitions.task(name), label_cutoff(project.definitions.task(name))
    facts = ALTERED[lake](deepcopy(lakes.facts))
    then, later = components(facts, cutoff), components(facts, BOUNDARY)
    owner = profiles_at(project, cutoff)
    assert owner.keys() == then.keys()
    rows = labels_at(project, task, cutoff).set_index("profile_id")
    profile = {part: {owner[node] for node in part} for part in set(then.values())}
    assert all(len(ids) == 1 for ids in profile.values())
    if isinstance(task.label, Enters):  # its rows are the population's
        assert 10 < len(rows) < len(profile)
    else:
        assert set(rows.index) == set(owner.values())
        assert len(rows) == len(profile)
    for person in set(later.values()):
        parts = {then[node] for node in person if node in then}
        if parts:
            ids = [next(iter(profile[part])) for part in parts]
            members = rows.loc[[p for p in ids if p in rows.index]]
            if members.empty:
                continue
            assert members["person"].nunique() == 1
            assert members["label"].nunique() == 1
            assert np.allclose(members["weight"], 1 / len(parts), atol=1e-12, rtol=0)
    assert not rows["split"].any()


@every_task
def test_a_label_is_never_unknown(lakes: Lakes, origin: str, name: str) -> None:
    project = lakes.get("base", origin)
    task, cutoff = project.definitions.task(name), label_cutoff(project.definitions.task(name))
    rows = labels_at(project, task, cutoff).set_index("profile_id")
    assert rows.notna().all().all()
    if kind_of(task, project.definitions.sources) == "probability":
        assert set(rows["label"]) == {0.0, 1.0}
    if isinstance(task.label, Enters):
        return
    later = components(lakes.facts, BOUNDARY)
    buyers = {later[identifiers("shop", row)[0]] for row in lakes.facts["shop"] if known_at("shop", row) < BOUNDARY}
    idle = {p for node, p in profiles_at(project, cutoff).items() if later[node] not in buyers}
    assert idle
    if name == "churn":
        assert (rows.loc[sorted(idle), "label"] == 1).all()
    if name == "clv":
        assert (rows.loc[sorted(idle), "label"] == 0).all()


@every_task
def test_a_label_without_any_facts_is_refused(tmp_path: Path, origin: str, name: str) -> None:
    """Over an empty table everybody would have left."""
    project, task = make_shop(tmp_path / "p", facts=Facts(crm=[record(START, "CARD1")])), discovered(origin).tasks[name]
    with pytest.raises(DataError, match="facts are loaded; run `foretell load` first"):
        labels_at(project, task, label_cutoff(task))


# The whole way, through Feast.


def test_training_sets_ignore_what_was_known_after_they_settled(lakes: Lakes) -> None:
    """Populations, features and labels are checked above for every task; Feast's join is the same for all of them."""

    def rows(project: Project) -> pd.DataFrame:
        task = project.definitions.task("churn")
        return dataset.training_set(project, task, [label_cutoff(task), label_cutoff(task) - 30 * DAY])

    assert_time_safe(rows, lakes.get("base"), {"changed": lakes.get("changed")})


@pytest.fixture(scope="module")
def online(lakes: Lakes) -> tuple[Project, pd.DataFrame]:
    """Every view brought online at the boundary, after an older cutoff: (project, online rows)."""
    project = lakes.get("base")
    views = list(project.definitions.of_profiles.values())
    label = next(iter(project.definitions.tasks.values())).label
    everything = PredictionTask(
        name="everything", population="true", horizon=DAY, label=label, views=tuple(views), metric="mae", purpose="test"
    )
    build.build(project, views, [BOUNDARY - 20 * DAY, BOUNDARY])
    store = repository.apply(project, [everything])
    for cutoff in (BOUNDARY - 20 * DAY, BOUNDARY):
        repository.materialise(project, store, views, cutoff)
    service = repository.service_name(project, everything)
    profiles = sorted(set(profiles_at(project, BOUNDARY).values()))
    rows = Online(project, [service]).read([service], profiles)[service]
    return project, pd.DataFrame(rows.values(range(len(profiles))))


@pytest.mark.parametrize(
    "name", [name for origin, name in PROFILE_VIEWS.values() if origin == "standard"]
)  # one store for all views  # fmt: skip
def test_online_equals_offline(online: tuple[Project, pd.DataFrame], name: str) -> None:
    project, served = online
    view = project.definitions.view(name)
    offline = features_at(project, view, BOUNDARY)[["profile_id", *view.features]]
    found = served.set_index("profile_id").loc[offline["profile_id"], list(view.features)].reset_index()
    for feature in view.features:
        found[feature] = found[feature].astype(offline[feature].dtype)
    assert_same(offline, found, frozenset(view.features))


# Declarations.


@every_view
def test_views_pickle_and_keep_their_meaning(origin: str, name: str) -> None:
    view, sources = discovered(origin).views[name], dict(discovered(origin).sources)
    copy = pickle.loads(pickle.dumps(view))
    assert build.compile_view(copy, sources) == build.compile_view(view, sources)
    assert build.fingerprint(copy, sources) == build.fingerprint(view, sources)


@every_task
def test_tasks_pickle_and_say_what_for_and_how_far(origin: str, name: str) -> None:
    definitions = discovered(origin)
    task = definitions.tasks[name]
    copy = pickle.loads(pickle.dumps((task, definitions.views_of(task))))[0]
    assert (copy.name, copy.population, copy.view_names) == (task.name, task.population, task.view_names)
    assert task.purpose.strip()
    assert task.horizon > timedelta(0)
    assert task.settle >= timedelta(0)
    assert definitions.views_of(task)


def test_a_lookback_is_past_in_every_feature(tmp_path: Path) -> None:
    window = timedelta(days=90)
    sales = [sale(BOUNDARY - window + shift, "C1", f"{n}.00") for n, shift in enumerate([-TICK, timedelta(0), TICK], 1)]
    sales += [sale(BOUNDARY - window - TICK, "C2"), sale(BOUNDARY - TICK, "C3", recorded_at=BOUNDARY - TICK)]
    project = make_shop(tmp_path / "shop", facts={"shop": sales})

    def rows(lookback: timedelta | None, where: Any) -> list[tuple]:
        features = {"lines": _.count(where=where), "spend": _.amount.sum(where=where), "last": days_since(
            _.event_at.max(where=where)
        )}  # fmt: skip
        view = FeatureView(name="recent", source="order_line", features=features, lookback=lookback)
        with session(project) as con:
            query = build.rows_at(con, project, view, BOUNDARY)
            return con.execute(f"SELECT profile_id, lines, spend, last FROM ({query}) ORDER BY ALL").fetchall()

    found = rows(window, None)
    assert sorted(row[1] for row in found) == [0, 1, 2]
    assert found == rows(None, past(window))


# The law can fail.


def _looks_a_day_ahead(con, project, source, cutoff, known_by, lookback) -> str:
    return _FACTS_BEFORE(con, project, source, cutoff + DAY, known_by + DAY, lookback)


def _ignores_when_it_was_known(con, project, source, cutoff, known_by, lookback) -> str:
    honest = _FACTS_BEFORE(con, project, source, cutoff, known_by, lookback)
    leaky = honest.replace(f"known_at < {instant(cutoff)}", "true")
    assert leaky != honest
    return leaky


def _counts_the_cutoff_itself(con, project, source, cutoff, known_by, lookback) -> str:
    return _FACTS_BEFORE(con, project, source, cutoff + TICK, known_by + TICK, lookback)


def _todays_graph(at: datetime) -> str:
    return "SELECT node, birth_id, profile_id FROM member WHERE known_to IS NULL"


def _graph_of_the_instant_after(at: datetime) -> str:
    return members_at(at + TICK)


_FACTS_BEFORE = build.facts_before


LEAKS = [
    ("facts_before", _looks_a_day_ahead),
    ("facts_before", _ignores_when_it_was_known),
    ("facts_before", _counts_the_cutoff_itself),
    ("members_at", _todays_graph),
    ("members_at", _graph_of_the_instant_after),
]


def _known_at_once(view: FeatureView) -> bool:
    """Whether its facts are known when they happen, so that nobody can ignore when they were known."""
    sources = players(view.source, discovered("standard").sources)
    return all(s.delay == timedelta(0) and not s.known_at for s in sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "function", "leak"),
    [
        (name, function, leak)
        for origin, name in VIEWS.values()
        for function, leak in LEAKS
        if origin == "standard"
        and not (leak is _ignores_when_it_was_known and _known_at_once(discovered(origin).views[name]))
    ],
)
def test_a_leak_into_features_is_caught(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch, name: str, function: str, leak: Callable
) -> None:
    view = lakes.get("base").definitions.view(name)
    monkeypatch.setattr(build, function, leak)
    with pytest.raises(AssertionError, match="lake 'changed'"):
        assert_time_safe(lambda p: features_at(p, view, BOUNDARY), lakes.get("base"), {"changed": lakes.get("changed")})


@pytest.mark.slow
@pytest.mark.parametrize("leak", [_todays_graph, _graph_of_the_instant_after])
@every_task
def test_a_leak_into_labels_is_caught(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch, origin: str, name: str, leak: Callable
) -> None:
    base = lakes.get("base", origin)
    task = base.definitions.task(name)
    monkeypatch.setattr(labels, "members_at", leak)
    with pytest.raises(AssertionError, match="lake 'changed'"):
        assert_time_safe(
            lambda p: labels_at(p, task, label_cutoff(task)), base, {"changed": lakes.get("changed", origin)}
        )
