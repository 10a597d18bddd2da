"""An API that is slow, limited, broken, or changes while it is read loses nothing; what it answers wrongly is said."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest
from api import STYLES, Api, serving
from systems import Rest, make_project, order, payloads, plain

from foretell.connectors import REST, Cursor, NextLink, PageNumber
from foretell.errors import DataError, ForetellError, NotReady
from foretell.project import Project
from ingestion.connectors import rest
from ingestion.load import Loaded, load

PAGED = [style for style in STYLES if style != "whole"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(rest, "BACK_OFF", 0.01)
    with serving(Api()) as found:
        yield found


def pull(project: Project, **other: bool) -> int:
    found = list(load(project, ["orders"], **other))
    for result in found:
        assert isinstance(result, Loaded), result
    return sum(result.added for result in found if isinstance(result, Loaded))


def failure(project: Project) -> ForetellError:
    errors = [result for result in load(project, ["orders"]) if isinstance(result, ForetellError)]
    assert len(errors) == 1
    return errors[0]


def facts(project: Project) -> list[tuple]:
    return sorted(plain(row) for row in payloads(project))


@pytest.mark.parametrize("style", PAGED)
def test_limits_and_failures_are_waited_for(api: Api, style: str, tmp_path: Path) -> None:
    system = Rest(api, style)
    system.put(*[order(n) for n in range(1, 31)])
    answers = {2: (429, {"Retry-After": "1"}), 3: (500, {}), 4: (503, {}), 6: "cut", 7: (502, {})}
    api.fail = lambda n: answers.get(n)
    project, begun = make_project(tmp_path / "shop", system.connector()), time.monotonic()
    assert pull(project) == 30
    assert time.monotonic() - begun >= 1  # as long as it was told to
    assert facts(project) == sorted(plain(order(n)) for n in range(1, 31))


@pytest.mark.parametrize("style", PAGED)
def test_rows_that_change_between_two_pages(api: Api, style: str, tmp_path: Path) -> None:
    """Changed rows move to the end, and thereby others over the border of a page: none of them is passed over."""
    system, draw, clock = Rest(api, style), Random(6), count(1000)
    rows = {n: order(n) for n in range(1, 41)}
    system.put(*rows.values())
    ever = set(map(plain, rows.values()))

    def change(number: int) -> None:
        if number in {2, 3, 5}:
            n = draw.randint(1, 10)
            rows[n] = order(n, next(clock))
            system.put(rows[n])
            ever.add(plain(rows[n]))

    api.each = change
    project = make_project(tmp_path / "shop", system.connector())
    pull(project)
    api.each = lambda n: None
    pull(project)
    found = set(facts(project))
    assert set(map(plain, rows.values())) <= found
    assert found <= ever


def test_pages_that_are_steady_are_read_once(api: Api, tmp_path: Path) -> None:
    system = Rest(api, "page")
    system.put(*[order(n) for n in range(1, 31)])
    pull(make_project(tmp_path / "a", system.connector()))
    twice = len(api.requests)
    pull(make_project(tmp_path / "b", system.connector(steady=True)))
    assert len(api.requests) == twice + twice // 2


@pytest.mark.slow
def test_an_api_that_fails_for_good(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before stays; the watermark does not move; the next pull has all of it."""
    monkeypatch.setattr(rest, "RETRIES", 2)
    monkeypatch.setattr(rest, "RECORDS", 5)
    system = Rest(api, "link")
    system.put(*[order(n) for n in range(1, 31)])
    api.fail = lambda n: (500, {}) if n > 3 else None
    project = make_project(tmp_path / "shop", system.connector())
    error = failure(project)
    assert f"{api.url}/link answered 500" in str(error)
    assert "run it again later" in str(error)
    assert 0 < len(facts(project)) < 30
    api.fail = lambda n: None
    asked = len(api.requests)
    pull(project)
    assert "since" not in api.requests[asked]
    assert facts(project) == sorted(plain(order(n)) for n in range(1, 31))
    pull(project)
    assert api.requests[-1]["since"] == "2024-04-30 23:55:30+00:00"  # five minutes before the last


def test_records_without_a_watermark_are_said(api: Api, tmp_path: Path) -> None:
    system = Rest(api, "link")
    system.put(order(1), {**order(2), "updated_at": None})
    project = make_project(tmp_path / "shop", system.connector())
    (result,) = load(project, ["orders"])
    assert isinstance(result, Loaded)
    assert result.reasons == ["1 records without updated_at: only --full is sure to get them again"]
    assert result.added == 2


def test_the_overlap_is_asked_for(api: Api, tmp_path: Path) -> None:
    from foretell import minutes

    system = Rest(api, "cursor")
    system.put(order(3600))
    project = make_project(tmp_path / "shop", system.connector(overlap=minutes(30)))
    pull(project)
    pull(project)
    assert api.requests[-1]["since"] == "2024-05-01 00:30:00+00:00"


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("bearer env:SHOP_TOKEN", "Authorization", f"Bearer {SECRET}"),
        ("header X-Api-Key env:SHOP_TOKEN", "X-Api-Key", SECRET),
        ("basic env:SHOP_TOKEN", "Authorization", "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()),
        ("query key env:SHOP_TOKEN", "", SECRET),
    ],
)
def test_credentials_are_sent_and_never_shown(
    api: Api, auth: str, header: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", f"me:{SECRET}" if auth.startswith("basic") else SECRET)
    system = Rest(api, "link")
    system.put(order(1))
    project = make_project(tmp_path / "shop", system.connector(auth=auth))
    assert pull(project) == 1
    assert (api.headers[-1][header] if header else api.requests[-1]["key"]) == value
    api.fail = lambda n: (401, {"X-Echo": SECRET})
    error = failure(project)
    assert "refused the credentials (401)" in str(error)
    assert "env:SHOP_TOKEN" in str(error)
    monkeypatch.setattr(Api, "answer", lambda self, path, asked: (f"no {SECRET}".encode(), {}))
    api.fail = lambda n: None
    assert SECRET not in str(failure(project))
    api.fail = lambda n: "down"
    monkeypatch.delenv("SHOP_TOKEN")
    assert isinstance(failure(project), NotReady)


def test_what_is_answered_wrongly_is_said(api: Api, tmp_path: Path) -> None:
    names = count()

    def said(connector: REST) -> str:
        error = failure(make_project(tmp_path / f"shop{next(names)}", connector))
        assert isinstance(error, DataError)
        assert error.fix
        return str(error)

    system = Rest(api, "link")
    system.put(*[order(n) for n in range(1, 20)])
    assert "expected a list of records at rows, the body is an object with data, meta" in said(
        system.connector(records="rows")
    )
    assert "page=2 answers the same as the page before it" in said(Rest(api, "body").connector(paginate=PageNumber()))
    api.fail = lambda n: (404, {})
    assert "answered 404" in said(system.connector())
    api.fail = lambda n: (301, {"Location": "https://elsewhere.example.org/x?token=1"})
    assert "has moved to https://elsewhere.example.org/x" in said(system.connector())
    api.fail = lambda n: None
    api.answer = lambda path, asked: (b"<html>", {})  # type: ignore[assignment]
    assert "expected JSON, got b'<html>'" in said(system.connector())
    api.answer = lambda path, asked: (b"[" * 200_000, {})  # type: ignore[assignment]
    assert "expected JSON" in said(system.connector())
    body = {"data": {"items": [order(1)]}, "meta": {"next": "x"}}
    api.answer = lambda path, asked: (body, {})  # type: ignore[assignment]
    assert "the cursor meta.next does not move: 'x'" in said(system.connector(paginate=Cursor(path="meta.next")))
    link = {"Link": '<https://elsewhere.example.org/2>; rel="next"'}
    api.answer = lambda path, asked: (body, link)  # type: ignore[assignment]
    assert "another host, which gets no credentials" in said(system.connector())
    api.answer = lambda path, asked: (body, {"Link": f'<{api.url}/link>; rel="next"'})  # type: ignore[assignment]
    assert "was read already" in said(system.connector(paginate=NextLink()))


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BACK_OFF", 0.01)
    project = make_project(tmp_path / "shop", REST(url="http://127.0.0.1:9/orders"))
    error = failure(project)
    assert "http://127.0.0.1:9/orders cannot be reached" in str(error)
