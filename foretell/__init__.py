"""Foretell's shared words: sources, feature views, labels and tasks, and the time they speak of.

Importing this package is cheap; the names below are loaded when first used, because a declaration needs ibis
and `foretell --help` does not.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell.aggregates import decayed, entropy, latest, top_share
    from foretell.connectors import REST, SQL, Cursor, Kafka, NextLink, Offset, PageNumber
    from foretell.declarations import Attribute, Enters, Label, PredictionTask, Source, Until
    from foretell.views import Feature, FeatureView
    from foretell.windows import _, days, days_since, future, hours, minutes, past

# Threads of LightGBM that wait for each other give their processor away: on a busy machine they would spin for seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "SQL": "foretell.connectors",
    "REST": "foretell.connectors",
    "Kafka": "foretell.connectors",
    "PageNumber": "foretell.connectors",
    "Offset": "foretell.connectors",
    "Cursor": "foretell.connectors",
    "NextLink": "foretell.connectors",
    "Source": "foretell.declarations",
    "Attribute": "foretell.declarations",
    "Feature": "foretell.views",
    "FeatureView": "foretell.views",
    "Label": "foretell.declarations",
    "Enters": "foretell.declarations",
    "Until": "foretell.declarations",
    "PredictionTask": "foretell.declarations",
    "_": "foretell.windows",
    "days": "foretell.windows",
    "hours": "foretell.windows",
    "minutes": "foretell.windows",
    "past": "foretell.windows",
    "future": "foretell.windows",
    "days_since": "foretell.windows",
    "decayed": "foretell.aggregates",
    "entropy": "foretell.aggregates",
    "latest": "foretell.aggregates",
    "top_share": "foretell.aggregates",
}

__all__ = [
    "REST",
    "SQL",
    "Attribute",
    "Cursor",
    "Enters",
    "Feature",
    "FeatureView",
    "Kafka",
    "Label",
    "NextLink",
    "Offset",
    "PageNumber",
    "PredictionTask",
    "Source",
    "Until",
    "_",
    "days",
    "days_since",
    "decayed",
    "entropy",
    "future",
    "hours",
    "latest",
    "minutes",
    "past",
    "top_share",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'foretell' has no attribute {name!r}")
