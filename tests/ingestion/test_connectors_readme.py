"""The README's section on databases and APIs, carried out on a real PostgreSQL and over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api import Api, serving
from click.testing import CliRunner
from postgres import Server, postgres

from foretell.__main__ import cli
from foretell.project import Project
from lake.engine import session

__all__ = ["postgres"]

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api()) as found:
        yield found


def test_the_section_on_databases_and_apis(
    postgres: Server, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.split("## Load from databases and APIs\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "sources").mkdir()
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    local = code.replace("https://support.example.com/tickets", f"{api.url}/cursor")
    (tmp_path / "sources" / "shop_db.py").write_text(local)
    monkeypatch.setenv("SHOP_DB", postgres.url)
    monkeypatch.setenv("SUPPORT_TOKEN", "t")
    postgres.execute(
        """CREATE TABLE order_lines (line_id int PRIMARY KEY, order_id text, email text, sku text, quantity int,
           price numeric(12,2), ordered_at timestamptz, updated_at timestamptz DEFAULT now())""",
        """INSERT INTO order_lines VALUES (1, 'A', 'jo@x.org', 's', 2, 10.50, '2024-05-01'),
           (2, 'A', 'jo@x.org', 't', 1, 4, '2024-05-01')""",
    )
    created = "2024-05-02T10:00:00Z"
    api.rows = {
        n: {"id": n, "created_at": created, "updated_at": created, "requester": {"email": "jo@x.org"}} for n in range(9)
    }

    def foretell(*words: str) -> str:
        done = CliRunner().invoke(cli, ["--project", str(tmp_path), *words])
        assert done.exit_code == 0, done.output
        return done.output

    said = foretell("load")
    assert "table order_lines: 2 facts" in said
    assert f"{api.url}/cursor: 9 facts" in said
    assert "table order_lines: nothing new" not in said
    postgres.execute("UPDATE order_lines SET quantity = 3, updated_at = now() WHERE line_id = 1")
    assert "shop_db: table order_lines: 1 facts" in foretell("run", "--only", "load,unify")
    assert "last run (load, unify)" in foretell("status")
    with session(Project(tmp_path)) as con:
        found = con.execute("SELECT row_key, quantity, amount::VARCHAR FROM shop_db ORDER BY row_key, batch").fetchall()
        assert [(key, int(quantity), float(amount)) for key, quantity, amount in found] == [
            ("1", 2, 21.0), ("1", 3, 31.5), ("2", 1, 4.0)
        ]  # fmt: skip
        assert con.execute("SELECT count(*) FROM tickets WHERE id_email = 'jo@x.org'").fetchall() == [(9,)]
    assert "since" in api.requests[-1]


def test_a_contract_proposed_from_a_table(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    monkeypatch.setenv("SHOP_DB", postgres.url)
    postgres.execute(
        "CREATE SCHEMA till",
        """CREATE TABLE till.lines AS SELECT i AS id, 'o' || i / 3 AS order_no, 'p' || i % 9 || '@shop.org' AS email,
           1 + i % 4 AS quantity, (i % 50 + 0.5)::numeric(9,2) AS unit_price, 'sku' || i % 20 AS sku,
           timestamptz '2024-05-01' + i * interval '1 hour' AS ordered_at, now() AS updated_at
           FROM generate_series(1, 300) i""",
    )

    def foretell(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["--project", str(tmp_path), *words])
        return done.exit_code, done.output

    status, said = foretell("source", "new", "--table", "till.lines", "--url", "env:SHOP_DB")
    assert status == 0, said
    assert "Tried on 300 rows: 300 good" in said
    text = (tmp_path / "sources" / "lines.py").read_text()
    assert 'connector=SQL(url="env:SHOP_DB", table="till.lines", watermark="updated_at"),  # check: ' in text
    assert 'key="id",  # check: ' in text
    assert 'event_at="ordered_at"' in text
    assert '"amount": "quantity * unit_price"' in text
    assert "table till.lines: 300 facts" in foretell("load")[1]
    assert foretell("source", "new", "--table", "till.lines")[0] == 2
    assert foretell("source", "new")[0] == 2
