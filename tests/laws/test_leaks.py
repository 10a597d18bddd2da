"""Ten ways in which the future gets into a training set, each planted into the product and caught by a law.

A mistake is planted where somebody might make it: as a careless edit of a line of the product (see mistakes), or in a
contract. The law must hold without it and fail with it, for every view and task that is discovered. Where a mistake
cannot show in one, a condition says why, and the law must then hold: the reason is checked too.

The lakes are those of test_time, but for what a row has besides: each has a number, its source's `key`, so that a row
may be revised; and a row of the CRM says when it was written last (`updated_at`), which is when it was known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import test_time
from conftest import (
    CATEGORIES,
    MORE_SOURCES,
    SOURCES,
    START,
    Facts,
    Row,
    call,
    click,
    known_at,
    letter,
    load_shop,
    more_facts,
    page,
    record,
    sale,
    shop_facts,
    write_files,
)
from mistakes import Edit, Mistake, Swap, making
from test_time import (
    ALTERED,
    BOUNDARY,
    BUYING,
    DAY,
    PROFILE_VIEWS,
    TASKS,
    TICK,
    VIEWS,
    Lakes,
    assert_same,
    assert_time_safe,
    discovered,
    every_task,
    every_view,
    label_cutoff,
)

from features import build, built, labels
from features.store import repository
from foretell.binding import facts_schema, players
from foretell.declarations import Enters, PredictionTask, Source, Until
from foretell.discovery import Definitions
from foretell.errors import DataError
from foretell.project import Project
from foretell.roles import STAMPS
from foretell.views import FeatureView
from foretell.windows import attributes
from lake.engine import session
from training import backtest, champion, cutoffs, dataset, entering, season, tuning
from unification import accounts, identity, survivorship

NOW = START + timedelta(days=400)
HONEST_VERSIONS, HONEST_JOIN = survivorship.versions, dataset.with_features


def _views(which: Callable[[FeatureView, Definitions], bool]) -> dict[str, tuple[str, str]]:
    return {k: (o, n) for k, (o, n) in VIEWS.items() if which(discovered(o).views[n], discovered(o))}


def _home(origin: str, name: str) -> str:
    """Of which project a view is asked: the example's has the standard views too, unless it has replaced one."""
    one, other = (discovered(of).views.get(name) for of in (origin, "complete_journey"))
    return "complete_journey" if one and other and one.where == other.where else origin


def _of_records(view: FeatureView, known: Definitions) -> bool:
    return any(source.kind == "records" for source in players(view.source, known.sources))


# Only these can show who is in which company; only these can show what a trait says.
OF_ACCOUNTS = _views(lambda view, _: "account" in (view.entity, view.facts_of))
OF_RECORDS = _views(_of_records)
every_view_of_accounts = pytest.mark.parametrize(("origin", "name"), OF_ACCOUNTS.values(), ids=OF_ACCOUNTS)
every_view_of_records = pytest.mark.parametrize(("origin", "name"), OF_RECORDS.values(), ids=OF_RECORDS)
every_view_in_feast = pytest.mark.parametrize("name", sorted({name for _, name in PROFILE_VIEWS.values()}))


# The lakes.


def _keyed(text: str) -> str:
    return text.replace("    timezone=", '    key="number",\n    timezone=')


CARELESS = {name: _keyed(text) for name, text in {**SOURCES, **MORE_SOURCES}.items()}
HONEST = CARELESS | {"crm": CARELESS["crm"].replace("    timezone=", '    known_at="updated_at",\n    timezone=')}

# Which column of a source says when a row was known, and what it says once it has been revised.
REVISED: dict[str, tuple[str, Row]] = {
    "shop": ("recorded_at", {"amount": "321.09", "quantity": "7", "discount": "3.21", "brand": "revised",
                             "product": "revised", "category": "revised"}),
    "crm": ("updated_at", {"city": "Revised", "born": "1950-05-05", "country": "DK", "language": "da",
                           "age_group": "revised", "income": "revised", "household_size": "9", "kids": "9"}),
    "web": ("recorded_at", {"type": "coupon_redeemed", "campaign": "revised"}),
    "mail": ("sent_at", {"campaign": "revised"}),
    "desk": ("recorded_at", {"kind": "closed", "topic": "revised", "rating": "9"}),
    "site": ("recorded_at", {"kind": "track", "name": "revised"}),
}  # fmt: skip


def _numbered(facts: Facts) -> Facts:
    """Every row has its number and every row of the CRM says when it was written last."""
    for name, rows in facts.items():
        for n, row in enumerate(rows):
            row.setdefault("number", f"{name}{n}")
            if name == "crm":
                row.setdefault("updated_at", row["registered_at"])
    return facts


def _revised(facts: Facts) -> Facts:
    """Every other row known before the boundary has other values since, some from the very boundary on."""
    for name, rows in facts.items():
        column, values = REVISED[name]
        for n, row in enumerate([row for row in rows if known_at(name, row) < BOUNDARY][::2]):
            more = {"cancelled": "false" if row["cancelled"] == "true" else "true"} if name == "shop" else {}
            rows.append({**row, **values, **more, column: BOUNDARY + n % 3 * DAY})
    return facts


def _told(facts: Facts) -> Facts:
    """The CRM is told who stopped buying at the boundary: in the old row, which keeps its date of registration."""
    came = {row["card"] for row in facts["shop"] if BOUNDARY <= row["sold_at"] < BOUNDARY + 30 * DAY}
    for row in [row for row in facts["crm"] if known_at("crm", row) < BOUNDARY]:
        if row["card"].replace(" ", "").upper() not in came:
            left = {"opt_in": "no", "city": "Left", "language": "xx", "age_group": "left"}
            facts["crm"].append({**row, **left, "updated_at": BOUNDARY + 30 * DAY})
    return facts


def _known_before_it_happens(facts: Facts) -> Facts:
    """What test_time has of it, and records; what says who is in which company stays as it is."""
    facts = ALTERED["happens_at_boundary"](facts)
    for card in sorted({row["card"] for row in facts["shop"] if row["card"]})[::3]:
        told = {"city": "Soon", "language": "xx", "household_size": "9"}
        facts["crm"].append(record(BOUNDARY, card, **told) | {"updated_at": BOUNDARY - TICK})
    return facts


LAKES: dict[str, Callable[[Facts], Facts]] = {
    "base": _numbered,
    "later": lambda facts: _numbered(_told(_revised(ALTERED["changed"](facts)))),
    "happens_at_boundary": lambda facts: _numbered(_known_before_it_happens(facts)),
    "edges": lambda facts: _numbered(ALTERED["edges"](facts)),
    "records": lambda facts: _numbered({"crm": facts["crm"]}),
    "records told": lambda facts: _numbered({"crm": _told(facts)["crm"]}),
}


class AlikeLakes(Lakes):
    """Lakes of which all projects of an origin share their definitions, so that a view is compiled once."""

    def __init__(self, folder: Path, *, facts: Facts, sources: Mapping[str, str]):
        super().__init__(folder, facts=facts, sources=sources, altered=LAKES)
        self.known: dict[str, Definitions] = {}

    def get(self, name: str, origin: str = "standard") -> Project:
        project = super().get(name, origin)
        project.__dict__["definitions"] = self.known.setdefault(origin, project.definitions)
        return project


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    facts = more_facts(shop_facts())
    for n in range(0, 60, 2):  # the shop's people redeem too seldom for a month's answers to show a mistake
        at, email = BOUNDARY - (3 + n % 20) * DAY, f"person{n}@shop.example"
        facts["web"].append(click(at, email=email, type="coupon_redeemed", campaign="m1"))
    facts = _numbered(facts)
    return AlikeLakes(tmp_path_factory.mktemp("lakes"), facts=facts, sources=HONEST)


class Rows:
    """Features at the boundary and labels complete by then, of everything at once; with each mistake asked for once."""

    def __init__(self, stack: ExitStack):
        self.stack = stack
        self.made: dict[tuple, Any] = {}
        self.sessions: dict[Path, duckdb.DuckDBPyConnection] = {}

    def features(self, mistake: Mistake | None, project: Project, only: Mapping[str, tuple] = VIEWS) -> dict:
        """View -> its rows, of all that the project is asked for. only: these of them."""
        names = sorted(name for origin, name in only.values() if _home(origin, name) == _origin(project))
        return self._once(mistake, project, "features", *names, make=partial(_features, names=names))

    def labels(self, mistake: Mistake | None, project: Project) -> dict:
        """Task -> its rows."""
        names = [n for o, n in TASKS.values() if o == _origin(project)]
        for task in map(project.definitions.task, names):
            self.population(project, task, label_cutoff(task))
        return self._once(mistake, project, "labels", *names, make=partial(_labels, names=names))

    def labels_at(self, project: Project, task: PredictionTask, cutoff: datetime) -> pd.DataFrame:
        """The labels of a task at any cutoff, without a mistake."""
        if cutoff == label_cutoff(task):
            return self.labels(None, project)[task.name]
        self.population(project, task, cutoff)
        return self._once(None, project, task.name, cutoff, make=lambda con, p: dataset.labels_at(con, p, task, cutoff))

    def population(self, project: Project, task: PredictionTask, cutoff: datetime) -> None:
        """Build what says whom a task is asked about, if its label is of them alone; it is honest, and not in doubt."""
        if isinstance(task.label, Enters):
            views = dataset.population_views(project, task)
            self._once(None, project, "of " + task.name, cutoff, make=lambda _, p: build.build(p, views, [cutoff]))

    def _once(self, mistake: Mistake | None, project: Project, *what: Any, make: Callable) -> Any:
        key = (mistake, project.folder, *what)
        if key not in self.made:
            if project.folder not in self.sessions:
                accounts.ensure(project)
                self.sessions[project.folder] = self.stack.enter_context(session(project))
            with making(mistake), pytest.MonkeyPatch.context() as patch:
                patch.setattr(accounts, "ensure", lambda _: None)  # it has been, and is slow to find that out
                self.made[key] = make(self.sessions[project.folder], project)
        return self.made[key]


def _origin(project: Project) -> str:
    return "complete_journey" if project.folder.name.endswith("-complete_journey") else "standard"


def _features(con: duckdb.DuckDBPyConnection, project: Project, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    views = [project.definitions.view(name) for name in names]
    return {view.name: con.execute(query).df() for view, query in build.rows_of(con, project, views, BOUNDARY)}


def _labels(con: duckdb.DuckDBPyConnection, project: Project, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    tasks = [project.definitions.task(name) for name in names]
    return {task.name: dataset.labels_at(con, project, task, label_cutoff(task)) for task in tasks}


@pytest.fixture(scope="module")
def rows() -> Any:
    with ExitStack() as stack:
        yield Rows(stack)


# The laws of test_time, with a mistake or without, and the conditions under which one cannot show.


@pytest.fixture
def features_law(lakes: Lakes, rows: Rows, origin: str, name: str) -> Callable:
    """The features of a view are the same whatever was known later."""

    def law(mistake: Mistake | None = None, only: Mapping[str, tuple] = VIEWS) -> None:
        base, later = (lakes.get(lake, _home(origin, name)) for lake in ("base", "later"))
        assert_time_safe(lambda p: rows.features(mistake, p, only)[name], base, {"later": later})

    return law


@pytest.fixture
def start_law(lakes: Lakes, rows: Rows, origin: str, name: str) -> Callable:
    """What happens at the cutoff is not seen, though it was known before."""

    def law(mistake: Mistake | None = None) -> None:
        base, other = (lakes.get(lake, _home(origin, name)) for lake in ("base", "happens_at_boundary"))
        key = base.definitions.view(name).keys[0]
        then = rows.features(None, base)[name][key]

        def of_then(project: Project) -> pd.DataFrame:
            found = rows.features(mistake, project)[name]
            return found[found[key].isin(then)].reset_index(drop=True)

        assert_time_safe(of_then, base, {"happens at the cutoff": other})

    return law


@pytest.fixture
def labels_law(lakes: Lakes, rows: Rows, origin: str, name: str) -> Callable:
    """The labels of a task are the same whatever was known after they settled."""

    def law(mistake: Mistake | None = None) -> None:
        base, later = (lakes.get(lake, origin) for lake in ("base", "later"))
        exact = frozenset({"label", "weight"})
        assert_time_safe(lambda p: rows.labels(mistake, p)[name], base, {"later": later}, exact)

    return law


def slow(mistake: Mistake) -> Any:
    """A second mistake of a kind: as much work again, to show the same thing in another place."""
    return pytest.param(mistake, marks=pytest.mark.slow)


def caught(law: Callable[[], None], cannot: str = "") -> None:
    """The law fails; where the mistake cannot show it holds, or the reason is none."""
    if cannot:
        law()
        return
    with pytest.raises(AssertionError, match=r"^lake '|^as Feast "):
        law()


@pytest.fixture
def definitions(lakes: Lakes, origin: str) -> Definitions:
    return lakes.get("base", origin).definitions


@pytest.fixture
def sources(definitions: Definitions, name: str) -> list[Source]:
    """The sources whose facts a view is made of."""
    return players(definitions.view(name).source, definitions.sources)


@pytest.fixture
def label_sources(lakes: Lakes, definitions: Definitions, origin: str, name: str) -> list[Source]:
    """The sources whose facts a task's label is made of."""
    task = definitions.task(name)
    if not isinstance(task.label, Enters):
        return players(task.label.source, definitions.sources)
    project = lakes.get("base", origin)
    views = entering.views_of(project, entering.rule_of(project, task), task.name)
    return players(tuple(role for view in views for role in view.roles), definitions.sources)


def known_at_once(sources: list[Source]) -> str:
    late = any(source.known_at or source.delay != timedelta(0) for source in sources)
    return "" if late else "all of its facts are known when they happen"


def known_afterwards(sources: list[Source]) -> str:
    return "" if any(source.known_at for source in sources) else "none of its facts can be known before it happens"


def never_revised(sources: list[Source]) -> str:
    return "" if any(source.key for source in sources) else "none of its sources has a key: rows do not change"


def reads_no_value(definitions: Definitions, what: FeatureView | PredictionTask) -> str:
    """Of counts and dates alone: what a row says besides may change."""
    if isinstance(what, FeatureView):
        source, read, each = what.source, list(what.features.values()), what.each
    elif isinstance(what.label, Enters):
        return ""
    else:
        source, read, each = what.label.source, [what.label.value, what.label.only], None
    values = facts_schema(source, definitions.sources).keys() - STAMPS.keys()
    own = {name for expression in read for name in attributes(expression)} & values
    return "" if own or each else "it reads only when something happened, and counts"


def reach_of(task: PredictionTask) -> timedelta:
    return task.horizon + task.settle


def complete_after(apart: timedelta, task: PredictionTask) -> str:
    return "" if apart < reach_of(task) else "by then its labels are complete"


# Without a mistake the laws hold.


@every_view
def test_honest_features_pass(features_law: Callable) -> None:
    """What was known later is a revision, an outcome written back or anything of test_time's."""
    features_law()


@pytest.mark.slow  # what needs another lake is
@every_view
def test_honest_features_pass_whatever_happens_at_the_cutoff(start_law: Callable) -> None:
    start_law()


@every_task
def test_honest_labels_pass(labels_law: Callable) -> None:
    labels_law()


# 1. A late event.

LATE = Mistake(
    "late events",
    Edit(build.facts_before, "known_at < {instant(known_by)} AND ", ""),
    Edit(labels.labels_at, "f.known_at < {instant(known_by)} AND ", ""),
    Edit(survivorship.versions, " WHERE known_at < {moment} QUALIFY", " QUALIFY"),
)


@every_view
def test_1_a_late_event_among_features_is_caught(features_law: Callable, sources: list[Source]) -> None:
    """Facts are chosen by when they happened: what happened before T and was known after it counts."""
    caught(partial(features_law, LATE), known_at_once(sources))


@every_task
def test_1_a_late_event_in_a_label_of_a_task_is_caught(labels_law: Callable, label_sources: list[Source]) -> None:
    """The label waits for late facts as long as there are any, not until it has settled."""
    caught(partial(labels_law, LATE), known_at_once(label_sources))


# 2. A revised value.

_OF_ROW = "OVER (PARTITION BY coalesce(row_key, fact_id))"
LAST_VERSION = Mistake(
    "last version ever", Edit(survivorship.versions, " WHERE known_at < {moment} QUALIFY", " QUALIFY")
)
LAST_VALUE = Mistake(
    "last value under the first stamps",
    Edit(
        survivorship.versions,
        'SELECT * FROM "{source.name}" WHERE known_at < {moment} QUALIFY',
        f"""SELECT * REPLACE (min(known_at) {_OF_ROW} AS known_at, min(event_at) {_OF_ROW} AS event_at)
            FROM "{{source.name}}" QUALIFY""",
    ),
)


@pytest.mark.slow
@every_view
def test_2_a_row_that_will_be_revised_is_missing_among_features(features_law: Callable, sources: list[Source]) -> None:
    """The last version of a row is looked for, then whether it was known at T: what will be revised is not seen."""
    caught(partial(features_law, LAST_VERSION), never_revised(sources))


@every_view
def test_2_a_revised_value_among_features_is_caught(
    features_law: Callable, sources: list[Source], definitions: Definitions, name: str
) -> None:
    """Rows are overwritten: the last value is taken for one that was known since the row first was."""
    cannot = never_revised(sources) or reads_no_value(definitions, definitions.view(name))
    caught(partial(features_law, LAST_VALUE), cannot)


@pytest.mark.slow
@every_task
def test_2_a_row_that_will_be_revised_is_missing_in_a_label_of_a_task(
    labels_law: Callable, label_sources: list[Source]
) -> None:
    """The same in a label, of what was revised after it settled."""
    caught(partial(labels_law, LAST_VERSION), never_revised(label_sources))


@pytest.mark.slow
@every_task
def test_2_a_revised_value_in_a_label_of_a_task_is_caught(
    labels_law: Callable, label_sources: list[Source], definitions: Definitions, name: str
) -> None:
    """The same in a label, of what was revised after it settled."""
    cannot = never_revised(label_sources) or reads_no_value(definitions, definitions.task(name))
    caught(partial(labels_law, LAST_VALUE), cannot)


# 3. An overlapping label.

TOO_NEAR = Mistake("a step too near", Edit(cutoffs.plan, "before(place + away)", "before(place + away - 1)"))
STEP_APART = Mistake("a step apart", Edit(cutoffs.plan, "before(place + away)", "before(place + 1)"))


@pytest.fixture
def overlap_law(lakes: Lakes, rows: Rows, origin: str, name: str) -> Callable:
    """What is learned from is the same whatever was known from the exam on."""

    def law(mistake: Mistake | None = None) -> None:
        def learned(project: Project) -> pd.DataFrame:
            task = project.definitions.task(name)
            with making(mistake):
                ahead = NOW - cutoffs.plan(task, NOW, START, 1).folds[-1].judged
                (fold,) = cutoffs.plan(task, BOUNDARY + ahead, START, 1).folds
            assert fold.judged == BOUNDARY
            return rows.labels_at(project, task, fold.training[-1])  # the latest reaches farthest

        assert_time_safe(learned, lakes.get("base", origin), {"later": lakes.get("later", origin)})

    return law


@pytest.fixture
def complete_law(lakes: Lakes, rows: Rows, origin: str, name: str) -> Callable:
    """What is judged, and what the champion is fitted on at last, is the same whatever is known from now on."""

    def law(mistake: Mistake | None = None) -> None:
        def latest(project: Project) -> pd.DataFrame:
            task = project.definitions.task(name)
            with making(mistake):
                planned = cutoffs.plan(task, BOUNDARY, START, 1)
            return rows.labels_at(project, task, max(planned.all))

        assert_time_safe(latest, lakes.get("base", origin), {"later": lakes.get("later", origin)})

    return law


@every_task
@pytest.mark.parametrize("mistake", [TOO_NEAR, slow(STEP_APART)], ids=str)
def test_3_a_training_label_that_reaches_into_the_exam_is_caught(
    overlap_law: Callable, mistake: Mistake, definitions: Definitions, name: str
) -> None:
    """The latest training cutoff is so near to the exam that its label is made of facts known after it."""
    task = definitions.task(name)
    step = cutoffs.step_of(task)
    apart = -(-reach_of(task) // step) * step - step if mistake is TOO_NEAR else step
    overlap_law()
    caught(partial(overlap_law, mistake), complete_after(apart, task))


@every_task
def test_3_a_label_that_reaches_beyond_now_is_caught(
    complete_law: Callable, definitions: Definitions, name: str
) -> None:
    """The latest exam lies a horizon ago: its label is judged before late facts have come in."""
    task = definitions.task(name)
    at_once = Mistake("judged at once", Edit(cutoffs.plan, "now - reach", "now - task.horizon"))
    complete_law()
    caught(partial(complete_law, at_once), complete_after(task.horizon, task))


def handed_law(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every exam candidates learn from rows whose labels are complete by then, all of them."""
    task = project.definitions.task(name)
    begins, handed = project.now - 20 * reach_of(task), []
    crowd = pd.DataFrame({"profile_id": [f"p{i}" for i in range(20)], "label": np.arange(20.0) % 2})
    columns = dataset.feature_columns(project, task)

    def training_set(project: Project, task: PredictionTask, moments: Iterable[datetime], **_: Any) -> pd.DataFrame:
        made = crowd.merge(pd.DataFrame({"cutoff": [pd.Timestamp(m) for m in sorted(set(moments))]}), how="cross")
        made = made.assign(weight=1.0, person=made["profile_id"], split=False)
        return made.reindex(columns=[*made.columns, *columns], fill_value=0.0)

    def fit(estimator: Any, rows: pd.DataFrame, *_: Any) -> Any:
        handed.append(frozenset(rows["cutoff"]))
        raise DataError("test", "that will do")

    asked = crowd.drop(columns="label").reindex(columns=["profile_id", *columns], fill_value=0.0)
    monkeypatch.setattr(dataset, "training_set", training_set)
    monkeypatch.setattr(dataset, "eligible", lambda *_: asked.assign(cutoff=pd.Timestamp(project.now)))
    monkeypatch.setattr(dataset, "first_fact", lambda *_: begins)
    monkeypatch.setattr(season, "levels", lambda *_: {})
    monkeypatch.setattr(backtest, "fit", fit)
    with pytest.raises(DataError, match="no candidate could be fitted"):
        champion.contest(project, name, trials=0)
    planned = cutoffs.plan(task, project.now, begins, project.setting("cutoffs"), project.setting("folds"))
    assert list(dict.fromkeys(handed)) == [frozenset(map(pd.Timestamp, fold.training)) for fold in planned.folds]
    for learned, fold in zip(dict.fromkeys(handed), planned.folds, strict=True):
        assert max(learned) + reach_of(task) <= pd.Timestamp(fold.judged)


@every_task
def test_3_learning_from_the_rows_that_are_judged_is_caught(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch, origin: str, name: str
) -> None:
    """The training set holds the cutoffs of all exams, and candidates are given all of it."""
    project = lakes.get("base", origin)
    handed_law(project, name, monkeypatch)
    everything = Edit(backtest._sit, 'usable(rows[rows["cutoff"].isin(fold.training)])', "usable(rows)")
    with Mistake("all rows", everything).made(), pytest.raises(AssertionError, match=r"^assert"):
        handed_law(project, name, monkeypatch)


def parted_law(task: PredictionTask, wanted: int) -> None:
    """What a trial learns from had settled when it is judged, or is of other persons than those it is judged on."""
    moments = cutoffs.plan(task, NOW, NOW - 20 * reach_of(task), wanted).folds[-1].training
    crowd = pd.DataFrame({"person": [f"p{i}" for i in range(50)]})
    rows = crowd.merge(pd.DataFrame({"cutoff": [pd.Timestamp(moment) for moment in moments]}), how="cross")
    for learn, judge in tuning._parted(task, "probability", rows, []).folds:
        learned, judged = rows.iloc[learn], rows.iloc[judge]
        settled = learned["cutoff"].max() + reach_of(task) <= judged["cutoff"].min()
        assert settled or set(learned["person"]).isdisjoint(judged["person"])
        assert len(learned)
        assert len(judged)


@every_task
def test_3_a_trial_that_learns_what_it_is_judged_on_is_caught(definitions: Definitions, name: str) -> None:
    """Parameters are chosen by a label that overlaps with those that were learned from."""
    task, lies = definitions.task(name), pytest.raises(AssertionError, match=r"^assert")
    parted_law(task, 6)
    parted_law(task, 1)
    older = Edit(tuning._parted, "[c for c in cutoffs[:-1] if c + reach <= latest]", "cutoffs[:-1]")
    complete = complete_after(cutoffs.step_of(task), task)
    with Mistake("all older cutoffs", older).made(), nullcontext() if complete else lies:
        parted_law(task, 6)
    persons = Edit(tuning._parted, "older & (group != fold)", "older")
    with Mistake("the same persons", persons).made(), lies:
        parted_law(task, 1)


@every_task
def test_3_a_training_set_whose_labels_are_not_complete_is_refused(
    lakes: Lakes, rows: Rows, monkeypatch: pytest.MonkeyPatch, origin: str, name: str
) -> None:
    """A cutoff so late that its label has not settled: who has not come yet is taken for one that stayed away."""
    project = lakes.get("base", origin)
    task = project.definitions.task(name)
    everyone = rows.labels(None, project)[name]["profile_id"].tolist()
    monkeypatch.setattr(dataset, "build_for", lambda *_: 0)  # neither features nor the population are asked about here
    monkeypatch.setattr(dataset, "_may_be_used", lambda *_: (everyone, 0))
    monkeypatch.setattr(entering, "inside_at", lambda *_: set())
    monkeypatch.setattr(dataset, "with_features", lambda project, task, rows: rows)
    with pytest.raises(DataError):
        dataset.training_set(project, task, [project.now - task.horizon - task.settle + TICK])


# 4. A future merge.

GRAPH_OF_TODAY = Mistake("graph of today", Edit(identity.members_at, "moment = instant(at)", 'moment = "now()"'))
NAMES_OF_TODAY = Mistake(
    "names of today",
    Edit(
        identity.members_at,
        "SELECT node, birth_id, profile_id FROM {table} ",
        "SELECT node, birth_id, (SELECT max(latest.profile_id) FROM {table} latest "
        "WHERE latest.node = {table}.node AND latest.known_to IS NULL) AS profile_id FROM {table} ",
    ),
)
COMPANIES = Mistake("todays companies", Edit(accounts.members_at, "moment = instant(at)", 'moment = "now()"'))


@every_view
@pytest.mark.parametrize("mistake", [GRAPH_OF_TODAY, slow(NAMES_OF_TODAY)], ids=str)
def test_4_a_future_merge_among_features_is_caught(features_law: Callable, mistake: Mistake) -> None:
    """Profiles are those of today, or bear today's ids: who was found to be whom after T is known at T."""
    caught(partial(features_law, mistake))


@every_view_of_accounts
def test_4_a_company_that_was_joined_later_is_caught(features_law: Callable) -> None:
    """Who belongs to which company is asked as of today."""
    caught(partial(features_law, COMPANIES, OF_ACCOUNTS))


@pytest.mark.slow
@every_task
@pytest.mark.parametrize("mistake", [GRAPH_OF_TODAY, NAMES_OF_TODAY], ids=str)
def test_4_a_future_merge_in_a_label_of_a_task_is_caught(labels_law: Callable, mistake: Mistake) -> None:
    """The label is of the persons of today, and not of those known when it settled."""
    caught(partial(labels_law, mistake))


# 5. A tie at T.

KNOWN_AT_T = Mistake(
    "known at T",
    Edit(build.facts_before, "known_at < ", "known_at <= "),
    Edit(labels.labels_at, "f.known_at < ", "f.known_at <= "),
    Edit(survivorship.versions, "known_at < ", "known_at <= "),
)
HAPPENS_AT_T = Mistake("happens at T", Edit(build.facts_before, "event_at < {moment}", "event_at <= {moment}"))
MET_AT_T = Mistake("met at T", Edit(identity.members_at, "known_from < ", "known_from <= "))
JOINED_AT_T = Mistake("joined at T", Edit(accounts.members_at, "known_from < ", "known_from <= "))


@every_view
@pytest.mark.parametrize("mistake", [KNOWN_AT_T, slow(MET_AT_T)], ids=str)
def test_5_a_tie_among_features_is_caught(features_law: Callable, mistake: Mistake) -> None:
    """What was known in the very instant T counts as known before it: facts, or whose they are."""
    caught(partial(features_law, mistake))


@pytest.mark.slow
@every_view
def test_5_a_fact_that_happens_at_the_cutoff_is_caught(start_law: Callable, sources: list[Source]) -> None:
    """What happens in the very instant T, and was known before, counts as if it had happened."""
    caught(partial(start_law, HAPPENS_AT_T), known_afterwards(sources))


@every_view_of_accounts
def test_5_a_company_joined_at_the_cutoff_is_caught(features_law: Callable) -> None:
    """Who joined a company in the very instant T counts as one of it."""
    caught(partial(features_law, JOINED_AT_T, OF_ACCOUNTS))


@pytest.mark.slow
@every_task
@pytest.mark.parametrize("mistake", [KNOWN_AT_T, MET_AT_T], ids=str)
def test_5_a_tie_in_a_label_of_a_task_is_caught(labels_law: Callable, mistake: Mistake) -> None:
    """What was known in the very instant in which a label settles counts, or links persons."""
    caught(partial(labels_law, mistake))


@pytest.mark.parametrize(("origin", "name"), BUYING.values(), ids=BUYING)
@pytest.mark.slow
def test_5_a_fact_that_happens_when_the_horizon_of_a_task_ends_is_caught(lakes: Lakes, origin: str, name: str) -> None:
    """What happens in the very instant T + horizon counts as if it had happened within it."""
    law = partial(test_time.test_labels_see_the_whole_horizon_and_only_it, lakes, origin, name)
    ends = Edit(labels.labels_at, "f.event_at < {end}", "f.event_at <= {end}")
    waits = isinstance(discovered(origin).tasks[name].label, Until)  # a whole horizon, then and without
    lies = pytest.raises(AssertionError, match=r"^assert")
    with Mistake("happens at the end", ends).made(), nullcontext() if waits else lies:
        law()


# 6 to 9 are about rows that were built, and joined: a project whose rows at one of two cutoffs have been patched.


class Store:
    """Every profile view as a training set has it from Feast, asked for at times between and beside two cutoffs.

    What was known before the second cutoff, and loaded after it was built, touches a few profiles: their rows are
    patched. Loaded with it is what was known later: it touches none.
    """

    def __init__(self, folder: Path, lakes: Lakes):
        shutil.copytree(lakes.get("base").folder, folder)
        test_time._copy_definitions("complete_journey", folder)
        self.project = Project(folder)
        self.project.__dict__["definitions"] = lakes.get("base", "complete_journey").definitions
        self.views = dict(sorted(self.project.definitions.of_profiles.items()))  # in the order in which Rows has them
        lives = {view.ttl for view in self.views.values()}
        self.cutoffs = [BOUNDARY - max(lives) - 10 * DAY, BOUNDARY]
        shifts = {-TICK, timedelta(0), *lives, *(life + TICK for life in lives)}
        self.times = sorted(cutoff + shift for cutoff in self.cutoffs for shift in shifts)
        label = next(iter(self.project.definitions.tasks.values())).label
        self.task = PredictionTask(
            name="everything", population="orders_365d >= 0", horizon=DAY, label=label, views=tuple(self.views),
            metric="mae", purpose="test",
        )  # fmt: skip
        self.files, self.first, self.patched = (folder / name for name in (".foretell/features", "first", "patched"))
        build.build(self.project, self.views.values(), self.cutoffs)
        shutil.copytree(self.files, self.first)
        news = _news(lakes.facts)
        write_files(folder, news, "news")
        load_shop(self.project, news)
        build.build(self.project, self.views.values(), self.cutoffs[-1:])
        shutil.copytree(self.files, self.patched)
        with session(self.project) as con:
            views, (first, last) = self.views.values(), self.cutoffs
            self.then = [
                {v.name: con.execute(f"FROM {built.read(self.project, v, first)}").df() for v in views},
                {v.name: con.execute(query).df() for v, query in build.rows_of(con, self.project, views, last)},
            ]
            everyone = con.execute(f"FROM read_parquet('{built.profiles_file(self.project, last)}')").df()
        some = next(iter(self.views))
        profiles = sorted({profile for rows in self.then for profile in rows[some]["profile_id"]})
        self.gone = everyone.loc[everyone["gone"], "profile_id"].tolist()
        pairs = pd.MultiIndex.from_product([profiles, pd.to_datetime(self.times)], names=["profile_id", "cutoff"])
        self.asked = pairs.to_frame(index=False)
        self.asked["event_timestamp"] = self.asked["cutoff"]
        self.made: dict[Mistake | None, pd.DataFrame] = {}
        honestly = dataset.with_features(self.project, self.task, self.asked)
        self.made[None] = honestly
        self.said = honestly.rename(columns={"cutoff": "event_timestamp"})

    def expected(self, name: str) -> pd.DataFrame:
        """For each row that is asked for the last one of then that is not older than the view's ttl, nulls without."""
        view, parts = self.views[name], []
        for at, rows in self.asked[["profile_id", "cutoff"]].groupby("cutoff"):
            last = [then for c, then in zip(self.cutoffs, self.then, strict=True) if c <= at <= c + view.ttl]
            found = last[-1][name] if last else self.then[0][name].head(0)
            parts.append(rows.merge(found[["profile_id", *view.features]], how="left", on="profile_id"))
        return _plain(pd.concat(parts), view)

    def served(self, name: str, joined: Mistake | None = None, patched: Mistake | None = None) -> pd.DataFrame:
        """What Feast says with a mistake made while it is asked, or when the patches were written."""
        if (joined or patched) not in self.made:
            if patched:
                self._restore(self.first)
                with patched.made():
                    build.build(self.project, self.views.values(), self.cutoffs[-1:])
            with making(joined), pytest.MonkeyPatch.context() as patch:
                if joined and all(change.function is HONEST_JOIN for change in joined.changes):  # of what Feast says
                    patch.setattr(repository, "apply", lambda *_: None)
                    patch.setattr(repository, "historical", lambda *_: self.said.copy())
                self.made[joined or patched] = dataset.with_features(self.project, self.task, self.asked)
            if patched:
                self._restore(self.patched)
        return _plain(self.made[joined or patched], self.views[name])

    def _restore(self, folder: Path) -> None:
        shutil.rmtree(self.files)
        shutil.copytree(folder, self.files)

    def _of_known(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Without rows of profiles that were no more at their time: nobody asks for them."""
        gone = rows["profile_id"].isin(self.gone) & (rows["cutoff"] >= self.cutoffs[-1])
        return rows[~gone].reset_index(drop=True)

    def law(self, name: str, joined: Mistake | None = None, patched: Mistake | None = None) -> None:
        """A training set has of each view the row that was known then, if it is not older than the view's ttl."""
        try:
            assert_same(self._of_known(self.expected(name)), self._of_known(self.served(name, joined, patched)))
        except AssertionError as error:
            raise AssertionError(f"as Feast has it: {error}") from None


def _plain(rows: pd.DataFrame, view: FeatureView) -> pd.DataFrame:
    """The features of a view in the order of time and profile, with one type for numbers and one null."""
    rows = rows[["cutoff", "profile_id", *view.features]].sort_values(["cutoff", "profile_id"], ignore_index=True)
    for feature in view.features:
        texts = rows[feature].dtype == object and rows[feature].map(lambda value: isinstance(value, str)).any()
        rows[feature] = rows[feature].astype(object if texts else "float64")
    return rows


def _news(facts: Facts) -> Facts:
    """A few people do everything there is before the last cutoff; some of it is known then, some a day later."""
    news = Facts(shop=[], crm=[], web=[], mail=[], desk=[], site=[])
    cards = sorted({row["card"] for row in facts["shop"] if row["card"]})[4::9]
    at = BOUNDARY - 3 * DAY
    for known in (BOUNDARY - TICK, BOUNDARY + DAY):
        for n, card in enumerate(cards):
            email, mark = f"person{9 * n + 4}@shop.example", f"news{n}{known:%d}"
            for category in (mark, *CATEGORIES):
                more = {"category": category, "product": mark, "discount": "2.50", "quantity": "4"}
                news["shop"].append(sale(at, card, "222.22", line=category, recorded_at=known, **more))
            back = {"product": mark, "cancelled": "true", "order_id": mark, "recorded_at": known}
            news["shop"].append(sale(at, card, "-33.33", **back))
            told = {"city": mark, "country": mark, "language": mark, "age_group": mark, "income": mark}
            pair = "news@pair.example" if n < 2 else ""
            news["crm"].append(record(at, card, pair, **told) | {"updated_at": known})
            news["web"].append(click(at, email=email, type="coupon_redeemed", campaign="m0", recorded_at=known))
            news["mail"].append(letter(known - timedelta(hours=2), email, mark))
            news["desk"].append(call(at, email, mark, recorded_at=known, rating="1"))
            news["site"].append(page(at, email, recorded_at=known))
    for name, rows in news.items():
        for n, row in enumerate(rows):
            row["number"] = f"news {name}{n}"
    return news


@pytest.fixture(scope="module")
def store(lakes: Lakes, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store") / "shop", lakes)


@pytest.mark.slow
@every_view_in_feast
def test_honest_training_sets_pass(store: Store, name: str) -> None:
    """Whatever the time that is asked for, before, between and after the cutoffs, and though rows were patched."""
    store.law(name)


@pytest.mark.slow
def test_a_profile_that_a_link_has_done_away_with_has_no_row(store: Store) -> None:
    """As a link tells that was known at the cutoff, and loaded since: two profiles were one."""
    assert store.gone
    name = next(iter(store.views))
    rows = store.served(name)
    found = rows[rows["profile_id"].isin(store.gone) & (rows["cutoff"] == store.cutoffs[-1])]
    assert len(found) == len(store.gone)
    assert found[list(store.views[name].features)].isna().all().all()


# 6. A created-after row.

FEATURES_OF_NOW = Mistake(
    "features of now",
    Edit(
        build.rows_of,
        "facts_before(con, project, source, cutoff, known_by or cutoff, lookback)",
        "facts_before(con, project, source, project.now, project.now, lookback)",
    ),
)
FIRST_CREATED = Mistake("first created", Edit(built.patch, "created + to_microseconds", "created - to_microseconds"))


@pytest.mark.slow
@every_view_in_feast
def test_6_a_row_of_the_past_written_later_is_caught(store: Store, name: str) -> None:
    """What is written anew of a past cutoff has the stamps of then and the content of now."""
    caught(partial(store.law, name, patched=FEATURES_OF_NOW))


@pytest.mark.slow
@every_view_in_feast
def test_6_a_row_chosen_by_the_wrong_creation_is_caught(store: Store, name: str) -> None:
    """Of two rows of one cutoff the one counts that was created first."""
    file = built.file_of(store.project, store.views[name], BOUNDARY)
    caught(partial(store.law, name, patched=FIRST_CREATED), "" if built.patches(file) else "its rows are made anew")


# 7. A wrong time to live.

FOR_EVER = Mistake("for ever", Edit(repository._feast_view, "ttl=view.ttl", "ttl=timedelta(0)"))
TOO_LONG = Mistake("too long", Edit(repository._feast_view, "ttl=view.ttl", "ttl=2 * view.ttl"))


@pytest.mark.slow
@every_view_in_feast
@pytest.mark.parametrize("mistake", [FOR_EVER, TOO_LONG], ids=str)
def test_7_a_wrong_ttl_is_caught(store: Store, name: str, mistake: Mistake) -> None:
    """A row is joined though it is older than the view says it may be."""
    caught(partial(store.law, name, mistake))


# 8. An aggregate over all time.

NO_CUTOFF = Mistake(
    "no cutoff",
    Edit(build.facts_before, "WHERE known_at < {instant(known_by)} AND event_at < {moment}{since}", ""),
    Edit(survivorship.versions, " WHERE known_at < {moment} QUALIFY", " QUALIFY"),
)
RANKED = Mistake(
    "ranked",
    Edit(
        dataset.with_features,
        "    columns = feature_columns(project, task)\n",
        "    columns = feature_columns(project, task)\n    features[columns] = features[columns].rank(pct=True)\n",
    ),
)


@every_view
def test_8_an_aggregate_over_all_time_is_caught(features_law: Callable) -> None:
    """The facts are aggregated without looking at the cutoff."""
    caught(partial(features_law, NO_CUTOFF))


@pytest.mark.slow
@every_view_in_feast
def test_8_a_rank_among_the_rows_of_all_cutoffs_is_caught(store: Store, name: str) -> None:
    """A feature is brought to a scale that the rows of all cutoffs have made, the later ones too."""
    caught(partial(store.law, name, RANKED))


# 9. A forward fill.


def _next_row(store: Any, service: str, entities: pd.DataFrame) -> pd.DataFrame:
    """The nearest row that is not older, of each view that Feast knows."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        con.register("asked", entities)
        found = con.sql("FROM asked")
        for view in store.get_feature_service(service).feature_view_projections:
            file = store.get_feature_view(view.name).batch_source.path
            features = ", ".join(f'r."{feature.name}"' for feature in view.features)
            found = con.sql(
                f"""SELECT a.*, {features} FROM found a ASOF LEFT JOIN read_parquet('{file}') r
                    ON a.profile_id = r.profile_id AND a.event_timestamp <= r.event_timestamp"""
            ).set_alias("found")
        return found.df()


NEXT_ROW = Mistake("next row", Swap(repository.historical, _next_row))
FILLED = Mistake(
    "nulls filled backwards",
    Edit(
        dataset.with_features,
        "    columns = feature_columns(project, task)\n",
        """    columns = feature_columns(project, task)
    features = features.sort_values("event_timestamp")
    features[columns] = features.groupby("profile_id")[columns].bfill()
""",
    ),
)


@pytest.mark.slow
@every_view_in_feast
@pytest.mark.parametrize("mistake", [FILLED, NEXT_ROW], ids=str)
def test_9_a_forward_fill_is_caught(store: Store, name: str, mistake: Mistake) -> None:
    """Who has no row or no value at T is given that of the next cutoff."""
    caught(partial(store.law, name, mistake))


# 10. The target in a trait.


def _golden(source: Source, known_by: datetime | str) -> str:
    """The facts of a source, with the traits of the golden record of now."""
    table = HONEST_VERSIONS(source, known_by)
    if source.kind != "records":
        return table
    said = ", ".join(f'coalesce(g."{trait}", f."{trait}") AS "{trait}"' for trait in source.traits)
    return f"""(SELECT f.* REPLACE ({said}) FROM {table} f LEFT JOIN (
        SELECT m.node, p.* FROM member m JOIN profiles p USING (profile_id) WHERE m.known_to IS NULL) g USING (node))"""


GOLDEN = Mistake("golden record of now", Swap(survivorship.versions, _golden))


@pytest.fixture(scope="module")
def careless(lakes: Lakes, tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    """Records alone, by a contract that does not say when they were written last."""
    return AlikeLakes(tmp_path_factory.mktemp("careless"), facts=lakes.facts, sources=CARELESS)


@every_view_of_records
def test_10_the_target_in_a_trait_is_caught(
    careless: Lakes, features_law: Callable, rows: Rows, origin: str, name: str
) -> None:
    """The CRM writes into a customer's row that they have left, the row keeps its date, and the contract reads no other
    one: it seems to have been known since the customer registered."""
    features_law()  # of lakes with the same rows, and a contract that says when they were written
    base, told = (careless.get(lake, _home(origin, name)) for lake in ("records", "records told"))
    caught(lambda: assert_time_safe(lambda p: rows.features(None, p, OF_RECORDS)[name], base, {"told": told}))


@every_view_of_records
def test_10_a_golden_record_of_now_is_caught(features_law: Callable) -> None:
    """Traits are read from the golden record, which is as of now."""
    caught(partial(features_law, GOLDEN, OF_RECORDS))
