"""API keys: shown once, kept as digests, heeded within a second; and the verbs that make, list and revoke them."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from foretell import __main__ as program
from foretell.errors import DataError, UnknownName
from foretell.project import Project
from serving.access.caller import SCOPES, Caller, Refusal
from serving.access.gate import REMEMBERED, Gate
from serving.access.keys import Keys
from serving.access.limits import Buckets
from serving.access.routes import Routes
from serving.serve import check_open

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    return Project(tmp_path)


@pytest.fixture
def foretell(project: Project) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(program.cli, ["--project", str(project.folder), *words])
        return done.exit_code, done.stdout, done.stderr + (str(done.exception) if done.exception else "")

    return run


def ask(gate: Gate, text: str, path: str = "/v1/tasks", address: str = "192.0.2.1") -> Caller | int:
    headers = [(b"authorization", b"Bearer " + text.encode())]
    scope = {"method": "GET", "path": path, "client": (address, 1), "headers": headers}
    try:
        found = asyncio.run(gate.admit(scope, Routes().of("GET", path)))
        assert found
        return found
    except Refusal as no:
        return no.status


def test_only_a_digest_is_kept(project: Project) -> None:
    text, made = Keys(project).create("shop", ["score", "read"])
    assert re.fullmatch(r"fa_[0-9a-f]{8}_[A-Za-z0-9_-]{32}", text)
    secret = text.split("_", 2)[2]
    for file in project.home.rglob("*"):
        assert not file.is_file() or secret not in file.read_text()
    assert stat.S_IMODE(Keys(project).file.stat().st_mode) == 0o600
    kept = json.loads(Keys(project).file.read_text())["keys"]
    assert kept == [{
        "id": made.id, "name": "shop", "digest": made.digest, "scopes": ["score", "read"],
        "created": made.created.isoformat(), "expires": None, "revoked": None,
    }]  # fmt: skip
    (project.folder / "other").mkdir()
    (project.folder / "other" / "foretell.toml").write_text("[foretell]\n")
    other = Project(project.folder / "other")
    (other.home / "access").mkdir(parents=True)
    Keys(other).file.write_bytes(Keys(project).file.read_bytes())
    assert Keys(other).caller(text) == "is unknown", "a digest says nothing in another home"


def test_every_other_text_is_unknown(project: Project) -> None:
    text, made = Keys(project).create("shop", ["score"])
    keys = Keys(project)
    found = keys.caller(text)
    assert isinstance(found, Caller)
    assert (found.who, found.scopes) == ("key:shop", {"score"})
    wrong = [text[:-1], text + "A", text[:-1] + ("B" if text[-1] == "A" else "A"), text.upper(), made.id, made.digest]
    wrong += [f"fa_{made.id}_", f"fa_{made.id}_{made.digest[:32]}", text + "\n", text.replace("fa_", "fk_"), "fa_é", ""]
    assert {keys.caller(other) for other in wrong} == {"is unknown"}


def test_what_another_process_does_is_seen_within_a_second(project: Project) -> None:
    gate = Gate(project)
    assert not gate.asks
    text, _ = Keys(project).create("shop", ["read"])
    started = time.monotonic()
    while not isinstance(ask(gate, text), Caller):
        assert time.monotonic() - started < 1
        time.sleep(0.02)
    assert isinstance(ask(gate, text), Caller)
    Keys(project).revoke("shop")
    started = time.monotonic()
    while isinstance(ask(gate, text), Caller):
        assert time.monotonic() - started < 1
        time.sleep(0.02)


def test_a_key_that_expires(project: Project) -> None:
    gate = Gate(project)
    text, _ = Keys(project).create("brief", ["read"], timedelta(seconds=1.5))
    gate._looked = 0
    assert isinstance(ask(gate, text), Caller)
    time.sleep(1.6)
    assert ask(gate, text) == 401


def test_what_is_remembered_is_bounded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = Keys(project).create("shop", ["read"])
    gate = Gate(project)
    for n in range(REMEMBERED + 500):  # spelt in many ways, it is the same key
        headers = [(b"authorization", b"Bearer" + b" " * (n + 1) + text.encode())]
        scope = {"method": "GET", "path": "/v1/tasks", "client": ("192.0.2.1", 1), "headers": headers}
        gate._callers.rate = 0
        asyncio.run(gate.admit(scope, Routes().of("GET", "/v1/tasks")))
    assert len(gate._known) == REMEMBERED
    for n in range(20_000):
        gate._failures.take(f"192.0.2.{n}")
    assert len(gate._failures) == 10_000


def test_token_buckets() -> None:
    now = [0.0]
    buckets = Buckets(2, 3, most=2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 1, 1]
    now[0] += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 1]
    now[0] += 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1], "no more than the burst is saved up"
    assert [buckets.take("b"), buckets.take("c")] == [0, 0]
    assert len(buckets) == 2
    assert [Buckets(0, 1).take("a") for _ in range(9)] == [0] * 9
    slow = Buckets(0.1, 1, clock=lambda: now[0])
    assert [slow.take("a"), slow.take("a"), slow.wait("a"), slow.wait("b")] == [0, 10, 10, 0]


def test_last_use_is_kept_coarsely(project: Project) -> None:
    keys = Keys(project)
    text, made = keys.create("shop", ["read"])
    assert keys.last_used(made) is None
    keys.caller(text)
    at = keys.last_used(made)
    assert at
    assert abs(at.timestamp() - time.time()) < 5


def test_a_file_of_keys_that_was_damaged(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    text, _ = Keys(project).create("shop", ["read"])
    gate = Gate(project)
    for content in ("{", "[]", '{"keys": [{"name": "x"}]}', '{"keys": 7}'):
        draft = project.home / "access" / "damaged"
        draft.write_text(content)
        draft.replace(project.home / "access" / "keys.json")
        gate._looked = 0
        assert isinstance(ask(gate, text), Caller), "a running service goes on with the keys it knew"
        assert "is no file of keys any more" in caplog.text
        caplog.clear()
        with pytest.raises(DataError, match="put back the one of a backup"):
            Keys(project)


def test_names_and_scopes_that_cannot_be(project: Project) -> None:
    keys = Keys(project)
    for name in ("", "Shop", "9", "a b", "a" * 65, "ключ", "a\n"):
        with pytest.raises(DataError, match="is no name for a key"):
            keys.create(name, ["read"])
    with pytest.raises(UnknownName, match='reed: no such scope; did you mean "read"'):
        keys.create("shop", ["reed"])
    with pytest.raises(DataError, match="expected at least one scope, got none"):
        keys.create("shop", [])
    keys.create("shop", ["read"])
    with pytest.raises(DataError, match="is the name of a key already"):
        keys.create("shop", ["read"])
    keys.revoke("shop")
    with pytest.raises(DataError, match="the audit knows it by this name, in use or revoked"):
        keys.create("shop", ["read"])
    with pytest.raises(UnknownName, match="shop: no such key in use; none is known yet"):
        keys.revoke("shop")


def test_keys_made_at_once_are_all_kept(project: Project) -> None:
    made = "import sys; from foretell.project import Project; from serving.access.keys import Keys\n"
    made += "for n in range(5): Keys(Project.find(sys.argv[1])).create(f'k{sys.argv[2]}-{n}', ['read'])"
    running = [subprocess.Popen([sys.executable, "-c", made, str(project.folder), str(n)], cwd=ROOT) for n in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert len(Keys(project).keys) == 15


def test_the_verbs(foretell: Callable[..., tuple[int, str, str]]) -> None:
    assert foretell("access", "list")[1].startswith("No key yet: `foretell access create NAME")
    code, text, said = foretell(
        "access", "create", "analyst", "--scope", "read", "--scope", "score", "--expires", "90d"
    )
    assert code == 0
    assert re.fullmatch(r"fa_[0-9a-f]{8}_[\w-]{32}\n", text), "alone on standard output, to be put into a variable"
    assert re.match(r"Key analyst with score, read until 20\d\d-\d\d-\d\d \d\d:\d\d UTC: keep it", said)
    assert foretell("access", "create", "till", "--scope", "score")[0] == 0
    code, out, _ = foretell("access", "revoke", "till")
    assert (code, out) == (0, "Revoked till.\n")
    listed = foretell("access", "list")[1]
    assert text.strip() not in listed
    assert re.search(r"analyst +score read +20\d\d-.* never +in use", listed)
    assert re.search(r"till +score .* never +revoked", listed)
    for words in (
        [],
        ["--scope", "all"],
        ["--scope", "read", "--expires", "5"],
        ["--scope", "read", "--expires", "0d"],
    ):
        assert foretell("access", "create", "x", *words)[0] == 2
    assert "no such key in use" in foretell("access", "revoke", "nobody")[2]
    assert "Nobody has read anything yet." in foretell("access", "log")[1]
    shown = foretell("access", "--help")[1]
    for scope, opens in SCOPES.items():
        assert re.search(rf"{scope} +{re.escape(opens)}", shown)


def test_it_listens_where_nobody_else_can_ask(project: Project) -> None:
    for host in ("127.0.0.1", "::1", "127.0.0.8"):
        check_open(project, host, open=False)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(
            DataError, match="there is no key that they would be asked for; `foretell access create NAME"
        ):
            check_open(project, host, open=False)
        check_open(project, host, open=True)
    with pytest.raises(DataError, match=r"expected an address, got 'shop\.example'"):
        check_open(project, "shop.example", open=False)
    Keys(project).create("shop", ["read"])
    check_open(project, "0.0.0.0", open=False)
    with pytest.raises(DataError, match="which nobody would be asked for; leave --open out"):
        check_open(project, "0.0.0.0", open=True)
