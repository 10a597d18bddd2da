"""The service that one writes first: BentoML, Feast's get_online_features, and a model of MLflow's for each task.

`benchmarks/serving.py` starts it, with the project in PEER_PROJECT; PEER_TASKS is JSON: task -> version.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd

from foretell.project import Project
from models.encoding import encode


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Peer:
    def __init__(self) -> None:
        import mlflow.artifacts
        import mlflow.pyfunc

        from features.store.online import open_store
        from models.registry import CONTRACT, client

        project = Project(Path(os.environ["PEER_PROJECT"]))
        tracking = client(project)
        self.store = open_store(project)
        self.models, self.contracts, names = {}, {}, set()
        for task, version in json.loads(os.environ["PEER_TASKS"]).items():
            run = tracking.get_model_version(task, version).run_id
            self.contracts[task] = json.loads(mlflow.artifacts.load_text(f"runs:/{run}/{CONTRACT}"))
            self.models[task] = mlflow.pyfunc.load_model(f"models:/{task}/{version}")
            for view in self.store.get_feature_service(self.contracts[task]["service"]).feature_view_projections:
                names |= {f"{view.name}:{feature.name}" for feature in view.features}
        self.features = sorted(names)
        self.explainers: dict[str, list[Any]] = {}

    def _rows(self, profile: str) -> dict[str, pd.DataFrame]:
        """By task, the encoded features: one call for what all of them read."""
        found = self.store.get_online_features(self.features, [{"profile_id": profile}]).to_df()
        return {task: encode(found, c["columns"], c["categories"]) for task, c in self.contracts.items()}

    @bentoml.api
    async def constant(self) -> dict:
        """What BentoML itself takes."""
        return {"status": "alive"}

    @bentoml.api
    def score(self, profile: str) -> dict:
        """{task: value}"""
        rows = self._rows(profile)
        return {"values": {task: float(np.ravel(model.predict(rows[task]))[0]) for task, model in self.models.items()}}

    @bentoml.api
    def explained(self, profile: str) -> dict:
        """The same, with what the trees of each model say of each feature."""
        import shap

        rows, said = self._rows(profile), {}
        for task, model in self.models.items():
            plain = model.get_raw_model()
            if task not in self.explainers:
                parts = [*getattr(plain, "parts_", {}).values(), plain]
                self.explainers[task] = [
                    (shap.TreeExplainer(part.booster_), list(part.columns_))
                    for part in parts
                    if hasattr(part, "booster_")
                ]
            effects: dict[str, float] = {}
            for explainer, columns in self.explainers[task]:
                found = np.ravel(explainer.shap_values(rows[task][columns]))
                for column, effect in zip(columns, found, strict=False):
                    effects[column] = effects.get(column, 0.0) + float(effect)
            top = sorted(effects, key=lambda c: -abs(effects[c]))[:3]
            value = float(np.ravel(model.predict(rows[task]))[0])
            said[task] = {"value": value, "reasons": {c: effects[c] for c in top}}
        return {"values": said}
