"""Is it a message of the event spec, and what is kept of it? The message as it came, and what only its receiver knows.

A line of a stream is the message itself: `receivedAt` is added, `messageId` where there is none, `timestamp` is set
right by what the sender's clock was off (the original is kept), and the write key is left out. Values are passed on
byte by byte: no number is rounded.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

KINDS = ("identify", "track", "page", "screen", "group", "alias")
INVALID = '{"invalid":'  # how the line of a message that could not be understood begins; no other line does
DEPTH = 64  # levels of JSON


class Malformed(Exception):
    """A body of which nothing can be kept: subject, problem, fix."""

    def __init__(self, subject: str, problem: str, fix: str, status: int = 400):
        self.subject, self.problem, self.fix, self.status = subject, problem, fix, status
        super().__init__(f"{subject}: {problem}")


class _Head(msgspec.Struct, gc=False):
    """What must be understood of a message; the rest may be anything."""

    type: str | None = None
    event: str | None = None
    userId: str | int | float | None = None  # noqa: N815 - the spec's names
    anonymousId: str | int | float | None = None  # noqa: N815
    previousId: str | int | float | None = None  # noqa: N815
    groupId: str | int | float | None = None  # noqa: N815
    messageId: str | int | None = None  # noqa: N815
    timestamp: Any = None
    sentAt: Any = None  # noqa: N815
    # names that are ours to give: whether they are there
    receivedAt: Raw | UnsetType = UNSET  # noqa: N815
    originalTimestamp: Raw | UnsetType = UNSET  # noqa: N815
    writeKey: Raw | UnsetType = UNSET  # noqa: N815
    invalid: Raw | UnsetType = UNSET


@dataclass
class Taken:
    """Lines to be kept. problems: (which message, counted from 0; what is wrong with it)."""

    lines: list[bytes] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """The lines, each with its end."""
        return b"\n".join([*self.lines, b""])


_object = msgspec.json.Decoder(dict[str, Raw]).decode
_list = msgspec.json.Decoder(list[Raw]).decode
_head = msgspec.json.Decoder(_Head).decode
_heads = msgspec.json.Decoder(list[_Head]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes) -> dict[str, Raw]:
    """The top of a JSON object. Malformed says where it is none."""
    return _read(_object, body, "body")


def write_key(top: dict[str, Raw]) -> str | None:
    """The write key that a body names, if it does."""
    found = _any(top["writeKey"]) if "writeKey" in top else None
    return found if isinstance(found, str) else None


def one(kind: str, top: dict[str, Raw], received: datetime, largest: int) -> Taken:
    """The line of a call to /v1/<kind>. A message that is not understood is refused, as its sender can hear it."""
    raw = _encode(top)
    try:
        return Taken([_line(raw, _head(raw), kind, _Common(raw, {}, received), largest)])
    except (ValueError, msgspec.MsgspecError) as error:
        raise Malformed("message", _said(error), "see the event spec") from None


def batch(top: dict[str, Raw], received: datetime, largest: int) -> Taken:
    """The lines of a call to /v1/batch.

    The SDKs give up a whole batch that is refused. So its good messages are kept, and each other one becomes a line
    that says what is wrong: loading puts it into quarantine.
    """
    if "batch" not in top:
        raise Malformed("batch", "expected a list of messages, got none", 'send {"batch": [{"type": "track", …}, …]}')
    raws = _read(_list, top["batch"], "batch")
    shared = {name: top[name] for name in ("sentAt", "context", "integrations") if name in top}
    common = _Common(bytes(top["batch"]), shared, received)
    try:
        heads = _heads(top["batch"])  # all at once, unless one of them is wrong
    except msgspec.MsgspecError:
        heads = [None] * len(raws)
    taken = Taken()
    for n, (message, head) in enumerate(zip(raws, heads, strict=True)):
        raw = bytes(message)
        try:
            line = head and common.plain and _spliced(raw, head, common, largest)
            taken.lines.append(line or _line(raw, head or _head(raw), None, common, largest))
        except (ValueError, msgspec.MsgspecError) as error:
            problem = _said(error)
            taken.problems.append((n, problem))
            wrong = {"invalid": problem, "receivedAt": common.stamp, "message": Raw(raw)}
            taken.lines.append(one_line(_encode(wrong)))
    return taken


def webhook(body: bytes, name: str, id: str, received: datetime) -> bytes:
    """The line of a webhook: its body, whatever it is, below `body`."""
    _read(msgspec.json.Decoder(Raw).decode, body, "body")
    if depth(body) > DEPTH:
        raise Malformed("body", f"expected at most {DEPTH} levels", "flatten it")
    line = {"receivedAt": stamp(received), "type": "webhook", "webhook": name, "messageId": id, "body": Raw(body)}
    return one_line(_encode(line)) + b"\n"


class _Common:
    """What the messages of one request share: fields of the batch, when it was received and, by its sender, sent."""

    def __init__(self, text: bytes, fields: dict[str, Raw], received: datetime):
        self.fields, self.received, self.stamp = fields, received, stamp(received)
        self.sent = _instant(_any(fields["sentAt"])) if "sentAt" in fields else None
        # Whether what is ours may be put into messages that stay as they are. Where brackets of one kind are few, those
        # of the other say how deep a message is.
        self.plain = (
            self.sent is not None
            and fields.keys() == {"sentAt"}
            and b"\n" not in text
            and b"\r" not in text
            and text.count(b"[") <= DEPTH // 2
        )
        if self.plain and self.sent:
            self.ahead = received - self.sent  # our clock is, of the sender's
            before = b'"receivedAt":"%b","sentAt":%b,"timestamp":'
            self.before = before % (self.stamp.encode(), bytes(fields["sentAt"]))


_TIMESTAMP, _AFTER = b'"timestamp"', b',"originalTimestamp"'
_NONE = (None, "")


def _spliced(raw: bytes, head: _Head, common: _Common, largest: int) -> bytes | None:
    """The line of a message as the SDKs send it: what is ours is put where its timestamp stands.

    None if it is not quite like that, or wrong: then `_line` looks closer. This one takes a third of the time.
    """
    time = head.timestamp
    if (
        len(raw) > largest
        or raw.count(b"{") > DEPTH // 2
        or not (head.messageId and (head.userId or head.anonymousId))
        or not (head.event if head.type == "track" else head.type in _BY_SOMEONE)
        or time.__class__ is not str
        or head.sentAt is not None
        or not (head.receivedAt is head.originalTimestamp is head.writeKey is head.invalid is UNSET)
    ):
        return None
    try:
        happened = _from_iso(time)
        if happened.tzinfo is not UTC:
            return None
        ours = common.before + _encode(happened + common.ahead) + _AFTER
    except (ValueError, TypeError, OverflowError):
        return None
    line = raw.replace(_TIMESTAMP, ours)
    # one was replaced: the one there is, is the message's own
    return line if len(line) == len(raw) + len(ours) - len(_TIMESTAMP) else None


_from_iso = datetime.fromisoformat
_BY_SOMEONE = ("identify", "page", "screen")


def _line(raw: bytes, head: _Head, kind: str | None, common: _Common, largest: int) -> bytes:
    """The line of any message, field by field. A ValueError says what is wrong with it."""
    if len(raw) > largest:
        raise ValueError(f"expected a message of at most {largest:,} bytes, got {len(raw):,}")
    if raw.count(b"{") + raw.count(b"[") > DEPTH and depth(raw) > DEPTH:
        raise ValueError(f"expected at most {DEPTH} levels of JSON, got more")
    _check(head, kind)
    fields = _object(raw)
    fields.pop("writeKey", None)
    fields.pop("receivedAt", None)
    kept: dict[str, Any] = {"receivedAt": common.stamp, "type": kind, **common.fields, **fields}
    if head.type is None:
        kept["type"] = kind
    if head.messageId in _NONE:
        kept["messageId"] = secrets.token_hex(16)
    sent = common.sent if head.sentAt is None else _instant(head.sentAt)
    if head.timestamp is None:
        kept["timestamp"] = common.stamp
    elif sent and (happened := _instant(head.timestamp)):
        # As long before we received it as it was, by the sender's clock, before it was sent. Where one of these is no
        # time, the sender's word stands, and is judged when it is loaded.
        with contextlib.suppress(OverflowError):
            corrected = stamp(common.received - (sent - happened))
            kept.setdefault("originalTimestamp", kept["timestamp"])
            kept["timestamp"] = corrected
    return one_line(_encode(kept))


def _check(head: _Head, kind: str | None) -> None:
    said = head.type or kind
    if said not in KINDS:
        raise ValueError(f"type: expected one of {', '.join(KINDS)}, got {said!r}")
    if kind and said != kind:
        raise ValueError(f"type: expected {kind}, as in the path, got {said}")
    if said == "alias":
        if head.previousId in _NONE or head.userId in _NONE:
            raise ValueError("an alias call needs previousId and userId")
    elif head.userId in _NONE and head.anonymousId in _NONE:
        raise ValueError(f"a {said} call needs userId or anonymousId")
    if said == "track" and not head.event:
        raise ValueError("a track call needs event")
    if said == "group" and head.groupId in _NONE:
        raise ValueError("a group call needs groupId")


def _said(error: Exception) -> str:
    """An error of msgspec in the words of ours."""
    text, _, at = str(error).replace("`", "").partition(" - at $")
    text = text.replace("Expected", "expected").replace("str", "text").replace("int | float", "number")
    return f"{at.removeprefix('.')}: {text}" if at.startswith(".") else text


def stamp(at: datetime) -> str:
    """An instant of UTC as text."""
    return _encode(at)[1:-1].decode()


def _instant(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def one_line(line: bytes) -> bytes:
    """In valid JSON a line end stands between values only."""
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line


_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def depth(raw: bytes) -> int:
    """How many levels deep JSON is."""
    deepest = level = 0
    for found in _BRACKET.finditer(raw):
        mark = found[0]
        if mark in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif mark in b"]}":
            level -= 1
    return deepest


def _read(decode: Callable[[Any], Any], text: bytes | Raw, subject: str) -> Any:
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise Malformed(subject, _said(error), "see the event spec") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(subject, f"expected JSON: {error}", "mend it") from None
    except RecursionError:
        raise Malformed(subject, f"expected at most {DEPTH} levels of JSON, got very many", "flatten it") from None


_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}\Z")


def whole_characters(body: bytes) -> bytes:
    """A body as UTF-8 whose escapes are characters: browsers send half of one when a text was cut within an emoji.

    No JSON reader that keeps to the standard takes it; the replacement character stands for it. Malformed: not UTF-8.
    """
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise Malformed("body", f"expected UTF-8, got something else at byte {error.start:,}", "encode it") from None
    if b"\\" not in body or not re.search(rb"\\u[dD][89a-fA-F]", body):
        return body
    return _ESCAPE.sub(lambda found: rb"\ufffd" if _HALF.fullmatch(found[0]) else found[0], body)
