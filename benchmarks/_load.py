"""How many answers a second does a server give? Clients that keep their connection open, in a process of their own.

The clients are one thread of plain sockets, so that they take as little as can be from a server on the same machine:
http.client spends more on a request than a fast server does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Request = tuple[str, str, str]
"""Method, path, body. What follows the path on lines of its own are headers."""


@dataclass
class Heard:
    """Answers: seconds each took, seconds in all, how many were no success, and the first of these."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    bad: int = 0
    said: str = ""

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.wall

    def ms(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent)) * 1e3


class _Client(asyncio.Protocol):
    """Sends one request after the other, each when the one before is answered."""

    def __init__(self, requests: list[bytes], heard: Heard, expect: bytes):
        self.requests, self.heard, self.expect = requests, heard, expect
        self.done = asyncio.get_running_loop().create_future()
        self.buffer, self.next, self.sent = bytearray(), 0, 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        if self.next == len(self.requests):
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.next += 1
        self.sent = time.perf_counter()
        self.transport.write(self.requests[self.next - 1])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self.buffer[:head]).lower()
        place = lower.index(b"content-length:") + len(b"content-length:")
        end = head + 4 + int(lower[place:].split(b"\r\n", 1)[0])
        if len(self.buffer) < end:
            return
        self.heard.seconds.append(time.perf_counter() - self.sent)
        if not self.buffer.startswith(b"HTTP/1.1 2") or self.expect not in self.buffer:
            self.heard.bad += 1
            self.heard.said = self.heard.said or bytes(self.buffer[:400]).decode(errors="replace")
        del self.buffer[:end]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed the connection after {self.next} requests"))


def _bytes(request: Request, port: int) -> bytes:
    method, path, body = request
    path, _, headers = path.partition("\n")
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n"
    return f"{head}\r\n{body}".encode()


async def _together(port: int, requests: Sequence[Request], clients: int, expect: str) -> Heard:
    heard, loop = Heard(), asyncio.get_running_loop()
    shares = [[_bytes(r, port) for r in requests[i::clients]] for i in range(min(clients, len(requests)))]
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda share=share: _Client(share, heard, expect.encode()), "127.0.0.1", port)
        for share in shares
    ]
    await asyncio.gather(*(client.done for _, client in made))
    heard.wall = time.perf_counter() - began
    return heard


def _run(port: int, requests: Sequence[Request], clients: int, expect: str) -> Heard:
    return asyncio.run(_together(port, requests, clients, expect))


class Load:
    """A process of clients. expect: what each answer must have in it, else it counts as bad."""

    def __enter__(self) -> Load:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def ask(self, port: int, requests: Sequence[Request], clients: int, expect: str = "") -> Heard:
        """These requests, shared among so many clients at once."""
        return self._pool.submit(_run, port, list(requests), clients, expect).result()
