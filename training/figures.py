"""Which pictures tell what a training found out? Name -> figure, all of the exams together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from models import encoding
from models.estimators import LEARNED
from models.explain import contributions
from training import plots
from training.champion import Contest

SHAP_ROWS = 2_000


def figures(found: Contest) -> dict[str, Figure]:
    """calibration and shap of the winner and of the learned candidate, gain, comparison, stability, and tuning."""
    judged, kind, task = found.backtest, found.kind, found.task
    y, weight = (np.concatenate([getattr(j, part) for j in judged.judgements]) for part in ("y", "weight"))
    said = {m: np.concatenate([j.predictions[m] for j in judged.judgements]) for m in judged.pooled.models}
    shape = plots.calibration_plot if kind == "probability" else plots.decile_plot
    shown = sorted({found.winner, LEARNED} & set(said))  # the others are in the table, `gain` and `compare`
    made = {f"calibration_{name}": shape(y, said[name], name, weight=weight) for name in shown}
    if kind == "probability" or (
        kind == "amount" and (y > 0).any()
    ):  # of nothing but returns there is no amount to find early
        made["gain"] = plots.gain_plot(y, said, kind, weight=weight)
    if task.metric in judged.pooled.metrics:
        made[f"compare_{task.metric}"] = plots.comparison_plot(judged.evaluation, task.metric)
        made["stability"] = plots.stability_plot(judged.by_cutoff, task.metric, found.winner)
    if found.tuned and len(found.tuned.trials):
        made["tuning"] = plots.tuning_plot(found.tuned.trials, found.tuned.objective)
    latest = judged.latest
    X = latest.rows[found.columns].head(SHAP_ROWS)
    background = pd.Series(encoding.background(X, latest.categories), dtype=float)
    for name in shown:
        effects = contributions(latest.fitted[name], X, background)
        if effects.abs().to_numpy().any():  # one answer for everyone has no reasons
            made[f"shap_{name}"] = plots.importance_plot(effects, X)
    return made
