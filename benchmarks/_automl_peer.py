"""What `benchmarks.automl` runs in the environment of FLAML or AutoGluon: it fits one of them, and lets it predict.

Read from the folder that is named on the command line: job.json ({"peer", "seconds", "threads", "columns",
"categories"}, the last being the columns that hold codes), learn.parquet (columns, label, weight, person) and
asked.parquet (columns). Written there: said.parquet (p), then answer.json ({"seconds", "chosen", "versions"}). The
seconds are those of the fit alone, with all that it does to choose; not of starting Python, nor of predicting.

A person has several rows, one a cutoff, which are alike: who validates on other rows of people whom he has learned from
thinks too well of models that know people by heart. So both are told who is who. FLAML keeps persons together by
itself; AutoGluon holds each value of a column out once, so its persons are dealt into five folds, which makes it bag.

Without PyTorch AutoGluon has no neural networks, and leaves out its last step, a temperature; that is made up for here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.optimize import minimize_scalar  # noqa: E402
from scipy.special import expit, log_expit, logit  # noqa: E402

QUALITY, FOLDS, SEED = "best_quality", 5, 0  # begins as medium_quality does, and goes on for as long as it has time
LIBRARIES = ("flaml", "autogluon.tabular", "lightgbm", "xgboost-cpu", "catboost", "scikit-learn", "pandas", "numpy")


def flaml(learn: pd.DataFrame, asked: pd.DataFrame, job: dict[str, Any]) -> tuple[np.ndarray, float, str]:
    """Its own choice of learners and of how to validate, but for the groups."""
    from flaml import AutoML  # pyright: ignore[reportMissingImports]

    made, start = AutoML(), time.perf_counter()
    made.fit(
        X_train=learn[job["columns"]], y_train=learn["label"], sample_weight=learn["weight"].to_numpy(),
        groups=learn["person"].to_numpy(), split_type="group", task="classification", metric="log_loss",
        time_budget=job["seconds"], n_jobs=job["threads"], seed=SEED, verbose=0,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return made.predict_proba(asked)[:, 1], seconds, str(made.best_estimator)


def autogluon(learn: pd.DataFrame, asked: pd.DataFrame, job: dict[str, Any]) -> tuple[np.ndarray, float, str]:
    """Its best quality, bagged over folds of persons. Its models, which are large, are gone afterwards.

    Trying out whether to stack, as that quality would, fails in this version where groups are given: so no stacking.
    """
    from autogluon.tabular import TabularPredictor  # pyright: ignore[reportMissingImports]

    dealt = np.random.default_rng(SEED).integers(0, FOLDS, learn["person"].max() + 1)
    rows = learn.drop(columns="person").assign(fold=dealt[learn["person"]])
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as folder:
        made = TabularPredictor(
            label="label", problem_type="binary", eval_metric="log_loss", sample_weight="weight", groups="fold",
            path=folder, verbosity=0,
        )  # fmt: skip
        start = time.perf_counter()
        made.fit(
            rows, time_limit=job["seconds"], presets=QUALITY, num_bag_folds=FOLDS, num_cpus=job["threads"], num_gpus=0,
            ag_args_ensemble={"fold_fitting_strategy": "sequential_local"}, dynamic_stacking=False, num_stack_levels=0,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        p, held_out = made.predict_proba(asked)[1].to_numpy(), made.predict_proba_oof()[1].to_numpy()
        return tempered(p, held_out, learn["label"].to_numpy()), seconds, f"{QUALITY}: {made.model_best}"


def tempered(p: np.ndarray, held_out: np.ndarray, y: np.ndarray) -> np.ndarray:
    """p, its margins divided by what makes the log loss of `held_out` smallest: the predictions of what became y."""
    there = (held_out > 0) & (held_out < 1)
    margin, sign = logit(held_out[there]), 2.0 * y[there] - 1
    found = minimize_scalar(lambda t: -log_expit(sign * margin / t).mean(), bounds=(0.2, 5), method="bounded")
    return expit(logit(p) / found.x)


def versions() -> dict[str, str]:
    """Of the libraries that are there."""
    there = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    return {name: there[name] for name in LIBRARIES if name in there}


def main(folder: Path) -> None:
    """Do the job."""
    job = json.loads((folder / "job.json").read_text())
    learn, asked = (pd.read_parquet(folder / f"{name}.parquet") for name in ("learn", "asked"))
    for column in job["categories"]:
        kind = pd.CategoricalDtype(sorted(f"c{code:.0f}" for code in learn[column].dropna().unique()))
        for rows in (learn, asked):
            rows[column] = rows[column].map(lambda code: f"c{code:.0f}", na_action="ignore").astype(kind)
    peers = {"flaml": flaml, "autogluon": autogluon}
    said, seconds, chosen = peers[job["peer"]](learn, asked[job["columns"]], job)
    pd.DataFrame({"p": said}).to_parquet(folder / "said.parquet")
    (folder / "answer.json").write_text(json.dumps({"seconds": seconds, "chosen": chosen, "versions": versions()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
