"""The packed store answers as Feast's own stores do: the same rows, written by columns and by Feast's own ways."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import types
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import RepoConfig
from servers import RedisServer

from features.store import packed_store
from features.store.packed_store import PackedOnlineStore
from foretell.errors import DataError

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
PEOPLE = 150
PACKED, PROVIDER = "features.store.packed_store.PackedOnlineStore", "features.store.provider.PackedProvider"
FEATURES = {
    "orders": types.Int64, "edge": types.Int64, "spend": types.Float64, "nothing": types.Float64, "member": types.Bool,
    "city": types.String, "small": types.Int32, "single": types.Float32, "raw": types.Bytes,
    "seen": types.UnixTimestamp,
}  # fmt: skip


def frame(at: datetime = AT) -> pa.Table:
    """Rows of every type, with nulls, NaN, infinities, empty and foreign texts, and the edges of the numbers."""
    draw = np.random.default_rng(0)
    gap = draw.random(PEOPLE) < 0.2
    texts = np.array(["", "Oslo", "Ålesund", "日本", "a\x00b", "\U0001f600", "x" * 500], object)
    return pa.table({
        "profile_id": [f"p{n:04d}" for n in range(PEOPLE - 1)] + ["ü'\" %:*"],
        "category": [f"c{n % 7}" for n in range(PEOPLE)],
        "number": pa.array(range(-5, PEOPLE - 5)),
        "event_timestamp": pa.array([at - timedelta(hours=n % 3) for n in range(PEOPLE)], pa.timestamp("us", "UTC")),
        "created": pa.array([at] * PEOPLE, pa.timestamp("us", "UTC")),
        "orders": pa.array(draw.integers(-5, 5, PEOPLE), mask=gap),
        # Feast reads whole numbers with nulls among them as floats: the edges are in a column without
        "edge": draw.choice([-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1], PEOPLE),
        "spend": pa.array(draw.choice([0.0, -0.0, 1.1, np.nan, np.inf, -np.inf, 5e-324, 9e307], PEOPLE), mask=gap),
        "nothing": pa.array([None] * PEOPLE, pa.float64()),
        "member": pa.array(draw.random(PEOPLE) < 0.5, mask=gap),
        "city": pa.array(draw.choice(texts, PEOPLE), pa.string(), mask=gap),
        "small": pa.array(draw.choice([-(2**31), 0, 2**31 - 1], PEOPLE), pa.int32()),
        "single": pa.array(draw.choice([0.1, 3.4e38, np.nan], PEOPLE), pa.float32()),
        "raw": pa.array([bytes(draw.integers(0, 256, n % 9, dtype=np.uint8)) for n in range(PEOPLE)], pa.binary()),
        "seen": pa.array([AT - timedelta(seconds=n, microseconds=n) for n in range(PEOPLE)], pa.timestamp("us", "UTC"),
                         mask=gap),
    })  # fmt: skip


def objects(folder: Path) -> list:
    """A view for each way of having keys: a text, a number, and two of them."""
    source = feast.FileSource(
        name="rows", path=str(folder / "rows.parquet"), timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )  # fmt: skip
    kinds = {"profile_id": feast.ValueType.STRING, "number": feast.ValueType.INT64, "category": feast.ValueType.STRING}
    entities = {k: feast.Entity(name=k.split("_")[0], join_keys=[k], value_type=v) for k, v in kinds.items()}
    views = [
        feast.FeatureView(
            name=name, entities=[entities[k] for k in joins], ttl=timedelta(days=2), source=source,
            schema=[feast.Field(name=feature, dtype=kind) for feature, kind in FEATURES.items()],
        )
        for name, joins in (
            ("people", ["profile_id"]), ("numbers", ["number"]), ("pairs", ["profile_id", "category"]),
        )
    ]  # fmt: skip
    service = feast.FeatureService(name="both", features=[views[0][["edge", "city"]], views[2][["spend", "orders"]]])
    return [source, *entities.values(), *views, service]


def opened(folder: Path, name: str, provider: str, online: dict[str, Any]) -> feast.FeatureStore:
    store = feast.FeatureStore(config=RepoConfig(
        project="oracle", provider=provider, registry=str(folder / f"{name}.registry"), online_store=online,
        offline_store={"type": "duckdb"}, entity_key_serialization_version=3, repo_path=folder,
    ))  # fmt: skip
    store.apply(objects(folder))
    return store


class Stores:
    """Feature stores of one kind of server: Feast's own, and the packed one filled in three ways."""

    def __init__(self, folder: Path, feasts: dict[str, Any], ours: list[dict[str, Any]]):
        self.feast = opened(folder, "feast", "local", feasts)
        ways = {"columns": PROVIDER, "protos": "local", "pushed": PROVIDER}
        self.ours = {
            way: opened(folder, way, provider, {"type": PACKED, **online})
            for (way, provider), online in zip(ways.items(), ours, strict=True)
        }
        with redirect_stdout(StringIO()):
            for store in (self.feast, self.ours["columns"], self.ours["protos"]):
                store.materialize(AT - timedelta(days=1), AT)
        for view in ("people", "numbers", "pairs"):
            self.ours["pushed"].write_to_online_store(view, df=frame().to_pandas(integer_object_nulls=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("oracle")
    pq.write_table(frame(), made / "rows.parquet")
    return made


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest, folder: Path) -> Iterator[Stores]:
    home = folder / request.param
    home.mkdir()
    pq.write_table(frame(), home / "rows.parquet")
    if request.param == "sqlite":
        ours: list[dict[str, Any]] = [{"path": f"{n}.db"} for n in range(3)]
        yield Stores(home, {"type": "sqlite", "path": "feast.db"}, ours)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        ours = [{"url": server.url, "namespace": f"n{n}"} for n in range(3)]
        yield Stores(home, {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=1"}, ours)


WAYS = pytest.mark.parametrize("way", ["columns", "protos", "pushed"])
EVERYTHING = [f"{view}:{feature}" for view in ("people", "numbers", "pairs") for feature in FEATURES]


def asked(places: list[int]) -> list[dict[str, Any]]:
    rows = frame().select(["profile_id", "number", "category"]).to_pylist()
    return [rows[place] for place in places]


def same(one: Any, other: Any) -> None:
    """Equal answers: names, values, statuses, times. Of a NaN, which equals nothing, the text."""
    assert list(one.proto.metadata.feature_names.val) == list(other.proto.metadata.feature_names.val)
    for name, mine, theirs in zip(
        one.proto.metadata.feature_names.val, one.proto.results, other.proto.results, strict=True
    ):
        assert mine == theirs or str(mine) == str(theirs), name
    assert one.to_df(include_event_timestamps=True).equals(other.to_df(include_event_timestamps=True))


@WAYS
def test_the_same_features(stores: Stores, way: str) -> None:
    """Of everybody at once, of one, of the same twice; with full names; of a service with features of two views."""
    ours = stores.ours[way]
    for places in ([7], [3, 1, 3, 149, 1], list(range(PEOPLE))):
        request: dict[str, Any] = {"features": EVERYTHING, "entity_rows": asked(places), "full_feature_names": True}
        found = ours.get_online_features(**request)
        same(found, stores.feast.get_online_features(**request))
        same(asyncio.run(ours.get_online_features_async(**request)), found)
    rows = [{k: row[k] for k in ("profile_id", "category")} for row in asked(list(range(PEOPLE)))]
    answers = [
        store.get_online_features(store.get_feature_service("both"), rows, include_feature_view_version_metadata=True)
        for store in (ours, stores.feast)
    ]
    same(*answers)
    assert answers[0].proto.metadata == answers[1].proto.metadata


@WAYS
def test_whatever_way_it_is_asked(stores: Stores, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns, protobuf values, columns that are not needed, NumPy, Feast's metrics on; and wrong requests."""
    pair = {"profile_id": ["p0003", "p0004"], "category": ["c3", "c4"]}
    values = {name: [Value(string_val=one) for one in some] for name, some in pair.items()}
    for features, entities in (
        (["pairs:edge", "people:city"], pair), (["pairs:edge"], values), (["people:seen"], {**pair, "other": [1, 2]}),
        (["pairs:edge"], {name: RepeatedValue(val=some) for name, some in values.items()}),
        (["numbers:city"], {"number": list(np.array([3, 4]))}), (["numbers:city"], {"number": [3, 4]}),
    ):  # fmt: skip
        for full in (True, False):
            same(
                *(
                    s.get_online_features(features, entities, full_feature_names=full)
                    for s in (stores.ours[way], stores.feast)
                )
            )
    monkeypatch.setattr(sys.modules["feast.metrics"]._config, "online_features", True)
    same(*(store.get_online_features(["people:city"], pair) for store in (stores.ours[way], stores.feast)))
    monkeypatch.undo()
    wrong: list[Any] = [
        [{"profile_id": "a"}, {"number": 1}], {"profile_id": ["p0003", "b"], "category": ["c3"]}, {"profile_id": []},
        {}, [],
    ]  # fmt: skip
    for entities in wrong:
        errors = []
        for store in (stores.ours[way], stores.feast):
            try:
                errors.append(str(store.get_online_features(["pairs:edge"], entities).proto))
            except Exception as error:
                errors.append(repr(error))
        assert errors[0] == errors[1]


@WAYS
@pytest.mark.parametrize("view", ["people", "numbers", "pairs"])
def test_the_same_rows(stores: Stores, way: str, view: str) -> None:
    found = []
    for store in (stores.ours[way], stores.feast):
        kept = store.get_feature_view(view)
        keys = [EntityKey(
            join_keys=kept.join_keys,
            entity_values=[Value(**{"int64_val" if k == "number" else "string_val": row[k]}) for k in kept.join_keys],
        ) for row in asked(list(range(PEOPLE)))]  # fmt: skip
        online = store.provider.online_store  # type: ignore[attr-defined]
        found.append(online.online_read(store.config, kept, keys, None))
        if store is not stores.feast:
            assert str(asyncio.run(online.online_read_async(store.config, kept, keys))) == str(found[0])
            some = online.online_read(store.config, kept, keys[:2], ["city", "edge"])
            assert [list(values) for _, values in some] == [["city", "edge"]] * 2
    ours, theirs = found
    assert [at for at, _ in ours] == [at for at, _ in theirs]
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        assert {k: str(v) for k, v in mine.items()} == {k: str(v) for k, v in other.items()}


@WAYS
def test_who_has_no_row(stores: Stores, way: str) -> None:
    """As Feast's SQLite store says it; its Redis store says that there are nulls of 1970."""
    request: dict[str, Any] = {
        "features": ["people:city", "people:edge"], "entity_rows": [{"profile_id": p} for p in ("nobody", "p0003", "")]
    }  # fmt: skip
    found = stores.ours[way].get_online_features(**request)
    if stores.feast.config.online_store.type == "sqlite":  # type: ignore[union-attr]
        same(found, stores.feast.get_online_features(**request))
    there, absent = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    statuses = [list(result.statuses) for result in found.proto.results]
    assert statuses == [[there] * 3, [absent, there, absent], [absent, there, absent]]
    for store in (stores.ours[way], stores.feast):
        with pytest.raises(KeyError, match="Missing join key values for keys"):
            store.get_online_features(["people:city"], [{"number": 1}])


def test_however_old_a_row_is_it_is_given(stores: Stores) -> None:
    """Feast's stores give a row that is past its view's ttl, and its own get_online_features calls it present."""
    request: dict[str, Any] = {"features": ["people:edge"], "entity_rows": [{"profile_id": "p0001"}]}
    for store in (stores.feast, stores.ours["columns"]):
        view = store.get_feature_view("people")
        assert view.ttl is not None
        assert datetime.now(UTC) - AT > 100 * view.ttl
        assert list(store.get_online_features(**request).proto.results[1].statuses) == [FieldStatus.PRESENT]
    assert packed_store.life_of(stores.feast.get_feature_view("people")) == 30 * 86_400


def test_an_older_push_changes_nothing_and_a_later_one_does(stores: Stores) -> None:
    """Feast's SQLite store takes the older one too."""
    store = stores.ours["pushed"]

    def now() -> list[Any]:
        return store.get_online_features(["people:edge"], [{"profile_id": "p0000"}]).to_dict()["edge"]

    row = frame().slice(0, 1).to_pandas()
    before = now()
    for hours, created, edge, told in ((-1, 9, 111, False), (0, -1, 222, False), (0, 0, 333, True), (1, -9, 444, True)):
        store.write_to_online_store("people", df=row.assign(
            event_timestamp=AT + timedelta(hours=hours), created=AT + timedelta(hours=created), edge=edge
        ))  # fmt: skip
        assert now() == ([edge] if told else before)


def test_whole_numbers_beside_nulls_stay_whole(folder: Path) -> None:
    """Feast reads them as floats: of 2**53 + 1 it makes 2**53."""
    store = PackedOnlineStore()
    config, view = _packed(folder / "whole", store)
    table = frame().set_column(5, "orders", pa.array([2**53 + 1, None] * (PEOPLE // 2)))
    assert store.write(config, view, table.to_batches()) == PEOPLE
    rows = store.read(config, view, ["p0000", "p0001"])
    assert [row.values[0] for row in rows if row] == [2**53 + 1, None]


def test_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every boundary of the pieces rows are written in, whatever batches they come in."""
    store, people = PackedOnlineStore(), frame()["profile_id"].to_pylist()
    config, view = _packed(folder / "chunks", store)
    monkeypatch.setattr(packed_store, "ROWS", 10)
    for size in (1, 9, 10, 11, 20, 149, 150):
        table = frame(AT + timedelta(days=size))
        assert store.write(config, view, table.to_batches(max_chunksize=size)) == PEOPLE
        rows = store.read(config, view, people)
        assert [row.at for row in rows if row] == table["event_timestamp"].to_pylist()
        assert [row.values[1] for row in rows if row] == table["edge"].to_pylist()
    with pytest.raises(DataError, match="people: expected the column edge; got profile_id"):
        store.write(config, view, frame().drop_columns(["edge"]).to_batches())


def test_views_come_change_and_go(folder: Path) -> None:
    """Of a view whose features changed the old rows count as absent; of one that is gone they are removed."""
    store = PackedOnlineStore()
    config, view = _packed(folder / "change", store)
    store.write(config, view, frame().to_batches())
    changed = feast.FeatureView(
        name="people", entities=[feast.Entity(name="profile", join_keys=["profile_id"])], source=view.batch_source,
        schema=[*view.features[1:], view.features[0], *view.entity_columns],
    )  # fmt: skip
    assert store.read(config, changed, ["p0000"]) == [None]
    assert store.write(config, changed, frame().slice(0, 1).to_batches()) == 1
    assert [row is None for row in store.read(config, changed, ["p0000", "p0001"])] == [False, True]
    assert [row is None for row in store.read(config, view, ["p0000", "p0001"])] == [True, False]
    assert store.delete(config, view, ["p0001", "nobody"]) == 1
    strange = feast.FeatureView(
        name="strange", entities=[], source=view.batch_source,
        schema=[feast.Field(name="tags", dtype=types.Array(types.String))],
    )  # fmt: skip
    with pytest.raises(DataError, match=r"tags: expected a type that can be packed .* got STRING_LIST"):
        store.update(config, [], [strange], [], [], partial=True)
    store.update(config, [view], [], [], [], partial=True)
    assert store.read(config, view, ["p0002"]) == [None]
    store.write(config, view, frame().to_batches())
    store.teardown(config, [view], [])
    assert store.read(config, view, ["p0002"]) == [None]
    asyncio.run(store.close())


def test_a_value_of_another_type_is_refused(folder: Path) -> None:
    store = PackedOnlineStore()
    config, view = _packed(folder / "types", store)
    key = EntityKey(join_keys=["profile_id"], entity_values=[Value(string_val="p")])
    with pytest.raises(DataError, match="edge: expected a value of type INT64, got double_val"):
        store.online_write_batch(config, view, [(key, {"edge": Value(double_val=1.0)}, AT, None)], None)
    counted: list[int] = []
    asyncio.run(store.online_write_batch_async(config, view, [(key, {}, AT, None)] * 3, counted.append))
    assert counted == [3]
    ((at, values),) = store.online_read(config, view, [key])
    assert at == AT
    assert values == {name: Value() for name in FEATURES}
    with pytest.raises(DataError, match="entity key: expected a text or a whole number, got double_val"):
        store.online_read(config, view, [EntityKey(join_keys=["x"], entity_values=[Value(double_val=1.0)])])


def _packed(folder: Path, store: PackedOnlineStore) -> tuple[RepoConfig, feast.FeatureView]:
    """A configuration without a registry, and the view of people."""
    config = RepoConfig(
        project="oracle", provider=PROVIDER, registry=str(folder / "registry"), repo_path=folder,
        online_store={"type": PACKED, "path": "packed.db"}, entity_key_serialization_version=3,
    )  # fmt: skip
    view = next(one for one in objects(folder) if isinstance(one, feast.FeatureView) and one.name == "people")
    view.entity_columns = [feast.Field(name="profile_id", dtype=types.String)]
    return config, view
