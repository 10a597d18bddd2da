"""How long does it take from an event to the scores of its profile, and is any lost when ten times as many come?

The shop of `benchmarks.batch`, up to today, with four champions, is served by `foretell serve --collect`, and
`foretell stream` works beside it, everything on the same machine. Events of its people (lines of baskets, of people
known and new) are sent one by one at a steady rate, for a minute; of some of them the scores are asked for until they
are as of the event. Then ten times as many come for a minute, in batches as the SDKs send them, and queue.

  stream.p95_ms  from before an event is sent until the scores of its profile, asked for over HTTP, know it; 95% of them
  stream.lost    events that were said to be safe and are not facts once all is loaded, or are so twice; and profiles
                 whose fresh features are others than those that are rebuilt for the same T

In the details: the median and the longest; how long events waited at most at ten times the rate, and how long it took
until the queue was empty; memory of the worker.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import batch, features_shop, report
from benchmarks.report import apart, progress
from benchmarks.serving import _free, start
from foretell.project import Project

FULL, QUICK = 20_000, 1_500
SETTINGS = '[foretell]\nthreads = 2\nmemory = "3GB"\ncutoffs = 3\nfolds = 2\ntrials = 0\n'
SOURCE = '''"""Lines of baskets, as the shop's web site sends them."""

from foretell import Source

web = Source(
    name="web",
    stream="web",
    role="order_line",
    only="event = 'order_line'",
    event_at="timestamp",
    known_at="receivedAt",
    unique="messageId",
    timezone="Europe/Oslo",
    times_in="UTC",
    identifiers={"email": "context.traits.email", "loyalty_card": "userId"},
    columns={
        "order_id": "properties.basket_id",
        "amount": "properties.paid",
        "quantity": "properties.quantity",
        "product_id": "properties.product_id",
        "category": "properties.category",
    },
)
'''


def prepare(folder: Path, people: int) -> None:
    """A project up to now with four champions, everyone scored, and a stream."""
    from ingestion.collector.keys import Keys
    from ingestion.load import load
    from serving.score import score
    from training.champion import train
    from unification.identity import unify

    texts = {f"tasks/{name}.py": batch.TASK.format(name=name, views=batch.VIEWS) for name in batch.TASKS}
    texts |= {"foretell.toml": SETTINGS, "sources/shop.py": features_shop.SOURCE, "sources/web.py": SOURCE}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    file = folder / "exports" / "shop" / "lines.parquet"
    batch.generate(file, people)
    lines = pd.read_parquet(file)
    ahead = pd.Timestamp.now("UTC").floor("s") - lines["uploaded_at"].max()
    for column in ("sold_at", "uploaded_at"):
        lines[column] += ahead - pd.Timedelta(minutes=5)
    lines.to_parquet(file, index=False)
    project = Project(folder)
    for loaded in load(project, ["shop"]):
        if isinstance(loaded, Exception):
            raise loaded
    unify(project)
    for name in batch.TASKS:
        progress(f"{name}: {train(project, name, progress).winner}")
    score(project, list(batch.TASKS), progress=progress, reasons="none")
    (folder / "write_key").write_text(Keys(project.home).new_key("web")[0])
