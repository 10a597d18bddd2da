"""Which answers need not be worked out again? The latest ones of a publication, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

ROOM = 64_000_000  # bytes
BESIDE = 300  # bytes that it takes to keep one, about


class Kept:
    """The latest answers of one publication, as many as there is room for."""

    def __init__(self, room: int = ROOM):
        self._room, self._size = room, 0
        self._known: OrderedDict[Any, tuple[bytes, tuple[str, ...]]] = OrderedDict()
        self._about: dict[str, set[Any]] = {}

    def get(self, asked: Any) -> bytes | None:
        found = self._known.get(asked)
        if found is None:
            return None
        self._known.move_to_end(asked)
        return found[0]

    def put(self, asked: Any, answer: bytes, about: Iterable[str] = ()) -> None:
        """about: the profiles that the answer is about."""
        if asked in self._known:
            return
        names = tuple(about)
        self._known[asked] = answer, names
        for name in names:
            self._about.setdefault(name, set()).add(asked)
        self._size += len(answer) + BESIDE
        while self._size > self._room:
            self._forget(next(iter(self._known)))

    def drop(self, names: Iterable[str]) -> None:
        """Forget the answers about some profiles."""
        for name in names:
            for asked in list(self._about.get(name, ())):
                self._forget(asked)

    def _forget(self, asked: Any) -> None:
        old, names = self._known.pop(asked)
        self._size -= len(old) + BESIDE
        for name in names:
            if not (others := self._about[name]) - {asked}:
                del self._about[name]
            else:
                others.discard(asked)

    def clear(self) -> None:
        self._known.clear()
        self._about.clear()
        self._size = 0
