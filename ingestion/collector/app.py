"""What does the collector answer? 200 once every message of a request is durable; else what is wrong with it.

A plain ASGI application, because it runs by itself and before the routes of the service. A request names the write key
as the user of its Basic authorization, or in its body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from foretell.errors import DataError
from ingestion.collector import messages, webhooks
from ingestion.collector.keys import Keys
from ingestion.collector.log import Full, Log, folder_of
from ingestion.collector.messages import Malformed
from ingestion.collector.webhooks import Refused

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# As the SDKs call them: the servers' in full, the browsers' and phones' by their first letter.
CALLS = {f"/v1/{name}": kind for kind in messages.KINDS for name in (kind, kind[0])}
CALLS |= {f"/v1/{name}": "batch" for name in ("batch", "b", "import")}
WEBHOOKS = "/v1/webhooks/"
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding, x-retry-count"),
    (b"access-control-max-age", b"86400"),
]
_JSON = [(b"content-type", b"application/json"), *_CORS[:1]]
_RETRY_AFTER = 1  # seconds
_DRAINED = 20  # times as much as a body may have is read
_PATIENCE = 20  # seconds that the body of a request may take


@dataclass(frozen=True)
class Limits:
    """batch, message: bytes of JSON, as the spec says. waiting: bytes, requests: requests that may wait at a time;
    whoever comes then is told to come again. segment: bytes after which a segment is sealed."""

    batch: int = 500_000
    message: int = 32_768
    waiting: int = 32_000_000
    requests: int = 500
    segment: int = 64_000_000

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Limits:
        """Limits as the environment sets them: FORETELL_COLLECT_BATCH, …"""
        found = {}
        for name in cls.__dataclass_fields__:
            variable = f"FORETELL_COLLECT_{name.upper()}"
            if text := environ.get(variable):
                if not text.isdigit() or int(text) < 1:
                    raise DataError(variable, f"expected a positive whole number, got {text!r}", "mend the variable")
                found[name] = int(text)
        return cls(**found)


class Answer(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, subject: str, problem: str, fix: str):
        self.status, self.subject, self.problem, self.fix = status, subject, problem, fix
        super().__init__(problem)


class Collector:
    """The application. counts: what it has answered since it started."""

    def __init__(self, home: Path, limits: Limits | None = None):
        self.limits = limits or Limits.of(os.environ)
        self.keys = Keys(home)
        self.log = Log(folder_of(home), segment=self.limits.segment, waiting=self.limits.waiting)
        self.seen = webhooks.Seen()
        self.counts: Counter[str] = Counter()
        self._inside = 0

    def close(self) -> None:
        """Write what waits and seal the segments."""
        self.log.close()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if self.mine(scope["path"]):
                await self.collect(scope, receive, send)
            else:
                await self._probe(scope["path"], send)

    def mine(self, path: str) -> bool:
        """Is it a path that takes messages?"""
        return path in CALLS or path.startswith(WEBHOOKS)

    async def collect(self, scope: Any, receive: Receive, send: Send) -> None:
        """Take a call of the event spec, or a webhook."""
        if scope["method"] == "OPTIONS":
            await _respond(send, 204, b"", _CORS)
            return
        status, said = 200, b'{"success":true}'
        self._inside += 1
        try:
            said = await self._taken(scope, receive)
        except Answer as no:
            status, said = no.status, _error(no.subject, no.problem, no.fix)
        except Malformed as no:
            status, said = no.status, _error(no.subject, no.problem, no.fix)
        except Refused as no:
            status, said = no.status, _error("webhook", no.problem, no.fix)
        except Full:
            status, said = 429, _error("collector", "more waits to be written than may", "come again in a second")
        except OSError as error:
            problem = f"cannot write: {error.strerror}"
            status, said = 503, _error("collector", problem, "send it again; free the disk of its home")
        except _Gone:
            return
        finally:
            self._inside -= 1
        self.counts[f'requests_total{{status="{status}"}}'] += 1
        headers = _JSON
        if status in (429, 503):
            headers = [*_JSON, (b"retry-after", b"%d" % _RETRY_AFTER)]
        elif status == 413:
            headers = [*_JSON, (b"connection", b"close")]
        await _respond(send, status, said, headers)

    async def _taken(self, scope: Any, receive: Receive) -> bytes:
        """The answer to a request whose messages are durable."""
        path, headers = scope["path"], dict(scope["headers"])
        if scope["method"] != "POST":
            raise Answer(405, path, f"expected POST, got {scope['method']}", "send the message as the body")
        if self._inside > self.limits.requests:
            raise Full
        if path.startswith(WEBHOOKS):
            return await self._webhook(path.removeprefix(WEBHOOKS), headers, receive)
        stream = None
        if given := headers.get(b"authorization"):
            stream = self._stream(_user(given))
        body = await _body(headers, receive, self.limits.batch)
        received = datetime.now(UTC)
        top = messages.parse(messages.whole_characters(body))
        if stream is None:
            key = messages.write_key(top)
            if not key:
                fix = "send the write key as the user name of Basic authorization"
                raise Answer(401, "write key", "expected a write key, got none", fix)
            stream = self._stream(key)
        kind = CALLS[path]
        if kind == "batch":
            taken = messages.batch(top, received, self.limits.message)
        else:
            taken = messages.one(kind, top, received, self.limits.message)
        if taken.lines:
            await self.log.append(stream, taken.data)
        self.counts["messages_total"] += len(taken.lines) - len(taken.problems)
        if not taken.problems:
            return b'{"success":true}'
        self.counts["quarantined_total"] += len(taken.problems)
        told = [{"message": n, "problem": problem} for n, problem in taken.problems]
        return msgspec.json.encode({"success": True, "quarantined": told})

    def _stream(self, key: str) -> str:
        stream = self.keys.stream_of(key)
        if stream is None:
            raise Answer(401, "write key", "is unknown, or was revoked", "`foretell collect key new NAME` makes one")
        return stream

    async def _webhook(self, name: str, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        hook = self.keys.webhook(name)
        if hook is None:
            fix = "`foretell collect webhook new NAME` declares one"
            raise Answer(404, name[:100], "no such webhook", fix)
        secret = hook.key()
        if not secret:
            problem = f"its secret is not in the environment: {hook.secret_env} is not set"
            raise Answer(503, name, problem, "set it where the collector is started")
        body = await _body(headers, receive, self.limits.batch)
        plain = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers.items()}
        id, delivery = webhooks.check(hook.how(), secret, plain, body, time.time())
        if delivery in self.seen:
            raise Refused(409, "this delivery was taken before", "nothing is to be done; a new one is signed anew")
        line = messages.webhook(messages.whole_characters(body), name, id, datetime.now(UTC))
        self.seen.add(delivery)
        try:
            await self.log.append(name, line)
        except BaseException:
            self.seen.discard(delivery)
            raise
        self.counts["webhooks_total"] += 1
        return b'{"success":true}'

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _probe(self, path: str, send: Send) -> None:
        """What is asked about the collector itself, where it runs alone."""
        if path == "/livez" or (path == "/readyz" and not self.log.failure):
            await _respond(send, 200, b'{"status":"ok"}', _JSON)
        elif path == "/readyz":
            said = _error("collector", f"the last write failed: {self.log.failure}", "free the disk of its home")
            await _respond(send, 503, said, _JSON)
        elif path == "/metrics":
            await _respond(send, 200, self.metrics().encode(), [(b"content-type", b"text/plain; version=0.0.4")])
        else:
            known = "/v1/identify, track, page, screen, group, alias, batch and /v1/webhooks/NAME"
            await _respond(send, 404, _error(path[:100], "no such route", f"known: {known}"), _JSON)

    def metrics(self) -> str:
        """Counters, as Prometheus reads them."""
        return "".join(f"foretell_collector_{name} {n}\n" for name, n in sorted(self.counts.items()))


class _Gone(Exception):
    """The sender has hung up."""


async def _body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The body of a request, unpacked. One that is too large is refused, whatever it says of its length.

    It is read to its end and forgotten, unless it is far too large, so that its sender comes to hear the answer.
    """
    parts, size = [], 0
    said = headers.get(b"content-length", b"")
    if said.isdigit() and int(said) > _DRAINED * most:
        raise _large(most, f"{int(said):,}")
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part = message.get("body", b"")
                size += len(part)
                if size <= most:
                    parts.append(part)
                elif size > _DRAINED * most:
                    raise _large(most, "more")
                if not message.get("more_body"):
                    break
    except TimeoutError:
        problem = f"expected a body within {_PATIENCE} s, got {size:,} bytes of it"
        raise Answer(408, "body", problem, "send it again") from None
    if size > most:
        raise _large(most, f"{size:,}")
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    packed = headers.get(b"content-encoding", b"identity").strip().lower()
    return body if packed in (b"identity", b"") else _unpacked(body, packed, most)


def _unpacked(body: bytes, packed: bytes, most: int) -> bytes:
    if packed != b"gzip":
        raise Answer(
            415, "Content-Encoding", f"expected gzip or none, got {packed.decode('latin-1')[:40]}", "send gzip"
        )
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unpack.decompress(body, most + 1)
    except zlib.error as error:
        raise Malformed("body", f"expected gzip: {error}", "pack it anew") from None
    if len(plain) > most:
        raise _large(most, "more when unpacked")
    if not unpack.eof:
        raise Malformed("body", "expected gzip, but it ends too early", "send all of it")
    return plain


def _large(most: int, got: str) -> Answer:
    return Answer(413, "body", f"expected at most {most:,} bytes, got {got}", "send fewer messages at a time")


def _user(authorization: bytes) -> str:
    """The user name of Basic authorization."""
    way, _, rest = authorization.partition(b" ")
    try:
        if way.lower() == b"basic":
            return base64.b64decode(rest, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise Answer(401, "Authorization", "expected Basic with the write key as user name", "see the SDK's settings")


def _error(subject: str, problem: str, fix: str) -> bytes:
    return msgspec.json.encode({"error": {"subject": subject, "problem": problem, "fix": fix}})


async def _respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
