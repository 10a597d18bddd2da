"""Which contracts make facts of a stream? Those for the calls that it has seen, ready to load.

identify calls are records of people, alias calls link ids, page, screen and track calls are what people did, and the
event "Order Completed" of the spec's e-commerce part is an order. Each contract reads the stream with its own `only`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from foretell.declarations import Source
from foretell.errors import DataError
from foretell.project import Project
from ingestion.collector.log import OPEN, folder_of
from ingestion.collector.messages import INVALID
from ingestion.collector.segments import segments_of
from ingestion.files import Raw
from ingestion.propose import Proposal, leaves, spelt, tried
from ingestion.propose import propose as propose_file

MOST_ROWS = 200_000
_MOST_TRAITS = 40
_ZONE = 'the shop\'s; it says what "a day" is'
# What the spec calls a trait -> what the standard views call it.
_TRAITS = {
    "birthday": "birth_date", "address_city": "city", "address_postal_code": "postcode", "address_country": "country",
    "address_street": "street", "address_state": "state", "company_name": "company", "locale": "language",
}  # fmt: skip
_IDENTIFIERS = {"email", "phone", "id"}  # traits that are identifiers, or say the userId again


@dataclass
class _Found:
    """What a stream has seen: rows by type; by (type, path) how often a value that is no object or list."""

    types: Counter[str] = field(default_factory=Counter)
    paths: Counter[tuple[str, ...]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    currencies: Counter[str] = field(default_factory=Counter)

    def has(self, kind: str, *path: str) -> bool:
        return (kind, *path) in self.paths


def propose(
    con: duckdb.DuckDBPyConnection, project: Project, stream: str, *, known: Iterable[Source] = (),
    taken: Iterable[str] = (),
) -> list[Proposal]:  # fmt: skip
    """Contracts for a stream, each tried on what has been collected. known, taken: as for a proposal for a file."""
    con.execute("SET TimeZone='UTC'")
    files = _read(con, project, stream)
    raw = Raw(None, [], lambda row: row)
    found = _look(con)
    if found.types["webhook"]:
        return [_webhook(con, files, stream, list(known), set(taken))]
    zones = [source.timezone for source in known]
    zone = max(zones, key=zones.count, default="UTC")
    common = {
        "stream": stream, "event_at": "timestamp", "known_at": "receivedAt", "unique": "messageId", "timezone": zone,
    }  # fmt: skip
    made = []
    if found.types["identify"]:
        made.append(_people(stream, common, found, set(taken)))
    if found.types["alias"]:
        made += _aliases(con, stream, common)
    if found.types.keys() & {"page", "screen", "track"}:
        made.append(_activity(stream, common, found))
    if found.events["Order Completed"]:
        made.append(_orders(stream, common, found))
    if not made:
        seen = ", ".join(f"{n:,} {kind}" for kind, n in found.types.items()) or "nothing"
        raise DataError(f"stream {stream}", f"has no call that a contract is ready for: {seen}", "write one by hand")
    for proposal in made:
        tried(con, proposal, raw, f"stream {stream}")
    return made


def _read(con: duckdb.DuckDBPyConnection, project: Project, stream: str) -> list[Path]:
    """The newest messages of a stream as the table `raw`; also those of segments that are still written to."""
    files = [*segments_of(project, stream), *sorted((folder_of(project.home) / stream).glob(f"*{OPEN}"))]
    con.execute("CREATE OR REPLACE TEMP TABLE raw (_row BIGINT, _payload VARCHAR)")
    rows, read = 0, []
    for file in reversed(files):
        lines = [line for line in file.read_text("utf-8", errors="replace").split("\n") if line]
        con.execute(
            f"""INSERT INTO raw SELECT {rows} + row_number() OVER (), line FROM (SELECT unnest($1) AS line)
                WHERE CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' END AND NOT starts_with(line, $2)""",
            [lines, INVALID],
        )
        rows += len(lines)
        read.append(file)
        if rows >= MOST_ROWS:
            break
    if not con.execute("SELECT 1 FROM raw LIMIT 1").fetchall():
        raise DataError(f"stream {stream}", "nothing has been collected", "send it some events first")
    return read


def _look(con: duckdb.DuckDBPyConnection) -> _Found:
    found = _Found()
    for (text,) in con.execute("SELECT _payload FROM raw").fetchall():
        message = json.loads(text)
        kind = str(message.get("type"))
        found.types[kind] += 1
        for path, value in leaves({key: message.get(key) for key in ("traits", "properties", "context")}):
            if value is not None and not isinstance(value, list):
                found.paths[(kind, *path)] += 1
        if kind == "track":
            found.events[str(message.get("event"))] += 1
            properties = message.get("properties")
            if isinstance(properties, dict) and isinstance(properties.get("currency"), str):
                found.currencies[properties["currency"].upper()] += 1
    return found


def _people(stream: str, common: dict, found: _Found, taken: set[str]) -> Proposal:
    traits: dict[str, str] = {}
    for (kind, *path), _ in found.paths.most_common():
        if kind != "identify" or path[0] != "traits" or len(path) not in (2, 3) or len(traits) == _MOST_TRAITS:
            continue
        name = _snake("_".join(path[1:]))
        name = _TRAITS.get(name, name)
        name = f"known_{name}" if name in taken else name
        if name not in _IDENTIFIERS and name not in traits and re.fullmatch(r"[a-z][a-z0-9_]*", name):
            traits[name] = spelt(tuple(path))
    identifiers = {"user_id": "userId"}
    identifiers |= {kind: f"traits.{kind}" for kind in ("email", "phone") if found.has("identify", "traits", kind)}
    identifiers["anonymous_id"] = "anonymousId"
    return _proposal(
        f"{stream}_people", {"timezone": _ZONE}, kind="records", only="type = 'identify'",
        identifiers=identifiers, traits=traits, **common,
    )  # fmt: skip


def _aliases(con: duckdb.DuckDBPyConnection, stream: str, common: dict) -> list[Proposal]:
    """What an alias call says was the id before may have been an anonymous one, or that of a user."""
    linked = {"user_id": "userId", "anonymous_id": "previousId"}
    made = [_proposal(f"{stream}_aliases", {}, only="type = 'alias'", identifiers=linked, **common)]
    both = """SELECT 1 FROM raw a SEMI JOIN raw u
        ON json_extract_string(a._payload, '$.previousId') = json_extract_string(u._payload, '$.userId')
        WHERE json_extract_string(a._payload, '$.type') = 'alias' LIMIT 1"""
    if con.execute(both).fetchall():
        same = {"user_id": "previousId", "anonymous_id": "previousId"}
        made.append(_proposal(f"{stream}_former_ids", {}, only="type = 'alias'", identifiers=same, **common))
    return made


def _activity(stream: str, common: dict, found: _Found) -> Proposal:
    urls = [path for path in ("properties.url", "context.page.url") if _seen(found, path)]
    columns = {"kind": "type", "name": "coalesce(event, name)", "category": "category"}
    if urls:
        columns["url"] = _first(urls)
    return _proposal(
        f"{stream}_activity", {"timezone": _ZONE}, role="activity", only="type IN ('page', 'screen', 'track')",
        identifiers=_who(found), columns=columns, **common,
    )  # fmt: skip


def _orders(stream: str, common: dict, found: _Found) -> Proposal:
    amount = _first([f"properties.{n}" for n in ("total", "revenue", "value") if found.has("track", "properties", n)])
    number = _first([f"properties.{n}" for n in ("order_id", "orderId") if found.has("track", "properties", n)])
    columns, doubts = {"order_id": number or "messageId", "amount": amount or "0"}, {"timezone": _ZONE}
    if not number:
        doubts["order_id"] = "no order number: each event counts as one order"
    if not amount:
        doubts["amount"] = "no total, revenue or value was seen"
    only = "event = 'Order Completed'"
    if found.events["Order Refunded"]:
        only = "event IN ('Order Completed', 'Order Refunded')"
        columns["amount"] = f"CASE WHEN event = 'Order Refunded' THEN -1 ELSE 1 END * ({columns['amount']})::DOUBLE"
        columns["cancelled"] = "event = 'Order Refunded'"
    if found.has("track", "properties", "discount"):
        columns["discount"] = "properties.discount"
    seen = found.currencies.most_common()
    if len(seen) > 1:
        doubts["currency"] = f"orders came in {', '.join(name for name, _ in seen[:5])}"
    return _proposal(
        f"{stream}_orders", doubts, role="order_line", only=f"type = 'track' AND {only}", identifiers=_who(found),
        columns=columns, currency=seen[0][0] if seen else "EUR", **common,
    )  # fmt: skip


def _webhook(con: duckdb.DuckDBPyConnection, files: list[Path], stream: str, known: list[Source], taken: set[str]):
    sealed = [file for file in files if file.suffix != OPEN]
    if not sealed:
        fix = "`foretell load` seals what was collected; then run this again"
        raise DataError(f"stream {stream}", "what it has is still written to", fix)
    made = propose_file(con, sealed[0], name=stream, files="*", known=known, taken=taken)
    made.source = replace(made.source, files=None, stream=stream, unique="messageId", known_at="receivedAt")
    return made


def _who(found: _Found) -> dict[str, str]:
    """Who did it: ids, and an e-mail where events carry one."""
    mails = [path for path in ("context.traits.email", "properties.email") if _seen(found, path)]
    return {"user_id": "userId", **({"email": _first(mails)} if mails else {}), "anonymous_id": "anonymousId"}


def _seen(found: _Found, path: str) -> bool:
    return any(found.has(kind, *path.split(".")) for kind in ("page", "screen", "track"))


def _first(expressions: list[str]) -> str:
    return f"coalesce({', '.join(expressions)})" if len(expressions) > 1 else "".join(expressions)


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()).strip("_")


def _proposal(name: str, doubts: Mapping[str, str], **fields) -> Proposal:
    return Proposal(Source(name=name, **fields), 0, [], dict(doubts), [])
