"""What of a project is online: a built cutoff, rows with stamps of their own; where the setting says; and forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import feast
import pyarrow as pa
import pytest
from click.testing import CliRunner
from conftest import MORE_SOURCES, START, write_shop
from servers import RedisServer

from features import build, built
from features.store import forget, repository
from features.store.online import Online, open_rows, open_store
from foretell import settings
from foretell.__main__ import cli
from foretell.declarations import PredictionTask
from foretell.errors import DefinitionError
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import connect
from lake.erasure import Person
from serving.batch import mark_online, online_cutoff

CUTOFF, PEOPLE = START + timedelta(days=300), 60
VALUES = {"int64": "range", "float64": "range / 4", "boolean": "range % 2 = 0", "string": "'é' || range"}


def version(project: Project, name: str) -> str:
    return build.versioned(project.definitions.view(name), dict(project.definitions.sources))


def built_at(project: Project, name: str, cutoff: Any, shift: int = 0, where: str = "true") -> str:
    """SQL of rows of a view at a cutoff: of profile n each number is n, more or less."""
    view: FeatureView = project.definitions.view(name)
    kinds = build.types(view, dict(project.definitions.sources))
    key = {"profile_id": "'p' || range", "category": "'c' || range % 5", "account_id": "'a' || range"}
    columns = [f"{key[k]} AS {k}" for k in view.keys]
    columns += [f"TIMESTAMPTZ '{cutoff.isoformat()}' AS {stamp}" for stamp in ("event_timestamp", "created")]
    columns += [f'{VALUES[kind].replace("range", f"(range + {shift})")} AS "{f}"' for f, kind in kinds.items()]
    return f"SELECT {', '.join(columns)} FROM range({PEOPLE}) WHERE {where}"


def build_by_hand(project: Project, name: str, cutoff: Any, shift: int = 0) -> None:
    with connect(project) as con:
        view, query = project.definitions.view(name), built_at(project, name, cutoff, shift)
        built.write(con, project, view, cutoff, query, (1, "by hand"))


NAMES = ("orders", "account_orders", "category_orders")


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, feast.FeatureStore]]:
    """A project with views registered and built by hand, nothing online yet."""
    where = "sqlite"
    if request.param == "redis":
        where = request.getfixturevalue("redis_server").url
    project = write_shop(tmp_path / "shop", {}, key="1" * 64, sources=MORE_SOURCES, settings={"online": where})
    task = PredictionTask(
        name="some", population="true", horizon=timedelta(days=1), label=project.definitions.task("churn").label,
        views=(project.definitions.view("orders"),), metric="mae", purpose="test",
    )  # fmt: skip
    store = repository.apply(project, [task], [project.definitions.view(name) for name in NAMES])
    for name in NAMES:
        build_by_hand(project, name, CUTOFF)
    yield project, store
    for rows in open_rows(project):
        for table in rows.tables():
            rows.drop(table)


def orders_of(project: Project, store: feast.FeatureStore, profiles: list[str]) -> list[Any]:
    """(T, orders_ever-like first whole number) of the profiles' rows, or None."""
    view = store.get_feature_view(version(project, "orders"))
    place = next(i for i, f in enumerate(view.features) if f.name == "orders_90d")
    found = store.provider.packed.read(store.config, view, profiles)  # type: ignore[attr-defined]
    return [None if row is None else (row.at, row.values[place]) for row in found]


def test_a_built_cutoff_comes_online(shop: tuple[Project, feast.FeatureStore]) -> None:
    """Rows of every kind of entity; Feast knows of it, and reads the same."""
    project, store = shop
    views = [project.definitions.view(name) for name in NAMES]
    assert repository.materialise(project, store, views, CUTOFF) == 3 * PEOPLE
    assert orders_of(project, store, ["p3", "p59", "nobody"]) == [(CUTOFF, 3), (CUTOFF, 59), None]
    service = next(one.name for one in store.list_feature_services())
    rows = Online(project, [service]).read([service], ["p3", "nobody"])[service]
    assert (rows.times(0), rows.times(1)) == ({CUTOFF}, {None})
    mine, nobody = rows.values([0, 1])
    assert (mine["profile_id"], mine["orders_90d"], nobody["orders_90d"]) == ("p3", 3, None)
    assert rows.values([0])[0].keys() == {"profile_id", *project.definitions.view("orders").features}
    name = version(project, "category_orders")
    feature = next(iter(project.definitions.view("category_orders").features))
    asked = {"profile_id": ["p7", "p7"], "category": ["c2", "c3"]}
    found = store.get_online_features([f"{name}:{feature}"], asked).to_dict()[feature]
    assert found[0] is not None
    assert found[1] is None
    assert store.get_feature_view(name).materialization_intervals[-1][1] == CUTOFF
    # an older cutoff changes nothing, the same one again what was built again
    for cutoff, shift, expected in ((CUTOFF - timedelta(days=9), 5, 3), (CUTOFF, 100, 103)):
        build_by_hand(project, "orders", cutoff, shift)
        repository.materialise(project, store, views[:1], cutoff)
        assert orders_of(project, store, ["p3"]) == [(CUTOFF, expected)]


def test_who_is_no_longer_has_no_row(shop: tuple[Project, feast.FeatureStore]) -> None:
    """A profile that merged into another since the cutoff was built."""
    project, store = shop
    view = project.definitions.view("orders")
    repository.materialise(project, store, [view], CUTOFF)
    with connect(project) as con:
        listed = built.profiles_file(project, CUTOFF)
        listed.parent.mkdir(parents=True, exist_ok=True)
        con.execute(f"COPY (SELECT 'p' || range AS profile_id, range = 4 AS gone FROM range({PEOPLE})) TO '{listed}'")
        query = built_at(project, "orders", CUTOFF, 100, "range = 3")
        built.patch(con, project, view, CUTOFF, query, (2, "by hand"), gone=True)
    assert repository.materialise(project, store, [view], CUTOFF) == PEOPLE - 1
    assert orders_of(project, store, ["p2", "p3", "p4"]) == [(CUTOFF, 2), (CUTOFF, 103), None]


def test_rows_with_stamps_of_their_own(shop: tuple[Project, feast.FeatureStore]) -> None:
    project, store = shop
    name = version(project, "orders")
    repository.materialise(project, store, [project.definitions.view("orders")], CUTOFF)
    with connect(project) as con:
        rows = con.sql(built_at(project, "orders", CUTOFF, 7, "range < 10")).to_arrow_table()

    def stamped(event: timedelta, created: timedelta = timedelta(0)) -> pa.Table:
        times = {"event_timestamp": CUTOFF + event, "created": CUTOFF + created}
        made = rows
        for column, at in times.items():
            place = made.schema.get_field_index(column)
            made = made.set_column(place, column, pa.array([at] * len(made), pa.timestamp("us", "UTC")))
        return made

    tick = timedelta(microseconds=1)
    repository.put(store, name, stamped(-tick))
    assert orders_of(project, store, ["p3"]) == [(CUTOFF, 3)]
    repository.put(store, name, stamped(tick).append_column("other", pa.array(["x"] * 10)))
    assert orders_of(project, store, ["p3", "p11"]) == [(CUTOFF + tick, 10), (CUTOFF, 11)]
    repository.materialise(project, store, [project.definitions.view("orders")], CUTOFF)
    assert orders_of(project, store, ["p3"]) == [(CUTOFF + tick, 10)]
    table = repository.get(store, name, ["p11", "nobody", "p3"])
    assert table["entity"].to_pylist() == ["p11", "p3"]
    assert table["event_timestamp"].to_pylist() == [CUTOFF, CUTOFF + tick]
    assert table["orders_90d"].to_pylist() == [11, 10]
    assert table.column_names[3:] == list(project.definitions.view("orders").features)
    assert len(repository.get(store, name, [])) == 0
    assert repository.remove(store, name, ["p3", "nobody"]) == 1
    assert orders_of(project, store, ["p3", "p4"]) == [None, (CUTOFF + tick, 11)]
    pairs = version(project, "category_orders")
    repository.materialise(project, store, [project.definitions.view("category_orders")], CUTOFF)
    assert repository.remove(store, pairs, [("c3", "p3"), ("p3", "c3")]) == 1


def test_a_person_is_forgotten_online(shop: tuple[Project, feast.FeatureStore]) -> None:
    """By every id, in views of several keys too; in a file of Feast's own, of an earlier version, as well."""
    project, store = shop
    former = project.home / "feast" / "online.db"
    with sqlite3.connect(former) as con:
        con.execute("CREATE TABLE old (entity_key BLOB, feature_name TEXT, value BLOB)")
        con.executemany("INSERT INTO old VALUES (?, 'f', x'00')", [(b"\x02profile_id:p3",), (b"\x02profile_id:p5",)])
    repository.materialise(project, store, [project.definitions.view(name) for name in NAMES], CUTOFF)
    person = Person("e1", "p3", frozenset({"p3", "p8", "never"}), frozenset(), CUTOFF, project.key)
    gone = forget.forget(project, person)
    assert gone == {"features": 4, "online store": 4, "former online store": 1}
    assert orders_of(project, store, ["p3", "p8", "p30"]) == [None, None, (CUTOFF, 30)]
    left = {key for rows in open_rows(project) for table in rows.tables() for key in rows.keys(table)}
    assert not any(part in ("p3", "p8") for key in left for part in key.split("\x1f"))
    assert len(left) == (PEOPLE - 2) * 2 + PEOPLE
    assert forget.forget(project, person) == {"features": 0, "online store": 0, "former online store": 0}


def test_what_is_online_is_said_of_where_it_is(tmp_path: Path, redis_server: RedisServer) -> None:
    """With another setting nothing is online yet; a home of an earlier version brings its features online again."""
    project = write_shop(tmp_path / "shop", {})
    (project.home / "feast").mkdir()
    (project.home / "feast" / "online.json").write_text('{"cutoff": "2024-05-01T00:00:00+00:00"}')
    assert online_cutoff(project) is None
    mark_online(project, CUTOFF)
    assert online_cutoff(project) == CUTOFF
    toml = project.folder / "foretell.toml"
    toml.write_text(toml.read_text() + f'online = "{redis_server.url}"\n')
    assert online_cutoff(Project(project.folder)) is None
    mark_online(project, None)
    assert online_cutoff(project) is None


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("postgres://host/db", r"cannot read 'postgres://host/db' \(expected \"sqlite\", \"redis://host:port/db\""),
        ("redis://", "cannot read 'redis://'"), ("env:", "cannot read 'env:'"), ("", "cannot read ''"),
        ("redis://user:secret@host/0", r"cannot read 'redis://…@host/0' \(the address holds a password: put it into"),
        ("rediss://host/0?password=secret", "'rediss://host/0.password=…' .the address holds a password"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_online(tmp_path: Path, said: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem) as raised:
        settings.load(tmp_path, {"FORETELL_ONLINE": said})
    assert "secret" not in str(raised.value)


def test_the_setting_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_shop(tmp_path / "shop", {})
    assert open_store(project).config.online_store.path == str(project.home / "feast" / "packed.db")  # type: ignore[union-attr]
    monkeypatch.setenv("FORETELL_ONLINE", "env:SHOP_REDIS")
    store = open_store(Project(project.folder))
    online: Any = store.config.online_store
    assert (online.url, len(online.namespace)) == ("env:SHOP_REDIS", 12)
    assert "SHOP_REDIS" in (project.home / "feast" / "feature_store.yaml").read_text()
    done = CliRunner().invoke(cli, ["--project", str(project.folder), "status"])
    (line,) = [line for line in done.output.splitlines() if line.split()[:1] == ["online"]]
    assert "env:SHOP_REDIS" in line
    assert "environment FORETELL_ONLINE" in line
