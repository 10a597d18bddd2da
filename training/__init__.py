"""How well can it be known? Cutoffs, training sets, candidates judged against honest baselines, MLflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from training.champion import Contest, Trained
    from training.clustering import Clusters


def training_set(task: str, cutoffs: Iterable[str], project: str | None = None) -> pd.DataFrame:
    """One row per eligible profile and cutoff: profile_id, cutoff, label, weight, person, split, and the features.

    task: a task's name; cutoffs: ISO dates or times, UTC without an offset. Everything is as known at each cutoff.
    """
    from datetime import UTC, datetime

    from foretell.project import Project
    from training import dataset

    home = Project.find(project)
    moments = [datetime.fromisoformat(c) for c in cutoffs]
    moments = [m.replace(tzinfo=UTC) if m.tzinfo is None else m.astimezone(UTC) for m in moments]
    return dataset.training_set(home, home.definitions.task(task), moments)


def contest(task: str, trials: int | None = None, project: str | None = None) -> Contest:
    """Judge a task's candidates as `foretell backtest` does; nothing is registered.

    What it found is in `.backtest.evaluation`, `.plot("stability")` and `.report("churn.html")`. trials: as of `train`.
    """
    from foretell.console import progress
    from foretell.project import Project
    from training import champion

    home = Project.find(project)
    with home.writing(f"backtest {task}"), progress(task) as step:
        return champion.contest(home, task, step, trials)


def train(task: str, trials: int | None = None, project: str | None = None) -> Trained:
    """Train a task as `foretell train` does. What it found is in `.evaluation`, `.contest` and `.plot("calibration")`.

    trials: how many sets of parameters the learned model may try; None: as the setting `trials` says.
    """
    from foretell.console import progress
    from foretell.project import Project
    from training import champion

    home = Project.find(project)
    with home.writing(f"train {task}"), progress(task) as step:
        return champion.train(home, task, step, trials)


def clusters(
    among: str | None = None, by: Iterable[str] = (), groups: int | None = None, purpose: str = "marketing",
    project: str | None = None,
) -> Clusters:  # fmt: skip
    """Find what kinds of customers there are, as `foretell cluster` does; nothing is written.

    What it found is in `.groups`, `.typical`, `.members` and `.plot()`. by: features or views to tell them by.
    """
    from foretell.console import progress
    from foretell.project import Project
    from training import clustering

    home = Project.find(project)
    with home.writing("cluster"), progress("groups") as step:
        return clustering.cluster(home, among, tuple(by), groups, purpose, step)
