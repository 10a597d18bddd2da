"""How are the records of a JSON API read? Page by page, patiently, until it says that there are no more.

Waiting and trying again is urllib3's part (429 with Retry-After, 5xx, lost connections). Where pages are
counted, rows shift when the data change in between: such an answer of several pages is read again until nothing more
turns up, and only then does the watermark move. (A link may count too; a cursor marks a place.)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.util import Retry

from foretell.connectors import REST, Cursor, NextLink, Offset, PageNumber, redact, secret
from foretell.declarations import Source
from foretell.errors import DataError
from foretell.project import Project
from ingestion.connectors.landing import Landing, Piece, capped, lower, order

RECORDS = 20_000  # of a piece
SWEEPS = 4  # how often pages that shift are read again
TIMEOUT = (10, 60)  # seconds to connect, and between two bytes
RETRIES = 5
BACK_OFF = 0.5  # seconds; doubled each time


def pull(
    project: Project, source: Source, since: str | None, folder: Path, say: Callable[[str], None]
) -> Iterator[Piece]:
    """Land the records from a watermark on, in pieces. Only the last piece of a whole answer moves the watermark."""
    connector = source.connector
    assert isinstance(connector, REST)
    api = _Api(source.name, connector, since)
    landing = Landing(project, folder, redact(api.url))
    started, clock = datetime.now(UTC), time.monotonic()
    reached = Reached(source.name, connector.watermark, since)
    known: set[bytes] = set()
    held: list[str] = []
    shifting = not connector.steady and isinstance(connector.paginate, PageNumber | Offset | NextLink)
    try:
        for sweep in range(SWEEPS):
            pages, missed = 0, 0
            for records in api.pages():
                pages += 1
                for record in records:
                    payload = dumped(record)
                    key = hashlib.md5(payload.encode()).digest()
                    if key in known:
                        continue
                    known.add(key)
                    if len(held) >= RECORDS:  # there is always a last piece left, which moves the watermark
                        yield landing.records(held, since)
                        held = []
                    held.append(payload)
                    missed += sweep > 0 and reached.had(record)
                    reached.see(record)
                seconds = time.monotonic() - clock
                say(f"{source.name}: page {pages}, {len(known):,} records pulled in {seconds:.0f} s")
            if not shifting or pages <= 1 or (sweep and not missed):
                since = reached.at(started)
                break
            reached.close()
        if held:
            yield replace(landing.records(held, since), note=reached.note())
    finally:
        landing.close()
        api.session.close()


@dataclass
class Reached:
    """The highest watermark among the records seen, as JSON text."""

    source: str
    path: str | None
    since: str | None
    highest: Any = None
    closed: Any = None
    without: int = field(default=0)

    def see(self, record: Any) -> None:
        value = found(record, self.path) if self.path else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self.without += 1
            return
        if self.highest is not None and order(value)[0] != order(self.highest)[0]:
            problem = f"{self.path} is {value!r} here and {self.highest!r} there, which cannot be compared"
            raise DataError(self.source, problem, "choose another watermark, or none")
        if self.highest is None or order(value) > order(self.highest):
            self.highest = value

    def close(self) -> None:
        """A sweep is over: records at or below its highest watermark were there, or should have been."""
        self.closed = self.highest

    def had(self, record: Any) -> bool:
        value = found(record, self.path) if self.path else None
        if value is None or self.closed is None or not isinstance(value, int | float | str):
            return True
        return order(value) <= order(self.closed)

    def note(self) -> str:
        if not self.path or not self.without:
            return ""
        return f"{self.without:,} records without {self.path}: only --full is sure to get them again"

    def at(self, started: datetime) -> str | None:
        if self.path is None or self.highest is None:
            return self.since
        return json.dumps(capped(self.highest, started))


class _Api:
    """One API, asked by one session."""

    def __init__(self, source: str, connector: REST, since: str | None):
        self.source, self.connector = source, connector
        self.url = secret(connector.url, source)
        self.secrets = [secret(text, source) for text in (connector.url, *connector.params.values()) if "env:" in text]
        self.params = {key: secret(str(value), source) for key, value in connector.params.items()}
        self.session = requests.Session()
        retry = Retry(
            total=RETRIES, backoff_factor=BACK_OFF, backoff_max=30, backoff_jitter=BACK_OFF, redirect=0,
            status_forcelist=(408, 425, 429, 500, 502, 503, 504), allowed_methods={"GET"}, raise_on_status=False,
            retry_after_max=900,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=retry))
        own = {key: secret(value, source) for key, value in connector.headers.items()}
        self.session.headers.update({"Accept": "application/json", "User-Agent": "foretell", **own})
        self.session.auth = self._authorise  # also keeps a .netrc out of it
        if since is not None and connector.since_parameter:
            self.params[connector.since_parameter] = lower(json.loads(since), connector.overlap, source, zone=True)

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if not self.connector.auth:
            return request
        how, *name, variable = self.connector.auth.split(" ")
        value = secret(variable, self.source)
        self.secrets.append(value)
        if how == "bearer":
            request.headers["Authorization"] = f"Bearer {value}"
        elif how == "basic":
            user, _, password = value.partition(":")
            self.secrets.append(password)
            return HTTPBasicAuth(user, password)(request)
        elif how == "header":
            request.headers[name[0]] = value
        else:
            request.prepare_url(request.url or self.url, {name[0]: value})
        return request

    def pages(self) -> Iterator[list[Any]]:
        """The records of each page, to the end."""
        paging, last = self.connector.paginate, b""
        url, params, went = self.url, dict(self.params), {self.url}
        if isinstance(paging, PageNumber):
            params[paging.parameter] = str(paging.first)
            params |= {paging.size_parameter: str(paging.size)} if paging.size else {}
        elif isinstance(paging, Offset):
            params |= {paging.parameter: "0", paging.limit_parameter: str(paging.limit)}
        while True:
            body, content, links = self._get(url, params)
            records = self._records(body)
            if isinstance(paging, PageNumber | Offset):
                if not records:
                    return
                if content == last:
                    raise self._error(
                        f"{paging.parameter}={params[paging.parameter]} answers the same as the page before it",
                        "does the API know this parameter?",
                    )
                last = content
                yield records
                step = 1 if isinstance(paging, PageNumber) else len(records)
                params[paging.parameter] = str(int(params[paging.parameter]) + step)
                continue
            yield records
            if isinstance(paging, Cursor):
                after = found(body, paging.path)
                if after in (None, "", False):
                    return
                if str(after) == params.get(paging.parameter):
                    raise self._error(f"the cursor {paging.path} does not move: {after!r}", "check its path")
                params[paging.parameter] = str(after)
            elif isinstance(paging, NextLink):
                after = found(body, paging.path) if paging.path else links.get("next", {}).get("url")
                if not after:
                    return
                url, params = urljoin(url, str(after)), {}
                if urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                    raise self._error(
                        f"the next page is said to be on {redact(url)}, another host, which gets no credentials",
                        "does `paginate` name the right link?",
                    )
                if url in went:
                    raise self._error("the next page is one that was read already", "check `paginate`")
                went.add(url)
            else:
                return

    def _get(self, url: str, params: dict[str, str]) -> tuple[Any, bytes, dict]:
        for attempt in range(RETRIES):
            try:
                answer = self.session.get(url, params=params, timeout=TIMEOUT, allow_redirects=False)
                break
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
                if attempt == RETRIES - 1:  # an answer that breaks off in its body, again and again
                    raise self._error(f"the answer broke off: {error}", "run it again later") from None
                time.sleep(BACK_OFF * 2**attempt)
            except requests.exceptions.RequestException as error:
                raise self._error(
                    f"cannot be reached: {_why(error)}", "check the address, or run it again later"
                ) from None
        else:
            raise AssertionError("the last attempt raises")
        if answer.status_code in {401, 403}:
            raise self._error(
                f"refused the credentials ({answer.status_code})", f"auth is {self.connector.auth or 'not declared'}"
            )
        if 300 <= answer.status_code < 400:
            to = redact(urljoin(url, answer.headers.get("Location", "")))
            raise self._error(f"has moved to {to}", "mend the url in the contract")
        if answer.status_code != 200:
            said = " ".join(answer.text[:200].split())
            later = answer.status_code in {408, 425, 429, 500, 502, 503, 504}
            fix = "run it again later" if later else "check url and params in the contract"
            raise self._error(f"answered {answer.status_code}: {said}", fix)
        try:
            body = json.loads(answer.content, parse_float=_exact, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise self._error(
                f"expected JSON, got {answer.content[:60]!r} ({type(error).__name__})", "check the url"
            ) from None
        return body, answer.content, answer.links

    def _records(self, body: Any) -> list[Any]:
        records = found(body, self.connector.records) if self.connector.records else body
        if isinstance(records, list):
            return records
        where = self.connector.records or "the body"
        has = f"an object with {', '.join(map(str, list(body)[:9]))}" if isinstance(body, dict) else type(body).__name__
        raise self._error(f"expected a list of records at {where}, the body is {has}", 'say records="data.items"')

    def _error(self, problem: str, fix: str) -> DataError:
        text = f"{redact(self.url)} {problem}"
        for value in filter(None, self.secrets):
            text = text.replace(value, "***")
        return DataError(self.source, text, fix)


def found(body: Any, path: str) -> Any:
    """The value at a dotted path, None if there is none."""
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def dumped(record: Any) -> str:
    """A record as one text, the same whatever the order of its keys, and whether a missing value is said or not."""
    if isinstance(record, dict):
        record = {key: value for key, value in record.items() if value is not None}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # half of a surrogate pair is no text


def _exact(text: str) -> float | str:
    """A number with more digits than a float holds stays the text it is."""
    value = float(text)
    return value if Decimal(repr(value)) == Decimal(text) else text


def _why(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return str(reason).rpartition(">: ")[2].rpartition("object at 0x")[2] or type(error).__name__
