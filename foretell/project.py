"""Which project folder are we in, and where is its home?"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell import settings
from foretell.errors import Busy, NotReady

if TYPE_CHECKING:
    from foretell.discovery import Definitions

# Nothing a company's customers do is anyone else's business: set before any of these libraries is imported.
os.environ.setdefault("FEAST_USAGE", "False")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")


@dataclass(frozen=True)
class Project:
    """A project folder, its settings, its home and its definitions."""

    folder: Path

    @classmethod
    def find(cls, start: Path | str | None = None) -> Project:
        """The project at `start`, FORETELL_PROJECT, or the nearest folder upwards that holds foretell.toml."""
        given = Path(start or os.environ.get("FORETELL_PROJECT") or Path.cwd()).resolve()
        for folder in (given, *given.parents):
            if (folder / settings.FILE).exists():
                return cls(folder)
        raise NotReady(str(given), f"no {settings.FILE} here or above", "run `foretell init FOLDER`, or pass --project")

    @cached_property
    def settings(self) -> dict[str, settings.Value]:
        return settings.load(self.folder)

    def told(self, **said: Any) -> Project:
        """The same, with the settings that a command's options say; None: the option is left out."""
        for name, value in said.items():
            if value is not None:
                self.settings[name] = settings.Value(value, f"--{name.replace('_', '-')}")
        return self

    def setting(self, name: str) -> Any:
        return self.settings[name].value

    @property
    def home(self) -> Path:
        return self.folder / self.setting("home")

    @property
    def exports(self) -> Path:
        return self.folder / self.setting("exports")

    @property
    def facts_of(self) -> Project:
        """The project whose facts are read: itself, unless it stands for what another one was at an earlier time."""
        return self

    @property
    def now(self) -> datetime:
        """The project's now: the setting `as_of`, else the clock. Whole microseconds, UTC."""
        return self.setting("as_of") or datetime.now(UTC)

    @cached_property
    def definitions(self) -> Definitions:
        from foretell.discovery import discover

        return discover(self.folder)

    @cached_property
    def key(self) -> str:
        """The home's secret: profile ids are derived with it, so that they say nothing to someone without it."""
        file = self.home / "key"
        if not file.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            draft = self.home / f"key.{os.getpid()}"
            draft.write_text(secrets.token_hex(32))
            draft.chmod(0o600)
            try:
                os.link(draft, file)  # atomic, and the first writer wins
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return file.read_text()

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """One writer at a time: the lock goes with the process, so a killed writer leaves none behind."""
        from filelock import FileLock, Timeout

        self.home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home / "writer.lock", timeout=0)
        note = self.home / "writer.txt"
        try:
            lock.acquire()
        except Timeout:
            other = note.read_text() if note.exists() else "another command"
            raise Busy(str(self.home), f"{other} is writing here", "wait for it, or stop it") from None
        try:
            note.write_text(f"`foretell {what}` (process {os.getpid()})")
            yield
        finally:
            lock.release()
