"""Rows that Spark makes are those that DuckDB makes: a law over every discovered view, label and population.

Random histories are loaded as one shop, and each view is made of all of them at once. Integers, text and instants are
the same, floats to a part in 10⁹; so are the files that are built, but for their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import MORE_SOURCES, START, load_shop, make_shop, more_facts, sale, shop_facts, write_files
from fixtures_spark import needs_spark, on_spark, unlike
from histories import CUTOFFS, histories
from oracle_shop import Shop
from test_oracle import NAMES, WINDOWS
from test_time import ORIGINS, TASKS, VIEWS, Lakes

from features import build, built
from foretell.project import Project
from lake import spark
from lake.engine import last_batch, session
from training import dataset

pytestmark = [needs_spark, pytest.mark.slow]

COUNT = 60
CUTOFF = START + timedelta(days=300)
Rows = tuple[list[str], list[tuple]]


class Both:
    """A shop of random histories; every view's rows at both cutoffs, as either engine makes them."""

    def __init__(self, folder: Path):
        self.shop = Shop.of(histories(COUNT, WINDOWS), folder)
        self._found: dict[tuple[str, datetime], dict[str, tuple[Rows, Rows]]] = {}

    def rows(self, origin: str, cutoff: datetime) -> dict[str, tuple[Rows, Rows]]:
        """View -> (Spark's rows, DuckDB's); all views of an origin at once."""
        if (asked := (origin, cutoff)) not in self._found:
            project = self.shop.projects[origin]
            views = [project.definitions.views[name] for name in NAMES[origin]]
            with session(project) as con, spark.session(on_spark(project), last_batch(project)) as cluster:
                wanted = {v.name: _rows(con, q) for v, q in build.rows_of(con, project, views, cutoff)}
                other: Any = cluster
                made = build.rows_of(other, project, views, cutoff)
                self._found[asked] = {v.name: (_rows(other, q), wanted[v.name]) for v, q in made}
        return self._found[asked]


def _rows(con: Any, query: str) -> Rows:
    answer = con.execute(query)
    return [name for name, *_ in answer.description], answer.fetchall()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("both"))


@pytest.mark.parametrize("cutoff", CUTOFFS, ids=str)
@pytest.mark.parametrize(("origin", "name"), VIEWS.values(), ids=VIEWS)
def test_a_view_has_the_same_rows(both: Both, origin: str, name: str, cutoff: datetime) -> None:
    (names, made), (columns, wanted) = both.rows(origin, cutoff)[name]
    assert names == columns
    assert wanted
    assert unlike(names, made, wanted)[:5] == []


def test_no_view_is_left_out(both: Both) -> None:
    assert {name for origin in ORIGINS for name in both.rows(origin, CUTOFFS[0])} == {
        name for _, name in VIEWS.values()
    }


# Labels, populations and training sets.


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    return Lakes(tmp_path_factory.mktemp("lakes"))


@pytest.fixture(scope="module")
def pairs(lakes: Lakes) -> Iterator[dict[str, tuple[Project, Any, Any]]]:
    """Origin -> the project, and a connection of either kind."""
    found, open_now = {}, []
    for origin in ORIGINS:
        project = lakes.get("base", origin)
        views = [v for name in _tasks(origin) for v in dataset.asked_views(project, project.definitions.tasks[name])]
        build.build(project, dataset.once(project, views), [CUTOFF])
        contexts = [session(project), spark.session(on_spark(project), last_batch(project))]
        found[origin] = (project, *(context.__enter__() for context in contexts))
        open_now += contexts
    yield found
    for context in open_now:
        context.__exit__(None, None, None)


def _tasks(origin: str) -> list[str]:
    return [name for at, name in TASKS.values() if at == origin]


@pytest.mark.parametrize(("origin", "name"), TASKS.values(), ids=TASKS)
def test_a_task_has_the_same_population_and_labels(pairs: dict, origin: str, name: str) -> None:
    project, con, cluster = pairs[origin]
    task = project.definitions.tasks[name]
    who = dataset.population(con, project, task, CUTOFF)
    assert dataset.population(cluster, project, task, CUTOFF) == who
    assert dataset.left_out(cluster, project, task, CUTOFF) == dataset.left_out(con, project, task, CUTOFF)
    refused = [dataset.population_table(c, project, task, CUTOFF, "them") for c in (con, cluster)]
    assert refused[0] == refused[1]
    asked = "SELECT profile_id FROM them ORDER BY 1"
    assert cluster.execute(asked).fetchall() == con.execute(asked).fetchall()
    wanted, made = (dataset.labels_at(c, project, task, CUTOFF) for c in (con, cluster))
    assert list(made.dtypes) == list(wanted.dtypes)
    order = ["profile_id"]
    made, wanted = (rows.sort_values(order).astype(object).to_numpy().tolist() for rows in (made, wanted))
    assert unlike(list("plwos"), made, wanted)[:5] == []


# What is built and learned from.


def _shop(folder: Path) -> Project:
    return make_shop(folder, facts=more_facts(shop_facts(people=25), people=25), sources=MORE_SOURCES)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Project]:
    """The same shop twice: one that DuckDB builds, and one for Spark."""
    folder = tmp_path_factory.mktemp("two")
    return _shop(folder / "duckdb"), on_spark(_shop(folder / "spark"))


SOME = ("orders", "traits", "category_orders", "account_orders", "favourites")


def _files(project: Project, cutoff: datetime) -> dict[str, list[Path]]:
    files = {name: built.file_of(project, project.definitions.views[name], cutoff) for name in SOME}
    return {name: [file, *built.patches(file)] for name, file in files.items()}


def _same_files(one: Project, other: Project, cutoff: datetime) -> list[Any]:
    wanted, found = _files(one, cutoff), []
    for name, files in _files(other, cutoff).items():
        assert [file.name for file in files] == [file.name for file in wanted[name]]
        for made, right in zip(files, wanted[name], strict=True):
            tables = [pq.read_table(file) for file in (made, right)]
            kinds = [[(field.name, field.type) for field in table.schema] for table in tables]
            assert kinds[0] == kinds[1]
            assert built.made_from(made) == built.made_from(right)
            rows = [list(zip(*(c.to_pylist() for c in t.columns), strict=True)) for t in tables]
            found += unlike(tables[0].column_names, *rows)
    return found


def test_files_are_built_and_patched_alike(two: tuple[Project, Project]) -> None:
    plain, other = two
    views = [plain.definitions.views[name] for name in SOME]
    assert build.build(plain, views, [CUTOFF]) == build.build(other, views, [CUTOFF]) == len(SOME)
    assert _same_files(plain, other, CUTOFF) == []
    assert build.build(other, views, [CUTOFF]) == 0
    for project in two:  # a late fact, of one person: the others' rows stay
        late = [sale(CUTOFF - timedelta(days=2), "CARD0003A", "77.00")]
        write_files(project.folder, {"shop": late}, stem="late")
        load_shop(project, ["shop"])
        build.build(project, views, [CUTOFF])
    assert any(len(files) > 1 for files in _files(other, CUTOFF).values()), "nothing was patched"
    assert _same_files(plain, other, CUTOFF) == []
    read = [_rows(duckdb, f"SELECT * FROM {build.read(p, views[0], CUTOFF)} ORDER BY profile_id") for p in two]
    assert unlike(read[0][0], read[1][1], read[0][1]) == []
    assert not list((other.home / spark.SCRATCH).glob("*")), "what Spark wrote is not left behind"


def test_a_training_set_is_the_same(two: tuple[Project, Project]) -> None:
    sets = [dataset.training_set(p, p.definitions.tasks["churn"], [START + timedelta(days=250)]) for p in two]
    assert list(sets[0].dtypes) == list(sets[1].dtypes)
    assert sets[0].attrs == sets[1].attrs
    assert len(sets[0]) > 5
    rows = [s.astype(object).to_numpy().tolist() for s in sets]
    assert unlike(list(sets[0].columns), rows[1], rows[0]) == []
