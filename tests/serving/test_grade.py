"""Grading on a small shop whose scores are made up: merges, unmerges, consent, edited questions, kills, commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import START, Facts, load_shop, make_shop, profiles_at, record, sale, write_files
from fixtures_outcomes import as_if_trained, contract_of, outcomes, write_scores
from fixtures_trained import NOW, TrainedShop, copy_of, mine, trained
from test_kill import SCORE_IMPORTS, at_calls, killed, run

from features.labels import FrozenLabel
from foretell.__main__ import cli
from foretell.declarations import Enters
from foretell.errors import UnknownName
from foretell.project import Project
from lake.engine import session, table
from serving.consent import say
from serving.export import collect
from serving.grade import LEFT, NOBODY, grade, pending
from serving.score import score
from training import question
from unification.decisions import decide
from unification.identity import unify

__all__ = ["mine", "trained"]

CUTOFF = START + timedelta(days=100)
HORIZON, SETTLE = timedelta(days=90), timedelta(days=1)  # of churn
DUE = CUTOFF + HORIZON + SETTLE
LATER = CUTOFF + timedelta(days=30)  # within the horizon
A, B, C = "loyalty_card:A", "loyalty_card:B", "loyalty_card:C"


def shop_of(folder: Path, facts: Facts, *, now: datetime = DUE, **more) -> Project:
    """A shop of few people: A has left at the cutoff, B comes again within the horizon, C after it."""
    mine: Facts = {
        "shop": [
            sale(START, "A", "10.00"), sale(START, "B", "20.00"), sale(START, "C", "30.00"),
            sale(LATER, "B", "5.00"), sale(CUTOFF + HORIZON, "C", "7.00"), *facts.get("shop", []),
        ],
        "crm": facts.get("crm", []),
    }  # fmt: skip
    return make_shop(folder, facts=mine, as_of=now, **more)


def scored(project: Project, monkeypatch: pytest.MonkeyPatch, task: str = "churn") -> dict[str, str]:
    """Score everybody known at the cutoff; returns node -> profile at the cutoff."""
    asked = project.definitions.task(task)
    as_if_trained(monkeypatch, {(task, "1"): contract_of(project, asked)})
    owner = profiles_at(project, CUTOFF)
    profiles = sorted(set(owner.values()))
    write_scores(project, asked, CUTOFF, profiles, [0.1 * n for n in range(len(profiles))])
    return owner


def at(project: Project, now: datetime) -> Project:
    """The same project at another now."""
    file = project.folder / "foretell.toml"
    lines = [f'as_of = "{now.isoformat()}"' if x.startswith("as_of") else x for x in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")
    return Project(project.folder)


def labels(project: Project, owner: dict[str, str], task: str = "churn") -> dict[str, float]:
    rows = outcomes(project, task).set_index("profile_id")["label"]
    return {node: rows[profile] for node, profile in owner.items() if profile in rows}


def test_scores_are_graded_when_their_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})
    owner = scored(project, monkeypatch)
    early = at(project, DUE - timedelta(microseconds=1))
    (waits,) = grade(early)
    assert (waits.graded, waits.until, waits.scores) == (0, DUE, 3)
    assert outcomes(project, "churn").empty
    (done,) = grade(at(project, DUE))
    assert (done.graded, done.unknown, done.asked, done.waits) == (3, 0, "then", "")
    assert labels(project, owner) == {A: 1.0, B: 0.0, C: 1.0}
    assert done.mean == pytest.approx(2 / 3)
    assert done.said == pytest.approx(0.1)
    assert grade(project) == []
    assert pending(project) == []


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match='no such task; did you mean "churn"'):
        grade(shop_of(tmp_path / "shop", {}), ["chrun"])


def test_nothing_is_graded_before_the_facts_have_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else everybody would have left because the tills of the last month are not loaded yet."""
    facts: Facts = {"shop": [sale(START, "A"), sale(LATER, "B")]}
    project = make_shop(tmp_path / "shop", facts=facts, as_of=DUE + timedelta(days=50))
    owner = profiles_at(project, CUTOFF)
    scored(project, monkeypatch)
    (waits,) = grade(project)
    assert waits.graded == 0
    assert f"the last one loaded is of {LATER:%Y-%m-%d}; run `foretell load`" in waits.waits
    write_files(project.folder, {"shop": [sale(CUTOFF + timedelta(days=80), "A"), sale(DUE, "B")]}, stem="more")
    load_shop(project, ["shop"])
    assert grade(project)[0].graded == 1
    assert labels(project, owner) == {A: 0.0}


def test_who_merged_after_the_score_has_the_persons_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A and B turn out to be one within the horizon: both come again, at half the weight. C and D do after L."""
    one = [record(LATER, card, "anna@shop.example") for card in ("A", "B")]
    two = [record(DUE, card, "cim@shop.example") for card in ("C", "D")]
    project = shop_of(tmp_path / "shop", {"shop": [sale(START, "D")], "crm": [*one, *two]}, now=DUE + HORIZON)
    owner = scored(project, monkeypatch)
    assert owner[A] != owner[B]
    grade(project)
    assert labels(project, owner) == {A: 0.0, B: 0.0, C: 1.0, "loyalty_card:D": 1.0}
    rows = outcomes(project, "churn").set_index("profile_id")
    assert list(rows.loc[[owner[A], owner[B], owner[C]], "weight"]) == [0.5, 0.5, 1.0]
    assert rows.loc[owner[A], "person"] == rows.loc[owner[B], "person"]
    assert not rows["split"].any()


@pytest.mark.parametrize("known", [LATER, DUE + timedelta(days=1)], ids=["before L", "after L"])
def test_who_was_unmerged_after_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: datetime) -> None:
    """A wrong merge that is undone before L makes pieces, whose union is the outcome; after L it changes nothing."""
    one = [record(START, card, "anna@shop.example") for card in ("A", "B")]
    project = at(shop_of(tmp_path / "shop", {"crm": one}), known)
    owner = scored(project, monkeypatch)
    assert owner[A] == owner[B]
    decide(project, "unlink", A, "email:anna@shop.example", "two people")
    unify(project)
    project = at(project, DUE + HORIZON)
    (done,) = grade(project)
    assert (done.graded, done.unknown) == (2, 0)
    assert labels(project, owner) == {A: 0.0, B: 0.0, "email:anna@shop.example": 0.0, C: 1.0}
    rows = outcomes(project, "churn").set_index("profile_id")
    assert bool(rows.loc[owner[A], "split"]) is (known == LATER)


def test_who_withdrew_is_not_graded_until_they_agree_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})
    owner = scored(project, monkeypatch)
    say(project, owner[B], "retention", False)
    project = at(project, DUE + timedelta(days=1))
    (done,) = grade(project)
    assert (done.graded, done.without_consent) == (2, 1)
    assert labels(project, owner) == {A: 1.0, C: 1.0}
    (left,) = grade(project)
    assert (left.graded, left.without_consent) == (0, 1)
    say(project, owner[B], "retention", True)
    project = at(project, DUE + timedelta(days=2))
    assert grade(project)[0].graded == 1
    assert labels(project, owner) == {A: 1.0, B: 0.0, C: 1.0}


def test_a_score_of_nobody_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})
    scored(project, monkeypatch)
    write_scores(project, project.definitions.task("churn"), CUTOFF, ["p" + "0" * 20], [0.5])
    (done,) = grade(project)
    assert (done.graded, done.unknown) == (3, 1)
    rows = outcomes(project, "churn").set_index("profile_id")
    assert rows.loc["p" + "0" * 20, "reason"] == NOBODY
    assert pd.isna(rows.loc["p" + "0" * 20, "label"])
    assert grade(project) == []


def test_a_former_id_is_who_it_is_part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is dated before the cutoff and loaded after the score makes one profile of two, also at T."""
    project = shop_of(tmp_path / "shop", {})
    owner = scored(project, monkeypatch)
    write_files(project.folder, {"crm": [record(START, card, "anna@shop.example") for card in ("A", "B")]})
    load_shop(project, ["crm"])
    assert grade(project)[0].graded == 3
    assert labels(project, owner) == {A: 0.0, B: 0.0, C: 1.0}


TASK = """
from foretell import {imports}, PredictionTask, _, days

stays = PredictionTask(
    name="stays", population="orders_365d > 0", horizon=days({days}), label={label}, views=("orders",),
    metric="log_loss", purpose="retention",
)
"""
SPENDS = 'Label(source="order_line", value=_.amount.sum().fill_null(0) > {least})'


def with_task(project: Project, label: str, days: int = 90) -> Project:
    (project.folder / "tasks").mkdir(exist_ok=True)
    text = TASK.format(label=label, days=days, imports=label.partition("(")[0])
    (project.folder / "tasks" / "stays.py").write_text(text)
    return Project(project.folder)


@pytest.mark.parametrize(
    ("then", "now", "wanted"),
    [
        (SPENDS.format(least=1), SPENDS.format(least=6), {A: 0.0, B: 1.0, C: 0.0}),
        (SPENDS.format(least=6), SPENDS.format(least=1), {A: 0.0, B: 0.0, C: 0.0}),
        ('Enters("orders_90d > 0")', SPENDS.format(least=1), {A: 0.0, B: 1.0, C: 0.0}),
        (SPENDS.format(least=1), 'Enters("orders_90d > 0")', {A: 0.0, B: 1.0, C: 0.0}),
    ],
    ids=["more was asked", "less was asked", "it entered", "it enters now"],
)
def test_an_edited_task_is_graded_by_what_it_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, now: str, wanted: dict[str, float]
) -> None:
    project = with_task(shop_of(tmp_path / "shop", {}), then)
    owner = scored(project, monkeypatch, "stays")
    edited = with_task(project, now, days=20)
    found = question.asked(edited, "stays", contract_of(project, project.definitions.task("stays")))
    assert (found.asked, found.reach) == ("then", HORIZON + SETTLE)
    assert isinstance(found.task.label, Enters if then.startswith("Enters") else FrozenLabel)
    (done,) = grade(edited, ["stays"])
    assert (done.graded, done.asked) == (3, "then")
    assert labels(edited, owner, "stays") == wanted


def test_a_frozen_question_is_the_question(tmp_path: Path) -> None:
    """Of every task: thawed it is frozen again to the same, and a task that is not edited is itself."""
    project = shop_of(tmp_path / "shop", {})
    for task in project.definitions.tasks.values():
        contract = contract_of(project, task)
        assert question.asked(project, task.name, contract).task is task
        longer = task.horizon + timedelta(days=7)
        edited = replace(task, horizon=longer, population="orders_90d > 0", settle=timedelta(days=2))
        changed = Project(project.folder)
        changed.__dict__["definitions"] = replace(
            project.definitions, tasks={**project.definitions.tasks, task.name: edited}
        )
        thawed = question.asked(changed, task.name, contract)
        assert thawed.task is not task
        again, wanted = question.said(thawed.project, thawed.task), contract["question"]
        if isinstance(task.label, Enters):  # a view is told by its version, however it is spelt
            for each in (again, wanted):
                each["label"]["views"] = [view["version"] for view in each["label"]["views"]]
        assert again == wanted, task.name


def test_a_model_that_kept_no_question_is_graded_by_the_task_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shop_of(tmp_path / "shop", {})
    owner = scored(project, monkeypatch)
    contract = contract_of(project, project.definitions.task("churn"))
    del contract["question"]
    as_if_trained(monkeypatch, {("churn", "1"): contract})
    (done,) = grade(project)
    assert (done.graded, done.asked) == (3, "today")
    assert labels(project, owner) == {A: 1.0, B: 0.0, C: 1.0}


def test_what_cannot_be_asked_any_more_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})
    scored(project, monkeypatch)
    file = project.folder / "sources" / "shop.py"
    file.write_text(file.read_text().replace('"amount": "amount"', '"amount": "discount"'))
    (waits,) = grade(Project(project.folder))
    assert (waits.graded, waits.until) == (0, None)
    assert "which has changed since" in waits.waits
    as_if_trained(monkeypatch, {})
    assert "not in the registry any more" in grade(Project(project.folder))[0].waits


def test_a_profile_that_left_the_population_of_a_rule_has_no_grade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_task(shop_of(tmp_path / "shop", {"crm": [record(START, "D")]}), 'Enters("orders_90d > 0")')
    owner = scored(project, monkeypatch, "stays")  # D never ordered
    (done,) = grade(project, ["stays"])
    assert (done.graded, done.unknown) == (3, 1)
    assert outcomes(project, "stays").set_index("profile_id").loc[owner["loyalty_card:D"], "reason"] == LEFT


def test_outcomes_are_exported_and_seen_by_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})
    owner = scored(project, monkeypatch)
    grade(project)
    found = collect(project, "A")
    assert [(row["profile_id"], row["label"]) for row in found["outcomes"]] == [(owner[A], 1.0)]
    with session(project) as con:
        assert con.execute("SELECT count(*) FROM outcomes JOIN scores USING (score_id)").fetchall() == [(3,)]
    logged = "".join(f.read_text() for f in (project.home / "lake" / "outcomes" / "_delta_log").glob("*.json"))
    assert owner[A] not in logged


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop_of(tmp_path / "shop", {})

    def foretell(*words: str) -> str:
        done = CliRunner().invoke(cli, ["--project", str(project.folder), *words])
        assert done.exit_code == 0, done.output
        return done.output

    assert foretell("grade") == "No score waits for its outcome.\n"
    owner = scored(project, monkeypatch)
    at(project, DUE - timedelta(days=1))
    assert foretell("grade") == f"3 scores wait for their outcome, the first until {DUE:%Y-%m-%d}.\n"
    at(project, DUE)
    say(Project(project.folder), owner[B], "retention", False)
    said = foretell("grade", "churn")
    assert said.splitlines()[1].split()[:4] == ["churn", "v1", f"{CUTOFF:%Y-%m-%d}", "2"]
    assert "1 are not graded: consent withdrawn" in said
    project = at(project, DUE + timedelta(days=1))
    say(project, owner[B], "retention", True)
    at(project, DUE + timedelta(days=2))
    assert f"churn: 1 scores of {CUTOFF:%Y-%m-%d} graded" in foretell("run", "--only", "grade")


# Killed.


@pytest.mark.slow
def test_grading_that_was_killed_goes_on(trained: TrainedShop, tmp_path: Path) -> None:
    """`kill -9` before and after each commit: no grade is lost, none is there twice."""
    project = copy_of(trained.project, tmp_path / "shop")
    for days in (95, 100):
        score(project, ["churn", "lookalike"], cutoff=NOW - timedelta(days=days))
    calm = copy_of(project, tmp_path / "calm")
    run(calm.folder, ["grade"], [None], SCORE_IMPORTS)
    expected = outcomes(calm, "churn"), outcomes(calm, "lookalike")
    assert all(len(rows) > 200 for rows in expected)
    plans = at_calls(*[("before", 1), ("after", 1)] * 2, only=["append"])
    ends = run(project.folder, ["grade"], [*plans, None], (*SCORE_IMPORTS, "serving.grade"))
    assert killed(ends) == 4
    for task, wanted in zip(("churn", "lookalike"), expected, strict=True):
        assert outcomes(project, task).equals(wanted)
    shutil.rmtree(calm.folder)


@pytest.mark.slow
def test_real_champions_scores_are_graded_as_training_labels_them(mine: Callable[[], Project]) -> None:
    from training import dataset

    project, cutoff = mine(), NOW - timedelta(days=95)
    score(project, ["churn", "clv"], cutoff=cutoff)
    grade(project)
    for name in ("churn", "clv"):
        rows = dataset.training_set(project, project.definitions.task(name), [cutoff]).set_index("profile_id")
        found = outcomes(project, name).set_index("profile_id")
        assert len(found) == len(rows) > 100
        assert (found["label"] == rows.loc[found.index, "label"]).all()
        assert (found["weight"] == rows.loc[found.index, "weight"]).all()
    assert table(project, "outcomes").rows() == sum(len(outcomes(project, name)) for name in ("churn", "clv"))
