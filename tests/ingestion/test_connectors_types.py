"""Values of every type come as the database writes them; columns that come, go or change lose nothing and are said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from api import Api, serving
from postgres import Server, postgres
from systems import Postgres, Rest, Sqlite, make_project, order, payloads

from features.build import versions
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import Loaded, load
from lake.engine import session

__all__ = ["postgres"]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api()) as found:
        yield found


@pytest.fixture
def orders(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    monkeypatch.setenv("TEST_SHOP_DB", postgres.url)
    return Postgres(postgres)


def pull(project: Project, **other: bool) -> Loaded:
    results = list(load(project, ["orders"], **other))
    assert len(results) == 1
    assert isinstance(results[0], Loaded), results
    return results[0]


def failure(project: Project) -> ForetellError:
    (error,) = list(load(project, ["orders"]))
    assert isinstance(error, ForetellError)
    return error


LONG = "12345678901234567890123456789012345678901.123456789"
# One column of each type: SQL literal, and its text in the payload (None: it is not there).
TYPES: dict[str, tuple[str, str | None]] = {
    "smallint": ("-32768", "-32768"),
    "bigint": ("9223372036854775807", "9223372036854775807"),
    "numeric": (LONG, LONG),
    "numeric(12,2)": ("10.5", "10.50"),
    "double precision": ("0.1::float8 + 0.2::float8", "0.30000000000000004"),
    "boolean": ("true", "true"),
    "text": (r"E'tab\t \"quoted\" back\\slash\nend \x1f ✓ 😀'", "tab\t \"quoted\" back\\slash\nend \x1f ✓ 😀"),
    "varchar(9)": ("''", ""),
    "char(3)": ("'x'", "x  "),
    "timestamptz": ("'2024-03-31 02:30:00.123456+02'", "2024-03-31 00:30:00.123456+00"),
    "timestamp": ("'2024-03-31 02:30:00'", "2024-03-31 02:30:00"),
    "date": ("'2024-02-29'", "2024-02-29"),
    "time": ("'23:59:59.5'", "23:59:59.5"),
    "interval": ("'1 day 02:00'", "P1DT2H"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "jsonb": ("""'{"b": {"path": "/x"}, "a": 1.10}'""", '{"a": 1.10, "b": {"path": "/x"}}'),
    "text[]": ("""ARRAY['a', 'b"c', NULL]""", r'{a,"b\"c",NULL}'),
    "int4range": ("'[1,3)'", "[1,3)"),
    "inet": ("'10.0.0.1'", "10.0.0.1/32"),
    "bytea": (r"'\x00ff'", r"\x00ff"),
    "point": ("'(1,2)'", "(1,2)"),
    "oid": ("7", "7"),
}  # fmt: skip
NAMES = {kind: f"c{n}" for n, kind in enumerate(TYPES)}


def test_types_of_postgresql(orders: Postgres, tmp_path: Path) -> None:
    columns = ", ".join(f"{name} {kind}" for kind, name in NAMES.items())
    orders.run(
        "DROP TABLE IF EXISTS odd",
        f'CREATE TABLE odd (email text, ordered_at timestamptz, "Order No" int, {columns})',
        f"INSERT INTO odd VALUES ('a@x.org', '2024-05-01', 1, {', '.join(literal for literal, _ in TYPES.values())})",
        "INSERT INTO odd (email, ordered_at) VALUES ('b@x.org', '2024-05-02')",
    )
    said = {"json_path": "VARCHAR", "cents": "BIGINT", "half": "DOUBLE", "later": "BOOLEAN"}
    project = make_project(
        tmp_path / "shop", orders.connector(table="odd", watermark="ordered_at"),
        types=repr({**said, "n": "VARCHAR"}),
        columns=repr({
            "json_path": f"{NAMES['jsonb']} ->> '$.b.path'", "cents": f"{NAMES['numeric(12,2)']} * 100",
            "half": f"{NAMES['bigint']} / 2", "later": f"{NAMES['timestamptz']} > {NAMES['timestamp']}",
            "n": '"Order No"',
        }),
    )  # fmt: skip
    assert pull(project).added == 2
    full, empty = sorted(payloads(project), key=lambda row: row["email"])
    assert empty == {"email": "b@x.org", "ordered_at": "2024-05-02 00:00:00+00"}
    for kind, (_, text) in TYPES.items():
        assert full[NAMES[kind]] == text, kind
    with session(project) as con:  # expressions see typed columns
        row = con.execute("SELECT json_path, cents, half, later, n FROM orders WHERE id_email = 'a@x.org'").fetchall()
    assert row == [("/x", 1050, 9223372036854775807 / 2, False, "1")]
    assert pull(project, full=True).added == 0


def test_infinity_and_not_a_number(orders: Postgres, tmp_path: Path) -> None:
    """What no fact can be made of is kept in quarantine, as it came, and the watermark does not follow it."""
    orders.run(
        "DROP TABLE IF EXISTS odd",
        "CREATE TABLE odd (email text, ordered_at timestamptz, amount numeric(12,2), updated_at timestamptz)",
        """INSERT INTO odd VALUES ('a@x.org', 'infinity', 1, 'infinity'),
           ('b@x.org', '2024-05-01', 'NaN', '2024-05-01'), ('c@x.org', '2024-05-01', 2, '2024-05-01'),
           ('d@x.org', '0044-03-15 BC', 2, '-infinity')""",
    )
    project = make_project(tmp_path / "shop", orders.connector(table="odd"))
    result = pull(project)
    assert (result.added, result.quarantined) == (2, 2)
    with session(project) as con:
        kept = [json.loads(raw) for (raw,) in con.execute("SELECT raw FROM quarantine").fetchall()]
        amounts = con.execute("SELECT id_email, amount FROM orders ORDER BY 1").fetchall()
    assert {row["ordered_at"] for row in kept} == {"infinity", "0044-03-15 00:00:00+00 BC"}
    assert [(who, amount and float(amount)) for who, amount in amounts] == [("b@x.org", None), ("c@x.org", 2.0)]
    assert "NaN" in {row["amount"] for row in payloads(project)}
    orders.run("INSERT INTO odd VALUES ('e@x.org', '2024-05-02', 3, now())")
    assert [r.added for r in load(project, ["orders"]) if isinstance(r, Loaded)] == [1]


def test_a_query_and_a_schema(orders: Postgres, tmp_path: Path) -> None:
    orders.put(order(1), order(2))
    orders.run(
        "CREATE SCHEMA IF NOT EXISTS sales",
        "DROP VIEW IF EXISTS sales.o",
        "CREATE VIEW sales.o AS SELECT * FROM orders",
    )
    assert pull(make_project(tmp_path / "a", orders.connector(table="sales.o"))).added == 2
    query = "SELECT id, email, amount, ordered_at, updated_at FROM sales.o WHERE id > 1;"
    assert pull(make_project(tmp_path / "b", orders.connector(table=None, query=query))).added == 1
    twice = make_project(
        tmp_path / "c", orders.connector(table=None, query="SELECT id, email AS id, updated_at FROM orders")
    )
    assert "two columns of query have the same name" in str(failure(twice))
    misspelt = make_project(tmp_path / "d", orders.connector(watermark="updated"))
    assert 'has no column updated to be its watermark; did you mean "updated_at"?' in str(failure(misspelt))


def test_values_of_sqlite_have_types_of_their_own(tmp_path: Path) -> None:
    system = Sqlite(tmp_path)
    system.run("CREATE TABLE odd (email, ordered_at, amount, blob)")
    values: list[tuple[Any, ...]] = [
        ("a@x.org", "2024-05-01 10:00", 1, b"\x00\xff"), ("b@x.org", "2024-05-01T10:00:01Z", 2.5, None),
        ("c@x.org", "2024-05-01 10:00:02", "3.75", "text"), ("d@x.org", "2024-05-01 10:00:03", "many", None),
    ]  # fmt: skip
    system.run("INSERT INTO odd VALUES (?, ?, ?, ?)", values)
    project = make_project(tmp_path / "shop", system.connector(table="odd", watermark="ordered_at", rows=100))
    result = pull(project)
    assert (result.added, result.quarantined) == (3, 1)
    assert result.reasons == ['table odd:0: amount: expected DECIMAL(12, 2), got "many"']
    assert {row["email"]: (row["amount"], row.get("blob")) for row in payloads(project)} == {
        "a@x.org": ("1", "\\x00ff"), "b@x.org": ("2.5", None), "c@x.org": ("3.75", "text")
    }  # fmt: skip
    assert pull(project).quarantined + pull(project, full=True).quarantined >= 1
    with session(project) as con:
        assert con.execute("SELECT count(*) FROM quarantine").fetchall() == [(1,)]


def test_json_keeps_its_digits_and_odd_text(api: Api, tmp_path: Path) -> None:
    body = (
        b'[{"id": 1, "email": "a@x.org", "ordered_at": "2024-05-01T10:00:00Z", "amount": 1.10,'
        b' "big": 12345678901234567890123, "long": 0.1234567890123456789012345, "odd": "\\ud800", "nul": "a\\u0000b",'
        b' "deep": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"},"
        b' {"id": 2, "email": "b@x.org", "ordered_at": "2024-05-01T10:00:00Z", "n": NaN}, 7, "text"]'
    )
    api.answer = lambda path, asked: (body, {})  # type: ignore[assignment]
    project = make_project(tmp_path / "shop", Rest(api, "whole").connector(watermark=None))
    result = pull(project)
    assert (result.added, result.quarantined) == (2, 2)
    first, second = sorted(payloads(project), key=lambda row: row["id"])
    assert first["big"] == 12345678901234567890123
    assert first["long"] == "0.1234567890123456789012345"  # more digits than a float has
    assert first["amount"] == 1.1
    assert (first["odd"], first["nul"]) == ("\ufffd" * 3, "a\x00b")
    assert second["n"] == "NaN"
    assert pull(project).added == 0


def current(project: Project) -> set[str]:
    """The rows that count now: the last version of each."""
    source = project.definitions.source("orders")
    with session(project) as con:
        found = con.execute(f"SELECT row_key FROM {versions(source, datetime.now(UTC))}").fetchall()
    assert len(found) == len(set(found))
    return {key for (key,) in found}


# --- columns that come, go or change ---------------------------------------------------------------------------------


def test_a_table_whose_columns_change(orders: Postgres, tmp_path: Path) -> None:
    orders.put(*[order(n) for n in range(1, 5)])
    orders.run("ALTER TABLE orders ADD COLUMN size int DEFAULT 4")
    project = make_project(tmp_path / "shop", orders.connector(rows=100), key='"id"')
    assert pull(project).changes == []

    orders.run("ALTER TABLE orders ADD COLUMN channel text", "ALTER TABLE orders ALTER COLUMN size TYPE text")
    orders.put(order(5, note="n"))
    orders.run("UPDATE orders SET channel = 'web' WHERE id = 5")
    result = pull(project)
    assert result.changes == [
        "column channel is new: not in the contract, kept in the row", "column size was integer, is text"
    ]  # fmt: skip
    assert result.added == 1  # the rows that are read again are the same facts as before
    assert pull(project, full=True).added == 0
    assert [row.get("channel") for row in payloads(project) if row["id"] == "5"] == ["web"]

    orders.run("ALTER TABLE orders DROP COLUMN note")
    orders.put_without("note", order(6))
    assert pull(project).changes == ["column note is gone"]
    assert current(project) == {"1", "2", "3", "4", "5", "6"}

    orders.run("ALTER TABLE orders RENAME COLUMN email TO mail")
    orders.run("INSERT INTO orders (id, mail, amount, ordered_at, updated_at) VALUES (7, 'a@x.org', 1, now(), now())")
    error = failure(project)
    assert "no such column (column email is gone, which the contract reads; column mail is new" in str(error)
    assert 'did you mean "mail"?' in str(error)
    assert "aliases={…}" in str(error)
    project = make_project(tmp_path / "shop", orders.connector(rows=100), key='"id"', aliases='{"email": ("mail",)}')
    pull(project)
    assert [row for row in payloads(project) if row["id"] == "7"]  # it was waited for


def test_records_whose_keys_change(api: Api, tmp_path: Path) -> None:
    system = Rest(api, "link")
    system.put(*[order(n) for n in range(1, 5)])
    project = make_project(tmp_path / "shop", system.connector())
    assert pull(project).changes == []
    system.put(order(5, channel={"name": "web"}), order(6, paid="yes"))
    assert pull(project).changes == [
        "column channel is new: not in the contract, kept in the row", "column paid was true/false, is text"
    ]  # fmt: skip
    assert [row["channel"] for row in payloads(project) if "channel" in row] == [{"name": "web"}]
    bare = order(7)
    del bare["email"], bare["note"]
    system.put(bare)
    system.api.rows = {7: bare}
    assert pull(project).changes == ["column email is gone, which the contract reads"]


def test_a_csv_whose_columns_change(tmp_path: Path) -> None:
    project = make_project(tmp_path / "shop", None, files='"*.csv"')  # type: ignore[arg-type]
    project.exports.mkdir()

    def write(name: str, text: str) -> list[str]:
        (project.exports / f"{name}.csv").write_text(text)
        found = [r for r in load(project, ["orders"]) if isinstance(r, ForetellError) or not r.skipped]
        return [str(r) if isinstance(r, ForetellError) else "; ".join(r.changes) for r in found]

    at = "2024-05-01 10:00"
    assert write("1", f"email,ordered_at,amount,size\na@x.org,{at},1.5,4\n") == [""]
    assert write("2", f"email,ordered_at,amount,size,shop\nb@x.org,{at},2,M,Oslo\n") == [
        "column shop is new: not in the contract, kept in the row; column size was integer, is text"
    ]
    assert write("3", f"email,ordered_at,amount\nc@x.org,{at},3\n") == ["column shop is gone; column size is gone"]
    assert write("4", f"email,ordered_at,amount,size\nd@x.org,{at},4,L\n") == [""]  # it comes and goes
    assert write("5", f"email,ordered_at,amount\ne@x.org,{at},5\n") == [""]
    (said,) = write("6", f"mail,ordered_at,amount\nf@x.org,{at},6\n")
    assert "column email is gone, which the contract reads" in said
    assert len(payloads(project)) == 5
    (said,) = write("7", f"email,ordered_at,amount\ng@x.org,{at},7\n")[:1]
    assert "6.csv" in said  # it stays, and is said each time, while the others load
    assert len(payloads(project)) == 6
