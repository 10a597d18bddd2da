"""What kinds of customers are there? A few groups by rule, named for people, which can be kept as segments.

A group is its rule: as a segment its audience is made anew as profiles change, and a person can read and edit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from features import build
from foretell.errors import DataError, NotReady, unknown
from foretell.project import Project
from foretell.views import FeatureView
from lake.engine import session
from models import registry, wording
from segments.audience import audience, declared, rule_of
from segments.predicate import Kind, Predicate, kind_of, parse
from training import naming, partition, plots
from training.champion import Picture
from training.partition import Partition
from training.spelling import certain, spelled
from unification.consent import without

# What most shops can tell customers by, in the order in which names and tables tell it.
MEASURES = ("days_since_first_order", "orders_365d", "spend_365d", "days_since_order")
AMONG = "days_since_order <= 365"
PURPOSE = "marketing"
STEP = timedelta(days=30)  # how long ago people are looked up, to see whether they stay in their groups
EVERYBODY = "everybody"


@dataclass(frozen=True)
class Clusters:
    """The groups of a population, the largest first.

    at: as of when. population: its rule, "" for everyone. groups: name (of a segment), title, profiles, share,
    found_again, stayed (share of who was in it 30 days before and is in the population at both times), rule.
    typical: the median of each measure in each group, and of everybody in the last row. standing: groups × measures,
    the share of everybody below that median. members: profile_id and name, by profile_id. tried: see partition.find.
    left_out: measure -> why it was not looked at. stayed: share of all profiles, NaN where the past is not known.
    """

    at: datetime
    population: str
    purpose: str
    groups: pd.DataFrame
    typical: pd.DataFrame
    standing: pd.DataFrame
    members: pd.DataFrame
    found: Partition
    tried: pd.DataFrame
    left_out: dict[str, str]
    stayed: float
    words: wording.Words

    def said(self, measure: str, value: float) -> str:
        """A value of a measure for people: "74 days", "1,234.50"; unknown: why there is none."""
        word = self.words.get(measure, {})
        return word.get("null") or "unknown" if np.isnan(value) else wording.number(value, word.get("unit", ""))

    @cached_property
    def drawn(self) -> Figure:
        """Groups × measures: typical values, coloured by where they stand among everybody, and sizes."""
        shown = pd.DataFrame({c: [self.said(str(c), v) for v in self.typical[c]] for c in self.typical})
        return plots.groups_plot(self.groups["title"].tolist(), self.groups["share"].to_numpy(), shown, self.standing)

    def plot(self) -> Picture:
        """The picture of the groups, which a notebook shows by itself."""
        held = BytesIO()
        self.drawn.savefig(held, format="png")
        return Picture("groups.png", held.getvalue())


def cluster(
    project: Project, among: str | None = None, by: Sequence[str] = (), groups: int | None = None,
    purpose: str = PURPOSE, progress: Callable[[str], None] = lambda _: None,
) -> Clusters:  # fmt: skip
    """Find the groups of who satisfies `among` (a rule or segment; default: bought within 365 days, if that is known).

    by: features, or views for all their numbers; default MEASURES. groups: how many; None: as the data say.
    purpose: who did not agree to it is in no group. DataError: see partition.find.
    """
    homes = {feature: view for view in project.definitions.of_profiles.values() for feature in view.features}
    asked = _asked(project, by, homes)
    among = among or (AMONG if parse(AMONG).columns <= homes.keys() else "")
    rule = rule_of(project, among) if among else None
    replayed = rule if rule and rule.columns <= homes.keys() else None  # of traits and scores the past is not known
    needed = [*asked, *(replayed.columns if replayed else ())]
    views = list({homes[name].name: homes[name] for name in sorted(needed)}.values())
    at = project.now  # one instant for all of it: without `as_of` each asking gives another
    build.build(project, views, [at], progress)
    rows, kinds = _rows(project, views, at, replayed, asked)
    if rule and not replayed:
        rows = rows[rows["profile_id"].isin(set(audience(project, among, purpose="").members["profile_id"]))]
    with session(project) as con:
        rows = rows[~rows["profile_id"].isin(without(con, project, purpose, at, rows["profile_id"].tolist()))]
    rows = rows.reset_index(drop=True)
    measures, left_out = _usable(rows, asked, kinds, by)
    X = rows[measures].astype(float)
    progress("finding groups")
    found, tried = partition.find(X, groups)
    mine = partition.assign(found.tree, X)
    order = np.argsort(-np.bincount(mine, minlength=found.groups), kind="stable")

    words = wording.words(views)
    sizes = np.bincount(mine, minlength=found.groups)[order]
    typical = pd.DataFrame([_typical(X[mine == g]) for g in order])
    standing = pd.DataFrame({c: [_standing(X[c], value) for value in typical[c]] for c in measures})
    limits = dict(partition.bounds(found.tree))
    titles = naming.names([limits[g] for g in order], standing.to_dict("records"), words)  # pyright: ignore[reportArgumentType]
    names = naming.slugs(titles)
    sure = certain(rule, measures, words, X)
    progress(f"looking {STEP.days} days back")
    stays, stayed = _stayed(project, views, replayed, found, rows["profile_id"], mine, at - STEP, progress)
    table = pd.DataFrame(
        {
            "name": names, "title": titles, "profiles": sizes, "share": sizes / len(X),
            "found_again": found.found_again[order],
            "stayed": stays[order], "rule": [spelled(rule, limits[g], sure) for g in order],
        }
    )  # fmt: skip
    typical.index = standing.index = pd.Index(names, name="name")
    typical.loc[EVERYBODY] = _typical(X)
    called = dict(zip(order, names, strict=True))
    members = pd.DataFrame({"profile_id": rows["profile_id"], "name": [called[g] for g in mine]})
    return Clusters(
        at, rule.text if rule else "", purpose, table, typical, standing, members, found, tried, left_out,
        stayed, words,
    )  # fmt: skip


def _asked(project: Project, by: Sequence[str], homes: dict[str, FeatureView]) -> list[str]:
    """The features to look at."""
    views, found = project.definitions.of_profiles, []
    for name in by:
        if name not in homes and name not in views:
            raise unknown("feature or view of profiles", name, [*homes, *views], where="--by")
        found += [name] if name in homes else views[name].features
    found = list(dict.fromkeys(found)) or [name for name in MEASURES if name in homes]
    if len(found) < 2:
        raise NotReady(
            "groups", f"expected two features or more to tell profiles by, got {', '.join(found) or 'none'}",
            "name them: --by FEATURE --by FEATURE, or --by VIEW",
        )  # fmt: skip
    return found


def _rows(
    project: Project, views: Sequence[FeatureView], at: datetime, rule: Predicate | None, finite: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Kind]]:
    """The features of who satisfied the rule, by profile_id, and of which kind each is. finite: those that must be.

    Not-a-number is refused like infinity: to a rule it is a number above all others, to everything else it is unknown.
    """
    joined = f"(SELECT profile_id FROM {build.read(project, views[0], at)}) p"
    for view in views:
        file = build.read(project, view, at)
        joined += f" JOIN (SELECT * EXCLUDE (event_timestamp, created) FROM {file}) USING (profile_id)"
    with session(project) as con:
        con.execute(f"CREATE OR REPLACE TEMP TABLE known AS SELECT * FROM {joined}")
        schema = {name: kind for name, kind, *_ in con.execute("DESCRIBE known").fetchall()}
        inside = f"WHERE profile_id IN ({rule.bind(schema).sql('known')})" if rule else ""
        rows = con.execute(f"SELECT * FROM known {inside} ORDER BY profile_id").df()
        kinds = {name: kind_of(kind) for name, kind in schema.items()}
        for name in finite:
            if kinds[name] is Kind.NUMBER:
                wrong = f"""SELECT count(*) FROM known {inside or "WHERE true"} AND NOT isfinite("{name}"::DOUBLE)"""
                if many := con.execute(wrong).fetchall()[0][0]:
                    partition.refuse_infinite(name, many)
    return rows, kinds


def _usable(
    rows: pd.DataFrame, asked: Sequence[str], kinds: dict[str, Kind], by: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The measures that tell anything, and why the others do not. A text that is asked for by name is refused."""
    kept, left_out = [], {}
    for name in asked:
        if kinds[name] is not Kind.NUMBER:
            if name in by:
                problem = f"expected a feature that is a number, got one that is {kinds[name]}"
                raise DataError(name, problem, "name another, or narrow the population by it (--among)", where="--by")
            left_out[name] = "it is no number"
        elif len(rows) and rows[name].nunique() < 2:
            one = rows[name].nunique() == 1
            left_out[name] = "it is the same of everybody" if one else "nobody's is known"
        else:
            kept.append(name)
    return kept, left_out


def _typical(X: pd.DataFrame) -> dict[str, float]:
    """The median of each measure; NaN where most have none."""
    return {str(c): np.nan if X[c].isna().mean() > 0.5 else float(X[c].median()) for c in X.columns}


def _standing(values: pd.Series, value: float) -> float:
    """The share of the known values below, those that are equal counting half; a value that most lack is the middle."""
    known = values.dropna()
    if np.isnan(value):
        return 0.5 if 2 * len(known) < len(values) else np.nan
    return float((known < value).mean() + (known == value).mean() / 2)


def _stayed(
    project: Project, views: list[FeatureView], rule: Predicate | None, found: Partition, profiles: pd.Series,
    mine: np.ndarray, then: datetime, progress: Callable[[str], None],
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Of who was in each group then, the share that is in it now; and of all. NaN where nothing was known."""
    try:
        build.build(project, views, [then], progress)
        rows, _ = _rows(project, views, then, rule, [])
    except DataError:  # before the first fact
        return np.full(found.groups, np.nan), np.nan
    was = pd.Series(partition.assign(found.tree, rows), index=rows["profile_id"]).reindex(profiles).to_numpy()
    both = ~np.isnan(was)
    same = [float((mine[both & (was == g)] == g).mean()) if (was == g).any() else np.nan for g in range(found.groups)]
    return np.array(same), float((was[both] == mine[both]).mean()) if both.any() else np.nan


# --- what is kept ----------------------------------------------------------------------------------------------------


def write(project: Project, found: Clusters) -> list[Path]:
    """Write each group as a segment. A file that says the same may be there; if another is, none is written."""
    folder = project.folder / "segments"
    texts = {folder / f"{g.name}.yaml": _yaml(found, i) for i, g in enumerate(found.groups.itertuples(index=False))}
    known = declared(project)
    for file, text in texts.items():
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        if file.exists() or file.stem in known:
            other = file if file.exists() else known[file.stem].path
            raise DataError(
                f"segments/{other.name}", "there is such a segment already, which says something else",
                "rename it or remove it, then write again",
            )  # fmt: skip
    folder.mkdir(exist_ok=True)
    for file, text in texts.items():
        draft = file.with_name(f".{file.stem}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    return list(texts)


def _yaml(found: Clusters, at: int) -> str:
    group, typical = found.groups.iloc[at], found.typical.iloc[at]
    said = wording.Wording(found.words, {}, {})
    tells = "; ".join(said.text(c, {c: typical[c]}) for c in found.typical.columns[:4])
    title = group["title"][0].upper() + group["title"][1:]
    about = (
        f"{title}: {group['profiles']:,} of {len(found.members):,} profiles on {found.at:%Y-%m-%d}. Typical: {tells}"
    )
    keys = {"name": group["name"], "description": about, "rule": group["rule"], "purpose": found.purpose}
    return yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, width=10_000)


def track(project: Project, found: Clusters) -> None:
    """Keep the run in MLflow, in the experiment `clusters`: the groups and how well they hold, and nobody's row."""

    def log() -> None:
        import mlflow

        place, tags = registry.experiment(project, "clusters"), {registry.OWNER: registry.owner(project)}
        with mlflow.start_run(experiment_id=place, run_name=f"{found.found.groups} groups", tags=tags):
            mlflow.log_params({"population": found.population, "purpose": found.purpose, "at": found.at.isoformat()})
            values = {
                "groups": found.found.groups, "profiles": len(found.members), "stayed": found.stayed,
                "found_again": found.found.found_again.min(), "explained": found.found.explained,
                "explained_by_chance": found.found.chance, "explained_by_kmeans": found.found.kmeans,
                "agreement_with_kmeans": found.found.agreement,
            }  # fmt: skip
            mlflow.log_metrics({name: float(value) for name, value in values.items() if np.isfinite(value)})
            for name in ("groups", "typical", "standing", "tried"):
                mlflow.log_text(getattr(found, name).to_csv(), f"{name}.csv")
            mlflow.log_figure(found.drawn, "groups.png")

    registry.quietly(log)
