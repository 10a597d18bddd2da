"""Which questions does the service answer? The routes, each handed to one thread of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel

from foretell.errors import ForetellError
from serving.access.routes import declare
from serving.http import answers, engine
from serving.http.docs import page as docs_page
from serving.http.errors import Guard, answer, error_responses, install
from serving.http.hot import Hot
from serving.http.metrics import exposition

T = TypeVar("T")


def make(answering: engine.Engine) -> tuple[FastAPI, Guard]:
    """The application over an engine, and the same behind its guard, which is what is served."""
    app = FastAPI(
        title="Foretell", version="1", docs_url=None, redoc_url=None, redirect_slashes=False,
        description="Scores with their contract, profiles, tasks and segments. Every error is "
        '`{"error": {"subject", "problem", "fix"}}`.',
    )  # fmt: skip
    install(app)
    # Of what takes long one request at a time is worked on. More: more workers.
    thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    async def work(what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, what)

    @app.post(
        "/v1/scores", response_model=answers.ScoresAnswer, tags=["scores"],
        responses=error_responses(400, 404, 409, 413, 415, 422),
    )  # fmt: skip
    async def scores(asked: answers.ScoresRequest) -> Response:
        """Scores of one or many profiles, computed now from their features as of the last batch.

        A profile that is unknown, or not in a task's population, gets a problem instead, beside the others' scores.
        """
        found = await work(lambda: answering.scores(asked.profiles, asked.tasks, asked.reasons, asked.features))
        return _json(answers.ScoresAnswer, found)

    @app.get(
        "/v1/scores/{score_id}", response_model=answers.Explained, tags=["scores"], responses=error_responses(404, 409),
    )  # fmt: skip
    async def explained(score_id: str) -> Response:
        """Why was a past score what it was? Any score that a batch wrote, whatever has been trained or merged since.

        The model that gave it is asked again about the row that it was given; the row is made again from the facts of
        its time, and what is another by now is named with its cause; and the facts behind its reasons are listed. This
        takes seconds. A score that was only answered, and by no batch written, has no past: 404.
        """
        ask = partial(answering.aside.ask, "serving.explain", "explain", score_id)
        return _json(answers.Explained, await asyncio.get_running_loop().run_in_executor(None, ask))

    @app.get(
        "/v1/profiles/{who:path}/scores", response_model=answers.Scores, tags=["scores"],
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def scores_of(
        who: str,
        task: Annotated[list[str] | None, Query(max_length=100)] = None,
        reasons: bool = False,
        features: bool = False,
    ) -> Response:
        """One profile's scores. 404: no such profile or task. 409: it has none of these, and why."""
        result = (await work(lambda: answering.scores([who], task, reasons, features)))["results"][0]
        if "profile_id" not in result:
            return answer(404, who or "profile", result["problem"], result["fix"])
        if not result["scores"]:
            first = (
                result["problems"][0] if result["problems"] else {"problem": "no task has been scored yet", "fix": ""}
            )
            return answer(409, first.get("task", who), first["problem"], first["fix"])
        return _json(answers.Scores, result)

    @app.get(
        "/v1/profiles/{who:path}", response_model=answers.Profile, tags=["profiles"],
        responses=error_responses(404, 409, 422),
    )  # fmt: skip
    async def profile(who: str, reasons: bool = False) -> Response:
        """Traits with their origin, identifiers, former ids, segments and scores of one profile."""

        def look() -> dict[str, Any]:
            state = answering.state
            profile_id, page = engine.page(state, who)
            result = answering.scores([profile_id], None, reasons)["results"][0]
            listed = {k: page[k] for k in ("traits", "identifiers", "former_ids", "segments")}
            scored = {k: result.get(k, []) for k in ("scores", "problems")}
            return {"profile_id": profile_id, **listed, **scored, "published_at": state.index.published_at}

        return _json(answers.Profile, await work(look))

    @app.get("/v1/tasks", response_model=answers.Tasks, tags=["definitions"], responses=error_responses(409))
    async def tasks() -> Response:
        """Every declared task, with the model that answers for it."""
        return _json(answers.Tasks, {"tasks": await work(lambda: engine.tasks(answering.state))})

    @app.get("/v1/segments", response_model=answers.Segments, tags=["definitions"], responses=error_responses(409))
    async def segments() -> Response:
        """Every declared segment, with its size when it was published."""
        index = answering.state.index
        return _json(answers.Segments, {"segments": index.segments, "published_at": index.published_at})

    @app.get("/livez", tags=["operation"])
    @app.get("/healthz", tags=["operation"])
    async def livez() -> dict[str, str]:
        """Is the process alive?"""
        return {"status": "alive"}

    @app.post(
        "/v1/whatif", response_model=answers.WhatIfAnswer, tags=["scores"],
        responses=error_responses(400, 404, 409, 413, 415, 422),
    )  # fmt: skip
    async def whatif(asked: answers.WhatIf) -> Response:
        """What would a task's model say of these features? Nobody's score: nothing of it is kept.

        With a profile, its own row is taken, and these features are put in its place; without one, whatever is not said
        is unknown to the model. Names are those of the `features` of a score, text is given as text.
        """
        found = await work(lambda: answering.state.whatif(asked.task, asked.profile, asked.rows))
        return _json(answers.WhatIfAnswer, found)

    @app.post(
        "/v1/lookalikes", response_model=answers.Lookalikes, tags=["scores"],
        responses=error_responses(400, 404, 409, 413, 415, 422),
    )  # fmt: skip
    async def lookalikes(asked: answers.LookalikesRequest) -> Response:
        """Who is most like a seed: the members of a segment, or those listed? And how well can that be told?

        Candidates learn to tell the seed from everyone else, and are judged on seeds held out. This takes from seconds
        to a minute; more than a minute is left to `foretell lookalike`.
        """
        ask = partial(answering.aside.ask, "serving.lookalike", "lookalikes", asked.model_dump_json())
        return _json(answers.Lookalikes, await asyncio.get_running_loop().run_in_executor(None, ask))

    @app.get("/readyz", response_model=answers.Ready, tags=["operation"], responses=error_responses(503))
    async def readyz() -> Response:
        """Can it answer for some task? From which cutoff and model?"""
        try:
            state = answering.state
        except ForetellError as error:
            return answer(503, error.subject, error.problem, error.fix, {"Retry-After": "2"})
        known = engine.tasks(state)
        served = {t["name"]: t["champion"] for t in known if not t["problem"]}
        problems = [{"task": t["name"], **t["problem"]} for t in known if t["problem"]]
        if not served:
            first = (
                problems[0]
                if problems
                else {"task": "service", "problem": "no task is declared", "fix": "see the README"}
            )
            return answer(503, first["task"], first["problem"], first["fix"], {"Retry-After": "30"})
        found = {"status": "ready", "published_at": state.index.published_at, "tasks": served, "problems": problems}
        return _json(answers.Ready, found)

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Requests and seconds by route and status, for Prometheus."""
        return Response(await work(exposition), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    declare(app)
    return app, Guard(Hot(app, answering, thread))


def _json(model: type[BaseModel], found: dict[str, Any]) -> Response:
    """Checked against its type once; what is not a number becomes null."""
    return Response(model.model_validate(found).model_dump_json(), media_type="application/json")
