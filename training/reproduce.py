"""Can a registered model be made again? Trained anew from what its contract pins, and asked what the model is asked.

The lake is cut at the ingest batch that the model learned from, the project's now is the model's, its views are those
frozen with it: what came in later changes nothing. All is made anew in a scratch home, from the identity graph on. Who
has been erased since, or has withdrawn, is not learned from again: their rows are counted, and named beside what the
two models differ by.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.compiling import contracts, thawed
from features.store import repository
from foretell.declarations import PredictionTask
from foretell.discovery import Definitions
from foretell.errors import DataError, DefinitionError, UnknownName
from foretell.project import Project
from foretell.settings import Value
from lake.engine import connect, instant, last_batch, session, table
from lake.erasure import mine
from models import encoding
from models.estimators import candidates
from models.registry import Champion, champion, client, quietly, views_of
from training import dataset, lineage
from training.backtest import predict, usable
from training.champion import fit_for_use
from unification.consent import barred
from unification.identity import ensure, members_at, unify

Progress = Callable[[str], None]

TOLERANCE = 1e-9
"""What two answers may differ by: where other processors add up in another order, the last digits are others."""

# Tables that are small, and the column that says when a row of it came to be, by the clock.
_WRITTEN = {"consents": "written_at", "decisions": "made_at", "erasures": "written_at"}
# Packages among a model's requirements that make no number of it.
_CARRIERS = {"mlflow", "cloudpickle"}


@dataclass(frozen=True)
class Reproduction:
    """A registered model, and how the one made again compares with it.

    rows_then: how many rows the model was fitted on, as its contract counts them; rows_now: the one made again.
    erased, withdrawn: rows of people who have been erased since, or must not be used for the task's purpose any more.
    difference: the largest absolute difference between what the two say of the same row: of probabilities, or in the
    unit of the amounts. alike: of how many rows they say the same to the last bit.
    environment: package -> (its version then, now), where it is another. others: what else is another, in words.
    """

    task: str
    version: str
    estimator: str
    rows_then: int
    rows_now: int
    erased: int
    withdrawn: int
    difference: float
    alike: int
    environment: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        return self.alike == self.rows_now

    @property
    def unexplained(self) -> int:
        """Rows that are missing, and nobody erased or withdrew them; below 0: there are more than there were."""
        return self.rows_then - self.erased - self.withdrawn - self.rows_now

    @property
    def reproduced(self) -> bool:
        return self.difference <= TOLERANCE and not self.unexplained

    @property
    def verdict(self) -> str:
        """In words: whether it could be made again, what is another, and how that is mended."""
        name = f"{self.task} v{self.version} ({self.estimator})"
        gone = f"{self.erased:,} of {self.rows_then:,} rows erased, {self.withdrawn:,} withdrawn"
        if self.reproduced:
            how = "to the last bit" if self.identical else f"within {self.difference:.1e}"
            rest = f"; {gone} since" if self.erased or self.withdrawn else ""
            return f"{name} is reproduced: all {self.rows_now:,} rows are answered alike, {how}{rest}"
        differ = f"{self.rows_now - self.alike:,} of {self.rows_now:,} rows are answered otherwise"
        said = [] if self.identical else [f"{differ}, by up to {self.difference:.3g}"]
        said += [gone] if self.erased or self.withdrawn else []
        if self.unexplained:
            said.append(f"{abs(self.unexplained):,} rows {'are missing' if self.unexplained > 0 else 'came to them'}")
        said += [f"{what} was {then}, is {now}" for what, (then, now) in self.environment.items()]
        return f"{name} is not reproduced: {'; '.join([*said, *self.others])}. {self._mend}"

    @property
    def _mend(self) -> str:
        anew = f"`foretell train {self.task}` registers a version that can be"
        if self.environment:
            return "Install the packages that it was trained with (requirements.lock pins them), and ask again"
        if (self.erased or self.withdrawn) and not self.unexplained and not self.others:
            return f"Without these rows it cannot be: {anew}"
        return f"Take back what was changed since (the task, its sources, settings, or the contract), or {anew}"


def reproduce(
    project: Project, task: str, version: str | None = None, progress: Progress = lambda _: None
) -> Reproduction:  # fmt: skip
    """Train a registered model of a task anew and compare; nothing is registered, and no fact or model is changed.

    version: which one; None: the champion in use. Raises UnknownName for a task or version there is none of, NotReady
    for a task never trained, DefinitionError where a source has changed so that its features cannot be built, and
    DataError where the lake has lost facts that it learned from, or the model is another release's.
    """
    name = project.definitions.task(task).name
    model, trained = quietly(lambda: _registered(project, name, version))
    contract = model.contract
    asked = f"{name} v{model.version}"
    ensure(project)
    with tempfile.TemporaryDirectory(prefix="foretell-reproduce-") as folder:
        progress(f"{asked}: facts up to batch {contract['batch']}")
        then = _as_it_was(project, model, trained, Path(folder))
        former = then.definitions.task(name)
        unify(then)
        rows = dataset.training_set(then, former, map(datetime.fromisoformat, contract["cutoffs"]), progress)
        now = dataset.eligible(then, former, then.now, progress)
        rows, gone = usable(rows), _people(project, former.purpose)
        may_use, may_ask = (_without(then, each, gone) for each in (rows, now))
    progress(f"{asked}: fitting {contract['estimator']}")
    found, latest, coming, categories = _fitted(project, former, model, may_use, may_ask)
    both = pd.concat([latest, coming])[contract["columns"]]
    theirs = _answers(model, pd.concat([model.encode(may_use), model.encode(may_ask)]))
    ours = predict(found, both, contract["kind"])
    made = Reproduction(
        name, model.version, contract["estimator"], int(contract["rows"]["final"]), len(both),
        lineage.erased_rows(project, name, model.version), len(rows) + len(now) - len(both),
        float(np.max(np.abs(ours - theirs))), int(np.sum(ours == theirs)), quietly(lambda: _environment(model)),
    )  # fmt: skip
    return made if made.identical else replace(made, others=_others(model, found, latest, categories, made))


def _registered(project: Project, task: str, version: str | None) -> tuple[Champion, datetime]:
    """A model of a task, and when it was registered."""
    known = [str(found.version) for found in client(project).search_model_versions(f"name='{task}'")]
    if version is not None and known and version not in known:
        raise UnknownName(f"{task} v{version}", "no such version", f"known: {', '.join(sorted(known, key=int))}")
    model = champion(project, task, version)
    started = client(project).get_run(model.run_id).info.start_time
    return model, datetime.fromtimestamp(started / 1000, UTC)


@dataclass(frozen=True, eq=False)
class _Then(Project):
    """A project as a training saw it: its now, its definitions, and a scratch home with the facts of then."""

    today: Project
    scratch: Path
    at: datetime
    declared: Definitions

    @cached_property
    def settings(self) -> dict[str, Value]:
        origin = "the model's contract"
        own = {"home": str(self.scratch), "lake": "", "registry": "", "mlflow": "", "as_of": self.at}
        return {**self.today.settings, **{name: Value(value, origin) for name, value in own.items()}}

    @property
    def facts_of(self) -> Project:
        return self.today  # they stay where they are

    @cached_property
    def definitions(self) -> Definitions:
        return self.declared

    @cached_property
    def key(self) -> str:
        return self.today.key  # the ids of profiles hang on it; it is written nowhere else


def _as_it_was(project: Project, model: Champion, trained: datetime, scratch: Path) -> _Then:
    """The project with the ledger cut at the model's batch: sessions then show no later fact.

    The facts themselves stay where they are. What was written by hand since (consents, decisions, erasures) is left
    out by the clock, as the project's now may be a past day.
    """
    batch = int(model.contract["batch"])
    kept = {name: f"{column} <= {instant(trained)}" for name, column in _WRITTEN.items()}
    then = _Then(
        project.folder, project, scratch, datetime.fromisoformat(model.contract["now"]), _declared(project, model)
    )  # fmt: skip
    con = connect(then)
    try:
        for name, where in {"batches": f"batch <= {batch}", **kept}.items():
            if files := (stored := table(project, name)).files():
                rows = con.sql(f"SELECT * FROM {stored.scan(files)} WHERE {where}").to_arrow_table()
                if rows.num_rows:
                    table(then, name).append(rows, why="reproduce")
    finally:
        con.close()
    if (last := last_batch(then)) != batch:
        raise DataError(
            f"{model.task} v{model.version}",
            f"learned from the facts up to batch {batch}, and the lake ends at {last}",
            "restore the home's facts, or load them again",
        )  # fmt: skip
    return then


def _declared(project: Project, model: Champion) -> Definitions:
    """Today's definitions, but the task's question and views as they were when the model was trained."""
    today, contract = project.definitions, model.contract
    task = replace(
        today.task(model.task), population=contract["population"], purpose=contract["purpose"],
        horizon=timedelta(days=contract.get("judged_days", contract["horizon_days"])),
    )  # fmt: skip
    if repository.service_name(project, task) == contract["service"]:
        return replace(today, tasks={**today.tasks, task.name: task})
    views = [thawed(said) for said in quietly(lambda: views_of(project, model))]
    former, sources = replace(task, views=tuple(views) or task.views), dict(today.sources)
    broken = [view.name for view in views if contracts(view, sources) != view.contracts]
    if broken or repository.service_name(project, former) != contract["service"]:
        raise DefinitionError(
            task.name, f"v{model.version} was trained on {contract['service']}, and the sources of "
            f"{', '.join(broken) or 'its views'} have changed since",
            f"take back the change to its sources, or run `foretell train {task.name}` again",
        )  # fmt: skip
    frozen = {view.name: view for view in views}
    return replace(today, views={**today.views, **frozen}, tasks={**today.tasks, task.name: former})


def _people(project: Project, purpose: str) -> list[str]:
    """The identifiers of everybody who must not be used for a purpose today."""
    with session(project) as con:
        if (query := barred(con, project, purpose, project.now)) is None:
            return []
        found = f"SELECT node FROM ({members_at(project.now)}) WHERE profile_id IN (SELECT profile_id FROM ({query}))"
        return [node for (node,) in con.execute(found).fetchall()]


def _without(then: Project, rows: pd.DataFrame, nodes: Iterable[str]) -> pd.DataFrame:
    """The rows but for those of profiles that had one of these identifiers at the row's cutoff."""
    kept = pd.Series(True, index=rows.index)
    with session(then) as con:
        mine(con, "gone", nodes)
        for cutoff, those in rows.groupby("cutoff"):
            at = pd.Timestamp(str(cutoff)).to_pydatetime()
            query = f"SELECT DISTINCT profile_id FROM ({members_at(at)}) WHERE node IN (SELECT value FROM gone)"
            theirs = [profile for (profile,) in con.execute(query).fetchall()]
            kept[those.index] = ~those["profile_id"].isin(theirs)
    return rows[kept].reset_index(drop=True)


def _fitted(
    project: Project, task: PredictionTask, model: Champion, rows: pd.DataFrame, now: pd.DataFrame
) -> tuple[Any, pd.DataFrame, pd.DataFrame, dict[str, list[str]]]:  # fmt: skip
    """What `champion.fit_for_use` makes of the model's estimator, with the parameters that its contract names."""
    contract = model.contract

    def known(categories: encoding.Categories) -> dict[str, Any]:
        return candidates(
            contract["kind"], contract["columns"], task.horizon / timedelta(days=1),
            num_threads=project.setting("threads"), categorical=categories, target=task.target,
            tuned=contract["tuned"], stretched=contract.get("judged_days", 0) not in (0, contract["horizon_days"]),
        )  # fmt: skip

    made = fit_for_use(task, contract["kind"], rows, now, contract["columns"], known, contract["estimator"])
    made[0].set_params(horizon_days=contract["horizon_days"])
    return made


def _answers(model: Champion, X: pd.DataFrame) -> np.ndarray:
    """What the registered model says of encoded rows, without the season, which is no part of its fit."""
    try:
        return predict(model.model, X, model.contract["kind"])
    except AttributeError as error:  # it was pickled, and lacks what its class has come to need
        raise DataError(
            f"{model.task} v{model.version}",
            f"was registered by another release, and cannot be asked by this ({error})",
            f"go back to that release, or run `foretell train {model.task}` again",
        ) from None  # fmt: skip


def _environment(model: Champion) -> dict[str, tuple[str, str]]:
    """Package -> (version that the model was registered with, version here), where they are not the same."""
    import mlflow.artifacts
    from mlflow.models import get_model_info

    uri = f"models:/{model.task}/{model.version}"
    lines = mlflow.artifacts.load_text(f"{uri}/requirements.txt").splitlines()
    pinned = dict(line.strip().split("==", 1) for line in lines if "==" in line)
    found = {name: (then, _installed(name)) for name, then in pinned.items() if name not in _CARRIERS}
    python = get_model_info(uri).flavors["python_function"].get("python_version")
    found |= {"python": (str(python), platform.python_version())} if python else {}
    return {name: both for name, both in sorted(found.items()) if both[0] != both[1]}


def _installed(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return "not installed"


def _others(
    model: Champion, found: Any, rows: pd.DataFrame, categories: Mapping[str, list[str]], made: Reproduction
) -> tuple[str, ...]:  # fmt: skip
    """Where the two models part, in words: parameters; and, if no row is gone, outcomes, features, codes of text.

    `rows`: those learned from, encoded. Where rows are gone, all that is worked out over rows is another anyway.
    """
    contract, said = model.contract, []
    then, now = model.model.get_params(deep=False), found.get_params(deep=False)
    differ = [p for p in sorted(then) if p != "num_threads" and then[p] != now.get(p)]
    differ = [p for p in differ if p != "categorical" or not (made.erased or made.withdrawn)]
    said += [f"{p}: the model has {then[p]}, made again {now.get(p)}" for p in differ]
    if made.rows_then != made.rows_now:
        return tuple(said)
    rate = float(np.average(rows["label"], weights=rows["weight"]))
    if rate != contract["base_rate"]:
        said.append(f"mean outcome was {contract['base_rate']:.6g}, is {rate:.6g}")
    typical = encoding.background(rows[contract["columns"]], categories)
    if moved := [column for column, value in contract["background"].items() if typical.get(column) != value]:
        said.append(f"typical values are others of {', '.join(moved[:5])}")
    return tuple(said)
