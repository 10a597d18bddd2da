"""Where packed rows are kept: older never overwrites newer, whoever writes; what is deleted is gone; errors help."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import RedisServer

from features.store import redis_rows, sqlite_rows
from features.store.packed import layout
from features.store.redis_rows import RedisRows
from features.store.sqlite_rows import SqliteRows
from foretell.errors import DataError, DefinitionError, NotReady

SHAPE = layout((("n", "INT64"), ("said", "STRING")))
OTHER = layout((("n", "INT64"), ("said", "STRING"), ("more", "BOOL")))
Kept = SqliteRows | RedisRows


def row(n: int, event: int, created: int = 0) -> bytes:
    return SHAPE.pack([n, f"é{n}"], event, created)


def number(packed: bytes | None) -> int | None:
    found = SHAPE.unpack(packed)
    assert found is None or found.values[1] == f"é{found.values[0]}"
    return found.values[0] if found else None


def opened(where: str) -> Kept:
    return RedisRows(where, "test") if where.startswith("redis") else SqliteRows(Path(where))


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "packed.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    import redis

    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server.url


@pytest.fixture
def rows(where: str) -> Iterator[Kept]:
    made = opened(where)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(3))
def test_older_never_overwrites_newer(rows: Kept, seed: int) -> None:
    """Held to a dict: the later event_timestamp wins, then the later created, then what was written last."""
    draw, known = random.Random(seed), {}
    for n in range(30):
        some = []
        for _ in range(draw.randrange(1, 40)):  # the same key may be there twice
            stamps = (draw.choice([-(2**62), -1, 0, 2**31, 2**32, 2**62]) + draw.randrange(3), draw.randrange(-2, 3))
            some.append((f"k{draw.randrange(25)}", 1_000 * n + len(some), stamps))
        rows.write("v", [key for key, *_ in some], [row(value, *stamps) for _, value, stamps in some])
        for key, value, stamps in some:
            if key not in known or stamps >= known[key][1]:
                known[key] = value, stamps
        asked = [f"k{i}" for i in range(30)]
        assert list(map(number, rows.read("v", asked))) == [known.get(key, (None,))[0] for key in asked]


def test_a_row_of_another_schema_is_absent_and_stands_in_nobodys_way(rows: Kept) -> None:
    rows.write("v", ["a"], [OTHER.pack([1, "x", True], 100, 0)])
    assert list(map(SHAPE.unpack, rows.read("v", ["a"]))) == [None]
    rows.write("v", ["a"], [row(2, 50)])
    assert number(rows.read("v", ["a"])[0]) == 2


def _write(where: str, writer: int, order: list[tuple[int, int]]) -> None:
    made = opened(where)
    for start in range(0, len(order), 17):
        some = order[start : start + 17]
        made.write("v", [f"k{key}" for key, _ in some], [row(1_000 * at + writer, at, writer) for _, at in some])


def test_writers_cannot_overtake_each_other(where: str) -> None:
    """Four processes write the same keys at once, each in an order of its own."""
    jobs = []
    spawn = multiprocessing.get_context("fork")
    for writer in range(4):
        order = [(key, at) for key in range(20) for at in range(25)]
        random.Random(writer).shuffle(order)
        jobs.append(spawn.Process(target=_write, args=(where, writer, order)))
    for job in jobs:
        job.start()
    rows, seen = opened(where), [-1] * 20
    while any(job.is_alive() for job in jobs):  # what is read grows only
        now = [-1 if n is None else n for n in map(number, rows.read("v", [f"k{key}" for key in range(20)]))]
        assert all(b >= a for a, b in zip(seen, now, strict=True))
        seen = now
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert list(map(number, rows.read("v", [f"k{key}" for key in range(20)]))) == [24_003] * 20


def test_delete_keys_tables_and_drop(rows: Kept) -> None:
    names = ["", "a", "é\x1fb", "*", "a?[x]", "a\\b", *map(str, range(1_200))]
    rows.write("v", names, [row(n, 0) for n in range(len(names))])
    rows.write("v:w", ["a"], [row(1, 0)])
    assert set(rows.keys("v")) == set(names)
    assert rows.tables() == ["v", "v:w"]
    assert rows.delete("v", ["a", "*", "no", "a?[x]"]) == 3
    assert rows.delete("w", ["a"]) == 0
    assert [value is None for value in rows.read("v", ["a", "*", "a?[x]", "a\\b", ""])] == [True] * 3 + [False] * 2
    rows.settle(vacuum=True)
    rows.drop("v")
    assert rows.read("v", ["7"]) == [None]
    rows.drop("never")
    assert list(rows.keys("never")) == rows.read("never", []) == []


def test_many_rows_go_in_steps(rows: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "AT_ONCE", 7)
    monkeypatch.setattr(redis_rows, "WRITE", 7)
    monkeypatch.setattr(redis_rows, "READ", 5)
    for count in (1, 5, 6, 7, 8, 14, 15):
        names = [f"{count}-{n}" for n in range(count)]
        rows.write("v", names, [row(n, 0) for n in range(count)])
        assert list(map(number, rows.read("v", [*names, "no", names[0]]))) == [*range(count), None, 0]
        assert list(map(number, asyncio.run(rows.read_views_async([("v", [*names, "no"])]))[0])) == [
            *range(count),
            None,
        ]
    assert sorted(set(rows.keys("v"))) == sorted(f"{c}-{n}" for c in (1, 5, 6, 7, 8, 14, 15) for n in range(c))
    rows.write("v", [], [])
    rows.write("w", ["1-0"], [row(77, 0)])
    asked = [("v", ["15-3", "no"]), ("never", ["a"]), ("w", ["1-0"]), ("v", []), ("v", [f"8-{n}" for n in range(8)])]
    found = [list(map(number, some)) for some in rows.read_views(asked)]
    assert found == [[3, None], [None], [77], [], list(range(8))]


def test_several_threads_and_loops(rows: Kept) -> None:
    rows.write("v", ["a"], [row(1, 0)])
    found: list[int | None] = []
    threads = [threading.Thread(target=lambda: found.append(number(rows.read("v", ["a"])[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):  # a loop that is closed takes its connections along
        found += map(number, asyncio.run(rows.read_views_async([("v", ["a"])]))[0])
    assert found == [1] * 6


def test_a_row_in_redis_goes_when_its_life_is_over(redis_server: RedisServer) -> None:
    import redis

    rows = RedisRows(redis_server.url, "life")
    rows.write("v", ["a", "b"], [row(1, 5), row(1, 5)], life=1_000)
    rows.write("v", ["b"], [row(2, 4)], life=5)  # refused, so it changes nothing
    rows.write("v", ["c"], [row(1, 5)])
    with redis.Redis(port=redis_server.port) as client:
        lives = [client.ttl(f"life:v:{key}") for key in "abc"]
    assert lives[2] == -1
    assert all(990 <= life <= 1_000 for life in lives[:2])


def test_homes_share_a_server(redis_server: RedisServer) -> None:
    one, other = RedisRows(redis_server.url, "one"), RedisRows(redis_server.url, "other")
    one.write("v", ["a"], [row(1, 0)])
    other.write("v", ["a"], [row(2, 0)])
    other.drop("v")
    assert (number(one.read("v", ["a"])[0]), other.read("v", ["a"]), one.tables()) == (1, [None], ["v"])


def test_what_is_deleted_in_sqlite_is_nowhere_in_the_file(tmp_path: Path) -> None:
    rows = SqliteRows(tmp_path / "packed.db")
    rows.write("v", [f"person{n}" for n in range(2_000)], [SHAPE.pack([n, f"secret{n}"], 0, 0) for n in range(2_000)])
    rows.delete("v", ["person77"])
    rows.settle(vacuum=True)
    rows.close()
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"person770" in data
    for word in (b"person77", b"secret77"):
        assert all(rest[:1].isdigit() for rest in data.split(word)[1:])


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(NotReady, match=r"^online: features are kept in Redis, .*; pip install foretell\[redis\]$"):
        RedisRows("redis://127.0.0.1:1/0", "x").read("v", ["a"])


def test_errors_say_what_to_do(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(
        DataError, match=r"^online store: reading failed: file is not a database; see that the disk has"
    ):
        SqliteRows(tmp_path / "broken.db").read("v", ["a"])
    with pytest.raises(
        NotReady, match=r"^online store: Redis does not answer: .*; see that it runs .*redis://127.0.0.1:1/0"
    ):
        RedisRows("redis://:word@127.0.0.1:1/0", "x").read("v", ["a"])
    with pytest.raises(NotReady, match="online: the environment variable ONLINE_URL is not set; export ONLINE_URL="):
        RedisRows("env:ONLINE_URL", "x").read("v", ["a"])
    monkeypatch.setenv("ONLINE_URL", redis_server.url)
    RedisRows("env:ONLINE_URL", "x").write("v", ["a"], [row(1, 0)])
    assert number(RedisRows(redis_server.url, "x").read("v", ["a"])[0]) == 1
    with pytest.raises(DefinitionError, match="online: expected the address of a Redis server, got 'http://there'"):
        RedisRows("http://there", "x").read("v", ["a"])
    import redis

    with redis.Redis(port=redis_server.port) as client:
        client.lpush("x:v:list", "no text")
    with pytest.raises(DataError, match=r"^online store: Redis refuses: .*WRONGTYPE.*; see that it has memory left"):
        RedisRows(redis_server.url, "x").write("v", ["list"], [row(1, 0)])


def _count_up(where: str) -> None:
    made, keys = opened(where), [f"k{n}" for n in range(500)]
    for n in range(10**6):
        made.write("v", keys, [row(n, n)] * 500)


def test_a_killed_writer_of_sqlite_leaves_all_or_nothing(tmp_path: Path) -> None:
    where, keys, last = str(tmp_path / "packed.db"), [f"k{n}" for n in range(500)], -1
    for seed in range(3):
        job = multiprocessing.get_context("fork").Process(target=_count_up, args=(where,))
        job.start()
        while number(opened(where).read("v", ["k0"])[0]) in (None, last):
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 0.1))
        job.kill()
        job.join()
        (found,) = set(map(number, opened(where).read("v", keys)))
        assert found is not None
        last = found


def test_a_transaction_of_sqlite_that_is_cut_short_is_none(tmp_path: Path) -> None:
    rows = SqliteRows(tmp_path / "packed.db")
    rows.write("v", ["a"], [row(1, 0)])
    with pytest.raises(DataError, match="online store: writing failed: Error binding parameter 2"):
        rows.write("v", ["a", "b"], [row(2, 1), object()])  # type: ignore[list-item]
    assert list(map(number, rows.read("v", ["a", "b"]))) == [1, None]
    rows.write("v", ["a"], [row(3, 1)])
    assert number(rows.read("v", ["a"])[0]) == 3
