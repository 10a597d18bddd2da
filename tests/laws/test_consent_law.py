"""The law of consent: nobody who did not agree to a purpose appears in anything that is made for it.

It holds for every task and every segment that there is: in training sets, scores, what is published and answered,
audiences, lookalikes and attributes.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from fixtures_trained import NOW, TASKS, TrainedShop, copy_of, trained

from foretell.errors import NotReady
from foretell.project import Project
from lake.engine import session
from models.registry import champion, quietly
from segments.audience import audience, declared, sizes
from serving import batch
from serving.consent import say
from serving.http.engine import Engine
from serving.http.index import file_of
from serving.profile import page
from serving.score import score, score_one
from training import dataset
from unification.consent import barred

__all__ = ["trained"]

PURPOSES = ("retention", "marketing")
SEGMENTS = {
    "asked": "name: asked\nrule: churn >= 0\npurpose: marketing\n",
    "asked_too": "name: asked_too\nrule: city = 'Oslo' and consent('retention')\npurpose: marketing\n",
    "not_asked": "name: not_asked\nrule: churn > 0.2\n",
}


@dataclass(frozen=True)
class Withdrawn:
    """A trained shop after three of its people withdrew from one purpose each, and a fourth from both."""

    project: Project
    barred: dict[str, set[str]]
    scores: int
    scored: dict[str, int]


@pytest.fixture(scope="module")
def after(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Withdrawn:
    folder = tmp_path_factory.mktemp("consent") / "shop"
    project = copy_of(trained.project, folder)
    for name, text in SEGMENTS.items():
        (folder / "segments" / f"{name}.yaml").write_text(text)
    with session(project) as con:
        eligible = {row[0] for row in con.execute("SELECT DISTINCT profile_id FROM scores ORDER BY 1").fetchall()}
        before = int(con.execute("SELECT count(*) FROM scores").fetchall()[0][0])
    people = sorted(eligible)
    who = {"retention": {people[3], people[40], people[90]}, "marketing": {people[90], people[10], people[60]}}
    for purpose, profiles in who.items():
        for profile in profiles:
            say(project, profile, purpose, False)
    scored = {s.task: s.without_consent for s in score(project, list(TASKS))}
    return Withdrawn(project, who, before, scored)


@pytest.mark.parametrize("task", TASKS)
def test_training_sets(after: Withdrawn, trained: TrainedShop, task: str) -> None:
    """At cutoffs that the champion learned from and was judged on: nobody but the refused is missing."""
    declared_task = after.project.definitions.task(task)
    contract = quietly(lambda: champion(trained.project, task)).contract
    cutoffs = sorted({datetime.fromisoformat(c) for c in [contract["cutoffs"][0], *contract["evaluated_on"]]})
    rows = dataset.training_set(after.project, declared_task, cutoffs)
    whole = dataset.training_set(trained.project, trained.project.definitions.task(task), cutoffs)
    missing = 0
    for cutoff in cutoffs:
        with session(after.project) as con:
            query = barred(con, after.project, declared_task.purpose, cutoff)
            assert query is not None
            refused = {p for (p,) in con.execute(query).fetchall()}
        assert refused, "a withdrawal reaches back to every cutoff at which the person was known"
        before = set(whole.loc[whole["cutoff"] == cutoff, "profile_id"])
        now = set(rows.loc[rows["cutoff"] == cutoff, "profile_id"])
        if task != "lookalike":  # whose population is ranked: the threshold moves when somebody leaves
            assert now == before - refused
        assert not now & refused
        missing += len(before & refused)
        asked = dataset.eligible(after.project, declared_task, cutoff)  # those who will be asked about, without labels
        assert not refused & set(asked["profile_id"])
    assert missing > 0
    assert task == "lookalike" or rows.attrs["without_consent"] == missing


@pytest.mark.parametrize("task", TASKS)
def test_scores(after: Withdrawn, task: str) -> None:
    purpose = after.project.definitions.task(task).purpose
    refused = after.barred[purpose]
    last = batch.last(after.project, task)
    assert last is not None
    assert last.cutoff == NOW
    assert not refused & set(last.values()["profile_id"])
    assert after.scored[task] > 0
    with session(after.project) as con:  # nothing new was written of them, and what there is is no attribute
        count = con.execute("SELECT count(*) FROM scores").fetchall()[0][0]
        assert count == after.scores
    for profile in refused:
        assert task not in {s["task"] for s in page(after.project, profile)["scores"]}
    for profile in sorted(refused)[:1]:
        with pytest.raises(NotReady, match=f"must not be scored: no consent to {purpose}"):
            score_one(after.project, task, profile)
    other = next(iter(set(last.values()["profile_id"])))
    assert score_one(after.project, task, other)["profile_id"] == other


def test_what_is_published_and_answered(after: Withdrawn) -> None:
    engine = Engine(after.project.folder)
    engine.refresh()
    everyone = sorted(after.barred["retention"] | after.barred["marketing"])
    results = engine.scores(everyone, None)["results"]
    for profile, result in zip(everyone, results, strict=True):
        answered = {s["task"] for s in result["scores"]}
        problems = {p["task"]: p["problem"] for p in result["problems"]}
        for task in TASKS:
            purpose = after.project.definitions.task(task).purpose
            if profile in after.barred[purpose]:
                assert task not in answered
                assert problems[task] == f"the profile must not be scored: no consent to {purpose}"
    assert any(result["scores"] for result in results), "one purpose refused is not the other"
    with sqlite3.connect(file_of(after.project)) as con:
        pages = {p: json.loads(text) for p, text in con.execute("SELECT profile_id, page FROM page")}
    for purpose in PURPOSES:
        assert {p for p, page in pages.items() if purpose in page["refused"]} == after.barred[purpose]


def test_the_service_knows_at_once(after: Withdrawn, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(after.project.folder, folder)
    project = Project(folder)
    last = batch.last(project, "churn")
    assert last is not None
    someone = sorted(set(last.values()["profile_id"]))[7]
    engine = Engine(folder)
    engine.refresh()
    assert engine.scores([someone], ["churn"])["results"][0]["scores"]
    say(project, someone, "retention", False)
    assert engine.refresh()
    answer = engine.scores([someone], ["churn"])["results"][0]
    assert not answer["scores"]
    assert "no consent to retention" in answer["problems"][0]["problem"]


@pytest.mark.parametrize("name", [*SEGMENTS, "leaving", "osloers"])
def test_audiences(after: Withdrawn, name: str) -> None:
    project = after.project
    segment, found = declared(project)[name], audience(project, name)
    refused = after.barred[segment.purpose] if segment.purpose else set()
    members = set(found.members["profile_id"])
    assert not members & refused
    assert (found.purpose, found.without_consent > 0) == (segment.purpose, bool(segment.purpose))
    assert {s.name: size for s, size, _ in sizes(project)}[name] == len(members)
    asked = audience(project, name, purpose="retention")
    assert not set(asked.members["profile_id"]) & after.barred["retention"]
    if "churn" in segment.rule.columns:  # a score for retention is no attribute of who withdrew from that
        assert not members & after.barred["retention"]


def test_consent_in_a_rule(after: Withdrawn) -> None:
    everybody = audience(after.project, "churn is null or churn is not null", ["consent_retention"]).members
    refused = everybody[~everybody["consent_retention"].astype(bool)]
    assert set(refused["profile_id"]) == after.barred["retention"]
    assert set(audience(after.project, "not consent('marketing')").members["profile_id"]) == after.barred["marketing"]


def test_lookalikes(after: Withdrawn) -> None:
    from training.lookalike import expand

    found = expand(after.project, "city = 'Oslo'")
    assert not set(found.ranked["profile_id"]) & after.barred["marketing"]
    assert found.seeds == len(audience(after.project, "city = 'Oslo'", purpose="marketing").members)
