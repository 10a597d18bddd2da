"""`foretell serve` as it is used: by TLS, with keys and tokens; what it logs names nobody and holds no secret.

And docs/access.md is real: its commands run here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from accessing import ROLES, fresh, make_keys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from fixtures_trained import TrainedShop, trained
from test_access_tokens import AUDIENCE, ISSUER, Provider, rsa_key, sign
from test_http import free_port, stopped, until

from foretell import __main__ as program
from foretell.errors import DataError
from foretell.project import Project
from lake import audit
from lake.scan import search
from serving.access.keys import Keys
from serving.access.trail import take_in
from serving.serve import Tls

__all__ = ["trained"]

ROOT = Path(__file__).parents[2]
PHONE = "+4755501234"


def certificate(folder: Path) -> Tls:
    """A certificate that vouches for itself, for this machine."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1)).add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    files = Tls(folder / "cert.pem", folder / "key.pem")
    files.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return files


@dataclass
class Served:
    project: Project
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    client: httpx.Client
    keys: dict[str, str]
    token: str


@pytest.fixture(scope="module")
def served(trained: TrainedShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("secured")
    project, port, log, tls = (
        fresh(trained, folder / "shop"),
        free_port(),
        folder / "log",
        certificate(folder),
    )
    keys, signing, provider = make_keys(project), rsa_key(), Provider()
    provider.publish(signing, "r1")
    (project.folder / "jwks.json").write_text(json.dumps({"keys": provider.keys}))
    file = project.folder / "foretell.toml"
    file.write_text(
        file.read_text() + f'oidc = {{issuer = "{ISSUER}", audience = "{AUDIENCE}", jwks_file = "jwks.json"}}\n'
    )
    command = [sys.executable, "-m", "foretell", "--project", str(project.folder), "serve", "--port", str(port)]
    command += ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder
        )
    trusted = ssl.create_default_context(cafile=str(tls.cert))
    with httpx.Client(base_url=f"https://localhost:{port}", timeout=60, verify=trusted) as client:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(ready, log)
            yield Served(project, process, port, log, client, keys, sign(signing, scope="score personal"))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


@pytest.mark.slow
def test_by_tls_alone(served: Served) -> None:
    assert served.client.get("/livez").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{served.port}/livez", timeout=10)
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"https://localhost:{served.port}/livez", timeout=10)
    with socket.create_connection(("localhost", served.port)) as plain:
        context = ssl._create_unverified_context()
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError, ValueError)), context.wrap_socket(plain):
            pass
    until(lambda: "Ready after" in served.log.read_text(), served.log)
    said = served.log.read_text()
    assert f'curl -H "Authorization: Bearer $KEY" https://127.0.0.1:{served.port}/v1/profiles/' in said


@pytest.mark.slow
def test_keys_and_tokens_from_another_process(served: Served) -> None:
    def status(text: str, path: str = "/v1/profiles/card:40000001/scores") -> int:
        return served.client.get(path, headers={"Authorization": f"Bearer {text}"}).status_code

    assert status(served.keys["score"]) == status(served.token) == 200
    assert status(served.token, "/v1/tasks") == status(served.keys["read"]) == 403
    assert served.client.get("/v1/tasks").status_code == 401
    text, _ = Keys(served.project).create("late", ["score"])
    began = time.monotonic()
    until(lambda: status(text) == 200, served.log)
    Keys(served.project).revoke("late")
    until(lambda: status(text) == 401, served.log)
    assert time.monotonic() - began < 3
    assert served.client.get("/metrics").status_code == 200, "on the same machine"
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        assert served.client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 401


@pytest.mark.slow
def test_what_it_logs_names_nobody_and_holds_no_secret(served: Served) -> None:
    """Every route, by everybody, about people in every spelling; then all that was printed is searched."""
    ask, people = served.client.request, ["person1@example.org", "card:40000003", "40000005", "Name7", f"phone:{PHONE}"]
    secrets = [*served.keys.values(), served.token, served.token[:-6] + "AAAAAA", "fa_12345678_" + "s" * 32]
    for secret in secrets:
        headers = {"Authorization": f"Bearer {secret}"}
        for who in people:
            for path in (f"/v1/profiles/{who}", f"/v1/profiles/{who}/scores", f"/v1/profiles/{who}/nothing", f"/{who}",
                         f"/v1/tasks?who={who}", f"/v1/profiles/{who}/scores?task={who}&reasons={who}"):  # fmt: skip
                assert ask("GET", path, headers=headers).status_code < 500
        for body in ({"profiles": people, "reasons": True, "features": True}, {"profiles": [["Name7"]]},
                     {"profiles": people, "tasks": people}, {"profiles": people, "Name7": PHONE}):  # fmt: skip
            assert ask("POST", "/v1/scores", headers=headers, json=body).status_code < 500
        for content in (json.dumps(people).encode()[:-3], b"person1@example.org", b"\xff" * 9, b"x" * 1_100_000):
            answer = ask("POST", "/v1/scores", headers={**headers, "Content-Type": "application/json"}, content=content)
            assert answer.status_code < 500
        for method in ("PUT", "OPTIONS", "DELETE"):
            ask(method, "/v1/profiles/person1@example.org", headers=headers)
    ask("GET", f"/v1/tasks?key={secrets[0]}", headers={"Cookie": f"key={secrets[0]}", "X-API-Key": secrets[0]})
    ask("GET", "/v1/tasks", headers={"Authorization": "Basic " + "c2VjcmV0LXBhc3N3b3Jk"})
    with socket.create_connection(("127.0.0.1", served.port)) as plain:
        plain.sendall(b"GET /person1@example.org\r\nAuthorization: fa_12345678_\r\n\r\n")
    index = served.project.home / "serving" / "index.db"  # a publication that cannot be read
    whole = index.read_bytes()
    index.write_bytes(b"person1@example.org Name7 " * 400)
    until(lambda: "the publication cannot be used" in served.log.read_text(), served.log)
    index.write_bytes(whole)
    time.sleep(1)
    said = served.log.read_text()
    assert said.count("/v1/profiles/{who:path}") > 100
    assert {re.search(rf" {status} ", said) is not None for status in (200, 401, 403, 404, 413, 422)} == {True}
    lines = [line for line in said.splitlines() if "curl" not in line]  # the example shows an id
    for text in [*people, PHONE, "4755501234", "example.org", "Name", "c2VjcmV0", *secrets]:
        assert not [line for line in lines if text in line], text
    for pattern in (r"p[0-9a-f]{20}", r"\b4000\d{4}\b", r"fa_[0-9a-f]{8}", r"[Bb]earer (?!\$KEY)", r"eyJ", r"\S@\S"):
        assert not [line for line in said.splitlines() if re.search(pattern, line) and "curl" not in line], pattern
    take_in(served.project)
    rows = audit.rows(served.project)
    assert {"key:everything", "key:score", "oidc:u-17"} <= {row["who"] for row in rows}
    assert set(ROLES) - {row["who"].removeprefix("key:") for row in rows} == {"nobody", "wrong", "expired", "revoked"}
    folders = [served.project.home / name for name in ("audit", "access", "lake/audit")]
    assert search(folders, [*people, PHONE, "person1@example.org", "40000003", *secrets]).hits == []


@pytest.mark.slow
def test_what_was_answered_outlives_a_stop(served: Served) -> None:
    before = len(audit.rows(served.project))
    for _ in range(5):
        served.client.get("/v1/profiles/card:40000001/scores", headers={"Authorization": f"Bearer {served.token}"})
    stopped(served.process, signal.SIGTERM, served.port, _without_errors(served.log))
    assert list(audit.folder_of(served.project.home).glob("*.open")) == []
    assert take_in(served.project) == 5
    assert len(audit.rows(served.project)) == before + 5


def _without_errors(log: Path) -> Path:
    """The log, but for what an earlier test has provoked."""
    copy = log.with_name("log of the stop")
    copy.write_text("")
    return copy


def test_certificates_that_cannot_be_used(trained: TrainedShop, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good, other = certificate(tmp_path), tmp_path / "other"
    other.mkdir()
    good.check()
    (tmp_path / "text").write_text("no certificate")
    for wrong in (Tls(good.cert, certificate(other).key), Tls(tmp_path / "text", good.key), Tls(good.key, good.cert)):
        with pytest.raises(DataError, match=r"cannot be used for TLS .*give a certificate and its private key"):
            wrong.check()
    for words, problem in (
        (["--tls-cert", str(good.cert)], "go together"), (["--tls-key", "nowhere"], "does not exist"),
        (["--host", "0.0.0.0"], "others can ask there, and there is no key"),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["foretell", "--project", str(trained.project.folder), "serve", *words])
            with pytest.raises(SystemExit) as stop:
                program.main()
        assert stop.value.code == 2
        assert problem in capsys.readouterr().err


@pytest.mark.slow
def test_the_documented_commands(trained: TrainedShop, tmp_path: Path) -> None:
    project = fresh(trained, tmp_path / "shop")
    text = (ROOT / "docs" / "access.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    script = "\n".join(["set -e -o pipefail", f'foretell() {{ {sys.executable} -m foretell "$@"; }}', *blocks])
    script += "\nkill $(ps -o pid= --ppid $!); wait || true\n"  # the service, below the shell that was put aside
    port = free_port()
    with (tmp_path / "out").open("w") as out:  # not a pipe: the service would hold it open
        done = subprocess.run(
            ["bash", "-c", script.replace("3443", str(port))], cwd=project.folder, timeout=400, stdout=out,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    said = (tmp_path / "out").read_text()
    assert done.returncode == 0, said
    assert re.search(r"support +score read personal +20\d\d", said)
    assert '"results":[{"profile":"person1@example.org","profile_id":"p' in said
    logged = [json.loads(line) for line in (project.folder / "audit.jsonl").read_text().splitlines()]
    assert [(row["who"], row["route"], row["count"]) for row in logged] == [("key:shop_backend", "POST /v1/scores", 1)]
    assert said.count("key:shop_backend") == 2
    toml = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)[0]
    (tmp_path / "foretell.toml").write_text("[foretell]\n" + toml)
    from serving.access.tokens import Tokens

    assert Tokens.of(Project(tmp_path))
