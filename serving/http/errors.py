"""How does the service say no? One shape for every error, before and behind the routes; nothing bad in is a crash.

`Guard` stands before the application: it bounds bodies, checks their type, logs a line without personal data, and is
the last to catch what nobody expected.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretell.errors import ForetellError, UnknownName, did_you_mean
from serving.http.metrics import observe

LARGEST = 1_000_000  # bytes of a body
LONGEST = 60  # seconds for an answer
DRAINED = 20 * LARGEST  # what is read of one that is too large, so that its sender hears the answer

PROBES = ("/livez", "/healthz", "/readyz", "/metrics")  # asked every few seconds: not logged

log = logging.getLogger("foretell")
access = logging.getLogger("foretell.access")


def answer(status: int, subject: str, problem: str, fix: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as everyone gets it."""
    body = {"error": {"subject": subject, "problem": problem, "fix": fix}}
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Give an application's errors that shape."""

    @app.exception_handler(ForetellError)
    async def foretell(_: Request, error: ForetellError) -> JSONResponse:
        """404: nobody knows the name; 409: it is as /docs says, but it cannot be answered now, or not for this."""
        status = 404 if isinstance(error, UnknownName) else 409
        return answer(status, error.subject or "profile", error.problem, error.fix)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        path = request.url.path
        if error.status_code == 404:
            routes = [p for route in app.routes if "{" not in (p := getattr(route, "path", "{"))]
            return answer(404, path, "no such route", f"{did_you_mean(path, routes)}; see /docs")
        if error.status_code == 405:
            allowed = dict(error.headers or {}).get("Allow", "")
            return answer(405, path, f"expected {allowed}, got {request.method}", "see /docs", {"Allow": allowed})
        return answer(error.status_code, path, "the body cannot be read", "send JSON as /docs says")

    @app.exception_handler(RequestValidationError)
    async def validation(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        if first["type"] == "json_invalid":
            said = str((first.get("ctx") or {}).get("error", "it ends too early"))
            return answer(400, "body", f"expected JSON, got something else at character {where[-1]}: {said}", "mend it")
        subject = ".".join(where[1:]) or where[0]
        return answer(422, subject, f"expected something else: {first['msg']}", "see /docs for what goes there")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        """Said here, raised again, and logged by the guard."""
        return failed(error)


def failed(error: Exception) -> JSONResponse:
    return answer(500, "service", f"the service failed ({type(error).__name__})", "ask again; its log says where")


class Guard:
    """ASGI middleware around the API."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            async with asyncio.timeout(LONGEST):
                await self._guarded(scope, receive, noted)
        except TimeoutError:
            if not status:
                late = answer(503, "service", f"the answer took longer than {LONGEST} s", "ask for less at a time")
                await late(scope, receive, noted)
        except Exception as error:
            # Its message may hold personal data: the log gets its type and where it came from.
            log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            if not status:
                await failed(error)(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "-")  # as declared: who was asked for is not logged
            if route not in PROBES:
                took = time.perf_counter() - began
                observe(scope["method"], route, status, took)
                access.info("%s %s %s %.1f ms", scope["method"], route, status, took * 1000)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            await self.app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size <= LARGEST:
                body += message.get("body", b"")
            elif size > DRAINED:
                break
        if size > LARGEST:
            problem = f"expected at most {LARGEST:,} bytes, got {'more than ' if more else ''}{size:,}"
            await answer(413, "body", problem, "ask for fewer profiles at a time")(scope, receive, send)
            return
        kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if size and kind != "application/json":
            problem = f"expected application/json, got {kind[:100] or 'none'}"
            await answer(415, "Content-Type", problem, "send it as a header")(scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the documentation says about these errors."""
    from serving.http.answers import Error

    said = {
        400: "The body is not JSON.", 404: "No such profile, task or route.", 409: "It cannot be answered now.",
        413: "The body is too large.", 415: "The body is not called JSON.", 422: "A field is not what was expected.",
        503: "Not ready yet.",
    }  # fmt: skip
    return {status: {"model": Error, "description": said[status]} for status in statuses}
