"""The service behind its gate, in the process of the test: the trained shop, a key of every kind, and who asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures_trained import TrainedShop, copy_of
from starlette.testclient import TestClient

from foretell.project import Project
from serving.access.caller import SCOPES
from serving.access.gate import Gate
from serving.access.keys import Keys
from serving.access.layer import Access
from serving.access.tokens import Times
from serving.access.trail import Trail, take_in
from serving.http import api
from serving.http.engine import Engine

ELSEWHERE, HERE = ("192.0.2.7", 40_000), ("127.0.0.1", 40_000)
# a person of the trained shop who is known by everything, and what nobody may see without the scope `personal`
PERSON, CARD, NAME = "person1@example.org", "40000001", "Name1"
ROLES = ("nobody", "wrong", "expired", "revoked", *SCOPES)


@dataclass
class Behind:
    """client: asks from elsewhere. keys: role -> the text of a key of it."""

    project: Project
    client: TestClient
    gate: Gate
    trail: Trail
    app: Access
    keys: dict[str, str]

    def headers(self, role: str) -> dict[str, str]:
        return {} if role == "nobody" else {"Authorization": f"Bearer {self.keys[role]}"}

    def asking(self, client: tuple[str, int], **more) -> TestClient:
        return TestClient(self.app, base_url="http://127.0.0.1:3000", client=client, **more)

    def rows(self, **which) -> list[dict]:
        """The audit, once all that was answered is written."""
        from lake import audit

        self.trail.close()
        self.trail = self.app.trail = Trail(self.project.home)
        take_in(self.project)
        return audit.rows(self.project, **which)


def fresh(trained: TrainedShop, folder: Path) -> Project:
    """A copy of the trained shop that nobody has read anything of yet: other tests may have shown some of it."""
    project = copy_of(trained.project, folder)
    for path in (project.home / "audit", project.home / "lake" / "audit"):
        shutil.rmtree(path, ignore_errors=True)
    return project


def make_keys(project: Project) -> dict[str, str]:
    """A key of each scope alone, of some together, one that has expired, one that was revoked, and one never made."""
    keys = Keys(project)
    made = {scope: keys.create(scope, [scope])[0] for scope in SCOPES}
    made["everything"] = keys.create("everything", SCOPES)[0]
    made["support"] = keys.create("support", ["read", "personal"])[0]
    for name in ("expired", "revoked"):
        made[name] = keys.create(name, SCOPES)[0]
    keys.revoke("revoked")
    past = datetime.now(UTC) - timedelta(seconds=1)
    keys._write([replace(key, expires=past) if key.name == "expired" else key for key in keys.keys])
    made["wrong"] = made["everything"][:-4] + "AAAA"
    return made


@contextmanager
def behind(
    project: Project, *, keys: bool = True, open: bool = False, times: Times | None = None
) -> Iterator[Behind]:  # fmt: skip
    made = make_keys(project) if keys else {}
    engine = Engine(project.folder)
    engine.refresh()
    gate, trail = Gate(project, open=open, times=times), Trail(project.home)
    app = Access(api.make(engine)[1], gate, trail, lambda: engine.state.index.personal)
    with TestClient(app, base_url="http://127.0.0.1:3000", client=ELSEWHERE) as client:
        found = Behind(project, client, gate, trail, app, made)
        yield found
        found.trail.close()
    engine.stop()
