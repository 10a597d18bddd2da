"""What exactly was a model asked to foretell? The question as JSON, kept with the model, and asked when it is due.

A task's file may be edited while scores of it wait for their outcome. They are graded by what was asked when the model
was trained: population, horizon, settle time, and the label as SQL, or the rule with the views that it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from features.compiling import contracts, frozen, thawed
from features.labels import FrozenLabel, compiled
from foretell.declarations import Enters, PredictionTask, Until
from foretell.discovery import Definitions
from foretell.errors import DefinitionError, ForetellError
from foretell.project import Project
from foretell.views import FeatureView, FrozenView
from training import dataset, entering

Said = dict[str, Any]
"""population, purpose, horizon_days, settle_days, and label: of a Label source, waits, sql and contracts (what of the
sources its value hangs on); of an Enters rule and views, all that it and the population read."""


@dataclass(frozen=True)
class Question:
    """A task as it was asked. project: with the definitions of then, on the lake of today. asked: "then" where its
    model kept the question, "today" where it did not, and the label is that of the task's file today. digest: eight hex
    digits that change with what is asked."""

    project: Project
    task: PredictionTask
    asked: str
    digest: str

    @property
    def reach(self) -> timedelta:
        """How long after its cutoff a score can be graded."""
        return self.task.horizon + self.task.settle

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles and sources whose facts decide about the outcome."""
        if isinstance(self.task.label, Enters):
            views = entering.views_of(self.project, entering.rule_of(self.project, self.task), self.task.name)
            return tuple(dict.fromkeys(role for view in views for role in view.roles))
        return (self.task.label.source,)


def said(project: Project, task: PredictionTask) -> Said:
    """The question of a task, as it goes into a model's contract."""
    sources = dict(project.definitions.sources)
    label: dict[str, Any]
    if isinstance(task.label, Enters):
        rule = entering.rule_of(project, task)
        views = [*dataset.population_views(project, task), *entering.views_of(project, rule, f"label of {task.name}")]
        label = {"rule": rule.text, "views": [frozen(view, sources) for view in dataset.once(project, views)]}
    else:
        sql = compiled(task, sources)
        waits = isinstance(task.label, Until) or (isinstance(task.label, FrozenLabel) and task.label.waits)
        label = {
            "source": task.label.source, "waits": waits, "sql": list(sql),
            "contracts": contracts(_as_view(task.label.source, sql), sources),
        }  # fmt: skip
    days = timedelta(days=1)
    found = {
        "population": task.population, "purpose": task.purpose, "horizon_days": task.horizon / days,
        "settle_days": task.settle / days, "label": label,
    }  # fmt: skip
    return json.loads(json.dumps(found))


def digest(question: Said) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:8]


def asked(project: Project, task: str, contract: Mapping[str, Any]) -> Question:
    """The question that a model with this contract was trained on.

    Raises UnknownName for a task that is declared no more, and DefinitionError where a source has changed since, so
    that the label would mean something else.
    """
    today = project.definitions.task(task)
    former: Said | None = contract.get("question")
    if former is None:
        horizon = timedelta(days=contract["horizon_days"])
        made = _replaced(today, population=contract["population"], purpose=contract["purpose"], horizon=horizon)
        return Question(project, made, "today", digest(said(project, made)))
    if _is_still(project, today, former):
        return Question(project, today, "then", digest(former))
    sources, label = dict(project.definitions.sources), former["label"]
    made = _replaced(
        today, population=former["population"], purpose=former["purpose"],
        horizon=timedelta(days=former["horizon_days"]), settle=timedelta(days=former["settle_days"]),
        label=Enters(label["rule"]) if "rule" in label else FrozenLabel(
            source=label["source"], sql=tuple(label["sql"]), waits=label["waits"]
        ),
    )  # fmt: skip
    views = [thawed(view) for view in label.get("views", ())]
    broken = [view.name for view in views if contracts(view, sources) != view.contracts]
    if "sql" in label and contracts(_as_view(label["source"], tuple(label["sql"])), sources) != label["contracts"]:
        broken.append(label["source"])
    if broken:
        raise DefinitionError(
            task, f"the label was asked of {', '.join(broken)} as declared when the model was trained, which has "
            "changed since, so that the outcome would be that of another question",
            "take back the change to its sources, or leave these scores without a grade",
        )  # fmt: skip
    known = project.definitions
    then = replace(
        known, views={**known.views, **{view.name: view for view in views}}, tasks={**known.tasks, task: made}
    )
    return Question(_Then(project.folder, then), made, "then", digest(former))


def _is_still(project: Project, task: PredictionTask, former: Said) -> bool:
    try:
        return said(project, task) == former
    except ForetellError:  # such as a segment that is declared no more
        return False


@dataclass(frozen=True, eq=False)
class _Then(Project):
    """A project with former definitions; its home and its now are those of today."""

    declared: Definitions

    @cached_property
    def definitions(self) -> Definitions:
        return self.declared


def _as_view(source: str, sql: tuple[str, ...]) -> FeatureView:
    """A label as a view of one value, so that what its sources mean is told as it is of views."""
    return FrozenView(name="label", source=source, features={"label": None}, sql=(sql[0], sql[1]))


def _replaced(task: PredictionTask, **changes: Any) -> PredictionTask:
    made = replace(task, **changes)
    object.__setattr__(made, "where", task.where)
    return made
