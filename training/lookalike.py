"""Who is most like a seed audience, as profiles are now? Any seed: a segment, a rule, identifiers, a file of them.

Candidates learn to tell the seed from everyone else by what is known now, and are judged on seeds they did not see:
each profile is ranked by a model of which it was no part. What the seed's own rule reads is kept from them, or they
would learn the rule. A seed whose rule reads features alone can do better, as it can be replayed in the past: a task
that Enters it learns who became one, and is judged on the future (see `as_task`).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from features import build
from foretell.errors import DataError, ForetellError, NotReady
from foretell.project import Project
from lake.engine import session
from models import encoding
from models.estimators import candidates, trees
from models.estimators.similarity import Centroid
from models.explain import contributions
from segments.audience import audience, declared, rule_of
from training import metrics
from unification.consent import without
from unification.identity import resolve

FOLDS = 5
METRIC = "auc"
COIN = 0.5  # what that is where nothing is known
LEARNED = "lightgbm"
NO_GROUPS = ("base_rate", "bg_nbd", "blend")  # what they know is of purchases to come, or of nobody in particular
PURPOSE = "marketing"


@dataclass(frozen=True)
class Lookalikes:
    """A seed expanded.

    ranked: profile_id and likeness (probability of being a seed) of everyone else, the likest first.
    evaluation: model, metric, value, low, high, on seeds held out. marks: feature, seed (its typical value there),
    others, weight (mean |effect| in the winner), the weightiest first. unknown: listed identifiers that nobody has.
    """

    seed: str
    seeds: int
    ranked: pd.DataFrame
    evaluation: pd.DataFrame
    winner: str
    reason: str
    marks: pd.DataFrame
    unknown: list[str]
    replayable: bool


def expand(
    project: Project, seed: str | Sequence[str], among: str | None = None,
    progress: Callable[[str], None] = lambda _: None, at: datetime | None = None,
) -> Lookalikes:  # fmt: skip
    """Rank everyone (`among`: a rule that they satisfy) by their likeness to a seed.

    seed: a segment, a rule, a file of identifiers, or a list of them. at: by the features as of then, not as of now.
    """
    name = seed if isinstance(seed, str) else "the seed"
    progress("finding the seed")
    members, hidden, unknown = _members(project, seed)
    rows = _rows(project, at or project.now, progress)
    with session(project) as con:  # nobody is compared, nor found, who did not agree to it
        refused = without(con, project, _purpose(project, seed), project.now, rows["profile_id"].tolist())
    rows = rows[~rows["profile_id"].isin(refused)].reset_index(drop=True)
    if among:
        kept = set(audience(project, among).members["profile_id"]) | members
        rows = rows[rows["profile_id"].isin(kept)].reset_index(drop=True)
    y = rows["profile_id"].isin(members).to_numpy().astype(int)
    seeds, others = int(y.sum()), int((1 - y).sum())
    if min(seeds, others) < 2 * FOLDS:
        fix = "loosen the rule, or give more identifiers" if seeds < 2 * FOLDS else "tighten the rule"
        raise DataError(
            name, f"expected at least {2 * FOLDS} seeds and {2 * FOLDS} others, to hold some out, got {seeds} and "
            f"{others}", fix + (", or loosen --among" if among else ""),
        )  # fmt: skip
    columns = [c for c in rows.columns if c != "profile_id" and c not in hidden]
    categories = encoding.learn(rows, columns)
    X = encoding.encode(rows, columns, categories)
    threads = project.setting("threads")
    learned = trees("probability", 1.0, num_threads=threads, categorical=categories)
    known: dict[str, Any] = {Centroid.name: Centroid(1.0), **candidates("probability", columns, 1.0), LEARNED: learned}
    for name in NO_GROUPS:
        known.pop(name, None)
    predictions = {}
    for name, estimator in known.items():
        progress(f"judging {name} on seeds held out")
        predictions[name] = _held_out(estimator, X, y)
    evaluation = metrics.evaluate(y, predictions, "probability")
    winner, reason = _choose(y, predictions, evaluation)
    progress(f"ranking by {winner}")
    model = _fresh(known[winner]).fit(X, y)
    everyone = pd.DataFrame({"profile_id": rows["profile_id"], "likeness": model.predict_proba(X)[:, 1]})
    ranked = everyone[y == 0].sort_values(["likeness", "profile_id"], ascending=[False, True], ignore_index=True)
    return Lookalikes(
        name, seeds, ranked, evaluation, winner, reason, _marks(model, X, y, categories), unknown,
        _replayable(project, seed),
    )  # fmt: skip


def _purpose(project: Project, seed: str | Sequence[str]) -> str:
    """What a lookalike of this seed is for: as the segment says, else marketing."""
    known = declared(project)
    return (known[seed].purpose if isinstance(seed, str) and seed in known else "") or PURPOSE


def check_file(file: Path) -> None:
    if file.suffix.lower() != ".csv":
        raise DataError(str(file), "audiences are exported as CSV", f"name it {file.with_suffix('.csv').name}")


def export(found: Lookalikes, top: int, file: Path) -> int:
    """Write the likest to a CSV file, atomically. Returns how many."""
    check_file(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    found.ranked.head(top).to_csv(draft, index=False)
    os.replace(draft, file)
    return min(top, len(found.ranked))


def as_task(project: Project, seed: str) -> Path:
    """Write a task that learns who comes to satisfy the seed's rule, judged on the future. Returns its file."""
    if not _replayable(project, seed):
        raise DataError(
            seed, "expected a rule that reads features only, which can be replayed in the past",
            "expand it as profiles are now: leave --as-task out",
        )  # fmt: skip
    named = seed in declared(project)
    name = "lookalike_" + (re.sub(r"[^a-z0-9]+", "_", seed.lower()) if named else "seed")
    file = project.folder / "tasks" / f"{name}.py"
    if name in project.definitions.tasks or file.exists():
        raise DataError(f"tasks/{file.name}", "there is such a task already", "edit it, or remove it first")
    histories = {task.name for task in project.definitions.tasks.values() if task.base}  # each is one target's own
    views = tuple(name for name in project.definitions.of_profiles if name not in histories)
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'''"""Who will come to be one of {seed if named else "those who satisfy the rule below"}?"""

from foretell import Enters, PredictionTask, days

{name} = PredictionTask(
    name="{name}",
    population="orders_365d > 0",
    horizon=days(90),
    label=Enters({seed!r}),
    views={views!r},
    metric="log_loss",
    purpose="{_purpose(project, seed)}",
)
''')
    return file


def _members(project: Project, seed: str | Sequence[str]) -> tuple[set[str], frozenset[str], list[str]]:
    """The seed's profiles, the attributes its rule reads, and identifiers that nobody has."""
    if not isinstance(seed, str) or _is_file(seed):
        name, listed = (seed, _listed(Path(seed))) if isinstance(seed, str) else ("the seed", seed)
        found, unknown = _found(project, name, listed)
        return found, frozenset(), unknown
    rule = rule_of(project, seed)
    hidden = rule.columns | {f"known_{trait}" for trait in rule.columns}  # a trait and the feature that knows it
    return set(audience(project, seed).members["profile_id"]), frozenset(hidden), []


def _found(project: Project, name: str, identifiers: Iterable[str]) -> tuple[set[str], list[str]]:
    """The profiles that identifiers mean, and those that mean none."""
    found, unknown = set(), []
    with session(project) as con:
        for text in identifiers:
            try:
                found.add(resolve(con, project, text))
            except NotReady:
                raise
            except ForetellError:
                unknown.append(text)
    if not found:
        fix = "one profile id or e-mail a line" if _is_file(name) else "give profile ids or e-mails"
        raise DataError(name, f"none of its {len(unknown)} identifiers is known", fix)
    return found, unknown


def _listed(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(str(file), "no such file", "check the path")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row[0].strip() for row in csv.reader(stream) if row and row[0].strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(file), f"expected text in UTF-8, got {error}", "save it as CSV in UTF-8") from None
    return [text for text in dict.fromkeys(rows) if text.lower() not in {"profile_id", "email", "identifier"}]


def _rows(project: Project, at: datetime, progress: Callable[[str], None]) -> pd.DataFrame:
    """Every feature of every profile as of one instant. Without a setting `as_of` each asking for now gives another."""
    views = list(project.definitions.of_profiles.values())
    if not views:
        raise NotReady("lookalike", "no view can be filled", "declare a source that plays a role")
    build.build(project, views, [at], progress)
    joined = f"(SELECT profile_id FROM {build.read(project, views[0], at)}) p"
    for view in views:
        file = build.read(project, view, at)
        joined += f" JOIN (SELECT * EXCLUDE (event_timestamp, created) FROM {file}) USING (profile_id)"
    with session(project) as con:
        return con.execute(f"SELECT * FROM {joined} ORDER BY profile_id").df()


def _held_out(estimator: Any, X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """For each row the prediction of a model that did not see it."""
    p = np.zeros(len(y))
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y):
        p[judge] = _fresh(estimator).fit(X.iloc[learn], y[learn]).predict_proba(X.iloc[judge])[:, 1]
    return p


def _fresh(estimator: Any) -> Any:
    return clone(estimator)


def _choose(y: np.ndarray, predictions: dict[str, np.ndarray], evaluation: pd.DataFrame) -> tuple[str, str]:
    """The best by AUC on held-out seeds; the learned one only where it is better beyond chance, and than a coin."""
    judged = evaluation[evaluation["metric"] == METRIC].set_index("model")
    best, low = str(judged["value"].drop(LEARNED).idxmax()), judged["low"]
    difference = metrics.compare(y, predictions, "probability", METRIC, best, LEARNED)
    shown = f"{METRIC} {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] against {best}"
    better = metrics.verdict(difference, metrics.METRICS["probability"][METRIC]) == "better"
    if better and low[LEARNED] > COIN:
        return LEARNED, f"{LEARNED} is better beyond chance: {shown}"
    nothing = "" if low[best] > COIN else "; no candidate tells the seed from others beyond chance"
    return best, f"{LEARNED} is {'' if better else 'not '}better beyond chance: {shown}{nothing}"


def _marks(model: Any, X: pd.DataFrame, y: np.ndarray, categories: encoding.Categories) -> pd.DataFrame:
    """What tells the seed apart: the features that weigh most in the winner, with typical values here and there."""
    sample = X.sample(min(len(X), 2_000), random_state=0)
    background = pd.Series(encoding.background(X, categories))
    columns = list(getattr(model, "columns_", X.columns))
    if hasattr(model, "effects") or len(columns) <= 12:
        weight = contributions(model, sample, background).abs().mean()
    else:  # too many columns for exact Shapley values: how far the seed's mean lies from the others', in deviations
        weight = ((X[y == 1].mean() - X[y == 0].mean()) / X.std()).abs().fillna(0.0)
    top = weight.sort_values(ascending=False, kind="stable").head(5)
    typical = [_typical(X[y == side], categories) for side in (1, 0)]
    return pd.DataFrame(
        [
            {
                "feature": name, "weight": float(value),
                **{
                    who: values[str(name)]
                    for who, values in zip(("seed", "others"), typical, strict=True)
                },
            }
            for name, value in top.items() if value > 0
        ], columns=["feature", "weight", "seed", "others"],
    )  # fmt: skip


def _typical(X: pd.DataFrame, categories: encoding.Categories) -> dict[str, Any]:
    """The median of each number, the most frequent value of each text."""
    values: dict[str, Any] = {str(name): float(value) for name, value in X.median().items()}
    for name in categories:
        mode = X[name].mode()
        values[name] = encoding.decode(name, float(mode.iloc[0]), categories) if len(mode) else None
    return values


def _is_file(seed: str) -> bool:
    return Path(seed).suffix.lower() in {".csv", ".txt"}


def _replayable(project: Project, seed: str | Sequence[str]) -> bool:
    """Whether the seed is a rule over features alone."""
    if not isinstance(seed, str) or _is_file(seed):
        return False
    features = {name for view in project.definitions.of_profiles.values() for name in view.features}
    return rule_of(project, seed).columns <= features
