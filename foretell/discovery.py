"""Which sources, views, tasks and segments exist? Every file of a few folders is loaded; there is no registry.

The standard definitions come with the rooms; a project's own, in its folders, are loaded by path under private module
names, and replace a standard one of the same name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from foretell.binding import bind_task, bind_view
from foretell.checks import short
from foretell.declarations import Attribute, PredictionTask, Source
from foretell.errors import DefinitionError, ForetellError, unknown
from foretell.views import FeatureView, FrozenView

# Where the standard definitions live. Names only: the kernel imports no room until it is asked to discover.
STANDARD_VIEWS = "features.views"
STANDARD_TASKS = "models"

T = TypeVar("T")


@dataclass(frozen=True)
class Definitions:
    """Everything a project can use, by name, bound and checked. `idle`: views left out, and why."""

    sources: Mapping[str, Source]
    views: Mapping[str, FeatureView]
    tasks: Mapping[str, PredictionTask]
    idle: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def of_profiles(self) -> dict[str, FeatureView]:
        """The views whose rows are profiles; their features are attributes."""
        return {name: view for name, view in self.views.items() if view.entity == "profile"}

    def source(self, name: str) -> Source:
        return _get("source", self.sources, name)

    def view(self, name: str) -> FeatureView:
        return _get("feature view", self.views, name)

    def task(self, name: str) -> PredictionTask:
        return _get("task", self.tasks, name)

    def family(self, names: Iterable[str]) -> list[str]:
        """These tasks, each followed by the tasks of its targets, none twice."""
        wanted = [self.task(name).name for name in names]
        family = [[name, *(t.name for t in self.tasks.values() if t.base == name)] for name in wanted]
        return list(dict.fromkeys(name for group in family for name in group))

    def views_of(self, task: PredictionTask) -> list[FeatureView]:
        """The views of a task that this project's sources can fill, in the task's order."""
        known = dict(self.views) | {view.name: view for view in task.views if isinstance(view, FrozenView)}
        return [known[name] for name in task.view_names if name in known]


def _get(kind: str, known: Mapping[str, T], name: str) -> T:
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def discover(folder: Path) -> Definitions:
    """Load and bind the standard definitions and those of the project in `folder`."""
    sources = _collect(Source, _files(folder / "sources"))
    _share_country(sources)
    standard, own = _collect(FeatureView, _package(STANDARD_VIEWS)), _collect(FeatureView, _files(folder / "views"))
    declared = {**standard, **own}
    tasks = {**_collect(PredictionTask, _package(STANDARD_TASKS)), **_collect(PredictionTask, _files(folder / "tasks"))}
    _add_views(tasks, declared)
    for task in list(tasks.values()):
        for made in task.expanded()[1:]:
            if made.name in tasks:
                problem = f"is a target of {task.name} and a task of its own"
                raise DefinitionError(made.name, problem, "rename one", where=short(task.where))
            tasks[made.name] = made
    for task in tasks.values():  # a view handed to a task as an object is discovered with it
        handed = {v.name: v for v in task.views if isinstance(v, FeatureView) and v.name not in own}
        declared = handed | {name: view for name, view in declared.items() if name not in handed}
    views, idle = {}, {}
    for view in declared.values():
        if reason := bind_view(view, sources):
            idle[view.name] = reason
        else:
            views[view.name] = view
    for task in list(tasks.values()):
        if reason := bind_task(task, declared, views, sources):
            idle[task.name] = reason
            del tasks[task.name]
    _check_attributes(sources, {n: v for n, v in views.items() if v.entity == "profile"}, tasks)
    attributes = _collect(Attribute, _files(folder / "attributes"))
    for attribute in attributes.values():
        _check_survivorship(attribute, sources)
    return Definitions(sources, views, tasks, idle, attributes)


def _add_views(tasks: dict[str, PredictionTask], declared: Mapping[str, FeatureView]) -> None:
    """Give each task the views that say they are for it."""
    for view in declared.values():
        for name in view.tasks:
            if name not in tasks:
                raise unknown("task", name, tasks, where=short(view.where))
            if view.name not in (task := tasks[name]).view_names:
                tasks[name] = replace(task, views=(*task.views, view.name))
                object.__setattr__(tasks[name], "where", task.where)


def _check_survivorship(attribute: Attribute, sources: Mapping[str, Source]) -> None:
    """A rule is about something that sources say, and names sources that say it."""
    at = short(attribute.where)
    said = {name for source in sources.values() for name in (*source.traits, *source.identifiers)}
    if attribute.name not in said:
        raise unknown("trait or identifier", attribute.name, said, where=at)
    for name in (*attribute.trust, *attribute.enrich):
        if name not in sources:
            raise unknown("source", name, sources, where=at)
        if attribute.name not in sources[name].traits:
            problem = f"{name} says nothing about it"
            raise DefinitionError(attribute.name, problem, "leave that source out", where=at)
    for name in attribute.enrich:
        if not sources[name].enrich:
            problem = f"{name} is the company's own and enriches nothing"
            raise DefinitionError(attribute.name, problem, 'say party="third" in its contract', where=at)


def _share_country(sources: Mapping[str, Source]) -> None:
    """Sources that say no country have that of the others, if these agree; the same person is then spelt the same."""
    said = sorted({source.country for source in sources.values() if source.country})
    for source in sources.values():
        if source.country is not None:
            continue
        if len(said) == 1:
            object.__setattr__(source, "country", said[0])
        elif said and "phone" in source.identifiers:
            problem = f"has phone numbers and says no country, while others say {' and '.join(said)}"
            fix = 'say country="…"; "" if it is not known: its numbers then meet no others'
            raise DefinitionError(source.name, problem, fix, where=short(source.where))


# Columns that every table of profiles, or every training set, has beside its attributes.
_TAKEN = {"profile_id", "identifiers", "event_timestamp", "created", "cutoff", "label", "weight", "person", "split"}


def _check_attributes(
    sources: Mapping[str, Source], views: Mapping[str, FeatureView], tasks: Mapping[str, PredictionTask]
) -> None:
    """Traits, identifiers, features and scores are columns of one table, which rules read: a name means one thing."""
    homes = dict.fromkeys(_TAKEN, "a column of Foretell's own")
    for source in sources.values():
        for trait in source.traits:
            if homes.setdefault(trait, "a trait") != "a trait":
                raise DefinitionError(trait, f"is a trait and {homes[trait]}", "rename it", where=short(source.where))
    for source in sources.values():  # the trait of that name says the same
        homes |= {kind: "an identifier" for kind in source.identifiers if kind not in homes}
    made = [(view, name, f"a feature of {view.name}") for view in views.values() for name in view.features]
    made += [(task, task.name, f"the score of {task.name}") for task in tasks.values()]
    made += [(task, f"{task.name}_percentile", f"the percentile of {task.name}") for task in tasks.values()]
    for owner, name, what in made:
        if name in homes:
            raise DefinitionError(name, f"is {homes[name]} and {what}", "rename one", where=short(owner.where))
        homes[name] = what


def _collect(kind: type[T], modules: Iterator[ModuleType]) -> dict[str, T]:
    """The declarations of one kind made in these modules (not those they import from elsewhere)."""
    found: dict[str, T] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, kind) and value.where == module.__file__:  # type: ignore[attr-defined]
                name: str = value.name  # type: ignore[attr-defined]
                if name in found and found[name] is not value:
                    raise DefinitionError(name, "declared twice", "rename one", where=str(module.__file__))
                found[name] = value
    return found


def _package(name: str) -> Iterator[ModuleType]:
    package = importlib.import_module(name)
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        if not info.ispkg and not info.name.startswith("_"):
            yield importlib.import_module(f"{name}.{info.name}")


def _files(folder: Path) -> Iterator[ModuleType]:
    for file in sorted(folder.glob("*.py")):
        if not file.name.startswith("_"):
            yield load_file(file)


def load_file(file: Path) -> ModuleType:
    """A Python file as a module of a private name, so that a project's `models.py` never meets ours."""
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:10]
    name = f"_foretell_project_{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # lets pickle find what the file defines
    try:
        spec.loader.exec_module(module)
    except ForetellError:
        raise
    except Exception as error:
        problem = f"cannot be loaded: {type(error).__name__}: {error}"
        raise DefinitionError(file.name, problem, "mend the file", where=f"{file.parent.name}/{file.name}") from error
    return module
