"""Tokens of an OpenID provider: real key sets, a real server, tokens signed with real keys, and every wrong one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from foretell.errors import DefinitionError, UnknownName
from foretell.project import Project
from serving.access.caller import Caller, Refusal
from serving.access.gate import Gate
from serving.access.routes import Routes
from serving.access.tokens import LEEWAY, Times, Tokens

ISSUER, AUDIENCE = "https://login.example.org/realm", "foretell"
ROLES = {"analyst": ["read", "score"], "support": ["read", "personal"], "operator": ["admin"]}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


@dataclass
class Provider:
    """An OpenID provider's key set, served over HTTP. served: how often; broken: what it answers instead."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    served: int = 0
    broken: int | None = None
    url: str = ""

    def publish(self, key: Any, kid: str, **more: Any) -> None:
        algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        self.keys.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more})


@pytest.fixture(scope="module")
def private() -> dict[str, Any]:
    return {"r1": rsa_key(), "r2": rsa_key(), "e1": ec.generate_private_key(ec.SECP256R1()), "weak": rsa_key(1024)}


@pytest.fixture
def provider(private: dict[str, Any]) -> Iterator[Provider]:
    found = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.served += 1
            body = json.dumps({"keys": found.keys}).encode()
            self.send_response(found.broken or 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/jwks"
    found.publish(private["r1"], "r1", alg="RS256", use="sig")
    found.publish(private["e1"], "e1")
    yield found
    server.shutdown()
    server.server_close()


def project_of(folder: Path, **oidc: Any) -> Project:
    said = {"issuer": ISSUER, "audience": AUDIENCE, "claim": "realm_access.roles", **oidc}
    lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
    roles = [f"{role} = {json.dumps(scopes)}" for role, scopes in ROLES.items()]
    (folder / "foretell.toml").write_text(
        "\n".join(["[foretell]", "[foretell.oidc]", *lines, "[foretell.oidc.roles]", *roles]) + "\n"
    )
    return Project(folder)


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-17", "iat": now, "exp": now + 300}
    said = {**said, "realm_access": {"roles": ["analyst", "unheard_of"]}, **more}
    return {name: value for name, value in said.items() if value is not None}


def sign(key: Any, kid: str | None = "r1", algorithm: str = "RS256", **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers={"kid": kid} if kid else None)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens(provider: Provider, tmp_path: Path) -> Tokens:
    return Tokens.of(project_of(tmp_path, jwks_url=provider.url), Times(again=0)) or pytest.fail("no provider")


def refusal(work: Callable[[], Any], status: int = 401) -> Refusal:
    with pytest.raises(Refusal) as raised:
        work()
    assert raised.value.status == status
    return raised.value


def test_a_genuine_token(tokens: Tokens, private: dict[str, Any]) -> None:
    found = tokens.caller(sign(private["r1"]))
    assert (found.who, found.scopes) == ("oidc:u-17", {"read", "score"})
    assert time.time() + 300 < found.until + 5 <= time.time() + 300 + LEEWAY + 5
    assert tokens.caller(sign(private["e1"], "e1", "ES256", realm_access={"roles": "support"})).scopes == {
        "read", "personal",
    }  # fmt: skip
    assert tokens.caller(sign(private["r1"], None)).who == "oidc:u-17", "the only key of its kind need not be named"
    for nothing in ({}, {"roles": []}, {"roles": 7}, {"roles": ["admin", "score"]}, None):
        assert tokens.caller(sign(private["r1"], realm_access=nothing)).scopes == frozenset()
    many = tokens.caller(sign(private["r1"], aud=["other", AUDIENCE]))
    assert many.scopes == {"read", "score"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"iss": "https://login.example.org/other"}, "it is of another issuer"),
        ({"iss": None}, "it lacks one of"),
        ({"aud": "another"}, "it is meant for another audience"),
        ({"aud": None}, "it lacks one of"),
        ({"exp": int(time.time()) - LEEWAY - 5}, "it has expired"),
        ({"exp": None}, "it lacks one of"),
        ({"nbf": int(time.time()) + 10_000}, "it is not valid yet"),
        ({"iat": int(time.time()) + 10_000}, "it is not valid yet"),
        ({"sub": None}, "it lacks one of"),
        ({"exp": "soon"}, "it is not a token as it should be"),
        ({"sub": 5}, "it is not a token as it should be"),
    ],
    ids=str,
)
def test_what_a_token_says_is_wrong(tokens: Tokens, private: dict[str, Any], more: dict, problem: str) -> None:
    said = refusal(lambda: tokens.caller(sign(private["r1"], **more)))
    assert f"the token is refused: {problem}" in said.problem
    assert 'error="invalid_token"' in said.headers["WWW-Authenticate"]


def test_clocks_may_differ_a_little(tokens: Tokens, private: dict[str, Any]) -> None:
    now = int(time.time())
    assert tokens.caller(sign(private["r1"], exp=now - LEEWAY + 10, nbf=now + LEEWAY - 10)).who == "oidc:u-17"


def test_forged_tokens(tokens: Tokens, private: dict[str, Any], provider: Provider) -> None:
    good = sign(private["r1"])
    head, body, signature = good.split(".")
    import base64

    def packed(said: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()

    public = (
        private["r1"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    import hashlib
    import hmac as mac

    hs_head = packed({"alg": "HS256", "typ": "JWT", "kid": "r1"})
    hs = base64.urlsafe_b64encode(mac.digest(public, f"{hs_head}.{body}".encode(), hashlib.sha256)).rstrip(b"=")
    more = packed(claims(realm_access={"roles": ["operator", "support"]}))
    forged = {
        "its signature is wrong": [f"{head}.{more}.{signature}", f"{head}.{body}.{signature[:-8]}AAAAAAAA",
                                   sign(private["r2"], "r1")],
        "expected a signature by RS256 or ES256": [
            f"{packed({'alg': 'none'})}.{body}.", f"{packed({'alg': 'None', 'kid': 'r1'})}.{body}.{signature}",
            f"{hs_head}.{body}.{hs.decode()}", sign(private["r1"], algorithm="RS512"),
            sign(private["r1"], algorithm="PS256"),
        ],
        "a key that the provider does not have": [
            sign(private["r2"], "r2"), sign(private["e1"], "r1", "ES256"), sign(private["r1"], "e1"),
            sign(private["r2"], "../../etc/passwd"),
        ],
        "it is neither a key nor a token": ["abc", "a.b", "a.b.c.d", f"{head}.{'A' * 20_000}.{signature}"],
        "it is not a token as it should be": ["a.b.c", "..", f".{body}.{signature}", f"{head}.{body}.", "é.é.é"],
    }  # fmt: skip
    for problem, texts in forged.items():
        for text in texts:
            said = refusal(lambda text=text: tokens.caller(text))
            assert problem in said.problem or (text.endswith(".") and "signature" in said.problem), text[:80]
    jku = jwt.encode(claims(), private["r2"], "RS256", headers={"kid": "r2", "jku": provider.url, "jwk": {}})
    refusal(lambda: tokens.caller(jku))


def test_keys_that_may_not_sign(provider: Provider, private: dict[str, Any], tmp_path: Path) -> None:
    """A key for encryption, a short one, a secret one, and what is no key, open nothing and break nothing."""
    provider.publish(private["r2"], "enc", use="enc")
    provider.publish(private["weak"], "weak")
    provider.keys += [{"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}, {"kid": "x"}, 7, {"kty": "RSA"}]  # type: ignore[list-item]
    tokens = Tokens.of(project_of(tmp_path, jwks_url=provider.url), Times(again=0))
    assert tokens
    assert tokens.caller(sign(private["r1"])).who == "oidc:u-17"
    for key, kid in ((private["r2"], "enc"), (private["weak"], "weak")):
        assert "the provider does not have" in refusal(lambda k=key, i=kid: tokens.caller(sign(k, i))).problem
    secret = jwt.encode(claims(), "secret" * 8, "HS256", headers={"kid": "oct"})
    assert "expected a signature by" in refusal(lambda: tokens.caller(secret)).problem


def test_a_new_key_is_fetched_and_an_old_one_goes(provider: Provider, private: dict[str, Any], tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens.of(project_of(tmp_path, jwks_url=provider.url), Times(again=10, fresh=600, good=3_600))
    assert tokens
    tokens.keys._clock = clock
    assert tokens.caller(sign(private["r1"])).who
    for _ in range(3):
        tokens.caller(sign(private["r1"]))
    assert provider.served == 1
    provider.publish(private["r2"], "r2")
    for _ in range(50):  # the rate at which anybody can have the provider asked
        refusal(lambda: tokens.caller(sign(private["r2"], "r2")))
    assert provider.served == 1
    clock.now += 10
    assert tokens.caller(sign(private["r2"], "r2")).who
    assert provider.served == 2
    version = tokens.keys.version
    provider.keys = [key for key in provider.keys if key["kid"] != "r1"]
    assert tokens.caller(sign(private["r1"])).who, "until it is looked again"
    clock.now += 600
    refusal(lambda: tokens.caller(sign(private["r1"])))
    assert (provider.served, tokens.keys.version) == (3, version + 1)


def test_a_provider_that_is_down(provider: Provider, private: dict[str, Any], tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens.of(project_of(tmp_path, jwks_url=provider.url), Times(again=10, fresh=600, good=3_600))
    assert tokens
    tokens.keys._clock = clock
    provider.broken = 500
    said = refusal(lambda: tokens.caller(sign(private["r1"])), 503)
    assert "the token cannot be checked: the key set cannot be fetched (" in said.problem
    assert said.headers["Retry-After"] == "60"
    provider.broken, clock.now = None, clock.now + 10
    assert tokens.caller(sign(private["r1"])).who
    provider.broken, clock.now = 503, clock.now + 3_000
    assert tokens.caller(sign(private["r1"])).who, "known keys go on for a while"
    said = refusal(lambda: tokens.caller(sign(private["r2"], "r2")), 503)
    assert "cannot be fetched" in said.problem, "it may be a new one: nobody can tell"
    clock.now += 700
    refusal(lambda: tokens.caller(sign(private["r1"])), 503)
    provider.broken, provider.keys = None, []
    clock.now += 700
    assert "has no key for RS256 or ES256" in refusal(lambda: tokens.caller(sign(private["r1"])), 503).problem


def test_the_key_set_from_a_file(private: dict[str, Any], provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": provider.keys}))
    tokens = Tokens.of(project_of(tmp_path, jwks_file="keys.json"))
    assert tokens
    assert tokens.caller(sign(private["r1"])).scopes == {"read", "score"}
    (tmp_path / "keys.json").unlink()
    tokens = Tokens.of(project_of(tmp_path, jwks_file="keys.json"))
    assert tokens
    assert "FileNotFoundError" in refusal(lambda: tokens.caller(sign(private["r1"])), 503).problem


@pytest.mark.parametrize("url", ["http://login.example.org/jwks", "file:///etc/passwd", "ftp://127.0.0.1/x", "jwks"])
def test_keys_are_not_fetched_in_the_clear(tmp_path: Path, url: str) -> None:
    with pytest.raises(DefinitionError, match=r"expected an address that begins with https://"):
        Tokens.of(project_of(tmp_path, jwks_url=url))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for more, problem in (
        ({}, "expected jwks_url or jwks_file, one of them"),
        ({"jwks_url": "https://x", "jwks_file": "y"}, "expected jwks_url or jwks_file, one of them"),
        ({"jwks_url": "https://x", "audience": 5}, "audience: expected text, got 5"),
        ({"jwks_url": "https://x", "algorithms": "none"}, "and roles, got algorithms"),
    ):
        with pytest.raises(DefinitionError, match=problem):
            Tokens.of(project_of(tmp_path, **more))
    project = project_of(tmp_path, jwks_url="https://x")
    project.settings["oidc"].value["roles"]["analyst"] = ["reed"]
    with pytest.raises(UnknownName, match='reed: no such scope; did you mean "read"'):
        Tokens.of(project)
    (tmp_path / "foretell.toml").write_text("[foretell]\n")
    assert Tokens.of(Project(tmp_path)) is None


def test_the_gate_takes_them_and_forgets_them_in_time(
    provider: Provider, private: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    gate = Gate(project_of(tmp_path, jwks_url=provider.url), times=Times(again=0))
    assert gate.asks

    def ask(token: str, path: str = "/v1/tasks") -> Caller | None:
        headers = [(b"authorization", b"bearer " + token.encode())]
        scope = {"method": "GET", "path": path, "client": ("192.0.2.1", 1), "headers": headers}
        return asyncio.run(gate.admit(scope, Routes().of("GET", path)))

    token = sign(private["r1"], exp=int(time.time()) + 2)
    first = ask(token)
    assert first
    assert first.who == "oidc:u-17"
    assert ask(token) is first, "it was remembered"
    assert refusal(lambda: ask(token, "/metrics"), 403).problem == "expected the scope admin, got read, score"
    soon = first.until + 0.01
    monkeypatch.setattr(time, "time", lambda: soon)
    monkeypatch.setattr("jwt.api_jwt.datetime", _At(soon))
    assert "it has expired" in refusal(lambda: ask(token)).problem
    monkeypatch.undo()
    other = sign(private["r1"])
    assert ask(other)
    provider.keys = provider.keys[1:]
    gate.tokens.keys._fetched = float("-inf")  # type: ignore[union-attr]
    refusal(lambda: ask(sign(private["r1"], jti="x")))
    assert "does not have" in refusal(lambda: ask(other)).problem, "its key has gone, and with it what was remembered"
    for n in range(30):
        status = 429 if n >= 17 else 401
        said = refusal(lambda: ask(sign(private["r2"], "r1")), status)
    assert said.headers["Retry-After"]


class _At:
    """The module's clock, moved."""

    def __init__(self, at: float):
        self._at = at

    def now(self, tz: Any = None) -> Any:
        from datetime import datetime

        return datetime.fromtimestamp(self._at, tz)
