"""Every message of a topic becomes a line of the log once, whatever is killed and whoever does not answer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed (foretell[kafka])")
from brokers import Broker
from one_source import ask, project

from foretell import Kafka, Source
from foretell.errors import DataError, DefinitionError, ForetellError
from foretell.project import Project
from ingestion.collector.log import folder_of
from ingestion.connectors import kafka
from ingestion.load import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()


def source(broker: Broker, **other: object) -> Source:
    return Source(
        name="events", connector=Kafka(servers=broker.address, topic="events"), event_at="at",
        identifiers={"user_id": "user"}, columns={"n": "n", "partition": "kafka.partition"}, **other,
    )  # type: ignore[arg-type]  # fmt: skip


def events(numbers: range) -> list[str]:
    return [json.dumps({"n": n, "user": f"u{n % 7}", "at": "2024-05-01T10:00:00Z"}) for n in numbers]


def loaded(made: Project, *, full: bool = False) -> list[ForetellError]:
    return [found for found in load(made, ["events"], full=full) if isinstance(found, ForetellError)]


def numbers(made: Project) -> list[int]:
    return [int(n) for (n,) in ask(made, "SELECT n FROM events ORDER BY n::INTEGER")]


def test_what_a_topic_has_is_loaded_and_then_what_is_new(broker: Broker, tmp_path: Path) -> None:
    made = project(tmp_path, source(broker))
    broker.send(events(range(10)), partition=0)
    broker.send(events(range(10, 30)), partition=3)
    assert loaded(made) == []
    assert loaded(made) == []
    assert numbers(made) == list(range(30))
    broker.send(events(range(30, 40)), partition=1)
    broker.send(events(range(40, 50)), partition=0)
    assert loaded(made) == []
    assert numbers(made) == list(range(50))
    parts = ask(made, "SELECT partition, count(*) FROM events GROUP BY 1 ORDER BY 1")
    assert parts == [("0", 20), ("1", 10), ("3", 20)]
    assert ask(made, "SELECT count(*) FROM events WHERE known_at < received_at OR received_at IS NULL") == [(30 + 20,)]


def test_what_is_no_row_goes_to_quarantine_and_line_ends_are_no_lines(broker: Broker, tmp_path: Path) -> None:
    made = project(tmp_path, source(broker))
    broker.send(['{"n": 1,\r\n "user": "u", "at": "2024-05-01T10:00:00Z", "receivedAt": "never", "invalid": 1}'])
    broker.send(
        ["no json", "[1]", "", "{" * 100, '{"n": 2, "user": "u", "at": "when?"}', '{"a":' * 80 + "1" + "}" * 80]
    )
    assert loaded(made) == []
    assert numbers(made) == [1]
    assert len(ask(made, "SELECT raw FROM quarantine")) == 6


def test_the_lines_of_a_killed_reader_are_found_again(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project(tmp_path, source(broker))
    broker.send(events(range(20)))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kafka, "_write", killed)  # the lines are there, what was read is not written down
        with pytest.raises(KeyboardInterrupt):
            loaded(made)
    broker.send(events(range(20, 25)), partition=2)
    assert loaded(made) == []
    assert numbers(made) == list(range(25))


@pytest.mark.slow
def test_kill_9_at_any_point_neither_loses_nor_doubles_a_message(broker: Broker, tmp_path: Path) -> None:
    made, rng = project(tmp_path, source(broker)), random.Random(5)
    program = f"""
from pathlib import Path
from foretell import Kafka, Source
from foretell.project import Project
from ingestion.connectors.kafka import Topic
source = Source(name="events", connector=Kafka(servers={broker.address!r}, topic="events"), event_at="at")
topic = Topic(Project(Path({str(made.folder)!r})), source)
while True:
    topic.take(0.01)
"""
    sent = 0
    for _ in range(8):
        reader = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        end = time.monotonic() + 1.5 + rng.random()
        while time.monotonic() < end:
            many = rng.randrange(1, 30)  # the mock broker keeps a few megabytes
            broker.send(events(range(sent, sent + many)), partition=rng.randrange(4))
            sent += many
            time.sleep(0.02)
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait(10)
    assert loaded(made) == []
    assert numbers(made) == list(range(sent))


def test_a_broker_that_is_away_for_ten_seconds_delays_and_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    made = project(tmp_path, source(broker))
    broker.send(events(range(10)))
    topic = kafka.Topic(made, made.definitions.source("events"))
    try:
        while topic._next[0] < 10:
            topic.take(0.2)
        broker.pause()
        back = threading.Timer(10, broker.go_on)
        back.start()
        end = time.monotonic() + 9
        while time.monotonic() < end:
            topic.take(0.2)
        back.join()
        broker.send(events(range(10, 20)))
        end = time.monotonic() + 60
        while topic._next[0] < 20:
            assert time.monotonic() < end
            topic.take(0.2)
    finally:
        topic.close()
    assert loaded(made) == []
    assert numbers(made) == list(range(20))


def test_errors_say_what_is_wrong(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "PATIENCE", 1.0)
    away = Source(
        name="events", connector=Kafka("127.0.0.1:9", "events"), event_at="at", identifiers={"user_id": "user"}
    )
    (problem,) = loaded(project(tmp_path / "away", away))
    assert "no broker answers" in str(problem)
    made = project(tmp_path / "lost", source(broker))
    broker.send(events(range(3)))
    assert loaded(made) == []
    positions = folder_of(made.home) / made.definitions.source("events").stream / "positions.json"  # type: ignore[operator]
    said = json.loads(positions.read_text())
    positions.write_text(json.dumps({**said, "next": {"0": 99}}))
    (problem,) = loaded(made)
    assert isinstance(problem, DataError)
    assert "--full" in str(problem)
    for wrong, said in [
        ({"servers": "here"}, "host:port"), ({"topic": "a b"}, "topic"), ({"options": {"group.id": "x"}}, "set by"),
        ({"options": {"sasl.password": "x"}}, "secret"),
    ]:  # fmt: skip
        with pytest.raises(DefinitionError, match=said):
            Source(name="x", connector=Kafka(**{"servers": "a:1", "topic": "t", **wrong}), event_at="at")  # type: ignore[arg-type]
