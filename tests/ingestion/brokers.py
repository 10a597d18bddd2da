"""A Kafka broker for tests: librdkafka's mock cluster, in a process of its own that can be stopped and let go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable

PROGRAM = """
import json, sys
from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": "localhost:1", "test.mock.num.brokers": 1, "log_level": 0})
(broker,) = producer.list_topics("events", timeout=30).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
for line in sys.stdin:
    topic, partition, values = json.loads(line)
    for value in values:
        producer.produce(topic, value, partition=partition)
    print(producer.flush(30), flush=True)
"""


class Broker:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self._process.stdout
        self.address = self._process.stdout.readline().strip()

    def send(self, values: Iterable[str], topic: str = "events", partition: int = 0) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([topic, partition, list(values)]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == "0"

    def pause(self) -> None:
        """The broker does not answer any more."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        self._process.kill()
        self._process.wait(10)
