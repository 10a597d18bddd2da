"""What stands around the whole service? Nobody gets to a route who may not, and no answer about people goes unrecorded.

It goes by the table of routes alone, so a route cannot forget to ask, to mask or to write down what it hands out.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.caller import Caller, Refusal
from serving.access.gate import Gate
from serving.access.mask import masked, without_scores
from serving.access.routes import Route, Routes
from serving.access.trail import Read, Trail, now
from serving.http.errors import answer
from serving.http.metrics import observe

log = logging.getLogger("foretell")
access = logging.getLogger("foretell.access")
_SAYS_MORE = re.compile(rb'"(reasons"\s*:\s*\[|features"\s*:\s*\{|traits"|identifiers")')


class Access:
    """ASGI middleware. features: which features are made of traits, as of now; None: it is not known."""

    def __init__(
        self, app: ASGIApp, gate: Gate, trail: Trail, features: Callable[[], Collection[str] | None],
        routes: Routes | None = None,
    ):  # fmt: skip
        self.app, self.gate, self.trail = app, gate, trail
        self._routes, self._features = routes or Routes(), features

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route, began, caller = self._routes.of(scope["method"], scope["path"]), time.perf_counter(), None
        try:
            caller = await self.gate.admit(scope, route)
            if route.personal:
                self.trail.check()
        except Exception as error:
            if isinstance(error, Refusal):
                no = error
            else:  # a mistake of ours lets nobody in; its message may hold what was sent
                log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
                no = Refusal(500, "service", f"the service failed ({type(error).__name__})", "its log says where")
            if no.who and route.personal:
                self.trail.add(Read(now(), no.who, f"{_verb(scope)} {route.path}", [], no.status, b""))
            await answer(no.status, no.subject, no.problem, no.fix, no.headers)(scope, receive, send)
            took = time.perf_counter() - began
            observe(scope["method"], route.path, no.status, took)
            access.info("%s %s %s %.1f ms", _verb(scope), route.path, no.status, took * 1000)
            return
        if caller and route.personal:
            await self._recorded(scope, receive, send, route, caller)
        else:
            await self.app(scope, receive, send)

    async def _recorded(self, scope: Scope, receive: Receive, send: Send, route: Route, caller: Caller) -> None:
        """Run a route about people: its answer is masked if need be, and written down."""
        parts: list[bytes] = []
        start, status = None, 0
        shown = [route.scope, *(["score"] if route.scores else []), "personal"]
        used = [scope for scope in shown if scope in caller.scopes]

        async def seen(message: Message) -> None:
            nonlocal start, status
            if message["type"] == "http.response.start":
                status = message["status"]
                if used == shown or status != 200:
                    await send(message)
                else:
                    start = message
                return
            if status == 200:
                parts.append(message.get("body", b""))
            if start is None:
                await send(message)
            elif not message.get("more_body"):
                await self._masked(send, start, b"".join(parts), route, caller)

        try:
            await self.app(scope, receive, seen)
        finally:
            self.trail.add(Read(now(), caller.who, f"{_verb(scope)} {route.path}", used, status, b"".join(parts)))

    async def _masked(self, send: Send, start: Any, body: bytes, route: Route, caller: Caller) -> None:
        if route.scores and "score" not in caller.scopes:
            body = without_scores(body)
        if "personal" not in caller.scopes and _SAYS_MORE.search(body):
            body = masked(body, self._features())
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def _verb(scope: Scope) -> str:
    return scope["method"] if scope["method"].isalpha() and len(scope["method"]) <= 10 else "other"
