"""Redis is killed and comes back, during writes and during reads: what was said to be written is there, no value is
wrong, what failed is said and can be done again, and the same process reads on."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest
from servers import RedisServer

from features.store.packed import layout
from features.store.redis_rows import RedisRows
from foretell.errors import DataError, NotReady

SHAPE = layout((("n", "INT64"), ("twice", "DOUBLE"), ("said", "STRING")))
KEYS, KILLS = 40, 3


def row(n: int) -> bytes:
    return SHAPE.pack([n, 2.0 * n, f"é{n}"], n, 0)


def number(packed: bytes | None) -> int:
    """The number of a row, -1 if there is none; a row is whole or it fails here."""
    if packed is None:
        return -1
    found = SHAPE.unpack(packed)
    assert found is not None
    assert found.event == found.values[0]
    assert found.values == (found.event, 2.0 * found.event, f"é{found.event}")
    return found.event


def test_killed_during_writes_and_reads(redis_server: RedisServer) -> None:
    """Every write writes a number to all keys; a reader in a thread of its own watches that they only grow."""
    rows, keys, draw = RedisRows(redis_server.url, "killed"), [f"k{i}" for i in range(KEYS)], random.Random(0)
    done = threading.Event()
    told, seen = [], [0]
    wrong: list[str] = []

    def watch() -> None:
        reader, before = RedisRows(redis_server.url, "killed"), [-1] * KEYS
        while not done.is_set():
            try:
                now = list(map(number, reader.read("v", keys)))
            except NotReady as error:
                told.append(str(error))
                continue
            except AssertionError as error:
                wrong.append(repr(error))
                return
            if any(b < a for a, b in zip(before, now, strict=True)):
                wrong.append(f"{before} then {now}")
            before = now
            seen[0] += 1

    def kill_and_start() -> None:
        for _ in range(KILLS):
            time.sleep(draw.uniform(0.1, 0.4))
            redis_server.kill()
            time.sleep(draw.choice([0.0, 1.5]))
            redis_server.start()
        time.sleep(0.2)
        done.set()

    watcher, killer = threading.Thread(target=watch), threading.Thread(target=kill_and_start)
    watcher.start()
    killer.start()
    written, n, failures = -1, 0, []
    while not done.is_set():
        n += 1
        try:
            rows.write("v", keys, [row(n)] * KEYS)
        except NotReady as error:
            failures.append(str(error))
            continue
        written = n
        try:
            assert set(map(number, rows.read("v", keys))) == {n}  # it returned, so it is there
        except NotReady:
            continue
    killer.join()
    watcher.join()
    assert not wrong
    assert all("Redis does not answer" in text and "then run it again" in text for text in [*failures, *told])
    found = list(map(number, rows.read("v", keys)))  # by the same object, as if nothing had been
    assert all(written <= value <= n for value in found)
    assert seen[0] > 10
    assert written > KILLS
    rows.write("v", keys, [row(n)] * KEYS)  # what failed is done again
    assert set(map(number, rows.read("v", keys))) == {n}


def test_gone_and_back(redis_server: RedisServer) -> None:
    """While it is gone everything says so within seconds; when it is back the same objects go on, asynchronous too."""
    rows = RedisRows(redis_server.url, "back")
    rows.write("v", ["a"], [row(1)])

    async def read() -> int:
        return number((await rows.read_views_async([("v", ["a"])]))[0][0])

    async def through() -> None:
        assert await read() == 1
        redis_server.kill()
        began = time.monotonic()
        with pytest.raises(NotReady, match="Redis does not answer"):
            await read()
        for call in (
            lambda: rows.read("v", ["a"]), lambda: rows.write("v", ["a"], [row(2)]), lambda: list(rows.keys("v")),
        ):  # fmt: skip
            with pytest.raises(NotReady, match="Redis does not answer"):
                call()
        assert time.monotonic() - began < 40
        redis_server.start()
        assert await read() == 1
        await rows.close_async()

    asyncio.run(through())
    assert number(rows.read("v", ["a"])[0]) == 1
    rows.write("v", ["a"], [row(2)])  # the script, which the new server does not know, is sent again
    assert asyncio.run(read()) == 2


def test_a_full_server_refuses_and_loses_nothing(redis_server: RedisServer) -> None:
    import redis

    rows = RedisRows(redis_server.url, "full")
    rows.write("v", ["a"], [row(1)])
    with redis.Redis(port=redis_server.port) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(DataError, match=r"online store: Redis refuses: .*; see that it has memory left"):
            rows.write("v", ["a"], [row(2)])
        client.config_set("maxmemory", "0")
    assert number(rows.read("v", ["a"])[0]) == 1
    rows.write("v", ["a"], [row(2)])
    assert number(rows.read("v", ["a"])[0]) == 2
