"""A project of the product that lives through a log's lines, and the predictions that are asked of it.

At each now it has been given the lines before and nothing else, by the product's own loading. Its one source plays the
role order_line; its tasks are the standard ones, and copies of them that look further or less far ahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from benchmarks.log import connect, sql
from foretell.declarations import PredictionTask
from foretell.errors import DataError, UnknownName, did_you_mean
from foretell.project import Project
from ingestion.load import load_file
from lake.engine import last_batch, quote, session
from models.churn import churn
from models.clv import clv
from models.lookalike import lookalike
from models.propensity import propensity
from unification.identity import unify

KEY = "accuracy-benchmark"
"""The homes' key. Profile ids, and so the order of rows and the luck of a seed, are the same in every run."""

STANDARD: dict[str, tuple[PredictionTask, str]] = {
    "churn": (churn, "left"), "propensity": (propensity, "bought"), "buy": (propensity, "bought"),
    "clv": (clv, "spend"), "purchases": (clv, "purchases"), "lookalike": (lookalike, "entered"),
}  # fmt: skip
"""The word that a prediction's name begins with: the task that makes it, and the answer that is its label."""

EXAMPLES = ("churn90", "propensity30", "buy30", "clv90", "clv180", "purchases90", lookalike.name)
SETTINGS = """\
[foretell]
as_of = "1970-01-01T00:00:00+00:00"
"""
SOURCE = '''\
"""The log's lines, as `benchmarks.log` writes them."""

from foretell import Source

lines = Source(
    name="lines",
    files="*.parquet",
    role="order_line",
    event_at="sold_at",
    timezone="{zone}",
    times_in="UTC",
    identifiers={{"customer": "customer"}},
    columns={{
        "order_id": "order_id",
        "amount": "amount",
        "quantity": "quantity",
        "product_id": "item",
        "cancelled": "cancelled",
    }},
)
'''
TASK = '''\
"""The standard task `{base}`, asked about {days} days."""

from dataclasses import replace

from foretell import Label, _, days
from models.{base} import {base}

{name} = replace({base}, name="{name}", horizon=days({days}){more})
'''
DAYS_WITH_A_PURCHASE = "_.event_day.nunique(where=~_.cancelled.fill_null(False)).fill_null(0)"


@dataclass(frozen=True)
class Asked:
    """A prediction that is measured: the task that makes it, how far it looks, and which answer is its label."""

    name: str
    task: str
    days: int
    answer: str

    @classmethod
    def parse(cls, name: str) -> Asked:
        """churnN, propensityN (or buyN), clvN, purchasesN of any number of days N, and lookalike; else an UnknownName.

        >>> Asked.parse("clv90").task, Asked.parse("clv180").task
        ('clv', 'clv180')
        """
        said = re.fullmatch("(?a:([a-z]+?)([1-9][0-9]{0,3})?)", name)
        word, number = said.groups() if said else ("", None)
        if word not in STANDARD or (number is None) != (word == lookalike.name):
            problem = f"no such prediction; expected a word and a number of days, such as {', '.join(EXAMPLES)}"
            raise UnknownName(name, problem, did_you_mean(name, EXAMPLES))
        task, answer = STANDARD[word]
        days = int(number) if number else task.horizon.days
        standard = days == task.horizon.days and word in (task.name, "buy")
        return cls(name, task.name if standard else name, days, answer)

    @property
    def file(self) -> str | None:
        """The text of a file that declares the task; None of a standard one."""
        base = STANDARD[self.name.rstrip("0123456789")][0].name
        if self.task == base:
            return None
        counted = f', label=Label(source="order_line", value={DAYS_WITH_A_PURCHASE}), metric="mae"'
        more = counted if self.answer == "purchases" else ""
        return TASK.format(base=base, name=self.task, days=self.days, more=more)


def open_shop(folder: Path, zone: str, asked: Iterable[Asked] = ()) -> Project:
    """A new project in `folder`, before anything is loaded. zone: of the shop's days."""
    files = {"foretell.toml": SETTINGS, "sources/lines.py": SOURCE.format(zone=zone)}
    files |= {f"tasks/{a.task}.py": a.file for a in asked if a.file}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    project = Project(folder)
    project.home.mkdir()
    (project.home / "key").write_text(KEY)
    return project


def live_until(project: Project, lines: Path, now: datetime) -> Project:
    """The same project at a later now: the lines from its last now to this one come in, as another export.

    Raises DataError before there is any.
    """
    begun = last_batch(project) > 0
    project, export, copied = move_on(project, lines, now, project.folder)
    if not copied and not begun:
        raise DataError("lines", f"there is none before {now:%Y-%m-%d}", "choose later cutoffs, or an older log")
    if copied:
        loaded = load_file(project, project.definitions.source("lines"), export)
        if loaded.quarantined or loaded.anonymous or loaded.added != copied:
            problem = f"expected all of {copied:,} lines to be facts, got {loaded.added:,}: {loaded.reasons}"
            raise ValueError(f"{export.name}: {problem}")
        unify(project)
    return project


def move_on(project: Project, lines: Path, now: datetime, folder: Path) -> tuple[Project, Path, int]:
    """(the same project at a later now, an export in `folder` of the lines since its last now, how many they are)."""
    since, settings = project.now, project.folder / "foretell.toml"
    text, replaced = re.subn(r"(?m)^as_of = .*$", f'as_of = "{now.isoformat()}"', settings.read_text())
    if replaced != 1:
        raise ValueError(f"{settings}: expected one line as_of, got {replaced}")
    settings.write_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    export = folder / f"until_{now:%Y%m%dT%H%M%S}.parquet"
    lived = f"FROM read_parquet('{quote(lines)}') WHERE sold_at >= {sql(since)} AND sold_at < {sql(now)}"
    copied = connect().execute(f"COPY ({lived}) TO '{quote(export)}' (FORMAT parquet)").fetchall()[0][0]
    return Project(project.folder), export, int(copied)


def people_of(project: Project) -> pd.DataFrame:
    """customer, profile_id: whose number belongs to which profile."""
    with session(project) as con:
        query = "SELECT DISTINCT split_part(node, ':', 2) AS customer, profile_id FROM member WHERE known_to IS NULL"
        return con.execute(query).df()
