"""Who may send events, and to which stream? Write keys of sources, and the secrets that webhooks are signed with.

Of a write key only a hash is kept. A webhook's secret must be known to check a signature: it is kept in the home, in a
file that only its owner may read, or in an environment variable whose name is kept instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from foretell.errors import DataError, unknown
from ingestion.collector.log import folder_of
from ingestion.collector.webhooks import SCHEMES, Scheme

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class Key:
    """A write key: `id` tells several keys of one stream apart. revoked: when, or None."""

    id: str
    stream: str
    sha256: str
    created: str
    revoked: str | None = None


@dataclass(frozen=True)
class Webhook:
    """A sender of signed webhooks. secret, or secret_env: the variable that holds it."""

    stream: str
    scheme: str
    created: str
    secret: str | None = None
    secret_env: str | None = None
    signature_header: str | None = None
    timestamp_header: str | None = None

    def how(self) -> Scheme:
        return SCHEMES[self.scheme].with_headers(self.signature_header, self.timestamp_header)

    def key(self) -> str | None:
        """The secret; None if the variable that should hold it is not set."""
        return self.secret if self.secret is not None else os.environ.get(self.secret_env or "")


class Keys:
    """The keys of a home. What another process changes is seen within a second."""

    def __init__(self, home: Path):
        self.home, self.file = home, home / "collector" / "keys.json"
        self._looked, self._stamp = 0.0, None
        self._by_hash: dict[str, str] = {}
        self.keys: list[Key] = []
        self.webhooks: dict[str, Webhook] = {}
        self._read()

    def stream_of(self, key: str) -> str | None:
        """The stream that a write key may write to."""
        self.refresh()
        return self._by_hash.get(_hash(key))

    def webhook(self, name: str) -> Webhook | None:
        self.refresh()
        return self.webhooks.get(name)

    def refresh(self) -> None:
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            if _stamp(self.file) != self._stamp:
                self._read()

    def new_key(self, stream: str) -> tuple[str, Key]:
        """Make a write key for a stream. Returns the key, which is kept nowhere, and what is kept of it."""
        _check_name(stream)
        if stream in self.webhooks:
            raise DataError(stream, "is the stream of a webhook", "choose another name")
        text = "fk_" + secrets.token_urlsafe(24)
        made = Key(_hash(text)[:8], stream, _hash(text), _now())
        self._open(stream)
        self._write([*self.keys, made], self.webhooks)
        return text, made

    def revoke(self, id: str) -> Key:
        """From now on (for a running collector: within a second) nobody may write with this key."""
        found = next((key for key in self.keys if key.id == id and not key.revoked), None)
        if not found:
            raise unknown("write key in use", id, [key.id for key in self.keys if not key.revoked])
        gone = Key(**{**asdict(found), "revoked": _now()})
        self._write([gone if key is found else key for key in self.keys], self.webhooks)
        return gone

    def new_webhook(
        self, stream: str, scheme: str, *, secret: str | None = None, secret_env: str | None = None,
        signature_header: str | None = None, timestamp_header: str | None = None,
    ) -> tuple[str | None, Webhook]:  # fmt: skip
        """Declare a sender of webhooks. Returns the secret to give to it, if it was made here, and the webhook."""
        _check_name(stream)
        if stream in self.webhooks or stream in {key.stream for key in self.keys}:
            raise DataError(stream, "is a stream already", "choose another name, or revoke that one")
        made = None if secret or secret_env else secrets.token_urlsafe(24)
        if secret and secret_env:
            raise DataError(stream, "got a secret and the name of a variable for it", "give one of them")
        hook = Webhook(stream, scheme, _now(), secret or made, secret_env, signature_header, timestamp_header)
        hook.how().check_secret(secret or made or "")
        self._open(stream)
        self._write(self.keys, {**self.webhooks, stream: hook})
        return made, hook

    def revoke_webhook(self, stream: str) -> None:
        if stream not in self.webhooks:
            raise unknown("webhook", stream, self.webhooks)
        self._write(self.keys, {name: hook for name, hook in self.webhooks.items() if name != stream})

    def _open(self, stream: str) -> None:
        """A stream is there, empty, from its first key on: a contract for it can be loaded."""
        (folder_of(self.home) / stream).mkdir(parents=True, exist_ok=True)

    def _read(self) -> None:
        self._stamp = _stamp(self.file)
        found = json.loads(self.file.read_text()) if self._stamp else {"keys": [], "webhooks": []}
        self.keys = [Key(**fields) for fields in found["keys"]]
        self.webhooks = {fields["stream"]: Webhook(**fields) for fields in found["webhooks"]}
        self._by_hash = {key.sha256: key.stream for key in self.keys if not key.revoked}

    def _write(self, keys: list[Key], webhooks: dict[str, Webhook]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_name(f".keys.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as out:
            json.dump({"keys": [asdict(k) for k in keys], "webhooks": [asdict(w) for w in webhooks.values()]}, out)
            out.flush()
            os.fsync(fd)
        os.replace(draft, self.file)
        self._read()


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        fix = "lower-case letters, digits and _, starting with a letter: web, ios_app"
        raise DataError(repr(name), "is no name of a stream", fix)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()  # of 24 random bytes: nothing to be gained by a slow hash


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
