"""Who is asking, and what is said to one who may not? A caller with its scopes, and refusals in the service's shape."""

from __future__ import annotations

from dataclasses import dataclass, field

# scope -> what it opens. None of them includes another.
SCOPES = {
    "score": "scores, with their reasons",
    "read": "profiles, segments and tasks; of a profile no scores, and what is personal is masked",
    "personal": "identifiers and traits as they are, where `read` or `score` has opened the route",
    "admin": "how the service is doing: /metrics",
}


@dataclass(frozen=True)
class Caller:
    """who: as the audit names it. until: the instant (seconds since 1970) at which a key or token expires."""

    who: str
    scopes: frozenset[str]
    until: float = float("inf")


# Who asks a service that asks nobody: everything is open to them.
LOOPBACK = Caller("loopback", frozenset(SCOPES))
ANYONE = Caller("anyone", frozenset(SCOPES))


@dataclass
class Refusal(Exception):
    """An answer in the place of the route's, as `serving.http.errors.answer` makes it. who: if it is known."""

    status: int
    subject: str
    problem: str
    fix: str
    headers: dict[str, str] = field(default_factory=dict)
    who: str = ""


HOW = "send `Authorization: Bearer KEY`; `foretell access create NAME --scope SCOPE` makes a key"


def nobody(problem: str, fix: str = HOW, *, error: str = "") -> Refusal:
    """401: it is not known who asks. error: as RFC 6750 calls it, of a key or token that was sent."""
    challenge = 'Bearer realm="foretell"' + (f', error="{error}", error_description="{problem}"' if error else "")
    return Refusal(401, "Authorization", problem, fix, {"WWW-Authenticate": challenge})


def not_allowed(caller: Caller, scope: str) -> Refusal:
    """403: it is known who asks, and what they lack."""
    has = ", ".join(sorted(caller.scopes)) or "none"
    challenge = f'Bearer realm="foretell", error="insufficient_scope", scope="{scope}"'
    fix = f"ask with a key or token that has it: `foretell access create NAME --scope {scope}`"
    problem, headers = f"expected the scope {scope}, got {has}", {"WWW-Authenticate": challenge}
    return Refusal(403, "scope", problem, fix, headers, caller.who)


def too_many(who: str, seconds: int) -> Refusal:
    """429: they are to come again in so many seconds."""
    return Refusal(
        429, "rate", f"expected fewer requests, got more than {who} may send", f"ask again in {seconds} s",
        {"Retry-After": str(seconds)},
    )  # fmt: skip
