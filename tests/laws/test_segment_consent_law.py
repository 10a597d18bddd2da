"""The law of consent, for segments: who refused a purpose is in nothing that is made of a segment with that purpose.

It holds for every kind of attribute that a rule may read, and for every answer that there is about a segment. A score
of another purpose that the person refused does not reach a rule either, whatever the segment is for.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_segments import at, declare, scored_shop

from foretell import __main__ as program
from foretell.project import Project
from lake.consent import say
from lake.engine import session, table
from segments.audience import audience, sizes
from segments.control import hand_out
from segments.history import Refresh, record
from segments.sizing import overlap, size
from segments.why import why

# Of each kind a rule that everybody satisfies who has the attribute.
KINDS = {
    "trait": "city is null or city is not null",
    "identifier": "loyalty_card like '%'",
    "count": "identifiers > 0",
    "feature": "orders_365d >= 0",
    "score": "clv >= 0",
    "percentile": "clv_percentile >= 0",
    "rank": "top(clv, 1)",
    "score_of_the_purpose": "propensity >= 0",
    "consent": "consent('email')",
    "not_consent": "not consent('email') or consent('email')",
    "all": "identifiers > 0 and orders_365d >= 0 and not propensity < 0 and coalesce(city, 'x') is not null",
}
REFUSED = 6


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, set[str], set[str]]:
    """A scored shop, who refused email before anything else, and who refused retention. Not to be changed."""
    project = scored_shop(
        tmp_path_factory.mktemp("law") / "shop",
        {name: f"rule: {json.dumps(rule)}\npurpose: email\ncontrol: 0.3\n" for name, rule in KINDS.items()},
    )
    with session(project) as con:
        scored = [p for (p,) in con.execute("SELECT DISTINCT profile_id FROM scores ORDER BY 1").fetchall()]
        nodes = dict(
            con.execute("SELECT profile_id, min(node) FROM member WHERE known_to IS NULL GROUP BY 1").fetchall()
        )
    email, retention = set(scored[:REFUSED]), set(scored[4 : 4 + REFUSED])
    for purpose, people in (("email", email), ("retention", retention)):
        for profile in people:
            say(project, nodes[profile], purpose, False)
    return project, email, retention


def listed(project: Project, name: str, folder: Path) -> set[str]:
    return set(audience(project, name).members["profile_id"])


def recorded(project: Project, name: str, folder: Path) -> set[str]:
    record(project)
    with session(project) as con:
        found = con.execute("SELECT profile_id FROM memberships WHERE segment = ?", [name]).fetchall()
    return {profile for (profile,) in found if profile}


def exported(project: Project, name: str, folder: Path) -> set[str]:
    hand_out(project, name, folder / "x.csv")
    with (folder / "x.csv").open() as stream:
        return {row["profile_id"] for row in csv.DictReader(stream)}


def drawn(project: Project, name: str, folder: Path) -> set[str]:
    hand_out(project, name, folder / "x.csv")
    with session(project) as con:
        return {p for (p,) in con.execute("SELECT profile_id FROM exposures WHERE segment = ?", [name]).fetchall()}


def printed(project: Project, name: str, folder: Path) -> set[str]:
    words = ["--project", str(project.folder), "segment", "show", name, "--limit", "1000"]
    said = CliRunner().invoke(program.cli, words)
    assert said.exit_code == 0, said.output
    return {line.split()[0] for line in said.output.splitlines() if line.startswith("p") and line[1:2].isalnum()}


PLACES: list[Callable[[Project, str, Path], set[str]]] = [listed, recorded, exported, drawn, printed]


@pytest.mark.parametrize("place", PLACES, ids=[place.__name__ for place in PLACES])
def test_who_refused_is_nowhere(shop: tuple[Project, set[str], set[str]], place: Callable, tmp_path: Path) -> None:
    original, email, retention = shop
    shutil.copytree(original.folder, tmp_path / "shop")
    project = Project(tmp_path / "shop")
    for name, rule in KINDS.items():
        found = place(project, name, tmp_path)
        assert found, name
        assert not found & email, name
        if "clv" in rule:  # a score made for retention
            assert not found & retention, name


@pytest.mark.parametrize("name", KINDS)
def test_who_refused_is_in_no_count(shop: tuple[Project, set[str], set[str]], name: str) -> None:
    project, email, _ = shop
    members = len(audience(project, name).members)
    assert {s.name: n for s, n, _ in sizes(project, [name])}[name] == members
    found = size(project, name)
    assert found.members == members
    assert found.agreed == found.total - REFUSED
    assert all(step.alone <= found.agreed and step.in_turn <= found.agreed for step in found.steps)
    everybody = size(project, name, purpose="")
    assert everybody.members - members == found.without_consent <= REFUSED
    both = overlap(project, [name, "count"])
    assert both.counts[0, 0] == members
    assert both.counts.max() <= both.total - REFUSED
    for profile in sorted(email)[:1]:
        said = why(project, name, profile)
        assert said["refused"]
        assert said.keys() == {"segment", "rule", "purpose", "profile_id", "member", "refused", "consents"}


def test_a_refused_score_reaches_no_rule(shop: tuple[Project, set[str], set[str]]) -> None:
    """Whatever it is asked for: retention refused, clv is missing for every purpose; the other scores are not."""
    project, email, retention = shop
    for purpose in ("", "retention", "email", "something else"):
        for rule in ("clv is not null", "clv_percentile >= 0", "top(clv, 1)", "coalesce(clv, -1) >= 0"):
            assert not set(audience(project, rule, purpose=purpose).members["profile_id"]) & retention, (rule, purpose)
    missing = set(audience(project, "clv is null").members["profile_id"])
    assert retention <= missing
    assert email - retention <= set(audience(project, "clv is not null").members["profile_id"])
    assert retention - email <= set(audience(project, "propensity is not null").members["profile_id"])


def test_who_withdraws_later_leaves_once_and_is_told_nothing_any_more(
    shop: tuple[Project, set[str], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    original, email, _ = shop
    shutil.copytree(original.folder, tmp_path / "shop")
    project = Project(tmp_path / "shop")
    declare(project, {"plain": "rule: identifiers > 0\n"})
    record(project)
    who = min(set(audience(project, "all").members["profile_id"]))
    with session(project) as con:
        node = con.execute("SELECT min(node) FROM member WHERE profile_id = ?", [who]).fetchall()[0][0]
    say(project, node, "email", False)
    later = at(project, project.now + timedelta(days=1), monkeypatch)
    for _ in range(2):
        found = {r.segment: r for r in record(later) if isinstance(r, Refresh)}
    assert found["plain"].left == 0
    with session(later) as con:
        query = "SELECT change FROM memberships WHERE segment = 'all' AND profile_id = ? ORDER BY refresh"
        assert [c for (c,) in con.execute(query, [who]).fetchall()] == ["entered", "left"]
    assert why(later, "all", who)["refused"]
    assert "changes" not in why(later, "all", who)
    assert table(later, "memberships").exists
    assert who not in email
