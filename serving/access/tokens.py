"""Is a bearer token genuine, and what may its holder do? Checked against the key set of an OpenID provider.

Only RS256 and ES256 are taken, with a public key of that very kind; issuer, audience, subject and times are checked.
The key set is fetched when it is needed, again when it is old or a token names a key that is not in it, and not more
often than it may be. While the provider cannot be reached, its keys are good for a while.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from foretell.errors import DefinitionError, unknown
from foretell.project import Project
from serving.access.caller import SCOPES, Caller, Refusal, nobody

ALGORITHMS = ("RS256", "ES256")
LEEWAY = 30  # seconds that clocks may differ
LARGEST = 16_000  # bytes of a token
_SET = 1_000_000  # bytes of a key set
_PATIENCE = 5  # seconds that a fetch may take
_NEEDED = ["exp", "iss", "aud", "sub"]


@dataclass(frozen=True)
class Times:
    """Seconds. again: between two fetches, at least. fresh: after which the key set is fetched again. good: for which
    keys are used whose provider cannot be reached."""

    again: float = 10
    fresh: float = 600
    good: float = 3_600


class Unreachable(Exception):
    """The key set cannot be had now."""


class KeySet:
    """Public keys by id, from a URL or a file. `find` may fetch, so it is not for the event loop."""

    def __init__(self, where: str | Path, times: Times | None = None, clock: Callable[[], float] = time.monotonic):
        self._where, self._times, self._clock = where, times or Times(), clock
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str | None], Any] = {}  # (algorithm, id)
        self._tried = self._fetched = float("-inf")
        self._problem = "it has not been fetched yet"
        self.version = 0  # counts the changes of the keys

    def known(self, algorithm: str, id: str | None) -> Any:
        """A key that is at hand and fresh, or None."""
        return self._key(algorithm, id) if self._clock() - self._fetched < self._times.fresh else None

    def find(self, algorithm: str, id: str | None) -> Any:
        """The key, fetched if need be; None: the provider has no such key. Raises Unreachable."""
        with self._lock:
            if key := self.known(algorithm, id):
                return key
            if self._clock() - self._tried >= self._times.again:
                self._fetch()
            good = self._clock() - self._fetched < self._times.good
            if good and (key := self._key(algorithm, id)):
                return key
            if self._problem or not good:
                raise Unreachable(self._problem or "it is too old")
            return None

    def _key(self, algorithm: str, id: str | None) -> Any:
        if id is not None:
            return self._keys.get((algorithm, id))
        fitting = [key for (name, _), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None  # a token that names no key means the only one

    def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            found = _usable(json.loads(self._read()))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            self._problem = f"the key set cannot be fetched ({str(reason)[:100]})"
            return
        if not found:
            self._problem = f"the key set has no key for {' or '.join(ALGORITHMS)}"
            return
        if {k: v.public_numbers() for k, v in found.items()} != {k: v.public_numbers() for k, v in self._keys.items()}:
            self._keys, self.version = found, self.version + 1
        self._fetched, self._problem = self._clock(), ""

    def _read(self) -> bytes:
        if isinstance(self._where, Path):
            return self._where.read_bytes()
        request = urllib.request.Request(self._where, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            data = answer.read(_SET + 1)
        if len(data) > _SET:
            raise ValueError("too large")
        return data


def _usable(found: Any) -> dict[tuple[str, str | None], Any]:
    """The public keys of a key set that may check a signature."""
    keys = {}
    for said in found.get("keys", []) if isinstance(found, Mapping) else []:
        if not isinstance(said, Mapping) or said.get("use", "sig") != "sig" or said.get("kty") not in ("RSA", "EC"):
            continue
        try:
            key = jwt.PyJWK(dict(said))
        except jwt.PyJWTError:
            continue
        if key.algorithm_name in ALGORITHMS and (said["kty"] == "EC" or key.key.key_size >= 2048):
            # of a private key that was published by mistake, only what is public is used
            public = key.key.public_key() if hasattr(key.key, "public_key") else key.key
            keys[key.algorithm_name, key.key_id] = public
    return keys


class Tokens:
    """Who the holder of a token is, by the setting `oidc`."""

    def __init__(self, issuer: str, audience: str, keys: KeySet, claim: str, roles: Mapping[str, list[str]]):
        self.keys = keys
        self._issuer, self._audience, self._claim, self._roles = issuer, audience, claim, roles

    @classmethod
    def of(cls, project: Project, times: Times | None = None) -> Tokens | None:
        """As the project's settings say; None if they name no provider."""
        if not (said := project.setting("oidc")):
            return None
        where = project.settings["oidc"].origin
        for scopes in said["roles"].values():
            if stray := [scope for scope in scopes if scope not in SCOPES]:
                raise unknown("scope", stray[0], SCOPES, where=where)
        if file := said.get("jwks_file"):
            source: str | Path = project.folder / file
        elif _safe(source := said["jwks_url"]):
            pass
        else:
            problem = f"expected an address that begins with https://, got {source}"
            raise DefinitionError("oidc.jwks_url", problem, "keys that anybody may change on their way prove nothing",
                                  where=where)  # fmt: skip
        roles = said["roles"] or {scope: [scope] for scope in SCOPES}
        return cls(said["issuer"], said["audience"], KeySet(source, times), said.get("claim", "scope"), roles)

    def caller(self, text: str, key: Any = None) -> Caller:
        """Who the holder is. key: if it is at hand; without it, it may be fetched. Raises Refusal."""
        algorithm, id = self.header(text)
        try:
            key = key or self.keys.find(algorithm, id)
        except Unreachable as error:
            fix = "ask again in a minute; whoever runs the service sees to it that it reaches the provider"
            raise Refusal(503, "Authorization", f"the token cannot be checked: {error}", fix,
                          {"Retry-After": "60"}) from None  # fmt: skip
        if key is None:
            raise _bad("it is signed with a key that the provider does not have")
        try:
            claims = jwt.decode(
                text, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, leeway=LEEWAY,
                options={"require": _NEEDED},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise _bad(_SAID.get(type(error).__name__, "it is not a token as it should be")) from None
        said = _values(claims, self._claim)
        scopes = frozenset(scope for role in said for scope in self._roles.get(role, ()))
        return Caller(f"oidc:{claims['sub'][:200]}", scopes, claims["exp"] + LEEWAY)

    def header(self, text: str) -> tuple[str, str | None]:
        """(algorithm, id of the key) that a token names. Raises Refusal."""
        if len(text) > LARGEST or text.count(".") != 2:
            raise _bad("it is neither a key nor a token")
        try:
            found = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise _bad("it is not a token as it should be") from None
        algorithm, id = found.get("alg"), found.get("kid")
        if algorithm not in ALGORITHMS:
            raise _bad(f"expected a signature by {' or '.join(ALGORITHMS)}")
        return algorithm, id if isinstance(id, str) else None


_SAID = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidIssuedAtError": "it is not valid yet",
    "InvalidIssuerError": "it is of another issuer",
    "InvalidAudienceError": "it is meant for another audience",
    "InvalidSignatureError": "its signature is wrong",
    "MissingRequiredClaimError": f"it lacks one of {', '.join(_NEEDED)}",
}


def _bad(problem: str) -> Refusal:
    return nobody(f"the token is refused: {problem}", "get a new token from the provider", error="invalid_token")


def _values(claims: Mapping[str, Any], claim: str) -> list[str]:
    """The roles or scopes that a claim names, as a list or as words. Its name may be a path: "realm_access.roles"."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found.split()
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _safe(url: str) -> bool:
    """Whether what is fetched from there is what was sent: by TLS, or without leaving the machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        local = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = False
    return parts.scheme == "http" and local
