"""Who holds a key, and what may it be used for? API keys of those who ask; only a keyed digest of each is kept.

A key reads `fa_<id>_<secret>`. Its id stands in lists and finds the digest that the whole text is compared with; the
name says who it is, in the audit for good, so a name is never given again.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foretell.errors import DataError, unknown
from foretell.project import Project
from lake.erasure import digest
from serving.access.caller import SCOPES, Caller

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
_KEY = re.compile(r"fa_([0-9a-f]{8})_[A-Za-z0-9_-]{32}\Z")


@dataclass(frozen=True)
class Key:
    """What is kept of a key. digest: HMAC of its text with the home's key. expires, revoked: when, or None."""

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def refused(self, at: datetime) -> str:
        """Why it opens nothing at an instant; "" if it does."""
        if self.revoked:
            return f"was revoked on {self.revoked:%Y-%m-%d}"
        return f"expired on {self.expires:%Y-%m-%d}" if self.expires and self.expires <= at else ""


class Keys:
    """The keys of a project. `refresh` sees what another process has changed."""

    def __init__(self, project: Project):
        self._folder, self._secret = project.home / "access", project.key
        self.file = self._folder / "keys.json"
        self._stamp: tuple[int, int] | None = None
        self.keys: list[Key] = []
        self._read()

    def refresh(self) -> bool:
        """Read them again if the file is another than before. True if it was."""
        if _stamp(self.file) == self._stamp:
            return False
        self._read()
        return True

    def caller(self, text: str) -> Caller | str:
        """Who a key is, or why it is nobody's."""
        found = next((k for k in self.keys if k.id == match[1]), None) if (match := _KEY.match(text)) else None
        if not found or not hmac.compare_digest(digest(self._secret, text), found.digest):
            return "is unknown"
        if problem := found.refused(datetime.now(UTC)):
            return problem
        self._used(found)
        until = found.expires.timestamp() if found.expires else float("inf")
        return Caller(f"key:{found.name}", frozenset(found.scopes), until)

    def create(self, name: str, scopes: Iterable[str], lasts: timedelta | None = None) -> tuple[str, Key]:
        """Make a key. Returns its text, which is kept nowhere, and what is kept of it."""
        if not _NAME.match(name):
            fix = "lower-case letters, digits, - and _, starting with a letter: shop_backend"
            raise DataError(repr(name), "is no name for a key", fix)
        wanted = set(scopes)
        if stray := sorted(wanted - set(SCOPES)):
            raise unknown("scope", stray[0], SCOPES)
        if not wanted:
            raise DataError(name, "expected at least one scope, got none", f"--scope, one of {', '.join(SCOPES)}")
        with self._changing():
            if any(key.name == name for key in self.keys):
                fix = "choose another: the audit knows it by this name, in use or revoked"
                raise DataError(name, "is the name of a key already", fix)
            id, now = secrets.token_hex(4), datetime.now(UTC)
            text = f"fa_{id}_{secrets.token_urlsafe(24)}"
            listed = tuple(scope for scope in SCOPES if scope in wanted)
            made = Key(id, name, digest(self._secret, text), listed, now, now + lasts if lasts else None)
            self._write([*self.keys, made])
        return text, made

    def revoke(self, name: str) -> Key:
        """From now on (for a running service: within a second) the key opens nothing."""
        with self._changing():
            found = next((key for key in self.keys if key.name == name and not key.revoked), None)
            if not found:
                raise unknown("key in use", name, [key.name for key in self.keys if not key.revoked])
            gone = replace(found, revoked=datetime.now(UTC))
            self._write([gone if key is found else key for key in self.keys])
        return gone

    def last_used(self, key: Key) -> datetime | None:
        """When it last opened something, to a minute."""
        try:
            return datetime.fromtimestamp((self._folder / "used" / key.id).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def _used(self, key: Key) -> None:
        with suppress(OSError):  # a home that cannot be written to still answers
            (self._folder / "used").mkdir(exist_ok=True)
            (self._folder / "used" / key.id).touch()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self._folder / "lock", timeout=30):
            self.refresh()
            yield

    def _read(self) -> None:
        self._stamp = _stamp(self.file)
        try:
            found = json.loads(self.file.read_text())["keys"] if self._stamp else []
            self.keys = [_key(fields) for fields in found]
        except (ValueError, KeyError, TypeError) as error:
            problem = f"is no file of keys any more ({type(error).__name__})"
            raise DataError(str(self.file), problem, "put back the one of a backup") from None

    def _write(self, keys: list[Key]) -> None:
        draft = self.file.with_name(f".keys.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as out:
            json.dump({"keys": [asdict(key) for key in keys]}, out, default=datetime.isoformat, indent=1)
            out.flush()
            os.fsync(fd)
        os.replace(draft, self.file)
        self._read()


def _key(fields: dict) -> Key:
    at = {name: fields[name] and datetime.fromisoformat(fields[name]) for name in ("created", "expires", "revoked")}
    return Key(**{**fields, **at, "scopes": tuple(fields["scopes"])})


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
