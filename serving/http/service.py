"""What does BentoML run? The service of one project, FORETELL_PROJECT, in FORETELL_WORKERS processes.

`foretell serve` starts it; so does `bentoml serve serving.http.service:ForetellService`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from foretell.project import Project
from ingestion.collector.app import Collector
from serving.access.gate import of_environment
from serving.access.layer import Access
from serving.access.trail import Trail
from serving.http import api
from serving.http.engine import Engine
from serving.http.errors import LONGEST

PACKED = Path(__file__).parents[2] / "project"  # in a bento: see serving/bento.py
if "FORETELL_PROJECT" not in os.environ and PACKED.exists():
    os.environ |= {"FORETELL_PROJECT": str(PACKED), "FORETELL_HOME": str(PACKED / "home")}
folder = Path(os.environ.get("FORETELL_PROJECT") or Path.cwd())
engine = Engine(folder)
app, guarded = api.make(engine)
trail = Trail(Project(folder).home)
guarded = Access(guarded, of_environment(Project(folder)), trail, lambda: engine.state.index.personal)
# It takes events too, if FORETELL_COLLECT is set; for those it need not be ready to answer with scores.
collector = Collector(Project(folder).home) if os.environ.get("FORETELL_COLLECT") else None


class ApiFirst:
    """BentoML has routes of its own, such as /readyz, and a shape of its own for errors. The API goes before them.

    It also goes before what BentoML does for each request, of which nothing is needed here: its tracing and the task
    that it starts to limit the time take about as long as a score. Before the API goes the collector, which has limits
    of its own.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # what a server calls an application for first
            whole = scope["app"]
            whole.middleware_stack = ApiFirst(whole.middleware_stack)
        if collector and scope["type"] == "http" and collector.mine(scope["path"]):
            await collector.collect(scope, receive, send)
            return
        await (guarded if scope["type"] == "http" else self.app)(scope, receive, send)


@bentoml.asgi_app(app)
@bentoml.service(
    name="foretell",
    workers=int(os.environ.get("FORETELL_WORKERS", "1")),
    traffic={"timeout": LONGEST},
    # Both would keep the path of each request, which may name a person. The API logs its own line instead.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class ForetellService:
    """Scores, profiles, tasks and segments of a Foretell project."""

    def __init__(self) -> None:
        _log_to_stderr()
        engine.start()

    def __is_ready__(self) -> bool:
        try:
            return bool(engine.state.open_tasks())
        except Exception:
            return False

    @bentoml.on_shutdown
    def stop(self) -> None:
        engine.stop()
        trail.close()
        if collector:
            collector.close()


ForetellService.add_asgi_middleware(ApiFirst)  # pyright: ignore[reportArgumentType]


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("foretell")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
