"""What does a route ask of its caller? The one table of scopes: a route that is not in it is not served.

It says of each route which scope opens it, whether an answer is written to the audit, and what of it is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from foretell.errors import DefinitionError

ANYBODY = ""


@dataclass(frozen=True)
class Route:
    """A path as the application declares it ("/v1/profiles/{who:path}"), for all methods unless said.

    scope: what opens it; ANYBODY: nobody is asked. personal: an answer is about people: it is written to the audit, and
    masked for who has no scope `personal`. scores: an answer has scores beside what the scope opens; who has no scope
    `score` gets it without them. here: callers on this machine need no scope.
    """

    path: str
    scope: str
    methods: tuple[str, ...] = ()
    personal: bool = False
    scores: bool = False
    here: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """All paths that the application may take for it, and perhaps more: what is asked is never too little."""
        parts = re.split(r"(\{[^}]*\})", self.path)
        made = "".join((".*" if ":path" in p else "[^/]*") if p.startswith("{") else re.escape(p) for p in parts)
        return re.compile(made + r"\n?\Z", re.DOTALL)


# In the order in which the application looks: the first that fits is meant.
TABLE = (
    Route("/v1/scores", "score", personal=True),
    Route("/v1/whatif", "score", personal=True),
    Route("/v1/lookalikes", "score", personal=True),
    Route("/v1/scores/{score_id}", "personal", personal=True),
    Route("/v1/profiles/{who:path}/scores", "score", personal=True),
    Route("/v1/profiles/{who:path}", "read", personal=True, scores=True),
    Route("/v1/tasks", "read"),
    Route("/v1/segments", "read"),
    Route("/livez", ANYBODY),
    Route("/healthz", ANYBODY),
    Route("/readyz", ANYBODY),
    Route("/metrics", "admin", here=True),
    Route("/docs", ANYBODY),
    Route("/", ANYBODY),
    Route("/openapi.json", ANYBODY),
)
# Of a path that nobody has declared: whoever is known may be told that there is no such route.
UNKNOWN = Route("-", ANYBODY)


class Routes:
    """Finds the row of the table that a request is to be judged by."""

    def __init__(self, table: Iterable[Route] = TABLE):
        self.table = tuple(table)
        self._exact = {}
        for route in reversed(self.table):
            if "{" not in route.path and not route.methods:
                self._exact[route.path] = route
        self._patterns = [(route, route.pattern) for route in self.table if route.path not in self._exact]

    def of(self, method: str, path: str) -> Route:
        """The row; UNKNOWN if no path of the table is like this one."""
        if found := self._exact.get(path.removesuffix("\n")):  # a pattern's `$` is before it, too
            return found
        fallback = UNKNOWN
        for route, pattern in self._patterns:
            if pattern.match(path):
                if not route.methods or method in route.methods:
                    return route
                fallback = route if fallback is UNKNOWN else fallback
        return fallback

    def undeclared(self, paths: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Those (method, path as declared) that no row is about."""
        known = {(route.path, method) for route in self.table for method in route.methods or ("",)}
        return (f"{method} {path}" for method, path in paths if not {(path, ""), (path, method)} & known)


def declared(app: Any) -> list[tuple[str, str]]:
    """(method, path) of every route of an application."""
    return [(m, route.path) for route in app.routes for m in sorted(getattr(route, "methods", None) or ("GET",))]


def declare(app: Any, table: Iterable[Route] = TABLE) -> None:
    """Have the OpenAPI document of an application say what the table says. A route that is not in it is refused."""
    routes, write = Routes(table), app.openapi
    if missing := [name for name in routes.undeclared(declared(app)) if not name.startswith("HEAD ")]:
        fix = "say which scope opens it, in serving/access/routes.py"
        raise DefinitionError(", ".join(missing), "is a route without a scope", fix)

    def openapi() -> dict[str, Any]:
        said = write()  # the same document from the second time on
        if "securitySchemes" not in said["components"]:
            said["components"]["securitySchemes"] = {
                "bearer": {
                    "type": "http", "scheme": "bearer",
                    "description": "An API key (`foretell access create`), or a token of the OpenID provider.",
                },
            }  # fmt: skip
            templates = {re.sub(r":\w+\}", "}", route.path): route for route in reversed(routes.table)}
            for path, verbs in said["paths"].items():
                for operation in verbs.values():
                    _describe(operation, templates[path])
        return said

    app.openapi = openapi


_REFUSED = {
    "401": "It is not known who asks.", "403": "The caller lacks a scope.", "429": "The caller asks too often.",
    "503": "It cannot be told who asks, or not be written down what is answered; or it took too long.",
}  # fmt: skip


def _describe(operation: dict[str, Any], route: Route) -> None:
    if route.scope == ANYBODY:
        operation["security"] = []
        return
    operation["security"] = [*([{}] if route.here else []), {"bearer": [route.scope]}]
    said = f"Needs the scope `{route.scope}`"
    said += ", unless it is asked on the same machine" if route.here else ""
    said += "; without `score`, scores are left out" if route.scores else ""
    said += "; without `personal`, what is personal is masked" if route.personal else ""
    operation["description"] = f"{operation.get('description', '')}\n\n{said}.".strip()
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, text in _REFUSED.items():
        operation["responses"].setdefault(status, {"description": text, "content": error})
