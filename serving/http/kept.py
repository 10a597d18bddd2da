"""Which answers need not be worked out again? The latest ones of a publication, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

ROOM = 64_000_000  # bytes
BESIDE = 300  # bytes that it takes to keep one, about


class Kept:
    """The latest answers of one publication, as many as there is room for."""

    def __init__(self, room: int = ROOM):
        self._room, self._size = room, 0
        self._known: OrderedDict[Any, bytes] = OrderedDict()

    def get(self, asked: Any) -> bytes | None:
        found = self._known.get(asked)
        if found is not None:
            self._known.move_to_end(asked)
        return found

    def put(self, asked: Any, answer: bytes) -> None:
        if asked in self._known:
            return
        self._known[asked] = answer
        self._size += len(answer) + BESIDE
        while self._size > self._room:
            _, old = self._known.popitem(last=False)
            self._size -= len(old) + BESIDE

    def clear(self) -> None:
        self._known.clear()
        self._size = 0
