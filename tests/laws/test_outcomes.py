"""A grade is what happened: laws over every discovered task, whose scores are made up, and graded by the product.

Whatever is known at or after T + horizon + settle changes no grade; and each is what a naive loop over the rows of the
small shop says, whose person networkx knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Facts, click, components, identifiers, known_at, more_facts, profiles_at, sale, shop_facts
from fixtures_outcomes import as_if_trained, contract_of, outcomes, write_scores
from naive import rows_of, value_of
from naive_views import World, known
from test_time import BOUNDARY, DAY, LATER, Lakes, assert_time_safe, every_task, label_cutoff

from features.build import build
from foretell.binding import aggregate, counted, facts_schema, table
from foretell.declarations import Enters, Label, PredictionTask, Until
from foretell.project import Project
from foretell.views import FrozenView
from foretell.windows import FUTURE_COLUMN
from lake.engine import session
from serving.grade import Graded, grade
from training import dataset

GRADES = ["profile_id", "label", "weight", "person", "split"]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    return Lakes(tmp_path_factory.mktemp("outcomes"), facts=_with_strangers(more_facts(shop_facts())))


def _with_strangers(facts: Facts) -> Facts:
    """Somebody does something in the last hours before L: else nobody would know whether the facts of that day are
    there, and nothing is graded."""
    at = BOUNDARY - timedelta(hours=3)
    facts["shop"].append(sale(at, "STRANGER"))
    facts["web"].append(click(at, "stranger-device"))
    return facts


def graded(
    lakes: Lakes, lake: str, origin: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[pd.DataFrame, list[Graded]]:
    """The grades of made-up scores of everyone the task asks about; they are made once a lake and task."""
    project, version = lakes.get(lake, origin), {"standard": "1", "complete_journey": "2"}[origin]
    task = project.definitions.task(name)
    as_if_trained(monkeypatch, {(name, version): contract_of(project, task)})
    said: list[Graded] = []
    if outcomes(project, name, version).empty:
        profiles = asked(project, task)
        write_scores(project, task, label_cutoff(task), profiles, [0.5] * len(profiles), version=version)
        said = [g for g in grade(project, [name]) if (g.task, g.version) == (name, version)]
        assert [(g.graded, g.waits) for g in said] == [(len(profiles), "")]
    return outcomes(project, name, version), said


def asked(project: Project, task: PredictionTask) -> list[str]:
    """Everybody known at the cutoff; of a task that Enters a rule those of its population."""
    cutoff = label_cutoff(task)
    if not isinstance(task.label, Enters):
        return sorted(set(profiles_at(project, cutoff).values()))
    build(project, dataset.asked_views(project, task), [cutoff])
    with session(project) as con:
        return dataset._satisfying(con, project, task, cutoff)


@every_task
def test_grades_ignore_what_was_known_after_they_settled(
    lakes: Lakes, origin: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(lake: str) -> pd.DataFrame:
        return graded(lakes, lake, origin, name, monkeypatch)[0][GRADES]

    exact = frozenset({"label", "weight"})
    assert_time_safe(rows, "base", {lake: lake for lake in LATER}, exact)


@every_task
def test_grades_are_what_a_naive_loop_says(
    lakes: Lakes, origin: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = lakes.get("base", origin)
    task, cutoff = project.definitions.task(name), label_cutoff(project.definitions.task(name))
    found = graded(lakes, "base", origin, name, monkeypatch)[0].set_index("profile_id")
    owner = profiles_at(project, cutoff)
    wanted = _entered(lakes, project, task, set(found.index)) if isinstance(task.label, Enters) else _labels(
        lakes, project, task
    )  # fmt: skip
    then, later = components(lakes.facts, cutoff), components(lakes.facts, BOUNDARY)
    assert set(found.index) <= set(owner.values())
    assert len(found) > 10
    assert found["label"].nunique() > 1, "all outcomes alike would agree with anything"
    for node, profile in owner.items():
        if profile in found.index:
            person = later[node]
            assert found.loc[profile, "label"] == pytest.approx(wanted[person], abs=1e-9)
            parts = {then[n] for n in person if n in then}
            assert found.loc[profile, "weight"] == pytest.approx(1 / len(parts))


def _happened(lakes: Lakes, project: Project, role: str, since: datetime, until: datetime) -> Iterator[tuple[str, Any]]:
    """(first identifier, fact) of what happened in a time and was known by the boundary."""
    sources = dict(project.definitions.sources)
    world = World(lakes.facts, sources, {name: [""] * len(rows) for name, rows in lakes.facts.items()}, {})
    for node, fact in known(world, FrozenView(name="label", source=role, features={}), BOUNDARY):
        if since <= fact["event_at"] < until:
            yield node, fact


def _labels(lakes: Lakes, project: Project, task: PredictionTask) -> dict[frozenset[str], float]:
    """Person at L -> label: the task's own expression, read row by row."""
    assert isinstance(task.label, Label)
    cutoff, sources = label_cutoff(task), dict(project.definitions.sources)
    later = components(lakes.facts, BOUNDARY)
    facts: dict[frozenset[str], list[dict[str, Any]]] = {person: [] for person in later.values()}
    for node, fact in _happened(lakes, project, task.label.source, cutoff, cutoff + task.horizon):
        facts[later[node]].append({**fact, "profile_id": "x", "cutoff": cutoff, FUTURE_COLUMN: cutoff})
    schema = {"profile_id": "VARCHAR", **facts_schema(task.label.source, sources, label=True)}
    rows = counted(table(schema), task.label, task.name)
    value = aggregate(rows, "label", task.label.value, what=task.name, where=task.where)
    made = {}
    for person, theirs in facts.items():
        said = value_of(value, rows_of(rows, theirs))
        made[person] = task.horizon / DAY if said is None and isinstance(task.label, Until) else float(said)
    return made


def _entered(
    lakes: Lakes, project: Project, task: PredictionTask, scored: set[str]
) -> dict[frozenset[str], float]:  # fmt: skip
    """Person at L -> 1.0 for the top of those asked by what they spent in the 90 days before the horizon's end."""
    assert isinstance(task.label, Enters)
    rule = re.fullmatch(r"top\(spend_90d, ([\d.]+)\)", task.label.rule)
    assert rule, f"teach this oracle the rule {task.label.rule}"
    cutoff, end = label_cutoff(task), label_cutoff(task) + task.horizon
    then, now = profiles_at(project, cutoff), profiles_at(project, BOUNDARY)
    later = components(lakes.facts, BOUNDARY)
    crowd = {later[node]: now[node] for node, profile in then.items() if profile in scored}
    spent = dict.fromkeys(crowd, 0.0)
    for row in lakes.facts["shop"]:
        person = later.get(identifiers("shop", row)[0])
        if person in spent and end - 90 * DAY <= row["sold_at"] < end and known_at("shop", row) < BOUNDARY:
            spent[person] += float(row["amount"])
    ranked = sorted(crowd, key=lambda person: (-round(spent[person], 6), crowd[person]))
    top = ranked[: math.ceil(float(rule[1]) * len(ranked))]
    return dict.fromkeys(later.values(), 0.0) | dict.fromkeys(top, 1.0)


@every_task
def test_a_grade_is_given_once(lakes: Lakes, origin: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = graded(lakes, "base", origin, name, monkeypatch)
    project = lakes.get("base", origin)
    assert [g for g in grade(project, [name]) if g.graded] == []
    after, _ = graded(lakes, "base", origin, name, monkeypatch)
    assert before.equals(after)
    assert before["score_id"].is_unique


# The law can fail.


@pytest.mark.slow
def test_a_leak_into_grades_is_caught(lakes: Lakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Labels that look five days further would change with what is known then."""
    fresh, honest = Lakes(tmp_path, facts=lakes.facts), dataset.labels_at
    monkeypatch.setattr(
        dataset, "labels_at", lambda con, project, task, cutoff: honest(con, project, task, cutoff + DAY * 5)
    )
    with pytest.raises(AssertionError, match="lake 'changed'"):
        assert_time_safe(
            lambda lake: graded(fresh, lake, "standard", "churn", monkeypatch)[0][GRADES], "base",
            {"changed": "changed"},
        )  # fmt: skip
