"""A shop that is served, and events of its people: for tests of what is known between two batches."""

from __future__ import annotations

import atexit
import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fixtures_trained import KEY, NOW, write_shop

from foretell.project import Project
from ingestion.collector.log import Segment, folder_of
from ingestion.load import load
from serving.score import score
from training.champion import train

SOURCE = '''"""What people buy in the app, as it happens."""

from foretell import Source

app = Source(
    name="app", stream="app", role="order_line", event_at="timestamp", known_at="receivedAt", unique="messageId",
    only="event = 'bought'", currency="NOK", identifiers={"email": "context.email", "card": "userId"},
    columns={"order_id": "properties.order", "amount": "properties.amount", "quantity": "1"},
    consents={"retention": "properties.consent"},
)
'''
_numbers = itertools.count(1)


TASKS = ("churn", "clv")


@cache
def _served() -> Project:
    folder = Path(tempfile.mkdtemp(prefix="foretell-stream-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_shop(folder)
    (folder / "sources" / "app.py").write_text(SOURCE)
    settings = folder / "foretell.toml"
    settings.write_text(settings.read_text() + "trials = 0\npurposes = {retention = 'opt-out'}\n")
    project = Project(folder)
    (project.home).mkdir(parents=True, exist_ok=True)
    (project.home / "key").write_text(KEY)
    for result in load(project, ["till", "web", "crm"]):
        assert not isinstance(result, Exception), result
    for name in TASKS:
        train(project, name)
    score(project, list(TASKS))
    settings.write_text(settings.read_text().replace(NOW.isoformat(), (NOW + timedelta(hours=12)).isoformat()))
    assert Project(folder).now == NOW + timedelta(hours=12)
    return Project(folder)


@pytest.fixture(scope="session")
def served() -> Project:
    """A shop that is served, half a day after its batch, with a source of collected events. Do not change it."""
    return _served()


def message(at: datetime, card: str | None = None, amount: float = 100, **other: Any) -> dict[str, Any]:
    """A line of the log: somebody bought for so much. email, id, event, consent: as in the message."""
    n = next(_numbers)
    properties = {"order": f"o{n}", "amount": str(amount), "consent": other.get("consent")}
    return {
        "receivedAt": at.isoformat(), "type": "track", "event": other.get("event", "bought"),
        "messageId": other.get("id", f"m{n}"), "userId": card, "timestamp": other.get("happened", at).isoformat(),
        "context": {"email": other.get("email")}, "properties": properties,
    }  # fmt: skip


class Log:
    """The log of the stream `app`, to which lines are added."""

    def __init__(self, project: Project):
        self.folder = folder_of(project.home) / "app"
        self._segment = Segment(self.folder)

    def add(self, *messages: Mapping[str, Any] | str) -> None:
        text = "".join((m if isinstance(m, str) else json.dumps(m)) + "\n" for m in messages)
        if not self._segment.append(text.encode()):
            self._segment = Segment(self.folder)
            self._segment.append(text.encode())

    def seal(self) -> None:
        self._segment.seal()
        self._segment = Segment(self.folder)
