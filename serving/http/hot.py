"""How are scores answered in less time than a web framework takes? The routes that are called all day, as plain ASGI.

A request that is as it should be is decoded, answered and encoded here; whatever else it is goes on to the application,
which says what is wrong with it. What it answers is the same, to the letter of the OpenAPI document.

An answer hangs on the request and on the publication alone, so it is kept as long as there is room and the publication
is in use: a new batch, model, merge, consent or erasure is published, and begins with nothing kept.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretell.errors import ForetellError
from serving.http.answers import MOST_PROFILES
from serving.http.engine import Engine, State

SMALL = 16  # scores without reasons that are worked out at once, while others wait: a millisecond or two
Name = Annotated[str, Meta(min_length=1, max_length=500)]


class Asked(Struct, forbid_unknown_fields=True):
    """The same as answers.ScoresRequest."""

    profiles: Annotated[list[Name], Meta(min_length=1, max_length=MOST_PROFILES)]
    tasks: Annotated[list[Name], Meta(min_length=1, max_length=100)] | None = None
    reasons: bool = False
    features: bool = False


_decoder, _encoder = msgspec.json.Decoder(Asked), msgspec.json.Encoder()
_FLAGS = {"true": True, "false": False}
_SCORES, _SCORES_OF, _ALIVE = (
    SimpleNamespace(path=path) for path in ("/v1/scores", "/v1/profiles/{who:path}/scores", "/livez")
)
ALIVE = b'{"status":"alive"}'


class Hot:
    """ASGI middleware before the application. thread: where what takes long is worked out."""

    def __init__(self, app: ASGIApp, answering: Engine, thread: ThreadPoolExecutor):
        self.app, self._engine, self._thread = app, answering, thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            if method == "POST" and path == "/v1/scores":
                message = await receive()  # the guard hands out the whole body at once
                if await self._scores(scope, message.get("body", b""), send):
                    return

                first: Message | None = message

                async def again() -> Message:
                    nonlocal first
                    found, first = first, None
                    return await receive() if found is None else found

                await self.app(scope, again, send)
                return
            if method == "GET":
                if path == "/livez":
                    await _send(scope, send, _ALIVE, ALIVE)
                    return
                if (
                    path.startswith("/v1/profiles/")
                    and path.endswith("/scores")
                    and (await self._scores_of(scope, path[len("/v1/profiles/") : -len("/scores")], send))
                ):
                    return
        await self.app(scope, receive, send)

    async def _scores(self, scope: Scope, body: bytes, send: Send) -> bool:
        """POST /v1/scores, if it is a request that can be answered."""
        try:
            state = self._engine.state
            turn = state.heed_the_stream()
            if (answer := state.kept.get(body)) is None:
                asked = _decoder.decode(body)
                found = await self._worked_out(state, asked)
                answer = _encoder.encode(found)
                _keep(state, turn, body, answer, found["results"])
        except (msgspec.MsgspecError, ForetellError, UnicodeError, RecursionError):
            return False
        await _send(scope, send, _SCORES, answer)
        return True

    async def _scores_of(self, scope: Scope, who: str, send: Send) -> bool:
        """GET /v1/profiles/WHO/scores, if there are scores."""
        try:
            state, key = self._engine.state, (who, scope["query_string"])
            turn = state.heed_the_stream()
            if (answer := state.kept.get(key)) is None:
                if not 0 < len(who) <= 500 or (asked := _query(who, scope["query_string"])) is None:
                    return False
                (found,) = (await self._worked_out(state, asked))["results"]
                if not found.get("scores"):
                    return False
                answer = _encoder.encode(found)
                _keep(state, turn, key, answer, [found])
        except (ForetellError, UnicodeError):
            return False
        await _send(scope, send, _SCORES_OF, answer)
        return True

    async def _worked_out(self, state: State, asked: Asked) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            return state.scores(asked.profiles, asked.tasks, asked.reasons, asked.features)

        many = len(asked.profiles) * len(asked.tasks or state.champions)
        if many <= SMALL and not asked.reasons:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _query(who: str, query: bytes) -> Asked | None:
    """What a query asks; None if it is anything but tasks and plain flags."""
    tasks: list[str] = []
    flags: dict[str, bool] = {}
    for name, value in parse_qsl(query.decode("ascii"), keep_blank_values=True):
        if name == "task":
            tasks.append(value)
        elif name in ("reasons", "features") and value in _FLAGS and name not in flags:
            flags[name] = _FLAGS[value]
        else:
            return None
    return Asked([who], tasks or None, **flags) if len(tasks) <= 100 else None


def _keep(state: State, turn: int, asked: Any, answer: bytes, results: list[dict[str, Any]]) -> None:
    """Keep an answer, unless something came in while it was worked out. While events come in, whom nobody knows may be
    known in a moment."""
    if state.index.fresh is None:
        state.kept.put(asked, answer)
    elif state.heed_the_stream() == turn and all("profile_id" in found for found in results):
        state.kept.put(asked, answer, [found["profile_id"] for found in results])


_TYPE = (b"content-type", b"application/json")


async def _send(scope: Scope, send: Send, route: Any, body: bytes) -> None:
    scope["route"] = route  # what the log and the metrics call it
    await send({
        "type": "http.response.start", "status": 200,
        "headers": [_TYPE, (b"content-length", b"%d" % len(body))],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})
