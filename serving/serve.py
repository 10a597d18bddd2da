"""How is the service started and stopped? Publish, check, hand over to BentoML, and say when it answers.

BentoML keeps the worker processes; SIGINT and SIGTERM to this process stop them all.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import click

from foretell.errors import Busy, DataError, NotReady
from foretell.listen import check_port
from foretell.project import Project
from serving.access.gate import Gate
from serving.http.index import Index, file_of
from serving.publish import publish

__all__ = ["Tls", "check_open", "check_port", "prepare", "run"]

SERVICE = "serving.http.service:ForetellService"
GRACE = 10  # seconds that requests get to be answered once the service is told to stop


def prepare(project: Project, progress: Callable[[str], None] = lambda _: None) -> str:
    """Publish what there is, and the id of a profile that can be scored. Refuses a project that nobody can ask."""
    try:
        with project.writing("serve"):
            publish(project, progress)
    except Busy:
        if not file_of(project).exists():
            raise
        click.echo(
            "Another command is writing here: serving what was published before, until it has published.", err=True
        )
    index = Index(project)
    try:
        problems = [task.problem for task in index.tasks.values() if task.problem]
        if len(problems) == len(index.tasks):
            if problems:
                raise NotReady("serve", "nobody has been scored yet", "run `foretell train`, then `foretell score`")
            raise NotReady(
                "serve", "no task is declared", "declare a source that a task can learn from (see the README)"
            )
        return index.example() or ""
    finally:
        index.close()


@dataclass(frozen=True)
class Tls:
    """Files in PEM form: a certificate, with those that vouch for it, and its private key."""

    cert: Path
    key: Path

    def check(self) -> None:
        """Refuse files that a server cannot use, before anything is started."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            problem = f"cannot be used for TLS ({getattr(error, 'reason', None) or error.strerror or error})"
            fix = "give a certificate and its private key, without a passphrase, in PEM form"
            raise DataError(f"{self.cert}, {self.key}", problem, fix) from None


def check_open(project: Project, host: str, *, open: bool) -> None:
    """Refuse to listen where others could ask while nobody would be asked for a key; `open` says that it is meant."""
    asks = Gate(project).asks
    if open and asks:
        fix = "leave --open out; or remove `access/keys.json` from the home and the setting oidc"
        raise DataError("--open", "there are keys or a provider, which nobody would be asked for", fix)
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        fix = "127.0.0.1 for this machine, 0.0.0.0 for all that can reach it"
        raise DataError("--host", f"expected an address, got {host!r}", fix) from None
    if asks or open or here:
        return
    fix = "`foretell access create NAME --scope score` makes a key, which is then asked for; --open serves everybody"
    raise DataError(host, "others can ask there, and there is no key that they would be asked for", fix)


def run(
    project: Project, host: str, port: int, workers: int, example: str, *, collect: bool = False, open: bool = False,
    tls: Tls | None = None,
) -> None:  # fmt: skip
    """Serve until told to stop. collect: take events too. open: ask nobody for a key, wherever they ask from."""
    folder = project.home / "serving" / "bentoml"
    folder.mkdir(parents=True, exist_ok=True)
    # The workers are other processes: what they must know goes by the environment.
    os.environ |= {
        "FORETELL_PROJECT": str(project.folder), "FORETELL_WORKERS": str(workers), "BENTOML_HOME": str(folder),
        "FORETELL_COLLECT": "1" if collect else "", "FORETELL_OPEN": "1" if open else "",
        "FORWARDED_ALLOW_IPS": "",  # uvicorn's: the address of a caller is that of the connection, whatever is said
    }  # fmt: skip
    import logging

    from _bentoml_impl.server.serving import serve_http

    from serving.http.service import ForetellService

    for chatty in ("bentoml", "circus"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    _heed_signals()
    asks = Gate(project).asks
    threading.Thread(target=_announce, args=(host, port, example, asks, bool(tls)), daemon=True).start()
    here = Path(__file__).parents[1]  # never the project's folder, whose modules may have the names of ours
    ForetellService.inject_config()  # as BentoML's own command does
    cert, key = (str(tls.cert.resolve()), str(tls.key.resolve())) if tls else (None, None)
    serve_http(
        SERVICE, working_dir=str(here), host=host, port=port, timeout_graceful_shutdown=GRACE, ssl_certfile=cert,
        ssl_keyfile=key,
    )  # fmt: skip


def _heed_signals() -> None:
    """Circus, by which BentoML runs its processes, drops a signal that comes while it starts them: it is told again."""
    from circus.sighandler import SysHandler

    once = SysHandler.quit

    def until_it_stops(handler: SysHandler) -> None:
        loop = handler.controller.loop

        def tell() -> None:
            once(handler)
            loop.call_later(0.5, tell)

        loop.add_callback_from_signal(tell)

    SysHandler.quit = until_it_stops  # pyright: ignore[reportAttributeAccessIssue]


def _announce(host: str, port: int, example: str, asks: bool, secure: bool) -> None:
    """Say that the service answers, once it does; say why not, whenever that changes."""
    began, said = time.monotonic(), ""
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http{'s' if secure else ''}://{here}:{port}"
    trusting = ssl._create_unverified_context()  # it asks itself, whose certificate may be of another name
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5, context=trusting) as response:
                ready = json.load(response)
            break
        except urllib.error.HTTPError as error:
            found = json.load(error)["error"]
            if (
                found["subject"] != "service"
                and (text := f"{found['subject']}: {found['problem']}; {found['fix']}") != said
            ):
                click.echo(f"Not ready: {text}", err=True)
                said = text
        except (OSError, ValueError):
            pass
        time.sleep(0.5)
    tasks = ", ".join(f"{name} v{t['version']} as of {t['cutoff'][:10]}" for name, t in ready["tasks"].items())
    click.echo(f"Serving {tasks}\nReady after {time.monotonic() - began:.0f} s at {url}, documented at {url}/docs\n")
    body = json.dumps({"profiles": [example], "reasons": True})
    key = ' -H "Authorization: Bearer $KEY"' if asks else ""
    click.echo(f"  curl{key} {url}/v1/profiles/{example}/scores")
    click.echo(f"  curl{key} {url}/v1/scores -H 'Content-Type: application/json' -d '{body}'\n")
    click.echo("Ctrl-C stops it.")
