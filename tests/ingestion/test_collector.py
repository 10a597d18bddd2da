"""The collector's answers: keys, limits, bad input, clocks, webhooks. A 4xx says why; what got a 200 is kept."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import os
import shutil
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from collecting import Shop, everything, make, running
from hypothesis import given
from hypothesis import strategies as st
from one_source import ask, quarantined

from foretell import Source
from foretell.__main__ import cli
from foretell.errors import DataError, DefinitionError, UnknownName
from foretell.project import Project
from ingestion.collector import messages, webhooks
from ingestion.collector.app import CALLS, Limits
from ingestion.collector.keys import Keys
from ingestion.collector.log import OPEN, SEALED, TORN, Full, Log, seal, seal_all, sealed

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    tickets = Source(
        name="tickets", stream="tickets", event_at="body.at", unique="messageId", identifiers={"email": "body.email"}
    )
    with running(tmp_path_factory.mktemp("collector"), everything, tickets) as shop:
        (shop.home / "collected" / "tickets").mkdir()
        yield shop


def track(n: object = 1, **more) -> dict:
    return {"type": "track", "event": "e", "userId": "u1", "messageId": f"m-{n}", **more}


def line(top: dict, received: datetime = NOW, kind: str = "track") -> dict:
    """What is kept of a message."""
    made = messages.one(kind, messages.parse(json.dumps(top).encode()), received, 32_768).data
    assert made.endswith(b"\n")
    assert made.count(b"\n") == 1
    return json.loads(made)


# --- the spec: paths, keys, clocks


def test_every_path_takes_its_call(shop: Shop):
    singles = {path: kind for path, kind in CALLS.items() if kind != "batch"}
    for path in singles:
        common = {"userId": "u1", "event": "e", "groupId": "g", "previousId": "p", "messageId": f"path {path}"}
        assert shop.send(path, common)[:2] == (200, {"success": True})
    shop.load()
    assert {path: shop.messages()[f"path {path}"]["type"] for path in singles} == singles


def test_the_key_may_be_in_the_body(shop: Shop):
    """As the SDK of browsers sends it: JSON that is called text, so that no preflight is needed."""
    paths = [path for path, kind in CALLS.items() if kind == "batch"]
    for path in paths:
        body = json.dumps({"batch": [track(f"body {path}")], "writeKey": shop.key})
        status, _, headers = shop.ask("POST", path, body, Content_Type="text/plain", Origin="https://home.org")
        assert (status, headers["access-control-allow-origin"]) == (200, "*")
    one = json.dumps({**track("one body"), "writeKey": shop.key})
    assert shop.ask("POST", "/v1/t", one, Content_Type="text/plain")[0] == 200
    shop.load()
    kept = shop.messages()
    for id in ("m-one body", *(f"m-body {path}" for path in paths)):
        assert "writeKey" not in kept[id]


def test_a_browser_may_ask_first(shop: Shop):
    asked = {"Origin": "https://home.org", "Access_Control_Request_Method": "POST"}
    status, _, headers = shop.ask("OPTIONS", "/v1/batch", None, **asked)
    assert status == 204
    assert headers["access-control-allow-origin"] == "*"
    assert "authorization" in headers["access-control-allow-headers"]


def test_who_may_not_write(shop: Shop):
    wrong = {"subject": "write key", "problem": "is unknown, or was revoked",
             "fix": "`foretell collect key new NAME` makes one"}  # fmt: skip
    assert shop.send("/v1/track", track(), key="nobody")[:2] == (401, {"error": wrong})
    assert shop.ask("POST", "/v1/track", json.dumps({**track(), "writeKey": "x"}))[:2] == (401, {"error": wrong})
    status, said, _ = shop.ask("POST", "/v1/track", json.dumps(track()))
    assert (status, said["error"]["problem"]) == (401, "expected a write key, got none")
    for bad in ("Bearer x", "Basic ???", "Basic /w==", ""):
        status, said, _ = shop.ask("POST", "/v1/track", json.dumps(track()), Authorization=bad)
        assert status == 401, bad
    status, said, _ = shop.ask("GET", "/v1/track")
    assert (status, said["error"]["problem"]) == (405, "expected POST, got GET")
    assert shop.ask("POST", "/v1/tracks", "{}")[0] == 404


def test_a_key_is_shown_once_and_can_be_revoked(shop: Shop):
    run = CliRunner()
    made = run.invoke(cli, ["--project", str(shop.project.folder), "collect", "key", "new", "ios_app"])
    key, *_ = made.output.splitlines()
    assert key.startswith("fk_")
    stored = (shop.home / "collector" / "keys.json").read_text()
    assert key not in stored
    assert os.stat(shop.home / "collector" / "keys.json").st_mode & 0o777 == 0o600
    time.sleep(1.1)  # a running collector looks once a second
    assert shop.send("/v1/track", track(), key=key)[0] == 200
    listed = run.invoke(cli, ["--project", str(shop.project.folder), "collect", "key", "list"]).output
    (id,) = [row.split()[1] for row in listed.splitlines() if row.startswith("ios_app")]
    assert key not in listed
    run.invoke(cli, ["--project", str(shop.project.folder), "collect", "key", "revoke", id])
    time.sleep(1.1)
    assert shop.send("/v1/track", track(), key=key)[0] == 401
    keys = Keys(shop.home)
    with pytest.raises(UnknownName, match="no such write key in use"):
        keys.revoke(id)
    with pytest.raises(DataError, match="is no name of a stream"):
        keys.new_key("../up")


@pytest.mark.parametrize(
    ("sent", "timestamp", "kept", "original"),
    [
        # its clock is an hour ahead, and it waited 5 minutes before it sent
        ("2026-05-04T13:00:00Z", "2026-05-04T12:55:00Z", "2026-05-04T11:55:00Z", "2026-05-04T12:55:00Z"),
        ("2026-05-04T15:00:00+03:00", "2026-05-04T11:59:59Z", "2026-05-04T11:59:59Z", "2026-05-04T11:59:59Z"),
        ("2026-05-04T12:00:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        (None, "2026-05-04T12:55:00Z", "2026-05-04T12:55:00Z", None),  # nothing to go by
        ("never", "2026-05-04T12:55:00Z", "2026-05-04T12:55:00Z", None),
        ("2026-05-04T13:00:00Z", "never", "never", None),
        ("2026-05-04T13:00:00Z", 1777, 1777, None),
        ("2026-05-04T13:00:00Z", None, "2026-05-04T12:00:00Z", None),
        ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", None),
    ],
)  # fmt: skip
def test_the_senders_clock_is_set_right(sent, timestamp, kept, original):
    found = line({**track(), "sentAt": sent, "timestamp": timestamp})
    assert found["receivedAt"] == "2026-05-04T12:00:00Z"
    assert found["timestamp"] == kept
    assert found.get("originalTimestamp") == original


def test_values_are_passed_on_byte_by_byte():
    raw = b'{"userId":"u","event":"e","n":12345678901234567890123,"f":1.10,"e":1E400,"t":"\\u00e9\\/",\n'
    raw += b'"z":{"b":1,\r\n"a":2}}'
    made = messages.one("track", messages.parse(raw), NOW, 32_768).data
    for piece in (b"12345678901234567890123", b"1.10", b"1E400", b'"\\u00e9\\/"', b'{"b":1,'):
        assert piece in made
    assert made.count(b"\n") == 1
    assert b"\r" not in made


_NAMES = st.sampled_from(
    ["type", "timestamp", "sentAt", "receivedAt", "originalTimestamp", "writeKey", "invalid", "a", 'b"\\']
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["timestamp", "2026-05-04T11:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(
    more=st.dictionaries(_NAMES.filter(lambda name: name != "type"), _VALUES, max_size=5),
    ids=st.fixed_dictionaries({}, optional={"messageId": st.text(min_size=1), "type": st.just("track")}),
    sent=st.none() | st.just("2026-05-04T12:30:00Z"), indent=st.sampled_from([None, 1]),
)  # fmt: skip
def test_spliced_or_rewritten_the_line_says_the_same(more, ids, sent, indent):
    """What stays as it is and what must be taken apart: an oracle that knows of no bytes."""
    message = {"type": "track", "userId": "u", "event": "e", "properties": more, **more, **ids}
    body = json.dumps({"batch": [message], **({"sentAt": sent} if sent else {})}, indent=indent).encode()
    taken = messages.batch(messages.parse(body), NOW, 32_768)
    assert not taken.problems
    assert taken.data.index(b"\n") == len(taken.data) - 1
    found, expected = json.loads(taken.data), {"sentAt": sent, **message} if sent else dict(message)
    expected.pop("writeKey", None)
    expected["receivedAt"] = "2026-05-04T12:00:00Z"
    expected.setdefault("messageId", found["messageId"])
    happened, at = instant(expected.get("timestamp")), instant(message.get("sentAt", sent) or sent)
    if expected.get("timestamp") is None:
        expected["timestamp"] = expected["receivedAt"]
    elif happened and at:
        expected.setdefault("originalTimestamp", expected["timestamp"])
        expected["timestamp"] = messages.stamp(NOW - (at - happened))
    assert found == expected


def instant(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(text)) if isinstance(text, str) else None
    except ValueError:
        return None
    return at and (at if at.tzinfo else at.replace(tzinfo=UTC))


def test_without_an_id_it_is_given_one():
    first, second = line({"userId": "u", "event": "e"}), line({"userId": "u", "event": "e"})
    assert first["messageId"] != second["messageId"]
    assert line({"userId": "u", "event": "e", "messageId": ""})["messageId"]


# --- what is wrong


BAD = {
    "type": ({"type": "tracks", "userId": "u"}, "type: expected one of identify, track, page, screen, group, alias"),
    "no type": ({"userId": "u"}, "type: expected one of"),
    "nobody": ({"type": "page"}, "a page call needs userId or anonymousId"),
    "empty ids": ({"type": "page", "userId": "", "anonymousId": None}, "a page call needs userId or anonymousId"),
    "id": ({"type": "page", "userId": {"a": 1}}, "userId: expected number | text | null, got object"),
    "event": ({"type": "track", "userId": "u"}, "a track call needs event"),
    "group": ({"type": "group", "userId": "u"}, "a group call needs groupId"),
    "alias": ({"type": "alias", "userId": "u"}, "an alias call needs previousId and userId"),
    "no object": (5, "expected object, got int"),
    "too large": ({"type": "page", "userId": "u", "text": "x" * 40_000}, "expected a message of at most 32,768 bytes"),
    "deep": ({"type": "page", "userId": "u", "deep": json.loads("[" * 80 + "]" * 80)}, "expected at most 64 levels"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_message_spoils_no_other(shop: Shop, case):
    """The SDKs give a refused batch up: so the good ones are kept, and the bad one is in quarantine, once."""
    bad, problem = BAD[case]
    good = [track(f"{case} 1"), track(f"{case} 2")]
    status, said, _ = shop.send("/v1/batch", {"batch": [good[0], bad, good[1]]})
    assert status == 200
    (told,) = said["quarantined"]
    assert told["message"] == 1
    assert told["problem"].startswith(problem)
    shop.load()
    assert {m["messageId"] for m in good} <= set(shop.messages())
    rows = ask(shop.project, "SELECT source, reason, raw FROM quarantine ORDER BY received_at DESC, line DESC LIMIT 1")
    assert rows[0][:2] == ("everything", told["problem"])
    assert json.loads(rows[0][2]) == bad
    if isinstance(bad, dict) and "type" in bad and bad["type"] in messages.KINDS:  # alone, its sender hears it
        status, said, _ = shop.send(f"/v1/{bad['type']}", bad)
        assert status == 400
        assert said["error"]["problem"].startswith(problem)


REFUSED = {
    "no JSON": (b"hello", 400, "expected JSON: "),
    "empty": (b"", 400, "expected JSON: "),
    "a list": (b"[]", 400, "expected object, got array"),
    "no batch": (b"{}", 400, "expected a list of messages, got none"),
    "batch is no list": (b'{"batch": 5}', 400, "expected array, got int"),
    "not UTF-8": (b'{"batch": [{"userId": "\xff"}]}', 400, "expected UTF-8, got something else at byte 23"),
    "very deep": (b'{"batch": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "expected at most 64 levels of JSON"),
    "deep": (b'{"batch": [' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"]}", 400, "expected at most 64 levels"),
    "too large": (b'{"batch": ["' + b"x" * 600_000 + b'"]}', 413, "expected at most 500,000 bytes, got 600,015"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_a_whole(shop: Shop, case):
    body, expected, problem = REFUSED[case]
    before = shop.counts().get("messages_total", 0)
    status, said, _ = shop.send("/v1/batch", body)
    assert (status, list(said)) == (expected, ["error"])
    assert said["error"]["problem"].startswith(problem)
    assert shop.counts().get("messages_total", 0) == before


def test_gzip(shop: Shop):
    whole = gzip.compress(json.dumps({"batch": [track("zipped")]}).encode())
    assert shop.send("/v1/batch", whole, Content_Encoding="gzip")[0] == 200
    shop.load()
    assert "m-zipped" in shop.messages()
    for body, status, problem in (
        (whole[:-12], 400, "expected gzip, but it ends too early"),
        (b"plain", 400, "expected gzip: "),
        (gzip.compress(b" " * 100_000_000), 413, "expected at most 500,000 bytes, got more when unpacked"),
    ):
        got, said, _ = shop.send("/v1/batch", body, Content_Encoding="gzip")
        assert got == status
        assert said["error"]["problem"].startswith(problem)
    assert shop.send("/v1/batch", b"x", Content_Encoding="br")[0] == 415


@pytest.mark.parametrize("length", [True, False], ids=["says its length", "in chunks"])
def test_a_body_of_100_mb_takes_no_memory(shop: Shop, length):
    assert shop.process
    process = psutil.Process(shop.process.pid)
    before = process.memory_info().rss
    head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {_basic(shop.key)}\r\n"
    head += "Content-Length: 100000000\r\n\r\n" if length else "Transfer-Encoding: chunked\r\n\r\n"
    sent, part = 0, b"x" * 1_000_000
    with socket.create_connection(("127.0.0.1", shop.port), timeout=20) as link:
        link.sendall(head.encode())
        try:
            while sent < 100_000_000:
                link.sendall(part if length else b"%x\r\n%b\r\n" % (len(part), part))
                sent += len(part)
            answer = link.recv(2_000)
        except OSError:  # it has hung up, having answered
            answer = b"HTTP/1.1 413"
    assert answer.startswith(b"HTTP/1.1 413")
    assert process.memory_info().rss - before < 30_000_000
    assert shop.send("/v1/track", track())[0] == 200


def _basic(key: str) -> str:
    import base64

    return base64.b64encode(f"{key}:".encode()).decode()


def test_half_a_character_spoils_no_batch(shop: Shop):
    body = rb'{"type": "page", "userId": "u", "messageId": "half", "a": "x\ud83d", "b": "\ud83d\ude00 \\ud83d"}'
    assert shop.send("/v1/batch", b'{"batch": [' + body + b"]}")[:2] == (200, {"success": True})
    shop.load()
    kept = shop.messages()["half"]
    assert (kept["a"], kept["b"]) == ("x\ufffd", "😀 \\ud83d")


# --- once


def test_a_message_counts_once(shop: Shop):
    """In one batch, in two, in two loads, months apart, and after a restart: the first counts."""
    first = track("once", timestamp="2024-01-31T10:00:00Z", said="first")
    again = track("once", timestamp="2024-03-01T10:00:00Z", said="again")
    shop.send("/v1/batch", {"batch": [first, again]})
    shop.send("/v1/batch", {"batch": [again]})
    shop.load()
    shop.send("/v1/batch", {"batch": [again, track("not twice")]})
    results = shop.load()
    assert [(r.added, r.known) for r in results if r.source == "everything"] == [(1, 1)]
    shop.stop()
    shop.start()
    shop.send("/v1/track", {**again, "type": "track"})
    shop.load()
    assert shop.messages()["m-once"]["said"] == "first"
    assert "m-not twice" in shop.messages()


def test_unique_rows_of_files_too(tmp_path):
    """`unique` is for any source: the first row of a value counts, a row without one is in quarantine."""
    from one_source import HEADER, loaded, project, sales, write
    from one_source import line as row

    made = project(tmp_path, sales(unique="order_no"))
    write(made, "a.csv", HEADER + row(1, at="never") + row(1, amount="5") + row(1, amount="6") + row(2))
    write(made, "b.csv", HEADER + row(2, at="2023-01-01") + ",,1,x@y.org\n" + row(3))
    assert [(r.added, r.known, r.quarantined) for r in loaded(made)] == [(2, 1, 1), (1, 1, 1)]
    assert ask(made, "SELECT order_id, amount::INT FROM sales ORDER BY 1") == [("1", 5), ("2", 10), ("3", 10)]
    assert ("b.csv", 3, "no key: order_no is empty") in quarantined(made)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"files": "a.csv", "stream": "web"}, "expected files, a connector or a stream, one of them"),
        ({}, "expected files, a connector or a stream, one of them"),
        ({"stream": "Web"}, "the name of a stream is lower-case letters"),
        ({"stream": "web", "unique": " "}, "unique is an empty"),
    ],
)
def test_declarations_that_are_refused(more, problem):
    with pytest.raises(DefinitionError, match=r".") as error:
        Source(name="x", event_at="at", **more)
    assert problem in str(error.value)


def test_a_stream_nobody_has_heard_of(tmp_path):
    from one_source import loaded, project

    made = project(tmp_path, Source(name="x", stream="wbe", event_at="timestamp"))
    Keys(made.home).new_key("web")
    (error,) = loaded(made)
    assert str(error) == 'stream wbe: nothing has been collected; did you mean "web"?'


# --- segments


def test_a_torn_line_is_put_aside_and_reported(tmp_path):
    shop = make(tmp_path)
    folder = shop.home / "collected" / "web"
    whole = json.dumps({**track("whole"), "timestamp": "2024-05-01", "receivedAt": "2024-05-01"}) + "\n"
    (folder / f"1{OPEN}").write_text(whole + whole[:50])
    (folder / f"2{OPEN}").write_text(whole[:70])
    (folder / f"3{OPEN}").write_text("")
    (folder / f"4{SEALED}").write_text(whole.replace("m-whole", "m-other"))
    results = shop.load()
    assert [(Path(r.file).name, r.added, r.reasons) for r in results] == [
        (f"1{TORN}", 0, ["50 bytes of a line that was never answered for were put aside"]),
        (f"2{TORN}", 0, ["70 bytes of a line that was never answered for were put aside"]),
        (f"1{SEALED}", 1, []),
        (f"4{SEALED}", 1, []),
    ]
    assert set(shop.messages()) == {"m-whole", "m-other"}
    assert sorted(f.name for f in folder.iterdir()) == [f"1{SEALED}", f"1{TORN}", f"2{TORN}", f"4{SEALED}"]
    assert [r.skipped for r in shop.load()] == [True]
    assert seal(folder / f"1{OPEN}") is None
    assert seal_all(folder) == []


@pytest.mark.parametrize("size", [1, 100, 65_536, 65_537, 200_000])
def test_a_torn_line_of_any_length(tmp_path, size):
    file = tmp_path / f"a{OPEN}"
    file.write_bytes(b"whole\n" + b"x" * size)
    torn = seal(file)
    assert torn
    assert torn.read_bytes() == b"x" * size
    assert (tmp_path / f"a{SEALED}").read_bytes() == b"whole\n"


def test_a_segment_is_sealed_when_it_is_large(tmp_path):
    with running(tmp_path, environ={"FORETELL_COLLECT_SEGMENT": "2000"}) as shop:
        for n in range(20):
            assert shop.send("/v1/track", track(n, text="x" * 300))[0] == 200
        assert len(list((shop.home / "collected" / "web").glob(f"*{SEALED}"))) >= 2
        shop.load()
        assert set(shop.messages()) == {f"m-{n}" for n in range(20)}


def test_no_more_waits_than_may(tmp_path):
    """What would wait beyond the limit is refused at once; a segment may be sealed, or lost, while it is written to."""

    async def run() -> tuple[int, int]:
        log = Log(tmp_path, waiting=1_000)
        line = b'{"a": 1}' + b" " * 91 + b"\n"
        lost = await asyncio.gather(*(log.append("web", line) for _ in range(30)), return_exceptions=True)
        assert all(isinstance(one, Full) for one in lost if one is not None)
        seal_all(tmp_path / "web")
        await log.append("web", line)
        shutil.rmtree(tmp_path / "web")
        await log.append("web", line)
        log.close()
        with pytest.raises(Full):
            await log.append("web", line)
        return lost.count(None), len(sealed(tmp_path / "web"))

    assert asyncio.run(run()) == (10, 1)


def test_limits_are_numbers():
    assert Limits.of({"FORETELL_COLLECT_BATCH": "7"}).batch == 7
    with pytest.raises(DataError, match="FORETELL_COLLECT_BATCH: expected a positive whole number, got 'much'"):
        Limits.of({"FORETELL_COLLECT_BATCH": "much"})


def test_a_full_disk(tmp_path):
    """Files may not grow beyond 20 kB: what cannot be written is a 503, what was answered for is kept."""
    with running(tmp_path, limit=20_000) as shop:
        answered, statuses = [], []
        for n in range(100):
            size = 25_000 if n % 10 == 9 else 1_000
            status, said, headers = shop.send("/v1/track", track(n, text="x" * size))
            statuses.append(status)
            if status == 200:
                answered.append(f"m-{n}")
            else:
                assert (status, headers["retry-after"]) == (503, "1")
                assert said["error"]["problem"] == "cannot write: File too large"
                assert shop.ask("GET", "/readyz")[0] == 503
        assert {503, 200} == set(statuses)
        assert len(answered) >= 80
        assert not {f"m-{n}" for n in range(9, 100, 10)} & set(answered)
        shop.load()
        assert set(shop.messages()) == set(answered)
        assert not list((shop.home / "collected" / "web").glob(f"*{TORN}"))


# --- webhooks


def signed(scheme: str, secret: str, body: bytes, at: float | None = None, id: str = "w1") -> dict[str, str]:
    """The headers of a sender, by an implementation of its own."""
    stamp = str(int(time.time() if at is None else at))

    def mac(key: bytes, *parts: bytes) -> bytes:
        return hmac.new(key, b".".join(parts), hashlib.sha256).digest()

    import base64

    if scheme == "foretell":
        return {"X-Timestamp": stamp, "X-Signature": "sha256=" + mac(secret.encode(), stamp.encode(), body).hex()}
    if scheme == "github":
        return {"X-Hub-Signature-256": "sha256=" + mac(secret.encode(), body).hex(), "X-GitHub-Delivery": id}
    if scheme == "stripe":
        good = mac(secret.encode(), stamp.encode(), body).hex()
        return {"Stripe-Signature": f"t={stamp},v1={'0' * 64},v1={good},v0=x"}
    if scheme == "shopify":
        return {"X-Shopify-Hmac-Sha256": base64.b64encode(mac(secret.encode(), body)).decode()}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    good = base64.b64encode(mac(key, id.encode(), stamp.encode(), body)).decode()
    return {"Webhook-Id": id, "Webhook-Timestamp": stamp, "Webhook-Signature": f"v1,AAAA v1,{good} v2,x"}


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_what_github_documents():
    """The example of GitHub's own documentation of X-Hub-Signature-256."""
    made = webhooks.SCHEMES["github"].sign("It's a Secret to Everybody", b"Hello, World!")
    assert made == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize("scheme", webhooks.SCHEMES)
def test_a_signed_webhook(scheme):
    how, now = webhooks.SCHEMES[scheme].with_headers(None, None), time.time()
    body = b'{"a": "\xc3\xb8"}'

    def check(headers: dict[str, str], body: bytes = body, secret: str = SECRET) -> tuple[str, str]:
        return webhooks.check(how, secret, {k.lower(): v for k, v in headers.items()}, body, now)

    good = signed(scheme, SECRET, body)
    assert check(good) == check(good)
    other = base64_of_another()
    for headers, changed, secret, problem in (
        (good, body + b" ", SECRET, "is wrong"),
        (good, body, other, "is wrong"),
        ({**good, **dict.fromkeys([k for k in good if "ignature" in k or "Hmac" in k], "x")}, body, SECRET, "is wrong"),
        ({}, body, SECRET, "got none"),
    ):
        with pytest.raises(webhooks.Refused, match=problem) as refused:
            check(headers, changed, secret)
        assert refused.value.status == 401
    if how.timestamp or how.pairs:
        for late, word in ((301, "old"), (-301, "ahead")):
            with pytest.raises(webhooks.Refused, match=word):
                check(signed(scheme, SECRET, body, at=now - late))
        assert check(signed(scheme, SECRET, body, at=now - 290))


def base64_of_another() -> str:
    return "whsec_" + "A" * 32


def test_webhooks_over_http(shop: Shop):
    folder, run = str(shop.project.folder), CliRunner()
    secret = run.invoke(cli, ["--project", folder, "collect", "webhook", "new", "tickets"]).output.splitlines()[0]
    time.sleep(1.1)
    at = datetime.now(UTC) - timedelta(minutes=1)
    body = json.dumps({"at": at.isoformat(), "email": "jo@home.org", "ticket": {"id": 7}}).encode()
    headers = {k.replace("-", "_"): v for k, v in signed("foretell", secret, body).items()}
    assert shop.ask("POST", "/v1/webhooks/tickets", body, **headers)[:2] == (200, {"success": True})
    status, said, _ = shop.ask("POST", "/v1/webhooks/tickets", body, **headers)  # the very same again
    assert (status, said["error"]["problem"]) == (409, "this delivery was taken before")
    late = {k.replace("-", "_"): v for k, v in signed("foretell", secret, body, at=time.time() - 400).items()}
    status, said, _ = shop.ask("POST", "/v1/webhooks/tickets", body, **late)
    assert status == 401
    assert "s old, more than 300 s" in said["error"]["problem"]
    status, said, _ = shop.ask("POST", "/v1/webhooks/tickets", body + b" ", **headers)
    assert (status, said["error"]["problem"]) == (401, "the signature in x-signature is wrong")
    assert shop.ask("POST", "/v1/webhooks/nobody", body, **headers)[0] == 404
    for wrong in (b"no JSON", b'{"a": "\xff"}', b"[" * 5_000 + b"]" * 5_000):
        bad = {k.replace("-", "_"): v for k, v in signed("foretell", secret, wrong).items()}
        assert shop.ask("POST", "/v1/webhooks/tickets", wrong, **bad)[0] == 400
    shop.stop()  # what it remembers goes with it; the message's id does not
    shop.start()
    assert shop.ask("POST", "/v1/webhooks/tickets", body, **headers)[0] == 200
    shop.load()
    ((payload, email),) = ask(shop.project, "SELECT payload, id_email FROM tickets")
    assert json.loads(payload)["body"] == json.loads(body)
    assert email == "jo@home.org"
    listed = run.invoke(cli, ["--project", folder, "collect", "webhook", "list"]).output
    assert secret not in listed
    run.invoke(cli, ["--project", folder, "collect", "webhook", "revoke", "tickets"])
    time.sleep(1.1)
    assert shop.ask("POST", "/v1/webhooks/tickets", body, **headers)[0] == 404


def test_a_secret_may_be_in_the_environment(tmp_path):
    keys = Keys(tmp_path)
    _, hook = keys.new_webhook("repo", "github", secret_env="REPO_SECRET")
    assert "REPO_SECRET" in keys.file.read_text()
    assert hook.key() is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_SECRET", "abc")
        assert Keys(tmp_path).webhooks["repo"].key() == "abc"
    with pytest.raises(DataError, match="is a stream already"):
        keys.new_webhook("repo", "github")
    with pytest.raises(DataError, match="is the stream of a webhook"):
        keys.new_key("repo")
    with pytest.raises(DataError, match='expected base64 after "whsec_"'):
        keys.new_webhook("svix", "standard", secret="not base64!")


def test_its_verbs_explain_themselves():
    for words in (["collect"], ["collect", "key", "new"], ["collect", "webhook", "new"], ["source", "new"]):
        said = CliRunner().invoke(cli, [*words, "--help"]).output
        assert "Example" in said, words


def test_a_project_that_has_no_key_says_so(tmp_path):
    from one_source import project

    project(tmp_path)
    said = CliRunner().invoke(cli, ["--project", str(tmp_path), "collect", "key", "list"]).output
    assert said == "No write key yet: `foretell collect key new NAME` makes one.\n"
    assert Project(tmp_path).home
