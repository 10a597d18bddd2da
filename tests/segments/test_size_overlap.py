"""How many would it be, and who is in both: held to pandas over the same attributes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fixtures_segments import SEGMENTS, declare, scored_shop

from foretell import __main__ as program
from foretell.errors import DefinitionError, NotReady, UnknownName
from foretell.project import Project
from lake.consent import say
from lake.engine import session
from segments import attributes
from segments.audience import audience, sizes
from segments.sizing import overlap, size

RULE = "churn > 0.3 and (city = 'Oslo' or orders_365d > 4) and not top(clv, 0.2) and email is not null"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Some of its people refused e-mails. Not to be changed."""
    project = scored_shop(tmp_path_factory.mktemp("size") / "shop")
    declare(project, {"unanswered": "rule: lookalike > 0.5\n"})
    with session(project) as con:
        nodes = con.execute("SELECT node FROM member WHERE node LIKE 'loyalty_card:%' ORDER BY 1").fetchall()
    for (node,) in nodes[:30:3]:
        say(project, node, "email", False)
    return project


@pytest.fixture(scope="module")
def wide(shop: Project) -> pd.DataFrame:
    with session(shop) as con:
        attributes.create(con, shop)
        return con.execute("SELECT * FROM attributes").df()


def masks(wide: pd.DataFrame) -> list[pd.Series]:
    ranked = wide.dropna(subset=["clv"]).sort_values(["clv", "profile_id"], ascending=[False, True])
    best = ranked["profile_id"].head(int(np.ceil(0.2 * len(ranked))))
    return [
        wide["churn"] > 0.3,
        (wide["city"] == "Oslo") | (wide["orders_365d"] > 4),
        wide["clv"].notna() & ~wide["profile_id"].isin(best),
        wide["email"].notna(),
    ]


@pytest.mark.parametrize("purpose", ["", "email", "never asked"])
def test_each_condition_alone_and_in_turn(shop: Project, wide: pd.DataFrame, purpose: str) -> None:
    found = size(shop, RULE, purpose)
    may = wide["consent_email"].astype(bool) if purpose == "email" else pd.Series(True, wide.index)
    each = masks(wide)
    assert [s.alone for s in found.steps] == [int((m & may).sum()) for m in each]
    turn = may.copy()
    for step, mask in zip(found.steps, each, strict=True):
        turn &= mask
        assert step.in_turn == turn.sum()
    everybody = each[0] & each[1] & each[2] & each[3]
    assert (found.total, found.agreed) == (len(wide), may.sum())
    assert (found.members, found.without_consent) == ((everybody & may).sum(), (everybody & ~may).sum())
    assert found.members == found.steps[-1].in_turn == len(audience(shop, RULE, purpose=purpose).members)
    assert found.steps[0].unknown == (wide["churn"].isna() & may).sum()
    assert (found.agreed < found.total) == (purpose == "email")


def test_a_rule_of_one_condition_and_a_declared_one(shop: Project) -> None:
    assert [s.text for s in size(shop, "city = 'Oslo' or city is null").steps] == ["city = 'Oslo' or city is null"]
    found = size(shop, "leaving")
    assert found.purpose == "email"
    assert found.members == {s.name: n for s, n, _ in sizes(shop)}["leaving"]
    assert size(shop, "leaving", purpose="").members == found.members + found.without_consent


def test_overlap_is_that_of_sets(shop: Project) -> None:
    found = overlap(shop)
    assert found.names == sorted(SEGMENTS)
    assert isinstance(found.problems["unanswered"], NotReady)
    members = {name: set(audience(shop, name).members["profile_id"]) for name in SEGMENTS}
    for i, one in enumerate(found.names):
        for j, other in enumerate(found.names):
            both = len(members[one] & members[other])
            assert found.counts[i, j] == both
            assert found.shares[i, j] == pytest.approx(both / len(members[one]))
            assert found.likeness[i, j] == pytest.approx(both / len(members[one] | members[other]))
    asked = overlap(shop, ["osloers", "leaving"])
    assert asked.names == ["osloers", "leaving"]
    assert asked.counts[0, 1] == len(members["osloers"] & members["leaving"])
    assert not asked.problems
    assert found.total == asked.total


def test_overlap_of_nothing(shop: Project) -> None:
    found = overlap(shop, ["unanswered"])
    assert found.counts.shape == (0, 0)
    assert found.problems.keys() == {"unanswered"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("size", RULE, "--purpose", "email"), "more do, but did not agree to email"),
        (("size", "leaving"), "top(clv, 0.5)"),
        (("overlap", "osloers", "leaving"), "of those in the row, also in the column"),
        (("overlap",), "unanswered is left out: lookalike: has no live scores"),
        (("overlap", "unanswered"), "no segment can be counted"),
    ],
)
def test_commands(shop: Project, words: tuple[str, ...], said: str) -> None:
    found = CliRunner().invoke(program.cli, ["--project", str(shop.folder), "segment", *words])
    assert found.exit_code == 0, found.output
    assert said in found.output


def test_wrong_names_get_a_suggestion(shop: Project) -> None:
    with pytest.raises(UnknownName, match='chrn: no such attribute; did you mean "churn"'):
        size(shop, "chrn > 0.5")
    with pytest.raises(UnknownName, match='did you mean "osloers"'):
        overlap(shop, ["oslers"])
    with pytest.raises(DefinitionError, match="syntax error"):
        size(shop, "churn >")
