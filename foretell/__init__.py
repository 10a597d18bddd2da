"""Foretell's shared words: sources, feature views, labels and tasks, and the time they speak of.

Importing this package is cheap; the names below are loaded when first used, because a declaration needs ibis
and `foretell --help` does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell.aggregates import entropy, latest, top_share
    from foretell.declarations import Attribute, Enters, FeatureView, Label, PredictionTask, Source
    from foretell.windows import _, days, days_since, future, hours, past

_HOMES = {
    "Source": "foretell.declarations",
    "Attribute": "foretell.declarations",
    "FeatureView": "foretell.declarations",
    "Label": "foretell.declarations",
    "Enters": "foretell.declarations",
    "PredictionTask": "foretell.declarations",
    "_": "foretell.windows",
    "days": "foretell.windows",
    "hours": "foretell.windows",
    "past": "foretell.windows",
    "future": "foretell.windows",
    "days_since": "foretell.windows",
    "entropy": "foretell.aggregates",
    "latest": "foretell.aggregates",
    "top_share": "foretell.aggregates",
}

__all__ = [
    "Attribute",
    "Enters",
    "FeatureView",
    "Label",
    "PredictionTask",
    "Source",
    "_",
    "days",
    "days_since",
    "entropy",
    "future",
    "hours",
    "latest",
    "past",
    "top_share",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'foretell' has no attribute {name!r}")
