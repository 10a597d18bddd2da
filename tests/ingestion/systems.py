"""Systems to pull from, all alike: a table `orders` that grows and changes, in SQLite, PostgreSQL, or behind an API."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api import STYLES, Api
from postgres import Server

from foretell.connectors import REST, SQL, Connector
from foretell.project import Project
from lake.engine import session, source_table

Row = dict[str, Any]
COLUMNS = ("id", "email", "amount", "note", "paid", "ordered_at", "updated_at")
START = datetime(2024, 5, 1, tzinfo=UTC)
KINDS = ("sqlite", "postgresql", *(f"rest-{style}" for style in STYLES))


def order(n: int, changed: int = 0, **other: Any) -> Row:
    """Order n, as it is after it was changed at second `changed`."""
    at, then = (START + timedelta(seconds=second) for second in (n, changed or n))
    text = [f"{moment:%Y-%m-%d %H:%M:%S}+00" for moment in (at, then)]
    return {"id": n, "email": f"p{n % 5}@x.org", "amount": f"{n}.50", "note": None if n % 3 else f"é' {n} ✓",
            "paid": n % 2 == 0, "ordered_at": text[0], "updated_at": text[1], **other}  # fmt: skip


class System:
    """A table `orders`. connector(watermark=…) says how to pull it."""

    def put(self, *rows: Row) -> None:
        """Insert rows, or replace those of the same id."""
        raise NotImplementedError

    def connector(self, **other: Any) -> Connector:
        raise NotImplementedError


class Sqlite(System):
    def __init__(self, folder: Path):
        self.file = folder / "shop.db"
        columns = ", ".join(f"{c} {'INTEGER PRIMARY KEY' if c == 'id' else ''}" for c in COLUMNS)
        self.run(f"CREATE TABLE orders ({columns})")

    def run(self, statement: str, rows: list[tuple] | None = None) -> None:
        with closing(sqlite3.connect(self.file)) as con, con:
            con.executemany(statement, rows) if rows is not None else con.execute(statement)

    def put(self, *rows: Row) -> None:
        marks = ", ".join("?" for _ in COLUMNS)
        self.run(
            f"INSERT OR REPLACE INTO orders ({', '.join(COLUMNS)}) VALUES ({marks})", [tuple(r.values()) for r in rows]
        )

    def connector(self, **other: Any) -> SQL:
        return SQL(
            **{"url": f"sqlite:///{self.file}", "table": "orders", "watermark": "updated_at", "rows": 12, **other}
        )


class Postgres(System):
    def __init__(self, server: Server):
        self.server = server
        self.run(
            "DROP TABLE IF EXISTS orders CASCADE",
            """CREATE TABLE orders (id int PRIMARY KEY, email text, amount numeric(12,2), note text, paid boolean,
               ordered_at timestamptz, updated_at timestamptz)""",
        )

    def run(self, *statements: str) -> None:
        self.server.execute(*statements)

    def put(self, *rows: Row) -> None:
        listed = ", ".join("(" + ", ".join(_literal(row[c]) for c in COLUMNS) + ")" for row in rows)
        new = ", ".join(f"{c} = excluded.{c}" for c in COLUMNS[1:])
        self.run(f"INSERT INTO orders ({', '.join(COLUMNS)}) VALUES {listed} ON CONFLICT (id) DO UPDATE SET {new}")

    def put_without(self, column: str, row: Row) -> None:
        said = {c: _literal(row[c]) for c in COLUMNS if c != column}
        self.run(f"INSERT INTO orders ({', '.join(said)}) VALUES ({', '.join(said.values())})")

    def connector(self, **other: Any) -> SQL:
        return SQL(**{"url": "env:TEST_SHOP_DB", "table": "orders", "watermark": "updated_at", "rows": 12, **other})


class Rest(System):
    def __init__(self, api: Api, style: str):
        self.api, self.style = api, style

    def put(self, *rows: Row) -> None:
        self.api.rows |= {row["id"]: row for row in rows}

    def connector(self, **other: Any) -> REST:
        said = {
            "url": f"{self.api.url}/{self.style}", "records": "" if self.style == "whole" else "data.items",
            "paginate": STYLES[self.style], "watermark": "updated_at", "since_parameter": "since",
        }  # fmt: skip
        said |= other
        if said["watermark"] is None:
            said["since_parameter"] = None
        return REST(**said)


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool | int):
        return "NULL" if value is None else str(value)
    return "'" + str(value).replace("'", "''") + "'"


def make_system(kind: str, request: pytest.FixtureRequest, folder: Path) -> System:
    if kind == "sqlite":
        return Sqlite(folder)
    if kind == "postgresql":
        server = request.getfixturevalue("postgres")
        request.getfixturevalue("monkeypatch").setenv("TEST_SHOP_DB", server.url)
        return Postgres(server)
    return Rest(request.getfixturevalue("api"), kind.removeprefix("rest-"))


def make_project(folder: Path, connector: Connector | None, **other: str) -> Project:
    """A project whose source `orders` is pulled; other: further arguments of the contract, as they are written."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    (folder / "foretell.toml").write_text("[foretell]\n")
    said = {"event_at": '"ordered_at"', "identifiers": '{"email": "email"}', "columns": '{"amount": "amount"}',
            "types": '{"amount": "DECIMAL(12, 2)"}', **other}  # fmt: skip
    listed = ", ".join(f"{key}={value}" for key, value in said.items())
    (folder / "sources" / "orders.py").write_text(
        "import datetime\nfrom foretell import *\nfrom foretell import Source\n"
        f'orders = Source(name="orders", connector={connector!r}, {listed})\n'
    )
    return Project(folder)


def payloads(project: Project) -> list[Row]:
    """The rows of all facts, as texts; no fact is there twice."""
    if not source_table(project, "orders").exists:
        return []
    with session(project) as con:
        found = con.execute("SELECT fact_id, payload FROM orders").fetchall()
    assert len({fact_id for fact_id, _ in found}) == len(found)
    return [json.loads(payload) for _, payload in found]


def plain(row: Row) -> tuple:
    """A row as its values' texts, without NULLs: what a fact's payload and a row of any system have in common."""
    return tuple(
        sorted(
            (k, {True: "1", False: "0", "true": "1", "false": "0"}.get(v, str(v)))
            for k, v in row.items()
            if v is not None
        )
    )
