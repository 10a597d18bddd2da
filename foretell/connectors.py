"""Where does a source get its rows from, when it has no files? A SQL database, a REST API or Kafka, said in a contract.

Secrets are named, never written: `env:SHOP_DB` stands for what the environment variable SHOP_DB holds when rows are
pulled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from foretell.errors import DefinitionError, NotReady

_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_AUTH = re.compile(r"(bearer|basic|header [\w-]+|query [\w.-]+) env:[A-Za-z_][A-Za-z0-9_]*")
SQL_SCHEMES = ("postgresql", "postgres", "sqlite")


@dataclass(frozen=True)
class PageNumber:
    """`?page=1`, `?page=2`, … until a page has no records. size, size_parameter: how many to ask for, if at all."""

    parameter: str = "page"
    first: int = 1
    size: int | None = None
    size_parameter: str = "per_page"


@dataclass(frozen=True)
class Offset:
    """`?offset=0&limit=100`, … moved by the records that came, until none do."""

    parameter: str = "offset"
    limit: int = 100
    limit_parameter: str = "limit"


@dataclass(frozen=True)
class Cursor:
    """The body says where the next page starts, at `path`; it is asked for as `parameter`. Ends where there is none."""

    path: str
    parameter: str = "cursor"


@dataclass(frozen=True)
class NextLink:
    """The answer says the address of the next page: in its Link header, or in the body at `path`."""

    path: str | None = None


Paging = PageNumber | Offset | Cursor | NextLink


@dataclass(frozen=True)
class SQL:
    """The rows of a table or query of a database.

    url: "postgresql://user@host/db", "sqlite:///file.db" (relative to the project), or "env:NAME" for a variable that
        holds one. A password may only come from a variable.
    table: its name, with its schema if need be ("sales.orders"); or query: a SELECT. One of them.
    watermark: column that grows when a row is added or changed: only rows from the last value on are read. Without
        it the whole table is read every time; rows known already are recognised.
    overlap: read again this far below the last watermark, for rows that were committed late: a duration, or a number
        for a column of numbers. None: 5 minutes, or 1,000.
    rows: how many rows make one batch.
    """

    url: str
    table: str | None = None
    query: str | None = None
    watermark: str | None = None
    overlap: timedelta | int | None = None
    rows: int = 100_000

    def check(self, source: str, where: str) -> None:
        if not _ENV.fullmatch(self.url):
            parts = urlsplit(self.url)
            if parts.scheme not in SQL_SCHEMES:
                raise DefinitionError(
                    source, f"expected the url of a PostgreSQL or SQLite database, got {redact(self.url)!r}",
                    'write "postgresql://user@host/db", "sqlite:///file.db" or "env:NAME"', where=where,
                )  # fmt: skip
            if parts.password or "password=" in parts.query:
                raise DefinitionError(
                    source, "the url holds a password", 'put the url into an environment variable, say url="env:NAME"',
                    where=where,
                )  # fmt: skip
        if (self.table is None) == (self.query is None):
            raise DefinitionError(source, "expected a table or a query, one of them", 'say table="orders"', where=where)
        if self.rows < 1:
            raise DefinitionError(source, f"rows must be at least 1, got {self.rows}", "leave it out", where=where)
        _check_overlap(self, source, where)

    @property
    def shown(self) -> str:
        return f"table {self.table}" if self.table else "query"

    @property
    def fingerprint(self) -> str:
        """Changes when a watermark that was reached says nothing any more."""
        return _digest("sql", self.table, self.query, self.watermark)


@dataclass(frozen=True)
class REST:
    """The records of a JSON API.

    url: "https://host/path" or "env:NAME". records: where the body holds them ("data.items"; "": it is the list).
    paginate: PageNumber, Offset, Cursor or NextLink; None: one answer has them all.
    auth: "bearer env:NAME", "basic env:NAME" (holds user:password), "header X-Api-Key env:NAME", "query key env:NAME".
    watermark: path in a record of a value that grows when it is added or changed; since_parameter: how the API is
        asked for records from a value on. Without them all records are read every time.
    overlap: ask again this far below the last watermark, for records that came to be late. None: 5 minutes, or 1,000.
    steady: pages do not shift while they are read, as rows are only added at the end. Otherwise several pages are read
        once more to make sure that none was passed over, unless they are marked by a Cursor.
    params, headers: sent with every request.
    """

    url: str
    records: str = ""
    paginate: Paging | None = None
    auth: str | None = None
    watermark: str | None = None
    since_parameter: str | None = None
    overlap: timedelta | int | None = None
    steady: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: str, where: str) -> None:
        if not _ENV.fullmatch(self.url):
            parts = urlsplit(self.url)
            if parts.scheme not in {"http", "https"} or not parts.netloc:
                raise DefinitionError(
                    source, f"expected the address of an API, got {redact(self.url)!r}",
                    'write "https://host/path" or "env:NAME"', where=where,
                )  # fmt: skip
            if parts.password:
                raise DefinitionError(source, "the url holds a password", 'say auth="basic env:NAME"', where=where)
        if self.paginate is not None and not isinstance(self.paginate, Paging):
            raise DefinitionError(
                source, f"paginate is PageNumber, Offset, Cursor or NextLink, got {self.paginate!r}",
                'write for example paginate=Cursor(path="next_cursor")', where=where,
            )  # fmt: skip
        if self.auth is not None and not _AUTH.fullmatch(self.auth):
            raise DefinitionError(  # what came is not shown: it may be the secret itself
                source, "auth is not of the forms it may have",
                'write "bearer env:NAME", "basic env:NAME", "header X-Api-Key env:NAME" or "query key env:NAME"',
                where=where,
            )  # fmt: skip
        if (self.watermark is None) != (self.since_parameter is None):
            raise DefinitionError(
                source, "watermark and since_parameter go together: one is read, the other asked with",
                'say watermark="updated_at", since_parameter="updated_since"', where=where,
            )  # fmt: skip
        _check_overlap(self, source, where)

    @property
    def shown(self) -> str:
        return redact(self.url)

    @property
    def fingerprint(self) -> str:
        said = None if self.url.startswith("env:") else self.url
        return _digest("rest", said, self.records, sorted(self.params.items()), self.watermark)


@dataclass(frozen=True)
class Kafka:
    """The messages of a topic: JSON objects, one a row.

    servers: "host:port", several with commas, or "env:NAME". topic: its name.
    options: further settings of librdkafka, such as {"security.protocol": "SASL_SSL", "sasl.password": "env:NAME"}; a
        secret may only come from a variable.

    Messages become lines of the stream `stream`, each once, whatever is killed: how far a topic was read lies beside
    the lines, not with the broker. `foretell stream` follows the topic; `foretell load` reads what is there. To the
    fields of a message it adds `receivedAt`, and `kafka`: topic, partition, offset, at (the broker's time) and key.
    """

    servers: str
    topic: str
    options: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: str, where: str) -> None:
        if not _ENV.fullmatch(self.servers) and not all(_SERVER.fullmatch(one) for one in self.servers.split(",")):
            raise DefinitionError(
                source, f"expected servers as host:port, got {self.servers!r}",
                'write servers="broker1:9092,broker2:9092" or "env:NAME"', where=where,
            )  # fmt: skip
        if not _TOPIC.fullmatch(self.topic):
            raise DefinitionError(source, f"expected the name of a topic, got {self.topic!r}", "mend it", where=where)
        for name, value in self.options.items():
            if ("password" in name or "secret" in name) and not _ENV.fullmatch(value):
                fix = f'put it into an environment variable, and say "{name}": "env:NAME"'
                raise DefinitionError(source, f"the option {name} holds a secret", fix, where=where)
            if name in _OURS:
                raise DefinitionError(source, f"the option {name} is set by Foretell", "leave it out", where=where)

    @property
    def shown(self) -> str:
        return f"topic {self.topic}"

    @property
    def fingerprint(self) -> str:
        return _digest("kafka", self.topic)

    @property
    def stream(self) -> str:
        """The stream whose lines its messages become."""
        return "kafka_" + re.sub(r"[^a-z0-9_]", "_", self.topic.lower()) + f"_{self.fingerprint[:6]}"


_SERVER = re.compile(r"[^\s:,]+:[0-9]{1,5}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OURS = ("bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset")
Connector = SQL | REST | Kafka


def _check_overlap(connector: Any, source: str, where: str) -> None:
    overlap = connector.overlap
    if overlap is None:
        return
    if connector.watermark is None:
        raise DefinitionError(source, "overlap goes with a watermark", "say which column it is", where=where)
    zero = timedelta(0) if isinstance(overlap, timedelta) else 0
    if not isinstance(overlap, timedelta | int) or isinstance(overlap, bool) or overlap < zero:  # type: ignore[operator]
        problem = f"overlap is a duration or a number that is not negative, got {overlap!r}"
        raise DefinitionError(source, problem, "write overlap=minutes(5)", where=where)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def secret(text: str, source: str) -> str:
    """What stands for `env:NAME` in the environment; any other text is itself."""
    found = _ENV.search(text)
    if not found:
        return text
    if not (value := os.environ.get(found[1], "")):
        raise NotReady(source, f"the environment variable {found[1]} is not set", f"export {found[1]}=… and run again")
    return value if found[0] == text else text.replace(found[0], value)


def redact(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url.split("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
