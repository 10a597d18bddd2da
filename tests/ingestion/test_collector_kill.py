"""`kill -9` of a collector under load, at random moments: what it answered for is in the lake, once."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from collecting import Shop, make

from ingestion.collector.log import OPEN, TORN

CLIENTS = 6


class Sender:
    """A client that sends as fast as it is answered, and sends again what it got no answer for, as the SDKs do."""

    def __init__(self, number: int, shop: Shop, pause: float = 0.0):
        self.number, self.shop, self.pause, self.random = number, shop, pause, Random(number)
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self.unanswered: list[dict] = []
        self.count = 0

    def run(self) -> None:
        """Until the collector is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.shop.port, timeout=10)
        try:
            while True:
                messages = self.unanswered or [self.next() for _ in range(self.random.choice([1, 1, 5, 40]))]
                self.unanswered = messages
                self.sent |= {m["messageId"] for m in messages}
                connection.request("POST", "/v1/batch", json.dumps({"batch": messages, "writeKey": self.shop.key}))
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
                self.answered |= {m["messageId"] for m in messages}
                self.unanswered = []
                time.sleep(self.pause)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    def next(self) -> dict:
        self.count += 1
        text = "x" * self.random.choice([10, 200, 3_000])
        return {"type": "track", "event": "e", "userId": "u", "messageId": f"{self.number}-{self.count}", "text": text}


@contextmanager
def life(shop: Shop, senders: list[Sender], ended_by: int = signal.SIGKILL) -> Iterator[None]:
    """One life of the collector, under load until it is ended."""
    shop.start()
    with ThreadPoolExecutor(len(senders)) as pool:
        running = [pool.submit(sender.run) for sender in senders]
        try:
            yield
        finally:
            shop.stop(ended_by)
        for future in running:
            future.result()


def killed(folder: Path, times: int, seed: int) -> None:
    random, shop = Random(seed), make(folder)
    senders = [Sender(n, shop) for n in range(CLIENTS)]
    for n in range(times):
        with life(shop, senders):
            time.sleep(random.uniform(0, 0.4))
        if n % 5 == 4:
            shop.load()
    answered: set[str] = set().union(*(s.answered for s in senders))
    shop.load()
    kept = set(shop.messages())  # each is there once
    assert len(answered) > 20 * times
    assert answered <= kept
    assert kept <= set().union(*(s.sent for s in senders)), "something that nobody sent"
    for sender in senders:  # at last they hear about the rest
        sender.answered |= {m["messageId"] for m in sender.unanswered}
    with life(shop, senders):
        time.sleep(0.5)
    shop.load()
    assert set().union(*(s.answered for s in senders)) <= set(shop.messages())
    folder = shop.home / "collected" / "web"
    assert not list(folder.glob(f"*{OPEN}"))
    for torn in folder.glob(f"*{TORN}"):
        assert b"\n" not in torn.read_bytes()


def test_a_killed_collector(tmp_path):
    killed(tmp_path, 6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_a_collector_that_is_killed_again_and_again(tmp_path, seed):
    killed(tmp_path, 25, seed)


def test_stopped_in_peace_it_leaves_sealed_segments(tmp_path):
    shop = make(tmp_path)
    senders = [Sender(n, shop) for n in range(CLIENTS)]
    with life(shop, senders, signal.SIGTERM):
        time.sleep(0.3)
    files = [file.suffix for file in (shop.home / "collected" / "web").iterdir()]
    assert files == [".jsonl"]
    shop.load()
    answered = set().union(*(s.answered for s in senders))
    assert answered
    assert answered <= set(shop.messages())


@pytest.mark.slow
def test_loading_while_it_is_written_to(tmp_path):
    """Loads that seal the very segment that is being written to take from nobody what was answered for."""
    shop = make(tmp_path)
    shop.load()  # nothing yet, and no error
    senders = [Sender(n, shop, pause=0.01) for n in range(CLIENTS)]
    with life(shop, senders):
        for _ in range(5):
            time.sleep(0.1)
            before = set().union(*(s.answered.copy() for s in senders))
            assert before
            shop.load()
            assert before <= set(shop.messages())
    shop.load()
    assert set().union(*(s.answered for s in senders)) <= set(shop.messages())
    assert len(list((shop.home / "collected" / "web").iterdir())) >= 5
