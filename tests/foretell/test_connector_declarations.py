"""Connectors as they are declared: what cannot be meant is refused where it is written, and no secret is ever shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from foretell import REST, SQL, Source, minutes
from foretell.connectors import redact, secret
from foretell.errors import DefinitionError, NotReady


def make_source(**changes):
    return Source(**{"name": "till", "files": "*.csv", "event_at": "at", **changes})


def make_pulled(connector, **changes):
    return Source(**{"name": "till", "event_at": "at", "connector": connector, **changes})


def make_sql(**changes):
    return make_pulled(SQL(**{"url": "env:SHOP_DB", "table": "orders", **changes}))


def make_rest(**changes):
    return make_pulled(REST(**{"url": "https://api.example.org/orders", **changes}))


REFUSED = {
    "files and a connector": (
        make_source,
        {"connector": SQL(url="env:X", table="t")},
        "till: expected files, a connector or a stream, one of them",
    ),
    "neither": (make_source, {"files": None}, 'say files="orders/*.csv", connector=SQL(…) or stream="web"'),
    "no connector": (make_pulled, {"connector": "orders"}, "connector is SQL(…), REST(…) or Kafka(…), got 'orders'"),
    "other database": (make_sql, {"url": "mysql://me:hunter2@h/db"}, "got 'mysql://h/db'; write \"postgresql://"),
    "password": (
        make_sql,
        {"url": "postgresql://me:hunter2@h/db"},
        "holds a password; put the url into an environment",
    ),
    "password in it": (make_sql, {"url": "postgresql://h/db?password=hunter2"}, "the url holds a password"),
    "table and query": (make_sql, {"query": "SELECT 1"}, "expected a table or a query, one of them"),
    "no rows": (make_sql, {"rows": 0}, "rows must be at least 1, got 0"),
    "overlap of nothing": (make_sql, {"overlap": minutes(5)}, "overlap goes with a watermark"),
    "negative overlap": (make_sql, {"overlap": minutes(-5), "watermark": "at"}, "that is not negative"),
    "no address": (make_rest, {"url": "api.example.org"}, "expected the address of an API, got 'api.example.org'"),
    "user's password": (make_rest, {"url": "https://me:hunter2@h/x"}, 'holds a password; say auth="basic env:NAME"'),
    "paginate": (make_rest, {"paginate": "link"}, "paginate is PageNumber, Offset, Cursor or NextLink, got 'link'"),
    "secret": (make_rest, {"auth": "bearer hunter2"}, 'write "bearer env:NAME", "basic env:NAME"'),
    "half a watermark": (make_rest, {"watermark": "at"}, "watermark and since_parameter go together"),
    "empty key": (make_source, {"key": " "}, "key is an empty expression"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_why_and_where(case):
    make, changes, message = REFUSED[case]
    with pytest.raises(DefinitionError) as error:
        make(**changes)
    said = str(error.value)
    assert said.startswith("till: ")
    assert message in said
    assert error.value.fix
    assert said.endswith("(foretell/test_connector_declarations.py)")
    assert "hunter2" not in said


def test_what_is_allowed():
    assert make_sql(url="postgresql://me@host/db", watermark="at", overlap=minutes(5)).files is None
    assert make_sql(url="sqlite:///shop.db", table=None, query="SELECT 1", watermark="id", overlap=10).connector
    assert make_rest(
        url="env:SHOP_API", auth="header X-Api-Key env:KEY", watermark="at", since_parameter="since"
    ).connector


def test_what_was_pulled_before_is_known_by_what_was_asked():
    one = SQL(url="env:A", table="orders", watermark="at")
    assert one.fingerprint == SQL(url="env:B", table="orders", watermark="at", overlap=minutes(5), rows=7).fingerprint
    assert one.fingerprint != SQL(url="env:A", table="orders", watermark="changed").fingerprint
    assert one.fingerprint != SQL(url="env:A", table="lines", watermark="at").fingerprint
    api = REST(url="https://h/orders")
    assert api.fingerprint == REST(url="https://h/orders", auth="bearer env:X").fingerprint
    assert api.fingerprint != REST(url="https://h/lines").fingerprint


def test_secrets_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SHOP_DB", "postgresql://me:hunter2@host/db")
    assert secret("env:SHOP_DB", "till") == "postgresql://me:hunter2@host/db"
    assert secret("plain", "till") == "plain"
    with pytest.raises(NotReady, match="environment variable NOPE is not set; export NOPE"):
        secret("env:NOPE", "till")
    assert redact("https://me:hunter2@host:8/path?token=hunter2") == "https://host:8/path"


def test_declaring_a_connector_imports_no_driver():
    heavy = ("requests", "adbc_driver_manager", "pyarrow")
    code = f"import sys, foretell.connectors; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
