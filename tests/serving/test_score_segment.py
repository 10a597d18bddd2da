"""The members of a segment are scored as they would be among everyone, and nobody else is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from fixtures_trained import NOW, TrainedShop, mine, trained
from test_score import rows_of

from foretell import __main__ as program
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from segments.audience import audience, sizes
from serving import batch
from serving.score import score
from training.champion import train

__all__ = ["mine", "trained"]

LATER = NOW + timedelta(days=1)


@pytest.fixture
def a_day_later(mine: Callable[[], Project]) -> Project:
    """A project in which nobody is scored as of now: scores of yesterday are there, and a day has passed."""
    project = mine()
    file = project.folder / "foretell.toml"
    file.write_text(file.read_text().replace(NOW.isoformat(), LATER.isoformat()))
    return Project(project.folder)


def of_today(project: Project, task: str) -> dict[str, dict]:
    return {row["profile_id"]: row for row in rows_of(project, task) if row["cutoff"] == LATER}


def test_a_segment_is_scored_as_among_everyone(a_day_later: Project) -> None:
    project, rule = a_day_later, "city = 'Oslo'"
    members = set(audience(project, rule).members["profile_id"])
    found = {s.task: s for s in score(project, ["churn", "clv"], segment=rule)}
    some = {task: of_today(project, task) for task in found}
    kept = {task: batch.last(project, task) for task in found}
    score(project, ["churn", "clv"])
    for task, scored in found.items():
        everyone = of_today(project, task)
        inside = {p: row for p, row in everyone.items() if p in members}
        assert 0 < len(inside) < len(everyone)
        assert some[task].keys() == inside.keys()
        for profile, row in some[task].items():  # written once: the full batch found them there
            assert repr(row) == repr(everyone[profile])
        assert (scored.members, scored.eligible, scored.added) == (len(members), len(inside), len(inside))
        last = batch.last(project, task)
        assert last is not None
        assert (last.cutoff, len(last.values())) == (LATER, len(everyone))
        assert kept[task] == last


def test_attributes_and_segments_see_it_at_once(a_day_later: Project) -> None:
    project = a_day_later
    before = audience(project, "churn >= 0", ["churn"]).members
    members = set(audience(project, "osloers").members["profile_id"])
    score(project, ["churn"], segment="osloers")
    after = audience(project, "churn >= 0", ["churn"]).members
    changed = before.merge(after, on="profile_id", suffixes=("_before", "_after"))
    moved = set(changed.loc[changed["churn_before"] != changed["churn_after"], "profile_id"])
    assert moved
    assert moved <= members
    assert {segment.name for segment, *_ in sizes(project)} == {"leaving", "osloers"}


def test_the_command_line(a_day_later: Project, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def foretell(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["foretell", "--project", str(a_day_later.folder), *words])
        status = 0
        try:
            program.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    members = len(audience(a_day_later, "city = 'Oslo'").members)
    status, out, _ = foretell("score", "churn", "--segment", "city = 'Oslo'")
    eligible = len(of_today(a_day_later, "churn"))
    assert status == 0
    assert f"- {members - eligible} of {members} members are not eligible for churn (orders_365d > 0)" in out
    for words in (["--profile", "x"], ["--at", "2024-06-01"]):
        status, _, err = foretell("score", "churn", "--segment", "osloers", *words)
        assert status == 2
        assert "--segment goes neither with --profile nor with --at" in err
    status, _, err = foretell("score", "--segment", "oslers")
    assert (status, 'did you mean "osloers"?' in err) == (2, True)


def test_refusals(trained: TrainedShop) -> None:
    with pytest.raises(DataError, match="members are those of now"):
        score(trained.project, ["churn"], NOW - timedelta(days=30), segment="osloers")
    with pytest.raises(UnknownName, match='did you mean "osloers"'):
        score(trained.project, ["churn"], segment="oslers")


TARGETS = '''"""Will somebody who buys here buy something large?"""

from foretell import Label, PredictionTask, _, days

buys = PredictionTask(
    name="buys", population="orders_365d > 0", horizon=days(30),
    label=Label(source="order_line", value=_.count() > 0), views=("orders", "cadence"),
    metric="log_loss", purpose="cross-sell", targets={"large": _.amount > 200},
)
'''


@pytest.mark.slow
def test_targets_and_rules_entered(mine: Callable[[], Project]) -> None:
    """A task stands for its targets; a task that Enters leaves out who is inside already."""
    project = mine()
    (project.folder / "tasks").mkdir()
    (project.folder / "tasks" / "buys.py").write_text(TARGETS)
    project = Project(project.folder)
    train(project, "buys_large")
    (found,) = score(project, ["buys"], segment="osloers")
    assert found.task == "buys_large"
    members = set(audience(project, "osloers").members["profile_id"])
    written = {row["profile_id"] for row in rows_of(project, "buys_large")}
    assert 0 < len(written) == found.eligible <= len(members)
    assert written <= members
    train(project, "lookalike")
    (found,) = score(project, ["lookalike"], segment="city = 'Oslo'")
    assert found.members is not None
    assert 0 < found.eligible < found.members
