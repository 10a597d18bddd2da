"""Accounts: whose domain it is, who belongs to it when and why, ids that last, and the past as it was known."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import KEY

from foretell.__main__ import cli
from foretell.declarations import Source
from foretell.errors import DefinitionError, ForetellError, UnknownName
from foretell.project import Project
from ingestion.load import load
from lake.engine import session
from unification.accounts import account_named, company_domains, ensure, members_at

START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
NOW = START + 400 * DAY
COLUMNS = ["at", "card", "email", "company", "site", "firm", "industry"]
SOURCES = {
    "crm": """Source("crm", files="crm/*.csv", kind="records", event_at="at",
    identifiers={"card": "card", "email": "email"}, account={"company": "company"}, account_domain="site",
    account_traits={"name": "firm", "industry": "industry"}, trust=2)""",
    "calls": """Source("calls", files="calls/*.csv", event_at="at",
    identifiers={"email": "email", "card": "card"}, account={"company": "company"})""",
    "other": """Source("other", files="other/*.csv", kind="records", event_at="at", identifiers={"email": "email"},
    account="company", account_traits={"industry": "industry"})""",
}
Row = dict[str, str]


def row(day: int, card: str = "", email: str = "", **values: str) -> Row:
    return {**dict.fromkeys(COLUMNS, ""), "at": (START + day * DAY).isoformat(), "card": card, "email": email, **values}


def accounts_of(folder: Path, batches: list[Mapping[str, Iterable[Row]]], settings: str = "") -> Project:
    (folder / "sources").mkdir(parents=True)
    for name, text in SOURCES.items():
        (folder / "sources" / f"{name}.py").write_text(f"from foretell import Source\n\nit = {text}\n")
    (folder / "foretell.toml").write_text(f'[foretell]\nas_of = "{NOW.isoformat()}"\n{settings}\n')
    project = Project(folder)
    project.home.mkdir()
    (project.home / "key").write_text(KEY)
    for number, facts in enumerate(batches):
        bring(project, facts, number)
    return project


def bring(project: Project, facts: Mapping[str, Iterable[Row]], number: int) -> None:
    for source, rows in facts.items():
        file = project.exports / source / f"{number}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        for result in load(project, [source]):
            if isinstance(result, ForetellError):
                raise result
            assert not result.quarantined, result.reasons
    ensure(project)


def ask(project: Project, query: str) -> list[tuple]:
    with session(project) as con:
        return con.execute(query).fetchall()


def people(project: Project, account: str, at: datetime = NOW) -> set[tuple[str, str]]:
    """(e-mail or card of the profile now, via)."""
    with session(project) as con:
        found = account_named(con, account)
        query = f"""SELECT coalesce(p.email, p.card), via FROM ({members_at(at)}) JOIN profiles p USING (profile_id)
            WHERE account_id = '{found}'"""
        return set(con.execute(query).fetchall())


@pytest.mark.parametrize(
    ("domain", "company"),
    [
        ("acme.com", "acme.com"), ("mail.acme.com", "acme.com"), ("a.b.acme.co.uk", "acme.co.uk"),
        ("bücher.de", "bücher.de"), ("co.uk", None), ("gmail.com", None), ("yahoo.co.uk", None), ("gmx.de", None),
        ("mailinator.com", None), ("mail.example.com", None), ("shop.example", None), ("a.test", None),
        ("localhost", None), ("telenor.no", None), ("post.telenor.no", None), ("", None), (".", None),
    ],
)  # fmt: skip
def test_a_domain_is_a_companys_or_nobodys(domain: str, company: str | None) -> None:
    assert company_domains([domain], ["Telenor.no"]).get(domain) == company


def test_people_belong_to_a_company_by_their_address_and_by_what_sources_declare(tmp_path: Path) -> None:
    crm = [
        row(
            0, "C1", "ann@acme.com", company="77", site="https://www.Acme.com/about", firm="Acme Inc", industry="steel"
        ),
        row(1, "C2", "bob@mail.acme.com"),
        row(2, "C3", company="77", industry="steel and coal"),
        row(3, "C4", "dan@gmail.com", company="77"),
        row(4, "C5", "eve@other.io"),
    ]
    project = accounts_of(tmp_path / "p", [{"crm": crm, "calls": [row(5, email="eve@other.io", company="77")]}])
    by_address, by_crm, by_calls = "email domain", "declared by crm", "declared by calls"
    assert people(project, "acme.com") == {
        ("ann@acme.com", by_address), ("ann@acme.com", by_crm), ("bob@mail.acme.com", by_address), ("C3", by_crm),
        ("dan@gmail.com", by_crm), ("eve@other.io", by_calls),
    }  # fmt: skip
    assert people(project, "other.io") == {("eve@other.io", by_address)}
    assert ask(project, "SELECT name, domain, people, domains, ids, industry FROM accounts ORDER BY people DESC") == [
        ("Acme Inc", "acme.com", 5, ["acme.com"], ["company:77"], "steel and coal"),
        ("other.io", "other.io", 1, ["other.io"], [], None),
    ]
    with session(project) as con:
        one = account_named(con, "acme.com")
        assert {account_named(con, text) for text in (one, "ACME.com", "company:77", "77", "acme inc")} == {one}
        with pytest.raises(UnknownName, match=r"acme\.org: no such account; did you mean"):
            account_named(con, "acme.org")


def test_ids_of_one_type_are_shared_and_others_are_a_sources_own(tmp_path: Path) -> None:
    facts = {
        "crm": [row(0, "C1", company="77")],
        "calls": [row(1, card="C2", company="77")],
        "other": [row(2, email="jo@gmail.com", company="77")],
    }
    project = accounts_of(tmp_path / "p", [facts])
    assert ask(project, "SELECT ids, people FROM accounts ORDER BY 1") == [(["company:77"], 2), (["other:77"], 1)]
    with session(project) as con, pytest.raises(UnknownName, match="77: means 2 accounts"):
        account_named(con, "77")


def test_membership_is_as_it_was_known(tmp_path: Path) -> None:
    """Somebody changes jobs; a row that comes late and is older changes nothing; a link is learnt later."""
    crm = [row(10, "C1", company="1"), row(50, "C1", company="2"), row(90, "C2", "bo@beta.io", company="2")]
    project = accounts_of(tmp_path / "p", [{"crm": crm}])

    def at(account: str, day: int) -> set[str]:
        return {who for who, _ in people(project, account, START + day * DAY)}

    assert [at("company:1", day) for day in (10, 11, 50, 51)] == [set(), {"C1"}, {"C1"}, set()]
    assert [at("company:2", day) for day in (50, 51, 91)] == [set(), {"C1"}, {"C1", "bo@beta.io"}]
    before = ask(project, "SELECT account_id FROM accounts WHERE ids = ['company:2']")
    bring(project, {"crm": [row(120, "C9", company="2", site="beta.io")]}, 1)
    # the account that was known first keeps its id, and the two were two until then
    assert ask(project, "SELECT account_id FROM accounts WHERE domain = 'beta.io'") == before
    query = "SELECT count(DISTINCT account_id) FROM ({})"
    two = [ask(project, query.format(members_at(START + day * DAY)))[0][0] for day in (91, 120, 121)]
    assert two == [2, 2, 1]
    assert ask(project, "SELECT ids, domains, people FROM accounts ORDER BY 1 DESC LIMIT 1") == [
        (["company:2"], ["beta.io"], 3)
    ]


def test_accounts_follow_what_was_unified_and_declared_since(tmp_path: Path) -> None:
    project = accounts_of(tmp_path / "p", [{"crm": [row(0, "C1", "ann@acme.com")]}])
    assert people(project, "acme.com") == {("ann@acme.com", "email domain")}
    bring(project, {"crm": [row(1, "C2", "bob@acme.com")]}, 1)
    assert len(people(project, "acme.com")) == 2
    with (project.folder / "foretell.toml").open("a") as toml:
        toml.write('personal_domains = ["acme.com"]\n')
    again = Project(project.folder)
    ensure(again)
    assert ask(again, "SELECT count(*) FROM accounts") == [(0,)]
    assert ask(again, "SELECT count(*) FROM account_members") == [(0,)]


def test_accounts_are_listed_and_shown(tmp_path: Path) -> None:
    crm = [row(0, "C1", "ann@acme.com", company="77", site="acme.com", firm="Acme", industry="steel")]
    project = accounts_of(tmp_path / "p", [{"crm": [*crm, row(9, "C2", "bob@acme.com")]}])

    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--project", str(project.folder), "account", *words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "1 accounts, 1 of them with people" in said("list")
    assert "Acme" in said("list")
    shown = said("show", "acme.com")
    assert "industry: steel" in shown
    assert "2 people" in shown
    assert "declared by crm, email domain" in shown
    assert "1 people at 2024-01-05" in said("show", "77", "--at", "2024-01-05")


def test_a_contract_that_says_too_little_of_accounts_is_refused() -> None:
    about = {"files": "x.csv", "kind": "records"}
    with pytest.raises(DefinitionError, match=r"says something about an account and not which; say account="):
        Source("x", account_domain="site", **about)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="expected one type of account id"):
        Source("x", account={"a": "x", "b": "y"}, **about)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="people: is a column that every account has"):
        Source("x", account="id", account_traits={"people": "n"}, **about)  # type: ignore[arg-type]
