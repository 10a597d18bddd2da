"""A real JSON API for tests: a local HTTP server that paginates in every style, and fails when told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from foretell.connectors import Cursor, NextLink, Offset, PageNumber, Paging

STYLES: dict[str, Paging | None] = {
    "page": PageNumber(size=7, size_parameter="size"),
    "offset": Offset(limit=7),
    "cursor": Cursor(path="meta.next"),
    "link": NextLink(),
    "body": NextLink(path="meta.url"),
    "whole": None,
}


class Api:
    """Rows by id, served in the order of `updated_at`.

    fail: called with the number of each request; says (status, headers) to answer with, or "cut", or None. each: called
    before each request is answered, to change the rows between two pages.
    """

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.requests: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.fail: Callable[[int], Any] = lambda n: None
        self.each: Callable[[int], None] = lambda n: None
        self.url = ""

    def answer(self, path: str, asked: dict[str, str]) -> tuple[dict[str, Any] | list, dict[str, str]]:
        style, size = path.strip("/"), int(asked.get("size", asked.get("limit", 7)))
        rows = sorted(self.rows.values(), key=lambda row: (row.get("updated_at") or "", row["id"]))
        if since := asked.get("since"):
            rows = [row for row in rows if (row.get("updated_at") or "") >= since]
        if style == "whole":
            return rows, {}
        if style == "cursor":  # stable whatever happens to other rows
            at = tuple(json.loads(asked["cursor"])) if "cursor" in asked else ("", -1)
            rows = [row for row in rows if ((row.get("updated_at") or ""), row["id"]) > at]
            meta = {"next": json.dumps([rows[size - 1]["updated_at"], rows[size - 1]["id"]])} if rows[size:] else {}
            return {"data": {"items": rows[:size]}, "meta": meta}, {}
        start = (int(asked.get("page", 1)) - 1) * size if style in {"page"} else int(asked.get("offset", 0))
        more = f"{self.url}/{style}?offset={start + size}" + (f"&since={since}".replace("+", "%2B") if since else "")
        headers = {"Link": f'<{more}>; rel="next"'} if style == "link" and rows[start + size :] else {}
        meta = {"url": more} if style == "body" and rows[start + size :] else {}
        return {"data": {"items": rows[start : start + size]}, "meta": meta}, headers


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            api.requests.append(asked)
            api.headers.append(dict(self.headers))
            number = len(api.requests)
            api.each(number)
            said = api.fail(number)
            body, headers = b"{}", {}
            status = 200
            if isinstance(said, tuple):
                status, headers = said
            else:
                answer, headers = api.answer(parts.path, asked)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if said == "cut" else body)
            if said == "cut":
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
