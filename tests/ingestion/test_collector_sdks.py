"""The vendors' SDKs, unmodified, against a real collector: what they say arrives complete, once, and joins people."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from datetime import datetime

import pytest
from collecting import Shop, run_node, run_python, running
from one_source import ask

PYTHON = """
import json, sys
from datetime import datetime, timezone
from segment.analytics.client import Client

host, key, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
failures = []
client = Client(key, host=host, on_error=lambda error, items: failures.append(str(error)), **options.get("client", {}))
said = [
    client.identify("u1", {"email": "jo@home.org", "name": "J\\u00d8rsted \\U0001f600", "n": 2**60}, anonymous_id="a1"),
    client.track("u1", "Order Completed", {"order_id": "o1", "total": 9.5, "products": [{"sku": "tea"}, {"n": 1}]}),
    client.track(None, "Seen", {"nothing": None, "text": "a\\nb\\"c\\\\"}, anonymous_id="a1",
                 timestamp=datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)),
    client.page("u1", "Docs", "Start", {"url": "https://home.org/?a=1&b=2"}),
    client.screen("u1", "Main", "Cart", {"items": 3}),
    client.group("u1", "acme", {"name": "Acme", "employees": 12}),
    client.alias("a0", "u1"),
]
for n in range(options.get("more", 0)):
    said.append(client.track(f"u{n}", "More", {"n": n}))
client.flush()
client.join()
for good, message in said:
    print(json.dumps(message))
if failures:
    sys.exit(str(failures))
"""

NODE = """
const { Analytics } = require('@segment/analytics-node')
const [host, key, options] = [process.argv[1], process.argv[2], JSON.parse(process.argv[3])]
const analytics = new Analytics({ writeKey: key, host, ...options.client })
const sent = new Map()
analytics.on('http_request', ({ body }) => { for (const m of JSON.parse(body).batch) sent.set(m.messageId, m) })
analytics.on('error', (error) => { console.error(error); process.exitCode = 1 })
analytics.identify({ userId: 'n1', anonymousId: 'na1', traits: { email: 'ann@home.org', name: '\\u00d8 \\u{1f600}' } })
analytics.track({ userId: 'n1', event: 'Order Completed', properties: { order_id: 'o2', revenue: 12, list: [1, [2]] } })
analytics.track({ anonymousId: 'na1', event: 'Seen', properties: { nothing: null, text: 'a\\nb"c\\\\' },
                  timestamp: new Date('2024-02-29T12:30:00Z') })
analytics.page({ userId: 'n1', category: 'Docs', name: 'Start', properties: { url: 'https://home.org/' } })
analytics.screen({ userId: 'n1', name: 'Cart' })
analytics.group({ userId: 'n1', groupId: 'acme', traits: { name: 'Acme' } })
analytics.alias({ userId: 'n1', previousId: 'na0' })
for (let n = 0; n < (options.more || 0); n++) analytics.track({ userId: `n${n}`, event: 'More', properties: { n } })
analytics.closeAndFlush().then(() => { for (const m of sent.values()) console.log(JSON.stringify(m)) })
"""

KINDS = ["alias", "group", "identify", "page", "screen", "track", "track"]
SDKS = {"python": (run_python, PYTHON), "node": (run_node, NODE)}


def said(name: str, shop: Shop, **options) -> list[dict]:
    run, script = SDKS[name]
    return run(script, f"http://127.0.0.1:{shop.port}", shop.key, json.dumps(options))


def assert_complete(sent: list[dict], kept: dict[str, dict]) -> None:
    """Every message is there, with every value it had; only the clock of its sender is set right."""
    assert len(sent) == len({message["messageId"] for message in sent})
    for message in sent:
        found = kept[message["messageId"]]
        expected = {key: value for key, value in message.items() if key != "timestamp"}
        assert {key: found[key] for key in expected} == expected
        assert found["originalTimestamp"] == message["timestamp"]
        moved = at(found["timestamp"]) - at(message["timestamp"])
        assert moved == at(found["receivedAt"]) - at(found["sentAt"])
        assert "writeKey" not in found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("name", SDKS)
def test_every_call_arrives_complete(name, tmp_path):
    with running(tmp_path) as shop:
        options = [{}, {"client": {"gzip": True}}] if name == "python" else [{}]
        sent = [message for option in options for message in said(name, shop, **option)]
        assert sorted(m["type"] for m in sent[: len(KINDS)]) == KINDS
        shop.load()  # the collector goes on running
        assert set(shop.messages()) == {m["messageId"] for m in sent}
        assert_complete(sent, shop.messages())
        assert shop.counts()["messages_total"] == len(sent)


@pytest.mark.parametrize("name", SDKS)
def test_many_messages_arrive_complete_over_a_restart(name, tmp_path):
    """Half way the collector is killed and comes back: the SDK tries again, and what it says twice counts once."""
    with running(tmp_path) as shop:
        client = {"client": {"flushAt": 50}} if name == "node" else {"client": {"upload_size": 50}}
        result: list[list[dict]] = []
        sender = threading.Thread(target=lambda: result.append(said(name, shop, more=3_000, **client)))
        sender.start()
        end = time.monotonic() + 60
        while shop.counts().get("messages_total", 0) < 300 and time.monotonic() < end:
            time.sleep(0.005)
        shop.stop(9)
        shop.load()
        shop.start()
        sender.join()
        shop.load()
        (sent,) = result
        assert len(sent) == 3_007
        assert set(shop.messages()) == {m["messageId"] for m in sent}
        assert_complete(sent, shop.messages())


@pytest.mark.parametrize("name", SDKS)
def test_told_to_come_again_it_comes_again(name, tmp_path):
    """429 while another request takes the only place there is; once that is done, all arrives."""
    with running(tmp_path, environ={"FORETELL_COLLECT_REQUESTS": "1"}) as shop:
        user = base64.b64encode(f"{shop.key}:".encode()).decode()
        body = json.dumps({"userId": "slow", "event": "Slow"}).encode()
        with socket.create_connection(("127.0.0.1", shop.port)) as slow:
            head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {user}\r\n"
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
            result: list[list[dict]] = []
            sender = threading.Thread(target=lambda: result.append(said(name, shop)))
            sender.start()
            end = time.monotonic() + 60
            while shop.counts().get('requests_total{status="429"}', 0) < 1 and time.monotonic() < end:
                time.sleep(0.05)
            status, answer, headers = shop.send("/v1/track", {"userId": "u", "event": "x"})
            assert (status, headers["retry-after"]) == (429, "1")
            assert answer["error"]["fix"] == "come again in a second"
            assert shop.counts().get("messages_total", 0) == 0
            slow.sendall(body[5:])
            assert b"200 OK" in slow.recv(1000)
            sender.join()
        shop.load()
        (sent,) = result
        assert len(sent) == len(KINDS)
        assert_complete(sent, shop.messages())
        assert len(shop.messages()) == len(sent) + 1


def test_anonymous_becomes_known(tmp_path):
    """Ready contracts of a stream, loaded and unified: who looked around unknown, logged in, and was someone before."""
    from click.testing import CliRunner

    from foretell.__main__ import cli
    from foretell.project import Project

    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--project", str(tmp_path), *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    with running(tmp_path) as shop:
        for name in SDKS:
            said(name, shop)
        wrote = run("source", "new", "--stream", "web")
    assert [line.split(":")[0] for line in wrote.splitlines()[:4]] == [
        "wrote sources/web_people.py", "wrote sources/web_aliases.py", "wrote sources/web_activity.py",
        "wrote sources/web_orders.py",
    ]  # fmt: skip
    run("load")
    run("unify")
    project = Project(tmp_path)
    for one, (user, was, before) in {"jo": ("u1", "a1", "a0"), "ann": ("n1", "na1", "na0")}.items():
        nodes = (f"user_id:{user}", f"anonymous_id:{was}", f"anonymous_id:{before}", f"email:{one}@home.org")
        ((profiles, found),) = ask(
            project,
            f"""SELECT count(DISTINCT profile_id), count(DISTINCT node) FROM member
                WHERE known_to IS NULL AND node IN {nodes}""",
        )
        assert (profiles, found) == (1, 4)
    assert ask(project, "SELECT order_id, amount::DOUBLE FROM web_orders ORDER BY 1") == [("o1", 9.5), ("o2", 12.0)]
    kinds = ask(project, "SELECT kind, name, category, count(*) FROM web_activity GROUP BY ALL ORDER BY ALL")
    assert ("page", "Start", "Docs", 2) in kinds
    assert ("track", "Seen", None, 2) in kinds
    ((name,),) = ask(project, "SELECT name FROM web_people WHERE id_user_id = 'u1'")
    assert name == "JØrsted 😀"
