"""Who is asking, and may they? Decided from the headers and the address alone, before any route is run.

A key or token that was found good is remembered, so that it is checked in microseconds: until it expires, until the
file of keys or the key set changes (looked at every second), and for a minute at most. Where nobody has made a key and
no provider is named, callers on this machine are asked for nothing, and all others are refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from typing import Any

from foretell.errors import ForetellError
from foretell.project import Project
from serving.access.caller import ANYONE, LOOPBACK, Caller, Refusal, nobody, not_allowed, too_many
from serving.access.keys import Keys
from serving.access.limits import Buckets, network
from serving.access.routes import ANYBODY, UNKNOWN, Route
from serving.access.tokens import Times, Tokens

log = logging.getLogger("foretell")

REMEMBERED, FOR = 4_096, 60.0  # keys and tokens; seconds
LOOK = 0.5  # seconds between two looks at the file of keys
FAILURES, PER_SECOND = 20, 0.5  # of an address: at once, and from then on
_FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"}
_HERE = ("127.", "::1", "::ffff:127.")


class Gate:
    """The gate of one process. open: nobody is asked, wherever they ask from (`foretell serve --open`)."""

    def __init__(self, project: Project, *, open: bool = False, workers: int = 1, times: Times | None = None):
        self.keys, self.tokens = Keys(project), Tokens.of(project, times)
        self._open, self._looked = open, time.monotonic()
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._version = 0
        rate, burst = project.setting("rate_per_second"), project.setting("burst")
        self._callers = Buckets(rate / workers, burst / workers)
        self._failures = Buckets(PER_SECOND, FAILURES)

    @property
    def asks(self) -> bool:
        """Whether there is a key, even one that opens nothing any more, or a provider."""
        return bool(self.keys.keys or self.tokens)

    async def admit(self, scope: Any, route: Route) -> Caller | None:
        """Who asks; None if nobody was asked. Raises Refusal."""
        if route.scope == ANYBODY and route is not UNKNOWN:
            return None
        caller = self._free(scope, route) or self._remembered(scope) or await self._checked(scope)
        if caller is not LOOPBACK and caller is not ANYONE and (seconds := self._callers.take(caller.who)):
            raise too_many("a caller", seconds)
        if route.scope and route.scope not in caller.scopes:
            raise not_allowed(caller, route.scope)
        return caller

    def _free(self, scope: Any, route: Route) -> Caller | None:
        """Who need not say who they are."""
        self._look()
        if self._open:
            return ANYONE
        if self.asks and not route.here:
            return None
        return LOOPBACK if from_here(scope) else None

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > LOOK:
            self._looked = now
            try:
                if self.keys.refresh():
                    self._known.clear()
            except ForetellError as error:  # the keys that were known stay so
                log.error("%s", error)
        self._heed_key_set()

    def _heed_key_set(self) -> None:
        if self.tokens and self.tokens.keys.version != self._version:
            self._version = self.tokens.keys.version
            self._known.clear()

    def _remembered(self, scope: Any) -> Caller | None:
        given = _authorization(scope)
        found = self._known.get(given) if given else None
        if found is None or found[1] <= time.time():
            return None
        return found[0]

    async def _checked(self, scope: Any) -> Caller:
        """Whoever the header names. Raises Refusal, less and less often for one address."""
        address = network((scope.get("client") or ("",))[0])
        given = _authorization(scope)
        try:
            if given is None:
                raise self._nobody()
            caller = await self._who(given, address)
        except Refusal as no:
            if no.status == 401 and (seconds := self._failures.take(address)):
                raise too_many("an address without a key", seconds) from None
            raise
        self._heed_key_set()  # which may have been fetched just now
        self._known[given] = caller, min(caller.until, time.time() + FOR)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return caller

    async def _who(self, given: bytes, address: str) -> Caller:
        way, _, rest = given.decode("latin-1").strip().partition(" ")
        text = rest.strip()
        if way.lower() != "bearer" or not text:
            raise nobody("expected Bearer and a key or token, got something else")
        if text.startswith("fa_"):
            found = self.keys.caller(text)
            if isinstance(found, str):
                raise nobody(f"the key {found}", "ask whoever runs the service for a new one", error="invalid_token")
            return found
        if self.tokens is None:
            raise nobody("the key is unknown", "ask whoever runs the service for one", error="invalid_token")
        if seconds := self._failures.wait(address):  # a signature is dear to check
            raise too_many("an address without a key", seconds)
        key = self.tokens.keys.known(*self.tokens.header(text))
        if key is None:  # it must be fetched, or cannot be had
            return await asyncio.get_running_loop().run_in_executor(None, self.tokens.caller, text)
        return self.tokens.caller(text, key)

    def _nobody(self) -> Refusal:
        if self.asks:
            return nobody("expected a key or token, got none")
        problem = "without a key, the service answers only who asks from the same machine, by its name there"
        return nobody(problem, "`foretell access create NAME --scope SCOPE` makes a key, which is then asked for")


def from_here(scope: Any) -> bool:
    """Whether a request comes from this machine, and from nobody behind it.

    One that says that it was forwarded comes from elsewhere. So does one that calls the service by another name than
    this machine's own: a page in a browser may have given its own name this machine's address.
    """
    client = scope.get("client")
    if not client or not client[0].startswith(_HERE):
        return False
    host = b""
    for name, value in scope["headers"]:
        if name in _FORWARDED:
            return False
        if name == b"host":
            host = value
    name = host.decode("latin-1").lower()
    name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
    return name in ("localhost", "::1") or (name.startswith("127.") and name.replace(".", "").isdigit())


def _authorization(scope: Any) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return value
    return None


def of_environment(project: Project) -> Gate:
    """As `foretell serve` tells its workers."""
    return Gate(
        project, open=bool(os.environ.get("FORETELL_OPEN")), workers=int(os.environ.get("FORETELL_WORKERS", "1"))
    )
