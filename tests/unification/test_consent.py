"""Who may be used for a purpose at T is what a naive reading of the rows says; contracts say yes, no or nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from conftest import (
    SOURCES,
    START,
    Facts,
    components,
    identifiers,
    known_at,
    load_shop,
    make_shop,
    profiles_at,
    record,
    sale,
    shop_facts,
    write_shop,
)

from foretell import Source
from foretell.errors import DefinitionError
from foretell.project import Project
from foretell.settings import load as settings
from lake import consent
from lake.engine import session
from serving.consent import say
from unification.consent import barred, history, without

DAY = timedelta(days=1)
NOW = START + 400 * DAY
# `kids` of the small shop: 0, 1 or 3+
CRM = SOURCES["crm"].replace(
    "    trust=2,", """    trust=2, consents={
        "marketing": "opt_in", "retention": "CASE kids WHEN '0' THEN 'Withdrawn' WHEN '1' THEN ' Granted ' END"},"""
)  # fmt: skip
SAYS = {
    "marketing": lambda row: {"yes": True, "no": False}[row["opt_in"]],
    "retention": lambda row: {"0": False, "1": True}.get(row["kids"]),
}


def oracle(facts: Facts, project: Project, purpose: str, rule: str, at) -> set[str]:
    """Profiles as known at T that are barred, by a loop over the rows."""

    def said(part: frozenset[str], moment) -> bool | None:
        found = [
            (row["registered_at"], not says, says)
            for row in facts["crm"]
            if identifiers("crm", row)[0] in part and known_at("crm", row) < moment
            if (says := SAYS[purpose](row)) is not None
        ]
        return max(found)[2] if found else None

    then, later, owner = components(facts, at), components(facts, NOW), profiles_at(project, at)
    out = set()
    for node, profile in owner.items():
        answer = said(then[node], at)
        allowed = answer is True if rule == "opt-in" else answer is not False
        withdrawn = any(said(later[other], NOW) is False for other in then[node])
        if not allowed or withdrawn:
            out.add(profile)
    return out


@pytest.fixture(scope="module", params=["opt-in", "opt-out"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    facts = shop_facts(seed=3)
    project = make_shop(tmp_path_factory.mktemp("asked") / "shop", facts=facts, sources={"crm": CRM})
    toml = project.folder / "foretell.toml"
    toml.write_text(toml.read_text() + f'[foretell.purposes]\nmarketing = "{request.param}: as the law has it"\n')
    return Project(project.folder), facts, request.param


@pytest.mark.parametrize("day", [60, 150, 250, 400])
def test_as_the_rows_say(asked: tuple, day: int) -> None:
    project, facts, rule = asked
    at = START + day * DAY
    with session(project) as con:
        found = {p for (p,) in con.execute(barred(con, project, "marketing", at)).fetchall()}
        assert found == oracle(facts, project, "marketing", rule, at)
        # declared by no setting, but brought by a source: nobody without a grant
        found = {p for (p,) in con.execute(barred(con, project, "retention", at)).fetchall()}
        assert found == oracle(facts, project, "retention", "opt-in", at)
        assert barred(con, project, "research", at) is None


def test_the_oracle_sees_all_kinds(asked: tuple) -> None:
    """People who agree at T and have withdrawn by now, and people who agreed later, are among the rows."""
    project, facts, _ = asked
    at = START + 150 * DAY
    now = oracle(facts, project, "marketing", "opt-in", NOW)
    then = oracle(facts, project, "marketing", "opt-in", at)
    everybody = set(profiles_at(project, at).values())
    assert everybody - then
    assert (then & everybody) - now, "somebody agreed later: a grant does not reach back"
    assert 5 < len(oracle(facts, project, "marketing", "opt-out", at)) < len(everybody)


def test_a_withdrawal_reaches_back_and_a_grant_does_not(tmp_path: Path) -> None:
    at = START + 100 * DAY
    facts = Facts(
        shop=[sale(START + DAY, card) for card in ("A1", "B2", "C3")], crm=[record(START + 200 * DAY, "A1", "a@x.org")]
    )
    project = make_shop(tmp_path / "shop", facts=facts, settings={"as_of": NOW.isoformat()})
    owner, old = profiles_at(project, NOW), profiles_at(project, at)
    with session(project) as con:
        assert without(con, project, "email", at, list(old.values())) == set()
    said = say(project, "a@x.org", "email", False, "by phone")
    assert (said.profile, said.allowed, said.new) == (owner["loyalty_card:A1"], False, True)
    with session(project) as con:  # under the profile that it was before the e-mail was known
        assert without(con, project, "email", at, list(old.values())) == {old["loyalty_card:A1"]}
        assert without(con, project, "email", NOW, list(owner.values())) == {owner["loyalty_card:A1"]}
    again = say(project, "loyalty_card:A1", "email", True)
    assert (again.allowed, again.new) == (True, False)
    with session(project) as con:
        assert without(con, project, "email", NOW, list(owner.values())) == set()
        assert [(s["purpose"], s["granted"], s["source"]) for s in history(con, project, owner["loyalty_card:A1"])] == [
            ("email", True, "by hand"), ("email", False, "by hand"),
        ]  # fmt: skip
        assert consent.purposes(project, con) == {"email": "opt-out"}


def test_what_a_source_says_is_a_fact_and_nonsense_is_quarantined(tmp_path: Path) -> None:
    rows = [record(START + n * DAY, f"C{n}", opt_in=text) for n, text in enumerate(["yes", "NO", " 1 ", "", "maybe"])]
    project = write_shop(tmp_path / "shop", {"crm": rows}, sources={"crm": CRM})
    with pytest.raises(AssertionError, match='consent to marketing: expected yes or no, got "maybe"'):
        load_shop(project, ["crm"])
    with session(project) as con:
        found = con.execute(
            "SELECT node, granted, source FROM consents WHERE purpose = 'marketing' ORDER BY 1"
        ).fetchall()
    assert found == [
        ("loyalty_card:C0", True, "crm"),
        ("loyalty_card:C1", False, "crm"),
        ("loyalty_card:C2", True, "crm"),
    ]


def test_declarations_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="name of a purpose"):
        Source(name="a", files="*", event_at="t", identifiers={"email": "e"}, consents={"E-Mail": "x"})
    with pytest.raises(DefinitionError, match="consents without identifiers are nobody's"):
        Source(name="a", files="*", event_at="t", consents={"email": "x"})
    (tmp_path / "foretell.toml").write_text('[foretell.purposes]\nemail = "sometimes"\n')
    with pytest.raises(DefinitionError, match="email: expected opt-in or opt-out"):
        settings(tmp_path, {})
    (tmp_path / "foretell.toml").write_text('[foretell.purposes]\nemail = "opt-in: the newsletter\'s form"\n')
    assert settings(tmp_path, {})["purposes"].value == {"email": "opt-in"}
    assert settings(tmp_path, {"FORETELL_PURPOSES": "a=opt-out, b=opt-in"})["purposes"].value == {
        "a": "opt-out", "b": "opt-in",
    }  # fmt: skip
