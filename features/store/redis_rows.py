"""How are packed rows kept in Redis? A key for each, `namespace:view:entity`, and the value in one piece.

The set `namespace` has the names of the views.

Whether a row is later than the one that is there is decided by the server, in one step with writing it, so that
writers cannot overtake each other. A row goes by itself when its life is over. One server, or a primary with replicas:
the keys of one step must lie together, so Redis Cluster is not supported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from foretell.connectors import redact, secret
from foretell.errors import DataError, DefinitionError, NotReady

T = TypeVar("T")
WRITE, READ = 2_000, 10_000  # rows in one step of the server, which answers nobody else meanwhile
# Of a row of the same schema the two stamps, four numbers, are compared: bytes, in Lua, go by the locale.
_SCRIPT = """
local life = tonumber(ARGV[1])
redis.call('SADD', ARGV[2], ARGV[3])
for i, key in ipairs(KEYS) do
  local new, old = ARGV[i + 3], redis.call('GETRANGE', key, 0, 23)
  local later = true
  if #old == 24 and string.sub(old, 1, 8) == string.sub(new, 1, 8) then
    local a, b, c, d = struct.unpack('>I4I4I4I4', old, 9)
    local e, f, g, h = struct.unpack('>I4I4I4I4', new, 9)
    if e ~= a then later = e > a
    elseif f ~= b then later = f > b
    elseif g ~= c then later = g > c
    else later = h >= d end
  end
  if later then
    if life > 0 then redis.call('SET', key, new, 'EX', life) else redis.call('SET', key, new) end
  end
end
return #KEYS
"""


class RedisRows:
    """The rows of a Redis server. For several threads and processes; connections are made when they are needed, and
    again when the server comes back.

    url: "redis://host:port/db", or "env:NAME" for a variable that holds one. namespace: before every key.
    """

    def __init__(self, url: str, namespace: str):
        self._url, self._namespace = url, namespace
        self._client: Any = None
        self._script: Any = None
        self._waiting: tuple[Any, Any] | None = None  # an event loop, and the client that belongs to it

    def write(self, table: str, keys: Sequence[str], values: Sequence[bytes], life: int | None = None) -> None:
        """Keep these rows, but for those of which there is a later one of the same schema.

        life: after how many seconds a row goes; None: never. If the server fails half way, some rows are written:
        writing them all again is harmless.
        """
        self._connected()
        head = self._head(table)
        for start in range(0, len(keys), WRITE):
            some = [head + key for key in keys[start : start + WRITE]]
            given = [life or 0, self._namespace, table, *values[start : start + WRITE]]
            self._told(lambda some=some, given=given: self._script(keys=some, args=given))

    def read(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values of these keys, None where there is none."""
        return self.read_views([(table, keys)])[0]

    def read_views(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """The values of keys of several views, in one question to the server."""
        client, names, found = self._connected(), self._names(asked), []
        for start in range(0, len(names), READ):
            some = names[start : start + READ]
            found += self._told(lambda some=some: client.mget(some))
        return _shared(found, asked)

    async def read_views_async(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """The same, on a connection of the event loop's own."""
        client, names, found = await self._connected_async(), self._names(asked), []
        for start in range(0, len(names), READ):
            try:
                found += await client.mget(names[start : start + READ])
            except _redis().RedisError as error:
                raise self._error(error) from error
        return _shared(found, asked)

    def _names(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        return [head + key for table, keys in asked for head in (self._head(table),) for key in keys]

    def keys(self, table: str) -> Iterator[str]:
        """The keys there are, each at least once."""
        client, head = self._connected(), self._head(table)
        pattern = "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in head) + "*"
        cursor: Any = None
        while cursor != 0:
            cursor, some = self._told(lambda at=cursor: client.scan(at or 0, match=pattern, count=5_000))
            yield from (key.decode()[len(head) :] for key in some)

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """Remove the rows of these keys. Returns how many there were."""
        client, head, rows = self._connected(), self._head(table), 0
        for start in range(0, len(keys), READ):
            some = [head + key for key in keys[start : start + READ]]
            rows += self._told(lambda some=some: client.unlink(*some))
        return rows

    def drop(self, table: str) -> None:
        """Remove all rows of a view."""
        self.delete(table, list(self.keys(table)))
        client = self._connected()
        self._told(lambda: client.srem(self._namespace, table))

    def tables(self) -> list[str]:
        """The views that have, or had, rows."""
        client = self._connected()
        return sorted(name.decode() for name in self._told(lambda: client.smembers(self._namespace)))

    def settle(self, vacuum: bool = False) -> None:
        """Nothing to do: the server writes as it is told to."""

    def close(self) -> None:
        """Close the connections; those of an event loop by `close_async`."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def close_async(self) -> None:
        """Close the event loop's connections."""
        if self._waiting and self._waiting[0] is asyncio.get_running_loop():
            await self._waiting[1].aclose()
            self._waiting = None

    def _head(self, table: str) -> str:
        return f"{self._namespace}:{table.replace(':', '%3a')}:"

    def reach(self) -> str:
        """The server's address, without what is secret in it. Raises why it does not answer."""
        client = self._connected()
        self._told(client.ping)
        return redact(self._address())

    def _connected(self) -> Any:
        if self._client is None:
            redis, address = _redis(), self._address()
            try:
                client = redis.Redis.from_url(address, **_options())
            except ValueError as error:
                problem = f"expected the address of a Redis server, got {redact(address)!r} ({error})"
                raise DefinitionError("online", problem, "write redis://host:port/db") from None
            self._script = client.register_script(_SCRIPT)  # sent again to a server that does not know it any more
            self._client = client
        return self._client

    async def _connected_async(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._waiting is None or self._waiting[0] is not loop:
            from redis.asyncio import Redis

            self._waiting = loop, Redis.from_url(self._address(), **_options(waiting=True))
        return self._waiting[1]

    def _address(self) -> str:
        return secret(self._url, "online")

    def _told(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except _redis().RedisError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> NotReady | DataError:
        redis, shown = _redis(), redact(self._address())
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return NotReady(
                "online store", f"Redis does not answer: {error}",
                "see that it runs and that the setting `online` says where, then run it again", where=shown,
            )  # fmt: skip
        return DataError(
            "online store", f"Redis refuses: {error}", "see that it has memory left and may be written", where=shown
        )


def _shared(found: list[bytes | None], asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
    """What was found, for each of the views again."""
    values = iter(found)
    return [list(islice(values, len(keys))) for _, keys in asked]


def _redis() -> Any:
    try:
        import redis
    except ImportError:
        raise NotReady(
            "online", "features are kept in Redis, whose client is not installed", "pip install foretell[redis]"
        ) from None
    return redis


def _options(waiting: bool = False) -> dict[str, Any]:
    """A server that was started again is tried again at once, one that is gone is given up after a second or two."""
    from redis.backoff import ExponentialBackoff

    if waiting:
        from redis.asyncio.retry import Retry
    else:
        from redis.retry import Retry
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 4)
    return {"retry": retry, "socket_timeout": 30, "socket_connect_timeout": 5}
