"""How do Kafka's messages become lines of a stream, each exactly once? How far a topic was read lies beside its lines.

Messages are appended to the stream's log, durably; then `positions.json` says the next offset of each partition, and up
to where in the log that holds. Whoever is killed between the two finds what was appended behind that place, as every
line says its partition and offset. The broker's own offsets are not used: they could not be moved in one step with the
log.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from filelock import FileLock, Timeout

from foretell.connectors import Kafka, secret
from foretell.declarations import Source
from foretell.errors import DataError, ForetellError, NotReady
from foretell.project import Project
from ingestion.collector.log import OPEN, SEALED, Segment, folder_of
from ingestion.collector.messages import DEPTH, INVALID, depth, one_line

if TYPE_CHECKING:
    from confluent_kafka import Message

PATIENCE = 15.0  # seconds until a broker must have answered
AT_ONCE = 1_000  # messages
_POSITIONS, _LOCK = "positions.json", "kafka.lock"
_SEGMENT = 64_000_000  # bytes after which a segment is sealed
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Followed(NotReady):
    """Another process follows the topic."""


class Topic:
    """Follows a topic into its log. One process at a time: Followed says that another one does.

    full: begin with the first messages that the broker still has. Raises DataError if no broker answers.
    """

    def __init__(self, project: Project, source: Source, *, full: bool = False):
        assert isinstance(source.connector, Kafka)
        self._source, self._kafka = source.name, source.connector
        self._folder = folder_of(project.home) / self._kafka.stream
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._folder / _LOCK, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise Followed(self._source, "another process follows its topic", "what it reads is loaded too") from None
        try:
            self._consumer = self._connected()
            self._next = {} if full else _recovered(self._folder)
            self._assigned: dict[int, int] = {}
            self._segment: Segment | None = None
            self._looked = 0.0
            self._look()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._consumer.close()
        if self._segment:
            self._segment.close()  # whoever loads seals it
        self._lock.release()

    def take(self, seconds: float = 0.0) -> int:
        """Append what the broker has, about a thousand messages, waiting so long for the first. Returns how many."""
        if time.monotonic() - self._looked > 30:
            try:
                self._look()
            except DataError:  # no broker answers: librdkafka goes on trying, and so do we
                self._looked = time.monotonic()
        found = self._consumer.consume(AT_ONCE, seconds)
        for message in found:
            if error := message.error():
                self._refuse(error, message)
        found = [m for m in found if not m.error() and (m.offset() or 0) >= self._next.get(m.partition() or 0, 0)]
        if found:
            self._append(found)
        return len(found)

    def drain(self, say: Callable[[str], None] = lambda text: None) -> int:
        """Append all that the broker has now. Returns how many messages."""
        ends = {part: self._watermarks(part)[1] for part in self._assigned}
        count, quiet = 0, time.monotonic()
        while any(self._next.get(part, 0) < end for part, end in ends.items()):
            if taken := self.take(0.5):
                count, quiet = count + taken, time.monotonic()
                say(f"{self._source}: {count:,} messages of {self._kafka.shown}")
            elif time.monotonic() - quiet > PATIENCE:
                left = sum(max(0, end - self._next.get(part, 0)) for part, end in ends.items())
                raise DataError(
                    self._source, f"the broker stopped answering: {count:,} messages came, {left:,} are still there",
                    "run it again: it goes on behind the last one",
                )  # fmt: skip
        return count

    def _connected(self) -> Any:
        try:
            from confluent_kafka import Consumer
        except ImportError:
            fix = "pip install 'foretell[kafka]'"
            raise NotReady(self._source, "confluent-kafka is not installed, by which Kafka is read", fix) from None
        options = {name: secret(value, self._source) for name, value in self._kafka.options.items()}
        return Consumer({
            **options, "bootstrap.servers": secret(self._kafka.servers, self._source), "group.id": "foretell",
            "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "error",
            "log_level": options.get("log_level", 0), "reconnect.backoff.max.ms": 1_000,
        })  # fmt: skip

    def _look(self) -> None:
        """Read every partition there is, each behind what was read of it."""
        from confluent_kafka import KafkaException, TopicPartition

        try:
            topic = self._consumer.list_topics(self._kafka.topic, timeout=PATIENCE).topics[self._kafka.topic]
        except KafkaException as error:
            raise self._unreachable(error) from None
        if topic.error or not topic.partitions:
            problem = f"there is no {self._kafka.shown} ({topic.error.str() if topic.error else 'no partitions'})"
            raise DataError(self._source, problem, "check the topic in the contract")
        for part in sorted(topic.partitions.keys() - self._assigned.keys()):
            low, high = self._watermarks(part)
            begin = self._next.setdefault(part, low)
            if not low <= begin <= high:
                what = (
                    f"{low - begin:,} messages of partition {part} are gone"
                    if begin < low
                    else "the topic was made anew"
                )
                raise DataError(
                    self._source, f"{what}: it was read up to {begin:,}, and the broker has {low:,} to {high:,}",
                    f"`foretell load {self._source} --full` begins with what there is",
                )  # fmt: skip
            self._assigned[part] = begin
            self._consumer.incremental_assign([TopicPartition(self._kafka.topic, part, begin)])
        self._looked = time.monotonic()

    def _watermarks(self, part: int) -> tuple[int, int]:
        from confluent_kafka import KafkaException, TopicPartition

        try:
            return self._consumer.get_watermark_offsets(TopicPartition(self._kafka.topic, part), timeout=PATIENCE)
        except KafkaException as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ForetellError:
        said = error.args[0].str() if error.args and hasattr(error.args[0], "str") else str(error)
        return DataError(self._source, f"no broker answers ({said})", "is the address right, and does it run?")

    def _refuse(self, error: Any, message: Message) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise DataError(
                self._source, f"messages of partition {message.partition()} are gone before they were read",
                f"`foretell load {self._source} --full` begins with what there is",
            )  # fmt: skip
        if error.fatal():
            raise DataError(self._source, f"Kafka: {error.str()}", "mend that, and run it again")

    def _append(self, found: list[Message]) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        data = b"".join(_line(message, now) for message in found)
        segment = self._segment or Segment(self._folder)
        if not segment.append(data):  # sealed by who loads
            segment = Segment(self._folder)
            segment.append(data)
        self._segment = segment
        for message in found:
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
        _write(self._folder, self._next, segment.path.stem, segment.size)
        if segment.size >= _SEGMENT:
            segment.seal()
            self._segment = None


def _line(message: Message, now: str) -> bytes:
    """A message as a line of the log."""
    value, key = message.value() or b"", message.key()
    about = {
        "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
        "at": message.timestamp()[1], "key": key.decode(errors="replace") if isinstance(key, bytes) else key,
    }  # fmt: skip
    try:
        fields = _object(value)
        problem = f"expected at most {DEPTH} levels" if depth(value) > DEPTH else ""
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fields, problem = {}, "expected a JSON object"
    if problem:  # loading puts it into quarantine
        fields = {"invalid": problem, "receivedAt": now, "kafka": about, "message": value.decode(errors="replace")}
    else:
        fields = {"receivedAt": now, "kafka": about} | {k: v for k, v in fields.items() if k not in _ADDED}
    return one_line(_encode(fields)) + b"\n"


_ADDED = ("receivedAt", "kafka", "invalid")
assert _encode({"invalid": ""}).startswith(INVALID.encode())


def _write(folder: Path, offsets: dict[int, int], segment: str, size: int) -> None:
    draft = folder / f".{_POSITIONS}"
    draft.write_text(json.dumps({"next": offsets, "segment": segment, "size": size}))
    os.replace(draft, folder / _POSITIONS)


def _recovered(folder: Path) -> dict[int, int]:
    """The next offset of each partition: as written down, and behind what was appended after that."""
    file = folder / _POSITIONS
    said = json.loads(file.read_text()) if file.exists() else {"next": {}, "segment": "", "size": 0}
    found = {int(part): offset for part, offset in said["next"].items()}
    for segment in sorted(path for path in folder.iterdir() if path.suffix in (OPEN, SEALED)):
        if segment.stem < said["segment"]:
            continue
        data = segment.read_bytes()[said["size"] if segment.stem == said["segment"] else 0 :]
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            if b'"kafka"' in line:
                about = json.loads(line)["kafka"]
                found[about["partition"]] = max(found.get(about["partition"], 0), about["offset"] + 1)
    return found
